package controller

import (
	"errors"

	"github.com/prometheus/client_golang/prometheus"
)

// metrics are the controller's instruments; this file alone knows their names.
type metrics struct {
	commands    *prometheus.CounterVec
	refused     *prometheus.CounterVec
	snapshots   prometheus.Counter
	queueDepth  prometheus.Gauge
	queueLimit  prometheus.Gauge
	applyTime   prometheus.Histogram
	entryBytes  prometheus.Counter
	isLeader    prometheus.Gauge
	startedTime prometheus.Gauge
	forwarded   prometheus.Counter
	retries     prometheus.Counter
	takeovers   prometheus.Counter
}

func newMetrics(reg prometheus.Registerer) *metrics {
	m := &metrics{
		commands: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "skein_controller_commands_total", Help: "Commands applied, by kind.",
		}, []string{"kind"}),
		refused: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "skein_controller_refused_total", Help: "Commands the state machine refused, by reason.",
		}, []string{"reason"}),
		snapshots: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "skein_controller_snapshots_total", Help: "Snapshots written.",
		}),
		queueDepth: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "skein_controller_queue_depth", Help: "Commands in flight.",
		}),
		queueLimit: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "skein_controller_queue_limit", Help: "Commands that may be in flight.",
		}),
		applyTime: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "skein_controller_apply_seconds", Help: "Time from submission until a command was applied.",
			Buckets: prometheus.ExponentialBuckets(50e-6, 2, 18),
		}),
		entryBytes: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "skein_controller_entry_bytes_total", Help: "Bytes of commands submitted.",
		}),
		isLeader: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "skein_controller_active", Help: "1 on the active controller.",
		}),
		startedTime: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "skein_controller_start_seconds", Help: "Time from Run until ready.",
		}),
		forwarded: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "skein_controller_forwarded_total", Help: "Commands sent to the active controller on another broker.",
		}),
		retries: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "skein_controller_retries_total", Help: "Commands tried again, because there was no leader or its answer was lost.",
		}),
		takeovers: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "skein_controller_takeovers_total", Help: "Elections begun because the leader's process was gone, or silent for the timeout, or nobody led at the start.",
		}),
	}
	if reg != nil {
		reg.MustRegister(m.commands, m.refused, m.snapshots, m.queueDepth, m.queueLimit,
			m.applyTime, m.entryBytes, m.isLeader, m.startedTime, m.forwarded, m.retries, m.takeovers)
	}
	return m
}

func (m *metrics) applied(c *command, err error) {
	switch c.kind {
	case kindClaim:
		m.commands.WithLabelValues("claim").Inc()
	case kindBatch:
		m.commands.WithLabelValues("batch").Inc()
	default:
		m.commands.WithLabelValues("producer_ids").Inc()
	}
	switch {
	case err == nil:
	case errors.Is(err, ErrFenced):
		m.refused.WithLabelValues("fenced").Inc()
	case errors.Is(err, ErrStale):
		m.refused.WithLabelValues("stale").Inc()
	default:
		m.refused.WithLabelValues("other").Inc()
	}
}
