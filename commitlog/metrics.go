package commitlog

import "github.com/prometheus/client_golang/prometheus"

// metrics are the instruments of one log.
type metrics struct {
	writeSeconds prometheus.Histogram
	blocks       prometheus.Counter
	blockBytes   prometheus.Counter
	batchBytes   prometheus.Counter
	batches      prometheus.Counter
	readBytes    prometheus.Counter
	reads        prometheus.Counter
	reclaimed    prometheus.Counter
}

func newMetrics(reg prometheus.Registerer, log string) *metrics {
	labels := prometheus.Labels{"log": log}
	counter := func(name, help string) prometheus.Counter {
		c := prometheus.NewCounter(prometheus.CounterOpts{Name: "skein_commitlog_" + name, Help: help, ConstLabels: labels})
		if reg != nil {
			reg.MustRegister(c)
		}
		return c
	}
	m := &metrics{
		blocks:     counter("blocks_total", "Group commits."),
		blockBytes: counter("block_bytes_total", "Bytes of group commits on disk, padding included."),
		batchBytes: counter("batch_bytes_total", "Bytes of committed record batches."),
		batches:    counter("batches_total", "Committed record batches."),
		readBytes:  counter("disk_read_bytes_total", "Bytes read from disk for consumers."),
		reclaimed:  counter("files_reclaimed_total", "Log files given up because nothing in them was live."),
		reads:      counter("disk_reads_total", "Reads from disk for consumers."),
	}
	m.writeSeconds = prometheus.NewHistogram(prometheus.HistogramOpts{
		Name: "skein_commitlog_write_seconds", Help: "Duration of one block's write to disk.", ConstLabels: labels,
		Buckets: prometheus.ExponentialBuckets(50e-6, 2, 18),
	})
	if reg != nil {
		reg.MustRegister(m.writeSeconds)
	}
	return m
}

func (m *metrics) committed(b *block, payload int64) {
	m.blocks.Inc()
	m.blockBytes.Add(float64(b.pad))
	m.batchBytes.Add(float64(payload))
	m.batches.Add(float64(len(b.entries)))
}

func (m *metrics) diskReads(n int) {
	m.reads.Inc()
	m.readBytes.Add(float64(n))
}
