package host

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"testing"
	"time"

	"github.com/skeinmq/skein/commitlog"
	"github.com/skeinmq/skein/internal/ident"
	"github.com/skeinmq/skein/queuemapper"
)

// oneTarget is another broker, in this process.
type oneTarget struct {
	there *Host
	greet func() // each time when it is greeted; may be nil
}

func (o *oneTarget) Prepare(ctx context.Context, target *queuemapper.Log, openings []commitlog.Opening) ([]ident.Frame, error) {
	return o.there.Prepare(ctx, target.ID, target.Epoch, openings)
}

func (o *oneTarget) AwaitMap(context.Context, ident.Broker, int64) error {
	if o.greet != nil {
		o.greet()
	}
	return nil
}

// hostOf takes a fresh log into service; it ends with the test.
func hostOf(t *testing.T, store *queuemapper.Store, cfg Config, witness commitlog.Registrar) (*Host, ident.Log) {
	t.Helper()
	l, err := commitlog.Open(t.Context(), commitlog.Config{
		Dir: t.TempDir(), ClusterID: store.Map().Cluster().ID, FileSize: 1 << 20, MaxBlock: 128 << 10, CacheBytes: 1 << 20, Logger: slog.New(slog.DiscardHandler),
		Witness: witness,
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	var run sync.WaitGroup
	run.Go(func() { l.Run(ctx) })
	t.Cleanup(func() { cancel(); run.Wait(); l.Close() })
	cfg.Store = store
	h := New(t.Context(), cfg)
	if err := h.TakeAll(t.Context(), []Source{{Log: l}}); err != nil {
		t.Fatal(err)
	}
	if err := store.RegisterBroker(t.Context(), queuemapper.Broker{ID: cfg.ID, Incarnation: 1}); err != nil {
		t.Fatal(err)
	}
	return h, l.Recovered().ID
}

// TestDrainBesideTheBalancer: the balancer moves a group that a drain is just about to move. The others of the batch move all the
// same, the target is not given up, and nobody is warned.
func TestDrainBesideTheBalancer(t *testing.T) {
	store := witnessStore(t)
	var said bytes.Buffer
	o := &oneTarget{}
	h, _ := hostOf(t, store, Config{ID: 1, Targets: o, Logger: slog.New(slog.NewTextHandler(&said, nil))}, nil)
	there, to := hostOf(t, store, Config{ID: 2}, nil)
	o.there = there
	if n := h.Owns(store.Map()); n != 4 {
		t.Fatalf("it owns %d groups", n)
	}
	greeted := 0
	var balancer error
	o.greet = func() {
		if greeted++; greeted == 1 {
			balancer = h.Move(t.Context(), []ident.Group{1}, to)[0].Err
		}
	}
	moved := h.Move(t.Context(), []ident.Group{0, 1}, to)
	if balancer != nil || moved[0].Err != nil || !errors.Is(moved[1].Err, ErrElsewhere) {
		t.Errorf("moved by the balancer: %v; then %v", balancer, moved)
	}
	greeted = 0
	o.greet = func() {
		if greeted++; greeted == 1 {
			balancer = h.Move(t.Context(), []ident.Group{2}, to)[0].Err
		}
	}
	if err := errors.Join(h.Drain(t.Context()), balancer); err != nil {
		t.Error(err)
	}
	if n := fmt.Sprint(h.Owns(store.Map()), there.Owns(store.Map())); n != "0 4" {
		t.Errorf("after the drain they own %s", n)
	}
	if bytes.Contains(said.Bytes(), []byte("level=WARN")) {
		t.Errorf("it said\n%s", said.String())
	}
}

// gate is a witness set that can be made to answer nothing.
type gate struct {
	mu   sync.Mutex
	shut bool
	held []func(error)
}

func (g *gate) Active() bool { return true }

func (g *gate) Register(_ ident.Position, _ []commitlog.Update, done func(error)) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.shut {
		g.held = append(g.held, done)
		return
	}
	done(nil)
}

func (g *gate) open() {
	g.mu.Lock()
	held := g.held
	g.shut, g.held = false, nil
	g.mu.Unlock()
	for _, done := range held {
		done(nil)
	}
}

// TestMoveWithoutWitnesses: the witnesses of a log answer nothing any more. A move that is published by then is over soon, without
// the cut; the next one gives up, with every group where it was. When the witnesses are back, everything goes on.
func TestMoveWithoutWitnesses(t *testing.T) {
	store := witnessStore(t)
	g, o := &gate{}, &oneTarget{}
	h, from := hostOf(t, store, Config{ID: 1, Targets: o}, g)
	there, to := hostOf(t, store, Config{ID: 2}, nil)
	o.there = there
	g.mu.Lock()
	g.shut = true
	g.mu.Unlock()
	begun := time.Now()
	if m := h.Move(t.Context(), []ident.Group{0}, to)[0]; m.Err != nil {
		t.Fatal(m.Err)
	}
	t.Logf("the first move was over after %v", time.Since(begun).Round(time.Millisecond))
	for _, m := range h.Move(t.Context(), []ident.Group{1, 2}, to) {
		if !errors.Is(m.Err, errFreeze) {
			t.Errorf("group %d moves without witnesses: %v", m.Group, m.Err)
		}
	}
	if n := fmt.Sprint(h.Owns(store.Map()), there.Owns(store.Map())); n != "3 1" {
		t.Errorf("they own %s", n)
	}
	if took := time.Since(begun); took > time.Minute {
		t.Errorf("that took %v", took)
	}
	g.open()
	if err := h.Drain(t.Context()); err != nil {
		t.Error(err)
	}
	if n := fmt.Sprint(h.Owns(store.Map()), there.Owns(store.Map())); n != "0 4" {
		t.Errorf("after the drain they own %s", n)
	}
	if moved := there.Move(t.Context(), []ident.Group{0}, from); moved[0].Err == nil {
		t.Error("a host without targets moved a group to another broker")
	}
}

// TestFounders: brokers that form a cluster together open as many groups each, and coordinator partitions that follow one another
// have different brokers; who is alone opens them all, a while later.
func TestFounders(t *testing.T) {
	founders := []ident.Broker{3, 5, 6}
	together, alone := storeOf(t, 1024), storeOf(t, 4)
	var hosts [3]*Host
	var starting sync.WaitGroup
	for i, id := range founders {
		starting.Go(func() {
			hosts[i], _ = hostOf(t, together, Config{ID: id, Founders: founders, FoundTime: time.Minute}, nil)
		})
	}
	starting.Wait()
	m := together.Map()
	if n := fmt.Sprint(hosts[0].Owns(m), hosts[1].Owns(m), hosts[2].Owns(m)); n != "341 342 341" {
		t.Errorf("they own %s", n)
	}
	before := ident.Broker(-1)
	for p := range int32(queuemapper.CoordinatorPartitions) {
		id, _, _ := m.Coordinator(p)
		if id == before {
			t.Errorf("coordinator partitions %d and %d both have broker %d", p-1, p, id)
		}
		before = id
	}
	h, _ := hostOf(t, alone, Config{ID: 5, Founders: founders}, nil)
	if n := h.Owns(alone.Map()); n != 4 {
		t.Errorf("alone it owns %d", n)
	}
}
