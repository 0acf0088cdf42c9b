package balance

import (
	"cmp"
	"math"
	"slices"

	"github.com/skeinmq/skein/controller/failover"
)

// slack is how many groups a log may have more or less than its share before anything moves: what load moves have made of
// an even spread is left alone.
func slack(share float64) float64 { return max(1, math.Ceil(share*0.05)) }

// shares gives every log that takes groups as many as the others, give or take one, when one is out of line. It
// chooses groups such that what they cost becomes even as well.
func (p *Planner) shares(b *board) {
	logs, share := evenly(b.takers, groupsOf)
	n := 0
	for _, sh := range logs {
		n += len(sh.groups)
	}
	out := slices.ContainsFunc(logs, func(sh *shelf) bool { return math.Abs(float64(len(sh.groups))-share) > slack(share) })
	if !out {
		return
	}
	// Those that have most get the one more that does not divide evenly: it saves moves.
	byCount := slices.Clone(logs)
	slices.SortStableFunc(byCount, func(x, y *shelf) int { return cmp.Compare(len(y.groups), len(x.groups)) })
	var mean failover.Cost
	least := byCount[0].cost
	for i, sh := range byCount {
		sh.want = n / len(byCount)
		if i < n%len(byCount) {
			sh.want++
		}
		mean = mean.Plus(1/float64(len(byCount)), sh.cost)
		least = least.Min(sh.cost)
	}
	var loose []*item
	for _, sh := range byCount {
		loose = append(loose, p.surplus(b, sh, mean, least)...)
	}
	for _, it := range heaviestFirst(loose) {
		to := place(it, byCount, func(sh *shelf) bool { return len(sh.groups) < sh.want && !sh.full })
		if to == nil {
			return
		}
		from := it.at
		b.move(it, to, CauseShare, "broker %d has %d groups, broker %d %d: %d each are even", from.broker.ID, len(from.groups), to.broker.ID, len(to.groups), to.want)
	}
}

// surplus chooses the groups that a log has too many, such that what stays is as close as can be to the mean.
func (p *Planner) surplus(b *board, sh *shelf, mean, least failover.Cost) []*item {
	over := len(sh.groups) - sh.want
	if over <= 0 {
		return nil
	}
	movable := make([]*item, 0, len(sh.groups))
	for _, it := range sh.groups {
		if !it.pinned && !it.planned && !p.settles(it.group, b.in.Now) {
			movable = append(movable, it)
		}
	}
	slices.SortStableFunc(movable, func(x, y *item) int { return x.cost.Compare(y.cost) }) // of equals the one that costs least to move
	var out []*item
	stays := sh.cost
	for ; over > 0 && len(movable) > 0; over-- {
		best := 0
		for i, it := range movable {
			if stays.Relief(it.cost, mean, least) > stays.Relief(movable[best].cost, mean, least) {
				best = i
			}
		}
		out = append(out, movable[best])
		stays = stays.Plus(-1, movable[best].cost)
		movable = slices.Delete(movable, best, best+1)
	}
	return out
}
