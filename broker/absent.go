package broker

import (
	"context"
	"fmt"

	"golang.org/x/sync/errgroup"

	"github.com/skeinmq/skein/commitlog"
	"github.com/skeinmq/skein/internal/ident"
	"github.com/skeinmq/skein/queuemapper"
)

// Unwitnessed says what becomes of a group whose exact ends only a disk knows that is not there.
type Unwitnessed string

const (
	// UnwitnessedGap opens the next generation on another log, at the group's ceiling. It takes the proof that nobody
	// appends to the old one any more (O22).
	UnwitnessedGap Unwitnessed = "gap"
	// UnwitnessedWait leaves the group without an owner until the disk is back.
	UnwitnessedWait Unwitnessed = "wait"
)

// absentLogs lists the logs that this broker hosts according to the map, and that none of its directories holds.
func (b *Broker) absentLogs(m *queuemapper.Map) []*queuemapper.Log {
	var out []*queuemapper.Log
	for l := range m.Logs() {
		if l.Host == b.cfg.ID && b.hosted[l.ID] == nil {
			out = append(out, l)
		}
	}
	return out
}

// passAbsent takes logs whose directories are not there out of service, and opens their groups on the others. Whoever
// appended to them was this broker before it started: it is dead (O22), as the caller has made sure of.
func (b *Broker) passAbsent(ctx context.Context, open []*queuemapper.Log) error {
	for _, l := range b.absentLogs(b.store.Map()) {
		b.log.Warn("log is not in any data directory: what it holds cannot be read", "log", l.ID, "failover.unwitnessed", string(b.cfg.Unwitnessed))
		if l.State == queuemapper.LogOpen { // O19: this broker has another one open
			sealed, err := b.store.SealLog(ctx, l) // O9
			if err != nil {
				return fmt.Errorf("seal absent log: %w", err)
			}
			l = sealed
		}
		if b.cfg.Unwitnessed == UnwitnessedWait {
			continue
		}
		if err := b.failOver(ctx, l, open); err != nil {
			return fmt.Errorf("open the groups of absent log %s elsewhere: %w", l.ID, err)
		}
	}
	for _, l := range b.cfg.Logs {
		if found := l.Recovered(); found.Fresh && len(b.absentLogs(b.store.Map())) > 0 {
			b.log.Warn("an empty directory became a new log; the absent ones stay absent", "log", found.ID)
		}
	}
	return nil
}

// failOver opens the next generations of a sealed log's groups on the open logs, at their ceilings.
func (b *Broker) failOver(ctx context.Context, source *queuemapper.Log, open []*queuemapper.Log) error {
	m := b.store.Map() // O9: read after the seal, so it has every group and every partition
	targets := make(map[ident.Log]*queuemapper.Log, len(open))
	ids := make([]ident.Log, len(open))
	for i, l := range open {
		ids[i], targets[l.ID] = l.ID, l
	}
	plan, err := m.Plan(ids)
	if err != nil {
		return err
	}
	members := membersOf(m, source.ID)
	next := make(map[ident.Log][]nextGeneration)
	for _, move := range plan {
		g := m.Group(move.Group)
		cur := g.Current()
		switch {
		case move.From != source.ID:
		case cur.Ceiling == 0:
			b.log.Warn("group waits for its log: it never had a ceiling", "group", g.ID, "log", source.ID)
		default:
			next[move.To] = append(next[move.To], b.nextAtCeiling(m, g, source, members[g.ID]))
		}
	}
	for id, list := range next {
		if err := b.openNext(ctx, targets[id], list); err != nil {
			return err
		}
		b.log.Warn("groups of an absent log go on at their ceilings", "absent", source.ID, "log", id, "groups", len(list))
	}
	return nil
}

// member is a partition of a group, as the map has it.
type member struct {
	topic *queuemapper.Topic
	index int32
}

// membersOf lists the partitions that live in the groups that are open on a log.
func membersOf(m *queuemapper.Map, log ident.Log) map[ident.Group][]member {
	out := make(map[ident.Group][]member)
	for t := range m.Topics() {
		for i, stays := range t.Partitions {
			id := stays[len(stays)-1].Group
			if g := m.Group(id); g != nil && g.Current() != nil && g.Current().Log == log {
				out[id] = append(out[id], member{t, int32(i)})
			}
		}
	}
	return out
}

