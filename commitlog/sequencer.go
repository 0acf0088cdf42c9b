package commitlog

import (
	"context"
	"fmt"
	"time"

	"github.com/skeinmq/skein/internal/ident"
)

// sequencer gives every batch its offset and its place. It is one goroutine per
// log: nothing below is touched by any other. It never blocks on I/O.
type sequencer struct {
	l *Log

	pend  []submission // taken from the inbox, from next on to do
	next  int
	batch int // of pend[next].a: the first that is not admitted

	cur    *block
	file   *logFile // takes the next block
	off    int64    // in file
	rolled *logFile // the file before, until the first block of this one is dispatched
	chunk  *chunk

	stopping bool // the inbox is closed; what was in it is still done

	epoch   ident.LogEpoch
	prevEnd ident.Position
	prevCRC uint32
	seq     uint64
	nowMs   int64

	stateful  []*Queue // queues that have, or had, something to tell, in no order
	stamps    uint32   // of snapshots
	snap      *snapshot
	held      int           // batches that wait for the end of a freeze
	holding   map[*run]bool // runs that have such
	producing []*Queue      // queues with producer state, in no order
	sweepAt   int           // progress of the expiry in it
	expired   []expired
}

// run is the sequencing goroutine. It returns when ctx ended and everything that
// was taken is dispatched, or when the log is poisoned.
func (s *sequencer) run(ctx context.Context) {
	stop := ctx.Done()
	for {
		s.nowMs = s.l.cfg.Now().UnixMilli()
		if s.next == len(s.pend) {
			clear(s.pend)
			s.pend = s.l.inbox.take(s.pend[:0])
			s.next = 0
		}
		if s.l.poison() != nil {
			s.giveUp()
			return
		}
		s.admitAll()
		s.l.inbox.left.Store(int64(len(s.pend) - s.next))
		s.stepSnapshot()
		if s.send() {
			continue // there is room again, and of a block that is not written nobody says that it is done
		}
		if s.stopping && s.idle() {
			s.release()
			return
		}
		select {
		case <-s.l.inbox.wake:
		case <-stop:
			s.l.inbox.close(ErrClosed)
			s.refuseAllHeld(ErrClosed)
			stop, s.stopping = nil, true
		}
	}
}

// idle reports whether nothing is left to do after the inbox was closed. What is left is under way, and its end wakes
// the sequencer: a write, a file that is got ready, a step of a snapshot.
func (s *sequencer) idle() bool {
	return s.next == len(s.pend) && s.cur.empty() && s.snap == nil && s.l.inbox.empty()
}

func (s *sequencer) release() {
	if s.chunk != nil {
		s.chunk.unpin()
		s.chunk = nil
	}
}

// giveUp hands everything that nobody will write to the completer, which refuses it.
func (s *sequencer) giveUp() {
	s.l.inbox.close(s.l.poison())
	rest := append(s.pend[s.next:], s.l.inbox.take(nil)...)
	for _, sub := range rest {
		if sub.a != nil {
			sub.a.held++ // it is answered here, and not by what waits of it
		}
	}
	s.refuseAllHeld(s.l.poison())
	for _, sub := range rest {
		if sub.a != nil {
			sub.a.held = 0
			s.cur.dones = append(s.cur.dones, sub.a)
		} else {
			s.cur.acts = append(s.cur.acts, sub.fail)
		}
	}
	s.cur.n = 0
	s.cur.written <- s.l.poison()
	s.l.order <- s.cur
	s.release()
}

// admitAll takes pending submissions into blocks until one finds no room.
func (s *sequencer) admitAll() {
	for ; s.next < len(s.pend); s.next++ {
		sub := &s.pend[s.next]
		if sub.a == nil {
			if !sub.step(s) {
				if !s.noRoom() {
					return
				}
				sub.fail(fmt.Errorf("write to log: %w", ErrFull))
			}
			continue
		}
		for ; s.batch < len(sub.a.Batches); s.batch++ {
			b := &sub.a.Batches[s.batch]
			if b.Queue.run.frozen && s.holdBack(sub.a, b) {
				continue
			}
			if !s.admit(b) {
				return
			}
		}
		s.batch = 0
		if sub.a.held == 0 {
			s.cur.dones = append(s.cur.dones, sub.a)
		}
	}
}

// noRoom reports that the current block has no place because the disk is full: waiting
// would be for ever.
func (s *sequencer) noRoom() bool { return s.cur.n == 0 && s.l.keeper.full.Load() }

