package coordinator

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/skeinmq/skein/broker/group"
	"github.com/skeinmq/skein/controller"
	"github.com/skeinmq/skein/internal/ident"
)

// fakeStore is the replicated state in memory, with faults.
type fakeStore struct {
	mu      sync.Mutex
	epochs  map[int32]controller.Epoch
	owners  map[int32]ident.Epoch
	values  map[string][]byte
	offsets map[string]map[ident.Partition]controller.Offset
	batches int
	// fail decides about the next write: an error, and whether it takes effect all the same.
	fail func(b *controller.Batch) (error, bool)
	hold chan struct{} // not nil: writes wait for it
}

func newFakeStore() *fakeStore {
	return &fakeStore{owners: map[int32]ident.Epoch{}, epochs: map[int32]controller.Epoch{}, values: map[string][]byte{}, offsets: map[string]map[ident.Partition]controller.Offset{}}
}

func (f *fakeStore) Claim(_ context.Context, claims []controller.Claim) ([]controller.Epoch, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	var out []controller.Epoch
	for _, c := range claims {
		if c.Owner < f.owners[c.Partition] {
			return nil, controller.ErrFenced
		}
	}
	for _, c := range claims {
		f.owners[c.Partition] = c.Owner
		f.epochs[c.Partition]++
		out = append(out, f.epochs[c.Partition])
	}
	return out, nil
}

func (f *fakeStore) Write(_ context.Context, b *controller.Batch) error {
	f.mu.Lock()
	hold := f.hold
	f.mu.Unlock()
	if hold != nil {
		<-hold
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.batches++
	if f.fail != nil {
		if err, effect := f.fail(b); err != nil && !effect {
			return err
		} else if err != nil {
			f.apply(b)
			return err
		}
	}
	if b.Epoch != f.epochs[b.Partition] {
		return controller.ErrFenced
	}
	f.apply(b)
	return nil
}

func (f *fakeStore) apply(b *controller.Batch) {
	for _, op := range b.Ops {
		switch op.Kind {
		case controller.PutGroup:
			f.values[op.Group] = op.Value
		case controller.DropGroup:
			delete(f.values, op.Group)
			delete(f.offsets, op.Group)
		case controller.PutOffsets:
			if f.offsets[op.Group] == nil {
				f.offsets[op.Group] = map[ident.Partition]controller.Offset{}
			}
			for _, o := range op.Offsets {
				f.offsets[op.Group][o.Partition] = o.Offset
			}
		case controller.DropOffsets:
			for _, o := range op.Offsets {
				delete(f.offsets[op.Group], o.Partition)
			}
		}
	}
}

func (f *fakeStore) Confirm(_ context.Context, partition int32, epoch controller.Epoch) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if epoch != f.epochs[partition] {
		return controller.ErrFenced
	}
	return nil
}

func (f *fakeStore) Await(context.Context, int32) error { return nil }

func (f *fakeStore) Groups(partition int32) []controller.Group {
	f.mu.Lock()
	defer f.mu.Unlock()
	names := map[string]bool{}
	for n := range f.values {
		names[n] = true
	}
	for n, o := range f.offsets {
		if len(o) > 0 {
			names[n] = true
		}
	}
	var out []controller.Group
	for _, n := range slices.Sorted(maps.Keys(names)) {
		if Partition(n) == partition {
			out = append(out, controller.Group{Name: n, Value: f.values[n], Offsets: len(f.offsets[n])})
		}
	}
	return out
}

func (f *fakeStore) Offsets(_ int32, group string) []controller.PartitionOffset {
	f.mu.Lock()
	defer f.mu.Unlock()
	var out []controller.PartitionOffset
	for p, o := range f.offsets[group] {
		out = append(out, controller.PartitionOffset{Partition: p, Offset: o})
	}
	slices.SortFunc(out, func(a, b controller.PartitionOffset) int { return int(a.Partition.Index - b.Partition.Index) })
	return out
}

func (f *fakeStore) Lookup(_ int32, group string, of []ident.Partition, found func(int, controller.Offset)) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for i, p := range of {
		if o, ok := f.offsets[group][p]; ok {
			found(i, o)
		}
	}
}