// nextAtCeiling is the generation after one that can only be sealed at its ceiling. Of its partitions' state that is
// all that is known: where they go on. Producers begin anew.
func (b *Broker) nextAtCeiling(m *queuemapper.Map, g *queuemapper.Group, source *queuemapper.Log, in []member) nextGeneration {
	cur := g.Current()
	state := make([]ident.PartitionState, len(in))
	for i, p := range in {
		state[i] = ident.PartitionState{
			Partition: ident.Partition{Topic: p.topic.ID, Index: p.index},
			End:       cur.Ceiling, LogStart: b.oldestKnown(m, p),
		}
	}
	sortState(state)
	ceiling := b.reserves.ceiling(g.ID, cur.Ceiling)
	return nextGeneration{
		opening: commitlog.Opening{Group: g.ID, Epoch: cur.Epoch + 1, State: state, Ceiling: ceiling},
		pub:     queuemapper.Publication{Group: g, Source: source, Ends: endsOf(state), Gap: true, Ceiling: ceiling},
	}
}

// oldestKnown is the log start of a partition as far as it can be told without its newest log: no lower than any log
// start that is known, and where the oldest run that is not lost begins.
func (b *Broker) oldestKnown(m *queuemapper.Map, p member) ident.Offset {
	id := ident.Partition{Topic: p.topic.ID, Index: p.index}
	runs := m.Runs(p.topic, p.index)
	start := ident.Offset(0)
	for _, r := range runs {
		if q := b.localQueue(r, id); q != nil {
			start = max(start, q.LogStart())
		}
	}
	for _, r := range runs {
		if !r.Open && r.End <= start {
			continue
		}
		start = max(start, r.Start)
		if b.hosted[r.Log] == nil {
			return start // it may be there to the last offset
		}
		if q := b.localQueue(r, id); q != nil {
			for s, err := range q.Segments() {
				if err != nil || s.End > start {
					return max(start, s.First)
				}
			}
		}
	}
	return start
}

// localQueue is the physical queue of a run, nil if it is not in a log of this broker.
func (b *Broker) localQueue(r queuemapper.Run, p ident.Partition) *commitlog.Queue {
	if h := b.hosted[r.Log]; h != nil {
		if q, ok := h.log.Sealed(r.Generation, p); ok {
			return q
		}
	}
	return nil
}

// learnStarts moves log starts that a log which was absent knows better than the generation that followed without it.
func (b *Broker) learnStarts(ctx context.Context) error {
	m := b.store.Map()
	var g errgroup.Group
	g.SetLimit(64) // they wait for one group commit together
	for id, h := range b.hosted {
		for _, named := range namedGenerations(m, id) {
			if !named.Gap {
				continue
			}
			for p := range named.Ends {
				q, ok := h.log.Sealed(named.Generation, p)
				if !ok || q.LogStart() == 0 {
					continue
				}
				part := b.partitionOf(m, p)
				if part == nil {
					continue
				}
				run := part.open.Load()
				if run == nil || run.queue.LogStart() >= q.LogStart() {
					continue
				}
				g.Go(func() error {
					_, err := b.moveLogStart(ctx, part, run, q.LogStart())
					return err
				})
			}
		}
	}
	return g.Wait()
}

// partitionOf is the table's partition behind a name of the map's, nil if there is none.
func (b *Broker) partitionOf(m *queuemapper.Map, p ident.Partition) *partition {
	rec := m.TopicByID(p.Topic)
	if rec == nil {
		return nil
	}
	t := b.topic(rec.Name)
	if t == nil {
		return nil
	}
	return t.partition(p.Index)
}

// unavailable counts what is out of reach because a log of this broker is not in any of its directories.
func (b *Broker) unavailable() (logs, runs int) {
	m := b.store.Map()
	absent := make(map[ident.Log]bool)
	for _, l := range b.absentLogs(m) {
		absent[l.ID] = true
	}
	if len(absent) == 0 {
		return 0, 0
	}
	for g := range m.Groups() {
		for i := range g.Generations {
			gen := &g.Generations[i]
			switch {
			case !absent[gen.Log]:
			case gen.Sealed:
				runs += len(gen.Ends)
			default:
				runs += m.Partitions(g.ID)
			}
		}
	}
	return len(absent), runs
}
