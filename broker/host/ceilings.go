package host

import (
	"context"
	"slices"
	"sync"
	"time"

	"github.com/skeinmq/skein/internal/ident"
	"github.com/skeinmq/skein/queuemapper"
)

// How many offsets are reserved at a time above the highest end in a group (ADR 10). A group that comes back for more
// soon gets twice as many the next time, so that what it has in hand lasts through an outage of the map's store.
const (
	ReserveDefault = queuemapper.ReserveDefault

	reserveMax  = 1 << 40
	reserveSoon = 10 * time.Minute
)

// reserves remembers how many offsets each group is given at a time.
type reserves struct {
	mu    sync.Mutex
	first ident.Offset
	by    map[ident.Group]reserve
}

type reserve struct {
	chunk ident.Offset
	at    time.Time // when more was asked for last
}

// ceiling is the ceiling of a group's next generation, after cur (nil: it is the first), with this state.
func (r *reserves) ceiling(group ident.Group, cur *queuemapper.Generation, state []ident.PartitionState) ident.Offset {
	r.mu.Lock()
	defer r.mu.Unlock()
	return queuemapper.NextCeiling(cur, state, max(r.by[group].chunk, r.first))
}

// next is the ceiling for a group that has asked for more.
func (r *reserves) next(group ident.Group, top ident.Offset, now time.Time) ident.Offset {
	r.mu.Lock()
	defer r.mu.Unlock()
	was, known := r.by[group]
	chunk := max(was.chunk, r.first)
	if known && now.Sub(was.at) < reserveSoon {
		chunk = min(2*chunk, reserveMax)
	}
	r.by[group] = reserve{chunk: chunk, at: now}
	return top + chunk
}

// sortState orders a state as opening frames have it.
func sortState(state []ident.PartitionState) {
	slices.SortFunc(state, func(a, b ident.PartitionState) int { return a.Partition.Compare(b.Partition) })
}

// RaiseLow raises the ceilings of the generations in one log that have asked for it. It tries until it has, or ctx ends.
func (h *Host) RaiseLow(ctx context.Context, l *Hosted) {
	for _, low := range l.Log.TakeLowCeilings() {
		to := h.reserves.next(low.Generation.Group, low.End, h.cfg.Now())
		for wait := 10 * time.Millisecond; ; wait = min(2*wait, time.Second) {
			err := h.raiseCeiling(ctx, l, low.Generation, to)
			if err == nil {
				break
			}
			h.log.Warn("reserve more offsets", "group", low.Generation.Group, "err", err)
			if h.cfg.Pause(ctx, wait) != nil {
				return
			}
		}
	}
}

// raiseCeiling raises one ceiling: in the map first, then in the log. A write whose answer was lost is settled by the
// next one, as both compare the same revision; until then the log has what the map surely has.
func (h *Host) raiseCeiling(ctx context.Context, l *Hosted, gen ident.Generation, to ident.Offset) error {
	if len(h.claim(gen.Group)) == 0 { // a move compares the group's revision
		return ErrBusy
	}
	defer h.release(gen.Group)
	g := h.store.Map().Group(gen.Group)
	cur := g.Current()
	if cur == nil || cur.Log != l.ID || generationOf(g.ID, cur) != gen || cur.Ceiling == 0 {
		return nil // it moved on
	}
	if to > cur.Ceiling {
		var err error
		if g, err = h.store.RaiseCeiling(ctx, g, to); err != nil {
			return err
		}
	}
	return l.Log.RaiseCeiling(gen, g.Current().Ceiling)
}
