package balance

import (
	"cmp"
	"fmt"
	"math"
	"slices"
	"time"

	"github.com/skeinmq/skein/internal/ident"
)

// Load is what a group costs its owner, per second.
type Load struct {
	BytesIn   float64
	BatchesIn float64
	ColdReads float64 // bytes that were read from the disk
}

// Below these totals of a cluster loads are noise.
const (
	worthBytes   = 1 << 20
	worthBatches = 200
	worthCold    = 1 << 20
)

// weights are how the shares of the dimensions count.
var weights = Load{BytesIn: 0.5, BatchesIn: 0.3, ColdReads: 0.2}

// weigher turns loads into shares of the whole.
type weigher struct {
	in         Input
	all        Load
	factor     Load // weight of a dimension that is worth it, over its total
	loaded     bool
	groups     float64
	partitions float64
}

func weigh(in Input) *weigher {
	w := &weigher{in: in}
	for g := range in.Map.Groups() {
		w.groups++
		w.partitions += float64(in.Map.Partitions(g.ID) + in.Map.Coordinators(g.ID))
		l := in.Loads[g.ID]
		w.all.BytesIn += l.BytesIn
		w.all.BatchesIn += l.BatchesIn
		w.all.ColdReads += l.ColdReads
	}
	sum := 0.0
	take := func(total, worth, weight float64, factor *float64) {
		if total >= worth {
			*factor = weight / total
			sum += weight
		}
	}
	take(w.all.BytesIn, worthBytes, weights.BytesIn, &w.factor.BytesIn)
	take(w.all.BatchesIn, worthBatches, weights.BatchesIn, &w.factor.BatchesIn)
	take(w.all.ColdReads, worthCold, weights.ColdReads, &w.factor.ColdReads)
	if w.loaded = sum > 0; w.loaded {
		w.factor.BytesIn /= sum
		w.factor.BatchesIn /= sum
		w.factor.ColdReads /= sum
	}
	return w
}

// load is a group's share of the cluster's load; all sum to 1, or are 0 when there is none to speak of.
func (w *weigher) load(g ident.Group) float64 {
	l := w.in.Loads[g]
	return l.BytesIn*w.factor.BytesIn + l.BatchesIn*w.factor.BatchesIn + l.ColdReads*w.factor.ColdReads
}

// cost is a group's share of the cluster in groups, partitions and load.
func (w *weigher) cost(g ident.Group) float64 {
	c := 0.2 / w.groups
	if w.partitions > 0 {
		c += 0.8 * float64(w.in.Map.Partitions(g)+w.in.Map.Coordinators(g)) / w.partitions
	}
	if w.loaded {
		c += 2 * w.load(g)
	}
	return c
}

// loads moves hot groups off brokers that have had too much for long.
func (p *Planner) loads(b *board) {
	now := b.in.Now
	p.spent = slices.DeleteFunc(p.spent, func(t time.Time) bool { return now.Sub(t) >= time.Minute })
	if !b.loaded || len(b.takers) < 2 || now.Sub(p.began) < p.limits.Warmup && !p.nothing {
		clear(p.hot)
		return
	}
	mean := 0.0
	for _, sh := range b.takers {
		mean += sh.load / float64(len(b.takers))
	}
	limit := mean * (1 + p.limits.Over)
	if p.nothing {
		limit = mean
	}
	hottest := slices.Clone(b.takers)
	slices.SortStableFunc(hottest, func(x, y *shelf) int { return cmp.Compare(y.load, x.load) })
	for _, sh := range hottest {
		id := sh.broker.ID
		if sh.load <= limit {
			delete(p.hot, id)
			continue
		}
		since, known := p.hot[id]
		if !known {
			p.hot[id] = now
			since = now
		}
		if now.Sub(since) >= p.limits.For || p.nothing {
			p.cool(b, sh, mean)
		}
	}
}

// cool takes the fewest groups off a log that bring it near the mean, without making another one hot.
func (p *Planner) cool(b *board, sh *shelf, mean float64) {
	good := mean * (1 + p.limits.Good)
	if p.nothing {
		good = mean
	}
	before := sh.load
	for sh.load > good {
		if len(p.spent)+countLoad(b.plan.Moves) >= p.limits.PerMinute && !p.nothing {
			b.plan.Held = "the limit of moves for load in a minute is reached"
			return
		}
		it, to, swap := p.hotGroup(b, sh, mean, good)
		if it == nil {
			p.split(b, sh, mean)
			return
		}
		from := it.at
		b.move(it, to, CauseLoad, "broker %d has %.0f %% of the mean load, broker %d %.0f %%; this group is %.0f %%",
			from.broker.ID, 100*before/mean, to.broker.ID, 100*to.load/mean, 100*it.load/mean)
		if swap != nil {
			b.move(swap, from, CauseLoad, "for group %d, so that both brokers keep their share of groups", it.group)
		}
	}
}

