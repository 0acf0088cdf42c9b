package failover

import "github.com/prometheus/client_golang/prometheus"

type metrics struct {
	logs       *prometheus.CounterVec
	groups     prometheus.Counter
	partitions prometheus.Counter
	phases     *prometheus.HistogramVec
	refusals   prometheus.Counter
	strangers  prometheus.Counter
	waiting    prometheus.Gauge
	active     prometheus.Gauge
}

func newMetrics(reg prometheus.Registerer) *metrics {
	counter := func(name, help string) prometheus.Counter {
		return prometheus.NewCounter(prometheus.CounterOpts{Name: "skein_failover_" + name, Help: help})
	}
	gauge := func(name, help string) prometheus.Gauge {
		return prometheus.NewGauge(prometheus.GaugeOpts{Name: "skein_failover_" + name, Help: help})
	}
	m := &metrics{
		logs: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "skein_failover_logs_total", Help: "Logs that this controller tried to fail over, by outcome.",
		}, []string{"outcome"}),
		groups:     counter("groups_total", "Placement groups opened on another log."),
		partitions: counter("partitions_total", "Partitions in the groups opened on another log."),
		phases: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "skein_failover_phase_seconds", Help: "Time that the phases of a failover took.",
			Buckets: prometheus.ExponentialBuckets(0.001, 2, 14),
		}, []string{"phase"}),
		refusals:  counter("refusals_total", "Requests to prepare groups that a target failed."),
		strangers: counter("unknown_generations_total", "Generations that the map names and a witness's table does not have: never, if all goes well."),
		waiting:   gauge("waiting_logs", "Sealed logs with groups that wait for their host, as no witness knows their table."),
		active:    gauge("active", "1 while this broker is the active controller."),
	}
	if reg != nil {
		reg.MustRegister(m.logs, m.groups, m.partitions, m.phases, m.refusals, m.strangers, m.waiting, m.active)
	}
	return m
}

func (m *metrics) report(r *Report) {
	for _, res := range r.Results {
		m.logs.WithLabelValues(string(res.Outcome)).Inc()
	}
	m.groups.Add(float64(r.Groups))
	m.partitions.Add(float64(r.Partitions))
	if r.Groups == 0 {
		return
	}
	m.phases.WithLabelValues("seal").Observe(r.Seal.Seconds())
	m.phases.WithLabelValues("table").Observe(r.Table.Seconds())
	m.phases.WithLabelValues("prepare").Observe(r.Prepare.Seconds())
	m.phases.WithLabelValues("publish").Observe(r.Publish.Seconds())
	m.phases.WithLabelValues("total").Observe(r.Total.Seconds())
}
