package failover

import (
	"cmp"

	"github.com/skeinmq/skein/internal/ident"
	"github.com/skeinmq/skein/queuemapper"
)

// Cost is what a group, or all groups of a log, are to a broker, each as a share of what the whole cluster has: 1 is all of
// it. Groups are spread such that each of the four becomes even by itself: much of one does not stand in for another.
type Cost struct {
	Groups, Coordinators, Partitions, Load float64
}

// costWeights say what is made even first where not all can be.
var costWeights = Cost{Groups: 0.05, Coordinators: 0.25, Partitions: 1, Load: 2}

// dot is the weighted product: of a cost with itself, how far it is from nothing.
func (c Cost) dot(o Cost) float64 {
	w := &costWeights
	return w.Groups*c.Groups*o.Groups + w.Coordinators*c.Coordinators*o.Coordinators + w.Partitions*c.Partitions*o.Partitions + w.Load*c.Load*o.Load
}

// Plus is the sum of c and k times o.
func (c Cost) Plus(k float64, o Cost) Cost {
	return Cost{c.Groups + k*o.Groups, c.Coordinators + k*o.Coordinators, c.Partitions + k*o.Partitions, c.Load + k*o.Load}
}

// Compare orders costs of single groups, the least first.
func (c Cost) Compare(o Cost) int { return cmp.Compare(c.dot(c), o.dot(o)) }

// Adding says how much less even a cluster becomes when a group of cost g goes to a broker that has c: the growth of the sum of
// squares. The broker with the least shall have it.
func (c Cost) Adding(g Cost) float64 { return 2*c.dot(g) + g.dot(g) }

// Relief says how much nearer to the mean a broker that has c comes when a group of cost g leaves it. It is no relief if the
// broker that has least would then be where this one was.
func (c Cost) Relief(g, mean, least Cost) float64 {
	return min(2*c.Plus(-1, mean).dot(g)-g.dot(g), 2*c.Plus(-1, least).dot(g)-2.1*g.dot(g))
}

// Evener says how much less uneven two brokers that have c and to become when the first gives the second d more than it gets.
func (c Cost) Evener(to, d Cost) float64 { return 2*c.Plus(-1, to).dot(d) - 2*d.dot(d) }

// Min has the lesser of each.
func (c Cost) Min(o Cost) Cost {
	return Cost{min(c.Groups, o.Groups), min(c.Coordinators, o.Coordinators), min(c.Partitions, o.Partitions), min(c.Load, o.Load)}
}

// Costs returns what each group of a map costs. Of loads only ratios mean anything; they do not count when all are 0.
func Costs(m *queuemapper.Map, load func(ident.Group) float64) func(ident.Group) Cost {
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
