package commitlog

import (
	"context"
	"errors"
	"fmt"
	"hash/crc32"
	"slices"

	"github.com/skeinmq/skein/internal/ident"
)

// do runs step on the sequencer's goroutine, as often as it asks for, and waits until
// done was called. step calls done exactly once, or registers it with the block.
func (l *Log) do(ctx context.Context, step func(s *sequencer, done func(error)) bool) error {
	result := make(chan error, 1)
	done := func(err error) { result <- err }
	err := l.inbox.put(submission{
		step: func(s *sequencer) bool { return step(s, done) },
		fail: done,
	})
	if err != nil {
		return err
	}
	select {
	case err := <-result:
		return err
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// onCommit calls f when everything that was sequenced so far is committed, or failed.
func (s *sequencer) onCommit(f func(error)) { s.cur.acts = append(s.cur.acts, f) }

// parts writes a payload of any size as frames of one kind.
type parts struct {
	h       frameHeader
	payload []byte
	next    int
}

// maxPart keeps control frames from making large blocks.
const maxPart = 256 << 10

// write goes on where it stopped; false: no room at the moment. The first part of an
// opening names its generation.
func (p *parts) write(s *sequencer) bool {
	size := min(maxPart, s.l.cfg.maxFrame())
	count := max(1, (len(p.payload)+size-1)/size)
	for ; p.next < count; p.next++ {
		piece := p.payload[p.next*size : min((p.next+1)*size, len(p.payload))]
		if !s.reserve(frameHeaderSize + len(piece)) {
			return false
		}
		if p.h.kind == frameOpened && p.next == 0 {
			p.h.gen.Frame = ident.Frame{Epoch: s.epoch, Position: s.framePosition()}
		}
		p.h.base, p.h.count = ident.Offset(p.next), int32(count)
		p.h.maxTime = int64(crc32.Checksum(piece, castagnoli))
		s.put(&p.h, piece)
	}
	return true
}

// single writes a frame without payload.
func single(h frameHeader) *parts { return &parts{h: h} }

// begin is Begin.
func (l *Log) begin(ctx context.Context, epoch ident.LogEpoch, named []MapGeneration) error {
	if l.begun.Load() {
		return errors.New("begin log: already begun")
	}
	if epoch <= l.recovered.Epoch {
		return fmt.Errorf("begin log: epoch %d is not above the disk's %d", epoch, l.recovered.Epoch)
	}
	plan, err := l.planBegin(named)
	if err != nil {
		return err
	}
	frames := []*parts{{h: frameHeader{kind: frameEpoch}}}
	for _, r := range plan.forget {
		frames = append(frames, single(frameHeader{kind: frameForgot, gen: r.gen}))
	}
	for i := range plan.seal {
		frames = append(frames, cutFrame(plan.seal[i]))
	}
	err = l.do(ctx, func(s *sequencer, done func(error)) bool {
		s.epoch = epoch
		for len(frames) > 0 {
			ok := true
			if frames[0].h.kind == frameEpoch {
				_, ok = s.appendFrame(&frameHeader{kind: frameEpoch, base: ident.Offset(epoch)}, nil)
			} else {
				ok = frames[0].write(s)
			}
			if !ok {
				return false
			}
			if h := &frames[0].h; h.kind != frameEpoch { // forgotten, or cut at ends that the map has
				s.tell(Update{Kind: UpdateForgotten, Generation: h.gen})
			}
			frames = frames[1:]
		}
		s.onCommit(done)
		return true
	})
	if err != nil {
		return fmt.Errorf("begin log: %w", err)
	}
	l.settle(epoch, plan)
	return nil
}

// beginPlan is what a Begin does to the recovered generations.
type beginPlan struct {
	forget []*run
	open   []*run
	seal   []MapGeneration
	absent []MapGeneration // sealed runs that the disk does not have
}

func (l *Log) planBegin(named []MapGeneration) (beginPlan, error) {
	var p beginPlan
	var errs []error
	seen := map[ident.Generation]bool{}
	for _, m := range named {
		seen[m.Generation] = true
		r := l.table.get(m.Generation)
		switch {
		case r == nil && m.Open:
			errs = append(errs, fmt.Errorf("begin log: the disk does not have generation %s", m.Generation))
		case r == nil && m.Gap: // nothing was written before its disk went away
		case r == nil:
			p.absent = append(p.absent, m)
		case m.Open && r.is(runSealed):
			errs = append(errs, fmt.Errorf("begin log: generation %s was sealed on this disk", m.Generation))
		case m.Open:
			r.bound(m.Ceiling)
			p.open = append(p.open, r)
		default:
			if m.Gap {
				m.Ends = r.endsWithin(m.Ends)
			}
			p.seal = append(p.seal, m)
		}
	}
	for _, r := range l.table.all() {
		if !seen[r.gen] {
			p.forget = append(p.forget, r)
		}
	}
	return p, errors.Join(errs...)
}

// settle makes the plan true in memory, after it is on the disk.
func (l *Log) settle(epoch ident.LogEpoch, p beginPlan) {
	for _, r := range p.forget {
		l.forget(r)
	}
	for _, m := range p.seal {
		r := l.table.get(m.Generation)
		for _, q := range r.cut(m.Ends) {
			l.reportLoss(q)
		}
		l.table.close(r, runSealed)
	}
	for _, m := range p.absent {
		for part, end := range m.Ends {
			l.log.Error("sealed run is not on the disk", "generation", m.Generation.String(), "partition", part.String(), "end", end)
		}
	}
	for _, r := range p.open {
		l.table.setOpen(r)
	}
	// What was recovered takes no more blocks: all but the file begun just now.
	for _, f := range l.files.all() {
		if f.recovered && !f.sealed.Load() {
			l.sealer.queue(f)
		}
	}
	l.epoch.Store(int64(epoch))
	l.begun.Store(true)
}

// reportLoss says loudly that a sealed run ends beyond what the disk holds.
func (l *Log) reportLoss(q *Queue) {
	l.log.Error("sealed run ends beyond the disk", "generation", q.run.gen.String(), "partition", q.partition.String(), "end", int64(q.next))
}

func sortEnds(ends []partitionEnd) {
	slices.SortFunc(ends, func(a, b partitionEnd) int { return a.partition.Compare(b.partition) })
}

func cutFrame(m MapGeneration) *parts {
	ends := make([]partitionEnd, 0, len(m.Ends))
	for p, end := range m.Ends {
		ends = append(ends, partitionEnd{partition: p, end: end})
	}
	sortEnds(ends)
	return &parts{h: frameHeader{kind: frameCut, gen: m.Generation}, payload: appendEnds(nil, ends)}
}

// prepare is Prepare.
func (l *Log) prepare(ctx context.Context, openings []Opening) ([]ident.Frame, error) {
	if !l.begun.Load() {
		return nil, fmt.Errorf("prepare: %w: log not begun", ErrNotOpen)
	}
	out := make([]ident.Frame, len(openings))
	frames := make([]*parts, len(openings))
	for i, o := range openings {
		frames[i] = &parts{
			h:       frameHeader{kind: frameOpened, gen: ident.Generation{Group: o.Group, Epoch: o.Epoch}},
			payload: AppendStates(nil, o.State),
		}
	}
	next := 0
	err := l.do(ctx, func(s *sequencer, done func(error)) bool {
		for ; next < len(frames); next++ {
			if !frames[next].write(s) {
				return false
			}
			gen := frames[next].h.gen
			out[next] = gen.Frame
			s.tellOpened(gen, openings[next].State)
			// A snapshot as of a later position must find it.
			r := l.addPrepared(gen, openings[next].State, s.nowMs)
			r.bound(openings[next].Ceiling)
			s.adopt(r)
		}
		s.onCommit(done)
		return true
	})
	if err != nil {
		return nil, fmt.Errorf("prepare: %w", err)
	}
	return out, nil
}

func (l *Log) addPrepared(gen ident.Generation, states []ident.PartitionState, nowMs int64) *run {
	r := newRun(l, gen)
	for i := range states {
		q := r.getOrMake(states[i].Partition, gen.Frame.Position)
		q.set(&states[i], nowMs)
	}
	l.table.add(r)
	return r
}

// activate is Activate.
func (l *Log) activate(gens []ident.Generation) error {
	return l.do(context.Background(), func(_ *sequencer, done func(error)) bool {
		var errs []error
		for _, gen := range gens {
			r := l.table.get(gen)
			if r == nil || r.is(runSealed) {
				errs = append(errs, fmt.Errorf("activate %s: %w", gen, ErrNotOpen))
				continue
			}
			if r.is(runPrepared) {
				l.table.setOpen(r)
			}
		}
		done(errors.Join(errs...))
		return true
	})
}

// adopt makes the sequencer look after the queues of a run: their producers expire, and
// snapshots tell of them.
func (s *sequencer) adopt(r *run) {
	now := s.l.cfg.Now().UnixMilli()
	for _, q := range r.sorted() {
		if q.prods != nil {
			q.prods.meet(now, s.l.cfg.ProducerExpiry)
			s.producing = append(s.producing, q)
		}
		if !q.listed && q.hasState() {
			q.listed, q.stamp = true, s.stamps
			s.stateful = append(s.stateful, q)
		}
	}
}

// drain waits until everything of the log that was sequenced so far is committed.
func (l *Log) drain(ctx context.Context, first func(s *sequencer) error) error {
	return l.do(ctx, func(s *sequencer, done func(error)) bool {
		if err := first(s); err != nil {
			done(err)
			return true
		}
		s.onCommit(done)
		return true
	})
}

// notify tells every watcher of the run's queues.
func (r *run) notify() {
	for _, q := range r.sorted() {
		q.notify()
	}
}

// drop is Drop.
func (l *Log) drop(ctx context.Context, partitions []ident.Partition) error {
	var queues []*Queue
	for _, r := range l.table.all() {
		for _, p := range partitions {
			if q := r.get(p); q != nil {
				queues = append(queues, q)
			}
		}
	}
	frame := &parts{h: frameHeader{kind: frameDropped}, payload: appendPartitions(nil, partitions)}
	err := l.do(ctx, func(s *sequencer, done func(error)) bool {
		for _, q := range queues {
			s.touch(q)
			q.dropping = true
		}
		if !frame.write(s) {
			return false
		}
		for _, q := range queues {
			q.dropped = true
			s.tell(Update{Kind: UpdateDropped, Generation: q.run.gen, State: ident.PartitionState{Partition: q.partition}})
		}
		s.onCommit(done)
		return true
	})
	if err != nil {
		return fmt.Errorf("drop partitions: %w", err)
	}
	for _, q := range queues {
		q.gone.Store(true) // not before: until the drop is durable, the data must be found again
		q.run.remove(q.partition)
		q.notify()
		l.release(q)
	}
	return nil
}

// setLogStart is Queue.SetLogStart.
func (l *Log) setLogStart(ctx context.Context, q *Queue, to ident.Offset) error {
	return l.do(ctx, func(s *sequencer, done func(error)) bool {
		switch {
		case !q.run.is(runOpen) || q.dropping:
			done(fmt.Errorf("move log start of %s: %w", q.run.gen, ErrNotOpen))
			return true
		case q.run.frozen:
			done(fmt.Errorf("move log start of %s: %w", q.run.gen, ErrFrozen))
			return true
		case to > q.HighWatermark():
			done(fmt.Errorf("move log start to %d, high watermark %d: %w", to, q.HighWatermark(), ErrOutOfRange))
			return true
		case to <= q.pendingStart: // perhaps not yet committed: wait with it
			s.onCommit(done)
			return true
		}
		h := frameHeader{kind: frameLogStart, partition: q.partition, gen: q.run.gen, base: to}
		if _, ok := s.appendFrame(&h, nil); !ok {
			return false
		}
		s.touch(q)
		q.pendingStart = to
		s.tell(Update{Generation: q.run.gen, State: q.marks()})
		s.onCommit(func(err error) {
			if err == nil {
				q.logStart.Store(int64(to))
				q.setFloor(to)
				q.notify()
			}
			done(err)
		})
		return true
	})
}
