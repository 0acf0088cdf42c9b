package coordinator

import (
	"github.com/prometheus/client_golang/prometheus"
)

// metrics are the coordinators' instruments; this file alone knows their names.
type metrics struct {
	batches, batchOps, failures prometheus.Counter
	commits, expired            prometheus.Counter
}

func newMetrics(reg prometheus.Registerer, c *Coordinator) *metrics {
	counter := func(name, help string) prometheus.Counter {
		return prometheus.NewCounter(prometheus.CounterOpts{Name: "skein_coordinator_" + name, Help: help})
	}
	m := &metrics{
		batches:  counter("batches_total", "Batches written to the replicated state."),
		batchOps: counter("batch_operations_total", "Operations in those batches."),
		failures: counter("write_failures_total", "Writes that failed; each makes a coordinator load its partition again."),
		commits:  counter("offset_commits_total", "Offsets committed."),
		expired:  counter("offsets_expired_total", "Offsets dropped by retention."),
	}
	if reg == nil {
		return m
	}
	reg.MustRegister(m.batches, m.batchOps, m.failures, m.commits, m.expired,
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: "skein_coordinator_queue_depth", Help: "Requests that wait for their coordinator.",
		}, func() float64 {
			n := 0
			for _, s := range c.shards {
				n += len(s.inbox)
			}
			return float64(n)
		}),
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: "skein_coordinator_loaded_partitions", Help: "Partitions of which this broker is the coordinator.",
		}, func() float64 {
			n := 0
			for _, s := range c.shards {
				if s.serving.Load() != 0 {
					n++
				}
			}
			return float64(n)
		}))
	return m
}
