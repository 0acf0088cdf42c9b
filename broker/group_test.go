package broker

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/skeinmq/skein/internal/ident"
)

// groupReader is one member that notes what it reads, commits it, and what it is assigned.
type groupReader struct {
	cl   *kgo.Client
	stop func()

	mu         sync.Mutex
	seen       map[string]int
	assigned   map[int32]bool
	rejoins    int
	generation int32                // of the group, when it was given partitions last
	beats      map[ident.Broker]int // heartbeats that were answered, by who did
}

// joined is how many times it was given partitions, none included.
func (r *groupReader) joined() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.rejoins
}

// settled says whether every member has n partitions, and was given them, or left with them, in one generation of the group.
// Numbers alone do not say that a rebalance is over: a member that has handed its share on has the right one from then on,
// and is told of the generation in which the others get it later than they may be.
func settled(n int, members ...*groupReader) bool {
	generations := make(map[int32]bool)
	for _, r := range members {
		r.mu.Lock()
		complete := len(r.assigned) == n
		generations[r.generation] = true
		r.mu.Unlock()
		if !complete {
			return false
		}
	}
	return len(generations) == 1
}

// OnBrokerE2E implements kgo.HookBrokerE2E.
func (r *groupReader) OnBrokerE2E(by kgo.BrokerMetadata, key int16, e2e kgo.BrokerE2E) {
	if e2e.Err() == nil && key == kmsg.Heartbeat.Int16() {
		r.mu.Lock()
		defer r.mu.Unlock()
		r.beats[ident.Broker(by.NodeID)]++
	}
}

// heard is how many of its heartbeats the broker has answered.
func (r *groupReader) heard(by ident.Broker) int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.beats[by]
}

func (c *cluster) reader(group, topic string, opts ...kgo.Opt) *groupReader {
	c.t.Helper()
	r := &groupReader{seen: map[string]int{}, assigned: map[int32]bool{}, beats: map[ident.Broker]int{}}
	change := func(add bool) func(context.Context, *kgo.Client, map[string][]int32) {
		return func(_ context.Context, cl *kgo.Client, m map[string][]int32) {
			r.mu.Lock()
			defer r.mu.Unlock()
			if add {
				r.rejoins++
				_, r.generation = cl.GroupMetadata()
			}
			for _, p := range m[topic] {
				if add {
					r.assigned[p] = true
				} else {
					delete(r.assigned, p)
				}
			}
		}
	}
	opts = append([]kgo.Opt{
		kgo.ConsumerGroup(group), kgo.ConsumeTopics(topic), kgo.HeartbeatInterval(100 * time.Millisecond), kgo.MetadataMinAge(50 * time.Millisecond),
		kgo.OnPartitionsAssigned(change(true)), kgo.OnPartitionsRevoked(change(false)), kgo.OnPartitionsLost(change(false)),
		kgo.AutoCommitInterval(100 * time.Millisecond), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()),
		kgo.WithHooks(r),
	}, opts...)
	r.cl = c.client(opts...)
	ctx, cancel := context.WithCancel(c.t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			fetches := r.cl.PollFetches(ctx)
			if ctx.Err() != nil {
				return
			}
			fetches.EachRecord(func(rec *kgo.Record) {
				r.mu.Lock()
				r.seen[string(rec.Value)]++
				r.mu.Unlock()
			})
		}
	}()
	r.stop = sync.OnceFunc(func() { cancel(); <-done; r.cl.Close() })
	c.t.Cleanup(r.stop)
	return r
}

func (r *groupReader) partitions() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.assigned)
}

func (r *groupReader) count() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.seen)
}

// eventually polls for what another goroutine does, with a limit that only a failure reaches.
func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(enough); !ok(); {
		if time.Now().After(end) {
			t.Fatalf("never: %s", what)
		}
		select {
		case <-time.After(5 * time.Millisecond):
		case <-t.Context().Done():
		}
	}
}

func produceN(t *testing.T, cl *kgo.Client, topic, prefix string, n int) {
	t.Helper()
	for i := range n {
		cl.Produce(t.Context(), &kgo.Record{Topic: topic, Key: fmt.Appendf(nil, "%d", i), Value: fmt.Appendf(nil, "%s%d", prefix, i)}, func(_ *kgo.Record, err error) {
			if err != nil {
				t.Errorf("produce: %v", err)
			}
		})
	}
	if err := cl.Flush(t.Context()); err != nil {
		t.Fatal(err)
	}
}

