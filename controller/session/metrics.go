package session

import (
	"github.com/prometheus/client_golang/prometheus"

	"github.com/skeinmq/skein/controller/failover"
)

// metrics are the sessions' instruments; this file alone knows their names.
type metrics struct {
	deaths *prometheus.CounterVec
	probes prometheus.Counter
}

func newMetrics(reg prometheus.Registerer, s *Server) *metrics {
	m := &metrics{
		deaths: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "skein_session_deaths_total", Help: "Brokers given up by this controller, by reason.",
		}, []string{"reason"}),
		probes: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "skein_session_probes_total", Help: "Knocks at the doors of brokers that had no stream.",
		}),
	}
	for _, why := range []Reason{Silent, Refused, Replaced} {
		m.deaths.WithLabelValues(string(why))
	}
	if reg == nil {
		return m
	}
	reg.MustRegister(m.deaths, m.probes)
	for _, standing := range []failover.Standing{failover.Live, failover.Draining, failover.Leaving, failover.Dead} {
		reg.MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: "skein_session_brokers", Help: "Brokers by standing, at the active controller; 0 elsewhere.",
			ConstLabels: prometheus.Labels{"standing": standingName(standing)},
		}, func() float64 {
			s.mu.Lock()
			defer s.mu.Unlock()
			if s.term == nil {
				return 0
			}
			return float64(s.term.machine.Count()[standing])
		}))
	}
	return m
}
