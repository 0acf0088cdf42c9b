package broker

import (
	"strconv"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/skeinmq/skein/protocol"
)

// metrics are the broker's instruments. Instruments with labels are looked up once.
type metrics struct {
	latency   [maxKey + 1]prometheus.Observer
	requests  [maxKey + 1][classes]prometheus.Counter
	bytesIn   prometheus.Counter
	bytesOut  prometheus.Counter
	malformed prometheus.Counter
	refused   prometheus.Counter
	throttled prometheus.Counter

	sessionsEvicted prometheus.Counter
	retained        prometheus.Counter
	skipped         prometheus.Counter
	lost            prometheus.Counter

	redirected  prometheus.Counter
	sentBack    prometheus.Counter
	hostedBytes prometheus.Counter
}

// class of an outcome, for a label with few values.
type class int

const (
	classOK class = iota
	classRetriable
	classRefused
	classes
)

var classNames = [classes]string{"ok", "retriable", "refused"}

// classify puts an error code into its class: those that clients retry by themselves are the cluster's business, the
// others the client's.
func classify(code protocol.Code) class {
	switch {
	case code == protocol.CodeNone:
		return classOK
	case code.Retriable():
		return classRetriable
	default:
		return classRefused
	}
}

// newMetrics makes the instruments; reg may be nil.
func newMetrics(reg prometheus.Registerer, b *Broker) *metrics {
	m := &metrics{
		bytesIn:         prometheus.NewCounter(prometheus.CounterOpts{Name: "skein_broker_received_bytes_total", Help: "Bytes of requests read from clients."}),
		bytesOut:        prometheus.NewCounter(prometheus.CounterOpts{Name: "skein_broker_sent_bytes_total", Help: "Bytes of answers written to clients."}),
		malformed:       prometheus.NewCounter(prometheus.CounterOpts{Name: "skein_broker_malformed_requests_total", Help: "Connections closed because of bytes that are not a request served here."}),
		refused:         prometheus.NewCounter(prometheus.CounterOpts{Name: "skein_broker_refused_connections_total", Help: "Connections refused for a limit."}),
		throttled:       prometheus.NewCounter(prometheus.CounterOpts{Name: "skein_broker_throttled_seconds_total", Help: "Time for which producers' connections were not to be read as the disk runs full, all together."}),
		sessionsEvicted: prometheus.NewCounter(prometheus.CounterOpts{Name: "skein_broker_fetch_sessions_evicted_total", Help: "Fetch sessions ended to make room."}),
		retained:        prometheus.NewCounter(prometheus.CounterOpts{Name: "skein_broker_retention_moves_total", Help: "Log starts moved by retention."}),
		skipped:         prometheus.NewCounter(prometheus.CounterOpts{Name: "skein_broker_skipped_reads_total", Help: "Reads that went on behind records out of reach, as failover.read=skip says."}),
		lost:            prometheus.NewCounter(prometheus.CounterOpts{Name: "skein_broker_lost_reads_total", Help: "Reads that went on behind records that are lost, as the map says."}),
		redirected:      prometheus.NewCounter(prometheus.CounterOpts{Name: "skein_broker_redirected_reads_total", Help: "Consumers sent to the broker that has the older records which they read (skein.read.redirect)."}),
		sentBack:        prometheus.NewCounter(prometheus.CounterOpts{Name: "skein_broker_sent_back_reads_total", Help: "Consumers sent back from here to the owner, as this broker has nothing more for them."}),
		hostedBytes:     prometheus.NewCounter(prometheus.CounterOpts{Name: "skein_broker_hosted_read_bytes_total", Help: "Bytes of records that consumers read here in partitions of other brokers."}),
	}
	latency := prometheus.NewHistogramVec(prometheus.HistogramOpts{
		Name: "skein_broker_request_seconds", Help: "Time from the end of reading a request to the end of writing its answer.",
		Buckets: prometheus.ExponentialBuckets(0.0001, 2.5, 14),
	}, []string{"api"})
	requests := prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "skein_broker_requests_total", Help: "Requests answered, by API and outcome: ok, retriable (clients try again by themselves), refused.",
	}, []string{"api", "outcome"})
	for i := range b.rows {
		if b.rows[i].name == "" {
			continue
		}
		m.latency[i] = latency.WithLabelValues(b.rows[i].name)
		for c := range classes {
			m.requests[i][c] = requests.WithLabelValues(b.rows[i].name, classNames[c])
		}
	}
	if reg == nil {
		return m
	}
	reg.MustRegister(latency, requests, m.bytesIn, m.bytesOut, m.malformed, m.refused, m.throttled, m.sessionsEvicted, m.retained, m.skipped, m.lost,
		m.redirected, m.sentBack, m.hostedBytes)
	gauge := func(name, help string, f func() float64) {
		reg.MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: name, Help: help, ConstLabels: prometheus.Labels{"node": strconv.Itoa(int(b.cfg.ID))},
		}, f))
	}
	gauge("skein_broker_connections", "Client connections.", func() float64 { return float64(b.server.len()) })
	gauge("skein_broker_connections_limit", "Client connections that are allowed.", func() float64 { return float64(b.maxConnections()) })
	gauge("skein_broker_disk_pressure", "How much producers are slowed down as a disk of this broker runs full: 0 not at all, 1 when it refuses them.", b.pressure)
	gauge("skein_broker_throttled_connections", "Producers' connections that are not read for now as the disk runs full.", func() float64 { return float64(b.muted.Load()) })
	gauge("skein_broker_memory_bytes", "Bytes reserved for requests and answers in flight.", func() float64 { return float64(b.memory.used.Load() + b.answers.Load()) })
	gauge("skein_broker_memory_limit_bytes", "The budget of those bytes.", func() float64 { return float64(b.memory.limit + b.answersLimit) })
	gauge("skein_broker_memory_waiting", "Connections that are not read because the budget is spent.", func() float64 { return float64(b.memory.waiting.Load()) })
	gauge("skein_broker_fetch_sessions", "Fetch sessions.", func() float64 { n, _ := b.sessions.size(); return float64(n) })
	gauge("skein_broker_fetch_session_partitions", "Partitions in all fetch sessions.", func() float64 { _, n := b.sessions.size(); return float64(n) })
	gauge("skein_broker_absent_logs", "Logs of this broker that are in none of its data directories.", func() float64 { n, _ := b.unavailable(); return float64(n) })
	gauge("skein_broker_unavailable_runs", "Runs of partitions in those logs: their offsets cannot be read.", func() float64 { _, n := b.unavailable(); return float64(n) })
	gauge("skein_broker_away_runs", "Older runs of partitions that this broker owns, in logs that no live broker has: readers wait for them.", func() float64 { return float64(b.awayRuns()) })
	gauge("skein_broker_lost_offsets", "Acknowledged offsets in logs of this broker that their disks no longer have.", func() float64 { return float64(b.lostOffsets()) })
	return m
}

// observe counts an answered request.
func (m *metrics) observe(key int16, code protocol.Code, took time.Duration) {
	if key < 0 || int(key) >= len(m.latency) || m.latency[key] == nil {
		return
	}
	m.latency[key].Observe(took.Seconds())
	m.requests[key][classify(code)].Inc()
}
