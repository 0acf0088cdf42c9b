package coordinator

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/skeinmq/skein/broker/group"
	"github.com/skeinmq/skein/controller"
	"github.com/skeinmq/skein/internal/ident"
)

// starting is start without an assignment.
func starting(t *testing.T, cfg Config) (c *Coordinator, stop func()) {
	t.Helper()
	c = New(cfg)
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- c.Run(ctx) }()
	stop = sync.OnceFunc(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("run: %v", err)
		}
	})
	t.Cleanup(stop)
	return c, stop
}

// TestHandover: a group goes on at another coordinator as if nothing had happened: same members, generation and
// leader, each with its whole session timeout.
func TestHandover(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := newFakeStore()
		a, stopA := start(t, testConfig(store))
		defer stopA()
		b, stopB := starting(t, testConfig(store))
		defer stopB()
		b.Assign(nil)
		stable(t, a, "g", "m1")
		who := group.Commit{Group: "g", Generation: 1, Member: "m1"}
		if err := a.Commit(t.Context(), who, []controller.PartitionOffset{at(topic1, 0, 1)}); err != nil {
			t.Fatal(err)
		}
		if err := b.Heartbeat(t.Context(), "g", 1, "m1", ""); !errors.Is(err, group.ErrNotCoordinator) {
			t.Errorf("heartbeat at the wrong one: %v", err)
		}
		if _, err := b.Offsets(t.Context(), "g", false); !errors.Is(err, group.ErrNotCoordinator) {
			t.Errorf("read at the wrong one: %v", err)
		}
		if l, err := b.List(t.Context()); err != nil || len(l) != 0 {
			t.Errorf("the wrong one lists %v, %v", l, err)
		}
		time.Sleep(9 * time.Second) // most of the session

		// The new owner has read the map, the old one has not.
		b.Assign(everything(2))
		synctest.Wait()
		if err := b.Heartbeat(t.Context(), "g", 1, "m1", ""); err != nil {
			t.Errorf("heartbeat at the new one: %v", err)
		}
		if _, err := a.Offsets(t.Context(), "g", false); !errors.Is(err, group.ErrNotCoordinator) {
			t.Errorf("read at a coordinator that was replaced: %v", err)
		}
		if err := a.Commit(t.Context(), who, []controller.PartitionOffset{at(topic1, 0, 0)}); err == nil {
			t.Error("a coordinator that was replaced promised")
		}
		a.Assign(nil)
		synctest.Wait()
		time.Sleep(9 * time.Second) // it had the whole timeout again
		if err := b.Heartbeat(t.Context(), "g", 1, "m1", ""); err != nil {
			t.Errorf("later: %v", err)
		}
		d, err := b.Describe(t.Context(), "g")
		if err != nil || d.State != group.Stable || len(d.Members) != 1 {
			t.Errorf("described %+v, %v", d, err)
		}
		if err := b.Commit(t.Context(), who, []controller.PartitionOffset{at(topic1, 0, 2)}); err != nil {
			t.Error(err)
		}
		if l, err := b.List(t.Context()); err != nil || len(l) != 1 {
			t.Errorf("the new one lists %v, %v", l, err)
		}
		if l, err := a.List(t.Context()); err != nil || len(l) != 0 {
			t.Errorf("the old one lists %v, %v", l, err)
		}
		// And back, with a greater epoch; the one in between still believes.
		a.Assign(everything(3))
		time.Sleep(time.Second)
		if got, err := a.Offsets(t.Context(), "g", true); err != nil || len(got) != 1 || got[0].Offset.Offset != 2 {
			t.Errorf("offsets %+v, %v", got, err)
		}
		if err := b.Commit(t.Context(), who, []controller.PartitionOffset{at(topic1, 0, 1)}); err == nil {
			t.Error("promised after the partition went back")
		}
		// What b, with the older epoch, tries next does not take the partition away again.
		time.Sleep(5 * time.Second)
		if err := a.Commit(t.Context(), who, []controller.PartitionOffset{at(topic1, 0, 3)}); err != nil {
			t.Error(err)
		}
	})
}

// lateStore takes a second for each write.
type lateStore struct{ *fakeStore }

func (s lateStore) Write(ctx context.Context, b *controller.Batch) error {
	time.Sleep(time.Second)
	return s.fakeStore.Write(ctx, b)
}

