package broker

import (
	"testing"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/skeinmq/skein/internal/metrictest"
)

// TestMetricNames: dashboards depend on them.
func TestMetricNames(t *testing.T) {
	reg := prometheus.NewRegistry()
	startCluster(t, 1, Config{Registerer: reg})
	metrictest.Check(t, reg)
}
