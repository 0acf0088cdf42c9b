package queuemapper

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"go.etcd.io/etcd/api/v3/mvccpb"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/skeinmq/skein/internal/etcdtest"
	"github.com/skeinmq/skein/internal/ident"
	"github.com/skeinmq/skein/queuemapper/embedded"
)

var errLost = errors.New("answer lost")

// faultKV loses the answers of transactions, or holds transactions back.
type faultKV struct {
	clientv3.KV
	mu     sync.Mutex
	lose   int           // answers to lose, after the server applied them
	hold   chan struct{} // not nil: the next transaction is answered with errLost and sent when this closes
	landed chan bool     // whether the held one succeeded
}

func (kv *faultKV) Txn(ctx context.Context) clientv3.Txn {
	kv.mu.Lock()
	defer kv.mu.Unlock()
	if kv.hold != nil {
		ctx = context.WithoutCancel(ctx)
	}
	return etcdtest.Txn(kv.KV.Txn(ctx), kv.commit)
}

func (kv *faultKV) commit(_ []clientv3.Op, do func() (*clientv3.TxnResponse, error)) (*clientv3.TxnResponse, error) {
	kv.mu.Lock()
	hold := kv.hold
	kv.hold = nil
	lose := kv.lose > 0 && hold == nil
	if lose {
		kv.lose--
	}
	kv.mu.Unlock()
	if hold != nil {
		go func() {
			<-hold
			resp, err := do()
			kv.landed <- err == nil && resp.Succeeded
		}()
		return nil, errLost
	}
	resp, err := do()
	if lose {
		return nil, errLost
	}
	return resp, err
}

// faulty opens a store whose transactions go through a faultKV.
func faulty(t *testing.T) (*Store, *faultKV) {
	cfg := testConfig(t)
	kv := &faultKV{KV: etcd.Client().KV, landed: make(chan bool, 1)}
	client := clientv3.NewCtxClient(context.Background())
	client.KV, client.Lease, client.Watcher = kv, etcd.Client().Lease, etcd.Client().Watcher
	cfg.Client = client
	return openStore(t, cfg), kv
}

func (kv *faultKV) loseNext(n int) {
	kv.mu.Lock()
	kv.lose = n
	kv.mu.Unlock()
}

// holdNext delays the next transaction until release is called, which says whether it succeeded.
func (kv *faultKV) holdNext() (release func() bool) {
	hold := make(chan struct{})
	kv.mu.Lock()
	kv.hold = hold
	kv.mu.Unlock()
	return func() bool { close(hold); return <-kv.landed }
}

// TestLostAnswersSettleThemselves: where the effect can be recognised, the caller sees none of it.
func TestLostAnswersSettleThemselves(t *testing.T) {
	s, kv := faulty(t)
	kv.loseNext(1)
	l := mustReopen(t, s, logID(1), 1, 0)
	if l.Epoch != 1 {
		t.Errorf("log epoch %d after a lost answer, want 1: it was written once", l.Epoch)
	}
	kv.loseNext(2)
	topic := mustCreate(t, s, "a", 0)
	if s.Map().Topic("a") != topic {
		t.Error("topic is not in the map")
	}
	kv.loseNext(1)
	grown, err := s.AddPartitions(t.Context(), topic, []ident.Group{1})
	if err != nil || len(grown.Partitions) != 2 {
		t.Errorf("add: %+v %v", grown, err)
	}
	kv.loseNext(1)
	if l, err = s.SealLog(t.Context(), l); err != nil || l.State != LogSealed {
		t.Errorf("seal: %+v %v", l, err)
	}
	kv.loseNext(1)
	if err := s.DeleteTopic(t.Context(), "a", topic.ID); err != nil {
		t.Errorf("delete: %v", err)
	}
	kv.loseNext(1)
	n := 0
	if err := s.SetDynamic(t.Context(), "broker", "", func(map[string]string) (map[string]string, error) {
		n++
		return map[string]string{"k": "v"}, nil
	}); err != nil || s.Map().Dynamic("broker", "")["k"] != "v" {
		t.Errorf("dynamic: %v", err)
	}
	// Somebody else's topic of that name is not taken for our own.
	mustCreate(t, s, "b", 0)
	kv.loseNext(1)
	if _, err := s.CreateTopic(t.Context(), NewTopic{Name: "b"}); !errors.Is(err, ErrExists) {
		t.Errorf("create over another topic with a lost answer: %v", err)
	}
}

