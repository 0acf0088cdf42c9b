package commitlog

import (
	"context"
	"encoding/binary"
	"fmt"

	"github.com/skeinmq/skein/internal/ident"
)

// A snapshot is the state of every queue as of one position of the log: frames below it
// are in, frames from it on are not. The sequencer takes it without stopping: it encodes
// a few queues at a time, and each queue that it is about to change first. The bytes go
// into a checkpoint file (derived), and into the log itself before a file is reclaimed.
//
//	position i64, log epoch i64, runs u32, then per run: group i32, generation epoch i32,
//	opening log epoch i64, opening position i64, sealed u8; then until the end, per queue:
//	run u32, start i64, since i64, state (as in a states list)
type snapshot struct {
	at     ident.Position
	stamp  uint32
	buf    []byte
	runs   map[*run]uint32
	next   int // of the sequencer's stateful queues
	limit  int
	result chan error // one value once everything below at is committed
}

const snapshotRunBytes = 4 + 4 + 8 + 8 + 1

// snapshotStep is how many queues the sequencer encodes between two looks at its inbox.
const snapshotStep = 256

// startSnapshot begins a snapshot as of the next frame.
func (s *sequencer) startSnapshot(snap *snapshot) {
	le := binary.LittleEndian
	snap.at = s.prevEnd
	if s.cur.n > 0 {
		snap.at = s.framePosition()
	}
	s.stamps++
	snap.stamp = s.stamps
	runs := s.l.table.all()
	snap.runs = make(map[*run]uint32, len(runs))
	snap.buf = le.AppendUint64(snap.buf[:0], uint64(snap.at))
	snap.buf = le.AppendUint64(snap.buf, uint64(s.epoch))
	snap.buf = le.AppendUint32(snap.buf, uint32(len(runs)))
	for i, r := range runs {
		snap.runs[r] = uint32(i)
		snap.buf = le.AppendUint32(snap.buf, uint32(r.gen.Group))
		snap.buf = le.AppendUint32(snap.buf, uint32(r.gen.Epoch))
		snap.buf = le.AppendUint64(snap.buf, uint64(r.gen.Frame.Epoch))
		snap.buf = le.AppendUint64(snap.buf, uint64(r.gen.Frame.Position))
		sealed := byte(0)
		if r.is(runSealed) {
			sealed = 1
		}
		snap.buf = append(snap.buf, sealed)
	}
	snap.next, snap.limit = 0, len(s.stateful)
	s.snap = snap
}

// touch is called before the sequencer changes a queue.
func (s *sequencer) touch(q *Queue) {
	if !q.listed {
		q.listed = true
		s.stateful = append(s.stateful, q)
		q.stamp = s.stamps // a snapshot under way began before it had anything
		return
	}
	if s.snap != nil && q.stamp != s.snap.stamp {
		s.snap.add(q)
	}
}

// add encodes one queue.
func (snap *snapshot) add(q *Queue) {
	q.stamp = snap.stamp
	n, ok := snap.runs[q.run]
	if !ok || q.dropping || !q.hasState() {
		return
	}
	snap.buf = binary.LittleEndian.AppendUint32(snap.buf, n)
	snap.buf = binary.LittleEndian.AppendUint64(snap.buf, uint64(q.start))
	snap.buf = binary.LittleEndian.AppendUint64(snap.buf, uint64(q.since))
	st := q.snapshot()
	snap.buf = ident.AppendState(snap.buf, &st)
}

// stepSnapshot goes on with the snapshot under way.
func (s *sequencer) stepSnapshot() {
	snap := s.snap
	if snap == nil {
		return
	}
	end := min(snap.next+snapshotStep, snap.limit)
	for ; snap.next < end; snap.next++ {
		if q := s.stateful[snap.next]; q.stamp != snap.stamp {
			snap.add(q)
		}
	}
	s.l.inbox.wake.poke()
	if snap.next < snap.limit {
		return
	}
	s.snap = nil
	kept := s.stateful[:0]
	for _, q := range s.stateful {
		if !q.dropping {
			kept = append(kept, q)
		}
	}
	clear(s.stateful[len(kept):])
	s.stateful = kept
	s.onCommit(func(err error) { snap.result <- err })
}

// takeSnapshot returns the state as of a position that is committed. One is taken at a time.
func (l *Log) takeSnapshot(ctx context.Context) (*snapshot, error) {
	select {
	case l.snapping <- struct{}{}:
	case <-l.stopped:
		return nil, ErrClosed
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
	snap := &snapshot{result: make(chan error, 1)}
	err := l.inbox.put(submission{
		step: func(s *sequencer) bool {
			s.startSnapshot(snap)
			return true
		},
		fail: func(err error) { snap.result <- err },
	})
	if err != nil {
		<-l.snapping
		return nil, err
	}
	select {
	case err = <-snap.result:
	case <-l.poisoned:
		err = l.poison()
	case <-l.stopped:
		err = ErrClosed
	case <-ctx.Done(): // the sequencer is still at it: the slot is given back when it is done
		l.late.Go(func() {
			select {
			case <-snap.result:
			case <-l.poisoned:
			case <-l.stopped:
			}
			<-l.snapping
		})
		return nil, context.Cause(ctx)
	}
	<-l.snapping
	return snap, err
}

// decodeSnapshot makes a table of a snapshot's bytes.
func (r *replay) decodeSnapshot(b []byte, nowMs int64) (ident.Position, error) {
	d := reader{b: b}
	at := ident.Position(d.u64())
	r.epoch = max(r.epoch, ident.LogEpoch(d.u64()))
	n := d.count(snapshotRunBytes)
	runs := make([]*run, 0, n)
	for ; n > 0 && d.err == nil; n-- {
		gen := ident.Generation{Group: ident.Group(d.u32()), Epoch: ident.Epoch(d.u32())}
		gen.Frame.Epoch = ident.LogEpoch(d.u64())
		gen.Frame.Position = ident.Position(d.u64())
		run := r.t.getOrAdd(gen)
		if d.u8() == 1 {
			r.t.close(run, runSealed)
		}
		runs = append(runs, run)
	}
	for d.err == nil && d.off < len(d.b) {
		i := d.u32()
		start, since := ident.Offset(d.u64()), ident.Position(d.u64())
		st := d.state()
		if d.err != nil {
			break
		}
		if int(i) >= len(runs) {
			return 0, fmt.Errorf("%w: queue of run %d of %d", errSnapshot, i, len(runs))
		}
		q := runs[i].getOrMake(st.Partition, since)
		q.set(&st, nowMs)
		q.start = start
	}
	return at, d.done()
}

// writeSnapshot writes the state into the log and returns the position as of which it is.
func (l *Log) writeSnapshot() (ident.Position, error) {
	snap, err := l.takeSnapshot(context.Background())
	if err != nil {
		return 0, err
	}
	frame := parts{h: frameHeader{kind: frameSnapshot}, payload: snap.buf}
	result := make(chan error, 1)
	err = l.inbox.put(submission{
		step: func(s *sequencer) bool {
			if !frame.write(s) {
				return false
			}
			s.onCommit(func(err error) { result <- err })
			return true
		},
		fail: func(err error) { result <- err },
	})
	if err != nil {
		return 0, err
	}
	select {
	case err = <-result:
	case <-l.poisoned:
		err = l.poison()
	case <-l.stopped:
		err = ErrClosed
	}
	return snap.at, err
}
