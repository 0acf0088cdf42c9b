package balance

import (
	"cmp"
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
	in     Input
	all    Load
	factor Load // weight of a dimension that is worth it, over its total
	loaded bool
}

func weigh(in Input) *weigher {
	w := &weigher{in: in}
	for g := range in.Map.Groups() {
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
	return w.weight(w.in.Loads[g])
}

func (w *weigher) weight(l Load) float64 {
	return l.BytesIn*w.factor.BytesIn + l.BatchesIn*w.factor.BatchesIn + l.ColdReads*w.factor.ColdReads
}

// loads moves hot groups off brokers that have had too much for long.
func (p *Planner) loads(b *board) {
	now := b.in.Now
	p.spent = slices.DeleteFunc(p.spent, func(t time.Time) bool { return now.Sub(t) >= time.Minute })
	if !b.loaded || len(b.takers) < 2 {
		clear(p.hot)
		return
	}
	known := now.Sub(p.began)
	warm := known >= p.limits.Warmup || p.nothing
	if !warm {
		b.note("loads are known for %v: nothing moves for them before %v", known.Round(time.Second), p.limits.Warmup)
	}
	_, mean := evenly(b.takers, loadOf)
	limit := mean * (1 + p.limits.Over)
	if p.nothing {
		limit = mean
	}
	hottest := slices.Clone(b.takers)
	slices.SortStableFunc(hottest, func(x, y *shelf) int { return cmp.Compare(y.load, x.load) })
	for _, sh := range hottest {
		id := sh.log.ID
		if sh.load <= limit {
			delete(p.hot, id)
			continue
		}
		since, known := p.hot[id]
		if !known {
			p.hot[id] = now
			since = now
		}
		if lasts := now.Sub(since); lasts < p.limits.For && !p.nothing {
			b.note("broker %d has %.0f %% of the mean load, for %v: it must be so for %v", sh.broker.ID, 100*sh.load/mean, lasts.Round(time.Second), p.limits.For)
		} else if warm {
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
	if p.split(b, sh, mean, good) { // one group is too much: what else is moved does not help
		return
	}
	for sh.load > good {
		if len(p.spent)+countLoad(b.plan.Moves) >= p.perMinute && !p.nothing {
			b.plan.Held = "the limit of moves for load in a minute is reached"
			return
		}
		it, to, swap := p.hotGroup(b, sh, mean, p.fits)
		if bigger, other, back := p.hotGroup(b, sh, mean, p.helps); bigger != nil && (it == nil || fuller(sh, other, bigger.load) < fuller(sh, to, it.load)) {
			it, to, swap = bigger, other, back
		}
		if it == nil {
			p.split(b, sh, mean, 2*splitLoad*mean)
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

// fits says whether a load that leaves one log for another makes neither of them the next that is out of line.
func (p *Planner) fits(sh, to *shelf, load, mean float64) bool {
	good := p.limits.Good
	if p.nothing {
		good = 0
	}
	return to.load+load <= mean*(1+good) && load <= sh.load-mean*(1-p.limits.Good)
}

// helps says whether it at least leaves the fuller of the two with much less: a hot group beside a hot group.
func (p *Planner) helps(sh, to *shelf, load, mean float64) bool {
	return fuller(sh, to, load) <= sh.load-mean*p.limits.Over
}

// fuller is the load of the fuller of two logs when a load has left one for the other.
func fuller(sh, to *shelf, load float64) float64 { return math.Max(to.load+load, sh.load-load) }

// hotGroup chooses the group that takes most off a log, the coldest log that it fits on, and, where that log has its
// share of groups, a cold one that comes back for it.
func (p *Planner) hotGroup(b *board, sh *shelf, mean float64, fits func(sh, to *shelf, load, mean float64) bool) (best *item, target *shelf, swap *item) {
	coldest := slices.Clone(b.takers)
	slices.SortStableFunc(coldest, func(x, y *shelf) int { return cmp.Compare(x.load, y.load) })
	_, share := evenly(b.takers, groupsOf)
	for _, it := range sh.groups {
		if !p.movable(b, it) || best != nil && it.load <= best.load || it.load < mean*0.005 { // it changes nothing
			continue
		}
		for _, to := range coldest {
			if to == sh || to.full || !fits(sh, to, it.load, mean) || p.back(it.group, to, b.in.Now) {
				continue
			}
			var other *item
			if !sh.full && (float64(len(to.groups)+1)-share > slack(share) || share-float64(len(sh.groups)-1) > slack(share)) {
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

// coldGroup is the group with the least load on a log that may go to another one, nil if all have more than limit. What is
// cold may move again soon, unless it is known to have moved for load.
func (p *Planner) coldGroup(b *board, sh, to *shelf, limit float64) (best *item) {
	for _, it := range sh.groups {
		if it.pinned || it.planned || it.load >= limit || best != nil && it.load >= best.load {
			continue
		}
		if m := p.moved[it.group]; m.cause != "" && (p.rests(it.group, b.in.Now) || p.back(it.group, to, b.in.Now)) {
			continue
		}
		best = it
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
	return ok && !m.cause.free() && m.from == to.log.ID && now.Sub(m.at) < p.limits.Return && !p.nothing
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

// silence is how long a group may not be heard of before its load fades: owners report twice as often, and leave out groups at rest.
const silence = 3 * time.Second

// Shift says that a share of what goes into a group goes into another one from now on.
func (s *Smoother) Shift(from, to ident.Group, share float64, now time.Time) {
	a, ok := s.groups[from]
	if !ok {
		return
	}
	b := smooth{s.fade(s.groups[to], now), now}
	b.load.BytesIn += share * a.load.BytesIn
	b.load.BatchesIn += share * a.load.BatchesIn
	a.load.BytesIn -= share * a.load.BytesIn
	a.load.BatchesIn -= share * a.load.BatchesIn
	s.groups[from], s.groups[to] = a, b
}

// Loads returns the loads of the groups that were heard of within five time constants; those that are silent fade.
func (s *Smoother) Loads(now time.Time) map[ident.Group]Load {
	over := cmp.Or(s.Over, time.Minute)
	out := make(map[ident.Group]Load, len(s.groups))
	for g, sm := range s.groups {
		if now.Sub(sm.at) < 5*over {
			out[g] = s.fade(sm, now)
		}
	}
	return out
}

// fade is the load of a group that was last heard of a while ago.
func (s *Smoother) fade(sm smooth, now time.Time) Load {
	k := math.Exp(-max(0, now.Sub(sm.at)-silence).Seconds() / cmp.Or(s.Over, time.Minute).Seconds())
	return Load{k * sm.load.BytesIn, k * sm.load.BatchesIn, k * sm.load.ColdReads}
}
