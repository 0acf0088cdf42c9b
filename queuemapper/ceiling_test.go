package queuemapper

import (
	"errors"
	"testing"

	"github.com/skeinmq/skein/internal/ident"
)

// TestCeilings: a ceiling goes up by compare-and-swap only, and bounds what a publication may say.
func TestCeilings(t *testing.T) {
	s := openStore(t, testConfig(t))
	a, b := mustReopen(t, s, logID(1), 1, 0), mustReopen(t, s, logID(2), 1, 0)
	firstGenerations(t, s, a, b)
	topic := mustCreate(t, s, "x", 0, 0)
	p, q := ident.Partition{Topic: topic.ID}, ident.Partition{Topic: topic.ID, Index: 1}
	at := func(o ident.Offset, ps ...ident.Partition) map[ident.Partition]ident.Offset {
		out := map[ident.Partition]ident.Offset{}
		for _, p := range ps {
			out[p] = o
		}
		return out
	}
	publish := func(pub Publication) error { return s.Publish(t.Context(), []Publication{pub})[0] }

	unbounded := next(s, 0, b, at(100, p))
	unbounded.Gap = true
	if err := publish(unbounded); !errors.Is(err, ErrInvalid) {
		t.Errorf("a gap without a ceiling: %v", err)
	}
	pub := next(s, 0, b, at(10, p))
	pub.Ceiling = 9
	if err := publish(pub); !errors.Is(err, ErrInvalid) {
		t.Errorf("a start beyond the ceiling: %v", err)
	}
	pub.Ceiling = 100
	mustPublish(t, s, pub)

	old := s.Map().Group(0)
	g, err := s.RaiseCeiling(t.Context(), old, 200)
	if err != nil || g.Current().Ceiling != 200 || s.Map().Group(0).Current().Ceiling != 200 {
		t.Fatalf("raise: %+v, %v", g, err)
	}
	if _, err := s.RaiseCeiling(t.Context(), old, 300); !errors.Is(err, ErrConflict) {
		t.Errorf("raise of an old record: %v", err)
	}
	if _, err := s.RaiseCeiling(t.Context(), g, 200); !errors.Is(err, ErrInvalid) {
		t.Errorf("raise to the same: %v", err)
	}

	if err := publish(next(s, 0, a, at(201, p))); !errors.Is(err, ErrInvalid) {
		t.Errorf("an end beyond the ceiling: %v", err)
	}
	sealed, err := s.SealLog(t.Context(), b)
	if err != nil {
		t.Fatal(err)
	}
	gap := next(s, 0, a, at(200, p, q))
	gap.Source, gap.Gap, gap.Ceiling = sealed, true, 500
	low := gap
	low.Ends = at(199, p)
	if err := publish(low); !errors.Is(err, ErrInvalid) {
		t.Errorf("a gap below the ceiling: %v", err)
	}
	mustPublish(t, s, gap)
	m := s.Map()
	for i, want := range [][]Run{
		{{Start: 0, End: 10}, {Start: 10, End: 200, Gap: true}, {Start: 200, Open: true}},
		{{Start: 0, End: 200, Gap: true}, {Start: 200, Open: true}},
	} {
		got := m.Runs(m.Topic("x"), int32(i))
		for k := range got {
			got[k].Generation, got[k].Log = ident.Generation{}, ident.Log{}
		}
		if len(got) != len(want) {
			t.Fatalf("partition %d: runs %+v", i, got)
		}
		for k := range got {
			if got[k] != want[k] {
				t.Errorf("partition %d: run %+v, want %+v", i, got[k], want[k])
			}
		}
	}
	if cur := m.Group(0).Current(); cur.Ceiling != 500 || m.Group(0).Generations[1].Ceiling != 0 {
		t.Errorf("group %+v", m.Group(0))
	}
}

// TestGroupVersion1: records from before there were ceilings are read, and stay without a bound.
func TestGroupVersion1(t *testing.T) {
	v := encodeGroup(&Group{Generations: []Generation{
		{Epoch: 1, Log: logID(1), Frame: ident.Frame{Epoch: 1, Position: 1}, Sealed: true},
		{Epoch: 2, Log: logID(1), Frame: ident.Frame{Epoch: 1, Position: 2}},
	}})
	v = v[:len(v)-crcSize]
	v[1] = 1
	g, err := decodeGroup(0, finish(v), 1, nil)
	if err != nil || g.Current() == nil || g.Current().Ceiling != 0 || g.Generations[0].Gap {
		t.Fatalf("%+v, %v", g, err)
	}
}
