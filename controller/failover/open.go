package failover

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/skeinmq/skein/internal/ident"
	"github.com/skeinmq/skein/queuemapper"
)

// maxRounds bounds how often what remains is planned anew in one call; whoever called tries again later.
const maxRounds = 16

// share is the part of the groups that goes to one target, and what came of it.
type share struct {
	target *queuemapper.Log
	groups []orphan

	failed      error // of the target: it is not asked again
	unavailable bool  // the map's store was
	bad         map[ident.Group]error
	published   int
	partitions  int

	prepareTook, publishTook time.Duration
}

// open prepares and publishes the groups of the sources until none is left, or none can be.
func (f *Failover) open(ctx context.Context, sources []*source, r *Report) error {
	refused := make(map[slot]bool)
	wait := 10 * time.Millisecond
	for r.Rounds = 0; r.Rounds < maxRounds; r.Rounds++ {
		m := f.store.Map()
		orphans := f.orphans(m, sources)
		if len(orphans) == 0 {
			return nil
		}
		if err := context.Cause(ctx); err != nil {
			return err
		}
		targets := f.targets(m, sources, refused)
		if len(targets) == 0 {
			return ErrNoTarget
		}
		shares := f.spread(m, orphans, targets)
		f.cfg.Fan.Each(ctx, len(shares), func(ctx context.Context, i int) { f.openShare(ctx, shares[i]) })
		again := false
		for _, sh := range shares {
			r.Groups += sh.published
			r.Partitions += sh.partitions
			r.Prepare, r.Publish = max(r.Prepare, sh.prepareTook), max(r.Publish, sh.publishTook)
			again = again || sh.unavailable
			if sh.failed != nil {
				f.metrics.refusals.Inc()
				f.log.Warn("target of a failover refuses", "broker", sh.target.Host, "log", sh.target.ID, "groups", len(sh.groups), "error", sh.failed)
				refused[slot{sh.target.ID, sh.target.Epoch}] = true
			}
			for _, o := range sh.groups {
				if err := sh.bad[o.group.ID]; err != nil {
					o.source.stick(o.group.ID, err)
				}
			}
		}
		if again {
			if err := f.cfg.Pause(ctx, wait); err != nil {
				return err
			}
			wait = min(2*wait, time.Second)
		}
	}
	return fmt.Errorf("open groups: given up after %d rounds", maxRounds)
}

func (src *source) stick(g ident.Group, err error) {
	if src.stuck == nil {
		src.stuck = make(map[ident.Group]error)
	}
	src.stuck[g] = err
}

// slot is a log at an epoch.
type slot struct {
	log   ident.Log
	epoch ident.LogEpoch
}

// orphan is a group whose open generation is on a sealed log, with its part of the table.
type orphan struct {
	source *source
	group  *queuemapper.Group
	state  []ident.PartitionState
	cost   Cost
}

// orphans lists the groups that are still open on the sources, by id, as the map has them now: after the seal (O9).
func (f *Failover) orphans(m *queuemapper.Map, sources []*source) []orphan {
	bySource := make(map[ident.Log]*source, len(sources))
	for _, src := range sources {
		rec := m.Log(src.id)
		// A source that its host reopened is no source any more: the publications would fail their compare (O13).
		if src.err == nil && src.rec != nil && rec != nil && (rec.Epoch == src.rec.Epoch || plants.anyEpoch) {
			bySource[src.id] = src
		}
	}
	var out []orphan
	for g := range m.Groups() {
		cur := g.Current()
		if cur == nil {
			continue
		}
		src := bySource[cur.Log]
		if src == nil || src.stuck[g.ID] != nil {
			continue
		}
		state, known := src.table[named(g, cur)] // exactly that frame's (O2)
		if plants.unnamed {
			state, known = src.table.anyOf(g.ID, cur.Epoch)
		}
		if !known {
			src.stick(g.ID, fmt.Errorf("group %d: %w: it knows no generation %s", g.ID, ErrNoTable, named(g, cur)))
			f.metrics.strangers.Inc()
			continue
		}
		out = append(out, orphan{source: src, group: g, state: living(m, state)})
	}
	return out
}

// anyOf is wrong on purpose and called only when a plant is on: it finds the last opening frame of a generation's number.
func (t Table) anyOf(g ident.Group, epoch ident.Epoch) (state []ident.PartitionState, known bool) {
	var newest ident.Frame
	for gen, s := range t {
		if gen.Group == g && gen.Epoch == epoch && (!known || cmp.Or(cmp.Compare(gen.Frame.Epoch, newest.Epoch), cmp.Compare(gen.Frame.Position, newest.Position)) > 0) {
			state, known, newest = s, true, gen.Frame
		}
	}
	return state, known
}

