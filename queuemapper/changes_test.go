package queuemapper

import (
	"math/rand/v2"
	"testing"

	"github.com/skeinmq/skein/internal/ident"
)

// TestChanges applies random changes and wants exactly those that are left at the end.
func TestChanges(t *testing.T) {
	for _, seed := range seeds(t, 20) {
		rng := rand.New(rand.NewPCG(seed, 4))
		w := newWorld(t, seed)
		for i := range 200 {
			w.create(i)
		}
		old := w.m
		for range rng.IntN(30) {
			switch rng.IntN(3) {
			case 0:
				w.publish(w.m.groups[rng.IntN(len(w.m.groups))], nil)
			case 1:
				w.create(rng.IntN(300))
			case 2:
				e := w.m.edit()
				if err := e.del(keyTopic("t" + string(rune('0'+rng.IntN(10))))); err != nil {
					t.Fatal(err)
				}
				w.m = e.done(w.rev)
			}
		}
		c := w.m.Changes(old)
		want := 0
		names := map[string]bool{}
		for _, m := range []*Map{old, w.m} {
			for topic := range m.Topics() {
				if !names[topic.Name] && old.Topic(topic.Name) != w.m.Topic(topic.Name) {
					want++
				}
				names[topic.Name] = true
			}
		}
		for _, ch := range c.Topics {
			name := ""
			if ch.Old != nil {
				name = ch.Old.Name
			} else {
				name = ch.New.Name
			}
			if old.Topic(name) != ch.Old || w.m.Topic(name) != ch.New || ch.Old == ch.New {
				t.Fatalf("SKEIN_SEED=%d: change of %s is wrong", seed, name)
			}
		}
		if len(c.Topics) != want {
			t.Fatalf("SKEIN_SEED=%d: %d changes, want %d", seed, len(c.Topics), want)
		}
		for _, ch := range c.Groups {
			if ch.Old == ch.New || w.m.Group(ch.New.ID) != ch.New {
				t.Fatalf("SKEIN_SEED=%d: change of group %d is wrong", seed, ch.New.ID)
			}
		}
		if all := w.m.Changes(nil); len(all.Topics) != w.m.topics.n || len(all.Groups) != len(w.m.groups) || all.Groups[0].New.ID != ident.Group(0) {
			t.Fatalf("SKEIN_SEED=%d: changes from nothing: %d topics", seed, len(all.Topics))
		}
	}
}
