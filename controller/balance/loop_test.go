package balance

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/skeinmq/skein/controller/failover"
	"github.com/skeinmq/skein/internal/ident"
	"github.com/skeinmq/skein/queuemapper"
)

// sessions are what a test says.
type sessions struct {
	mu       sync.Mutex
	standing map[ident.Broker]failover.Standing
	changed  chan struct{}
}

func newSessions() *sessions {
	return &sessions{standing: make(map[ident.Broker]failover.Standing), changed: make(chan struct{})}
}

func (s *sessions) Session(b ident.Broker) failover.Session {
	s.mu.Lock()
	defer s.mu.Unlock()
	return failover.Session{Standing: s.standing[b]}
}

func (s *sessions) Changed() <-chan struct{} {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.changed
}

func (s *sessions) set(b ident.Broker, st failover.Standing) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.standing[b] = st
	close(s.changed)
	s.changed = make(chan struct{})
}

// owners move groups in the map at once; refuse says which owner does not.
type owners struct {
	c      *cluster
	mu     sync.Mutex
	refuse ident.Broker
	asked  chan struct{}               // one slot
	bytes  map[ident.Partition]float64 // that go into each, per second
	splits []string
	looks  int
}

// Hottest answers from what lives in the group.
func (o *owners) Hottest(_ context.Context, owner ident.Broker, g ident.Group) (out []HotPartition, err error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.looks++
	if o.c.host(g) != owner {
		return nil, errors.New("not mine")
	}
	all := 0.0
	m := o.c.store.Map()
	for id, bytes := range o.bytes {
		t := m.TopicByID(id.Topic)
		if stays := t.Partitions[id.Index]; stays[len(stays)-1].Group == g {
			all += bytes
			out = append(out, HotPartition{Topic: t.Name, Partition: id, Share: bytes})
		}
	}
	for i := range out {
		out[i].Share /= all
	}
	slices.SortFunc(out, func(x, y HotPartition) int { return cmp.Compare(y.Share, x.Share) })
	return out, nil
}

func (o *owners) Split(_ context.Context, owner ident.Broker, topic string, partition int32, to ident.Group) error {
	o.mu.Lock()
	defer o.mu.Unlock()
	t := o.c.store.Map().Topic(topic)
	stays := t.Partitions[partition]
	from := stays[len(stays)-1].Group
	o.splits = append(o.splits, fmt.Sprintf("%s:%d", topic, partition))
	if o.c.host(from) != owner || o.c.host(to) != owner {
		return errors.New("not mine")
	}
	o.c.split(Split{Topic: topic, Partition: partition, From: from, To: to})
	return nil
}

// loads are those of the groups as things are.
func (o *owners) loads() map[ident.Group]float64 {
	out := make(map[ident.Group]float64)
	m := o.c.store.Map()
	for id, bytes := range o.bytes {
		stays := m.TopicByID(id.Topic).Partitions[id.Index]
		out[stays[len(stays)-1].Group] += bytes
	}
	return out
}

func (o *owners) Move(ctx context.Context, owner ident.Broker, groups []ident.Group, to ident.Log) (map[ident.Group]error, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if owner == o.refuse {
		select {
		case o.asked <- struct{}{}:
		default:
		}
		return nil, errors.New("busy")
	}
	m := o.c.store.Map()
	var pubs []queuemapper.Publication
	out := make(map[ident.Group]error)
	for _, id := range groups {
		g := m.Group(id)
		if m.Log(g.Current().Log).Host != owner {
			out[id] = errors.New("not mine")
			continue
		}
		out[id] = nil
		pubs = append(pubs, queuemapper.Publication{
			Group: g, Source: m.Log(g.Current().Log), Target: m.Log(to), Epoch: g.Current().Epoch + 1, Frame: ident.Frame{Epoch: m.Log(to).Epoch, Position: 2},
		})
	}
	return out, errors.Join(o.c.store.Publish(ctx, pubs)...)
}

// until waits for the map to be so.
func (c *cluster) until(what string, ok func(counts map[ident.Broker]int) bool) time.Duration {
	c.t.Helper()
	begun := time.Now()
	timeout := time.After(time.Minute)
	for {
		m := c.store.Map()
		if ok(c.counts()) {
			return time.Since(begun)
		}
		select {
		case <-c.store.Watch(m):
		case <-timeout:
			c.t.Fatalf("%s: still %v", what, c.counts())
		}
	}
}

