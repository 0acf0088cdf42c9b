package commitlog

import (
	"context"
	"fmt"
	"math"
	"sync"

	"github.com/skeinmq/skein/internal/ident"
)

// ceiling bounds the offsets of a generation (ADR 10): the map has promised that nothing in it
// is given an offset at or past at, so that a next owner who cannot ask this disk can start
// there. The owner raises it ahead of need.
type ceiling struct {
	at   ident.Offset
	soft ident.Offset // beyond it something is to be done: ask for more, or refuse
}

var noCeiling = ceiling{at: math.MaxInt64, soft: math.MaxInt64}

// bound sets the run's ceiling, 0 for none. More is asked for when half of what is left above
// its queues' highest end is used up.
func (r *run) bound(at ident.Offset) {
	if at == 0 {
		return
	}
	top := ident.Offset(0)
	r.mu.RLock()
	for _, q := range r.queues {
		top = max(top, q.next)
	}
	r.mu.RUnlock()
	r.limit = ceiling{at: at, soft: top + max(at-top, 0)/2}
}

// pass is asked for every batch that ends beyond the run's soft bound: it has more reserved,
// once, and says whether the batch may be taken meanwhile.
func (s *sequencer) pass(r *run, end ident.Offset) bool {
	if r.limit.soft < r.limit.at || end > r.limit.at {
		s.l.low.add(LowCeiling{Generation: r.gen, End: end})
		r.limit.soft = r.limit.at
	}
	return end <= r.limit.at || plants.noCeiling
}

// LowCeiling is a generation that needs its ceiling raised: a partition has come to End.
type LowCeiling struct {
	Generation ident.Generation
	End        ident.Offset
}

// lowCeilings collects them until the owner takes them.
type lowCeilings struct {
	mu   sync.Mutex
	list map[ident.Generation]ident.Offset
	wake waker // holds one token: the list is not empty
}

func (c *lowCeilings) add(low LowCeiling) {
	c.mu.Lock()
	if c.list == nil {
		c.list = make(map[ident.Generation]ident.Offset)
	}
	c.list[low.Generation] = max(c.list[low.Generation], low.End)
	c.mu.Unlock()
	c.wake.poke()
}

// LowCeilings returns a channel that has a token when TakeLowCeilings has something to give.
func (l *Log) LowCeilings() <-chan struct{} { return l.low.wake }

// TakeLowCeilings returns the generations that need their ceilings raised. The caller answers
// each with RaiseCeiling once the map says so; until then nothing is asked again that can wait.
func (l *Log) TakeLowCeilings() []LowCeiling {
	l.low.mu.Lock()
	defer l.low.mu.Unlock()
	out := make([]LowCeiling, 0, len(l.low.list))
	for gen, end := range l.low.list {
		out = append(out, LowCeiling{gen, end})
	}
	clear(l.low.list)
	return out
}

// RaiseCeiling lets an open or prepared generation give offsets up to a new ceiling, which the
// map has already. It never comes down. ErrNotOpen: there is no such generation any more.
func (l *Log) RaiseCeiling(gen ident.Generation, to ident.Offset) error {
	return l.do(context.Background(), func(_ *sequencer, done func(error)) bool {
		r := l.table.get(gen)
		if r == nil || r.is(runSealed) {
			done(fmt.Errorf("raise ceiling of %s: %w", gen, ErrNotOpen))
			return true
		}
		if to > r.limit.at {
			r.bound(to)
		}
		done(nil)
		return true
	})
}

// endsWithin is where a generation that was sealed at its ceiling really ends: with what the
// disk has, all of which may have been acknowledged.
func (r *run) endsWithin(ends map[ident.Partition]ident.Offset) map[ident.Partition]ident.Offset {
	out := make(map[ident.Partition]ident.Offset)
	for _, q := range r.sorted() {
		if end, ok := ends[q.partition]; ok {
			out[q.partition] = min(end, q.next)
		}
	}
	return out
}
