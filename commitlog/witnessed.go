package commitlog

import (
	"context"
	"slices"

	"github.com/skeinmq/skein/internal/ident"
)

// Registrar is the witness side of the commit rule: durable, then registered with
// every witness, then committed (O4).
//
// A log asks Active when it is about to send a block to the disk. While it is false no
// updates are computed and blocks commit once they are durable: that is right only while
// the log's recorded witness set is empty. A joiner's table is complete when Active was switched on
// before Log.Table was asked: everything that the table does not have comes as updates of
// blocks whose end lies past the table's position.
type Registrar interface {
	Active() bool
	// Register is called in commit order, for blocks with updates only, without waiting for
	// the blocks before: many are under way. updates are valid until it returns, and it must not block. done is called exactly once, from
	// any goroutine, when every member has recorded the block and all before it; an error
	// poisons the log (ErrFenced: it was somebody else's doing).
	Register(end ident.Position, updates []Update, done func(error))
}

// UpdateKind says what an Update tells.
type UpdateKind uint8

// Kinds of updates.
const (
	// UpdateState: the queue's marks, and the producers that the block touched.
	UpdateState UpdateKind = iota
	// UpdateOpened: the generation is there, with no state so far. What it starts from follows as UpdateState.
	UpdateOpened
	// UpdateForgotten: the generation has ended here, at ends that the map has; nobody will ask for it again.
	UpdateForgotten
	// UpdateDropped: the partition's state in the generation is gone.
	UpdateDropped
)

// Update is one change of one group commit to the state that a seal must find. Within a block
// they apply in order; each is absolute, so that applying one twice does no harm.
type Update struct {
	Kind       UpdateKind
	Generation ident.Generation
	// State is set for UpdateState: End and LogStart, and in Producers those that the block touched, in no order.
	// Of UpdateDropped only the partition is.
	State ident.PartitionState
	// Removed are producers that were forgotten since the last update (O5). They go before State.Producers, which
	// may have one of them again.
	Removed []int64
}

// Table is the state of every open and prepared generation as of a position: blocks that end
// there or before are in it.
type Table struct {
	At          ident.Position
	Generations []ident.GenerationState // ordered by group, epoch, opening frame; those without state are there, too
}

// Table takes the state as of a position that is committed, without stopping commits.
func (l *Log) Table(ctx context.Context) (Table, error) {
	snap, err := l.takeSnapshot(ctx)
	if err != nil {
		return Table{}, err
	}
	r := newReplay(l)
	at, err := r.decodeSnapshot(snap.buf, l.cfg.Now().UnixMilli())
	if err != nil {
		return Table{}, err
	}
	return Table{At: at, Generations: r.t.states()}, nil
}

// RecoveredTable is the table of a log that was opened but not begun: what the disk says, in
// which everything that was ever acked is (O11, O15).
func (l *Log) RecoveredTable() Table {
	return Table{At: l.recovered.End, Generations: l.table.states()}
}

// states exports every generation that is not sealed. Nobody may be changing the queues.
func (t *table) states() []ident.GenerationState {
	var out []ident.GenerationState
	for _, r := range t.all() {
		if r.is(runSealed) {
			continue
		}
		g := ident.GenerationState{Generation: r.gen}
		for _, q := range r.sorted() {
			if q.hasState() {
				g.Partitions = append(g.Partitions, q.snapshot())
			}
		}
		out = append(out, g)
	}
	return out
}

// witnessed reports whether blocks need updates at the moment.
func (s *sequencer) witnessed() bool { return s.l.cfg.Witness != nil && s.l.cfg.Witness.Active() }

// tell adds an update to the block being built, if anybody wants to know.
func (s *sequencer) tell(u Update) {
	if s.witnessed() {
		s.cur.updates = append(s.cur.updates, u)
	}
}

// tellOpened tells what a generation starts from (O12).
func (s *sequencer) tellOpened(gen ident.Generation, states []ident.PartitionState) {
	if !s.witnessed() {
		return
	}
	s.cur.updates = append(s.cur.updates, Update{Kind: UpdateOpened, Generation: gen})
	for i := range states {
		s.cur.updates = append(s.cur.updates, Update{Generation: gen, State: states[i]})
	}
}

// expire forgets silent producers of a queue, and has the witnesses forget them (O5).
func (s *sequencer) expire(q *Queue, before int64) {
	removed := q.prods.expire(before)
	if len(removed) > 0 && s.witnessed() && !q.run.is(runSealed) {
		s.expired = append(s.expired, expired{q, removed})
	}
}

// expired are the producers of a queue that were forgotten and of which no block told yet.
type expired struct {
	q       *Queue
	removed []int64
}

// collectUpdates says what a block changes, once nothing is added to it any more: what the steps told
// that wrote control frames, forgotten producers, and what its data frames did.
func (s *sequencer) collectUpdates(b *block) {
	if !s.witnessed() {
		b.updates = b.updates[:0]
		s.expired = s.expired[:0]
		return
	}
	for _, e := range s.expired {
		if e.q.live() {
			u := Update{Generation: e.q.run.gen, State: e.q.marks(), Removed: e.removed}
			b.updates = append(b.updates, u)
		}
	}
	clear(s.expired)
	s.expired = s.expired[:0]
	first := len(b.updates)
	for i := range b.entries {
		if q := b.entries[i].q; q.live() && q.toldIn != b.seq {
			q.toldIn, q.toldAt = b.seq, int32(len(b.updates)-first)
			// Nothing of q was sequenced after this block: its marks are the block's.
			b.updates = append(b.updates, Update{Generation: q.run.gen, State: q.marks()})
		}
	}
	s.collectProducers(b, b.updates[first:])
}

// collectProducers adds the producers that the block's data frames touched to the updates of their queues.
func (s *sequencer) collectProducers(b *block, updates []Update) {
	for i := range b.entries {
		e := &b.entries[i]
		if e.producer < 0 || e.q.prods == nil || !e.q.live() {
			continue
		}
		p := e.q.prods.find(e.producer)
		if p == nil || p.toldIn == b.seq {
			continue
		}
		p.toldIn = b.seq
		from := len(b.batches)
		b.batches = append(b.batches, p.batches[:p.kept]...)
		u := &updates[e.q.toldAt]
		u.State.Producers = append(u.State.Producers, ident.ProducerState{
			ID: p.id, Epoch: p.epoch, CoordinatorEpoch: p.coordinator, TxnStart: p.txnStart,
			LastTimestamp: p.lastTime, Batches: slices.Clip(b.batches[from:]),
		})
	}
}

// live reports whether a seal may have to find the queue's state.
func (q *Queue) live() bool {
	return !q.dropped && (q.run.is(runOpen) || q.run.is(runPrepared))
}

// marks is the queue's state without producers.
func (q *Queue) marks() ident.PartitionState {
	return ident.PartitionState{Partition: q.partition, End: q.next, LogStart: q.pendingStart}
}
