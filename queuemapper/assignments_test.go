package queuemapper

import (
	"errors"
	"slices"
	"testing"

	"github.com/skeinmq/skein/internal/ident"
)

// TestAssign: lists come with the topic, change one by one, and go with it.
func TestAssign(t *testing.T) {
	s := openStore(t, testConfig(t))
	a := mustReopen(t, s, logID(1), 1, 0)
	firstGenerations(t, s, a)
	id := ident.Topic{7}
	rec, err := s.CreateTopic(t.Context(), NewTopic{Name: "t", ID: id, Placements: []ident.Group{0, 1, 0}, Assigned: map[int32][]ident.Broker{1: {3, 1, 2}}})
	if err != nil {
		t.Fatal(err)
	}
	check := func(index int32, want ...ident.Broker) {
		t.Helper()
		if got := s.Map().Assignments(id).Of(index); !slices.Equal(got, want) {
			t.Errorf("partition %d is assigned to %v, want %v", index, got, want)
		}
	}
	check(0)
	check(1, 3, 1, 2)
	if err := s.Assign(t.Context(), id, map[int32][]ident.Broker{0: {2}, 1: nil, 2: {1, 2}}); err != nil {
		t.Fatal(err)
	}
	check(0, 2)
	check(1)
	check(2, 1, 2)
	if err := s.DeleteTopic(t.Context(), rec.Name, id); err != nil {
		t.Fatal(err)
	}
	check(0)
	if err := s.Assign(t.Context(), id, map[int32][]ident.Broker{0: {2}}); !errors.Is(err, ErrNotFound) {
		t.Errorf("assign partitions of a topic that is gone: %v", err)
	}
	for name := range s.Map().DynamicNames(kindReplicas) {
		t.Errorf("lists of topic %s are left over", name)
	}
}

func TestPlaceAt(t *testing.T) {
	s := openStore(t, testConfig(t))
	a, b := mustReopen(t, s, logID(1), 1, 0), mustReopen(t, s, logID(2), 2, 0)
	firstGenerations(t, s, a)
	for _, g := range []ident.Group{1, 3} {
		if err := s.Publish(t.Context(), []Publication{next(s, g, b, nil)})[0]; err != nil {
			t.Fatal(err)
		}
	}
	hosts := []ident.Broker{2, 1, 2, 2, 9}
	for i, g := range s.Map().PlaceAt(ident.Topic{1}, 0, hosts) {
		host := s.Map().Log(s.Map().Group(g).Current().Log).Host
		if host != hosts[i] && hosts[i] != 9 {
			t.Errorf("partition %d is placed at broker %d, want %d", i, host, hosts[i])
		}
	}
}

func TestCoordinators(t *testing.T) {
	for _, groups := range []int{1, 3, 50, 64, 1024} {
		m := &Map{cluster: Cluster{Groups: groups}}
		want := make(map[ident.Group]int)
		for p := range int32(CoordinatorPartitions) {
			want[m.CoordinatorGroup(p)]++
		}
		for g := range ident.Group(groups) {
			if got := m.Coordinators(g); got != want[g] {
				t.Errorf("%d groups: group %d has %d coordinators, want %d", groups, g, got, want[g])
			}
		}
	}
}
