package commitlog

import (
	"context"
	"fmt"
	"io"
)

// loadState returns the newest sound checkpoint's snapshot, or nothing.
func (l *Log) loadState() []byte {
	l.sealer.slots = openCheckpoints(l.fs, l.metaDir, l.id)
	cp, ok, damage := l.sealer.slots.load()
	if damage != nil {
		l.log.Warn("checkpoint is not usable", "log", l.id, "error", damage)
	}
	if !ok {
		return nil
	}
	return cp.payload
}

// writeCheckpoint writes the state as of now to a slot.
func (s *sealer) writeCheckpoint() error {
	snap, err := s.l.takeSnapshot(context.Background())
	if err != nil {
		return fmt.Errorf("write checkpoint: %w", err)
	}
	return s.storeCheckpoint(snap)
}

func (s *sealer) storeCheckpoint(snap *snapshot) error {
	return s.slots.write(snap.at, s.l.currentEpoch(), func(w io.Writer) error {
		_, err := w.Write(snap.buf)
		return err
	})
}

// last writes what makes the next start quick. Run is over: nothing changes any more, and
// this goroutine owns everything.
func (s *sealer) last() {
	l := s.l
	l.damage.tell()
	if !l.begun.Load() {
		return
	}
	snap := &snapshot{result: make(chan error, 1)}
	l.seq.startSnapshot(snap)
	for _, q := range l.seq.stateful[:snap.limit] {
		if q.stamp != snap.stamp {
			snap.add(q)
		}
	}
	if err := s.storeCheckpoint(snap); err != nil {
		l.log.Warn("write checkpoint", "log", l.id, "error", err)
	}
}
