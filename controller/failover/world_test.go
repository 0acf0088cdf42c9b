package failover

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/skeinmq/skein/internal/etcdtest"
	"github.com/skeinmq/skein/internal/ident"
	"github.com/skeinmq/skein/queuemapper"
	"github.com/skeinmq/skein/queuemapper/embedded"
)

// etcd is one server for all tests of the package; they have prefixes of their own.
var etcd *embedded.Server

func TestMain(m *testing.M) {
	os.Exit(func() int {
		dir, err := os.MkdirTemp("", "failover")
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		defer os.RemoveAll(dir)
		etcd, err = embedded.Start(context.Background(), embedded.Config{Dir: dir, NoFsync: true, Listen: "127.0.0.1:0"})
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		defer etcd.Close()
		return m.Run()
	}())
}

var prefixes atomic.Int64

// dial gives a store a client of its own. The server's in-process client is one stream for all watches, without a buffer in
// either direction: with many stores on it, one that ends its watch while events come for another blocks both sides.
func dial(t testing.TB) *clientv3.Client {
	t.Helper()
	c, err := clientv3.New(clientv3.Config{Endpoints: []string{etcd.Addr()}, DialTimeout: 5 * time.Second})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

var errGone = errors.New("nobody answers")

// world is brokers, disks and witnesses in memory around a real map store. Broker n hosts log n.
type world struct {
	t     testing.TB
	store *queuemapper.Store // the brokers' own, without faults
	cfg   queuemapper.Config

	mu      sync.Mutex
	brokers map[ident.Broker]*node
	acked   map[ident.Partition][]int // the records' ids, by offset
	stored  map[ident.Generation]map[ident.Partition]map[ident.Offset]int
	nextID  int
	step    func() // before every request that a witness or a target gets; may change the world
}

// node is one broker: a witness of others, and the owner of what is open on its log.
type node struct {
	id          ident.Broker
	incarnation int64
	standing    Standing
	down        bool
	log         ident.Log
	rec         *queuemapper.Log // as the owner knows it
	table       Table            // of the owner: what its disk says
	serving     map[ident.Generation]bool
	frames      map[ident.Frame]Opening
	end         ident.Position
	watched     map[slot]*watched
	prepares    int
	refuse      bool
}

// watched is a witness's table.
type watched struct {
	table  Table
	sealed bool
}

func newWorld(t testing.TB, brokers, groups int) *world {
	cfg := queuemapper.Config{
		Client: dial(t), Prefix: fmt.Sprintf("/test%d", prefixes.Add(1)), Groups: groups,
		Logger: slog.New(slog.DiscardHandler), MaxOps: embedded.MaxOps, MaxBytes: embedded.MaxBytes,
	}
	w := &world{
		t: t, cfg: cfg, store: openStore(t, cfg), brokers: make(map[ident.Broker]*node),
		acked:  make(map[ident.Partition][]int),
		stored: make(map[ident.Generation]map[ident.Partition]map[ident.Offset]int),
	}
	for id := ident.Broker(1); int(id) <= brokers; id++ {
		w.brokers[id] = &node{id: id, incarnation: 1, standing: Live, log: ident.Log{15: byte(id)}, watched: make(map[slot]*watched)}
	}
	for _, b := range w.all() {
		w.reopen(b)
	}
	var pubs []queuemapper.Publication
	all := w.all()
	for g := range w.store.Map().Groups() {
		b := all[int(g.ID)%len(all)]
		frames, err := w.prepare(b, b.log, b.rec.Epoch, []Opening{{Group: g.ID, Epoch: 1, Ceiling: queuemapper.ReserveDefault}})
		if err != nil {
			t.Fatal(err)
		}
		pubs = append(pubs, queuemapper.Publication{Group: g, Target: w.store.Map().Log(b.log), Epoch: 1, Frame: frames[0], Ceiling: queuemapper.ReserveDefault})
	}
	if err := errors.Join(w.store.Publish(t.Context(), pubs)...); err != nil {
		t.Fatal(err)
	}
	w.activate()
	return w
}

func openStore(t testing.TB, cfg queuemapper.Config) *queuemapper.Store {
	s, err := queuemapper.Open(t.Context(), cfg, "")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	t.Cleanup(func() { cancel(); <-done })
	return s
}

func (w *world) all() (out []*node) {
	for id := range w.brokers {
		out = append(out, w.brokers[id])
	}
	slices.SortFunc(out, func(a, b *node) int { return int(a.id - b.id) })
	return out
}

// createTopic makes a topic that is spread over all groups.
func (w *world) createTopic(name string, partitions int) *queuemapper.Topic {
	w.t.Helper()
	topic, err := w.store.CreateTopic(w.t.Context(), queuemapper.NewTopic{Name: name, Placements: w.store.Map().PlaceNew(ident.Topic{}, 0, int32(partitions))})
	if err != nil {
		w.t.Fatal(err)
	}
	return topic
}

func cloneTable(t Table) Table {
	out := make(Table, len(t))
	for g, s := range t {
		out[g] = slices.Clone(s)
	}
	return out
}

// reopen takes a broker's log into service (O15): the whole table to the members, the record, the map, the cut.
func (w *world) reopen(b *node) {
	w.t.Helper()
	if b.rec != nil {
		b.incarnation++
		b.watched = make(map[slot]*watched)
	}
	b.down = false
	disk := ident.LogEpoch(0)
	next := ident.LogEpoch(1)
	if b.rec != nil {
		disk, next = b.rec.Epoch, b.rec.Epoch+1
	}
	var set []queuemapper.Witness
	for _, m := range w.all() {
		if m != b && !m.down && len(set) < 2 {
			set = append(set, queuemapper.Witness{Broker: m.id, Incarnation: m.incarnation})
			m.watched[slot{b.log, next}] = &watched{table: cloneTable(b.table)}
		}
	}
	rec, err := w.store.ReopenLog(w.t.Context(), b.log, b.id, b.incarnation, disk, set)
	if err != nil {
		w.t.Fatal(err)
	}
	if rec, err = w.store.BeganLog(w.t.Context(), rec); err != nil {
		w.t.Fatal(err)
	}
	if rec.Epoch != next {
		w.t.Fatalf("log %s reopened at %d, want %d", b.log, rec.Epoch, next)
	}
	b.rec = rec
	kept := make(Table)
	for g := range w.store.Map().Groups() {
		if cur := g.Current(); cur != nil && cur.Log == b.log {
			kept[named(g, cur)] = b.table[named(g, cur)]
		}
	}
	b.table, b.serving = kept, make(map[ident.Generation]bool)
	for gen := range kept {
		b.serving[gen] = true
	}
	b.frames = make(map[ident.Frame]Opening)
	b.end += 1 << 20
}

// swap replaces the witness set of an open log (O7).
func (w *world) swap(b *node, members ...ident.Broker) {
	w.t.Helper()
	w.mu.Lock()
	defer w.mu.Unlock()
	if err := w.swapLocked(b, members); err != nil {
		w.t.Fatal(err)
	}
}

func (w *world) swapLocked(b *node, members []ident.Broker) error {
	var set []queuemapper.Witness
	for _, id := range members {
		m := w.brokers[id]
		set = append(set, queuemapper.Witness{Broker: id, Incarnation: m.incarnation})
		m.watched[slot{b.log, b.rec.Epoch}] = &watched{table: cloneTable(b.table)}
	}
	now := w.store.Map().Log(b.log)
	if now.Epoch != b.rec.Epoch {
		return queuemapper.ErrConflict
	}
	rec, err := w.store.SwapWitnesses(w.t.Context(), now, set)
	if err == nil {
		b.rec = rec
	}
	return err
}

// activate makes every owner serve what the map gives it.
func (w *world) activate() {
	w.t.Helper()
	w.mu.Lock()
	defer w.mu.Unlock()
	m := w.store.Map()
	for g := range m.Groups() {
		cur := g.Current()
		if cur == nil {
			continue
		}
		gen := named(g, cur)
		for _, b := range w.brokers {
			for old := range b.serving {
				if old.Group == g.ID && old != gen {
					delete(b.serving, old)
				}
			}
			if b.log != cur.Log || b.serving[gen] || b.down {
				continue
			}
			o, ok := b.frames[cur.Frame]
			if !ok {
				w.t.Errorf("group %d: its opening frame %s is not on log %s", g.ID, cur.Frame, b.log)
				continue
			}
			if o.Ceiling != cur.Ceiling {
				w.t.Errorf("group %d: ceiling %d in the map, %d in the log", g.ID, cur.Ceiling, o.Ceiling)
			}
			b.table[gen] = slices.Clone(o.State)
			b.serving[gen] = true
		}
	}
}

// append sends one record to a partition's owner and reports whether it was acknowledged. The owner acts on the map as
// it was when it last looked, as sleepers do.
func (w *world) append(p ident.Partition, group ident.Group) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, b := range w.all() {
		for gen := range b.serving {
			if gen.Group == group && !b.down && w.appendTo(b, gen, p) {
				return true
			}
		}
	}
	return false
}

