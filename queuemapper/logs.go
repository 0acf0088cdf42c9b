package queuemapper

import (
	"context"
	"fmt"
	"io"
	"slices"

	"github.com/skeinmq/skein/internal/ident"
)

// LogEpochError says that a disk and the log's record do not belong together: the disk is an
// old copy, or the record is another store's. It is an ErrInvalid.
type LogEpochError struct {
	Log    ident.Log
	Record ident.LogEpoch // 0: there is no record
	Begun  ident.LogEpoch // that the record knows of
	Disk   ident.LogEpoch // newest that the disk has begun; 0: none
}

func (e *LogEpochError) Error() string {
	switch {
	case e.Record == 0:
		return fmt.Sprintf("log %s has begun epoch %d on its disk, but the map does not know it", e.Log, e.Disk)
	case e.Record < e.Disk:
		return fmt.Sprintf("log %s has begun epoch %d on its disk, but the map is only at %d: it is older than the disk", e.Log, e.Disk, e.Record)
	}
	return fmt.Sprintf("log %s has begun epoch %d according to the map, but its disk only %d: it is an old copy of the disk", e.Log, e.Begun, e.Disk)
}

// Is makes the error an ErrInvalid.
func (e *LogEpochError) Is(target error) bool { return target == ErrInvalid }

// ReopenLog is the one way to open a log (O15, O17): it registers a new log at epoch 1, or
// moves OPEN(e) or SEALED(e) to OPEN(e+1) with the given host and witness set, comparing the
// record's revision. disk is the newest epoch that the disk has begun. It must lie between what the
// record knows to be begun and the record's epoch: a LogEpochError otherwise. The host writes the new
// epoch down on the disk, then calls BeganLog, and only then serves.
func (s *Store) ReopenLog(ctx context.Context, id ident.Log, host ident.Broker, disk ident.LogEpoch, witnesses []Witness) (*Log, error) {
	// Not from the snapshot: what it has may be from before this broker was away.
	resp, err := s.get(ctx, s.key(keyLog(id)))
	if err != nil {
		return nil, fmt.Errorf("reopen log %s: %w", id, err)
	}
	fresh := &Log{ID: id, Host: host, Epoch: 1, State: LogOpen, Witnesses: slices.Clone(witnesses)}
	var was Log
	if len(resp.Kvs) > 0 {
		l, err := decodeLog(id, resp.Kvs[0].Value, resp.Kvs[0].ModRevision)
		if err != nil {
			return nil, fmt.Errorf("reopen log %s: %w", id, err)
		}
		was = *l
		fresh.Epoch = was.Epoch + 1 // O15: whatever the state, and never the set that was sent before
	}
	if was.Epoch < disk || was.Begun > disk {
		return nil, fmt.Errorf("reopen log: %w", &LogEpochError{Log: id, Record: was.Epoch, Begun: was.Begun, Disk: disk})
	}
	fresh.Begun = disk
	return s.swapLog(ctx, "reopen", was.Revision, fresh)
}

// BeganLog records that the epoch of l, as ReopenLog returned it, is on the log's disk. From then on a
// disk without it is known to be an old copy.
func (s *Store) BeganLog(ctx context.Context, l *Log) (*Log, error) {
	if l.State != LogOpen {
		return nil, fmt.Errorf("begin log %s: %w: it is not open", l.ID, ErrInvalid)
	}
	fresh := *l
	fresh.Begun = l.Epoch
	return s.swapLog(ctx, "begin", l.Revision, &fresh)
}

// SealLog moves a log OPEN(e) → SEALED(e), comparing the revision (O9).
func (s *Store) SealLog(ctx context.Context, l *Log) (*Log, error) {
	if l.State != LogOpen {
		return nil, fmt.Errorf("seal log %s: %w: it is not open", l.ID, ErrInvalid)
	}
	fresh := *l
	fresh.State = LogSealed
	return s.swapLog(ctx, "seal", l.Revision, &fresh)
}

// swapLog writes a log's record, comparing the revision of the one before (O1). The nonce
// makes the bytes this call's own: after a lost answer, finding them means that it won.
func (s *Store) swapLog(ctx context.Context, verb string, revision int64, fresh *Log) (*Log, error) {
	var nonce [8]byte
	if _, err := io.ReadFull(s.cfg.Rand, nonce[:]); err != nil {
		return nil, fmt.Errorf("%s log %s: %w", verb, fresh.ID, err)
	}
	written, err := s.swap(ctx, verb+"_log", keyLog(fresh.ID), revision, encodeLog(fresh, nonce))
	if err != nil {
		return nil, fmt.Errorf("%s log %s: %w", verb, fresh.ID, err)
	}
	fresh.Revision = written
	return fresh, nil
}
