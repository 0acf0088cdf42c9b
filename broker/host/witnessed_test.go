package host

import (
	"context"
	"errors"
	"fmt"
	"net"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/skeinmq/skein/commitlog"
	"github.com/skeinmq/skein/internal/ident"
	"github.com/skeinmq/skein/internal/peer/peerpb"
	"github.com/skeinmq/skein/internal/witness"
	"github.com/skeinmq/skein/queuemapper"
	"github.com/skeinmq/skein/queuemapper/embedded"
)

// witnessBroker is a broker of which only the witness is there.
type witnessBroker struct {
	member *witness.Member
	server *grpc.Server
	conn   *grpc.ClientConn
}

func startWitness(t *testing.T, id witness.ID) *witnessBroker {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	w := &witnessBroker{member: witness.NewMember(witness.MemberConfig{ID: id}), server: grpc.NewServer()}
	peerpb.RegisterWitnessServer(w.server, witness.NewServer(w.member, nil, nil))
	go w.server.Serve(ln) // ends with stop
	if w.conn, err = grpc.NewClient(ln.Addr().String(), grpc.WithTransportCredentials(insecure.NewCredentials())); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(w.stop)
	return w
}

func (w *witnessBroker) stop() {
	w.conn.Close()
	w.server.Stop()
}

func witnessStore(t *testing.T) *queuemapper.Store {
	t.Helper()
	srv, err := embedded.Start(t.Context(), embedded.Config{Dir: filepath.Join(t.TempDir(), "etcd"), NoFsync: true})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { srv.Close() })
	store, err := queuemapper.Open(t.Context(), queuemapper.Config{Client: srv.Client(), Groups: 4}, "")
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
	for deadline := time.Now().Add(20 * time.Second); !cond(); time.Sleep(time.Millisecond) { // connections and watches are polled
		if time.Now().After(deadline) {
			t.Fatalf("never: %s", what)
		}
	}
}

// TestWitnessed takes a log into service with two witnesses, kills one of them, lets another broker come, and seals the log's
// record behind the owner's back: the map has the right set each time, and nothing is committed after the seal.
func TestWitnessed(t *testing.T) {
	store := witnessStore(t)
	brokers := map[ident.Broker]*witnessBroker{}
	var mu sync.Mutex
	register := func(id witness.ID) {
		t.Helper()
		mu.Lock()
		brokers[id.Broker] = startWitness(t, id)
		mu.Unlock()
		if err := store.RegisterBroker(t.Context(), queuemapper.Broker{ID: id.Broker, Incarnation: id.Incarnation, Internal: "by dial"}); err != nil {
			t.Fatal(err)
		}
	}
	register(witness.ID{Broker: 2, Incarnation: 1})
	register(witness.ID{Broker: 3, Incarnation: 1})
	w := NewWitnessed(WitnessedConfig{Store: store, Dial: func(b ident.Broker) (grpc.ClientConnInterface, error) {
		mu.Lock()
		defer mu.Unlock()
		if x := brokers[b]; x != nil {
			return x.conn, nil
		}
		return nil, fmt.Errorf("no broker %d", b)
	}})
	l, err := commitlog.Open(t.Context(), commitlog.Config{
		Dir: t.TempDir(), ClusterID: store.Map().Cluster().ID, FileSize: 1 << 20, MaxBlock: 128 << 10, CacheBytes: 1 << 20, Witness: w.Registrar(),
	})
	if err != nil {
		t.Fatal(err)
	}
	w.Bind(l, 1, 9)
	ctx, cancel := context.WithCancel(context.Background())
	var run sync.WaitGroup
	run.Go(func() { l.Run(ctx) })
	run.Go(func() { w.Run(ctx) })
	defer func() { cancel(); run.Wait(); l.Close() }()

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
	register(witness.ID{Broker: 4, Incarnation: 5})
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
	table, err := witness.AskSeal(t.Context(), brokers[4].conn, key, witness.ID{Broker: 4, Incarnation: 5})
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
	run.Go(func() { ForgetEnded(forget, store, brokers[4].member) })
	if _, err := store.ReopenLog(t.Context(), sealed.ID, 1, 2, sealed.Epoch, nil); err != nil {
		t.Fatal(err)
	}
	await(t, "the sealed table is forgotten", func() bool { return len(brokers[4].member.Keys()) == 0 })
	stop()
}
