package witness

import (
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// Metrics are the instruments of both sides. All registrars of a broker share one.
type Metrics struct {
	registerSeconds prometheus.Histogram
	deltaBytes      prometheus.Counter
	deltas          prometheus.Counter
	members         *prometheus.GaugeVec
	sessions        *prometheus.CounterVec
	swaps           *prometheus.CounterVec
	refused         *prometheus.CounterVec
	member          atomic.Pointer[Member] // the one that is served
}

// Ends of sessions and swaps, as label values.
const (
	endFollowed = "followed"
	endFailed   = "failed"
)

// NewMetrics makes and registers the instruments. reg may be nil.
func NewMetrics(reg prometheus.Registerer) *Metrics {
	m := &Metrics{
		registerSeconds: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "skein_witness_register_seconds", Help: "Time from a group commit being durable to all witnesses having it.",
			Buckets: prometheus.ExponentialBuckets(50e-6, 2, 16),
		}),
		deltaBytes: prometheus.NewCounter(prometheus.CounterOpts{Name: "skein_witness_delta_bytes_total", Help: "Bytes of updates, before they are sent to each member."}),
		deltas:     prometheus.NewCounter(prometheus.CounterOpts{Name: "skein_witness_deltas_total", Help: "Deltas registered."}),
		members:    prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: "skein_witness_members", Help: "Recorded witness set of each log that is open here."}, []string{"log"}),
		sessions:   prometheus.NewCounterVec(prometheus.CounterOpts{Name: "skein_witness_sessions_total", Help: "Sessions with members, by how far they came."}, []string{"result"}),
		swaps:      prometheus.NewCounterVec(prometheus.CounterOpts{Name: "skein_witness_swaps_total", Help: "Changes of witness sets in the map, by outcome."}, []string{"outcome"}),
		refused:    prometheus.NewCounterVec(prometheus.CounterOpts{Name: "skein_witness_refused_total", Help: "Streams of owners that this broker refused."}, []string{"reason"}),
	}
	if reg != nil {
		reg.MustRegister(m.registerSeconds, m.deltaBytes, m.deltas, m.members, m.sessions, m.swaps, m.refused)
		m.showMember(reg)
	}
	return m
}

// showMember registers gauges of what the member that is being served holds.
func (m *Metrics) showMember(reg prometheus.Registerer) {
	gauge := func(name, help string, value func(MemberStats) int) {
		reg.MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "skein_witness_table_" + name, Help: help}, func() float64 {
			if member := m.member.Load(); member != nil {
				return float64(value(member.Stats()))
			}
			return 0
		}))
	}
	gauge("logs", "Tables that this broker keeps for logs of others.", func(s MemberStats) int { return s.Tables })
	gauge("sealed", "Of these, the sealed ones.", func(s MemberStats) int { return s.Sealed })
	gauge("partitions", "Partitions in these tables.", func(s MemberStats) int { return s.Partitions })
	gauge("bytes", "About how much memory these tables take.", func(s MemberStats) int { return s.Bytes })
}

func (m *Metrics) registered(took time.Duration) { m.registerSeconds.Observe(took.Seconds()) }