// TestSlept: a coordinator that slept through its replacement finds that its members' sessions are over. It tells nobody,
// also before it hears that it was replaced: at the new one they live.
func TestSlept(t *testing.T) {
	who := group.Commit{Group: "g", Generation: 1, Member: "m1"}
	for name, ask := range map[string]func(context.Context, *Coordinator) error{
		"heartbeat": func(ctx context.Context, a *Coordinator) error { return a.Heartbeat(ctx, "g", 1, "m1", "") },
		"commit": func(ctx context.Context, a *Coordinator) error {
			return a.Commit(ctx, who, []controller.PartitionOffset{at(topic1, 0, 1)})
		},
		"join": func(ctx context.Context, a *Coordinator) error { return a.Join(ctx, joinRequest("g", "m1", "m1")).Err },
		"sync": func(ctx context.Context, a *Coordinator) error {
			return a.Sync(ctx, &group.SyncRequest{Group: "g", Member: "m1", Generation: 1}).Err
		},
	} {
		synctest.Test(t, func(t *testing.T) {
			store := newFakeStore()
			a, stopA := start(t, testConfig(lateStore{store}))
			defer stopA()
			b, stopB := starting(t, testConfig(store))
			defer stopB()
			stable(t, a, "g", "m1")
			b.Assign(everything(2))
			time.Sleep(5 * time.Second)
			if err := b.Heartbeat(t.Context(), "g", 1, "m1", ""); err != nil {
				t.Fatalf("heartbeat at the new one: %v", err)
			}
			time.Sleep(5*time.Second + 500*time.Millisecond) // a removes its member, and writes that
			if err := ask(t.Context(), a); !errors.Is(err, group.ErrNotCoordinator) {
				t.Errorf("%s at the one that slept: %v", name, err)
			}
			if err := b.Heartbeat(t.Context(), "g", 1, "m1", ""); err != nil {
				t.Errorf("heartbeat at the new one, later: %v", err)
			}
		})
	}
}

// TestHeartbeatsAtTheOldOne: members that only heartbeat, at a coordinator that does not hear of its replacement, are soon
// sent to the new one, before their sessions end there.
func TestHeartbeatsAtTheOldOne(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := newFakeStore()
		a, stopA := start(t, testConfig(store))
		defer stopA()
		b, stopB := starting(t, testConfig(store))
		defer stopB()
		stable(t, a, "g", "m1")
		b.Assign(everything(2))
		told := 0
		for range 30 { // three sessions long
			time.Sleep(time.Second)
			err := a.Heartbeat(t.Context(), "g", 1, "m1", "")
			if errors.Is(err, group.ErrNotCoordinator) { // it looks for the coordinator, and comes back here next time
				told++
				if err := b.Heartbeat(t.Context(), "g", 1, "m1", ""); err != nil {
					t.Fatalf("heartbeat at the new one: %v", err)
				}
			} else if err != nil {
				t.Fatalf("heartbeat at the old one: %v", err)
			}
		}
		if told < 10 {
			t.Errorf("sent on %d times in 30 s", told)
		}
	})
}

// TestHandoverInRebalance: members that wait are sent on at once, and the rebalance happens at the new coordinator, with
// the members that there were.
func TestHandoverInRebalance(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := newFakeStore()
		a, stopA := start(t, testConfig(store))
		defer stopA()
		b, stopB := starting(t, testConfig(store))
		defer stopB()
		b.Assign(nil)
		stable(t, a, "g", "m1")
		parked := make(chan group.JoinReply, 1)
		go func() { parked <- a.Join(t.Context(), joinRequest("g", "", "m2")) }()
		synctest.Wait()
		a.Assign(nil)
		if r := <-parked; !errors.Is(r.Err, group.ErrNotCoordinator) {
			t.Fatalf("parked join: %v", r.Err)
		}
		b.Assign(everything(2))
		synctest.Wait()
		if err := b.Heartbeat(t.Context(), "g", 1, "m1", ""); err != nil {
			t.Fatalf("the member of the finished generation: %v", err)
		}
		go func() { parked <- b.Join(t.Context(), joinRequest("g", "", "m2")) }()
		synctest.Wait()
		if err := b.Heartbeat(t.Context(), "g", 1, "m1", ""); !errors.Is(err, group.ErrRebalanceInProgress) {
			t.Fatalf("the member is not called: %v", err)
		}
		r := b.Join(t.Context(), joinRequest("g", "m1", ""))
		if r.Err != nil || r.Generation != 2 || r.Leader != "m1" || len(r.Members) != 2 {
			t.Fatalf("joined %+v", r)
		}
		if r := <-parked; r.Err != nil || r.Generation != 2 {
			t.Fatalf("second joined %+v", r)
		}
	})
}

