package commitlog

import (
	"context"
	"strconv"
	"testing"
)

// BenchmarkReadSorted reads, from disk and once (-benchtime 1x), all of 1,000 queues, and 10 of them alone, that lie in log files as they
// were written, and in sorted files.
func BenchmarkReadSorted(b *testing.B) {
	for _, read := range []int{1000, 10} {
		for _, sorted := range []bool{false, true} {
			b.Run("read="+strconv.Itoa(read)+"/sorted="+strconv.FormatBool(sorted), func(b *testing.B) {
				l, stop := benchLog(b, Config{CacheBytes: 1 << 20})
				defer stop()
				qs := benchQueues(b, l, 1000)
				fill(b, l, qs, 2e9, 16<<10)
				if sorted {
					sortEverything(b, l)
				}
				readEverything(b, l, qs[:read])
			})
		}
	}
}

// sortEverything rewrites every sealed file by itself, as fast as it can.
func sortEverything(b *testing.B, l *Log) {
	b.Helper()
	for i, f := range l.files.all() {
		if !f.sealed.Load() || !f.tryPin() {
			continue
		}
		out, parts, err := l.buildSorted(context.Background(), []*logFile{f}, uint32(i+1), func(context.Context, int) error { return nil })
		f.unpin()
		if err == nil {
			err = l.sealer.replace(context.Background(), out, parts)
		}
		if err != nil {
			b.Fatal(err)
		}
	}
}