// TestUnknownPublishThatLanded: the answer is lost after the server applied it; Touch says that it won.
func TestUnknownPublishThatLanded(t *testing.T) {
	s, kv := faulty(t)
	a, b := mustReopen(t, s, logID(1), 1, 0), mustReopen(t, s, logID(2), 1, 0)
	firstGenerations(t, s, a)
	pub := next(s, 3, b, nil)
	kv.loseNext(1)
	if errs := s.Publish(t.Context(), []Publication{pub}); !errors.Is(errs[0], ErrUnknown) {
		t.Fatalf("publish: %v", errs[0])
	}
	g, err := s.Touch(t.Context(), 3)
	if err != nil || g.Current().Epoch != pub.Epoch || g.Current().Log != b.ID {
		t.Errorf("touch: %+v %v", g, err)
	}
	if s.Map().Group(3) != g {
		t.Error("the snapshot has another record")
	}
}

// settledPublish plays O18: a publication is on its way, its answer is lost, the owner settles
// it, and then it arrives. It reports whether it still landed after it was settled.
func settledPublish(t *testing.T) bool {
	s, kv := faulty(t)
	a, b := mustReopen(t, s, logID(1), 1, 0), mustReopen(t, s, logID(2), 1, 0)
	firstGenerations(t, s, a)
	release := kv.holdNext()
	if errs := s.Publish(t.Context(), []Publication{next(s, 3, b, nil)}); !errors.Is(errs[0], ErrUnknown) {
		t.Fatalf("publish: %v", errs[0])
	}
	g, err := s.Touch(t.Context(), 3)
	if err != nil || g.Current().Log != a.ID {
		t.Fatalf("touch: %+v %v", g, err)
	}
	return release()
}

// latePublish plays O13 without its target: a publication is prepared, then the log that
// change returns is no longer what it was prepared with. It reports whether it still landed.
func latePublish(t *testing.T, change func(s *Store, source, target *Log)) bool {
	s, _ := faulty(t)
	a, b := mustReopen(t, s, logID(1), 1, 0), mustReopen(t, s, logID(2), 2, 0)
	firstGenerations(t, s, a)
	pub := next(s, 3, b, nil)
	pub.Source, pub.Target = a, b
	change(s, a, b)
	errs := s.Publish(t.Context(), []Publication{pub})
	if errs[0] != nil && !errors.Is(errs[0], ErrConflict) {
		t.Fatalf("publish: %v", errs[0])
	}
	return errs[0] == nil
}

// reopenTarget: the target crashed, was sealed and came back: it has dropped the frame (O3, O13).
func reopenTarget(t *testing.T) func(s *Store, source, target *Log) {
	return func(s *Store, _, target *Log) {
		if _, err := s.SealLog(t.Context(), target); err != nil {
			t.Fatal(err)
		}
		mustReopen(t, s, target.ID, 2, target.Epoch)
	}
}

// reopenSource: the mover crashed and came back at a new epoch, and appends again (O15).
func reopenSource(t *testing.T) func(s *Store, source, target *Log) {
	return func(s *Store, source, _ *Log) { mustReopen(t, s, source.ID, 1, source.Epoch) }
}

func TestPublishRules(t *testing.T) {
	if settledPublish(t) {
		t.Error("O18: a publication landed after it was settled")
	}
	if latePublish(t, reopenTarget(t)) {
		t.Error("O13: a publication landed on a target that was reopened")
	}
	if latePublish(t, reopenSource(t)) {
		t.Error("O13: a publication landed although its source was reopened")
	}
	sealSource := func(s *Store, source, _ *Log) {
		if _, err := s.SealLog(t.Context(), source); err != nil {
			t.Fatal(err)
		}
	}
	if latePublish(t, sealSource) {
		t.Error("O13: a planned move landed although its source was sealed")
	}
	nothing := func(*Store, *Log, *Log) {}
	if !latePublish(t, nothing) {
		t.Error("an undisturbed publication did not land")
	}
}

