package broker

import (
	"errors"
	"slices"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/skeinmq/skein/internal/ident"
	"github.com/skeinmq/skein/queuemapper"
)

// owners counts the open generations of each log.
func owners(m *queuemapper.Map) map[ident.Log]int {
	out := map[ident.Log]int{}
	for g := range m.Groups() {
		if cur := g.Current(); cur != nil {
			out[cur.Log]++
		}
	}
	return out
}

func (c *cluster) logOf(i int) ident.Log { return c.logs[i].Recovered().ID }

// TestMoveAcrossUnderLoad moves all groups to and fro between two brokers while an idempotent producer writes: no gap, no
// double, order kept, epochs one higher at each move, and pauses that nobody minds.
func TestMoveAcrossUnderLoad(t *testing.T) {
	cs := startBrokers(t, 2, 1, Config{Static: map[string]string{"num.partitions": "6"}})
	load := startLoad(t, cs[0], "moved", 6)
	moves := 0
	var pauses []float64
	for round := range 8 {
		from, to := cs[round%2], cs[(round+1)%2]
		var groups []ident.Group
		before := map[ident.Group]ident.Epoch{}
		from.catchUp()
		m := from.b.store.Map()
		for g := range m.Groups() {
			if from.b.host.OpenIn(g) != nil {
				groups, before[g.ID] = append(groups, g.ID), g.Current().Epoch
			}
		}
		for _, v := range from.b.moveGroups(t.Context(), groups, to.logOf(0)) {
			if v.Error != "" {
				t.Fatalf("round %d: move %d: %s", round, v.Group, v.Error)
			}
			if now := from.b.store.Map().Group(v.Group).Current(); now.Log != to.logOf(0) || now.Epoch != before[v.Group]+1 || now.Epoch != v.Epoch {
				t.Fatalf("group %d is at %+v after a move from epoch %d", v.Group, now, before[v.Group])
			}
			moves++
			pauses = append(pauses, v.PauseMillis)
		}
	}
	load.end(t)
	if moves < 60 {
		t.Errorf("%d moves, want 60 at least", moves)
	}
	slices.Sort(pauses)
	t.Logf("pauses of %d moves in ms: median %.1f, worst %.1f", moves, pauses[len(pauses)/2], pauses[len(pauses)-1])
	load.check(t, cs[0], "moved")
	load.check(t, cs[1], "moved")
}

// TestLeave stops a broker under load: it moves everything away first, no request fails, and its log stays open and
// empty of groups. When it is back it serves what it has, and gets groups again when they are moved there.
func TestLeave(t *testing.T) {
	cs := startBrokers(t, 3, 1, Config{Static: map[string]string{"num.partitions": "6"}})
	load := startLoad(t, cs[0], "kept", 6)
	if err := cs[0].b.awaitTopic(t.Context(), "kept"); err != nil {
		t.Fatal(err)
	}
	gone := cs[0].logOf(0)
	begun := time.Now()
	if err := cs[0].stop(); err != nil {
		t.Fatal(err)
	}
	t.Logf("stopped after %v", time.Since(begun))
	cs[1].await(func(m *queuemapper.Map) bool { return owners(m)[gone] == 0 })
	m := cs[1].b.store.Map()
	if n := owners(m); n[gone] != 0 || n[cs[1].logOf(0)] != 4 || n[cs[2].logOf(0)] != 4 {
		t.Errorf("groups by log after the broker left: %v", n)
	}
	if l := m.Log(gone); l.State != queuemapper.LogOpen {
		t.Errorf("its log is in state %d", l.State)
	}
	cs[1].await(func(m *queuemapper.Map) bool { return m.Broker(1) == nil })
	load.end(t)
	cs[0].start()
	load.check(t, cs[1], "kept")
	if _, err := cs[1].b.createTopic(t.Context(), &plannedTopic{name: "more", partitions: 3, replication: 1}); err != nil {
		t.Fatal(err)
	}
	again := startLoad(t, cs[1], "more", 3)
	cs[1].catchUp()
	for g := range cs[1].b.store.Map().Groups() {
		if cs[1].b.host.OpenIn(g) != nil {
			if v := cs[1].b.moveGroup(t.Context(), g.ID, gone); v.Error != "" {
				t.Fatal(v.Error)
			}
		}
	}
	again.end(t)
	again.check(t, cs[2], "more")
}

