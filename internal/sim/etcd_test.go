package sim

import (
	"context"
	"errors"
	"log/slog"
	"testing"
	"time"

	"github.com/skeinmq/skein/internal/ident"
	"github.com/skeinmq/skein/queuemapper"
)

// storeOn opens the real store on the etcd of the simulation, in the coroutine that runs.
func storeOn(t *testing.T, c *etcdClient) *queuemapper.Store {
	t.Helper()
	e := c.s.e
	s, err := queuemapper.Open(context.Background(), queuemapper.Config{
		Client: c.client(), Groups: 4, Logger: slog.New(slog.DiscardHandler), Rand: lots{e},
		Pause: func(_ context.Context, d time.Duration) error { e.sleep(d); return nil },
	}, "")
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// TestStoreOnEtcd: the real store forms, writes and conflicts on the simulated etcd as on a real one.
func TestStoreOnEtcd(t *testing.T) {
	e := newEngine(1)
	srv := newEtcd(e)
	e.start(nil, "p", 0, func() {
		ctx := context.Background()
		quiet := &etcdFaults{low: time.Millisecond, high: 2 * time.Millisecond}
		s := storeOn(t, &etcdClient{s: srv, faults: quiet})
		other := storeOn(t, &etcdClient{s: srv, faults: quiet})
		if a, b := s.Map().Cluster(), other.Map().Cluster(); a != b || a.Groups != 4 {
			t.Errorf("clusters %+v, %+v", a, b)
		}
		l, err := s.ReopenLog(ctx, ident.Log{15: 1}, 1, 1, 0, nil)
		if err != nil || l.Epoch != 1 {
			t.Fatalf("reopen: %+v %v", l, err)
		}
		if _, err := s.SealLog(ctx, l); err != nil {
			t.Errorf("seal: %v", err)
		}
		if _, err := other.SealLog(ctx, l); !errors.Is(err, queuemapper.ErrConflict) {
			t.Errorf("second seal: %v, want a conflict", err)
		}
		if l, err = s.ReopenLog(ctx, l.ID, 1, 1, 0, nil); err != nil || l.Epoch != 2 {
			t.Fatalf("reopen: %+v %v", l, err)
		}
		g := s.Map().Group(2)
		pub := queuemapper.Publication{Group: g, Target: l, Epoch: 1, Frame: ident.Frame{Epoch: 2, Position: 1}}
		if err := s.Publish(ctx, []queuemapper.Publication{pub})[0]; err != nil {
			t.Errorf("publish: %v", err)
		}
		if g, err = s.Touch(ctx, 2); err != nil || g.Current() == nil {
			t.Errorf("touch: %+v %v", g, err)
		}
		if err := other.RegisterBroker(ctx, queuemapper.Broker{ID: 1, Incarnation: 1, Host: "a", Port: 1}); err != nil {
			t.Errorf("register: %v", err)
		}
		if err := s.Refresh(ctx); err != nil || s.Map().Broker(1) == nil {
			t.Errorf("refresh: %v, %v", err, s.Map().Broker(1))
		}
		srv.endLease(1)
		if err := s.Refresh(ctx); err != nil || s.Map().Broker(1) != nil {
			t.Errorf("after the end of its lease the broker is there: %v", err)
		}
	})
	if err := e.run(time.Hour, 10000); err != nil {
		t.Error(err)
	}
}

// TestLostAnswers: the store settles what it can, and says "unknown" where it cannot.
func TestLostAnswers(t *testing.T) {
	unknown, landed := 0, 0
	for seed := range uint64(200) {
		e := newEngine(seed)
		srv := newEtcd(e)
		e.start(nil, "p", 0, func() {
			ctx := context.Background()
			faults := &etcdFaults{high: time.Millisecond}
			s := storeOn(t, &etcdClient{s: srv, faults: faults})
			l, err := s.ReopenLog(ctx, ident.Log{15: 1}, 1, 1, 0, nil)
			if err != nil {
				t.Fatal(err)
			}
			*faults = etcdFaults{high: time.Millisecond, lostAnswer: 300, lostAsk: 100, late: 300, lateBy: time.Second}
			pub := queuemapper.Publication{Group: s.Map().Group(0), Target: l, Epoch: 1, Frame: ident.Frame{Epoch: 1, Position: 1}}
			if err := s.Publish(ctx, []queuemapper.Publication{pub})[0]; errors.Is(err, queuemapper.ErrUnknown) {
				unknown++
				g, err := s.Touch(ctx, 0)
				for err != nil {
					g, err = s.Touch(ctx, 0)
				}
				was := g.Current() != nil
				if was {
					landed++
				}
				e.sleep(5 * time.Second)
				for s.Refresh(ctx) != nil {
					e.sleep(10 * time.Millisecond)
				}
				if is := s.Map().Group(0).Current() != nil; is != was {
					t.Errorf("seed %d: the publication landed after it was settled", seed)
				}
			}
		})
		if err := e.run(time.Hour, 10000); err != nil {
			t.Errorf("seed %d: %v", seed, err)
		}
	}
	if unknown < 20 || landed == 0 || landed == unknown {
		t.Errorf("%d unknown, %d of them landed: the faults are not what they should be", unknown, landed)
	}
}
