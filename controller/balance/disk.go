package balance

import (
	"cmp"
	"slices"
	"time"

	"github.com/skeinmq/skein/internal/ident"
	"github.com/skeinmq/skein/queuemapper"
)

// relieveLeast is a group's share of its log's bytes in below which it may stay on a full disk: it costs a move and saves nothing.
const relieveLeast = 0.01

// disks notices the brokers that should take no more groups, or less.
func (p *Planner) disks(b *board) {
	latch := func(set map[ident.Broker]bool, sh *shelf, limit float64) bool {
		id, used := sh.broker.ID, sh.broker.DiskUsed
		if used >= limit || set[id] && used >= limit-queuemapper.DiskBack {
			set[id] = true
		} else {
			delete(set, id)
		}
		return set[id]
	}
	said := make(map[ident.Broker]bool)
	b.allFull = true
	for _, sh := range b.takers {
		sh.full, sh.brim = latch(p.full, sh, p.limits.DiskFull), latch(p.brim, sh, p.limits.DiskRelieve)
		b.allFull = b.allFull && sh.full
		if id := sh.broker.ID; !said[id] && sh.full {
			said[id] = true
			what := "takes no more groups"
			if sh.brim {
				what = "takes no more groups, and groups that are written to leave it"
			}
			b.note("broker %d %s: its disk is %.0f %% full (limits %.0f %% and %.0f %%)", id, what, 100*sh.broker.DiskUsed, 100*p.limits.DiskFull, 100*p.limits.DiskRelieve)
		}
	}
	if b.allFull && len(b.takers) > 0 { // even is then the best that there is
		b.note("every disk is nearly full: groups are spread as if none were")
		for _, sh := range b.takers {
			sh.full = false
		}
	}
}

// relieve takes groups that are written to off disks that are about to be full, to logs that have room.
func (p *Planner) relieve(b *board) {
	p.relieved = slices.DeleteFunc(p.relieved, func(t time.Time) bool { return b.in.Now.Sub(t) >= time.Minute })
	n := len(p.relieved)
	for _, sh := range b.takers {
		if !sh.brim {
			continue
		}
		all := 0.0
		for _, it := range sh.groups {
			all += b.in.Loads[it.group].BytesIn
		}
		hottest := slices.Clone(sh.groups)
		slices.SortStableFunc(hottest, func(x, y *item) int {
			return cmp.Compare(b.in.Loads[y.group].BytesIn, b.in.Loads[x.group].BytesIn)
		})
		for _, it := range hottest {
			in := b.in.Loads[it.group].BytesIn
			if it.pinned || it.planned || in < relieveLeast*all || in < 1 {
				continue
			}
			to := place(it, b.takers, func(t *shelf) bool { return !t.full && !b.allFull && t != sh })
			if to == nil {
				b.note("broker %d is not relieved: every other disk is nearly full too", sh.broker.ID)
				return
			}
			if n++; n > p.diskPerMinute {
				b.plan.Held = "the limit of moves off full disks in a minute is reached"
				return
			}
			b.move(it, to, CauseDisk, "broker %d's disk is %.0f %% full, broker %d's %.0f %%; %.1f MB/s go into this group",
				sh.broker.ID, 100*sh.broker.DiskUsed, to.broker.ID, 100*to.broker.DiskUsed, in/1e6)
		}
	}
}

// evenly is the logs over which a value is to be spread evenly, and their mean of it: all that take groups, but those
// with full disks only as long as they have more than that.
func evenly(takers []*shelf, value func(*shelf) float64) (out []*shelf, mean float64) {
	out = slices.Clone(takers)
	for {
		mean = 0
		for _, sh := range out {
			mean += value(sh) / float64(len(out))
		}
		n := len(out)
		out = slices.DeleteFunc(out, func(sh *shelf) bool { return sh.full && value(sh) < mean-1e-9 })
		if len(out) == n {
			return out, mean
		}
	}
}

func groupsOf(sh *shelf) float64     { return float64(len(sh.groups)) }
func loadOf(sh *shelf) float64       { return sh.load }
func partitionsOf(sh *shelf) float64 { return float64(sh.partitions) }