func (w *world) appendTo(b *node, gen ident.Generation, p ident.Partition) bool {
	state := b.table[gen]
	i := slices.IndexFunc(state, func(s ident.PartitionState) bool { return s.Partition == p })
	if i < 0 {
		state = append(slices.Clone(state), ident.PartitionState{Partition: p})
		i = len(state) - 1
	} else {
		state = slices.Clone(state)
	}
	w.nextID++
	at := state[i].End
	state[i].End++
	state[i].Producers = []ident.ProducerState{{ID: 1, CoordinatorEpoch: -1, TxnStart: -1, Batches: []ident.ProducerBatch{{FirstSequence: int32(w.nextID), LastSequence: int32(w.nextID), LastOffset: at}}}}
	if w.stored[gen] == nil {
		w.stored[gen] = make(map[ident.Partition]map[ident.Offset]int)
	}
	if w.stored[gen][p] == nil {
		w.stored[gen][p] = make(map[ident.Offset]int)
	}
	w.stored[gen][p][at] = w.nextID
	b.table[gen] = state
	if !w.register(b) {
		return false
	}
	// An acknowledged record is one that was there before its offset is acknowledged: no hole.
	for o := len(w.acked[p]); o <= int(at); o++ {
		id, ok := w.recordAt(p, ident.Offset(o))
		if !ok {
			w.t.Errorf("%s: offset %d acknowledged, offset %d is nowhere", p, at, o)
		}
		w.acked[p] = append(w.acked[p], id)
	}
	return true
}

