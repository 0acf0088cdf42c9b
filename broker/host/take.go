package host

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"

	"github.com/skeinmq/skein/commitlog"
	"github.com/skeinmq/skein/internal/ident"
	"github.com/skeinmq/skein/queuemapper"
)

// WitnessesWanted is how many witnesses an open log has, when there are that many other brokers.
const WitnessesWanted = 2

// takeTries is how often a log is reopened whose record others change meanwhile.
const takeTries = 8

// Source is a log that was recovered and its witness set, nil for a log that never has one.
type Source struct {
	Log       Log
	Witnesses Witnesses
}

// TakeAll takes logs into service (O15), passes over those that are in no directory, and opens the first generations of
// groups that never had one.
func (h *Host) TakeAll(ctx context.Context, sources []Source) error {
	records := make([]*queuemapper.Log, len(sources))
	for i, s := range sources {
		rec, err := h.Take(ctx, s)
		if err != nil {
			return err
		}
		records[i] = rec
	}
	if err := h.passAbsent(ctx, sources, records); err != nil {
		return err
	}
	return h.openNewGroups(ctx, records)
}

// Take reopens one log in the map and begins it with what the map names (O15). Its record when it returns is OPEN at the
// epoch of the Hosted; whatever the record says of the time before, the whole table was with the new set first.
func (h *Host) Take(ctx context.Context, s Source) (*queuemapper.Log, error) {
	found := s.Log.Recovered()
	fail := func(err error) (*queuemapper.Log, error) {
		return nil, fmt.Errorf("take log %s into service: %w", found.ID, err)
	}
	before := h.store.Map()
	if rec := before.Log(found.ID); plants.serveFirst && rec != nil {
		return h.serveFirst(ctx, s, rec)
	}
	choose := func(epoch ident.LogEpoch) []queuemapper.Witness {
		if s.Witnesses == nil {
			return nil
		}
		return h.offer(ctx, s.Witnesses, found, epoch)
	}
	rec, err := h.store.ReopenLogWith(ctx, found.ID, h.cfg.ID, h.cfg.Incarnation, found.Epoch, choose)
	for n := 1; errors.Is(err, queuemapper.ErrConflict) && n < takeTries; n++ {
		rec, err = h.store.ReopenLogWith(ctx, found.ID, h.cfg.ID, h.cfg.Incarnation, found.Epoch, choose)
	}
	if err != nil {
		return fail(err)
	}
	if s.Witnesses != nil {
		s.Witnesses.Serve(rec) // before Begin, whose frames are witnessed, too (O4)
	}
	// The map is read after the reopening: from here on no one else can seal or open a generation in this log.
	if err := h.markLost(ctx, found); err != nil {
		return fail(err)
	}
	named := namedGenerations(h.store.Map(), found.ID)
	if plants.mapFirst {
		named = namedGenerations(before, found.ID)
	}
	if plants.diskEnds {
		keepEnds(named, found)
	}
	if err := s.Log.Begin(ctx, rec.Epoch, named); err != nil {
		return fail(err)
	}
	if rec, err = h.store.BeganLog(ctx, rec); err != nil {
		return fail(err)
	}
	logs := maps.Clone(h.Logs())
	logs[found.ID] = &Hosted{ID: found.ID, Log: s.Log, Epoch: rec.Epoch}
	h.logs.Store(&logs)
	return rec, nil
}

// offer gives the recovered table to brokers that may witness the log, the best first, until enough have it.
func (h *Host) offer(ctx context.Context, w Witnesses, found commitlog.Recovered, epoch ident.LogEpoch) []queuemapper.Witness {
	var set []queuemapper.Witness
	candidates := Candidates(h.store.Map(), h.cfg.ID, h.cfg.Rack)
	for {
		// Also with nobody to ask: from then on the set knows its log, and grows when others come.
		n := min(WitnessesWanted-len(set), len(candidates))
		set = append(set, w.Offer(ctx, found.ID, epoch, found.Generations, candidates[:n])...)
		candidates = candidates[n:]
		if len(candidates) == 0 || len(set) >= WitnessesWanted {
			return set
		}
	}
}

// Candidates lists the brokers that may witness for a broker: live ones, of other racks first.
func Candidates(m *queuemapper.Map, self ident.Broker, rack string) []queuemapper.Witness {
	var live []*queuemapper.Broker
	for b := range m.Brokers() {
		if b.ID != self && b.Internal != "" {
			live = append(live, b)
		}
	}
	near := func(b *queuemapper.Broker) int {
		if rack != "" && b.Rack == rack {
			return 1
		}
		return 0
	}
	// Behind the rack it goes by distance in the ring of ids, so that not every log has the same two.
	ring := func(b *queuemapper.Broker) int64 {
		d := int64(b.ID) - int64(self)
		if d < 0 {
			d += 1 << 32
		}
		return d
	}
	slices.SortFunc(live, func(a, b *queuemapper.Broker) int {
		return cmp.Or(cmp.Compare(near(a), near(b)), cmp.Compare(ring(a), ring(b)))
	})
	out := make([]queuemapper.Witness, len(live))
	for i, b := range live {
		out[i] = queuemapper.Witness{Broker: b.ID, Incarnation: b.Incarnation}
	}
	return out
}

