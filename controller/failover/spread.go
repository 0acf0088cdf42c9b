package failover

import (
	"cmp"
	"slices"

	"github.com/skeinmq/skein/internal/ident"
	"github.com/skeinmq/skein/queuemapper"
)

// cost is what a group, or all groups of a log, take of a broker.
type cost struct {
	groups       int
	partitions   int
	coordinators int
	load         float64
}

func (c *cost) add(o cost) {
	c.groups += o.groups
	c.partitions += o.partitions
	c.coordinators += o.coordinators
	c.load += o.load
}

// of expresses a cost as a share of the whole: partitions, load as far as it is known, and, so that coordinators and empty
// groups are spread as well, a little of their numbers. They do not stand in for partitions: those are spread for themselves.
func (c cost) of(all cost) float64 {
	out := 0.1*float64(c.groups)/float64(max(all.groups, 1)) + 0.1*float64(c.coordinators)/float64(max(all.coordinators, 1))
	out += float64(c.partitions) / float64(max(all.partitions, 1))
	if all.load > 0 {
		out += c.load / all.load
	}
	return out
}

// spread gives each orphan a target: the costliest first, each to the target with the least on it. Other groups stay
// where they are. The same map and arguments give the same answer.
func (f *Failover) spread(m *queuemapper.Map, orphans []orphan, targets []*queuemapper.Log) []*share {
	shares := make([]*share, len(targets))
	at := make(map[ident.Log]int, len(targets))
	for i, t := range targets {
		shares[i] = &share{target: t}
		at[t.ID] = i
	}
	costOf := func(g *queuemapper.Group) cost {
		return cost{groups: 1, partitions: m.Partitions(g.ID), coordinators: m.Coordinators(g.ID), load: f.cfg.Load(g.ID)}
	}
	var all cost
	on := make([]cost, len(targets))
	for g := range m.Groups() {
		c := costOf(g)
		all.add(c)
		if cur := g.Current(); cur != nil {
			if i, ok := at[cur.Log]; ok {
				on[i].add(c)
			}
		}
	}
	for i := range orphans {
		orphans[i].cost = costOf(orphans[i].group)
	}
	slices.SortStableFunc(orphans, func(a, b orphan) int { return cmp.Compare(b.cost.of(all), a.cost.of(all)) })
	for _, o := range orphans {
		to := 0
		for i := range on {
			if on[i].of(all) < on[to].of(all) {
				to = i
			}
		}
		on[to].add(o.cost)
		shares[to].groups = append(shares[to].groups, o)
	}
	return slices.DeleteFunc(shares, func(sh *share) bool { return len(sh.groups) == 0 })
}
