package commitlog

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"runtime"
	"syscall"
	"testing"
	"time"

	"github.com/skeinmq/skein/internal/ident"
)

// benchLog is a log on the real disk: under $SKEIN_BENCH_DIR, or where tests write.
func benchLog(b *testing.B, cfg Config) (*Log, func()) {
	b.Helper()
	dir, err := os.MkdirTemp(os.Getenv("SKEIN_BENCH_DIR"), "log")
	if err != nil {
		b.Fatal(err)
	}
	cfg.Dir, cfg.ClusterID = dir, "bench"
	l, err := Open(context.Background(), cfg)
	if err != nil {
		b.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- l.Run(ctx) }()
	if err := l.Begin(ctx, 1, nil); err != nil {
		b.Fatal(err)
	}
	return l, func() {
		cancel()
		if err := <-ended; err != nil {
			b.Error(err)
		}
		if err := l.Close(); err != nil {
			b.Error(err)
		}
		if err := os.RemoveAll(dir); err != nil {
			b.Error(err)
		}
	}
}

func benchQueues(b *testing.B, l *Log, n int) []*Queue {
	b.Helper()
	const groups = 64
	var open []Opening
	for g := range groups {
		open = append(open, Opening{Group: ident.Group(g), Epoch: 1})
	}
	fr, err := l.Prepare(context.Background(), open)
	if err != nil {
		b.Fatal(err)
	}
	var gens []ident.Generation
	for g := range fr {
		gens = append(gens, ident.Generation{Group: ident.Group(g), Epoch: 1, Frame: fr[g]})
	}
	if err := l.Activate(gens); err != nil {
		b.Fatal(err)
	}
	qs := make([]*Queue, n)
	for i := range qs {
		q, err := l.Queue(ident.Group(i%groups), ident.Partition{Topic: ident.Topic{1, byte(i >> 8)}, Index: int32(i)})
		if err != nil {
			b.Fatal(err)
		}
		qs[i] = q
	}
	return qs
}

func cpuSeconds() float64 {
	var ru syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &ru); err != nil {
		return 0
	}
	return float64(ru.Utime.Sec+ru.Stime.Sec) + float64(ru.Utime.Usec+ru.Stime.Usec)/1e6
}

// BenchmarkAppend keeps 4 MiB, at most 1024 batches, in flight, 16 batches an append.
func BenchmarkAppend(b *testing.B) {
	for _, size := range []int{1 << 10, 16 << 10, 1 << 20} {
		for _, queues := range []int{1, 1000, 100_000} {
			b.Run(fmt.Sprintf("batch=%d/queues=%d", size, queues), func(b *testing.B) {
				l, stop := benchLog(b, Config{})
				defer stop()
				qs := benchQueues(b, l, queues)
				benchAppend(b, l, qs, size)
			})
		}
	}
}

func benchAppend(b *testing.B, l *Log, qs []*Queue, size int) {
	data := testBatch(max(1, int32(size>>10)), 1, size-batchHeaderSize)
	per := min(16, max(1, 1<<20/size))
	inFlight := min(64, max(4, 4<<20/(size*per)))
	free := make(chan *Append, inFlight)
	for range inFlight {
		a := &Append{Batches: make([]Batch, per), Done: func(a *Append) {
			if err := a.Batches[0].Result.Err; err != nil {
				b.Error(err)
			}
			free <- a
		}}
		free <- a
	}
	rnd := rand.New(rand.NewPCG(1, 2))
	proto := batchOf(nil, data)
	b.SetBytes(int64(size))
	b.ReportAllocs()
	cpu, begun := cpuSeconds(), time.Now()
	b.ResetTimer()
	for i := 0; i < b.N; i += per {
		a := <-free
		for k := range a.Batches {
			a.Batches[k] = proto
			a.Batches[k].Queue = qs[rnd.IntN(len(qs))]
		}
		l.Append(a)
	}
	for range inFlight {
		<-free
	}
	b.StopTimer()
	// Positions skip what is left of a file, which is not written: close to exact.
	b.ReportMetric(float64(l.committed.Load())/(float64(b.N)*float64(size)), "disk/payload")
	gb := float64(b.N) * float64(size) / 1e9
	b.ReportMetric((cpuSeconds()-cpu)/gb, "cpu-s/GB")
	b.ReportMetric(gb*1000/time.Since(begun).Seconds(), "MBps")
}

// BenchmarkIdleQueues reports the memory of queues that hold nothing.
func BenchmarkIdleQueues(b *testing.B) {
	l, stop := benchLog(b, Config{FileSize: 16 << 20})
	defer stop()
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	qs := benchQueues(b, l, 100_000)
	for b.Loop() {
		runtime.GC()
	}
	runtime.ReadMemStats(&after)
	runtime.KeepAlive(qs)
	b.ReportMetric(float64(after.HeapAlloc-before.HeapAlloc)/1e6, "MB/100k")
}

// BenchmarkWritesInFlight varies the number of writes and the size of blocks.
func BenchmarkWritesInFlight(b *testing.B) {
	for _, writes := range []int{1, 2, 4} {
		for _, block := range []int{256 << 10, 1 << 20} {
			b.Run(fmt.Sprintf("writes=%d/block=%d", writes, block), func(b *testing.B) {
				l, stop := benchLog(b, Config{WritesInFlight: writes, MaxBlock: block})
				defer stop()
				benchAppend(b, l, benchQueues(b, l, 1000), 16<<10)
			})
		}
	}
}
