package queuemapper

import (
	"testing"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/skeinmq/skein/internal/metrictest"
)

// TestMetricNames: dashboards depend on them.
func TestMetricNames(t *testing.T) {
	reg := prometheus.NewRegistry()
	m := newMetrics(reg)
	m.txn("publish", outcomeOK, 1)
	metrictest.Check(t, reg)
}
