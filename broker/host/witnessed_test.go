package host

import (
	"context"
	"errors"
	"net"
	"path/filepath"
	"sync"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/skeinmq/skein/commitlog"
	"github.com/skeinmq/skein/internal/ident"
	"github.com/skeinmq/skein/internal/peer"
	"github.com/skeinmq/skein/internal/peer/peerpb"
	"github.com/skeinmq/skein/internal/witness"
	"github.com/skeinmq/skein/queuemapper"
	"github.com/skeinmq/skein/queuemapper/embedded"
)

// witnessBroker is a broker of which only the witness is there.
type witnessBroker struct {
	member *witness.Member
	addr   string
	stop   func()
}

func startWitness(t *testing.T, id witness.ID) *witnessBroker {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	w := &witnessBroker{member: witness.NewMember(witness.MemberConfig{ID: id}), addr: ln.Addr().String()}
	server, member := peer.NewServer(peerConfig(id.Broker)), witness.NewServer(w.member, nil, nil)
	scope := server.Scope()
	peerpb.RegisterWitnessServer(scope, member)
	scope.HandleWitness(member.Follow)
	ctx, cancel := context.WithCancel(context.Background())
	var run sync.WaitGroup
	run.Go(func() { server.Run(ctx, ln) })
	w.stop = func() { cancel(); run.Wait() }
	t.Cleanup(w.stop)
	return w
}

func peerConfig(b ident.Broker) peer.Config {
	return peer.Config{Self: b, Cluster: func() string { return "c" }}
}

func witnessStore(t *testing.T) *queuemapper.Store {
	t.Helper()
	return storeOf(t, 4)
}

func storeOf(t *testing.T, groups int) *queuemapper.Store {
	t.Helper()
	return storeOn(t, startEtcd(t), groups)
}

// startEtcd starts a server; it ends with the test.
func startEtcd(t *testing.T) *clientv3.Client {
	t.Helper()
	srv, err := embedded.Start(t.Context(), embedded.Config{Dir: filepath.Join(t.TempDir(), "etcd"), NoFsync: true})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { srv.Close() })
	return srv.Client()
}

// storeOn is a map that is kept fresh until the test ends.
func storeOn(t *testing.T, client *clientv3.Client, groups int) *queuemapper.Store {
	t.Helper()
	store, err := queuemapper.Open(t.Context(), queuemapper.Config{Client: client, Groups: groups}, "")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	var run sync.WaitGroup
	run.Go(func() { store.Run(ctx) })
	t.Cleanup(func() { cancel(); run.Wait() })
	return store
}

func await(t *testing.T, what string, cond func() bool) {
	t.Helper()
	for deadline := time.Now().Add(time.Minute); !cond(); time.Sleep(time.Millisecond) { // connections and watches are polled
		if time.Now().After(deadline) {
			t.Fatalf("never: %s", what)
		}
	}
}

// witnessBrokers are brokers of which only the witnesses are there, by number.
type witnessBrokers struct {
	t     *testing.T
	store *queuemapper.Store

	mu sync.Mutex
	m  map[ident.Broker]*witnessBroker
}

func (w *witnessBrokers) register(id witness.ID, rack string) {
	w.t.Helper()
	w.mu.Lock()
	w.m[id.Broker] = startWitness(w.t, id)
	w.mu.Unlock()
	if err := w.store.RegisterBroker(w.t.Context(), queuemapper.Broker{ID: id.Broker, Incarnation: id.Incarnation, Internal: "by dial", Rack: rack}); err != nil {
		w.t.Fatal(err)
	}
}

// pool is the connections of broker 1.
func (w *witnessBrokers) pool() *peer.Pool {
	p := peer.NewPool(peerConfig(1), func(b ident.Broker) (string, bool) {
		w.mu.Lock()
		defer w.mu.Unlock()
		if x := w.m[b]; x != nil {
			return x.addr, true
		}
		return "", false
	})
	w.t.Cleanup(func() { p.Close() })
	return p
}

// serve runs a log of broker 1 with its witness set, until the test ends.
func (w *witnessBrokers) serve(cfg WitnessedConfig) (*Witnessed, *commitlog.Log) {
	w.t.Helper()
	cfg.Store = w.store
	cfg.Dial = w.pool().DialWitness
	set := NewWitnessed(cfg)
	l, err := commitlog.Open(w.t.Context(), commitlog.Config{
		Dir: w.t.TempDir(), ClusterID: w.store.Map().Cluster().ID, FileSize: 1 << 20, MaxBlock: 128 << 10, CacheBytes: 1 << 20, Witness: set.Registrar(),
	})
	if err != nil {
		w.t.Fatal(err)
	}
	set.Bind(l, 1, 9)
	ctx, cancel := context.WithCancel(context.Background())
	var run sync.WaitGroup
	run.Go(func() { l.Run(ctx) })
	run.Go(func() { set.Run(ctx) })
	w.t.Cleanup(func() { cancel(); run.Wait(); l.Close() })
	return set, l
}

