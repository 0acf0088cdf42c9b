package broker

import (
	"context"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"slices"
	"sync/atomic"
	"testing"

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
