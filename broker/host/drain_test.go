package host

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"testing"

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
func hostOf(t *testing.T, store *queuemapper.Store, id ident.Broker, targets Targets, logger *slog.Logger) (*Host, ident.Log) {
	t.Helper()
	l, err := commitlog.Open(t.Context(), commitlog.Config{
		Dir: t.TempDir(), ClusterID: store.Map().Cluster().ID, FileSize: 1 << 20, MaxBlock: 128 << 10, CacheBytes: 1 << 20, Logger: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	var run sync.WaitGroup
	run.Go(func() { l.Run(ctx) })
	t.Cleanup(func() { cancel(); run.Wait(); l.Close() })
	h := New(t.Context(), Config{ID: id, Store: store, Targets: targets, Logger: logger})
	if err := h.TakeAll(t.Context(), []Source{{Log: l}}); err != nil {
		t.Fatal(err)
	}
	if err := store.RegisterBroker(t.Context(), queuemapper.Broker{ID: id, Incarnation: 1}); err != nil {
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
	h, _ := hostOf(t, store, 1, o, slog.New(slog.NewTextHandler(&said, nil)))
	there, to := hostOf(t, store, 2, nil, nil)
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
