package queuemapper

import (
	"fmt"
	"slices"
	"testing"

	"github.com/skeinmq/skein/internal/ident"
)

// TestWithRoom: new partitions go to brokers whose disks have room, unless no disk has any, or somebody named the broker.
func TestWithRoom(t *testing.T) {
	s := openStore(t, testConfig(t))
	a, b := mustReopen(t, s, logID(1), 1, 0), mustReopen(t, s, logID(2), 2, 0)
	firstGenerations(t, s, a)
	for _, g := range []ident.Group{1, 3} {
		if err := s.Publish(t.Context(), []Publication{next(s, g, b, nil)})[0]; err != nil {
			t.Fatal(err)
		}
	}
	hosts := func(groups []ident.Group) (out []ident.Broker) {
		for _, g := range groups {
			out = append(out, s.Map().Log(s.Map().Group(g).Current().Log).Host)
		}
		return out
	}
	register := func(id ident.Broker, roles ...string) {
		t.Helper()
		if err := s.RegisterBroker(t.Context(), Broker{ID: id, Incarnation: 1, Roles: roles}); err != nil {
			t.Fatal(err)
		}
	}
	check := func(what string, full []ident.Broker, want ...ident.Broker) {
		t.Helper()
		for id := range ident.Broker(4) {
			if got := s.Map().Full(id); got != slices.Contains(full, id) {
				t.Errorf("%s: broker %d full: %v", what, id, got)
			}
		}
		if got := hosts(s.Map().PlaceNew(ident.Topic{9}, 0, 4)); !slices.Equal(got, want) {
			t.Errorf("%s: placed at %v, want %v", what, got, want)
		}
	}
	register(1, "broker")
	register(2, "broker", RoleFull)
	check("one is full", []ident.Broker{2}, 1, 1, 1, 1)
	if got := fmt.Sprint(hosts(s.Map().PlaceAt(ident.Topic{9}, 0, []ident.Broker{2, 9}))); got != "[2 1]" {
		t.Errorf("placed at %s where somebody wanted it", got)
	}
	if got := s.Map().WithRoom([]*Log{a, b}); len(got) != 1 || got[0] != a {
		t.Errorf("logs with room: %v", got)
	}
	register(1, "broker", RoleFull)
	check("all are full", []ident.Broker{1, 2}, 1, 2, 1, 2)
	if got := s.Map().WithRoom([]*Log{a, b}); len(got) != 2 {
		t.Errorf("logs with room: %v", got)
	}
	register(2, "broker")
	check("room is back", []ident.Broker{1}, 2, 2, 2, 2)
}
