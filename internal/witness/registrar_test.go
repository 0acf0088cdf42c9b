package witness

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"net"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/skeinmq/skein/commitlog"
	"github.com/skeinmq/skein/internal/ident"
	"github.com/skeinmq/skein/internal/peer"
	"github.com/skeinmq/skein/internal/peer/peerpb"
)

// cluster is members behind real connections, and a map in memory.
type cluster struct {
	t       testing.TB
	pool    *peer.Pool // of the owner
	mu      sync.Mutex
	members map[ident.Broker]*served
	rec     Record
	lose    int // swaps to answer with unknown
	swaps   int
}

type served struct {
	member *Member
	addr   string
	stop   func()
	hang   atomic.Pointer[chan struct{}] // not nil: what comes waits until it is closed
}

func newCluster(t testing.TB, members int) *cluster {
	c := &cluster{t: t, members: map[ident.Broker]*served{}, rec: Record{Open: true, Host: 1, Epoch: 1}}
	c.pool = peer.NewPool(peerConfig(1), c.resolve)
	for b := range members {
		c.start(ID{ident.Broker(2 + b), 1})
	}
	t.Cleanup(func() {
		c.pool.Close()
		for _, s := range c.members {
			s.stop()
		}
	})
	return c
}

// hangingStream is that of a process that was stopped.
type hangingStream struct {
	net.Conn
	s *served
}

func (h *hangingStream) Read(b []byte) (int, error) {
	n, err := h.Conn.Read(b)
	if c := h.s.hang.Load(); c != nil {
		<-*c
	}
	return n, err
}

func peerConfig(b ident.Broker) peer.Config {
	return peer.Config{Self: b, Cluster: func() string { return "c" }}
}

func (c *cluster) start(id ID) {
	s, err := serveMember(id)
	if err != nil {
		c.t.Fatal(err)
	}
	c.mu.Lock()
	c.members[id.Broker] = s
	c.mu.Unlock()
}

// serveMember serves a new member on a port of its own.
func serveMember(id ID) (*served, error) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	s := &served{member: NewMember(MemberConfig{ID: id}), addr: ln.Addr().String()}
	server, member := peer.NewServer(peerConfig(id.Broker)), NewServer(s.member, nil, nil)
	scope := server.Scope()
	peerpb.RegisterWitnessServer(scope, member)
	scope.HandleWitness(func(conn net.Conn) { member.Follow(&hangingStream{conn, s}) })
	ctx, cancel := context.WithCancel(context.Background())
	var run sync.WaitGroup
	run.Go(func() { server.Run(ctx, ln) })
	s.stop = func() { cancel(); run.Wait() }
	return s, nil
}

func (c *cluster) resolve(b ident.Broker) (string, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if s := c.members[b]; s != nil {
		return s.addr, true
	}
	return "", false
}

func (c *cluster) candidates() []Candidate {
	c.mu.Lock()
	defer c.mu.Unlock()
	var out []Candidate
	for _, s := range c.members {
		out = append(out, Candidate{ID: s.member.ID()})
	}
	slices.SortFunc(out, func(a, b Candidate) int { return int(a.ID.Broker - b.ID.Broker) })
	return out
}

func (c *cluster) SwapWitnesses(_ context.Context, _ Key, set []ID) (SwapOutcome, Record) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.rec.Open {
		return SwapLost, c.rec
	}
	c.swaps++
	c.rec.Set = slices.Clone(set)
	if c.lose > 0 {
		c.lose--
		return SwapUnknown, Record{}
	}
	return SwapWon, c.rec
}

func (c *cluster) SettleLog(context.Context, Key) (Record, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.rec, nil
}

func (c *cluster) set() []ID {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Clone(c.rec.Set)
}

// owned is a running log whose commits are witnessed.
type owned struct {
	*commitlog.Log
	c     *cluster
	r     *Registrar
	ended chan error
	stop  func()
}

// patience is for what is as slow as the machine: it is no bound that is tested.
const patience = 2 * time.Minute