// TestLoop: a new broker gets its share, one that drains is emptied, one that was switched off or refuses is left alone.
func TestLoop(t *testing.T) {
	c := newCluster(t, 3, 256, 1000)
	s := newSessions()
	for id := ident.Broker(1); id <= 3; id++ {
		s.set(id, failover.Live)
	}
	o := &owners{c: c, asked: make(chan struct{}, 1)}
	l := NewLoop(Config{Store: c.store, Sessions: s, Owners: o, Logger: slog.New(slog.NewTextHandler(t.Output(), nil))})
	if _, err := l.Status(t.Context()); !errors.Is(err, ErrNotActive) {
		t.Errorf("status of a loop that does not run: %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() { defer close(done); l.Run(ctx) }()
	defer func() { cancel(); <-done }()

	c.join(4)
	s.set(4, failover.Live)
	took := c.until("scale-out", func(n map[ident.Broker]int) bool { return n[4] == 64 && n[1] == 64 })
	t.Logf("a fourth broker has its share after %v", took)
	if took > 20*time.Second { // one group after the other would take a minute
		t.Errorf("scale-out took %v", took)
	}
	s.set(2, failover.Draining)
	took = c.until("drain", func(n map[ident.Broker]int) bool { return n[2] == 0 })
	t.Logf("drained after %v", took)

	o.mu.Lock()
	o.refuse = 1
	o.mu.Unlock()
	s.set(1, failover.Draining)
	<-o.asked
	s.set(1, failover.Live)
	st, err := l.Status(t.Context())
	if err != nil || len(st.Logs) != 4 || !st.Enabled || len(st.Recent) == 0 {
		t.Errorf("status: %+v %v", st, err)
	}
	if err := l.Resume(); err != nil {
		t.Error(err)
	}
}

func TestSwitch(t *testing.T) {
	c := newCluster(t, 3, 32, 0)
	if err := c.store.SetDynamic(t.Context(), "broker", "", func(m map[string]string) (map[string]string, error) {
		m[ConfigEnabled] = "false"
		return m, nil
	}); err != nil {
		t.Fatal(err)
	}
	s := newSessions()
	c.join(4)
	for id := ident.Broker(1); id <= 4; id++ {
		s.set(id, failover.Live)
	}
	l := NewLoop(Config{Store: c.store, Sessions: s, Owners: &owners{c: c}, Enabled: func(m *queuemapper.Map) bool {
		return m.Dynamic("broker", "")[ConfigEnabled] != "false"
	}})
	l.planner = NewPlanner(Limits{})
	if plan := l.plan(); len(plan.Moves) > 0 || plan.Held == "" {
		t.Errorf("switched off: %+v", plan)
	}
	st, err := l.Status(t.Context())
	if err != nil || st.Enabled || st.Held == "" || len(st.Moves) != 8 || st.Moves[0].Why == "" {
		t.Errorf("status: %+v %v", st, err)
	}
}

func (c *cluster) host(g ident.Group) ident.Broker {
	m := c.store.Map()
	return m.Log(m.Group(g).Current().Log).Host
}

// TestLoopSplits: of a group with three hot partitions two are split off, one after the other, and each of the three ends on
// a broker of its own. Switched off it only says so.
func TestLoopSplits(t *testing.T) {
	c := newCluster(t, 3, 12, 48)
	s := newSessions()
	for id := ident.Broker(1); id <= 3; id++ {
		s.set(id, failover.Live)
	}
	topic := c.store.Map().Topic("a")
	o := &owners{c: c, bytes: make(map[ident.Partition]float64)}
	var hot []int32
	for i, stays := range topic.Partitions {
		o.bytes[ident.Partition{Topic: topic.ID, Index: int32(i)}] = 1e4
		if stays[0].Group == 0 && len(hot) < 3 {
			hot = append(hot, int32(i))
			o.bytes[ident.Partition{Topic: topic.ID, Index: int32(i)}] = 10e6
		}
	}
	var on atomic.Bool
	l := NewLoop(Config{
		Store: c.store, Sessions: s, Owners: o, Every: 10 * time.Millisecond, Soon: time.Millisecond, Logger: slog.New(slog.NewTextHandler(t.Output(), nil)),
		Limits:  Limits{For: 50 * time.Millisecond, Warmup: time.Millisecond, SplitEvery: 100 * time.Millisecond, PerMinute: 1000},
		Enabled: func(*queuemapper.Map) bool { return on.Load() },
	})
	l.loads.Over = 100 * time.Millisecond
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() { defer close(done); l.Run(ctx) }()
	defer func() { cancel(); <-done }()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for begun := time.Now(); ; <-tick.C {
		for g, bytes := range o.loads() {
			l.Observe(g, Load{BytesIn: bytes}, time.Now())
		}
		homes := make(map[ident.Broker]bool)
		for _, i := range hot {
			stays := c.store.Map().Topic("a").Partitions[i]
			homes[c.host(stays[len(stays)-1].Group)] = true
		}
		if len(homes) == 3 {
			break
		}
		if time.Since(begun) > time.Minute {
			st, err := l.Status(t.Context())
			t.Fatalf("hot partitions are on brokers %v; %+v %v", homes, st, err)
		}
		if on.Load() {
			continue
		}
		st, err := l.Status(t.Context())
		if err != nil && !errors.Is(err, ErrNotActive) { // Run has not begun
			t.Fatal(err)
		}
		if len(st.Splits) == 0 {
			continue
		}
		if sp := st.Splits[0]; st.Enabled || sp.From != 0 || sp.Topic != "a" || !slices.Contains(hot, sp.Partition) || sp.Broker != c.host(0) {
			t.Fatalf("dry run: %+v", st)
		}
		on.Store(true)
	}
	cancel()
	<-done
	o.mu.Lock()
	defer o.mu.Unlock()
	if len(o.splits) != 2 || o.splits[0] == o.splits[1] || o.looks > 20 {
		t.Errorf("split off: %v; owners were asked %d times", o.splits, o.looks)
	}
	for g := range c.store.Map().Groups() {
		if len(g.Generations) > 5 { // it was split, got a partition, and moved
			t.Errorf("group %d has had %d generations", g.ID, len(g.Generations))
		}
	}
	if said := l.recent; !slices.ContainsFunc(said, func(d Done) bool {
		return d.Cause == CauseSplit && d.Error == "" && strings.HasPrefix(d.Why, o.splits[0])
	}) {
		t.Errorf("told: %+v", said)
	}
}

// TestFollow: what moved and was split off under another active controller is not undone by the next one.
func TestFollow(t *testing.T) {
	c := newCluster(t, 3, 12, 48)
	l := NewLoop(Config{Store: c.store, Sessions: newSessions(), Owners: &owners{c: c}})
	topic := c.store.Map().Topic("a")
	hot := ident.Partition{Topic: topic.ID, Index: 0}
	from := topic.Partitions[0][0].Group
	to := (from + 3) % 12
	home := c.store.Map().Group(to).Current().Log
	c.split(Split{Topic: "a", Partition: 0, From: from, To: to})
	c.apply(NewPlanner(Limits{}), Plan{Moves: []Move{{Group: to, From: home, To: logOf(ident.Broker(int(to+1)%3 + 1))}}})
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() { defer close(done); l.Follow(ctx) }()
	for begun := time.Now(); ; {
		l.mu.Lock()
		h := history{maps.Clone(l.history.moved), maps.Clone(l.history.parted)}
		l.mu.Unlock()
		if len(h.moved) > 0 {
			if _, split := h.parted[hot]; len(h.moved) != 1 || len(h.parted) != 1 || !split || h.moved[to].from != home {
				t.Errorf("history: %+v", h)
			}
			h.forget(time.Now().Add(time.Second))
			if len(h.moved)+len(h.parted) > 0 {
				t.Errorf("not forgotten: %+v", h)
			}
			break
		}
		if time.Since(begun) > time.Minute {
			t.Fatal("it sees nothing")
		}
		runtime.Gosched()
	}
	cancel()
	<-done

	p := NewPlanner(Limits{})
	known := moved{at: time.Now(), from: logOf(3), cause: CauseLoad}
	p.moved[0] = known
	l.history.moved[0] = moved{at: time.Now(), from: logOf(3)}
	p.remember(l.history)
	if p.moved[0] != known {
		t.Errorf("its own move: %+v", p.moved[0])
	}
	if now := time.Now(); !p.rests(to, now) || !p.back(to, &shelf{log: c.store.Map().Log(home)}, now.Add(30*time.Minute)) {
		t.Error("the next active controller does not know")
	}
}

// TestShortAbsence: a broker that is the active controller again a moment later goes on with what it knew.
func TestShortAbsence(t *testing.T) {
	c := newCluster(t, 3, 12, 0)
	l := NewLoop(Config{Store: c.store, Sessions: newSessions(), Owners: &owners{c: c}})
	reign := func() {
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		l.Run(ctx)
	}
	reign()
	first := l.before
	reign()
	if l.before != first {
		t.Error("it begins anew after a moment")
	}
	l.ended = l.ended.Add(-time.Hour)
	reign()
	if l.before == first {
		t.Error("it goes on after an hour")
	}
}