func TestGroupRebalance(t *testing.T) {
	for name, balancer := range map[string]kgo.GroupBalancer{"cooperative": kgo.CooperativeStickyBalancer(), "eager": kgo.RangeBalancer()} {
		t.Run(name, func(t *testing.T) {
			c := startCluster(t, 1, Config{Static: map[string]string{"num.partitions": "6", "group.initial.rebalance.delay.ms": "0"}})
			p := c.client()
			produceN(t, p, "orders", "a", 300)
			opt := kgo.Balancers(balancer)
			one := c.reader("g", "orders", opt)
			eventually(t, "one reads all", func() bool { return one.count() == 300 && one.partitions() == 6 })
			two := c.reader("g", "orders", opt)
			three := c.reader("g", "orders", opt)
			eventually(t, "three share", func() bool { return one.partitions() == 2 && two.partitions() == 2 && three.partitions() == 2 })
			produceN(t, p, "orders", "b", 300)
			eventually(t, "three read all", func() bool { return one.count()+two.count()+three.count() >= 600 })
			three.stop()
			eventually(t, "two share", func() bool { return one.partitions() == 3 && two.partitions() == 3 })

			// The coordinator goes away and comes back: members stay, nothing is read twice.
			eventually(t, "all committed", func() bool { return committed(t, c, "g") == 600 })
			before := readings(one, two, three)
			if err := c.stop(); err != nil {
				t.Fatal(err)
			}
			c.startAt(c.addr)
			produceN(t, c.client(), "orders", "c", 100)
			eventually(t, "two read on", func() bool { return one.count()+two.count()+three.count() >= 700 })
			for v, n := range readings(one, two, three) {
				if n != max(before[v], 1) {
					t.Errorf("%s read %d times, %d before the restart", v, n, before[v])
				}
			}
		})
	}
}

// readings counts how often each record was read. (An eager rebalance may repeat what was
// not committed yet.)
func readings(rs ...*groupReader) map[string]int {
	out := make(map[string]int)
	for _, r := range rs {
		r.mu.Lock()
		for v, n := range r.seen {
			out[v] += n
		}
		r.mu.Unlock()
	}
	return out
}

func committed(t *testing.T, c *cluster, group string) (sum int64) {
	t.Helper()
	os, err := kadm.NewClient(c.client()).FetchOffsets(t.Context(), group)
	if err != nil {
		return -1
	}
	os.Each(func(o kadm.OffsetResponse) { sum += o.At })
	return sum
}

func TestGroupStatic(t *testing.T) {
	c := startCluster(t, 1, Config{Static: map[string]string{"num.partitions": "4", "group.initial.rebalance.delay.ms": "0"}})
	produceN(t, c.client(), "orders", "a", 100)
	start := func(id string) *groupReader {
		return c.reader("g", "orders", kgo.InstanceID(id), kgo.SessionTimeout(enough))
	}
	one, two := start("i1"), start("i2")
	eventually(t, "two share", func() bool { return settled(2, one, two) })
	adm := kadm.NewClient(c.client())
	before := one.joined()
	two.stop() // a static member does not leave
	two = start("i2")
	eventually(t, "it has its partitions again", func() bool { return two.partitions() == 2 })
	if n := one.joined(); n != before {
		t.Errorf("the other member was assigned %d times meanwhile", n-before)
	}
	d, err := adm.DescribeGroups(t.Context(), "g")
	if err != nil || d["g"].State != "Stable" || len(d["g"].Members) != 2 {
		t.Fatalf("described %+v, %v", d, err)
	}
	two.stop()
	left, err := adm.LeaveGroup(t.Context(), kadm.LeaveGroup("g").InstanceIDs("i2", "nobody"))
	if err != nil || left["i2"].Err != nil || left["nobody"].Err == nil {
		t.Fatalf("left %+v, %v", left, err)
	}
	eventually(t, "one has all", func() bool { return one.partitions() == 4 })
}

