package queuemapper

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// outcome of a transaction, as a label.
type outcome string

const (
	outcomeOK          outcome = "ok"
	outcomeConflict    outcome = "conflict"
	outcomeUnknown     outcome = "unknown"
	outcomeUnavailable outcome = "unavailable"
	outcomeRefused     outcome = "refused"
)

type metrics struct {
	transactions  *prometheus.CounterVec
	seconds       *prometheus.HistogramVec
	revision      prometheus.Gauge
	topics        prometheus.Gauge
	partitions    prometheus.Gauge
	brokers       prometheus.Gauge
	reloads       prometheus.Counter
	interruptions prometheus.Counter
	registrations prometheus.Counter
}

func newMetrics(reg prometheus.Registerer) *metrics {
	gauge := func(name, help string) prometheus.Gauge {
		return prometheus.NewGauge(prometheus.GaugeOpts{Name: "skein_map_" + name, Help: help})
	}
	counter := func(name, help string) prometheus.Counter {
		return prometheus.NewCounter(prometheus.CounterOpts{Name: "skein_map_" + name, Help: help})
	}
	m := &metrics{
		transactions: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "skein_map_transactions_total", Help: "Writes of the map by operation and outcome.",
		}, []string{"operation", "outcome"}),
		seconds: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "skein_map_transaction_seconds", Help: "Time from sending a write of the map to its answer.",
			Buckets: prometheus.ExponentialBuckets(0.0001, 2, 16),
		}, []string{"operation"}),
		revision:      gauge("revision", "Revision of the newest snapshot."),
		topics:        gauge("topics", "Topics in the newest snapshot."),
		partitions:    gauge("partitions", "Partitions in the newest snapshot."),
		brokers:       gauge("brokers", "Registered brokers in the newest snapshot."),
		reloads:       counter("reloads_total", "Times the whole map was read again after a compaction."),
		interruptions: counter("watch_interruptions_total", "Times the watch of the map ended with an error."),
		registrations: counter("registrations_total", "Times this broker registered itself, the first one included."),
	}
	if reg != nil {
		reg.MustRegister(m.transactions, m.seconds, m.revision, m.topics, m.partitions, m.brokers,
			m.reloads, m.interruptions, m.registrations)
	}
	return m
}

func (m *metrics) txn(operation string, o outcome, took time.Duration) {
	m.transactions.WithLabelValues(operation, string(o)).Inc()
	if took > 0 {
		m.seconds.WithLabelValues(operation).Observe(took.Seconds())
	}
}

func (m *metrics) snapshot(s *Map) {
	topics, partitions := s.Len()
	m.revision.Set(float64(s.revision))
	m.topics.Set(float64(topics))
	m.partitions.Set(float64(partitions))
	m.brokers.Set(float64(s.brokers.n))
}
