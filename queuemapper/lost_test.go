package queuemapper

import (
	"errors"
	"slices"
	"testing"

	"github.com/skeinmq/skein/internal/ident"
)

// TestLoseLog: what lay in a log is lost only after its record is deleted, which takes that it is sealed, that no group is open in
// it, that no live broker has it, and that it is as it was read.
func TestLoseLog(t *testing.T) {
	s := openStore(t, testConfig(t))
	a, b := mustReopen(t, s, logID(1), 1, 0), mustReopen(t, s, logID(2), 2, 0)
	firstGenerations(t, s, a)
	topic := mustCreate(t, s, "x", 0, 1)
	p, q := ident.Partition{Topic: topic.ID}, ident.Partition{Topic: topic.ID, Index: 1}
	refused := func(what string, err error, as error) {
		t.Helper()
		if !errors.Is(err, as) {
			t.Errorf("%s: %v, want %v", what, err, as)
		}
	}
	refused("an open log", s.LoseLog(t.Context(), a), ErrInvalid)
	sealed, err := s.SealLog(t.Context(), a, b)
	if err != nil {
		t.Fatal(err)
	}
	refused("a log with open groups", s.LoseLog(t.Context(), sealed), ErrInvalid)
	for g := range s.Map().Groups() {
		mustPublish(t, s, next(s, g.ID, b, map[ident.Group]map[ident.Partition]ident.Offset{0: {p: 100}, 1: {q: 7}}[g.ID]))
	}
	if _, err := s.MarkLost(t.Context(), s.Map().Group(0), 1, map[ident.Partition][]Range{p: {{40, 50}}}); err != nil {
		t.Fatal(err)
	}
	if open, runs, offsets := s.Map().Holds(a.ID); open != 0 || runs != 3 || offsets != 97 {
		t.Errorf("it holds %d groups, %d runs, %d offsets; want 0, 3, 97", open, runs, offsets)
	}
	refused("the record is there", s.MarkLogLost(t.Context(), 0, a.ID), ErrInvalid)

	// Its host comes back: with the disk, which nobody may give up then; and later without it.
	back := mustReopen(t, s, a.ID, 1, 1)
	refused("its host has reopened it", s.LoseLog(t.Context(), sealed), ErrConflict)
	refused("it is open again", s.LoseLog(t.Context(), back), ErrInvalid)
	refused("it is open again", s.MarkLogLost(t.Context(), 0, a.ID), ErrInvalid)
	if sealed, err = s.SealLog(t.Context(), back, b); err != nil {
		t.Fatal(err)
	}
	register := func(incarnation int64) {
		t.Helper()
		if err := s.RegisterBroker(t.Context(), Broker{ID: 1, Incarnation: incarnation}); err != nil {
			t.Fatal(err)
		}
		waitMap(t, s, func(m *Map) bool { return m.Broker(1) != nil && m.Broker(1).Incarnation == incarnation })
	}
	register(sealed.Incarnation)
	if m := s.Map(); !m.InService(sealed) || m.Absent(sealed) {
		t.Error("a log that its host has is said to be absent")
	}
	refused("a live broker has it", s.LoseLog(t.Context(), sealed), ErrInvalid)
	register(sealed.Incarnation + 1)
	if m := s.Map(); m.InService(sealed) || !m.Absent(sealed) {
		t.Error("a log without which its host has come is said to be there")
	}

	if err := s.LoseLog(t.Context(), sealed); err != nil || s.Map().Log(a.ID) != nil {
		t.Fatalf("lose: %v, %+v", err, s.Map().Log(a.ID))
	}
	if _, err := s.ReopenLog(t.Context(), a.ID, 1, 9, 2, nil); !errors.Is(err, ErrInvalid) {
		t.Errorf("its disk comes back all the same: %v", err)
	}
	for range 2 { // again changes nothing
		for g := range s.Map().Groups() {
			if err := s.MarkLogLost(t.Context(), g.ID, a.ID); err != nil {
				t.Fatal(err)
			}
		}
	}
	m := s.Map()
	if open, runs, offsets := m.Holds(a.ID); open != 0 || runs != 0 || offsets != 0 {
		t.Errorf("%d groups, %d runs, %d offsets are left", open, runs, offsets)
	}
	if g := m.Group(0); !slices.Equal(g.Generations[0].Lost[p], []Range{{0, 100}}) || g.Generations[0].Ends[p] != 100 {
		t.Errorf("lost %v, ends %v", g.Generations[0].Lost, g.Generations[0].Ends)
	}
	if from, to := m.Readable(q, m.Runs(m.Topic("x"), 1)[0], 3); from != 7 || to != 7 {
		t.Errorf("a reader at 3 goes on at %d up to %d", from, to)
	}
}

// TestMarkLogLostLate: the log's record comes to be while its runs are being noted as lost. What was noted before a compare
// saw the record stays; nothing is noted after.
func TestMarkLogLostLate(t *testing.T) {
	s := openStore(t, testConfig(t))
	a, b := mustReopen(t, s, logID(1), 1, 0), mustReopen(t, s, logID(2), 2, 0)
	firstGenerations(t, s, a)
	p := ident.Partition{Topic: mustCreate(t, s, "x", 0).ID}
	mustPublish(t, s, next(s, 0, b, map[ident.Partition]ident.Offset{p: 100}))
	// As it would be sent by somebody whose snapshot has no such log.
	fresh := s.Map().Group(0).clone()
	fresh.Generations[0].Lost = map[ident.Partition][]Range{p: {{0, 100}}}
	fresh.raw[0] = nil
	if _, err := s.swapGroup(t.Context(), "mark", fresh, guard{log: a.ID, gone: true}); !errors.Is(err, ErrConflict) {
		t.Errorf("a log that is in service was noted as lost: %v", err)
	}
	if lost := s.Map().Group(0).Lost(1, p); len(lost) > 0 {
		t.Errorf("lost: %v", lost)
	}
}

// TestLoseLogLateNew: the registration of a new log that was sent twice, and comes late, does not bring back the record of a log
// that was given up meanwhile.
func TestLoseLogLateNew(t *testing.T) {
	if landed := lateNew(t); landed {
		t.Error("the log was given up, and has a record again")
	}
}

func lateNew(t *testing.T) (landed bool) {
	s, kv := faulty(t)
	b := mustReopen(t, s, logID(2), 2, 0)
	release := kv.holdNext()
	a := mustReopen(t, s, logID(1), 1, 0) // its first try is on its way
	sealed, err := s.SealLog(t.Context(), a, b)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.LoseLog(t.Context(), sealed); err != nil {
		t.Fatal(err)
	}
	if _, err := s.ReopenLog(t.Context(), logID(3), 1, 1, 0, nil); err != nil {
		t.Errorf("its host opens another log: %v", err)
	}
	return release()
}
