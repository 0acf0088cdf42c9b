package runs

import "github.com/prometheus/client_golang/prometheus"

// metrics are the instruments of a Client.
type metrics struct {
	requests prometheus.Counter
	failures prometheus.Counter
	bytes    prometheus.Counter
	ahead    prometheus.Counter
}

// newMetrics makes the instruments; reg may be nil.
func newMetrics(reg prometheus.Registerer) *metrics {
	counter := func(name, help string) prometheus.Counter {
		return prometheus.NewCounter(prometheus.CounterOpts{Name: "skein_runs_" + name, Help: help})
	}
	m := &metrics{
		requests: counter("remote_requests_total", "Requests to other brokers for runs in their logs."),
		failures: counter("remote_failures_total", "Such requests that were not answered."),
		bytes:    counter("remote_bytes_total", "Bytes of records that were read in other brokers' logs."),
		ahead:    counter("remote_ahead_total", "Reads of such records that were answered by what was read ahead."),
	}
	if reg != nil {
		reg.MustRegister(m.requests, m.failures, m.bytes, m.ahead)
	}
	return m
}
