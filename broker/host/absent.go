package host

import (
	"context"
	"errors"
	"fmt"
	"slices"

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

// Absent lists the logs that this broker hosts according to a map, and that none of its directories holds.
func (h *Host) Absent(m *queuemapper.Map) []*queuemapper.Log {
	var out []*queuemapper.Log
	for l := range m.Logs() {
		if l.Host == h.cfg.ID && h.Hosted(l.ID) == nil {
			out = append(out, l)
		}
	}
	return out
}

// passAbsent takes logs whose directories are not there out of service, and opens their groups on the others. Whoever
// appended to them was this broker before it started: it is dead (O22), as the caller has made sure of. A log that has
// witnesses is left to the controller, which asks them for the exact ends.
func (h *Host) passAbsent(ctx context.Context, sources []Source, open []*queuemapper.Log) error {
	for _, l := range h.Absent(h.store.Map()) {
		h.log.Warn("log is not in any data directory: what it holds cannot be read", "log", l.ID, "failover.unwitnessed", string(h.cfg.Unwitnessed))
		if l.State == queuemapper.LogOpen {
			sealed, err := h.sealAbsent(ctx, l, open)
			if err != nil {
				return fmt.Errorf("seal absent log: %w", err)
			}
			if l = sealed; l == nil {
				continue
			}
		}
		if h.cfg.Unwitnessed == UnwitnessedWait || len(l.Witnesses) > 0 {
			continue
		}
		if err := h.failOver(ctx, l, open); err != nil {
			return fmt.Errorf("open the groups of absent log %s elsewhere: %w", l.ID, err)
		}
	}
	for _, s := range sources {
		if found := s.Log.Recovered(); found.Fresh && len(h.Absent(h.store.Map())) > 0 {
			h.log.Warn("an empty directory became a new log; the absent ones stay absent", "log", found.ID)
		}
	}
	return nil
}

// sealAbsent seals a log that is in no directory here. The controller may seal it too, and a witness leave it: then it is looked at
// anew, as a start must not fail by that. Nil: it is not this broker's any more.
func (h *Host) sealAbsent(ctx context.Context, l *queuemapper.Log, open []*queuemapper.Log) (*queuemapper.Log, error) {
	for {
		sealed, err := h.store.SealLog(ctx, l, open[:min(1, len(open))]...) // O9, O19: this broker has another one open
		if !errors.Is(err, queuemapper.ErrConflict) {
			return sealed, err
		}
		switch now := h.store.Map().Log(l.ID); {
		case now == nil || now.Host != h.cfg.ID:
			return nil, nil
		case now.Revision == l.Revision || now.Epoch != l.Epoch:
			return nil, err // the other one is not open any more, or somebody else is this broker
		case now.State == queuemapper.LogSealed:
			return now, nil
		default:
			l = now
		}
	}
}

// passLost opens the groups of a sealed log whose disk is gone for good, and whose ends nobody knows, on the logs here, at their
// ceilings. That the disk is gone is an operator's word (O22).
func (h *Host) passLost(ctx context.Context, l *queuemapper.Log) error {
	var open []*queuemapper.Log
	m := h.store.Map()
	for id, hosted := range h.Logs() {
		if rec := m.Log(id); rec != nil && rec.State == queuemapper.LogOpen && rec.Epoch == hosted.Epoch {
			open = append(open, rec)
		}
	}
	if len(open) == 0 {
		return ErrNotHosted
	}
	defer h.cfg.Changed()
	return h.failOver(ctx, l, open)
}

// failOver opens the next generations of a sealed log's groups on the open logs, at their ceilings.
func (h *Host) failOver(ctx context.Context, source *queuemapper.Log, open []*queuemapper.Log) error {
	m := h.store.Map() // O9: read after the seal, so it has every group and every partition
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
	next := make([][]nextGeneration, len(open))
	for _, move := range plan {
		g := m.Group(move.Group)
		cur := g.Current()
		switch {
		case move.From != source.ID:
		case cur.Ceiling == 0:
			h.log.Warn("group waits for its log: it never had a ceiling", "group", g.ID, "log", source.ID)
		default:
			for i, l := range open {
				if l.ID == move.To {
					next[i] = append(next[i], h.nextAtCeiling(m, g, source, members[g.ID]))
				}
			}
		}
	}
	for i, list := range next {
		if err := h.openNext(ctx, open[i], list); err != nil {
			return err
		}
		h.log.Warn("groups of an absent log go on at their ceilings", "absent", source.ID, "log", open[i].ID, "groups", len(list))
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
func (h *Host) nextAtCeiling(m *queuemapper.Map, g *queuemapper.Group, source *queuemapper.Log, in []member) nextGeneration {
	cur := g.Current()
	if plants.gapSome {
		in = slices.DeleteFunc(slices.Clone(in), func(p member) bool { return g.End(ident.Partition{Topic: p.topic.ID, Index: p.index}) == 0 })
	}
	state := make([]ident.PartitionState, len(in))
	for i, p := range in {
		state[i] = ident.PartitionState{
			Partition: ident.Partition{Topic: p.topic.ID, Index: p.index},
			End:       cur.Ceiling, LogStart: min(h.oldestKnown(m, p), cur.Ceiling),
		}
		if plants.startBehind {
			state[i].LogStart = cur.Ceiling
		}
	}
	sortState(state)
	ceiling := h.reserves.ceiling(g.ID, cur, state)
	return nextGeneration{
		opening: commitlog.Opening{Group: g.ID, Epoch: cur.Epoch + 1, State: state, Ceiling: ceiling},
		pub:     queuemapper.Publication{Group: g, Source: source, Ends: queuemapper.EndsOf(state), Gap: true, Ceiling: ceiling},
	}
}

// oldestKnown is the log start of a partition as far as it can be told without its newest log: no lower than any log
// start that is known, and where the oldest run begins that is not noted as lost as a whole. What lies in the log that is away
// counts as there, also when an operator has said that it is lost: its disk may come back before its record is gone, and is served
// then.
func (h *Host) oldestKnown(m *queuemapper.Map, p member) ident.Offset {
	id := ident.Partition{Topic: p.topic.ID, Index: p.index}
	runs := m.Runs(p.topic, p.index)
	start := ident.Offset(0)
	for _, r := range runs {
		if q := h.localQueue(r, id); q != nil {
			start = max(start, q.LogStart())
		}
	}
	for _, r := range runs {
		if !r.Open && r.End <= start {
			continue
		}
		if gone, _ := m.Readable(id, r, r.Start); !r.Open && gone >= r.End {
			start = max(start, r.End)
			continue
		}
		start = max(start, r.Start)
		if h.Hosted(r.Log) == nil {
			return start // it may be there to the last offset
		}
		if q := h.localQueue(r, id); q != nil {
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
func (h *Host) localQueue(r queuemapper.Run, p ident.Partition) Queue {
	if l := h.Hosted(r.Log); l != nil {
		if q, ok := h.cfg.Queue(l.Log, r.Generation, p); ok {
			return q
		}
	}
	return nil
}

// SealedRun is a run of this broker's that was sealed at its ceiling (ADR 10), and is here.
type SealedRun struct {
	Partition ident.Partition
	Queue     *commitlog.Queue
}

// GapRuns lists the runs here that were sealed without their log: it may know their log starts better than the
// generation that followed.
func (h *Host) GapRuns() []SealedRun {
	m := h.store.Map()
	var out []SealedRun
	for id, l := range h.Logs() {
		for _, named := range namedGenerations(m, id) {
			if !named.Gap {
				continue
			}
			for p := range named.Ends {
				if q, ok := l.Log.Sealed(named.Generation, p); ok {
					out = append(out, SealedRun{p, q})
				}
			}
		}
	}
	return out
}
