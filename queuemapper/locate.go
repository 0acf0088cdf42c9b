package queuemapper

import (
	"math"

	"github.com/skeinmq/skein/internal/ident"
)

// noEnd is the end of a stay that goes on.
const noEnd = ident.Offset(math.MaxInt64)

// stay is one residence of one partition with what bounds it.
type stay struct {
	Residence
	to    ident.Offset // the next residence's From, or noEnd
	ended bool         // there is a next residence, and so Last counts
	group *Group
	p     ident.Partition
}

func (m *Map) stay(t *Topic, index int32, r int) stay {
	pl := t.Partitions[index]
	s := stay{Residence: pl[r], to: noEnd, group: m.Group(pl[r].Group), p: ident.Partition{Topic: t.ID, Index: index}}
	if r+1 < len(pl) {
		s.to, s.ended = pl[r+1].From, true
	}
	return s
}

// places returns the partition's placement, nil when there is no such partition.
func places(t *Topic, index int32) Placement {
	if t == nil || index < 0 || int(index) >= len(t.Partitions) {
		return nil
	}
	return t.Partitions[index]
}

// run makes the run of generation i that starts no earlier than before.
func (s stay) run(i int, before, end ident.Offset) Run {
	gen := &s.group.Generations[i]
	return Run{
		Generation: ident.Generation{Group: s.group.ID, Epoch: gen.Epoch, Frame: gen.Frame},
		Log:        gen.Log,
		Start:      max(before, s.From),
		End:        min(end, s.to),
		Gap:        gen.Gap,
	}
}

// open returns the open run of a stay that goes on.
func (s stay) open(before ident.Offset) (Run, bool) {
	if s.group.Current() == nil {
		return Run{}, false
	}
	r := s.run(len(s.group.Generations)-1, before, noEnd)
	r.Open, r.End = true, 0
	return r, true
}

// last returns the run in which the stay ended: its generation may still be open for others.
func (s stay) last(before ident.Offset) (Run, bool) {
	i := s.group.at(s.Last)
	if i < 0 || s.group.Generations[i].Epoch != s.Last {
		return Run{}, false // trimmed
	}
	return s.run(i, before, s.to), true
}

func (s stay) locate(o ident.Offset) (r Run, ok bool) {
	if s.group == nil {
		return Run{}, false
	}
	gen, before, end, sealed := s.group.seek(s.p, o)
	switch {
	case sealed && (!s.ended || s.group.Generations[gen].Epoch < s.Last):
		r, ok = s.run(gen, before, end), true
	case s.ended:
		r, ok = s.last(before)
	default:
		r, ok = s.open(before)
	}
	return r, ok && o >= r.Start
}

// Owner is the open run of a partition: who takes its appends. False while the group has
// no open generation (only before the first broker of a new cluster is up) or when there
// is no such partition. The log is nil only if its record is gone.
func (m *Map) Owner(t *Topic, index int32) (Run, *Log, bool) {
	pl := places(t, index)
	if len(pl) == 0 {
		return Run{}, nil, false
	}
	s := m.stay(t, index, len(pl)-1)
	if s.group == nil {
		return Run{}, nil, false
	}
	r, ok := s.open(s.group.End(s.p))
	if !ok {
		return Run{}, nil, false
	}
	return r, m.Log(r.Log), true
}

// Runs returns the partition's runs in offset order, empty ones left out except the open
// one, which is last.
func (m *Map) Runs(t *Topic, index int32) []Run {
	pl := places(t, index)
	var out []Run
	for i := range pl {
		s := m.stay(t, index, i)
		if s.group == nil {
			continue
		}
		for o := max(s.From, s.group.Starts[s.p]); o < s.to; {
			r, ok := s.locate(o)
			if !ok {
				break
			}
			out = append(out, r)
			if r.Open {
				break
			}
			o = r.End
		}
	}
	return out
}

// Locate returns the run that holds an offset: binary search over the group's generations.
// An offset at or past the open run's start is in the open run. False below the first run.
func (m *Map) Locate(t *Topic, index int32, o ident.Offset) (Run, bool) {
	pl := places(t, index)
	for i := len(pl) - 1; i >= 0; i-- {
		if pl[i].From <= o {
			return m.stay(t, index, i).locate(o)
		}
	}
	return Run{}, false
}

// Readable is what a reader at offset o of a run is served from next: from is o, or, where what was at o is lost, the offset
// behind it; to is where the next lost range begins, or the run ends. from == run.End: nothing is left in the run. The
// offsets of what is lost stay as they are, and are never given to other records: readers go on behind them (I4).
func (m *Map) Readable(p ident.Partition, run Run, o ident.Offset) (from, to ident.Offset) {
	if run.Open {
		return o, noEnd // it may be noted of sealed generations only
	}
	if g := m.Group(run.Generation.Group); g != nil {
		for _, lost := range g.Lost(run.Generation.Epoch, p) {
			switch {
			case lost.To <= o:
			case lost.From > o:
				return o, min(lost.From, run.End)
			default:
				o = min(lost.To, run.End)
			}
		}
	}
	return o, run.End
}

// EpochEnd answers OffsetForLeaderEpoch for an epoch below the current one (Kafka's
// LeaderEpochFileCache.endOffsetFor): the greatest epoch <= e that the partition has had,
// and its end. ok is false when e is below every known epoch; end is then the start of the
// first known one, which is what Kafka answers, with e itself. open is true when the answer
// is the open generation, whose end only the log knows; end is its start.
func (m *Map) EpochEnd(t *Topic, index int32, e ident.Epoch) (epoch ident.Epoch, end ident.Offset, open, ok bool) {
	pl := places(t, index)
	for r := len(pl) - 1; r >= 0; r-- {
		s := m.stay(t, index, r)
		if s.group == nil || s.First > e {
			continue
		}
		limit := e
		if s.ended {
			limit = min(limit, s.Last)
		}
		i := s.group.at(limit)
		if i < 0 || s.group.Generations[i].Epoch < s.First {
			continue
		}
		gen := &s.group.Generations[i]
		switch {
		case s.ended && gen.Epoch == s.Last:
			return gen.Epoch, s.to, false, true
		case !gen.Sealed:
			return gen.Epoch, max(s.From, s.group.endAt(s.p, i-1)), true, true
		default:
			return gen.Epoch, min(s.to, max(s.From, s.group.endAt(s.p, i))), false, true
		}
	}
	if runs := m.Runs(t, index); len(runs) > 0 {
		end = runs[0].Start
	}
	return e, end, false, false
}
