package commitlog

import (
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/skeinmq/skein/internal/metrictest"
)

// TestMetricNames: dashboards depend on them.
func TestMetricNames(t *testing.T) {
	reg := prometheus.NewRegistry()
	newMetrics(reg, &Log{inbox: newInbox(), mem: newMemory(memoryTestChunk, 0)})
	metrictest.Check(t, reg)
}

// TestWaiting: what waits for the sequencer is counted, and for how long, wherever it waits.
func TestWaiting(t *testing.T) {
	in := newInbox()
	if n, oldest := in.waiting(); n != 0 || oldest != 0 {
		t.Errorf("empty: %d waiting for %v s", n, oldest)
	}
	for range 3 {
		if err := in.put(submission{}); err != nil {
			t.Fatal(err)
		}
	}
	in.since = in.since.Add(-time.Minute)
	check := func(what string, want int, from, to float64) {
		t.Helper()
		if n, oldest := in.waiting(); n != want || oldest < from || oldest > to {
			t.Errorf("%s: %d waiting for %v s, want %d for %v to %v", what, n, oldest, want, from, to)
		}
	}
	check("in the inbox", 3, 60, 90)
	taken := in.take(nil)
	check("taken", 3, 60, 90)
	in.left.Store(int64(len(taken) - 1))
	if err := in.put(submission{}); err != nil {
		t.Fatal(err)
	}
	check("taken and in the inbox", 3, 60, 90)
	in.left.Store(0)
	check("a new one", 1, 0, 30)
}