// TestWitnessInTheOtherRack: a log of rack a has both its witnesses there, as there was nothing else when it was taken into
// service; a broker of rack b comes, and takes the place of one.
func TestWitnessInTheOtherRack(t *testing.T) {
	store := witnessStore(t)
	brokers := witnessBrokers{t: t, store: store, m: map[ident.Broker]*witnessBroker{}}
	brokers.register(witness.ID{Broker: 2, Incarnation: 1}, "a")
	brokers.register(witness.ID{Broker: 3, Incarnation: 1}, "a")
	w, l := brokers.serve(WitnessedConfig{Rack: "a", Better: 100 * time.Millisecond})
	h := New(t.Context(), Config{ID: 1, Store: store, Rack: "a"})
	rec, err := h.Take(t.Context(), Source{Log: l, Witnesses: w})
	if err != nil || len(rec.Witnesses) != 2 {
		t.Fatalf("take: %+v, %v", rec, err)
	}
	brokers.register(witness.ID{Broker: 4, Incarnation: 1}, "b")
	await(t, "broker 4 is a witness, beside one other", func() bool {
		s := store.Map().Log(rec.ID).Witnesses
		return len(s) == 2 && s[1].Broker == 4
	})
	if _, err := h.Prepare(t.Context(), l.Recovered().ID, rec.Epoch, []commitlog.Opening{{Group: 0, Epoch: 1}}); err != nil {
		t.Fatal(err)
	}
}

// TestWitnessed takes a log into service with two witnesses, kills one of them, lets another broker come, and seals the log's
// record behind the owner's back: the map has the right set each time, and nothing is committed after the seal.
func TestWitnessed(t *testing.T) {
	store := witnessStore(t)
	all := witnessBrokers{t: t, store: store, m: map[ident.Broker]*witnessBroker{}}
	brokers := all.m
	all.register(witness.ID{Broker: 2, Incarnation: 1}, "")
	all.register(witness.ID{Broker: 3, Incarnation: 1}, "")
	w, l := all.serve(WitnessedConfig{})
	h := New(t.Context(), Config{ID: 1, Store: store})
	rec, err := h.Take(t.Context(), Source{Log: l, Witnesses: w})
	if err != nil || len(rec.Witnesses) != 2 || rec.Begun != rec.Epoch {
		t.Fatalf("take: %+v, %v", rec, err)
	}
	prepare := func(g ident.Group) error {
		_, err := h.Prepare(t.Context(), l.Recovered().ID, rec.Epoch, []commitlog.Opening{{Group: g, Epoch: 1}})
		return err
	}
	if err := prepare(0); err != nil {
		t.Fatal(err)
	}
	set := func() []queuemapper.Witness { return store.Map().Log(rec.ID).Witnesses }
	brokers[2].stop()
	if err := prepare(1); err != nil {
		t.Fatal(err)
	}
	all.register(witness.ID{Broker: 4, Incarnation: 5}, "")
	await(t, "broker 4 is a witness", func() bool {
		s := set()
		return len(s) == 2 && s[0].Broker == 3 && s[1] == queuemapper.Witness{Broker: 4, Incarnation: 5}
	})
	if err := prepare(2); err != nil {
		t.Fatal(err)
	}

	forget, stop := context.WithCancel(t.Context())
	defer stop()
	key := witness.Key{Log: rec.ID, Epoch: rec.Epoch}
	sealed, err := store.SealLog(t.Context(), store.Map().Log(rec.ID))
	if err != nil {
		t.Fatal(err)
	}
	conn, err := all.pool().Conn(4)
	if err != nil {
		t.Fatal(err)
	}
	table, err := witness.AskSeal(t.Context(), conn, key, witness.ID{Broker: 4, Incarnation: 5})
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	for _, err := range table.Generations() {
		if n++; err != nil {
			t.Fatal(err)
		}
	}
	if n != 3 {
		t.Errorf("%d generations in the table, want those of three groups", n)
	}
	if err := prepare(3); !errors.Is(err, commitlog.ErrFenced) {
		t.Errorf("prepare after the seal: %v", err)
	}
	await(t, "the log is fenced", func() bool { return errors.Is(l.Err(), commitlog.ErrFenced) })
	var run sync.WaitGroup
	defer run.Wait()
	defer stop()
	run.Go(func() { ForgetEnded(forget, store, brokers[4].member) })
	if _, err := store.ReopenLog(t.Context(), sealed.ID, 1, 2, sealed.Epoch, nil); err != nil {
		t.Fatal(err)
	}
	await(t, "the sealed table is forgotten", func() bool { return len(brokers[4].member.Keys()) == 0 })
	stop()
}