// own runs a log with so many witnesses. A member that answers late on a busy machine is not given up: only those that break, or
// hang.
func (c *cluster) own(dir string, members int) *owned {
	c.t.Helper()
	o := &owned{c: c, ended: make(chan error, 1)}
	o.r = NewRegistrar(Config{Dial: c.pool.DialWitness, Map: c, Owner: OwnerConfig{
		Size: members, Backoff: 50 * time.Millisecond, Timeout: hangTimeout, Probe: patience, TableTimeout: patience,
	}})
	ctx, cancel := context.WithCancel(context.Background())
	var err error
	o.Log, err = commitlog.Open(ctx, commitlog.Config{Dir: dir, ClusterID: "c", FileSize: 16 << 20, CacheBytes: 16 << 20, Witness: o.r})
	if err != nil {
		c.t.Fatal(err)
	}
	rctx, rcancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() { o.ended <- o.Log.Run(ctx) })
	wg.Go(func() { o.r.Run(rctx) })
	o.stop = func() {
		cancel()
		<-o.ended
		rcancel()
		wg.Wait()
		o.Log.Close()
	}
	key := Key{Log: o.Recovered().ID, Epoch: 1}
	set, err := o.r.Offer(ctx, o.Log, key, ID{1, 1}, o.RecoveredTable(), c.candidates())
	if err != nil || len(set) != min(members, len(c.members)) {
		c.t.Fatalf("offer: %v, %v", set, err)
	}
	c.mu.Lock()
	c.rec.Set = set
	c.mu.Unlock()
	o.r.Opened(Record{Open: true, Host: 1, Epoch: 1, Set: set})
	if err := o.Begin(ctx, 1, nil); err != nil {
		c.t.Fatal(err)
	}
	return o
}

func (o *owned) open(groups int) []ident.Generation {
	o.c.t.Helper()
	var opens []commitlog.Opening
	for g := range groups {
		opens = append(opens, commitlog.Opening{Group: ident.Group(g), Epoch: 1})
	}
	frames, err := o.Prepare(context.Background(), opens)
	if err != nil {
		o.c.t.Fatal(err)
	}
	var gens []ident.Generation
	for g, f := range frames {
		gens = append(gens, ident.Generation{Group: ident.Group(g), Epoch: 1, Frame: f})
	}
	if err := o.Activate(gens); err != nil {
		o.c.t.Fatal(err)
	}
	return gens
}

// record is a batch of one record.
func record(producer int64, seq int32) []byte {
	b := make([]byte, 61+100)
	be := binary.BigEndian
	be.PutUint32(b[8:], uint32(len(b)-12))
	b[16] = 2
	be.PutUint64(b[35:], 1000)
	be.PutUint64(b[43:], uint64(producer))
	be.PutUint32(b[53:], uint32(seq))
	be.PutUint32(b[57:], 1)
	be.PutUint32(b[17:], crc32.Checksum(b[21:], crc32.MakeTable(crc32.Castagnoli)))
	return b
}

// append1 appends one record and waits.
func (o *owned) append1(q *commitlog.Queue, producer int64, seq int32) error {
	done := make(chan error, 1)
	o.Append(&commitlog.Append{
		Batches: []commitlog.Batch{{Queue: q, Data: record(producer, seq), Records: 1, MaxTimestamp: 1000, ProducerID: producer, BaseSequence: seq}},
		Done:    func(a *commitlog.Append) { done <- a.Batches[0].Result.Err },
	})
	return <-done
}

func (o *owned) queue(g ident.Group, index int32) *commitlog.Queue {
	q, err := o.Queue(g, ident.Partition{Topic: ident.Topic{1}, Index: index})
	if err != nil {
		o.c.t.Fatal(err)
	}
	return q
}

func (c *cluster) await(what string, cond func() bool) {
	c.t.Helper()
	for deadline := time.Now().Add(patience); !cond(); time.Sleep(time.Millisecond) { // other processes' ends are polled
		if time.Now().After(deadline) {
			c.t.Fatalf("never: %s", what)
		}
	}
}

