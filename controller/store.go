package controller

import (
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/raft"
	wal "github.com/hashicorp/raft-wal"
)

// logStore is raft-wal made final: the first write that fails, or hangs longer than stuck,
// poisons it, and nothing is written any more. Without this, raft would step down, elect
// itself again and retry an fsync whose dirty pages the kernel has already dropped.
type logStore struct {
	*wal.WAL
	stuck  time.Duration
	poison chan<- error // gets the first cause
	// running: raft's own goroutine writes. It panics when its term or its vote cannot be written.
	running atomic.Bool

	mu    sync.Mutex
	cause error
}

var errStuck = errors.New("write hangs")

func (s *logStore) write(what string, do func() error) error {
	if err := s.poisoned(); err != nil {
		return err
	}
	stop := s.watch(what)
	err := do()
	stop()
	if err != nil {
		s.fail(fmt.Errorf("%s: %w", what, err))
	}
	// A write that came back after it was given up is not believed either.
	return s.poisoned()
}

// stuckTicks is in how many parts the time is measured after which a write hangs.
const stuckTicks = 8

// watch gives the write up that takes longer than stuck, until it is stopped. Time is counted in ticks: what a stopped
// process sleeps through is one tick, not time that the disk had.
func (s *logStore) watch(what string) (stop func()) {
	var mu sync.Mutex
	over, ticks := false, 0
	var timer *time.Timer
	mu.Lock()
	defer mu.Unlock()
	timer = time.AfterFunc(s.stuck/stuckTicks, func() {
		mu.Lock()
		defer mu.Unlock()
		if over {
			return
		}
		if ticks++; ticks < stuckTicks {
			timer.Reset(s.stuck / stuckTicks)
			return
		}
		s.fail(fmt.Errorf("%s: %w", what, errStuck))
	})
	return func() {
		mu.Lock()
		defer mu.Unlock()
		over = true
		timer.Stop()
	}
}

func (s *logStore) fail(err error) {
	s.mu.Lock()
	first := s.cause == nil
	if first {
		s.cause = &PoisonedError{Cause: err}
	}
	cause := s.cause
	s.mu.Unlock()
	if first {
		s.poison <- cause
	}
}

func (s *logStore) poisoned() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.cause
}

// StoreLog implements raft.LogStore.
func (s *logStore) StoreLog(l *raft.Log) error { return s.StoreLogs([]*raft.Log{l}) }

// StoreLogs implements raft.LogStore.
func (s *logStore) StoreLogs(logs []*raft.Log) error {
	return s.write("append entries", func() error { return s.WAL.StoreLogs(logs) })
}

// DeleteRange implements raft.LogStore.
func (s *logStore) DeleteRange(first, last uint64) error {
	return s.write("truncate entries", func() error { return s.WAL.DeleteRange(first, last) })
}

// Set implements raft.StableStore.
func (s *logStore) Set(key, val []byte) error {
	return s.final(s.write("set", func() error { return s.WAL.Set(key, val) }))
}

// SetUint64 implements raft.StableStore.
func (s *logStore) SetUint64(key []byte, val uint64) error {
	return s.final(s.write("set", func() error { return s.WAL.SetUint64(key, val) }))
}

// final does not return an error to a raft that runs, which would panic: Run ends by the poison, and the process after it,
// in order.
func (s *logStore) final(err error) error {
	if err != nil && s.running.Load() {
		select {}
	}
	return err
}