func countLoad(moves []Move) (n int) {
	for _, m := range moves {
		if m.Cause == CauseLoad {
			n++
		}
	}
	return n
}

// hotGroup chooses the group that takes most off a log, the coldest log that it fits on, and, where that log has its
// share of groups, a cold one that comes back for it.
func (p *Planner) hotGroup(b *board, sh *shelf, mean, good float64) (best *item, target *shelf, swap *item) {
	coldest := slices.Clone(b.takers)
	slices.SortStableFunc(coldest, func(x, y *shelf) int { return cmp.Compare(x.load, y.load) })
	n := 0
	for _, t := range b.takers {
		n += len(t.groups)
	}
	share := float64(n) / float64(len(b.takers))
	for _, it := range sh.groups {
		if !p.movable(b, it) || best != nil && it.load <= best.load {
			continue
		}
		if it.load > sh.load-mean*(1-p.limits.Good) || it.load < mean*0.005 { // it would make this log the coldest, or changes nothing
			continue
		}
		for _, to := range coldest {
			if to == sh || to.load+it.load > good || p.back(it.group, to, b.in.Now) {
				continue
			}
			var other *item
			if float64(len(to.groups)+1)-share > slack(share) || share-float64(len(sh.groups)-1) > slack(share) {
				if other = p.coldGroup(b, to, sh, it.load/4); other == nil {
					continue
				}
			}
			best, target, swap = it, to, other
			break
		}
	}
	return best, target, swap
}

// coldGroup is the group with the least load on a log that may go to another one, nil if all have more than limit.
func (p *Planner) coldGroup(b *board, sh, to *shelf, limit float64) (best *item) {
	for _, it := range sh.groups {
		if p.movable(b, it) && !p.back(it.group, to, b.in.Now) && it.load < limit && (best == nil || it.load < best.load) {
			best = it
		}
	}
	return best
}

// movable says whether a group may be moved for its load.
func (p *Planner) movable(b *board, it *item) bool {
	return !it.pinned && !it.planned && !p.rests(it.group, b.in.Now)
}

// back says whether a group left a log so recently that it does not go back.
func (p *Planner) back(g ident.Group, to *shelf, now time.Time) bool {
	m, ok := p.moved[g]
	return ok && m.from == to.log.ID && now.Sub(m.at) < p.limits.Return && !p.nothing
}

// split proposes to give the only partition of weight of the hottest group a group of its own.
func (p *Planner) split(b *board, sh *shelf, mean float64) {
	var hot *item
	for _, it := range sh.groups {
		if hot == nil || it.load > hot.load {
			hot = it
		}
	}
	if hot == nil || hot.load < mean*p.limits.Over || hot.partitions < 2 {
		return
	}
	var to *item
	for _, it := range b.items { // the emptiest group on the coldest log
		if it.at != sh && (to == nil || cmp.Or(cmp.Compare(it.at.load, to.at.load), cmp.Compare(it.partitions, to.partitions), cmp.Compare(it.load, to.load)) < 0) && !it.at.broker.Draining {
			to = it
		}
	}
	if to == nil {
		return
	}
	s := Split{Partition: -1, From: hot.group, To: to.group}
	if b.in.Hottest != nil {
		s.Topic, s.Partition = b.in.Hottest(hot.group)
	}
	s.Why = fmt.Sprintf("group %d alone is %.0f %% of the mean load: no move of it helps, a partition of it must live elsewhere", hot.group, 100*hot.load/mean)
	b.plan.Splits = append(b.plan.Splits, s)
}

// Smoother turns what brokers report into loads that can be acted on: exponentially smoothed, over about a minute.
type Smoother struct {
	Over   time.Duration // time constant; default 1 min
	groups map[ident.Group]smooth
}

type smooth struct {
	load Load
	at   time.Time
}

// Observe takes a report of an owner about its groups down.
func (s *Smoother) Observe(g ident.Group, l Load, now time.Time) {
	if s.groups == nil {
		s.groups = make(map[ident.Group]smooth)
	}
	over := cmp.Or(s.Over, time.Minute)
	was, known := s.groups[g]
	if !known {
		s.groups[g] = smooth{l, now}
		return
	}
	k := 1 - math.Exp(-max(0, now.Sub(was.at).Seconds())/over.Seconds())
	mix := func(a, b float64) float64 { return a + k*(b-a) }
	s.groups[g] = smooth{Load{mix(was.load.BytesIn, l.BytesIn), mix(was.load.BatchesIn, l.BatchesIn), mix(was.load.ColdReads, l.ColdReads)}, now}
}

// Loads returns the loads of the groups that were heard of within five time constants.
func (s *Smoother) Loads(now time.Time) map[ident.Group]Load {
	over := cmp.Or(s.Over, time.Minute)
	out := make(map[ident.Group]Load, len(s.groups))
	for g, sm := range s.groups {
		if now.Sub(sm.at) < 5*over {
			out[g] = sm.load
		}
	}
	return out
}