// register gives the owner's table to every member of the set that it knows.
func (w *world) register(b *node) bool {
	broken := false
	for _, m := range b.rec.Witnesses {
		n := w.brokers[m.Broker]
		t := n.watched[slot{b.log, b.rec.Epoch}]
		if n.down || n.incarnation != m.Incarnation || t == nil {
			broken = true
		} else if t.sealed {
			return false
		}
	}
	if broken { // it looks for others
		var live []ident.Broker
		for _, n := range w.all() {
			if n != b && !n.down && len(live) < 2 {
				live = append(live, n.id)
			}
		}
		if w.swapLocked(b, live) != nil {
			return false
		}
	}
	for _, m := range b.rec.Witnesses {
		w.brokers[m.Broker].watched[slot{b.log, b.rec.Epoch}].table = cloneTable(b.table)
	}
	return true
}

// recordAt finds a record by the map.
func (w *world) recordAt(p ident.Partition, o ident.Offset) (int, bool) {
	m := w.store.Map()
	run, ok := m.Locate(m.TopicByID(p.Topic), p.Index, o)
	if !ok || !run.Open && o >= run.End {
		return 0, false
	}
	id, ok := w.stored[run.Generation][p][o]
	return id, ok
}

// check is I1, I6 and I8: every acknowledged record is where the map says, the next one comes after the last
// acknowledged one, and deduplication knows it.
func (w *world) check() {
	w.t.Helper()
	w.activate()
	w.mu.Lock()
	defer w.mu.Unlock()
	m := w.store.Map()
	for p, ids := range w.acked {
		for o, id := range ids {
			if got, ok := w.recordAt(p, ident.Offset(o)); !ok || got != id {
				w.t.Errorf("I1: %s offset %d was acknowledged as record %d, the map leads to %d %v", p, o, id, got, ok)
			}
		}
		if len(ids) == 0 {
			continue
		}
		run, l, ok := m.Owner(m.TopicByID(p.Topic), p.Index)
		if !ok {
			w.t.Errorf("%s has no owner", p)
			continue
		}
		b := w.brokers[l.Host]
		state := b.table[run.Generation]
		i := slices.IndexFunc(state, func(s ident.PartitionState) bool { return s.Partition == p })
		if i < 0 || state[i].End < ident.Offset(len(ids)) {
			w.t.Errorf("I6: %s goes on at %+v, %d records were acknowledged", p, state, len(ids))
			continue
		}
		if ps := state[i].Producers; len(ps) == 0 || ps[0].Batches[0].LastOffset < ident.Offset(len(ids))-1 {
			w.t.Errorf("I8: %s: deduplication knows %+v, %d records were acknowledged", p, ps, len(ids))
		}
	}
}

