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

// TestOrders: a pin and a list of replicas are written for an order that is in force only, in one step with its end.
func TestOrders(t *testing.T) {
	s := openStore(t, testConfig(t))
	firstGenerations(t, s, mustReopen(t, s, logID(1), 1, 0))
	topic, err := s.CreateTopic(t.Context(), NewTopic{Name: "t", Placements: []ident.Group{0, 1, 0}})
	if err != nil {
		t.Fatal(err)
	}
	order := func(index int32, worker ident.Broker, incarnation int64, list ...ident.Broker) Order {
		return Order{ident.Partition{Topic: topic.ID, Index: index}, Reassignment{Replicas: list, From: 1, Worker: worker, Incarnation: incarnation}}
	}
	there := []Order{order(0, 3, 7, 2, 1), order(1, 3, 7, 2), order(2, 3, 7, 4)}
	if err := s.Reassign(t.Context(), topic.ID, func(of map[int32]Reassignment) {
		for _, o := range there {
			of[o.Partition.Index] = o.Reassignment
		}
	}); err != nil {
		t.Fatal(err)
	}
	for _, late := range []Order{order(0, 2, 7, 2, 1), order(0, 3, 6, 2, 1), order(0, 3, 7, 1, 2), order(5, 3, 7, 2, 1)} {
		if s.Map().InForce(late) {
			t.Errorf("%+v is in force", late)
		}
		if err := s.PinFor(t.Context(), 0, late); !errors.Is(err, ErrSuperseded) {
			t.Errorf("pin for %+v: %v", late, err)
		}
		if err := s.Fulfil(t.Context(), topic.ID, []Order{late}); err != nil {
			t.Error(err)
		}
	}
	if _, ok := s.Map().Pin(0); ok || s.Map().Assignments(topic.ID).Of(0) != nil || !s.Map().InForce(there[0]) {
		t.Error("an order that is not in force had an effect")
	}
	if err := s.PinFor(t.Context(), 0, there[0]); err != nil {
		t.Error(err)
	}
	if err := s.Fulfil(t.Context(), topic.ID, []Order{there[0], order(1, 9, 7, 2), there[2]}); err != nil {
		t.Error(err)
	}
	m := s.Map()
	if pin, ok := m.Pin(0); !ok || pin.Broker != 2 || !pin.Until.IsZero() {
		t.Errorf("pin %+v, %v", pin, ok)
	}
	if lists := m.Assignments(topic.ID); !slices.Equal(lists.Of(0), []ident.Broker{2, 1}) || lists.Of(1) != nil || !slices.Equal(lists.Of(2), []ident.Broker{4}) {
		t.Errorf("lists %v", lists)
	}
	if m.InForce(there[0]) || !m.InForce(there[1]) || m.InForce(there[2]) {
		t.Error("what is fulfilled goes on, or what is not does not")
	}
	if err := s.Fulfil(t.Context(), topic.ID, there); err != nil || s.Map().InForce(there[1]) {
		t.Errorf("the last one: %v", err)
	}
	for range s.Map().Reassignments() {
		t.Error("an order is left")
	}
}