// TestDrainMark drains a broker by its mark in the map, and gives it groups again.
func TestDrainMark(t *testing.T) {
	cs := startBrokers(t, 2, 1, Config{Static: map[string]string{"num.partitions": "2"}})
	h := newHistory("t", 2)
	h.produce(t, cs[0], 10)
	if err := cs[1].b.store.DrainBroker(t.Context(), 1, true); err != nil {
		t.Fatal(err)
	}
	for _, c := range cs {
		c.await(func(m *queuemapper.Map) bool { return owners(m)[cs[0].logOf(0)] == 0 })
	}
	if !cs[0].b.Draining() || cs[1].b.Draining() {
		t.Error("who is draining is told wrongly")
	}
	h.produce(t, cs[1], 10)
	// Nothing but sealed runs is left there, which may be read: the log cannot be removed.
	l := cs[1].b.store.Map().Log(cs[0].logOf(0))
	if err := cs[1].b.store.RemoveLog(t.Context(), l); err == nil {
		t.Error("a log with runs was removed")
	}
	if err := cs[1].b.store.DrainBroker(t.Context(), 1, false); err != nil {
		t.Fatal(err)
	}
	cs[0].await(func(m *queuemapper.Map) bool { return !m.Drained(1) }) // or it sends away again what it is given
	moveAcross(t, cs[1], cs[0], 0)
	h.check(t, cs[0], func(int) int { return 0 })
}

// seal seals the log of another broker behind its back, whoever else writes its record meanwhile.
func (c *cluster) seal(id ident.Log) {
	c.t.Helper()
	err := queuemapper.ErrConflict
	for errors.Is(err, queuemapper.ErrConflict) {
		_, err = c.b.store.SealLog(c.t.Context(), c.b.store.Map().Log(id))
	}
	if err != nil {
		c.t.Fatal(err)
	}
}

// TestFencedBroker seals a broker's log behind its back: it acknowledges nothing more, ends with ErrFenced, and built
// again from its directory it serves what was its.
func TestFencedBroker(t *testing.T) {
	cs := startBrokers(t, 2, 1, Config{Static: map[string]string{"num.partitions": "2"}})
	h := newHistory("t", 2)
	h.produce(t, cs[0], 20)
	cs[1].seal(cs[0].logOf(0))
	select {
	case <-cs[0].ended:
		if !errors.Is(cs[0].runErr, ErrFenced) {
			t.Fatalf("the broker ended with %v", cs[0].runErr)
		}
	case <-time.After(enough):
		t.Fatal("the broker goes on")
	}
	cl, err := kgo.NewClient(kgo.SeedBrokers(cs[1].addr), kgo.RecordPartitioner(kgo.ManualPartitioner()), kgo.RecordDeliveryTimeout(time.Second))
	if err != nil {
		t.Fatal(err)
	}
	if err := cl.ProduceSync(t.Context(), &kgo.Record{Topic: "t", Value: []byte("x")}).FirstErr(); err == nil {
		t.Error("somebody acknowledged a record of a group that nobody owns")
	}
	cl.Close()
	_ = cs[0].stop() // with the fence, once more
	cs[0].start()
	if got := cs[1].b.store.Map().Log(cs[0].logOf(0)); got.State != queuemapper.LogOpen || got.Epoch != 2 {
		t.Errorf("its log is %+v", got)
	}
	h.produce(t, cs[0], 5)
	h.check(t, cs[1], func(int) int { return 0 })
}
