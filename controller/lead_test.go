package controller

import (
	"context"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
)

// TestDeposed: a reign is over before its context ends, so that Lead does not find it a second time.
func TestDeposed(t *testing.T) {
	c := &Controller{metrics: newMetrics(prometheus.NewRegistry())}
	l := &reign{term: 7}
	var cancel context.CancelCauseFunc
	l.ctx, cancel = context.WithCancelCause(t.Context())
	l.end = func(cause error) {
		if term, leads := c.Leads(); leads {
			t.Errorf("the reign of term %d ends and is still there", term)
		}
		cancel(cause)
	}
	c.reign.Store(l)
	c.depose(l)
	if l.ctx.Err() == nil {
		t.Error("it goes on")
	}
}
