package controller

import (
	"fmt"
	"io"
	"sync/atomic"

	"github.com/hashicorp/raft"
)

// machine is the state as hashicorp/raft drives it. All its methods but Persist run on
// raft's one applying goroutine.
type machine struct {
	state    *state
	progress *progress
	metrics  *metrics
	// bytes applied since the last snapshot; nudge is told when they pass limit.
	bytes atomic.Int64
	limit int64
	nudge chan<- struct{}
}

// Apply implements raft.FSM.
func (m *machine) Apply(log *raft.Log) any {
	defer m.progress.advance(log.Index)
	m.state.applied = log.Index
	c, err := decodeCommand(log.Data)
	if err != nil {
		// Every voter sees the same bytes and refuses them alike.
		return result{err: err}
	}
	out := m.state.apply(&c)
	m.metrics.applied(&c, out.err)
	if m.bytes.Add(int64(len(log.Data))) >= m.limit {
		select {
		case m.nudge <- struct{}{}:
		default:
		}
	}
	return out
}

// Snapshot implements raft.FSM in constant time.
func (m *machine) Snapshot() (raft.FSMSnapshot, error) {
	m.bytes.Store(0)
	return &snapshot{frozen: m.state.freeze(), metrics: m.metrics}, nil
}

// Restore implements raft.FSM.
func (m *machine) Restore(r io.ReadCloser) error {
	f, err := readSnapshot(r)
	if err != nil {
		return fmt.Errorf("restore: %w", err)
	}
	m.state.thawAll(f)
	m.progress.advance(f.applied)
	return nil
}

type snapshot struct {
	frozen  *frozen
	metrics *metrics
}

// Persist implements raft.FSMSnapshot.
func (s *snapshot) Persist(sink raft.SnapshotSink) error {
	if err := writeSnapshot(sink, s.frozen); err != nil {
		sink.Cancel()
		return err
	}
	s.metrics.snapshots.Inc()
	return sink.Close()
}

// Release implements raft.FSMSnapshot.
func (s *snapshot) Release() {}
