package commitlog

import (
	"context"
	"errors"
	"math/rand/v2"
	"os"
	"strconv"
	"sync/atomic"
	"testing"
	"time"

	"github.com/skeinmq/skein/internal/ident"
)

// fill appends total bytes in 16 KiB batches to random queues and waits.
func fill(b *testing.B, l *Log, qs []*Queue, total int64, size int) {
	b.Helper()
	proto := batchOf(nil, testBatch(16, 1, size-batchHeaderSize))
	free := make(chan *Append, 32)
	for range cap(free) {
		free <- &Append{Batches: make([]Batch, 16), Done: func(a *Append) {
			if err := a.Batches[0].Result.Err; err != nil {
				b.Error(err)
			}
			free <- a
		}}
	}
	rnd := rand.New(rand.NewPCG(1, 2))
	for n := int64(0); n < total; n += int64(size * 16) {
		a := <-free
		for k := range a.Batches {
			a.Batches[k] = proto
			a.Batches[k].Queue = qs[rnd.IntN(len(qs))]
		}
		l.Append(a)
	}
	for range cap(free) {
		<-free
	}
}

// BenchmarkRestart writes $SKEIN_BENCH_GB (2) of 512 MiB files over 100,000 queues, lets the
// log die, and times Open and Begin.
func BenchmarkRestart(b *testing.B) {
	gb, err := strconv.ParseFloat(os.Getenv("SKEIN_BENCH_GB"), 64)
	if err != nil {
		gb = 2
	}
	dir, err := os.MkdirTemp(os.Getenv("SKEIN_BENCH_DIR"), "restart")
	if err != nil {
		b.Fatal(err)
	}
	defer os.RemoveAll(dir)
	cfg := Config{Dir: dir, ClusterID: "bench"}
	l, err := Open(context.Background(), cfg)
	if err != nil {
		b.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- l.Run(context.Background()) }()
	if err := l.Begin(context.Background(), 1, nil); err != nil {
		b.Fatal(err)
	}
	fill(b, l, benchQueues(b, l, 100_000), int64(gb*1e9), 16<<10)
	l.setPoison(errors.New("killed"))
	<-ended
	if err := l.Close(); err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		start := time.Now()
		l, err := Open(context.Background(), cfg)
		if err != nil {
			b.Fatal(err)
		}
		opened := time.Since(start)
		ctx, cancel := context.WithCancel(context.Background())
		go func() { ended <- l.Run(ctx) }()
		var named []MapGeneration
		for _, g := range l.Recovered().Generations {
			named = append(named, MapGeneration{Generation: g.Generation, Open: true})
		}
		if err := l.Begin(ctx, l.Recovered().Epoch+1, named); err != nil {
			b.Fatal(err)
		}
		b.ReportMetric(opened.Seconds()*1000, "open-ms")
		b.ReportMetric(time.Since(start).Seconds()*1000, "ready-ms")
		l.setPoison(errors.New("killed"))
		cancel()
		<-ended
		if err := l.Close(); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkRead reads everything from disk, with as many consumers at once as there are
// queues, 1 MiB a read; and, as tail, what is still in memory.
func BenchmarkRead(b *testing.B) {
	for _, queues := range []int{1, 1000} {
		for _, where := range []string{"disk", "tail"} {
			b.Run(where+"/queues="+strconv.Itoa(queues), func(b *testing.B) {
				cfg := Config{CacheBytes: 512 << 20}
				if where == "disk" {
					cfg.CacheBytes = 1 << 20
				}
				l, stop := benchLog(b, cfg)
				defer stop()
				qs := benchQueues(b, l, queues)
				total := int64(400e6)
				if where == "disk" {
					total = 1500e6
				}
				fill(b, l, qs, total, 16<<10)
				readEverything(b, l, qs)
			})
		}
	}
}

func readEverything(b *testing.B, l *Log, qs []*Queue) {
	b.Helper()
	var read atomic.Int64
	cpu := cpuSeconds()
	start := time.Now()
	for b.Loop() {
		work := make(chan *Queue, len(qs))
		at := map[*Queue]*atomic.Int64{}
		for _, q := range qs {
			at[q] = new(atomic.Int64)
			work <- q
		}
		done := make(chan struct{})
		const workers = 8
		var left atomic.Int64
		left.Store(int64(len(qs)))
		for range workers {
			go func() {
				defer func() { done <- struct{}{} }()
				var rec Records
				for q := range work {
					from := ident.Offset(at[q].Load())
					err := q.Read(context.Background(), ReadOptions{From: from, MaxBytes: 1 << 20, AtLeastOne: true}, &rec)
					if err != nil {
						b.Error(err)
					}
					read.Add(int64(rec.Bytes))
					at[q].Store(int64(rec.Next))
					if rec.Next >= q.HighWatermark() || err != nil {
						if left.Add(-1) == 0 {
							close(work)
						}
					} else {
						work <- q
					}
					rec.Release()
				}
			}()
		}
		for range workers {
			<-done
		}
	}
	gb := float64(read.Load()) / 1e9
	b.ReportMetric(gb*1000/time.Since(start).Seconds(), "MBps")
	b.ReportMetric((cpuSeconds()-cpu)/gb, "cpu-s/GB")
}