// writable appends one record to every partition of a topic.
func (w *world) writable(topic *queuemapper.Topic) {
	w.t.Helper()
	for i, pl := range topic.Partitions {
		p := ident.Partition{Topic: topic.ID, Index: int32(i)}
		if !w.append(p, pl[len(pl)-1].Group) {
			w.t.Errorf("%s is not writable", p)
		}
	}
}

// kill stops a broker. Its session ends with it.
func (w *world) kill(id ident.Broker) {
	w.mu.Lock()
	defer w.mu.Unlock()
	b := w.brokers[id]
	b.down, b.standing, b.watched = true, Dead, make(map[slot]*watched)
}

func (w *world) prepare(b *node, log ident.Log, epoch ident.LogEpoch, openings []Opening) ([]ident.Frame, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	b.prepares++
	if b.down || b.refuse || b.log != log || b.rec.Epoch != epoch {
		return nil, errGone
	}
	var out []ident.Frame
	for _, o := range openings {
		b.end += 4096
		f := ident.Frame{Epoch: epoch, Position: b.end}
		b.frames[f] = o
		b.table[ident.Generation{Group: o.Group, Epoch: o.Epoch, Frame: f}] = slices.Clone(o.State)
		out = append(out, f)
	}
	if !w.register(b) { // durable and witnessed (O12)
		return nil, errGone
	}
	return out, nil
}

// Seal implements Members.
func (w *world) Seal(ctx context.Context, m queuemapper.Witness, log ident.Log, epoch ident.LogEpoch) (Table, error) {
	w.stepped()
	w.mu.Lock()
	defer w.mu.Unlock()
	n := w.brokers[m.Broker]
	t := n.watched[slot{log, epoch}]
	if n.down || n.incarnation != m.Incarnation || t == nil {
		return nil, fmt.Errorf("broker %d: %w", m.Broker, errGone)
	}
	t.sealed = true
	return cloneTable(t.table), nil
}

// Prepare implements Targets.
func (w *world) Prepare(ctx context.Context, broker ident.Broker, log ident.Log, epoch ident.LogEpoch, openings []Opening) ([]ident.Frame, error) {
	w.stepped()
	frames, err := w.prepare(w.brokers[broker], log, epoch, openings)
	return frames, err
}

func (w *world) stepped() {
	if w.step != nil {
		w.step()
	}
}

func (w *world) standing(id ident.Broker) Standing {
	w.mu.Lock()
	defer w.mu.Unlock()
	if b := w.brokers[id]; b != nil {
		return b.standing
	}
	return Unknown
}

// failover makes a controller with a store of its own; kv, if not nil, stands before its etcd.
func (w *world) failover(kv *faultKV) *Failover {
	w.t.Helper()
	cfg := w.cfg
	own := dial(w.t)
	cfg.Client = own
	if kv != nil {
		kv.KV = own.KV
		client := clientv3.NewCtxClient(context.Background())
		client.KV, client.Lease, client.Watcher = kv, own.Lease, own.Watcher
		cfg.Client = client
	}
	return w.failoverOn(openStore(w.t, cfg))
}

func (w *world) failoverOn(s *queuemapper.Store) *Failover {
	f, err := New(Config{
		Store: s, Members: w, Targets: w, Standing: w.standing, Fan: Serial{},
		Pause:  func(ctx context.Context, _ time.Duration) error { return context.Cause(ctx) },
		Logger: slog.New(slog.NewTextHandler(w.t.Output(), nil)),
	})
	if err != nil {
		w.t.Fatal(err)
	}
	return f
}

// seen waits until the brokers' store has what a controller's has.
func (w *world) seen(f *Failover) {
	w.t.Helper()
	for {
		m := w.store.Map()
		if m.Revision() >= f.store.Map().Revision() {
			return
		}
		select {
		case <-w.store.Watch(m):
		case <-w.t.Context().Done():
			w.t.Fatal("the map is not seen")
		}
	}
}

// faultKV stands before an etcd: it counts transactions, loses answers, and stops for good.
type faultKV struct {
	clientv3.KV
	before func() error // an error: the transaction is not sent
	after  func() error // an error: it was applied, and its answer is lost
}

func (kv *faultKV) Txn(ctx context.Context) clientv3.Txn {
	return etcdtest.Txn(kv.KV.Txn(ctx), func(_ []clientv3.Op, do func() (*clientv3.TxnResponse, error)) (*clientv3.TxnResponse, error) {
		if kv.before != nil {
			if err := kv.before(); err != nil {
				return nil, err
			}
		}
		resp, err := do()
		if kv.after != nil {
			if err := kv.after(); err != nil {
				return nil, err
			}
		}
		return resp, err
	})
}
