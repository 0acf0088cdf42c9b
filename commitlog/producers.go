package commitlog

import (
	"cmp"
	"fmt"
	"math"
	"slices"
	"time"

	"github.com/skeinmq/skein/internal/ident"
)

// producer is what deduplication knows of one producer on one queue.
type producer struct {
	id          int64
	txnStart    ident.Offset // -1: no open transaction
	lastTime    int64        // of the newest batch, ms
	seen        int64        // when that one was appended, ms; expiry goes by it
	coordinator int32
	epoch       int16
	kept        uint8  // of batches, oldest first
	toldIn      uint64 // the block whose updates have it
	batches     [batchesKept]ident.ProducerBatch
}

// producers is the deduplication state of one queue. It is owned by whoever owns
// the queue's end: the sequencer, or recovery.
type producers struct {
	list  []producer
	index map[int64]int32 // into list; nil while the list is short
	open  int             // producers with an open transaction
}

// indexFrom is the number of producers from which a map beats a walk.
const indexFrom = 12

func (ps *producers) find(id int64) *producer {
	if ps.index != nil {
		if i, ok := ps.index[id]; ok {
			return &ps.list[i]
		}
		return nil
	}
	for i := range ps.list {
		if ps.list[i].id == id {
			return &ps.list[i]
		}
	}
	return nil
}

func (ps *producers) add(id int64) *producer {
	ps.list = append(ps.list, producer{id: id, epoch: -1, coordinator: -1, txnStart: -1})
	if ps.index != nil {
		ps.index[id] = int32(len(ps.list) - 1)
	} else if len(ps.list) >= indexFrom {
		ps.reindex()
	}
	return &ps.list[len(ps.list)-1]
}

func (ps *producers) reindex() {
	ps.index = nil
	if len(ps.list) < indexFrom {
		return
	}
	ps.index = make(map[int64]int32, len(ps.list))
	for i := range ps.list {
		ps.index[ps.list[i].id] = int32(i)
	}
}

// expire drops producers that were silent since before the given time, in ms, and
// have no open transaction. It returns their ids.
func (ps *producers) expire(before int64) (removed []int64) {
	ps.list = slices.DeleteFunc(ps.list, func(p producer) bool {
		silent := p.txnStart < 0 && p.seen < before
		if silent {
			removed = append(removed, p.id)
		}
		return silent
	})
	if len(removed) > 0 {
		ps.reindex()
	}
	return removed
}

// grace is how long a producer is remembered at least where its age was told by other clocks than this process's own.
const grace = time.Hour

// meet takes producers over whose last appends were dated by other clocks: by clients (their records' timestamps may be as old
// as they like), by another broker, or by the process before, whose clock may have been set since. None of these may
// decide whether a retry is stored twice: all are remembered for a while, and what lies in the future counts as now.
func (ps *producers) meet(nowMs int64, expiry time.Duration) {
	least := nowMs - max(0, expiry-grace).Milliseconds()
	for i := range ps.list {
		p := &ps.list[i]
		p.seen = min(max(p.seen, least), nowMs)
	}
}

// lastSequence is Kafka's increment, which wraps to 0 after MaxInt32.
func lastSequence(first, records int32) int32 {
	delta := records - 1
	if first > math.MaxInt32-delta {
		return delta - (math.MaxInt32 - first) - 1
	}
	return first + delta
}

// follows reports whether next comes right after last.
func follows(last, next int32) bool {
	return next == last+1 && last != math.MaxInt32 || next == 0 && last == math.MaxInt32
}

// duplicate returns the kept batch that f repeats.
func (p *producer) duplicate(f *batchFacts) *ident.ProducerBatch {
	if f.epoch != p.epoch {
		return nil
	}
	last := lastSequence(f.sequence, f.records)
	for i := range p.batches[:p.kept] {
		if b := &p.batches[i]; b.FirstSequence == f.sequence && b.LastSequence == last {
			return b
		}
	}
	return nil
}