func TestGroupAdmin(t *testing.T) {
	c := startCluster(t, 1, Config{Static: map[string]string{"num.partitions": "2", "group.initial.rebalance.delay.ms": "0"}})
	produceN(t, c.client(), "orders", "a", 10)
	plain, err := kgo.NewClient(kgo.SeedBrokers(c.addr)) // makes no topics
	if err != nil {
		t.Fatal(err)
	}
	defer plain.Close()
	adm := kadm.NewClient(plain)
	var offsets kadm.Offsets
	offsets.AddOffset("orders", 0, 3, 0)
	offsets.AddOffset("orders", 1, 4, -1)
	offsets.AddOffset("orders", 9, 4, -1)
	offsets.AddOffset("nothing", 0, 4, -1)
	rs, err := adm.CommitOffsets(t.Context(), "simple", offsets)
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []struct {
		topic string
		part  int32
		ok    bool
	}{{"orders", 0, true}, {"orders", 1, true}, {"orders", 9, false}, {"nothing", 0, false}} {
		if r, _ := rs.Lookup(want.topic, want.part); (r.Err == nil) != want.ok {
			t.Errorf("commit %s-%d: %v", want.topic, want.part, r.Err)
		}
	}
	got, err := adm.FetchOffsets(t.Context(), "simple")
	if err != nil || len(got) != 1 || got["orders"][0].At != 3 || got["orders"][1].At != 4 {
		t.Fatalf("fetched %+v, %v", got, err)
	}
	lists, err := adm.ListGroups(t.Context())
	if err != nil || lists["simple"].State != "Empty" {
		t.Fatalf("listed %+v, %v", lists, err)
	}
	if r, err := adm.DeleteOffsets(t.Context(), "simple", kadm.TopicsSet{"orders": {0: {}}}); err != nil {
		t.Fatalf("delete offsets %+v, %v", r, err)
	}
	if got, _ = adm.FetchOffsets(t.Context(), "simple"); len(got["orders"]) != 1 {
		t.Fatalf("after deletion %+v", got)
	}
	if err := c.stop(); err != nil {
		t.Fatal(err)
	}
	c.start()
	adm = kadm.NewClient(c.client())
	if got, err = adm.FetchOffsets(t.Context(), "simple"); err != nil || got["orders"][1].At != 4 {
		t.Fatalf("after restart %+v, %v", got, err)
	}
	if _, err := adm.DeleteGroup(t.Context(), "simple"); err != nil {
		t.Fatal(err)
	}
	if _, err := adm.DeleteGroup(t.Context(), "simple"); err == nil {
		t.Fatal("deleted twice")
	}
	if got, _ = adm.FetchOffsets(t.Context(), "simple"); len(got) != 0 {
		t.Fatalf("offsets of a deleted group: %+v", got)
	}
}

// TestGroupChurn: members come and go, the broker restarts, all at once. Every record is read
// by somebody, and a committed offset never goes back.
func TestGroupChurn(t *testing.T) {
	if testing.Short() {
		t.Skip("takes seconds")
	}
	c := startCluster(t, 1, Config{Static: map[string]string{"num.partitions": "8", "group.initial.rebalance.delay.ms": "0"}})
	produceN(t, c.client(), "orders", "first", 10)
	const seed = 1
	rnd := rand.New(rand.NewPCG(seed, 0))
	var all, live []*groupReader
	join := func() {
		opts := []kgo.Opt{kgo.SessionTimeout(6 * time.Second), kgo.Balancers(kgo.CooperativeStickyBalancer(), kgo.RangeBalancer())}
		if n := len(all); n%3 == 0 {
			opts = append(opts, kgo.InstanceID(fmt.Sprint("i", n)))
		}
		r := c.reader("g", "orders", opts...)
		all, live = append(all, r), append(live, r)
	}
	join()
	high := map[int32]int64{}
	total := 10
	for step := range 7 {
		if len(live) < 2 || len(live) < 5 && rnd.IntN(2) == 0 {
			join()
		} else {
			i := rnd.IntN(len(live))
			live[i].stop()
			live = slices.Delete(live, i, i+1)
		}
		if step%4 == 3 {
			if err := c.stop(); err != nil {
				t.Fatal(err)
			}
			c.startAt(c.addr)
		}
		produceN(t, c.client(), "orders", fmt.Sprintf("s%d-", step), 100)
		total += 100
		os, err := kadm.NewClient(c.client()).FetchOffsets(t.Context(), "g")
		if err != nil {
			continue // it restarts
		}
		os.Each(func(o kadm.OffsetResponse) {
			if o.Err == nil && o.At < high[o.Partition] {
				t.Errorf("step %d: partition %d committed %d after %d", step, o.Partition, o.At, high[o.Partition])
			}
			high[o.Partition] = max(high[o.Partition], o.At)
		})
	}
	eventually(t, "everything is read", func() bool { return len(readings(all...)) == total })
	eventually(t, "everything is committed", func() bool { return committed(t, c, "g") == int64(total) })
}
