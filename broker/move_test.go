package broker

import (
	"context"
	"strconv"
	"sync"
	"testing"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/skeinmq/skein/internal/ident"
	"github.com/skeinmq/skein/queuemapper"
)

// steadyLoad produces numbered records to one topic, the next one of each partition when the one before was acknowledged
// or the client's own window allows, until stopped.
type steadyLoad struct {
	cl   *kgo.Client
	stop chan struct{}
	done sync.WaitGroup
	mu   sync.Mutex
	sent []int            // records tried, by partition
	at   []map[int64]bool // offsets acknowledged, by partition
	errs []error
}

func startLoad(t *testing.T, c *cluster, topic string, partitions int) *steadyLoad {
	t.Helper()
	cl, err := kgo.NewClient(kgo.SeedBrokers(c.addr), kgo.RecordPartitioner(kgo.ManualPartitioner()), kgo.ProducerLinger(0), kgo.UnknownTopicRetries(-1),
		kgo.AllowAutoTopicCreation())
	if err != nil {
		t.Fatal(err)
	}
	l := &steadyLoad{cl: cl, stop: make(chan struct{}), sent: make([]int, partitions), at: make([]map[int64]bool, partitions)}
	for p := range partitions {
		l.at[p] = map[int64]bool{}
		l.done.Go(func() { l.run(topic, p) })
	}
	t.Cleanup(cl.Close)
	return l
}

func (l *steadyLoad) run(topic string, p int) {
	window := make(chan struct{}, 20)
	for n := 0; ; n++ {
		select {
		case <-l.stop:
			return
		case window <- struct{}{}:
		}
		l.mu.Lock()
		l.sent[p]++
		l.mu.Unlock()
		l.cl.Produce(context.Background(), &kgo.Record{Topic: topic, Partition: int32(p), Value: []byte(strconv.Itoa(n))}, func(r *kgo.Record, err error) {
			<-window
			l.mu.Lock()
			defer l.mu.Unlock()
			if err != nil {
				l.errs = append(l.errs, err)
				return
			}
			l.at[p][r.Offset] = true
		})
	}
}

// end stops the load when everything is acknowledged.
func (l *steadyLoad) end(t *testing.T) {
	t.Helper()
	close(l.stop)
	l.done.Wait()
	if err := l.cl.Flush(t.Context()); err != nil {
		t.Fatal(err)
	}
	for _, err := range l.errs {
		t.Errorf("produce: %v", err)
	}
}

// check reads the topic from the start: every record once, in order, without a gap.
func (l *steadyLoad) check(t *testing.T, c *cluster, topic string) {
	t.Helper()
	cl, err := kgo.NewClient(kgo.SeedBrokers(c.addr), kgo.ConsumeTopics(topic), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()))
	if err != nil {
		t.Fatal(err)
	}
	defer cl.Close()
	next := make([]int, len(l.sent))
	left := 0
	for _, n := range l.sent {
		left += n
	}
	for left > 0 {
		fs := cl.PollFetches(t.Context())
		if err := fs.Err(); err != nil {
			t.Fatal(err)
		}
		fs.EachRecord(func(r *kgo.Record) {
			if want := next[r.Partition]; r.Offset != int64(want) || string(r.Value) != strconv.Itoa(want) {
				t.Fatalf("partition %d: got offset %d, value %s; want both %d", r.Partition, r.Offset, r.Value, want)
			}
			if !l.at[r.Partition][r.Offset] {
				t.Fatalf("partition %d: offset %d was not acknowledged", r.Partition, r.Offset)
			}
			next[r.Partition]++
			left--
		})
	}
}

// TestMoveUnderLoad moves every group between two logs again and again while an idempotent producer writes: no gap, no
// double, order kept, epochs one higher at each move; also after a restart.
func TestMoveUnderLoad(t *testing.T) {
	c := startCluster(t, 2, Config{Static: map[string]string{"num.partitions": "6"}})
	load := startLoad(t, c, "moved", 6)
	moves := 0
	for round := range 6 {
		to := c.logs[round%2].Recovered().ID
		for g := range c.b.store.Map().Groups() {
			before := *g.Current()
			if before.Log == to {
				continue
			}
			v := c.b.moveGroup(t.Context(), g.ID, to)
			if v.Error != "" {
				t.Fatalf("move %d: %s", g.ID, v.Error)
			}
			if now := c.b.store.Map().Group(g.ID).Current(); now.Log != to || now.Epoch != before.Epoch+1 {
				t.Fatalf("group %d is at %+v after a move from %+v to %s", g.ID, now, before, to)
			}
			moves++
		}
	}
	load.end(t)
	c.b.trimGenerations(t.Context(), nil) // everything can still be read: generations with data stay
	if moves < 40 {
		t.Errorf("%d moves, want 40 at least", moves)
	}
	load.check(t, c, "moved")
	if err := c.stop(); err != nil {
		t.Fatal(err)
	}
	c.start()
	load.check(t, c, "moved")
}