// living leaves out what is of deleted topics. The map is newer than the seal, so that a topic with anything in the
// table and without a record was deleted; ids are not used again.
func living(m *queuemapper.Map, state []ident.PartitionState) []ident.PartitionState {
	var last ident.Topic
	there := true
	for i := range state {
		if t := state[i].Partition.Topic; i == 0 || t != last {
			last, there = t, m.TopicByID(t) != nil
		}
		if there {
			continue
		}
		kept := append([]ident.PartitionState(nil), state[:i]...)
		for _, s := range state[i:] {
			if m.TopicByID(s.Partition.Topic) != nil {
				kept = append(kept, s)
			}
		}
		return kept
	}
	return state
}

// targets lists the logs that take groups over: open, on a live broker, and not refused before. Brokers whose disks are nearly
// full are asked if no other one is left, and draining brokers are the last resort.
func (f *Failover) targets(m *queuemapper.Map, sources []*source, refused map[slot]bool) []*queuemapper.Log {
	var live, draining []*queuemapper.Log
	for l := range m.Logs() {
		if l.State != queuemapper.LogOpen || refused[slot{l.ID, l.Epoch}] {
			continue
		}
		mine := false
		for _, src := range sources {
			mine = mine || src.id == l.ID
		}
		if mine {
			continue // its host is back, but whoever called gave it up
		}
		switch f.cfg.Standing(l.Host) {
		case Live:
			live = append(live, l)
		case Draining:
			draining = append(draining, l)
		}
	}
	if len(live) == 0 {
		live = draining
	}
	return m.WithRoom(live)
}

// openShare opens the groups of one share on its target: one request to prepare them, then as few transactions as the
// store's limits allow.
func (f *Failover) openShare(ctx context.Context, sh *share) {
	begun := f.cfg.Now()
	openings := make([]Opening, len(sh.groups))
	pubs := make([]queuemapper.Publication, len(sh.groups))
	for i, o := range sh.groups {
		cur := o.group.Current()
		openings[i] = Opening{Group: o.group.ID, Epoch: cur.Epoch + 1, State: o.state, Ceiling: queuemapper.NextCeiling(cur, o.state, f.cfg.Reserve)}
		if plants.reuseEpoch {
			openings[i].Epoch = cur.Epoch
		}
		source := o.source.rec
		if plants.anyEpoch { // O13
			source = f.store.Map().Log(source.ID)
		}
		pubs[i] = queuemapper.Publication{
			Group: o.group, Source: source, Target: sh.target, // O13
			Epoch: openings[i].Epoch, Ends: queuemapper.EndsOf(o.state), Ceiling: openings[i].Ceiling,
		}
		if plants.dropState {
			openings[i].State = bare(o.state)
		}
	}
	frames, err := f.cfg.Targets.Prepare(ctx, sh.target.Host, sh.target.ID, sh.target.Epoch, openings) // O12
	if err == nil && len(frames) != len(openings) {
		err = fmt.Errorf("prepare: %d frames for %d openings", len(frames), len(openings))
	}
	prepared := f.cfg.Now()
	sh.prepareTook = prepared.Sub(begun)
	if err != nil {
		sh.failed = err
		return
	}
	for i := range pubs {
		pubs[i].Frame = frames[i]
	}
	f.publish(ctx, sh, pubs)
	sh.publishTook = f.cfg.Now().Sub(prepared)
}

// publish publishes a share and sorts out what did not get through: what may not have been published is looked at
// again in the next round, from the map as it is then.
func (f *Failover) publish(ctx context.Context, sh *share, pubs []queuemapper.Publication) {
	m := f.store.Map()
	settled := false
	for i, err := range f.store.Publish(ctx, pubs) {
		switch {
		case err == nil:
			sh.published++
			sh.partitions += m.Partitions(pubs[i].Group.ID)
		case errors.Is(err, queuemapper.ErrConflict):
		case errors.Is(err, queuemapper.ErrUnknown):
			// A second publication compares the same revision as this one, so that at most one of them lands whatever
			// becomes of this one. The touch (O18) is for knowing which: it returns when the store answers writes again.
			if !settled {
				settled = true
				_, terr := f.store.Touch(ctx, pubs[i].Group.ID)
				sh.unavailable = sh.unavailable || terr != nil
			}
		case errors.Is(err, queuemapper.ErrUnavailable):
			sh.unavailable = true
		default:
			if sh.bad == nil {
				sh.bad = make(map[ident.Group]error)
			}
			sh.bad[pubs[i].Group.ID] = err
		}
	}
}

// bare is a state without what deduplication and transactions need.
func bare(state []ident.PartitionState) []ident.PartitionState {
	out := make([]ident.PartitionState, len(state))
	for i := range state {
		out[i] = ident.PartitionState{Partition: state[i].Partition, End: state[i].End}
	}
	return out
}
