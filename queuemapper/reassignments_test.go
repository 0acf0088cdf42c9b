package queuemapper

import (
	"errors"
	"slices"
	"testing"

	"github.com/skeinmq/skein/internal/ident"
)

// TestReassign: what goes on is in the map by partition, changes one by one, and goes with its topic.
func TestReassign(t *testing.T) {
	s := openStore(t, testConfig(t))
	a := mustReopen(t, s, logID(1), 1, 0)
	firstGenerations(t, s, a)
	topic, err := s.CreateTopic(t.Context(), NewTopic{Name: "t", Placements: []ident.Group{0, 1, 0}})
	if err != nil {
		t.Fatal(err)
	}
	if err := s.SetDynamic(t.Context(), kindReplicas, topic.ID.String(), func(map[string]string) (map[string]string, error) { // kinds do not mix
		return map[string]string{"0": "3"}, nil
	}); err != nil {
		t.Fatal(err)
	}
	want := map[int32]Reassignment{
		0:  {Replicas: []ident.Broker{2, 1, 3}, From: 1, Worker: 3, Incarnation: 1 << 40},
		2:  {Replicas: []ident.Broker{0}, From: 0, Worker: 0, Incarnation: 0},
		10: {Replicas: []ident.Broker{5}, From: 7, Worker: 5, Incarnation: 1},
	}
	set := func(change func(map[int32]Reassignment)) {
		t.Helper()
		if err := s.Reassign(t.Context(), topic.ID, change); err != nil {
			t.Fatal(err)
		}
	}
	check := func(order ...int32) {
		t.Helper()
		var got []int32
		for p, r := range s.Map().Reassignments() {
			w := want[p.Index]
			if one, ok := s.Map().Reassignment(p); !ok || !slices.Equal(one.Replicas, r.Replicas) || p.Topic != topic.ID || !slices.Equal(r.Replicas, w.Replicas) ||
				r.From != w.From || r.Worker != w.Worker || r.Incarnation != w.Incarnation {
				t.Errorf("%v: %+v, want %+v", p, r, w)
			}
			got = append(got, p.Index)
		}
		if !slices.Equal(got, order) {
			t.Errorf("partitions %v, want %v", got, order)
		}
	}
	check()
	set(func(of map[int32]Reassignment) {
		for index, r := range want {
			of[index] = r
		}
	})
	check(0, 2, 10)
	set(func(of map[int32]Reassignment) { delete(of, 2) })
	check(0, 10)
	if _, ok := s.Map().Reassignment(ident.Partition{Topic: topic.ID, Index: 2}); ok {
		t.Error("one that is over is there")
	}
	for _, text := range []string{"", "1", "x from 1 by 2@3", " from 1 by 2@3", "1 from by 2@3", "1,2 from 1 by 2"} {
		if r, ok := parseReassignment(text); ok {
			t.Errorf("%q is read as %+v", text, r)
		}
	}
	if err := s.DeleteTopic(t.Context(), "t", topic.ID); err != nil {
		t.Fatal(err)
	}
	check()
	if err := s.Reassign(t.Context(), topic.ID, func(map[int32]Reassignment) {}); !errors.Is(err, ErrNotFound) {
		t.Errorf("of a topic that is gone: %v", err)
	}
}