// admit gives one batch its offset, or its refusal. It returns false, having changed
// nothing, when there is no room at the moment.
func (s *sequencer) admit(b *Batch) bool {
	q := b.Queue
	b.Result = Result{Base: -1, Timestamp: -1}
	if err := s.refuse(b); err != nil {
		b.Result.Err = err
		return true
	}
	facts := batchFacts{
		producer: b.ProducerID, epoch: b.ProducerEpoch, sequence: b.BaseSequence, records: b.Records,
		maxTime: b.MaxTimestamp, transactional: b.Transactional, control: b.Control, coordinator: -1,
	}
	if b.ProducerID >= 0 {
		if done := s.deduplicate(b, &facts); done {
			return true
		}
	}
	if end := q.next + ident.Offset(b.Records); end > q.run.limit.soft && !s.pass(q.run, end) {
		b.Result.Err = fmt.Errorf("append to %s: offsets up to %d are reserved, more are being asked for: %w", q.run.gen, q.run.limit.at, ErrFrozen)
		return true
	}
	if !s.reserve(frameHeaderSize + len(b.Data)) {
		if s.noRoom() {
			b.Result.Err = fmt.Errorf("append to %s: %w", q.run.gen, ErrFull)
			return true
		}
		return false
	}
	s.touch(q)
	base := q.next
	pos := s.framePosition()
	h := frameHeader{
		kind: frameData, count: b.Records, partition: q.partition, gen: q.run.gen,
		base: base, maxTime: b.MaxTimestamp,
	}
	stampBatch(s.put(&h, b.Data), base, q.run.gen.Epoch)
	q.next = base + ident.Offset(b.Records)
	if b.ProducerID >= 0 {
		if q.prods == nil {
			q.prods = &producers{}
			s.producing = append(s.producing, q)
		}
		q.prods.apply(&facts, base, s.nowMs)
	}
	s.cur.entries = append(s.cur.entries, entry{
		q: q, lso: q.prods.firstOpen(q.next), producer: b.ProducerID,
		p: place{base: base, position: pos, maxTime: b.MaxTimestamp, size: int32(len(b.Data)), count: b.Records},
	})
	b.Result.Base = base
	return true
}

// refuse checks what does not depend on the producer.
func (s *sequencer) refuse(b *Batch) error {
	r := b.Queue.run
	switch {
	case !r.is(runOpen) || b.Queue.dropping:
		return fmt.Errorf("append to %s: %w", r.gen, ErrNotOpen)
	case r.frozen:
		return fmt.Errorf("append to %s: %w", r.gen, ErrFrozen)
	case len(b.Data) < batchHeaderSize || b.Records <= 0:
		return fmt.Errorf("append to %s: %w: %d records in %d bytes", r.gen, errBad, b.Records, len(b.Data))
	case len(b.Data) > s.l.cfg.maxFrame():
		return fmt.Errorf("append to %s: %d bytes: %w", r.gen, len(b.Data), ErrTooLarge)
	case s.l.level() >= LevelRefuse:
		return fmt.Errorf("append to %s: %w", r.gen, ErrFull)
	}
	return nil
}

// deduplicate applies the rules of idempotence and reports whether the batch is
// answered by that: as a duplicate, or refused.
func (s *sequencer) deduplicate(b *Batch, f *batchFacts) bool {
	if b.Control {
		f.coordinator = markerCoordinator(b.Data[batchHeaderSize:])
	}
	ps := b.Queue.prods
	if ps == nil {
		return false
	}
	p := ps.find(b.ProducerID)
	if p != nil && p.txnStart < 0 && p.seen < s.l.expiredBefore(s.nowMs) {
		s.expire(b.Queue, s.l.expiredBefore(s.nowMs))
		p = nil
	}
	if p == nil {
		return false
	}
	if b.Control {
		if b.ProducerEpoch < p.epoch {
			b.Result.Err = fmt.Errorf("marker of producer %d epoch %d, known %d: %w", p.id, b.ProducerEpoch, p.epoch, ErrProducerEpoch)
		}
		return b.Result.Err != nil
	}
	if dup := p.duplicate(f); dup != nil {
		b.Result.Err = ErrDuplicate
		b.Result.Base = dup.LastOffset - ident.Offset(dup.OffsetDelta)
		b.Result.Timestamp = dup.Timestamp
		return true
	}
	b.Result.Err = p.check(f)
	return b.Result.Err != nil
}

// appendFrame adds a frame that is not data; it returns its position, or false when
// there is no room at the moment.
func (s *sequencer) appendFrame(h *frameHeader, payload []byte) (ident.Position, bool) {
	if !s.reserve(frameHeaderSize + len(payload)) {
		return 0, false
	}
	pos := s.framePosition()
	s.put(h, payload)
	return pos, true
}

// framePosition is where the next frame of the current block will lie.
func (s *sequencer) framePosition() ident.Position { return s.cur.pos + ident.Position(s.cur.n) }

// put writes a frame into the current block, where room was reserved, and returns
// the stored payload.
func (s *sequencer) put(h *frameHeader, payload []byte) []byte {
	b := s.cur
	h.length = uint32(len(payload))
	dst := b.buf[b.n : b.n+frameHeaderSize+len(payload)]
	encodeFrameHeader(dst, h, s.framePosition())
	copy(dst[frameHeaderSize:], payload)
	b.n += len(dst)
	b.count++
	return dst[frameHeaderSize:]
}

