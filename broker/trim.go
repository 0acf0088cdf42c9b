package broker

import (
	"context"
	"errors"

	"github.com/skeinmq/skein/internal/ident"
	"github.com/skeinmq/skein/queuemapper"
)

// trimFrom is how many leading generations of a group must be without anything to read before they are taken out of
// its record: each trim writes the record anew.
const trimFrom = 8

// trimGenerations takes leading generations of which nothing is left to read out of the map, so that the record of a
// group that has moved often stays small. Only groups that are open here are judged: their owner knows the log starts.
//
// A generation in the log of a live broker stays while that broker could not be told that its runs are released: it
// would keep them until it starts again, when it forgets what the map does not name. deaf lists such brokers.
func (b *Broker) trimGenerations(ctx context.Context, deaf map[ident.Broker]bool) {
	m := b.store.Map()
	oldest := b.oldestNeeded(m)
	for g := range m.Groups() {
		if b.host.OpenIn(g) == nil || b.host.Moving(g.ID) {
			continue
		}
		keep := g.Current().Epoch
		if e, ok := oldest[g.ID]; ok {
			keep = min(keep, e)
		}
		for i := range g.Generations {
			gen := &g.Generations[i]
			if l := m.Log(gen.Log); l != nil && deaf[l.Host] && m.Broker(l.Host) != nil {
				keep = min(keep, gen.Epoch)
				break
			}
		}
		if least := trimLeast(m, g); len(g.Generations) <= least || g.Generations[least-1].Epoch >= keep {
			continue
		}
		if _, err := b.store.TrimGenerations(ctx, g, keep); err != nil && !errors.Is(err, queuemapper.ErrConflict) && ctx.Err() == nil {
			b.log.Warn("trim generations", "group", g.ID, "keep", keep, "err", err)
		}
	}
}

// trimLeast is how many generations a trim of the group must take away: trimFrom, but one is enough when the oldest one
// keeps a drained broker from being removed.
func trimLeast(m *queuemapper.Map, g *queuemapper.Group) int {
	if l := m.Log(g.Generations[0].Log); l != nil && m.Drained(l.Host) {
		return 1
	}
	return trimFrom
}

// oldestNeeded is, by group, the epoch of the first generation that some partition still has something to read in. A
// partition whose log start is not known here needs all of its runs.
func (b *Broker) oldestNeeded(m *queuemapper.Map) map[ident.Group]ident.Epoch {
	oldest := make(map[ident.Group]ident.Epoch)
	for t := range m.Topics() {
		known := b.topicByID(t.ID)
		for i := range t.Partitions {
			start := ident.Offset(0)
			if known != nil {
				if p := known.partition(int32(i)); p != nil {
					if run := p.open.Load(); run != nil {
						start = run.queue.LogStart()
					}
				}
			}
			for _, r := range m.Runs(t, int32(i)) {
				g := r.Generation
				if e, ok := oldest[g.Group]; (r.Open || r.End > start) && (!ok || g.Epoch < e) {
					oldest[g.Group] = g.Epoch
				}
			}
		}
	}
	return oldest
}
