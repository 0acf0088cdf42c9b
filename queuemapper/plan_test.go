package queuemapper

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/skeinmq/skein/internal/ident"
)

// placedMap has groups on logs: on[i] is the log of group i, 0 for none; counts their partitions.
func placedMap(t testing.TB, logs int, on []int, counts []int) *Map {
	e := newMap().edit()
	put := func(key string, v []byte) {
		if err := e.put(key, v, 1); err != nil {
			t.Fatal(err)
		}
	}
	put(keyCluster, encodeCluster(Cluster{ID: "c", Format: 1, Groups: len(on)}))
	for i := range logs {
		put(keyLog(logID(byte(i+1))), encodeLog(&Log{Epoch: 1}, [8]byte{}))
	}
	topic := &Topic{ID: ident.Topic{1}}
	for i, l := range on {
		g := &Group{}
		if l > 0 {
			g.Generations = []Generation{{Epoch: 1, Log: logID(byte(l))}}
		}
		put(keyGroup(ident.Group(i)), encodeGroup(g))
		if counts != nil {
			for range counts[i] {
				topic.Partitions = append(topic.Partitions, Placement{{Group: ident.Group(i)}})
			}
		}
	}
	put(keyTopic("t"), encodeTopic(topic))
	return e.done(1)
}

func TestPlan(t *testing.T) {
	for _, test := range []struct {
		name   string
		on     []int
		counts []int
		to     []byte
		want   string
	}{
		{"balanced stays", []int{1, 2, 1, 2}, nil, []byte{1, 2}, "[]"},
		{"one over is balanced", []int{1, 2, 1}, nil, []byte{2, 1}, "[]"},
		{"a new log", []int{1, 1, 2, 2, 1, 2}, nil, []byte{1, 2, 3}, "[4:1>3 5:2>3]"},
		{"the emptiest move", []int{1, 1, 1, 1}, []int{1, 9, 3, 9}, []byte{1, 2}, "[0:1>2 2:1>2]"},
		{"a log is emptied", []int{1, 2, 1, 2}, nil, []byte{2}, "[0:1>2 2:1>2]"},
		{"the first generations", []int{0, 0, 0, 0}, nil, []byte{1, 2}, "[0:0>1 1:0>1 2:0>2 3:0>2]"},
	} {
		m := placedMap(t, 3, test.on, test.counts)
		var to []ident.Log
		for _, b := range test.to {
			to = append(to, logID(b))
		}
		moves, err := m.Plan(to)
		if err != nil {
			t.Errorf("%s: %v", test.name, err)
		}
		got := []string{}
		for _, mv := range moves {
			got = append(got, fmt.Sprintf("%d:%d>%d", mv.Group, mv.From[15], mv.To[15]))
		}
		if fmt.Sprint(got) != test.want {
			t.Errorf("%s: %v, want %s", test.name, got, test.want)
		}
	}
	if _, err := placedMap(t, 1, []int{1}, nil).Plan([]ident.Log{logID(9)}); !errors.Is(err, ErrInvalid) {
		t.Errorf("unknown log: %v", err)
	}
	if _, err := placedMap(t, 1, []int{1}, nil).Plan(nil); !errors.Is(err, ErrInvalid) {
		t.Errorf("no log: %v", err)
	}
}

// TestPlanIsMinimal: even, deterministic, and not one move more than the imbalance demands.
func TestPlanIsMinimal(t *testing.T) {
	for _, seed := range seeds(t, 200) {
		rng := rand.New(rand.NewPCG(seed, 3))
		logs := 1 + rng.IntN(6)
		on, counts := make([]int, 1+rng.IntN(60)), []int{}
		for i := range on {
			on[i] = rng.IntN(logs + 1)
			counts = append(counts, rng.IntN(5))
		}
		m := placedMap(t, logs, on, counts)
		var to []ident.Log
		for i := range 1 + rng.IntN(logs) {
			to = append(to, logID(byte(i+1)))
		}
		moves, err := m.Plan(to)
		if err != nil {
			t.Fatal(err)
		}
		rng.Shuffle(len(to), func(i, j int) { to[i], to[j] = to[j], to[i] })
		if again, _ := m.Plan(to); !slices.Equal(moves, again) {
			t.Fatalf("SKEIN_SEED=%d: two plans differ", seed)
		}
		load := make([]int, logs+1)
		for _, l := range on {
			load[l]++
		}
		// The least number of moves: what is over the quota, the larger quotas to the fullest.
		have := slices.Clone(load[1 : len(to)+1])
		slices.SortFunc(have, func(a, b int) int { return b - a })
		least := len(on)
		for i, n := range have {
			q := len(on) / len(to)
			if i < len(on)%len(to) {
				q++
			}
			least -= min(n, q)
		}
		if len(moves) != least {
			t.Fatalf("SKEIN_SEED=%d: %d moves, %d suffice", seed, len(moves), least)
		}
		for _, mv := range moves {
			if int(mv.From[15]) != on[mv.Group] || mv.From == mv.To {
				t.Fatalf("SKEIN_SEED=%d: move %+v of a group on %d", seed, mv, on[mv.Group])
			}
			load[mv.From[15]]--
			load[mv.To[15]]++
		}
		if hi, lo := slices.Max(load[1:len(to)+1]), slices.Min(load[1:len(to)+1]); hi-lo > 1 {
			t.Fatalf("SKEIN_SEED=%d: uneven: %v", seed, load)
		}
	}
}

func TestPlaceNew(t *testing.T) {
	// Log 1 has groups 0 and 2, log 2 has 1 and 3; log 3 has none.
	m := placedMap(t, 3, []int{1, 2, 1, 2}, []int{5, 0, 0, 0})
	if got := fmt.Sprint(m.PlaceNew(ident.Topic{9}, 0, 6)); got != "[1 2 3 2 1 2]" {
		t.Errorf("placed in %s", got)
	}
	// The topic has five partitions on log 1: new ones go to log 2 until it has as many.
	if got := fmt.Sprint(m.PlaceNew(ident.Topic{1}, 5, 6)); got != "[1 3 1 3 1 2]" {
		t.Errorf("placed in %s", got)
	}
	if got := m.PlaceNew(ident.Topic{9}, 0, 0); len(got) != 0 {
		t.Errorf("placed %v", got)
	}
	// Before the first broker: all groups, evenly.
	if got := fmt.Sprint(placedMap(t, 0, []int{0, 0, 0}, nil).PlaceNew(ident.Topic{9}, 0, 6)); got != "[0 1 2 0 1 2]" {
		t.Errorf("placed in %s", got)
	}
}
