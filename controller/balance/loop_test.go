package balance

import (
	"context"
	"errors"
	"log/slog"
	"sync"
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
	asked  chan struct{} // one slot
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
	timeout := time.After(20 * time.Second)
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
	if _, err := l.Status(); !errors.Is(err, ErrNotActive) {
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
	if took > 3*time.Second {
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
	st, err := l.Status()
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
	st, err := l.Status()
	if err != nil || st.Enabled || st.Held == "" || len(st.Moves) != 8 || st.Moves[0].Why == "" {
		t.Errorf("status: %+v %v", st, err)
	}
}