// reserve makes room for n bytes in the current block, sending it off and beginning
// another when it is full. False: no write slot, or no file, at the moment.
func (s *sequencer) reserve(n int) bool {
	if s.cur.n > 0 {
		if s.cur.n+n <= len(s.cur.buf) {
			return true
		}
		if !s.canSend() {
			return false
		}
		s.send()
	}
	return s.place(n)
}

// place gives the current block, which has none, a place in the log for at least n
// bytes of frames.
func (s *sequencer) place(n int) bool {
	align := s.l.align
	want := (blockHeaderSize + n + align - 1) &^ (align - 1)
	if s.file == nil || s.off+int64(want) > s.file.size {
		next := s.l.keeper.take()
		if next == nil {
			return false
		}
		if s.file != nil {
			s.file.end = s.prevEnd
			s.rolled = s.file
		}
		s.file, s.off = next, fileHeaderSize
		s.l.files.add(next)
	}
	pos := s.file.first + ident.Position(s.off)
	if !s.mirror(pos, want) {
		return false
	}
	from := int(int64(pos) - s.chunk.first.Load())
	limit := max(want, s.l.cfg.MaxBlock&^(align-1))
	limit = min(limit, len(s.chunk.buf)-from, int(s.file.size-s.off))
	b := s.cur
	b.file, b.chunk, b.pos = s.file, s.chunk, pos
	b.buf = s.chunk.buf[from : from+limit : from+limit]
	b.n = blockHeaderSize
	return true
}

// mirror makes s.chunk the memory for the log at pos, with room for want bytes.
func (s *sequencer) mirror(pos ident.Position, want int) bool {
	if c := s.chunk; c != nil {
		from := int64(pos) - c.first.Load()
		if from == int64(c.used) && len(c.buf)-c.used >= max(want, min(s.l.cfg.MaxBlock, len(c.buf))/4) {
			return true
		}
		c.unpin()
		s.chunk = nil
	}
	c, err := s.l.mem.open(pos, want)
	if err != nil {
		s.l.setPoison(fmt.Errorf("build block: %w", err))
		return false
	}
	s.chunk = c
	return true
}

// canSend reports whether a block may go to the writers now: beside another write only when it is large. A small one gets more company
// while it waits, and a write costs much the same whatever its size (ADR 4).
func (s *sequencer) canSend() bool {
	n := s.l.inFlight.Load()
	return (n == 0 || n < int64(s.l.cfg.WritesInFlight) && s.cur.n >= s.l.cfg.MaxBlock/4) && s.l.piped.Load() < maxPiped
}

// maxPiped bounds the blocks between their dispatch and their commit.
const maxPiped = 64

// send dispatches the current block if there is one and a slot is free, and says
// whether it did.
func (s *sequencer) send() bool {
	b := s.cur
	if b.empty() || !s.canSend() {
		return false
	}
	s.seq++
	b.seq = s.seq
	s.l.piped.Add(1)
	if b.n == 0 { // nothing to write: only answers, which keep their order
		b.written <- nil
		s.l.order <- b
		s.cur = s.l.spareBlock()
		return true
	}
	h := blockHeader{
		durable: ident.Position(s.l.durable.Load()), prevEnd: s.prevEnd, prevCRC: s.prevCRC,
		epoch: s.epoch, clockMs: s.nowMs,
	}
	b.finish(&h, s.l.align)
	s.prevEnd, s.prevCRC = b.end(), h.crc
	s.off += int64(b.pad)
	s.chunk.used += b.pad
	b.chunk.refs.Add(1)
	if s.rolled != nil {
		b.rollFrom, s.rolled = s.rolled, nil
	}
	s.collectUpdates(b)
	s.l.inFlight.Add(1)
	b.started.Store(time.Now().UnixNano())
	s.l.order <- b
	s.l.writes <- b
	s.cur = s.l.spareBlock()
	s.sweep()
	return true
}

// sweep expires a few producers' states at a time, so that silent producers cost
// no memory for ever.
func (s *sequencer) sweep() {
	if s.seq%64 != 0 {
		return
	}
	before := s.l.expiredBefore(s.nowMs)
	for i := 0; i < 64 && len(s.producing) > 0; i++ {
		s.sweepAt = (s.sweepAt + 1) % len(s.producing)
		q := s.producing[s.sweepAt]
		if q.prods != nil {
			s.expire(q, before)
		}
		if q.prods == nil || len(q.prods.list) == 0 {
			q.prods = nil
			last := len(s.producing) - 1
			s.producing[s.sweepAt] = s.producing[last]
			s.producing = s.producing[:last]
		}
	}
}