// TestPublishKeepsTheRest: one conflict in a transaction of many costs only itself.
func TestPublishKeepsTheRest(t *testing.T) {
	s := openStore(t, testConfig(t))
	a, b := mustReopen(t, s, logID(1), 1, 0), mustReopen(t, s, logID(2), 1, 0)
	firstGenerations(t, s, a)
	var pubs []Publication
	for g := range s.Map().Groups() {
		pubs = append(pubs, next(s, g.ID, b, nil))
	}
	stale := pubs[2]
	if _, err := s.Touch(t.Context(), 2); err != nil {
		t.Fatal(err)
	}
	bad := pubs[5]
	bad.Epoch = 1
	pubs[5] = bad
	for i, err := range s.Publish(t.Context(), append(pubs, pubs[0])) {
		switch {
		case i == 2 && !errors.Is(err, ErrConflict),
			(i == 5 || i == len(pubs)) && !errors.Is(err, ErrInvalid),
			i != 2 && i != 5 && i != len(pubs) && err != nil:
			t.Errorf("publication %d: %v", i, err)
		}
	}
	if got := s.Map().Group(2); got.Current().Log != stale.Source.ID {
		t.Errorf("group 2 moved: %+v", got)
	}
}

// TestRaces: two stores publish every group at the same time; exactly one of them wins each.
func TestRaces(t *testing.T) {
	s := openStore(t, testConfig(t))
	other := openStore(t, s.cfg)
	a, b := mustReopen(t, s, logID(1), 1, 0), mustReopen(t, s, logID(2), 1, 0)
	firstGenerations(t, s, a)
	if err := other.caughtUp(t.Context(), s.Map().Revision()); err != nil {
		t.Fatal(err)
	}
	for range 20 {
		stores := []*Store{s, other}
		results := make([][]error, 2)
		var wg sync.WaitGroup
		for i, st := range stores {
			wg.Go(func() {
				for g := range st.Map().Groups() { // one by one, or the first batch takes all
					results[i] = append(results[i], st.Publish(t.Context(), []Publication{next(st, g.ID, []*Log{a, b}[i], nil)})...)
				}
			})
		}
		wg.Wait()
		won := 0
		for _, errs := range results {
			for _, err := range errs {
				if err == nil {
					won++
				} else if !errors.Is(err, ErrConflict) {
					t.Fatal(err)
				}
			}
		}
		if won < 8 {
			t.Fatalf("%d publications won, want one a group at least", won)
		}
		newest := max(s.Map().Revision(), other.Map().Revision())
		if err := errors.Join(s.caughtUp(t.Context(), newest), other.caughtUp(t.Context(), newest)); err != nil {
			t.Fatal(err)
		}
		for g := range s.Map().Groups() {
			if o := other.Map().Group(g.ID); o.Revision != g.Revision || o.Current().Epoch != g.Current().Epoch {
				t.Fatalf("the stores differ in group %d", g.ID)
			}
		}
	}
}

func TestSplitPartition(t *testing.T) {
	s, kv := faulty(t)
	a, b := mustReopen(t, s, logID(1), 1, 0), mustReopen(t, s, logID(2), 1, 0)
	firstGenerations(t, s, a, b)
	topic := mustCreate(t, s, "hot", 0, 0)
	m := s.Map()
	prepared := next(s, 0, b, nil) // of the source, with the partition still in it
	leaves := ident.Partition{Topic: topic.ID, Index: 1}
	sp := Split{Topic: topic, Index: 1, Source: next(s, 0, m.Log(m.Group(0).Current().Log), map[ident.Partition]ident.Offset{leaves: 55}), Target: next(s, 1, b, nil)}
	low := sp
	low.Target.Epoch = m.Group(0).Current().Epoch
	if err := s.SplitPartition(t.Context(), low); !errors.Is(err, ErrInvalid) { // O20
		t.Errorf("split to a lower epoch: %v", err)
	}
	kv.loseNext(1)
	if err := s.SplitPartition(t.Context(), sp); !errors.Is(err, ErrUnknown) {
		t.Fatalf("split: %v", err)
	}
	if _, err := s.Touch(t.Context(), 0); err != nil {
		t.Fatal(err)
	}
	m = s.Map()
	runs := m.Runs(m.Topic("hot"), 1)
	if len(runs) != 2 || runs[0].End != 55 || runs[0].Generation.Group != 0 || runs[1].Start != 55 || runs[1].Generation.Group != 1 || !runs[1].Open {
		t.Errorf("runs: %+v", runs)
	}
	if err := s.SplitPartition(t.Context(), sp); !errors.Is(err, ErrConflict) {
		t.Errorf("second split: %v", err)
	}
	if errs := s.Publish(t.Context(), []Publication{prepared}); !errors.Is(errs[0], ErrConflict) {
		t.Errorf("a publication prepared before the split: %v", errs[0])
	}
}

