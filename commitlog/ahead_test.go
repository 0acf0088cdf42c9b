package commitlog

import (
	"bytes"
	"context"
	"errors"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"

	"github.com/skeinmq/skein/internal/ident"
	"github.com/skeinmq/skein/internal/vfs"
)

// coldLog has a partition, numbered 0, of n batches of so many bytes that are no longer in memory.
func coldLog(t *testing.T, fileSize int64, n, size int) (*running, *expected) {
	t.Helper()
	cfg := testConfig(vfs.NewMem(), "data")
	cfg.FileSize = fileSize
	want := newExpected()
	r := start(t, cfg)
	r.begin()
	for i := range n {
		want.append(t, r, 0, testBatch(2, byte(i), size))
	}
	r.stop()
	r = start(t, cfg)
	r.begin()
	t.Cleanup(r.stop)
	return r, want
}

func valueOf(t *testing.T, c prometheus.Counter) float64 {
	t.Helper()
	var m dto.Metric
	if err := c.Write(&m); err != nil {
		t.Fatal(err)
	}
	return m.GetCounter().GetValue()
}

const coldPiece = 256 << 10

func readPiece(q *Queue, from ident.Offset, rec *Records) error {
	rec.Release()
	return q.Read(context.Background(), ReadOptions{From: from, MaxBytes: coldPiece, AtLeastOne: true}, rec)
}

// In these tests time is that of a bubble: a piece whose reader is late by two seconds is given up, as it may be on a busy machine.

// TestReadAhead: readers that go on get what was read meanwhile: the same batches, each read from the disk about once for each reader.
func TestReadAhead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, want := coldLog(t, 4<<20, 512, 32<<10)
		q, written := r.queue(1, 0), r.pool.used.Load()
		var readers sync.WaitGroup
		for range 4 {
			readers.Go(func() {
				var rec Records
				var got [][]byte
				for at := q.Start(); at < q.HighWatermark(); at = rec.Next {
					if err := readPiece(q, at, &rec); err != nil || len(rec.Slices) == 0 {
						t.Errorf("at %d: %d slices, %v", at, len(rec.Slices), err)
						return
					}
					for _, s := range rec.Slices {
						got = append(got, bytes.Clone(s))
					}
				}
				rec.Release()
				for i, b := range want.batches[0] {
					if i >= len(got) || !bytes.Equal(b, got[i]) {
						t.Errorf("batch %d of %d, of %d read, differs", i, len(want.batches[0]), len(got))
						return
					}
				}
			})
		}
		readers.Wait()
		used, reads := valueOf(t, r.metrics.aheadUsed), valueOf(t, r.metrics.reads)
		if pieces := float64(4 * 16 << 20 / coldPiece); used < pieces/2 || reads > pieces*1.4 {
			t.Errorf("of %v pieces %v were read ahead, in %v reads", pieces, used, reads)
		}
		if n := r.pool.used.Load() - written; n < 16<<20 {
			t.Errorf("the filler of new files is told of %d bytes that were read", n)
		}
	})
}

// TestReadAheadUnasked: what nobody asks for is bounded, given up after a while, and never served where it must not be.
func TestReadAheadUnasked(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, _ := coldLog(t, 4<<20, 512, 32<<10)
		q := r.queue(1, 0)
		var rec Records
		defer rec.Release()
		for i := range ident.Offset(aheadMax + 2) {
			if err := readPiece(q, 24*i, &rec); err != nil {
				t.Fatal(err)
			}
		}
		r.ahead.mu.Lock()
		pieces := append([]*piece(nil), r.ahead.pieces...)
		r.ahead.mu.Unlock()
		if len(pieces) != aheadMax {
			t.Fatalf("%d pieces are held, want %d", len(pieces), aheadMax)
		}
		for name, opt := range map[string]ReadOptions{
			"an end below the piece's": {From: pieces[0].opt.From, To: pieces[0].opt.From + 1, MaxBytes: coldPiece},
			"fewer bytes":              {From: pieces[1].opt.From, MaxBytes: coldPiece / 2},
		} {
			rec.Release()
			if err := q.Read(context.Background(), opt, &rec); err != nil || rec.Bytes > opt.MaxBytes || opt.To > 0 && rec.Next > opt.To+1 {
				t.Errorf("%s: %d bytes up to %d, %v", name, rec.Bytes, rec.Next, err)
			}
		}
		pieces[2].late.Reset(time.Millisecond)
		time.Sleep(2 * time.Millisecond)
		synctest.Wait()
		if n := valueOf(t, r.metrics.aheadWasted); n != 1 {
			t.Errorf("%v pieces were given up, want the one whose time was over", n)
		}
		start := pieces[3].opt.From + 1
		if err := q.SetLogStart(context.Background(), start); err != nil {
			t.Fatal(err)
		}
		if err := readPiece(q, pieces[3].opt.From, &rec); !errors.Is(err, ErrOutOfRange) {
			t.Errorf("below the log start: %v", err)
		}
	})
}

// TestReadAheadDepth: the first read of a reader may be its only one. Once it has come back, two pieces are on their way, one
// behind the other, and none of them beyond the end.
func TestReadAheadDepth(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, _ := coldLog(t, 4<<20, 512, 32<<10)
		q := r.queue(1, 0)
		held := func() (from []ident.Offset) {
			r.ahead.mu.Lock()
			defer r.ahead.mu.Unlock()
			for _, p := range r.ahead.pieces {
				from = append(from, p.opt.From)
			}
			slices.Sort(from)
			return from
		}
		var rec Records
		defer rec.Release()
		hw, at := q.HighWatermark(), q.Start()
		for i := 0; at < hw; i++ {
			if err := readPiece(q, at, &rec); err != nil || rec.Next <= at {
				t.Fatalf("at %d: up to %d, %v", at, rec.Next, err)
			}
			each := rec.Next - at
			at = rec.Next
			var want []ident.Offset
			for next := at; next < hw && len(want) < min(i+1, aheadDepth); next += each {
				want = append(want, next)
			}
			if synctest.Wait(); !slices.Equal(held(), want) {
				t.Fatalf("up to %d is read, pieces from %v on are held, want %v", at, held(), want)
			}
		}
	})
}

// TestOnePreadForAMiB: what consumers ask for of one partition comes with one pread, headers and all.
func TestOnePreadForAMiB(t *testing.T) {
	r, _ := coldLog(t, 16<<20, 256, 16<<10)
	var rec Records
	defer rec.Release()
	before := valueOf(t, r.metrics.reads)
	opt := ReadOptions{MaxBytes: 1 << 20, AtLeastOne: true}
	if err := r.queue(1, 0).plan(context.Background(), opt, 256, &rec); err != nil {
		t.Fatal(err)
	}
	if err := r.queue(1, 0).fetchPlan(context.Background(), &rec); err != nil || rec.Cold < 1<<20-17<<10 {
		t.Fatalf("%d bytes from the disk, %v", rec.Cold, err)
	}
	if n := valueOf(t, r.metrics.reads) - before; n != 1 {
		t.Errorf("%v reads for %d bytes", n, rec.Cold)
	}
}
