package balance

import (
	"cmp"
	"fmt"
	"slices"
	"time"

	"github.com/skeinmq/skein/internal/ident"
)

// HotPartition is one of the partitions that make most of what their group takes, as its owner has sampled it.
type HotPartition struct {
	Topic     string
	Partition ident.Partition
	Share     float64 // of the group's, 0 to 1
}

// Ask is a group whose owner must say which of its partitions are hot before it is known whether a split helps.
type Ask struct {
	Group ident.Group
	Owner ident.Broker
}

// Split is a partition that should live in another group, because its group is too hot to be moved as a whole.
type Split struct {
	Topic     string       `json:"topic"`
	Partition int32        `json:"partition"`
	From      ident.Group  `json:"fromGroup"`
	To        ident.Group  `json:"toGroup"` // in the same log
	Broker    ident.Broker `json:"broker"`  // that owns both
	Why       string       `json:"why"`

	id    ident.Partition
	share float64 // of the group's load
}

const (
	splitTries = 4    // groups of one log that are looked at in one plan
	splitLoad  = 0.05 // of the mean: a part of a group with less changes nothing
)

// split finds a partition to split off a group of a log that has too much, a group with at least some load. Only one that
// helps: both the partition and what stays of its group carry load, and one of the two then fits on another log,
// such that the fuller of the two logs has less by a tenth of the mean than without, or than if the group moved as a whole. So a group with one hot partition is never
// split: it would be the same piece under another name, and the cold groups around it can be moved without.
//
// Nothing goes back and forth: one split at a time, a while between two (SplitEvery), and a partition that was split off
// stays in its group as long as a group stays away from a log that it left (Return).
//
// It returns false if there is none, and true also if it must be known first which partitions are hot.
func (p *Planner) split(b *board, sh *shelf, mean, least float64) bool {
	if len(b.plan.Splits) > 0 || len(b.plan.Ask) > 0 || !p.splitAt.IsZero() && b.in.Now.Sub(p.splitAt) < p.limits.SplitEvery {
		return false
	}
	hottest := slices.Clone(sh.groups)
	slices.SortStableFunc(hottest, func(x, y *item) int { return cmp.Compare(y.load, x.load) })
	for _, it := range hottest[:min(splitTries, len(hottest))] {
		into := p.emptiest(b, sh, it)
		if into == nil || it.pinned || it.planned || it.partitions < 2 || it.load < least {
			continue
		}
		parts, known := b.in.Hot[it.group]
		if !known {
			b.plan.Ask = append(b.plan.Ask, Ask{Group: it.group, Owner: sh.broker.ID})
			b.note("group %d is %.0f %% of the mean load: broker %d is asked which of its partitions are hot", it.group, 100*it.load/mean, sh.broker.ID)
			return true
		}
		if s, ok := p.splitOf(b, it, into, parts, mean); ok {
			b.plan.Splits = append(b.plan.Splits, s)
			return true
		}
	}
	return false
}

// splitOf chooses the partition of a group whose leaving makes most room.
func (p *Planner) splitOf(b *board, it, into *item, parts []HotPartition, mean float64) (best Split, ok bool) {
	sh := it.at
	least := sh.load
	if to := p.room(b, sh, it, it.load, mean); to != nil && p.movable(b, it) {
		least = fuller(sh, to, it.load) // as a whole
	}
	least -= p.limits.Good * mean
	for _, hp := range parts {
		left, was := p.parted[hp.Partition]
		hot := b.shareOf(it.group, hp.Share)
		if hot < splitLoad*mean || it.load-hot < splitLoad*mean || was && b.in.Now.Sub(left) < p.limits.Return {
			continue
		}
		for _, part := range []struct {
			mover *item
			load  float64
			what  string
		}{{into, hot + into.load, "it"}, {it, it.load - hot, "what stays"}} {
			to := p.room(b, sh, part.mover, part.load, mean)
			if to == nil || p.rests(part.mover.group, b.in.Now) {
				continue
			}
			if f := fuller(sh, to, part.load); f < least {
				least, ok = f, true
				best = Split{
					Topic: hp.Topic, Partition: hp.Partition.Index, From: it.group, To: into.group, Broker: sh.broker.ID, id: hp.Partition, share: hp.Share,
					Why: fmt.Sprintf("broker %d has %.0f %% of the mean load, group %d alone %.0f %%; this partition makes %.0f %% of it, and %s can go to broker %d, which has %.0f %%",
						sh.broker.ID, 100*sh.load/mean, it.group, 100*it.load/mean, 100*hp.Share, part.what, to.broker.ID, 100*to.load/mean),
				}
			}
		}
	}
	return best, ok
}

// room is the coldest log on which a load fits that a group of another one shall have, nil if there is none.
func (p *Planner) room(b *board, sh *shelf, mover *item, load, mean float64) *shelf {
	var best *shelf
	for _, to := range b.takers {
		if to == sh || to.full || best != nil && to.load >= best.load || p.back(mover.group, to, b.in.Now) {
			continue
		}
		if p.fits(sh, to, load, mean) || p.helps(sh, to, load, mean) {
			best = to
		}
	}
	return best
}

// emptiest is the group of a log with the fewest partitions, of those that a hot one may be put into and moved with; one that
// carries load itself only if there is no other.
func (p *Planner) emptiest(b *board, sh *shelf, hot *item) (best *item) {
	loaded := func(it *item) int {
		if it.load > hot.load*splitLoad {
			return 1
		}
		return 0
	}
	for _, it := range sh.groups {
		if it == hot || !p.movable(b, it) {
			continue
		}
		if best == nil || cmp.Or(cmp.Compare(loaded(it), loaded(best)), cmp.Compare(it.partitions, best.partitions), cmp.Compare(it.load, best.load)) < 0 {
			best = it
		}
	}
	return best
}

// SplitDone tells the planner of a split that was made, or tried.
func (p *Planner) SplitDone(s Split, made bool, now time.Time) {
	p.splitAt = now
	if made {
		p.parted[s.id] = now
	}
}