var (
	topic1 = ident.Topic{1}
	topic2 = ident.Topic{2}
)

func testConfig(store Store) Config {
	return Config{
		Store: store,
		Group: group.Config{
			MinSessionTimeout: 6 * time.Second, MaxSessionTimeout: 30 * time.Minute, MaxSize: 100,
			MaxMetadataBytes: 1 << 20, MaxGroups: 1000,
		},
		Retention: 24 * time.Hour, CheckInterval: 10 * time.Minute,
		TopicName: func(id ident.Topic) (string, bool) {
			name, ok := map[ident.Topic]string{topic1: "t1", topic2: "t2"}[id]
			return name, ok
		},
	}
}

// start runs a coordinator until the test's bubble ends or stop is called.
func start(t *testing.T, cfg Config) (c *Coordinator, stop func()) {
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
	c.Assign(everything(1))
	<-c.Ready()
	return c, stop
}

// everything is all partitions, in one epoch of their owner.
func everything(owner ident.Epoch) map[int32]ident.Epoch {
	out := make(map[int32]ident.Epoch)
	for p := range int32(controller.Partitions) {
		out[p] = owner
	}
	return out
}

func at(topic ident.Topic, index int32, offset ident.Offset) controller.PartitionOffset {
	return controller.PartitionOffset{
		Partition: ident.Partition{Topic: topic, Index: index},
		Offset:    controller.Offset{Offset: offset, LeaderEpoch: -1, CommitTime: time.Now().UnixMilli(), ExpireTime: -1},
	}
}

func joinRequest(name, member, newID string, protocols ...group.Protocol) *group.JoinRequest {
	if protocols == nil {
		protocols = []group.Protocol{{Name: "range", Metadata: []byte{0, 0, 0, 0, 0, 1, 0, 2, 't', '1'}}}
	}
	return &group.JoinRequest{
		Group: name, Member: member, NewID: newID, ProtocolType: "consumer", SessionTimeout: 10 * time.Second,
		RebalanceTimeout: 30 * time.Second, Protocols: protocols,
	}
}

// stable makes a group of one member.
func stable(t *testing.T, c *Coordinator, name, member string) {
	t.Helper()
	r := c.Join(t.Context(), joinRequest(name, "", member))
	if r.Err != nil {
		t.Fatal(r.Err)
	}
	s := c.Sync(t.Context(), &group.SyncRequest{Group: name, Generation: r.Generation, Member: member, Assignments: map[string][]byte{member: []byte("x")}})
	if s.Err != nil || string(s.Assignment) != "x" {
		t.Fatalf("sync %+v", s)
	}
}

// TestPartition: what Java's String.hashCode says, absolute, modulo 50.
func TestPartition(t *testing.T) {
	for name, want := range map[string]int32{
		"": 0, "a": 47, "cg": 22, "group": 47, "my-consumer-group": 13,
		"polygenelubricants": 0, // hashes to the least int, of which there is no absolute value
	} {
		if got := Partition(name); got != want {
			t.Errorf("%q: partition %d, want %d", name, got, want)
		}
	}
}

