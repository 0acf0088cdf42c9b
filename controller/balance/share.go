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

// uneven is how many partitions, as a part of its share, a log may have more or less than that before groups are exchanged.
const uneven = 0.5

// partitions exchanges groups of logs that have few partitions, though their share of groups, for fuller ones when one is out of
// line: topics that were made while groups moved lie where the groups have left. It looks when nothing else moves, and at rest
// only: where there is load, that says what is even. What has moved for its load stays where that was even.
func (p *Planner) partitions(b *board) {
	if b.loaded || len(b.plan.Moves) > 0 {
		return
	}
	logs, share := evenly(b.takers, partitionsOf)
	if !slices.ContainsFunc(logs, func(sh *shelf) bool { return math.Abs(partitionsOf(sh)-share) > uneven*share }) {
		return
	}
	for _, sh := range logs {
		for !sh.full && partitionsOf(sh)+1 <= share+1e-9 {
			it, back := p.exchange(b, sh, logs)
			if it == nil {
				break
			}
			from := it.at
			b.move(it, sh, CauseShare, "broker %d has %.0f partitions, broker %d %.0f: %.1f each are even", from.broker.ID, partitionsOf(from), sh.broker.ID, partitionsOf(sh), share)
			b.move(back, from, CauseShare, "for group %d, so that both brokers keep their number of groups", it.group)
		}
	}
}

// exchange chooses the group that a log gets, and the one that it gives for it, such that the two logs become as even as can
// be; nil if none makes them evener.
func (p *Planner) exchange(b *board, sh *shelf, logs []*shelf) (get, give *item) {
	free := func(it *item) bool {
		return !it.pinned && !it.planned && p.moved[it.group].cause != CauseLoad && !p.settles(it.group, b.in.Now)
	}
	for _, it := range sh.groups {
		if free(it) && (give == nil || it.cost.Compare(give.cost) < 0) {
			give = it
		}
	}
	if give == nil {
		return nil, nil
	}
	best := 0.0
	for _, from := range logs {
		if partitionsOf(from) < partitionsOf(sh)+2 {
			continue
		}
		for _, it := range from.groups {
			if it.partitions <= give.partitions || !free(it) {
				continue
			}
			if evener := from.cost.Evener(sh.cost, it.cost.Plus(-1, give.cost)); evener > best {
				best, get = evener, it
			}
		}
	}
	return get, give
}
