package sim

import (
	"slices"

	"github.com/skeinmq/skein/commitlog"
	"github.com/skeinmq/skein/internal/ident"
)

// frameKind is what a frame says.
type frameKind int8

const (
	frameEpoch  frameKind = iota + 1 // an epoch was begun
	frameOpened                      // a generation, with the state it starts from
	frameData                        // one batch
	frameStart                       // a log start moved
	frameCut                         // a generation ended at these ends
	frameForgot                      // a generation is garbage (O3)
)

// frame is one frame of a log. Its index in the log stands for its position.
type frame struct {
	kind    frameKind
	epoch   ident.LogEpoch
	gen     ident.Generation
	part    ident.Partition
	batch   batch
	base    ident.Offset
	states  []ident.PartitionState
	ends    map[ident.Partition]ident.Offset
	partial bool // the map sealed it as a gap
}

// batch is what a producer sends. Record i of it has the content content+i.
type batch struct {
	producer int64 // -1: none
	epoch    int16
	sequence int32
	records  int32
	content  uint64
}

// disk is what survives: frames below durable always, the block that is being written perhaps.
type disk struct {
	id      ident.Log
	frames  []frame
	durable int
	writing int // end of the block that is being written
	index   map[stretch]*contents

	lost  map[stretch][][2]ident.Offset // what was durable and is not any more, and nobody's fault but the disk's
	given bool                          // its log was given up

	detached bool // whoever still has it waits for its writes forever

	changed func(gen ident.Generation) // something durable went away
	stored  func(f *frame)             // something became durable
}

// stretch is one physical queue.
type stretch struct {
	gen  ident.Generation
	part ident.Partition
}

// contents is what a physical queue holds durably, from its first offset on.
type contents struct {
	start ident.Offset
	list  []uint64
}

func newDisk(id ident.Log) *disk { return &disk{id: id, index: map[stretch]*contents{}} }

// at returns what is durably at an offset, 0 if nothing.
func (d *disk) at(gen ident.Generation, p ident.Partition, o ident.Offset) uint64 {
	if c := d.index[stretch{gen, p}]; c != nil && o >= c.start && int(o-c.start) < len(c.list) {
		return c.list[o-c.start]
	}
	return 0
}

// end is the durable end of a physical queue; ok is false when the disk does not have its generation.
func (d *disk) end(gen ident.Generation, p ident.Partition, start ident.Offset) ident.Offset {
	if c := d.index[stretch{gen, p}]; c != nil {
		return c.start + ident.Offset(len(c.list))
	}
	return start
}

// makeDurable moves the durable end and takes what it passes into the index.
func (d *disk) makeDurable(end int) {
	for ; d.durable < end; d.durable++ {
		f := &d.frames[d.durable]
		switch f.kind {
		case frameData:
			key := stretch{f.gen, f.part}
			c := d.index[key]
			if c == nil {
				c = &contents{start: f.base}
				d.index[key] = c
			}
			for i := range f.batch.records {
				c.list = append(c.list, f.batch.content+uint64(i))
			}
		case frameCut:
			for key, c := range d.index { // the order does not matter
				if key.gen != f.gen {
					continue
				}
				end, ok := f.ends[key.part]
				if !ok {
					end = c.start
				}
				c.list = c.list[:min(len(c.list), max(0, int(end-c.start)))]
			}
			d.changed(f.gen)
		case frameForgot:
			for key := range d.index {
				if key.gen == f.gen {
					delete(d.index, key)
				}
			}
			d.changed(f.gen)
		}
		if d.stored != nil {
			d.stored(f)
		}
	}
}

// cut is the end of power or of the process: what was being written is there as a whole or not at all.
func (d *disk) cut(landed bool) {
	if landed && !d.detached {
		d.makeDurable(d.writing)
	}
	d.frames = d.frames[:d.durable]
	d.writing = d.durable
}

// lose makes the disk forget its newest frames, but for a part of what it was given in its last life.
func (d *disk) lose(part func(n int) int) {
	first := d.durable
	for first > 0 && d.frames[first-1].kind != frameEpoch {
		first--
	}
	keep := first + part(d.durable-first)
	was := d.index
	d.frames, d.index, d.durable, d.writing = d.frames[:keep], map[stretch]*contents{}, 0, keep
	stored := d.stored
	d.stored = nil
	d.makeDurable(keep)
	d.stored = stored
	if d.lost == nil {
		d.lost = map[stretch][][2]ident.Offset{}
	}
	for key, c := range was { // the order does not matter
		end := c.start
		if now := d.index[key]; now != nil {
			end = now.start + ident.Offset(len(now.list))
		}
		if to := c.start + ident.Offset(len(c.list)); end < to {
			d.lost[key] = append(d.lost[key], [2]ident.Offset{end, to})
		}
	}
}

// hasLost says whether an offset was on the disk, and went.
func (d *disk) hasLost(gen ident.Generation, p ident.Partition, o ident.Offset) bool {
	for _, r := range d.lost[stretch{gen, p}] {
		if r[0] <= o && o < r[1] {
			return true
		}
	}
	return false
}

// logRun is one generation in a log's memory.
type logRun struct {
	gen    ident.Generation
	state  runState
	frozen bool
	limit  ident.Offset // ceiling, 0: none
	soft   ident.Offset // beyond it more is asked for
	parts  []*logPart   // sorted
}

type runState int8

const (
	runPrepared runState = iota
	runOpen
	runSealed
)