// check applies Kafka's rules (ProducerAppendInfo) to a client's batch that is no
// duplicate. A producer that is not known may start anywhere.
func (p *producer) check(f *batchFacts) error {
	switch {
	case p == nil || p.epoch < 0:
		return nil
	case f.epoch < p.epoch:
		return fmt.Errorf("producer %d epoch %d, known %d: %w", f.producer, f.epoch, p.epoch, ErrProducerEpoch)
	case f.epoch != p.epoch:
		if f.sequence != 0 {
			return fmt.Errorf("producer %d sequence %d at new epoch %d: %w", f.producer, f.sequence, f.epoch, ErrSequence)
		}
		return nil
	}
	last := int32(-1)
	if p.kept > 0 {
		last = p.batches[p.kept-1].LastSequence
	}
	if !follows(last, f.sequence) {
		return fmt.Errorf("producer %d sequence %d after %d: %w", f.producer, f.sequence, last, ErrSequence)
	}
	return nil
}

// apply takes an appended batch into the state. It is the same on append and on
// recovery; nowMs is when the batch was appended.
func (ps *producers) apply(f *batchFacts, base ident.Offset, nowMs int64) {
	p := ps.find(f.producer)
	if p == nil {
		p = ps.add(f.producer)
	}
	if f.epoch != p.epoch {
		p.epoch, p.kept = f.epoch, 0
	}
	p.lastTime, p.seen = f.maxTime, nowMs
	if f.control {
		if f.coordinator >= 0 {
			p.coordinator = f.coordinator
		}
		if p.txnStart >= 0 {
			p.txnStart = -1
			ps.open--
		}
		return
	}
	last := base + ident.Offset(f.records) - 1
	if p.kept == batchesKept {
		copy(p.batches[:], p.batches[1:])
		p.kept--
	}
	p.batches[p.kept] = ident.ProducerBatch{
		FirstSequence: f.sequence,
		LastSequence:  lastSequence(f.sequence, f.records),
		LastOffset:    last,
		OffsetDelta:   f.records - 1,
		Timestamp:     f.maxTime,
	}
	p.kept++
	if f.transactional && p.txnStart < 0 {
		p.txnStart = base
		ps.open++
	}
}

// firstOpen is the first offset of any open transaction, or end.
func (ps *producers) firstOpen(end ident.Offset) ident.Offset {
	if ps == nil || ps.open == 0 {
		return end
	}
	for i := range ps.list {
		if at := ps.list[i].txnStart; at >= 0 && at < end {
			end = at
		}
	}
	return end
}

// state exports the producer.
func (p *producer) state() ident.ProducerState {
	return ident.ProducerState{
		ID: p.id, Epoch: p.epoch, CoordinatorEpoch: p.coordinator, TxnStart: p.txnStart,
		LastTimestamp: p.lastTime, Batches: slices.Clone(p.batches[:p.kept]),
	}
}

// export returns every producer, ordered by id.
func (ps *producers) export() []ident.ProducerState {
	if ps == nil || len(ps.list) == 0 {
		return nil
	}
	out := make([]ident.ProducerState, len(ps.list))
	for i := range ps.list {
		out[i] = ps.list[i].state()
	}
	slices.SortFunc(out, func(a, b ident.ProducerState) int { return cmp.Compare(a.ID, b.ID) })
	return out
}

// importProducers is the inverse of export. A timestamp that lies in the future
// counts as now, so that it cannot pin the state; see meet for those of the past.
func importProducers(states []ident.ProducerState, nowMs int64) *producers {
	if len(states) == 0 {
		return nil
	}
	ps := &producers{list: make([]producer, 0, len(states))}
	for i := range states {
		s := &states[i]
		p := producer{
			id: s.ID, epoch: s.Epoch, coordinator: s.CoordinatorEpoch, txnStart: s.TxnStart,
			lastTime: s.LastTimestamp, seen: min(s.LastTimestamp, nowMs),
		}
		kept := s.Batches[max(0, len(s.Batches)-batchesKept):]
		p.kept = uint8(copy(p.batches[:], kept))
		if p.txnStart >= 0 {
			ps.open++
		}
		ps.list = append(ps.list, p)
	}
	ps.reindex()
	return ps
}

// cut forgets what was appended at or past end (O16). A transaction that began
// there never was.
func (ps *producers) cut(end ident.Offset) {
	if ps == nil {
		return
	}
	for i := range ps.list {
		p := &ps.list[i]
		for p.kept > 0 && p.batches[p.kept-1].LastOffset >= end {
			p.kept--
		}
		if p.txnStart >= end {
			p.txnStart = -1
			ps.open--
		}
	}
}