// TestSplitUnderLoad sends a partition from group to group while it is written.
func TestSplitUnderLoad(t *testing.T) {
	c := startCluster(t, 2, Config{Static: map[string]string{"num.partitions": "2"}})
	load := startLoad(t, c, "hot", 2)
	if err := c.b.awaitTopic(t.Context(), "hot"); err != nil {
		t.Fatal(err)
	}
	for round := range 12 {
		rec := c.b.store.Map().Topic("hot")
		stays := rec.Partitions[0]
		from := stays[len(stays)-1].Group
		to := (from + 1 + ident.Group(round%3)) % 8
		v, err := c.b.splitPartition(t.Context(), "hot", 0, to)
		if err != nil {
			t.Fatalf("split %d to %d: %v", round, to, err)
		}
		run, _, ok := c.b.store.Map().Owner(c.b.store.Map().Topic("hot"), 0)
		if !ok || run.Generation.Group != to || run.Generation.Epoch != v.Epoch {
			t.Fatalf("the partition is at %+v after a split to group %d at epoch %d", run, to, v.Epoch)
		}
	}
	load.end(t)
	load.check(t, c, "hot")
	if err := c.stop(); err != nil {
		t.Fatal(err)
	}
	c.start()
	load.check(t, c, "hot")
}

// TestMoveRefusals: a move that cannot be made says why and leaves the group writable.
func TestMoveRefusals(t *testing.T) {
	c := startCluster(t, 2, Config{})
	here := c.b.store.Map().Group(0).Current().Log
	for name, got := range map[string]string{
		"same log":    c.b.moveGroup(t.Context(), 0, here).Error,
		"unknown log": c.b.moveGroup(t.Context(), 0, ident.Log{9}).Error,
	} {
		if got == "" {
			t.Errorf("%s: no error", name)
		}
	}
	if _, err := c.b.planMoves(MoveRequest{Groups: []int32{99}, To: here.String()}); err == nil {
		t.Error("a group that is not there is planned")
	}
	if _, err := c.b.splitPartition(t.Context(), "none", 0, 1); err == nil {
		t.Error("a partition that is not there is split")
	}
	load := startLoad(t, c, "after", 1)
	load.end(t)
	load.check(t, c, "after")
}

// awaitTopic waits until a topic that somebody else creates takes writes.
func (b *Broker) awaitTopic(ctx context.Context, name string) error {
	return b.awaitTable(ctx, func(m *queuemapper.Map) bool { return m.Topic(name) != nil && b.topic(name) != nil })
}

// TestTrimGenerations: a group that moved often and holds nothing below its log starts keeps a short record; one whose
// data can still be read keeps every generation that has some.
func TestTrimGenerations(t *testing.T) {
	c := startCluster(t, 2, Config{Static: map[string]string{"num.partitions": "8"}})
	load := startLoad(t, c, "kept", 8)
	load.end(t)
	if err := c.b.awaitTopic(t.Context(), "kept"); err != nil {
		t.Fatal(err)
	}
	for round := range 12 {
		for g := range c.b.store.Map().Groups() {
			if to := c.logs[round%2].Recovered().ID; g.Current().Log != to {
				if v := c.b.moveGroup(t.Context(), g.ID, to); v.Error != "" {
					t.Fatal(v.Error)
				}
			}
		}
	}
	most := func() (n int) {
		for g := range c.b.store.Map().Groups() {
			n = max(n, len(g.Generations))
		}
		return n
	}
	c.b.trimGenerations(t.Context(), nil)
	if most() < 12 {
		t.Fatalf("at most %d generations are left, although the first ones hold data", most())
	}
	load.check(t, c, "kept")
	for _, p := range c.b.topic("kept").partitions() {
		run := p.open.Load()
		if err := run.queue.SetLogStart(t.Context(), run.queue.HighWatermark()); err != nil {
			t.Fatal(err)
		}
	}
	c.b.trimGenerations(t.Context(), nil)
	if most() != 1 {
		t.Errorf("%d generations are left of which nothing can be read", most())
	}
	if err := c.stop(); err != nil {
		t.Fatal(err)
	}
	c.start()
	again := startLoad(t, c, "after", 8)
	again.end(t)
	again.check(t, c, "after")
}

// moveGroup moves one group.
func (b *Broker) moveGroup(ctx context.Context, group ident.Group, to ident.Log) MoveView {
	return b.moveGroups(ctx, []ident.Group{group}, to)[0]
}
