package witness

import (
	"testing"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/skeinmq/skein/internal/metrictest"
)

// TestMetricNames: dashboards depend on them.
func TestMetricNames(t *testing.T) {
	reg := prometheus.NewRegistry()
	m := NewMetrics(reg)
	m.members.WithLabelValues("log")
	m.sessions.WithLabelValues("result")
	m.swaps.WithLabelValues("outcome")
	m.refused.WithLabelValues("reason")
	metrictest.Check(t, reg)
}
