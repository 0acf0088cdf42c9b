package commitlog

import "github.com/prometheus/client_golang/prometheus"

// metrics are the instruments of one log.
type metrics struct {
	writeSeconds prometheus.Histogram
	blockSize    prometheus.Histogram
	blockBatches prometheus.Histogram
	blocks       prometheus.Counter
	blockBytes   prometheus.Counter
	batchBytes   prometheus.Counter
	batches      prometheus.Counter
	readBytes    prometheus.Counter
	reads        prometheus.Counter
	aheadUsed    prometheus.Counter
	aheadWasted  prometheus.Counter
	readsShared  prometheus.Counter
	reclaimed    prometheus.Counter
	filesSorted  prometheus.Counter
	sortedBytes  prometheus.Counter
}

func newMetrics(reg prometheus.Registerer, l *Log) *metrics {
	labels := prometheus.Labels{"log": l.id.String()}
	var all []prometheus.Collector
	counter := func(name, help string) prometheus.Counter {
		c := prometheus.NewCounter(prometheus.CounterOpts{Name: "skein_commitlog_" + name, Help: help, ConstLabels: labels})
		all = append(all, c)
		return c
	}
	gauge := func(name, help string, value func() float64) {
		all = append(all, prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "skein_commitlog_" + name, Help: help, ConstLabels: labels}, value))
	}
	histogram := func(name, help string, buckets []float64) prometheus.Histogram {
		h := prometheus.NewHistogram(prometheus.HistogramOpts{Name: "skein_commitlog_" + name, Help: help, ConstLabels: labels, Buckets: buckets})
		all = append(all, h)
		return h
	}
	m := &metrics{
		writeSeconds: histogram("write_seconds", "Duration of one block's write to disk.", prometheus.ExponentialBuckets(50e-6, 2, 18)),
		blockSize:    histogram("block_size_bytes", "Bytes of one group commit on disk.", prometheus.ExponentialBuckets(4096, 2, 12)),
		blockBatches: histogram("block_batches", "Record batches in one group commit.", prometheus.ExponentialBuckets(1, 2, 13)),
		blocks:       counter("blocks_total", "Group commits."),
		blockBytes:   counter("block_bytes_total", "Bytes of group commits on disk, padding included."),
		batchBytes:   counter("batch_bytes_total", "Bytes of committed record batches."),
		batches:      counter("batches_total", "Committed record batches."),
		readBytes:    counter("disk_read_bytes_total", "Bytes read from disk for consumers."),
		reclaimed:    counter("files_reclaimed_total", "Log files given up because nothing in them was live."),
		filesSorted:  counter("files_sorted_total", "Log files whose live batches were rewritten, in order of partition, to give the rest of their disk back."),
		sortedBytes:  counter("sorted_bytes_total", "Bytes of the files that they were rewritten to."),
		reads:        counter("disk_reads_total", "Reads from disk for consumers."),
		aheadUsed:    counter("read_ahead_used_total", "Pieces read from disk for consumers before they asked."),
		aheadWasted:  counter("read_ahead_wasted_total", "Pieces read ahead whose reader did not come."),
		readsShared:  counter("read_shared_bytes_total", "Bytes that a consumer got from what was read from disk for another one."),
	}
	gauge("waiting_appends", "Appends, and other work of the sequencer, that are in no group commit yet.", func() float64 {
		n, _ := l.inbox.waiting()
		return float64(n)
	})
	gauge("oldest_wait_seconds", "How long the oldest of these has waited, at most.", func() float64 {
		_, oldest := l.inbox.waiting()
		return oldest
	})
	gauge("blocks_in_flight", "Group commits that are being written or wait for witnesses.", func() float64 { return float64(l.piped.Load()) })
	gauge("cache_bytes", "Memory that recent blocks take.", func() float64 { return float64(l.mem.bytes.Load()) })
	gauge("cache_limit_bytes", "Memory that they may take at the moment, without what only slow readers hold.", func() float64 { return float64(l.mem.limit.Load()) })
	gauge("poisoned", "1 once a write has failed, or hung, or the log was fenced.", func() float64 {
		if l.poison() != nil {
			return 1
		}
		return 0
	})
	gauge("damaged_ranges", "Ranges of the log that are known to be damaged, in files that are still there.", func() float64 { return float64(len(l.damage.all())) })
	gauge("damaged_bytes", "Bytes of these ranges.", func() float64 { return float64(l.damage.bytes()) })
	if reg != nil {
		reg.MustRegister(all...)
	}
	return m
}

func (m *metrics) committed(b *block, payload int64) {
	m.blocks.Inc()
	m.blockBytes.Add(float64(b.pad))
	m.batchBytes.Add(float64(payload))
	m.batches.Add(float64(len(b.entries)))
	m.blockSize.Observe(float64(b.pad))
	m.blockBatches.Observe(float64(len(b.entries)))
}

func (m *metrics) diskReads(n int) {
	m.reads.Inc()
	m.readBytes.Add(float64(n))
}
