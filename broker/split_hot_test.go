package broker

import (
	"context"
	"log/slog"
	"testing"
	"time"

	"github.com/skeinmq/skein/controller/balance"
	"github.com/skeinmq/skein/controller/failover"
	"github.com/skeinmq/skein/internal/ident"
)

// alive are sessions of brokers that all live.
type alive struct{ never chan struct{} }

func (a alive) Session(ident.Broker) failover.Session {
	return failover.Session{Standing: failover.Live}
}

func (a alive) Changed() <-chan struct{} { return a.never }

// TestHotGroup: a group with two hot partitions is too much for its broker and for every other. The balancer has its owner
// say so, splits one partition off, and moves it: each broker then has one. Nothing that was written meanwhile is lost, doubled or
// reordered.
func TestHotGroup(t *testing.T) {
	cs := startBrokers(t, 2, 1, Config{Static: map[string]string{"num.partitions": "2"}})
	load := startLoad(t, cs[0], "hot", 2)
	if err := cs[0].b.awaitTopic(t.Context(), "hot"); err != nil {
		t.Fatal(err)
	}
	owner := func(p int32) (ident.Broker, ident.Group) {
		m := cs[0].b.store.Map()
		run, log, _ := m.Owner(m.Topic("hot"), p)
		return log.Host, run.Generation.Group
	}
	at, first := owner(0)
	if _, second := owner(1); first == second {
		t.Fatal("a new topic's partitions are in one group")
	}
	if _, err := cs[at-1].b.splitPartition(t.Context(), "hot", 1, first); err != nil {
		t.Fatal(err)
	}

	l := balance.NewLoop(balance.Config{
		Store: cs[0].b.store, Sessions: alive{}, Owners: balance.Remote{Conns: cs[0].peers}, Every: 50 * time.Millisecond,
		Limits: balance.Limits{For: 100 * time.Millisecond, Warmup: time.Millisecond, PerMinute: 100},
		Logger: slog.New(slog.NewTextHandler(t.Output(), nil)),
	})
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() { defer close(done); l.Run(ctx) }()
	defer func() { cancel(); <-done }()
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for begun := time.Now(); ; <-tick.C {
		for _, c := range cs {
			for _, g := range c.b.Loads() {
				l.Observe(ident.Group(g.GetGroup()), balance.Load{BytesIn: g.GetBytesIn(), BatchesIn: g.GetBatchesIn()}, time.Now())
			}
		}
		one, _ := owner(0)
		other, _ := owner(1)
		if one != other {
			t.Logf("apart after %v", time.Since(begun))
			break
		}
		if time.Since(begun) > enough {
			st, err := l.Status(ctx)
			t.Fatalf("both are on broker %d: %+v %v", one, st, err)
		}
	}
	if n := len(cs[0].peers.asked(at, "Hottest")); n == 0 || n > 5 {
		t.Errorf("the owner was asked %d times", n)
	}
	if n := len(cs[0].peers.asked(at, "Split")); n != 1 {
		t.Errorf("%d splits", n)
	}
	cancel()
	<-done
	load.end(t)
	load.check(t, cs[1], "hot")
}