// namedGenerations lists the generations that the map names for a log.
func namedGenerations(m *queuemapper.Map, id ident.Log) []commitlog.MapGeneration {
	var named []commitlog.MapGeneration
	for g := range m.Groups() {
		for i := range g.Generations {
			if gen := &g.Generations[i]; gen.Log == id {
				named = append(named, commitlog.MapGeneration{
					Generation: generationOf(g.ID, gen), Open: !gen.Sealed, Ceiling: gen.Ceiling, Ends: gen.Ends, Gap: gen.Gap,
				})
			}
		}
	}
	return named
}

// generationOf names a generation record of the map.
func generationOf(group ident.Group, g *queuemapper.Generation) ident.Generation {
	return ident.Generation{Group: group, Epoch: g.Epoch, Frame: g.Frame}
}

// markLost compares what the disk holds with the sealed ends of its runs, and notes in the map what is missing: it was
// acknowledged, the disk does not have it, and it is never filled with other data.
func (h *Host) markLost(ctx context.Context, found commitlog.Recovered) error {
	ends := make(map[ident.Generation]map[ident.Partition]ident.Offset, len(found.Generations))
	for i := range found.Generations {
		g := &found.Generations[i]
		at := make(map[ident.Partition]ident.Offset, len(g.Partitions))
		for _, p := range g.Partitions {
			at[p.Partition] = p.End
		}
		ends[g.Generation] = at
	}
	for g := range h.store.Map().Groups() {
		if err := h.markLostIn(ctx, g.ID, found.ID, ends); err != nil {
			return fmt.Errorf("mark what is lost: %w", err)
		}
	}
	return nil
}

// markLostIn is markLost for one group. Who owns the group now may be another broker, which raises its ceiling, moves it or trims its
// record at any time: then it is looked at anew. A start must not fail by that.
func (h *Host) markLostIn(ctx context.Context, group ident.Group, log ident.Log, disk map[ident.Generation]map[ident.Partition]ident.Offset) error {
	for i := 0; ; i++ {
		m := h.store.Map()
		g := m.Group(group)
		if i >= len(g.Generations) {
			return nil
		}
		gen := g.Generations[i]
		if gen.Log != log || !gen.Sealed || gen.Gap {
			continue
		}
		lost := missing(m, g, i, disk[generationOf(g.ID, &gen)])
		if len(lost) == 0 || plants.lossUnmarked {
			continue
		}
		_, err := h.store.MarkLost(ctx, g, gen.Epoch, lost)
		if errors.Is(err, queuemapper.ErrConflict) {
			i = -1
			continue
		}
		if err != nil {
			return err
		}
		for p, r := range lost {
			h.log.Error("the disk does not hold what was acknowledged", "log", log, "group", g.ID, "epoch", gen.Epoch,
				"partition", p, "from", r[0].From, "to", r[0].To)
		}
	}
}

// runIn is a partition's run in a generation; false: it has none there, or its topic is gone.
func runIn(m *queuemapper.Map, p ident.Partition, gen ident.Generation) (queuemapper.Run, bool) {
	for _, r := range m.Runs(m.TopicByID(p.Topic), p.Index) {
		if r.Generation == gen {
			return r, true
		}
	}
	return queuemapper.Run{}, false
}

// missing is what a sealed generation should hold beyond the ends on the disk, and is not noted yet.
func missing(m *queuemapper.Map, g *queuemapper.Group, i int, disk map[ident.Partition]ident.Offset) map[ident.Partition][]queuemapper.Range {
	gen := &g.Generations[i]
	lost := make(map[ident.Partition][]queuemapper.Range)
	for p, end := range gen.Ends {
		if max(disk[p], g.Start(p, i)) >= end {
			continue
		}
		// The run says more than the group: a partition that was split into it begins where it came in.
		run, lives := runIn(m, p, generationOf(g.ID, gen))
		r := queuemapper.Range{From: max(disk[p], run.Start), To: run.End}
		if !lives || r.From >= r.To {
			continue
		}
		if !slices.ContainsFunc(gen.Lost[p], func(k queuemapper.Range) bool { return k.From <= r.From && k.To >= r.To }) {
			lost[p] = []queuemapper.Range{r}
		}
	}
	return lost
}
