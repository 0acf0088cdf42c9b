package commitlog

import (
	"errors"
	"fmt"
	"hash/crc32"

	"github.com/skeinmq/skein/internal/ident"
)

// replay turns frames, in log order, into a table. Recovery and checkpoints share it,
// so that what a checkpoint says is what a recovery would have found.
type replay struct {
	t     *table
	epoch ident.LogEpoch
	from  ident.Position                // the table had the state as of here; frames below it only add places
	parts map[ident.Generation]*partial // states of which not all parts came yet
	index bool                          // add places to the queues' tails
	state []byte                        // newest whole snapshot that the log holds
	quiet []error                       // frames that made no sense
}

// partial collects a state that was written in parts.
type partial struct {
	kind    frameType
	payload []byte
	next    ident.Offset
}

func newReplay(l *Log) *replay {
	return &replay{t: newTable(l), parts: map[ident.Generation]*partial{}}
}

// apply takes one frame of file f.
func (r *replay) apply(f *logFile, fr *frame, clockMs int64) {
	if fr.position < r.from {
		r.old(f, fr)
		return
	}
	var err error
	switch fr.kind {
	case frameData:
		err = r.data(f, fr, clockMs)
	case frameOpened, frameSnapshot, frameCut, frameDropped:
		err = r.part(fr, clockMs)
	case frameLogStart:
		if run := r.t.get(fr.gen); run != nil {
			q := run.getOrMake(fr.partition, fr.position)
			q.pendingStart = max(q.pendingStart, fr.base)
			q.logStart.Store(int64(q.pendingStart))
		}
	case frameEpoch:
		r.epoch = max(r.epoch, ident.LogEpoch(fr.base))
	case frameForgot:
		if run := r.t.get(fr.gen); run != nil {
			r.t.close(run, runGone)
		}
	}
	if err != nil {
		r.quiet = append(r.quiet, fmt.Errorf("frame at %d: %w", fr.position, err))
	}
}

// places reports whether the places of a file's batches are wanted: nothing else knows them.
func (r *replay) places(f *logFile) bool { return r.index && f.index.Load() == nil && !f.covered }

// old takes a frame whose effect on the state is known already.
func (r *replay) old(f *logFile, fr *frame) {
	if fr.kind != frameData || !r.places(f) {
		return
	}
	run := r.t.get(fr.gen)
	if run == nil {
		return
	}
	q := run.get(fr.partition)
	if q == nil || fr.position < q.since || fr.base >= q.next {
		return
	}
	if t := q.tail.Load(); t != nil && t.last().end() > fr.base {
		return
	}
	q.addPlace(f, placeOf(fr))
}

func (r *replay) data(f *logFile, fr *frame, clockMs int64) error {
	run := r.t.getOrAdd(fr.gen)
	q := run.get(fr.partition)
	if q == nil {
		q = run.getOrMake(fr.partition, fr.position)
		q.start, q.next = fr.base, fr.base
	}
	if fr.base < q.next || run.is(runSealed) {
		return fmt.Errorf("%w: offset %d of %s is before its end %d", errBad, fr.base, q.partition, q.next)
	}
	q.next = fr.base + ident.Offset(fr.count)
	if r.places(f) {
		q.addPlace(f, placeOf(fr))
	}
	facts, err := readBatch(fr.payload)
	if err != nil {
		return err
	}
	if facts.producer >= 0 && facts.records == fr.count {
		if q.prods == nil {
			q.prods = &producers{}
		}
		q.prods.apply(&facts, fr.base, clockMs)
	}
	return nil
}

// part takes a frame whose payload may go on in the next frames of its kind.
func (r *replay) part(fr *frame, clockMs int64) error {
	if crc32.Checksum(fr.payload, castagnoli) != uint32(fr.maxTime) {
		return fmt.Errorf("%w: payload crc of frame type %d", errBad, fr.kind)
	}
	p := r.parts[fr.gen]
	if fr.base == 0 {
		p = &partial{kind: fr.kind}
		r.parts[fr.gen] = p
	}
	if p == nil || p.kind != fr.kind || p.next != fr.base {
		return fmt.Errorf("%w: part %d without the one before", errBad, fr.base)
	}
	p.payload = append(p.payload, fr.payload...)
	p.next++
	if p.next < ident.Offset(fr.count) {
		return nil
	}
	delete(r.parts, fr.gen)
	switch fr.kind {
	case frameOpened:
		return r.opened(fr, p.payload, clockMs)
	case frameCut:
		return r.cut(fr, p.payload)
	case frameDropped:
		return r.dropped(p.payload)
	case frameSnapshot:
		r.state = p.payload
	}
	return nil
}

func (r *replay) opened(fr *frame, payload []byte, clockMs int64) error {
	states, err := DecodeStates(payload)
	if err != nil {
		return err
	}
	run := r.t.getOrAdd(fr.gen)
	for i := range states {
		q := run.getOrMake(states[i].Partition, fr.position)
		q.set(&states[i], clockMs)
	}
	return nil
}

func (r *replay) cut(fr *frame, payload []byte) error {
	ends, err := decodeEnds(payload)
	if err != nil {
		return err
	}
	run := r.t.getOrAdd(fr.gen)
	run.cut(endsMap(ends))
	r.t.close(run, runSealed)
	return nil
}

func endsMap(ends []partitionEnd) map[ident.Partition]ident.Offset {
	m := make(map[ident.Partition]ident.Offset, len(ends))
	for _, e := range ends {
		m[e.partition] = e.end
	}
	return m
}

// cut ends every queue of the run at its sealed end (O16): a queue that the ends do
// not name ended where it started.
func (r *run) cut(ends map[ident.Partition]ident.Offset) (lost []*Queue) {
	for _, q := range r.sorted() {
		end, ok := ends[q.partition]
		if !ok {
			end = q.start
		}
		if end > q.next {
			lost = append(lost, q)
		}
		q.prods.cut(end)
		q.next = end
		q.publishEnd()
	}
	return lost
}

func (r *replay) dropped(payload []byte) error {
	ps, err := decodePartitions(payload)
	if err != nil {
		return err
	}
	for _, run := range r.t.all() {
		for _, p := range ps {
			run.remove(p)
		}
	}
	return nil
}

// block applies every frame of a sound block.
func (r *replay) block(f *logFile, h *blockHeader, payload []byte) error {
	r.epoch = max(r.epoch, h.epoch)
	for fr, err := range frames(payload, h.position+blockHeaderSize, h.frames) {
		if err != nil {
			return fmt.Errorf("block at %d: %w", h.position, err)
		}
		r.apply(f, &fr, h.clockMs)
	}
	return nil
}

// done publishes the ends of all queues: what is on the disk counts as committed until
// the map says otherwise.
func (r *replay) done() error {
	for _, run := range r.t.all() {
		for _, q := range run.sorted() {
			q.publishEnd()
		}
	}
	return errors.Join(r.quiet...)
}
