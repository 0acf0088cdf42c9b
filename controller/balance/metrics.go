package balance

import "github.com/prometheus/client_golang/prometheus"

type metrics struct {
	moves    *prometheus.CounterVec
	failures prometheus.Counter
	held     prometheus.Gauge
	splits   prometheus.Gauge
	split    prometheus.Counter
	full     prometheus.Gauge
	worst    prometheus.Gauge
}

func newMetrics(reg prometheus.Registerer) *metrics {
	gauge := func(name, help string) prometheus.Gauge {
		return prometheus.NewGauge(prometheus.GaugeOpts{Name: "skein_balancer_" + name, Help: help})
	}
	m := &metrics{
		moves: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "skein_balancer_moves_total", Help: "Groups that moved because the balancer asked for it, by cause.",
		}, []string{"cause"}),
		failures: prometheus.NewCounter(prometheus.CounterOpts{Name: "skein_balancer_failures_total", Help: "Groups that did not move, and partitions that were not split off, although the balancer asked for it."}),
		split:    prometheus.NewCounter(prometheus.CounterOpts{Name: "skein_balancer_splits_total", Help: "Partitions that were split off their group because the balancer asked for it."}),
		full:     gauge("full_brokers", "Brokers that get no more groups because their disk is nearly full."),
		held:     gauge("held", "1 while something keeps the balancer from moving groups: GET /v1/balance says what."),
		splits:   gauge("splits_wanted", "Partitions that shall be split off their group now."),
		worst:    gauge("load_max", "Load of the log with most of it, 1 being the mean."),
	}
	if reg != nil {
		reg.MustRegister(m.moves, m.failures, m.held, m.splits, m.split, m.full, m.worst)
	}
	return m
}