// TestFailedWrite: after a write that failed nothing in memory is believed; what was stored
// counts, whichever way the write went, and every waiter hears of it.
func TestFailedWrite(t *testing.T) {
	for _, effect := range []bool{false, true} {
		t.Run(fmt.Sprintf("effect=%v", effect), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				store := newFakeStore()
				c, stop := start(t, testConfig(store))
				defer stop()
				stable(t, c, "g", "m1")
				who := group.Commit{Group: "g", Generation: 1, Member: "m1"}
				if err := c.Commit(t.Context(), who, []controller.PartitionOffset{at(topic1, 0, 1)}); err != nil {
					t.Fatal(err)
				}
				parked := make(chan group.JoinReply, 1)
				go func() { parked <- c.Join(t.Context(), joinRequest("g", "", "m2")) }()
				synctest.Wait()
				boom := errors.New("boom")
				store.mu.Lock()
				store.fail = func(*controller.Batch) (error, bool) { store.fail = nil; return boom, effect }
				store.mu.Unlock()
				if err := c.Commit(t.Context(), who, []controller.PartitionOffset{at(topic1, 0, 2)}); !errors.Is(err, group.ErrNotCoordinator) {
					t.Fatalf("failed commit: %v", err)
				}
				if r := <-parked; !errors.Is(r.Err, group.ErrNotCoordinator) {
					t.Fatalf("parked join: %v", r.Err)
				}
				if _, err := c.Offsets(t.Context(), "g", false); !errors.Is(err, ErrLoading) {
					t.Fatalf("read while loading: %v", err)
				}
				if err := c.Heartbeat(t.Context(), "g", 1, "m1", ""); err != nil {
					t.Fatalf("heartbeat while loading: %v", err)
				}
				time.Sleep(2 * reloadPause) // bubble time
				synctest.Wait()
				want := ident.Offset(1)
				if effect {
					want = 2
				}
				got, err := c.Offsets(t.Context(), "g", true)
				if err != nil || len(got) != 1 || got[0].Offset.Offset != want {
					t.Fatalf("offsets %+v, %v; want %d", got, err, want)
				}
				// The member that was stored goes on.
				if err := c.Heartbeat(t.Context(), "g", 1, "m1", ""); err != nil {
					t.Fatal(err)
				}
				if err := c.Commit(t.Context(), who, []controller.PartitionOffset{at(topic1, 0, 3)}); err != nil {
					t.Fatal(err)
				}
			})
		})
	}
}

// TestFenced: another coordinator claimed the partition; this one notices at its next write.
func TestFenced(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := newFakeStore()
		c, stop := start(t, testConfig(store))
		defer stop()
		simple := group.Commit{Group: "g", Generation: -1}
		if err := c.Commit(t.Context(), simple, []controller.PartitionOffset{at(topic1, 0, 1)}); err != nil {
			t.Fatal(err)
		}
		store.Claim(t.Context(), []controller.Claim{{Partition: Partition("g"), Owner: 2}})
		if err := c.Commit(t.Context(), simple, []controller.PartitionOffset{at(topic1, 0, 2)}); !errors.Is(err, group.ErrNotCoordinator) {
			t.Fatalf("commit of a fenced coordinator: %v", err)
		}
		if got := store.offsets["g"][ident.Partition{Topic: topic1}].Offset; got != 1 {
			t.Fatalf("a fenced coordinator wrote offset %d", got)
		}
	})
}

// TestBatching: what comes while a batch is being written goes into the next one, together.
func TestBatching(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := newFakeStore()
		c, stop := start(t, testConfig(store))
		defer stop()
		store.hold = make(chan struct{})
		var wg sync.WaitGroup
		for i := range 100 {
			wg.Go(func() {
				if err := c.Commit(t.Context(), group.Commit{Group: "g", Generation: -1}, []controller.PartitionOffset{at(topic1, int32(i), 7)}); err != nil {
					t.Error(err)
				}
			})
		}
		synctest.Wait()
		// A read that must be stable waits for all of them.
		read := make(chan int, 1)
		go func() {
			got, _ := c.Offsets(t.Context(), "g", true)
			read <- len(got)
		}()
		synctest.Wait()
		if got, _ := c.Offsets(t.Context(), "g", false); len(got) != 0 {
			t.Fatalf("%d offsets visible before they are durable", len(got))
		}
		close(store.hold)
		wg.Wait()
		if n := <-read; n != 100 {
			t.Errorf("stable read saw %d of 100", n)
		}
		if store.batches != 2 {
			t.Errorf("%d batches for 100 commits, want 2", store.batches)
		}
	})
}

