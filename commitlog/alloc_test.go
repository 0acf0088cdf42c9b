package commitlog

import (
	"context"
	"runtime"
	"testing"

	"github.com/skeinmq/skein/internal/ident"
	"github.com/skeinmq/skein/internal/vfs"
)

// TestAppendAllocations: a batch costs no allocation of its own; what is left is the
// doubling of tails and what a block costs.
func TestAppendAllocations(t *testing.T) {
	cfg := testConfig(vfs.OS(), t.TempDir()) // the simulated disk allocates
	cfg.FileSize, cfg.MaxBlock = 64<<20, 256<<10
	r := start(t, cfg)
	r.begin()
	q := r.queue(1, 0)
	proto := batchOf(q, testBatch(1, 1, 100))
	done := make(chan struct{}, 1)
	a := &Append{Batches: make([]Batch, 200), Done: func(*Append) { done <- struct{}{} }}
	round := func() {
		for i := range a.Batches {
			a.Batches[i] = proto
		}
		r.Append(a)
		<-done
	}
	for range 100 {
		round()
	}
	runtime.GC()
	perBatch := leastAllocs(100, 0.2*float64(len(a.Batches)), round) / float64(len(a.Batches))
	if perBatch > 0.2 {
		t.Errorf("%.3f allocations a batch", perBatch)
	}
	r.stop()
}

// TestTailReadAllocations: a read from memory costs none.
func TestTailReadAllocations(t *testing.T) {
	r := start(t, testConfig(vfs.NewMem(), "data"))
	r.begin()
	q := r.queue(1, 0)
	for range 50 {
		r.append(batchOf(q, testBatch(1, 1, 1000)))
	}
	var rec Records
	opt := ReadOptions{From: ident.Offset(10), MaxBytes: 20_000}
	if got := leastAllocs(1000, 0, func() {
		rec.Release()
		if err := q.Read(context.Background(), opt, &rec); err != nil || rec.Bytes < 15_000 {
			t.Fatal(err, rec.Bytes)
		}
	}); got > 0 {
		t.Errorf("%v allocations a read", got)
	}
	rec.Release()
	r.stop()
}

// leastAllocs is testing.AllocsPerRun without what other goroutines allocate meanwhile, which it counts too: logs of earlier
// tests that are still ending only ever add. What it looks for is enough for it.
func leastAllocs(runs int, enough float64, f func()) float64 {
	least := testing.AllocsPerRun(runs, f)
	for i := 0; i < 30 && least > enough; i++ {
		least = min(least, testing.AllocsPerRun(runs, f))
	}
	return least
}