// sealed asks every member of the recorded set; each must have what was acked.
func (c *cluster) sealed(key Key, gen ident.Generation, index int32, end ident.Offset) {
	c.t.Helper()
	c.mu.Lock()
	c.rec.Open = false
	c.mu.Unlock()
	set := c.set()
	for _, id := range set {
		conn, err := c.pool.Conn(id.Broker)
		if err != nil {
			c.t.Fatal(err)
		}
		table, err := AskSeal(c.t.Context(), conn, key, id)
		if err != nil {
			c.t.Fatal(err)
		}
		g, ok, err := table.Generation(gen)
		if err != nil || !ok {
			c.t.Fatalf("generation %v at %v: %v, %v", gen, id, ok, err)
		}
		i := slices.IndexFunc(g.Partitions, func(s ident.PartitionState) bool { return s.Partition.Index == index })
		if i < 0 || g.Partitions[i].End != end || len(g.Partitions[i].Producers) != 1 || len(g.Partitions[i].Producers[0].Batches) != int(min(end, 5)) {
			c.t.Errorf("sealed at %v: %+v, want end %d", id, g.Partitions, end)
		}
	}
}

// TestRegistrar: a log with two witnesses; one is killed, a third takes its place, then a swap's answer is lost; in the end the
// seal has everything, and the owner acks nothing more.
func TestRegistrar(t *testing.T) {
	c := newCluster(t, 3)
	o := c.own(t.TempDir(), 2)
	defer o.stop()
	gens := o.open(2)
	q := o.queue(0, 3)
	key := Key{Log: o.Recovered().ID, Epoch: 1}
	seq := int32(0)
	send := func(n int) {
		t.Helper()
		for range n {
			if err := o.append1(q, 5, seq); err != nil {
				t.Fatal(err)
			}
			seq++
		}
	}
	send(20)
	if got := c.set(); len(got) != 2 {
		t.Fatalf("set %v", got)
	}
	victim := c.set()[0]
	c.members[victim.Broker].stop()
	send(5)
	o.r.Candidates(slices.DeleteFunc(c.candidates(), func(x Candidate) bool { return x.ID == victim }))
	c.await("a third witness", func() bool { s := c.set(); return len(s) == 2 && !slices.Contains(s, victim) })
	send(5)
	c.mu.Lock()
	c.lose = 1
	c.mu.Unlock()
	second := c.set()[1]
	c.members[second.Broker].stop()
	send(5) // through an unknown swap, settled by a write
	if got := c.set(); len(got) != 1 || slices.Contains(got, second) {
		t.Errorf("set %v", got)
	}
	c.start(ID{second.Broker, 2}) // it comes back as another incarnation
	o.r.Candidates(c.candidates())
	c.await("the new incarnation", func() bool { return slices.Contains(c.set(), ID{second.Broker, 2}) })
	send(5)
	if q.HighWatermark() != ident.Offset(seq) {
		t.Errorf("high watermark %d, sent %d", q.HighWatermark(), seq)
	}
	c.sealed(key, gens[0], 3, ident.Offset(seq))
	if err := o.append1(q, 5, seq); !errors.Is(err, commitlog.ErrFenced) {
		t.Errorf("append after the seal: %v", err)
	}
	if q.HighWatermark() != ident.Offset(seq) {
		t.Error("visible after the seal")
	}
}

// hangTimeout is how long a member may hang: one that does not is far from it, on a busy machine as well.
const hangTimeout = 3 * time.Second

// TestHungWitness: one that hangs costs one timeout and one swap, and is not in the set when it goes on.
func TestHungWitness(t *testing.T) {
	c := newCluster(t, 2)
	o := c.own(t.TempDir(), 2)
	defer o.stop()
	gens := o.open(1)
	q := o.queue(0, 1)
	if err := o.append1(q, 5, 0); err != nil {
		t.Fatal(err)
	}
	victim, end := c.set()[0], make(chan struct{})
	c.members[victim.Broker].hang.Store(&end)
	begun := time.Now()
	if err := o.append1(q, 5, 1); err != nil {
		t.Fatal(err)
	}
	if took := time.Since(begun); took < hangTimeout || took > patience/2 {
		t.Errorf("the append took %v, want a little more than the timeout of %v", took, hangTimeout)
	}
	c.mu.Lock()
	swaps := c.swaps
	c.mu.Unlock()
	if got := c.set(); len(got) != 1 || got[0] == victim || swaps != 1 {
		t.Errorf("set %v after %d swaps", got, swaps)
	}
	c.members[victim.Broker].hang.Store(nil)
	close(end)
	o.r.Candidates(c.candidates())
	c.await("it joins again", func() bool { return len(c.set()) == 2 })
	for i := range int32(20) {
		if err := o.append1(q, 5, 2+i); err != nil {
			t.Fatal(err)
		}
	}
	c.sealed(Key{Log: o.Recovered().ID, Epoch: 1}, gens[0], 1, 22)
}

