package queuemapper

import (
	"errors"
	"testing"

	"github.com/skeinmq/skein/internal/ident"
)

func TestDrainBroker(t *testing.T) {
	s := openStore(t, testConfig(t))
	if s.Map().Draining(7) || s.Map().Drained(7) {
		t.Fatal("a broker that nobody drained is drained")
	}
	for _, on := range []bool{true, true, false, false} {
		if err := s.DrainBroker(t.Context(), 7, on); err != nil {
			t.Fatal(err)
		}
		if m := s.Map(); m.Drained(7) != on || m.Draining(7) != on || m.Drained(8) {
			t.Errorf("after DrainBroker(%v): drained %v", on, m.Drained(7))
		}
	}
}

// TestRemoveLog: a record goes when nothing lives in its log, and never the last open one.
func TestRemoveLog(t *testing.T) {
	s := openStore(t, testConfig(t))
	a, b := mustReopen(t, s, logID(1), 1, 0), mustReopen(t, s, logID(2), 2, 0)
	firstGenerations(t, s, a)
	if err := s.RemoveLog(t.Context(), a); !errors.Is(err, ErrInvalid) {
		t.Errorf("remove a log with open generations: %v", err)
	}
	if got := s.Map().Log(a.ID); got.State != LogOpen {
		t.Errorf("a log that stays is %+v", got)
	}
	stale := *b
	stale.Revision--
	if err := s.RemoveLog(t.Context(), &stale); !errors.Is(err, ErrConflict) {
		t.Errorf("remove by an older record: %v", err)
	}
	if err := s.RemoveLog(t.Context(), s.Map().Log(b.ID)); err != nil || s.Map().Log(b.ID) != nil {
		t.Errorf("remove an empty log: %v, %+v", err, s.Map().Log(b.ID))
	}
	// A generation with records keeps its log; one in which nobody got anything does not.
	c := mustReopen(t, s, logID(3), 3, 0)
	for i, g := range []ident.Group{0, 1} {
		pub := next(s, g, c, nil)
		if i == 0 {
			pub.Ends = map[ident.Partition]ident.Offset{{Topic: ident.Topic{1}}: 5}
		}
		if err := s.Publish(t.Context(), []Publication{pub})[0]; err != nil {
			t.Fatal(err)
		}
	}
	if err := s.RemoveLog(t.Context(), s.Map().Log(a.ID)); !errors.Is(err, ErrInvalid) {
		t.Errorf("remove a log with records: %v", err)
	}
	if err := s.RemoveLog(t.Context(), s.Map().Log(c.ID)); !errors.Is(err, ErrInvalid) {
		t.Errorf("remove a log with open generations: %v", err)
	}
}