func TestTrimGenerations(t *testing.T) {
	s := openStore(t, testConfig(t))
	a, b := mustReopen(t, s, logID(1), 1, 0), mustReopen(t, s, logID(2), 1, 0)
	firstGenerations(t, s, a)
	topic := mustCreate(t, s, "x", 0)
	gone := mustCreate(t, s, "gone", 0)
	ends := func(o ident.Offset) map[ident.Partition]ident.Offset {
		return map[ident.Partition]ident.Offset{{Topic: topic.ID}: o, {Topic: gone.ID}: o}
	}
	mustPublish(t, s, next(s, 0, b, ends(10)))
	mustPublish(t, s, next(s, 0, a, ends(10)))
	mustPublish(t, s, next(s, 0, b, ends(30)))
	if err := s.DeleteTopic(t.Context(), "gone", gone.ID); err != nil {
		t.Fatal(err)
	}
	old := s.Map().Group(0)
	g, err := s.TrimGenerations(t.Context(), old, 3)
	if err != nil || len(g.Generations) != 2 || len(g.Starts) != 1 {
		t.Fatalf("trim: %+v %v", g, err)
	}
	m := s.Map()
	if runs := m.Runs(topic, 0); len(runs) != 2 || runs[0].Start != 10 || runs[0].End != 30 {
		t.Errorf("runs: %+v", runs)
	}
	if _, ok := m.Locate(topic, 0, 9); ok {
		t.Error("a trimmed offset was located")
	}
	if _, err := s.TrimGenerations(t.Context(), old, 4); !errors.Is(err, ErrConflict) {
		t.Errorf("trim of an old record: %v", err)
	}
}

func TestMarkLost(t *testing.T) {
	s := openStore(t, testConfig(t))
	a, b := mustReopen(t, s, logID(1), 1, 0), mustReopen(t, s, logID(2), 1, 0)
	firstGenerations(t, s, a)
	p := ident.Partition{Topic: mustCreate(t, s, "x", 0).ID}
	mustPublish(t, s, next(s, 0, b, map[ident.Partition]ident.Offset{p: 100}))
	g := s.Map().Group(0)
	for _, rs := range [][]Range{{{90, 100}}, {{10, 20}, {15, 30}}, {{30, 40}}} {
		var err error
		if g, err = s.MarkLost(t.Context(), g, 1, map[ident.Partition][]Range{p: rs}); err != nil {
			t.Fatal(err)
		}
	}
	if got := s.Map().Group(0).Generations[0]; !slices.Equal(got.Lost[p], []Range{{10, 40}, {90, 100}}) || got.Ends[p] != 100 {
		t.Errorf("lost %v, ends %v", got.Lost, got.Ends)
	}
	for _, r := range []Range{{90, 101}, {5, 5}, {-1, 3}} {
		if _, err := s.MarkLost(t.Context(), g, 1, map[ident.Partition][]Range{p: {r}}); !errors.Is(err, ErrInvalid) {
			t.Errorf("range %v: %v", r, err)
		}
	}
	if _, err := s.MarkLost(t.Context(), g, 2, nil); !errors.Is(err, ErrInvalid) {
		t.Errorf("open generation: %v", err)
	}
	m := s.Map()
	for _, c := range []struct{ o, from, to ident.Offset }{
		{0, 0, 10}, {9, 9, 10}, {10, 40, 90}, {39, 40, 90}, {40, 40, 90}, {89, 89, 90}, {90, 100, 100}, {99, 100, 100}, {100, 100, noEnd}, {150, 150, noEnd},
	} {
		run, ok := m.Locate(m.Topic("x"), 0, c.o)
		if from, to := m.Readable(p, run, c.o); !ok || from != c.from || to != c.to {
			t.Errorf("at %d a reader goes on at %d up to %d, want %d up to %d", c.o, from, to, c.from, c.to)
		}
	}
}

