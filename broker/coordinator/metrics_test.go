package coordinator

import (
	"testing"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/skeinmq/skein/internal/metrictest"
)

// TestMetricNames: dashboards depend on them.
func TestMetricNames(t *testing.T) {
	reg := prometheus.NewRegistry()
	newMetrics(reg, New(Config{}))
	metrictest.Check(t, reg)
}
