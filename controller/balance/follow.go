package balance

import (
	"context"
	"maps"
	"time"

	"github.com/skeinmq/skein/internal/ident"
	"github.com/skeinmq/skein/queuemapper"
)

// history is what moved lately, as the map showed it, whoever asked for it. Every broker keeps it, so that a new active
// controller does not undo what the one before it did.
type history struct {
	moved  map[ident.Group]moved
	parted map[ident.Partition]time.Time
}

func newHistory() history {
	return history{moved: make(map[ident.Group]moved), parted: make(map[ident.Partition]time.Time)}
}

// add takes down what changed between two snapshots.
func (h history) add(c queuemapper.Changes, now time.Time) {
	for _, g := range c.Groups {
		if g.Old == nil || g.New == nil || g.Old.Current() == nil || g.New.Current() == nil {
			continue
		}
		if from := g.Old.Current().Log; from != g.New.Current().Log {
			h.moved[g.New.ID] = moved{at: now, from: from}
		}
	}
	for _, t := range c.Topics {
		if t.Old == nil || t.New == nil || t.Old.ID != t.New.ID {
			continue
		}
		for i := range min(len(t.Old.Partitions), len(t.New.Partitions)) {
			if len(t.New.Partitions[i]) > 1 && last(t.New.Partitions[i]) != last(t.Old.Partitions[i]) {
				h.parted[ident.Partition{Topic: t.New.ID, Index: int32(i)}] = now
			}
		}
	}
}

func last(p queuemapper.Placement) ident.Group { return p[len(p)-1].Group }

// remember tells a planner what moved before it was made.
func (p *Planner) remember(h history) {
	for g, m := range h.moved {
		if was, ok := p.moved[g]; !ok || m.at.Sub(was.at) > 5*time.Second { // otherwise it is the same move, and the planner knows why
			p.moved[g] = m
		}
	}
	maps.Copy(p.parted, h.parted)
}

// forget drops what is no reason for anything any more.
func (h history) forget(before time.Time) {
	maps.DeleteFunc(h.moved, func(_ ident.Group, m moved) bool { return m.at.Before(before) })
	maps.DeleteFunc(h.parted, func(_ ident.Partition, at time.Time) bool { return at.Before(before) })
}

// Follow watches what has moved since NewLoop until ctx ends, also while another broker is the active controller.
func (l *Loop) Follow(ctx context.Context) {
	keep := l.cfg.Limits.withDefaults().Return
	cleaned := time.Now()
	for m := l.began; ; {
		select {
		case <-l.cfg.Store.Watch(m):
		case <-ctx.Done():
			return
		}
		was := m
		m = l.cfg.Store.Map()
		now, changes := time.Now(), m.Changes(was)
		l.mu.Lock()
		l.history.add(changes, now)
		if now.Sub(cleaned) > time.Minute {
			l.history.forget(now.Add(-keep))
			cleaned = now
		}
		l.mu.Unlock()
	}
}
