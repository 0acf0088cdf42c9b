package controller

import (
	"errors"
	"fmt"
)

// What callers branch on.
var (
	// ErrFenced: the partition was claimed by another coordinator (or, of a claim, the owner's
	// epoch is an older one). The write had no effect. Final.
	ErrFenced = errors.New("coordinator fenced")
	// ErrStale: the batch was applied before, or a newer one was. It had no effect now.
	ErrStale = errors.New("batch out of sequence")
	// ErrNotLeader: this controller is not the active one. The write had no effect.
	ErrNotLeader = errors.New("not the active controller")
	// ErrUnknown: the answer was lost. The write may have taken effect, may still, or never
	// will. Claiming the partition anew settles it.
	ErrUnknown = errors.New("outcome unknown")
	// ErrClosed: the controller has stopped. The write had no effect.
	ErrClosed = errors.New("controller closed")
	// ErrTooLarge: the command passes MaxEntryBytes or MaxValueBytes. It had no effect.
	ErrTooLarge = errors.New("command too large")
	// ErrCorrupt: bytes that no version of ours wrote.
	ErrCorrupt = errors.New("corrupt")
	// ErrVersion: bytes of a newer version than this build knows.
	ErrVersion = errors.New("version not supported")
)

// FormatError says what was wrong with stored bytes, and where.
type FormatError struct {
	What   string // which structure
	Offset int    // byte in it
	Detail string
	cause  error // ErrCorrupt or ErrVersion
}

func (e *FormatError) Error() string {
	return fmt.Sprintf("decode %s at byte %d: %s: %v", e.What, e.Offset, e.Detail, e.cause)
}

func (e *FormatError) Unwrap() error { return e.cause }

// PoisonedError: the raft log's disk failed or hung. Nothing is acknowledged any more; the
// process has to end. A failed fsync is never retried.
type PoisonedError struct{ Cause error }

func (e *PoisonedError) Error() string { return "raft log poisoned: " + e.Cause.Error() }

func (e *PoisonedError) Unwrap() error { return e.Cause }