// TestRetention plays Kafka's rules over days.
func TestRetention(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := newFakeStore()
		c, stop := start(t, testConfig(store))
		defer stop()
		commit := func(name string, gen int32, member string, offsets ...controller.PartitionOffset) {
			t.Helper()
			if err := c.Commit(t.Context(), group.Commit{Group: name, Generation: gen, Member: member}, offsets); err != nil {
				t.Fatal(err)
			}
		}
		left := func(name string) int {
			t.Helper()
			got, err := c.Offsets(t.Context(), name, true)
			if err != nil {
				t.Fatal(err)
			}
			return len(got)
		}
		state := func(name string) string {
			d, _ := c.Describe(t.Context(), name)
			return d.State.String()
		}
		own := at(topic1, 1, 1)
		own.ExpireTime = time.Now().Add(time.Hour).UnixMilli()
		commit("simple", -1, "", at(topic1, 0, 1), own, at(ident.Topic{9}, 0, 1))
		stable(t, c, "live", "m")
		commit("live", 1, "m", at(topic1, 0, 1), at(topic2, 0, 1)) // subscribed to t1 only
		stable(t, c, "left", "l")
		commit("left", 1, "l", at(topic1, 0, 1))

		beat := func(d time.Duration) {
			t.Helper()
			for range int(d / (5 * time.Second)) {
				time.Sleep(5 * time.Second)
				if err := c.Heartbeat(t.Context(), "live", 1, "m", ""); err != nil {
					t.Fatal(err)
				}
			}
		}
		beat(21 * time.Minute)
		// The deleted topic's went; "left" expired by its session and counts from then.
		if left("simple") != 2 || state("left") != "Empty" || left("left") != 1 {
			t.Fatalf("after 20 min: simple %d, left %s %d", left("simple"), state("left"), left("left"))
		}
		beat(50 * time.Minute)
		if left("simple") != 1 {
			t.Fatalf("after 70 min: simple %d, one had an hour", left("simple"))
		}
		commit("simple", -1, "", at(topic1, 7, 1))
		beat(24 * time.Hour)
		if left("left") != 0 || state("left") != "Dead" || left("live") != 1 || state("live") != "Stable" || left("simple") != 1 {
			t.Fatalf("after a day: left %d %s, live %d %s, simple %d", left("left"), state("left"), left("live"), state("live"), left("simple"))
		}
		beat(time.Hour)
		if left("simple") != 0 || state("simple") != "Dead" {
			t.Fatalf("simple: %d %s", left("simple"), state("simple"))
		}
		if err := c.DropTopics(t.Context(), map[ident.Topic]bool{topic1: true}); err != nil {
			t.Fatal(err)
		}
		if left("live") != 0 {
			t.Fatalf("offsets of a deleted topic: %d", left("live"))
		}
	})
}

// TestStop: whoever waits is answered when the coordinator ends, and later callers at once.
func TestStop(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, stop := start(t, testConfig(newFakeStore()))
		stable(t, c, "g", "m1")
		parked := make(chan group.JoinReply, 1)
		go func() { parked <- c.Join(t.Context(), joinRequest("g", "", "m2")) }()
		synctest.Wait()
		stop()
		if r := <-parked; !errors.Is(r.Err, group.ErrNotCoordinator) {
			t.Errorf("parked join: %v", r.Err)
		}
		if err := c.Heartbeat(t.Context(), "g", 1, "m1", ""); !errors.Is(err, group.ErrNotCoordinator) {
			t.Errorf("heartbeat after the end: %v", err)
		}
		if _, err := c.Offsets(t.Context(), "g", false); !errors.Is(err, group.ErrNotCoordinator) {
			t.Errorf("read after the end: %v", err)
		}
	})
}

func TestNoStore(t *testing.T) {
	c := New(testConfig(nil))
	if _, err := c.Offsets(t.Context(), "g", false); !errors.Is(err, group.ErrCoordinatorNotAvailable) {
		t.Error(err)
	}
	if r := c.Join(t.Context(), joinRequest("g", "", "m")); !errors.Is(r.Err, group.ErrCoordinatorNotAvailable) {
		t.Error(r.Err)
	}
}

func TestCommitTooLarge(t *testing.T) {
	c := New(testConfig(newFakeStore()))
	offsets := make([]controller.PartitionOffset, controller.MaxEntryBytes/2/offsetBytes+1)
	if err := c.Commit(t.Context(), group.Commit{Group: "g", Generation: -1}, offsets); !errors.Is(err, ErrCommitSize) {
		t.Error(err)
	}
}
