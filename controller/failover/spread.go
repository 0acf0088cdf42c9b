package failover

import (
	"slices"

	"github.com/skeinmq/skein/internal/ident"
	"github.com/skeinmq/skein/queuemapper"
)

// spread gives each orphan a target: the costliest first, each to the target where everything stays most even. Other groups stay
// where they are. The same map and arguments give the same answer.
func (f *Failover) spread(m *queuemapper.Map, orphans []orphan, targets []*queuemapper.Log) []*share {
	shares := make([]*share, len(targets))
	at := make(map[ident.Log]int, len(targets))
	for i, t := range targets {
		shares[i] = &share{target: t}
		at[t.ID] = i
	}
	costOf := costs(m, f.cfg.Load)
	on := make([]Cost, len(targets))
	for g := range m.Groups() {
		if cur := g.Current(); cur != nil {
			if i, ok := at[cur.Log]; ok {
				on[i] = on[i].Plus(1, costOf(g.ID))
			}
		}
	}
	for i := range orphans {
		orphans[i].cost = costOf(orphans[i].group.ID)
	}
	slices.SortStableFunc(orphans, func(a, b orphan) int { return b.cost.Compare(a.cost) })
	for _, o := range orphans {
		to := 0
		for i := range on {
			if on[i].Adding(o.cost) < on[to].Adding(o.cost) {
				to = i
			}
		}
		on[to] = on[to].Plus(1, o.cost)
		shares[to].groups = append(shares[to].groups, o)
	}
	return slices.DeleteFunc(shares, func(sh *share) bool { return len(sh.groups) == 0 })
}

// costs returns what each group of a map costs.
func costs(m *queuemapper.Map, load func(ident.Group) float64) func(ident.Group) Cost {
	groups, partitions, all := 0, 0, 0.0
	for g := range m.Groups() {
		groups++
		partitions += m.Partitions(g.ID)
		all += load(g.ID)
	}
	share := func(part, whole float64) float64 {
		if whole <= 0 {
			return 0
		}
		return part / whole
	}
	return func(g ident.Group) Cost {
		return Cost{
			Groups: 1 / float64(groups), Coordinators: float64(m.Coordinators(g)) / queuemapper.CoordinatorPartitions,
			Partitions: share(float64(m.Partitions(g)), float64(partitions)), Load: share(load(g), all),
		}
	}
}
