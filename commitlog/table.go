package commitlog

import (
	"cmp"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/skeinmq/skein/internal/ident"
)

// runState is where a generation is in its life on this log.
type runState int32

const (
	runPrepared runState = iota // has an opening frame; takes nothing
	runOpen
	runSealed
	runGone // forgotten, or its queue was dropped
)

// run is one generation on this log.
type run struct {
	log    *Log
	gen    ident.Generation
	state  atomic.Int32 // runState; moves forward only
	frozen bool         // owned by the sequencer
	hold   *hold        // owned by the sequencer: what waits while frozen
	limit  ceiling      // owned by the sequencer, and by Begin before it

	mu     sync.RWMutex
	queues map[ident.Partition]*Queue
}

func newRun(l *Log, gen ident.Generation) *run {
	return &run{log: l, gen: gen, limit: noCeiling, queues: map[ident.Partition]*Queue{}}
}

func (r *run) is(s runState) bool { return runState(r.state.Load()) == s }

func (r *run) get(p ident.Partition) *Queue {
	r.mu.RLock()
	defer r.mu.RUnlock()
	return r.queues[p]
}

// getOrMake returns the partition's queue, made at offset 0 when there is none.
func (r *run) getOrMake(p ident.Partition, since ident.Position) *Queue {
	if q := r.get(p); q != nil {
		return q
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	q := r.queues[p]
	if q == nil {
		q = &Queue{partition: p, run: r, since: since}
		r.queues[p] = q
	}
	return q
}

func (r *run) remove(p ident.Partition) *Queue {
	r.mu.Lock()
	defer r.mu.Unlock()
	q := r.queues[p]
	delete(r.queues, p)
	return q
}

// sorted returns the queues ordered by partition.
func (r *run) sorted() []*Queue {
	r.mu.RLock()
	defer r.mu.RUnlock()
	out := make([]*Queue, 0, len(r.queues))
	for _, q := range r.queues {
		out = append(out, q)
	}
	slices.SortFunc(out, func(a, b *Queue) int { return a.partition.Compare(b.partition) })
	return out
}

func sortQueues(qs []*Queue) {
	slices.SortFunc(qs, func(a, b *Queue) int {
		return compareQueues(a.partition, a.run.gen, b.partition, b.run.gen)
	})
}

// table is every generation on a log, by name and, when open, by group.
type table struct {
	log  *Log
	mu   sync.RWMutex
	runs map[ident.Generation]*run
	open map[ident.Group]*run
}

func newTable(l *Log) *table {
	return &table{log: l, runs: map[ident.Generation]*run{}, open: map[ident.Group]*run{}}
}

func (t *table) get(gen ident.Generation) *run {
	t.mu.RLock()
	defer t.mu.RUnlock()
	return t.runs[gen]
}

func (t *table) openOf(g ident.Group) *run {
	t.mu.RLock()
	defer t.mu.RUnlock()
	return t.open[g]
}

func (t *table) add(r *run) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.runs[r.gen] = r
}

func (t *table) getOrAdd(gen ident.Generation) *run {
	if r := t.get(gen); r != nil {
		return r
	}
	r := newRun(t.log, gen)
	t.add(r)
	return r
}

func (t *table) setOpen(r *run) {
	t.mu.Lock()
	defer t.mu.Unlock()
	r.state.Store(int32(runOpen))
	t.open[r.gen.Group] = r
}

func (t *table) close(r *run, s runState) {
	t.mu.Lock()
	defer t.mu.Unlock()
	r.state.Store(int32(s))
	if t.open[r.gen.Group] == r {
		delete(t.open, r.gen.Group)
	}
	if s == runGone {
		delete(t.runs, r.gen)
	}
}

// all returns every run, ordered by group, then epoch, then opening frame.
func (t *table) all() []*run {
	t.mu.RLock()
	defer t.mu.RUnlock()
	out := make([]*run, 0, len(t.runs))
	for _, r := range t.runs {
		out = append(out, r)
	}
	slices.SortFunc(out, func(a, b *run) int { return compareGenerations(a.gen, b.gen) })
	return out
}

func compareGenerations(a, b ident.Generation) int {
	return cmp.Or(cmp.Compare(a.Group, b.Group), cmp.Compare(a.Epoch, b.Epoch),
		cmp.Compare(a.Frame.Epoch, b.Frame.Epoch), cmp.Compare(a.Frame.Position, b.Frame.Position))
}

// set loads a queue with the state that a generation starts from.
func (q *Queue) set(s *ident.PartitionState, nowMs int64) {
	q.start = s.End
	q.next = s.End
	q.prods = importProducers(s.Producers, nowMs)
	q.pendingStart = s.LogStart
	q.logStart.Store(int64(s.LogStart))
	q.publishEnd()
}

// publishEnd makes everything appended visible: what recovery and opening do, where
// appended means committed.
func (q *Queue) publishEnd() {
	q.lso.Store(int64(q.prods.firstOpen(q.next)))
	q.hw.Store(int64(q.next))
}

// snapshot exports the queue's state as its owner (the sequencer, or recovery) knows
// it. The zero state means that there is nothing to tell.
func (q *Queue) snapshot() ident.PartitionState {
	return ident.PartitionState{
		Partition: q.partition, End: q.next, LogStart: q.pendingStart, Producers: q.prods.export(),
	}
}

func (q *Queue) hasState() bool {
	return q.next != 0 || q.pendingStart != 0 || q.prods != nil && len(q.prods.list) > 0
}