// TestCompactionUnderASleepingWatcher: a store that was not watching reads the map again.
func TestCompactionUnderASleepingWatcher(t *testing.T) {
	writer := openStore(t, testConfig(t))
	sleeper, err := Open(t.Context(), writer.cfg, "")
	if err != nil {
		t.Fatal(err)
	}
	mustCreate(t, writer, "old", 0)
	topic := mustCreate(t, writer, "a", 0)
	for i := range 5 {
		if topic, err = writer.SetTopicConfigs(t.Context(), topic, map[string]string{"i": string(rune('0' + i))}); err != nil {
			t.Fatal(err)
		}
	}
	mustCreate(t, writer, "b", 1)
	if _, err := etcd.Client().Compact(t.Context(), writer.Map().Revision()); err != nil {
		t.Fatal(err)
	}
	runStore(t, sleeper)
	waitMap(t, sleeper, func(m *Map) bool { return m.Topic("b") != nil && m.Topic("a").Configs["i"] == "4" })
	mustCreate(t, writer, "c", 1)
	waitMap(t, sleeper, func(m *Map) bool { return m.Topic("c") != nil })
}

// TestNeverBack: a store that answers with an older revision than before, as one restored from
// a backup does, does not take the snapshot back.
func TestNeverBack(t *testing.T) {
	s, err := Open(t.Context(), testConfig(t), "")
	if err != nil {
		t.Fatal(err)
	}
	ahead := s.Map().edit().done(s.Map().Revision() + 1e6)
	s.current.Store(ahead)
	if err := s.reload(t.Context()); !errors.Is(err, errWentBack) {
		t.Errorf("reload: %v", err)
	}
	if err := s.follow(t.Context()); !errors.Is(err, errWentBack) {
		t.Errorf("watch: %v", err)
	}
	late := clientv3.WatchResponse{Events: []*clientv3.Event{{Kv: &mvccpb.KeyValue{
		Key: []byte(s.key(keyTopic("late"))), Value: encodeTopic(&Topic{}), ModRevision: 5,
	}}}}
	if err := s.apply(&late); err != nil || s.Map() != ahead {
		t.Errorf("a late event was applied: %v", err)
	}
}

// TestDamagedValue: a value that cannot be read ends Run, and the map stays as it was.
func TestDamagedValue(t *testing.T) {
	for _, test := range []struct {
		value []byte
		want  error
	}{
		{[]byte("garbage"), ErrCorrupt},
		{[]byte{kindTopic, formatVersion + 1, 0, 0, 0, 0, 0}, ErrVersion},
	} {
		s, err := Open(t.Context(), testConfig(t), "")
		if err != nil {
			t.Fatal(err)
		}
		before := s.Map()
		if _, err := etcd.Client().Put(t.Context(), s.key(keyTopic("x")), string(test.value)); err != nil {
			t.Fatal(err)
		}
		if err := s.Run(t.Context()); !errors.Is(err, test.want) {
			t.Errorf("run: %v, want %v", err, test.want)
		}
		if s.Map() != before {
			t.Error("the map changed")
		}
		if _, err := Open(t.Context(), s.cfg, ""); !errors.Is(err, test.want) {
			t.Errorf("open: %v, want %v", err, test.want)
		}
	}
}

// stableAddr finds a free port below those that the system hands out by itself: while the
// server is away, nobody else gets it, and a client that dials it cannot meet itself there.
func stableAddr(t *testing.T) string {
	for range 100 {
		addr := fmt.Sprintf("127.0.0.1:%d", 23000+rand.IntN(5000))
		if ln, err := net.Listen("tcp", addr); err == nil {
			ln.Close()
			return addr
		}
	}
	t.Fatal("no free port")
	return ""
}

