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
	costOf := Costs(m, f.cfg.Load)
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
