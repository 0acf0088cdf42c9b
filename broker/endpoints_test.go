package broker

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/skeinmq/skein/internal/etcdtest"
	"github.com/skeinmq/skein/internal/ident"
	"github.com/skeinmq/skein/queuemapper"
)

// TestLeaderless: while nobody leads, the map goes on naming brokers that have died. Clients are told of no dead controller, and
// operators who does not answer.
func TestLeaderless(t *testing.T) {
	var leaderless atomic.Bool
	all := startBrokers(t, 2, 1, Config{
		Leaderless: leaderless.Load,
		Silent: func(_ context.Context, who []ident.Broker) []ident.Broker {
			return slices.DeleteFunc(who, func(b ident.Broker) bool { return b != 2 })
		},
	})
	c := all[0]
	ctx, cancel := context.WithTimeout(t.Context(), enough)
	defer cancel()
	if err := c.b.store.ClaimController(ctx, queuemapper.Controller{Term: 1, Broker: 2}); err != nil {
		t.Fatal(err)
	}
	c.await(func(m *queuemapper.Map) bool { return m.Controller().Term == 1 })
	for lost, want := range map[bool]struct {
		controller int32
		state      string
	}{false: {2, "live"}, true: {1, "does not answer"}} {
		leaderless.Store(lost)
		if got := c.b.controllerID(c.b.store.Map()); got != want.controller {
			t.Errorf("leaderless %v: controller %d, want %d", lost, got, want.controller)
		}
		w := httptest.NewRecorder()
		c.b.OpsHandler().ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/v1/brokers", nil))
		var views []BrokerView
		if err := json.Unmarshal(w.Body.Bytes(), &views); err != nil || len(views) != 2 {
			t.Fatalf("%s: %v", w.Body, err)
		}
		if views[0].State != "live" || views[1].State != want.state {
			t.Errorf("leaderless %v: brokers %+v, want 2 as %q", lost, views, want.state)
		}
	}
}

// meanwhileKV is an etcd in which something happens just before a write.
type meanwhileKV struct {
	clientv3.KV
	happens atomic.Pointer[func()]
}

func (kv *meanwhileKV) Txn(ctx context.Context) clientv3.Txn {
	return etcdtest.Txn(kv.KV.Txn(ctx), func(_ []clientv3.Op, do func() (*clientv3.TxnResponse, error)) (*clientv3.TxnResponse, error) {
		if f := kv.happens.Swap(nil); f != nil {
			(*f)()
		}
		return do()
	})
}

// TestRemoveBrokerJustEnded: the active controller seals the log of a broker that has ended while an operator's request to
// remove it is under way. That is no reason to refuse.
func TestRemoveBrokerJustEnded(t *testing.T) {
	kv := &meanwhileKV{KV: etcd.Client().KV}
	all := startBrokersOn(t, 2, 1, Config{}, kv)
	c, gone := all[0], all[1].logOf(0)
	if err := all[1].stop(); err != nil {
		t.Fatal(err)
	}
	c.await(func(m *queuemapper.Map) bool { return m.Broker(2) == nil })
	seals := func() {
		m := c.b.store.Map()
		if _, err := c.b.store.SealLog(t.Context(), m.Log(gone), m.Log(c.logOf(0))); err != nil {
			t.Error(err)
		}
	}
	kv.happens.Store(&seals)
	w := httptest.NewRecorder()
	c.b.OpsHandler().ServeHTTP(w, httptest.NewRequest(http.MethodDelete, "/v1/brokers/2", nil))
	if w.Code != http.StatusOK || c.b.store.Map().Log(gone) != nil {
		t.Errorf("removed: %d %s, its log %+v", w.Code, w.Body, c.b.store.Map().Log(gone))
	}
	if kv.happens.Load() != nil {
		t.Error("nothing happened meanwhile")
	}
}

// TestMovePinned: a pinned group that an operator moves is pinned to where it came, or the balancer would take it back. One that
// was not pinned is the balancer's still.
func TestMovePinned(t *testing.T) {
	all := startBrokers(t, 2, 1, Config{})
	c, there := all[0], all[1].logOf(0)
	var groups []ident.Group
	for g := range c.b.store.Map().Groups() {
		if g.Current().Log == c.logOf(0) {
			groups = append(groups, g.ID)
		}
	}
	pinned, free := groups[0], groups[1]
	if err := c.b.store.PinGroup(t.Context(), pinned, queuemapper.Pin{Broker: 1}); err != nil {
		t.Fatal(err)
	}
	body := strings.NewReader(fmt.Sprintf(`{"groups":[%d,%d],"to":%q}`, pinned, free, there))
	w := httptest.NewRecorder()
	c.b.OpsHandler().ServeHTTP(w, httptest.NewRequest(http.MethodPost, "/v1/map/move", body))
	m := c.b.store.Map()
	for _, id := range []ident.Group{pinned, free} {
		if got := m.Group(id).Current().Log; w.Code != http.StatusOK || got != there {
			t.Errorf("group %d is at %v: %d %s", id, got, w.Code, w.Body)
		}
	}
	if pin, _ := m.Pin(pinned); pin.Broker != 2 {
		t.Errorf("group %d is pinned to broker %d", pinned, pin.Broker)
	}
	if pin, ok := m.Pin(free); ok {
		t.Errorf("group %d is pinned to broker %d", free, pin.Broker)
	}
}