// TestLastSurvivor: with no witness left the set is recorded as empty, and only then acks go on.
func TestLastSurvivor(t *testing.T) {
	c := newCluster(t, 2)
	o := c.own(t.TempDir(), 2)
	defer o.stop()
	o.open(1)
	q := o.queue(0, 1)
	for b := range c.members {
		c.members[b].stop()
	}
	o.r.Candidates(nil)
	if err := o.append1(q, 5, 0); err != nil {
		t.Fatal(err)
	}
	if got := c.set(); len(got) != 0 {
		t.Errorf("acked with the set recorded as %v", got)
	}
	c.await("an idle registrar", func() bool { return !o.r.Active() })
	if err := o.append1(q, 5, 1); err != nil {
		t.Fatal(err)
	}
}

// TestSealFences: a seal is noticed by the owner without its watch, also by one that is idle.
func TestSealFences(t *testing.T) {
	c := newCluster(t, 2)
	o := c.own(t.TempDir(), 2)
	defer o.stop()
	o.open(1)
	c.mu.Lock()
	rec := c.rec
	c.mu.Unlock()
	rec.Open = false
	o.r.RecordRead(rec)
	<-o.Poisoned()
	if !errors.Is(o.Err(), commitlog.ErrFenced) {
		t.Errorf("poisoned by %v", o.Err())
	}
}

// BenchmarkCommit is one append at a time, over loopback, with so many witnesses.
func BenchmarkCommit(b *testing.B) {
	for members := range 3 {
		b.Run(fmt.Sprintf("members=%d", members), func(b *testing.B) {
			c := newCluster(b, members)
			o := c.own(b.TempDir(), max(members, 1))
			defer o.stop()
			o.open(1)
			q := o.queue(0, 1)
			took := make([]time.Duration, 0, b.N)
			for i := range b.N {
				begun := time.Now()
				if err := o.append1(q, 5, int32(i)); err != nil {
					b.Fatal(err)
				}
				took = append(took, time.Since(begun))
			}
			slices.Sort(took)
			b.ReportMetric(float64(took[len(took)/2].Microseconds()), "p50-µs")
			b.ReportMetric(float64(took[len(took)*99/100].Microseconds()), "p99-µs")
		})
	}
}

// BenchmarkRegister is group commits of 20 partitions each, 64 under way, without a disk.
func BenchmarkRegister(b *testing.B) {
	c := newCluster(b, 2)
	o := c.own(b.TempDir(), 2)
	defer o.stop()
	gens := o.open(1)
	var updates []commitlog.Update
	for i := range int32(20) {
		u := commitlog.Update{Generation: gens[0], State: ident.PartitionState{Partition: ident.Partition{Topic: ident.Topic{1}, Index: i}, End: 5}}
		u.State.Producers = []ident.ProducerState{{ID: int64(i), TxnStart: -1, CoordinatorEpoch: -1, Batches: make([]ident.ProducerBatch, 5)}}
		updates = append(updates, u)
	}
	slots := make(chan struct{}, 64)
	b.ReportAllocs()
	b.SetBytes(int64(len(AppendUpdates(nil, updates))))
	for i := range b.N {
		slots <- struct{}{}
		o.r.Register(ident.Position(1<<30+i), updates, func(err error) {
			if err != nil {
				b.Error(err)
			}
			<-slots
		})
	}
	for range cap(slots) {
		slots <- struct{}{}
	}
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "commits/s")
}