// TestServerRestart: the server goes away and comes back, on a port, under a running store.
func TestServerRestart(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "etcd")
	addr := stableAddr(t)
	start := func() *embedded.Server {
		srv, err := embedded.Start(t.Context(), embedded.Config{Dir: dir, Listen: addr})
		if err != nil {
			t.Fatal(err)
		}
		return srv
	}
	srv := start()
	client, err := clientv3.New(clientv3.Config{Endpoints: []string{addr}, BackoffWaitBetween: 10 * time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { client.Close() })
	cfg := testConfig(t)
	cfg.Client = client
	s := openStore(t, cfg)
	a := mustReopen(t, s, logID(1), 1, 0)
	firstGenerations(t, s, a)
	mustCreate(t, s, "a", 0)
	if err := s.RegisterBroker(t.Context(), Broker{ID: 1, Incarnation: 1}); err != nil {
		t.Fatal(err)
	}
	before := s.Map()
	hasty, err := Open(t.Context(), cfg, "")
	if err != nil {
		t.Fatal(err)
	}
	hasty.cfg.Timeout = time.Second // from now on, and nothing but the outage is to meet it
	srv.Close()

	create := func() error {
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		_, err := hasty.CreateTopic(ctx, NewTopic{Name: "b", Placements: []ident.Group{0}})
		return err
	}
	for !hasty.doubt.Load() { // on a busy machine the time may be over before anything is sent
		if err := create(); !errors.Is(err, ErrUnknown) && !errors.Is(err, ErrUnavailable) {
			t.Fatalf("write without a server: %v", err)
		}
	}
	if errs := hasty.Publish(t.Context(), []Publication{next(hasty, 0, a, nil)}); !errors.Is(errs[0], ErrUnavailable) {
		t.Errorf("publish in an outage: %v", errs[0])
	}
	if s.Map() != before {
		t.Error("the map changed without a server")
	}
	srv = start()
	defer srv.Close()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	for {
		_, err = s.CreateTopic(ctx, NewTopic{Name: "c", Placements: []ident.Group{0}})
		if !errors.Is(err, ErrUnavailable) || ctx.Err() != nil {
			break
		}
	}
	if err != nil && !errors.Is(err, ErrExists) {
		t.Fatal(err)
	}
	waitMap(t, s, func(m *Map) bool { return m.Topic("c") != nil && m.Broker(1) != nil })
}

// TestPauseAndRand: a store settles lost answers by the pause it was given, takes ids from the randomness it was given,
// and sees what others wrote when told to.
func TestPauseAndRand(t *testing.T) {
	s, kv := faulty(t)
	var pauses []time.Duration
	s.cfg.Pause = func(_ context.Context, d time.Duration) error { pauses = append(pauses, d); return nil }
	s.cfg.Rand = bytes.NewReader(bytes.Repeat([]byte{7}, 64))
	kv.loseNext(3)
	l := mustReopen(t, s, logID(1), 1, 0)
	if want := []time.Duration{10 * time.Millisecond, 20 * time.Millisecond, 40 * time.Millisecond}; !slices.Equal(pauses, want) {
		t.Errorf("paused %v, want %v", pauses, want)
	}
	if topic := mustCreate(t, s, "a", 0); topic.ID != (ident.Topic(bytes.Repeat([]byte{7}, 16))) {
		t.Errorf("topic id %v is not of the given randomness", topic.ID)
	}
	end := errors.New("the end")
	s.cfg.Pause = func(context.Context, time.Duration) error { return end }
	kv.loseNext(1)
	if _, err := s.SealLog(t.Context(), l); !errors.Is(err, ErrUnknown) || !errors.Is(err, end) {
		t.Errorf("seal: %v, want that its outcome is unknown, and why", err)
	}

	other, err := Open(t.Context(), s.cfg, "")
	if err != nil {
		t.Fatal(err)
	}
	mustReopen(t, s, logID(2), 1, 0)
	if err := other.Refresh(t.Context()); err != nil || other.Map().Log(logID(2)) == nil {
		t.Errorf("refresh: %v, the map has %v", err, other.Map().Log(logID(2)))
	}
}