// slowStore is a store whose writes take their time, and which may forget what it is there for.
type slowStore struct {
	*fakeStore
	mu       sync.Mutex
	rnd      *rand.Rand
	unfenced bool // planted: whoever was coordinator once may promise
}

func (s *slowStore) pause() {
	s.mu.Lock()
	d := time.Duration(s.rnd.IntN(5)) * time.Millisecond
	if s.rnd.IntN(20) == 0 {
		d = time.Duration(s.rnd.IntN(300)) * time.Millisecond
	}
	s.mu.Unlock()
	time.Sleep(d)
}

func (s *slowStore) Write(ctx context.Context, b *controller.Batch) error {
	s.pause()
	if s.unfenced {
		s.fakeStore.mu.Lock()
		b.Epoch = s.epochs[b.Partition]
		s.fakeStore.mu.Unlock()
	}
	err := s.fakeStore.Write(ctx, b)
	s.pause()
	return err
}

func (s *slowStore) Confirm(ctx context.Context, partition int32, epoch controller.Epoch) error {
	s.pause()
	if s.unfenced {
		return nil
	}
	return s.fakeStore.Confirm(ctx, partition, epoch)
}

// movedAbout commits rising offsets while the coordinators of all partitions move between three brokers that learn of it
// at different times, and returns the first offset that was lost, or went back.
func movedAbout(t *testing.T, seed uint64, unfenced bool) (violation string, commits int) {
	rnd := rand.New(rand.NewPCG(seed, 1))
	store := &slowStore{fakeStore: newFakeStore(), rnd: rand.New(rand.NewPCG(seed, 2)), unfenced: unfenced}
	var cs []*Coordinator
	for range 3 {
		c, stop := starting(t, testConfig(store))
		c.Assign(nil)
		defer stop()
		cs = append(cs, c)
	}
	var mu sync.Mutex
	say := func(format string, args ...any) {
		mu.Lock()
		defer mu.Unlock()
		if violation == "" {
			violation = fmt.Sprintf(format, args...)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	for i := range 8 {
		rnd := rand.New(rand.NewPCG(seed, uint64(10+i)))
		wg.Go(func() {
			name, acked, n := fmt.Sprintf("group-%d", i), ident.Offset(0), 0
			for next := ident.Offset(1); ctx.Err() == nil; next++ {
				c := cs[rnd.IntN(len(cs))] // clients find the coordinator by asking around
				try, cancel := context.WithTimeout(ctx, time.Duration(1+rnd.IntN(100))*time.Millisecond)
				if err := c.Commit(try, group.Commit{Group: name, Generation: -1}, []controller.PartitionOffset{at(topic1, 0, next)}); err == nil {
					acked = next
					n++
				}
				got, err := c.Offsets(try, name, rnd.IntN(2) == 0)
				cancel()
				if err == nil && (len(got) == 0 && acked > 0 || len(got) > 0 && got[0].Offset.Offset < acked) {
					say("%s shows %+v, %d was acknowledged", name, got, acked)
				}
				time.Sleep(time.Millisecond)
			}
			mu.Lock()
			commits += n
			mu.Unlock()
		})
	}
	owner := ident.Epoch(0)
	for range 60 {
		owner++
		to := rnd.IntN(len(cs))
		for i, c := range cs {
			d, own := time.Duration(rnd.IntN(150))*time.Millisecond, map[int32]ident.Epoch(nil)
			if i == to {
				own = everything(owner)
			}
			time.AfterFunc(d, func() { c.Assign(own) })
		}
		time.Sleep(time.Duration(150+rnd.IntN(200)) * time.Millisecond)
	}
	cancel()
	wg.Wait()
	return violation, commits
}

// TestMovedAbout: no committed offset is lost or goes back, however coordinators move.
func TestMovedAbout(t *testing.T) {
	for seed := range uint64(5) {
		synctest.Test(t, func(t *testing.T) {
			violation, commits := movedAbout(t, seed, false)
			if violation != "" || commits < 1000 {
				t.Errorf("seed %d, %d commits: %s", seed, commits, violation)
			}
		})
	}
}

// TestPlanted: two coordinators that both promise are caught by the same test.
func TestPlanted(t *testing.T) {
	for seed := range uint64(5) {
		caught := false
		synctest.Test(t, func(t *testing.T) {
			violation, _ := movedAbout(t, seed, true)
			caught = violation != ""
		})
		if caught {
			return
		}
	}
	t.Error("nobody notices")
}