// logPart is one physical queue in a log's memory.
type logPart struct {
	run       *logRun
	part      ident.Partition
	next      ident.Offset // of the next batch
	started   ident.Offset // log start, perhaps not committed
	producers []ident.ProducerState

	start, high, logStart ident.Offset // of the run; committed
}

func (r *logRun) find(p ident.Partition) (int, bool) {
	return slices.BinarySearchFunc(r.parts, p, func(q *logPart, p ident.Partition) int { return q.part.Compare(p) })
}

// get returns a partition of the run, made at offset 0 if there is none.
func (r *logRun) get(p ident.Partition) *logPart {
	i, ok := r.find(p)
	if !ok {
		r.parts = slices.Insert(r.parts, i, &logPart{run: r, part: p})
	}
	return r.parts[i]
}

// bound sets the ceiling. More is asked for when half of what is left is used up.
func (r *logRun) bound(at ident.Offset) {
	top := ident.Offset(0)
	for _, q := range r.parts {
		top = max(top, q.next)
	}
	r.limit, r.soft = at, top+max(at-top, 0)/2
}

// set loads what a generation starts from.
func (q *logPart) set(s *ident.PartitionState) {
	q.start, q.next, q.high = s.End, s.End, s.End
	q.started, q.logStart = s.LogStart, s.LogStart
	q.producers = cloneProducers(s.Producers)
}

func cloneProducers(list []ident.ProducerState) []ident.ProducerState {
	out := slices.Clone(list)
	for i := range out {
		out[i].Batches = slices.Clone(out[i].Batches)
	}
	return out
}

func (q *logPart) snapshot() ident.PartitionState {
	return ident.PartitionState{Partition: q.part, End: q.next, LogStart: q.started, Producers: cloneProducers(q.producers)}
}

func (q *logPart) hasState() bool { return q.next != 0 || q.started != 0 || len(q.producers) > 0 }

// keptBatches is Kafka's window of deduplication.
const keptBatches = 5

// deduplicate applies the rules of idempotence: the first offset of what the batch repeats, or a refusal.
func (q *logPart) deduplicate(b *batch) (first ident.Offset, duplicate bool, err error) {
	if b.producer < 0 {
		return 0, false, nil
	}
	i := slices.IndexFunc(q.producers, func(s ident.ProducerState) bool { return s.ID == b.producer })
	if i < 0 {
		return 0, false, nil
	}
	s := &q.producers[i]
	last := int32(-1)
	for _, x := range s.Batches {
		if x.FirstSequence == b.sequence && x.LastSequence == b.sequence+b.records-1 {
			return x.LastOffset - ident.Offset(x.OffsetDelta), true, nil
		}
		last = x.LastSequence
	}
	if b.sequence != last+1 {
		return 0, false, commitlog.ErrSequence
	}
	return 0, false, nil
}

// apply takes an appended batch into the producers' states.
func (q *logPart) apply(b *batch, base ident.Offset) {
	q.next = base + ident.Offset(b.records)
	if b.producer < 0 {
		return
	}
	i, ok := slices.BinarySearchFunc(q.producers, b.producer, func(s ident.ProducerState, id int64) int { return int(s.ID - id) })
	if !ok {
		q.producers = slices.Insert(q.producers, i, ident.ProducerState{ID: b.producer, Epoch: b.epoch, CoordinatorEpoch: -1, TxnStart: -1})
	}
	s := &q.producers[i]
	fresh := ident.ProducerBatch{
		FirstSequence: b.sequence, LastSequence: b.sequence + b.records - 1, LastOffset: q.next - 1, OffsetDelta: b.records - 1,
	}
	kept := s.Batches[max(0, len(s.Batches)-keptBatches+1):]
	s.Batches = append(slices.Clone(kept), fresh) // what was exported is never changed
}

// cutAt forgets what was appended at or past an end (O16).
func (q *logPart) cutAt(end ident.Offset) {
	q.next, q.high = min(q.next, end), min(q.high, end)
	for i := range q.producers {
		s := &q.producers[i]
		n := len(s.Batches)
		for n > 0 && s.Batches[n-1].LastOffset >= end {
			n--
		}
		s.Batches = slices.Clone(s.Batches[:n])
	}
}

// recovered is what a log's memory is made of after a start: a fold over the durable frames.
func (d *disk) recovered() (runs []*logRun, epoch ident.LogEpoch) {
	byName := map[ident.Generation]*logRun{}
	for i := range d.frames[:d.durable] {
		f := &d.frames[i]
		switch f.kind {
		case frameEpoch:
			epoch = f.epoch
		case frameOpened:
			r := &logRun{gen: f.gen}
			for j := range f.states {
				r.get(f.states[j].Partition).set(&f.states[j])
			}
			byName[f.gen] = r
			runs = append(runs, r)
		case frameData:
			if r := byName[f.gen]; r != nil {
				q := r.get(f.part)
				q.apply(&f.batch, f.base)
				q.high = q.next
			}
		case frameStart:
			if r := byName[f.gen]; r != nil {
				q := r.get(f.part)
				q.started, q.logStart = f.base, f.base
			}
		case frameCut:
			if r := byName[f.gen]; r != nil {
				r.seal(f.ends)
			}
		case frameForgot:
			delete(byName, f.gen)
			runs = slices.DeleteFunc(runs, func(r *logRun) bool { return r.gen == f.gen })
		}
	}
	return runs, epoch
}

// seal ends a run at its ends.
func (r *logRun) seal(ends map[ident.Partition]ident.Offset) {
	r.state = runSealed
	for _, q := range r.parts {
		end, ok := ends[q.part]
		if !ok {
			end = q.start
		}
		q.cutAt(end)
	}
}
