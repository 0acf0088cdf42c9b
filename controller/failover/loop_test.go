package failover

import (
	"context"
	"errors"
	"sync"
	"testing"
	"time"

	"github.com/skeinmq/skein/internal/ident"
	"github.com/skeinmq/skein/queuemapper"
)

// sessions are the standings of a world's brokers.
type sessions struct {
	w       *world
	mu      sync.Mutex
	changed chan struct{}
}

func (s *sessions) Session(b ident.Broker) Session {
	s.w.mu.Lock()
	defer s.w.mu.Unlock()
	if n := s.w.brokers[b]; n != nil {
		return Session{Standing: n.standing, Incarnation: n.incarnation}
	}
	return Session{}
}

func (s *sessions) Changed() <-chan struct{} {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.changed
}

func (s *sessions) fire() {
	s.mu.Lock()
	defer s.mu.Unlock()
	close(s.changed)
	s.changed = make(chan struct{})
}

// reign runs a controller's loop until the test ends.
func reign(t *testing.T, w *world, s *sessions, self ident.Broker, term int64) (f *Failover, ended chan error) {
	f = w.failover(nil)
	f.cfg.Fan = Goroutines{}
	watched := Watchful{Members: w, Targets: w, Sessions: s}
	f.cfg.Members, f.cfg.Targets = watched, watched
	f.cfg.Pause = pause
	l := &Loop{Failover: f, Sessions: s, Self: self, Retry: 50 * time.Millisecond}
	ctx, cancel := context.WithCancel(context.Background())
	ended = make(chan error, 1)
	go func() { ended <- l.Run(ctx, term) }()
	t.Cleanup(cancel)
	return f, ended
}

// until waits for a controller's map to be so.
func until(t *testing.T, s *queuemapper.Store, what string, ok func(*queuemapper.Map) bool) {
	t.Helper()
	timeout := time.After(time.Minute)
	for {
		m := s.Map()
		if ok(m) {
			return
		}
		select {
		case <-s.Watch(m):
		case <-timeout:
			t.Fatalf("%s: not in a minute", what)
		}
	}
}

func emptyLog(id ident.Log) func(*queuemapper.Map) bool {
	return func(m *queuemapper.Map) bool {
		for g := range m.Groups() {
			if g.Current().Log == id {
				return false
			}
		}
		return true
	}
}

// TestLoop: deaths, a log that an earlier controller left sealed, one that waits for its host; dead brokers leave the
// map, newer incarnations do not; a newer controller ends an older one.
func TestLoop(t *testing.T) {
	w := newWorld(t, 5, 20)
	topic := w.createTopic("a", 40)
	w.writable(topic)
	s := &sessions{w: w, changed: make(chan struct{})}
	for _, id := range []ident.Broker{4, 5} {
		cfg := w.cfg
		cfg.Client = dial(t)
		reg := openStore(t, cfg)
		if err := reg.RegisterBroker(t.Context(), queuemapper.Broker{ID: id, Incarnation: w.brokers[id].incarnation}); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := w.store.SealLog(t.Context(), w.store.Map().Log(w.brokers[3].log)); err != nil { // and crashed
		t.Fatal(err)
	}
	w.kill(3)
	f, first := reign(t, w, s, 1, 7)
	until(t, f.store, "what an earlier controller left", emptyLog(w.brokers[3].log))

	w.kill(4)
	s.fire()
	until(t, f.store, "a death", emptyLog(w.brokers[4].log))
	until(t, f.store, "its registration", func(m *queuemapper.Map) bool { return m.Broker(4) == nil })
	if f.store.Map().Broker(5) == nil {
		t.Error("a live broker's registration went")
	}

	w.mu.Lock()
	w.brokers[5].standing, w.brokers[5].incarnation = Dead, w.brokers[5].incarnation-1 // what is registered is newer
	w.mu.Unlock()
	s.fire()
	if c := f.store.Map().Controller(); c != (queuemapper.Controller{Term: 7, Broker: 1}) {
		until(t, f.store, "its claim", func(m *queuemapper.Map) bool { return m.Controller().Term == 7 })
	}
	_, second := reign(t, w, s, 2, 8)
	if err := <-first; !errors.Is(err, errDeposed) { // O14
		t.Errorf("the first controller ended with %v", err)
	}
	w.seen(f)
	if l := w.store.Map().Log(w.brokers[5].log); l.State != queuemapper.LogOpen {
		t.Errorf("the log of a broker that is back was sealed: %+v", l)
	}
	select {
	case err := <-second:
		t.Errorf("the second controller ended with %v", err)
	default:
	}
	w.seen(f)
	w.check()
	w.writable(topic)
	w.check()
}

// TestWatchful: a request to a broker that is given up meanwhile ends at once.
func TestWatchful(t *testing.T) {
	w := newWorld(t, 2, 2)
	s := &sessions{w: w, changed: make(chan struct{})}
	asked := make(chan struct{})
	hang := hanging{asked}
	wf := Watchful{Members: hang, Targets: hang, Sessions: s}
	got := make(chan error, 2)
	go func() {
		_, err := wf.Seal(t.Context(), queuemapper.Witness{Broker: 2}, ident.Log{}, 1)
		got <- err
	}()
	go func() {
		_, err := wf.Prepare(t.Context(), 2, ident.Log{}, 1, nil)
		got <- err
	}()
	<-asked
	<-asked
	w.kill(2)
	s.fire()
	for range 2 {
		if err := <-got; err == nil {
			t.Error("answered")
		}
	}
}

type hanging struct{ asked chan struct{} }

func (h hanging) Seal(ctx context.Context, _ queuemapper.Witness, _ ident.Log, _ ident.LogEpoch) (Table, error) {
	h.asked <- struct{}{}
	<-ctx.Done()
	return nil, context.Cause(ctx)
}

func (h hanging) Prepare(ctx context.Context, _ ident.Broker, _ ident.Log, _ ident.LogEpoch, _ []Opening) ([]ident.Frame, error) {
	h.asked <- struct{}{}
	<-ctx.Done()
	return nil, context.Cause(ctx)
}

// TestGivenUp: what is known of a host counts for what that incarnation of it opened, and only until it registers anew.
func TestGivenUp(t *testing.T) {
	w := newWorld(t, 3, 2)
	s := &sessions{w: w, changed: make(chan struct{})}
	l := &Loop{Sessions: s}
	b := w.brokers[3]
	for _, c := range []struct {
		name     string
		standing Standing
		opened   int64 // incarnation in the log's record, against the session's
		want     bool
	}{
		{"it lives", Live, 0, false},
		{"it is dead", Dead, 0, true},
		{"it leaves", Leaving, 0, true},
		{"it has opened the log again and is not registered yet", Dead, +1, false},
	} {
		b.standing = c.standing
		rec := *w.store.Map().Log(b.log)
		rec.Incarnation = b.incarnation + c.opened
		if got := l.givenUp(w.store.Map(), &rec); got != c.want {
			t.Errorf("%s: given up %v", c.name, got)
		}
	}
}
