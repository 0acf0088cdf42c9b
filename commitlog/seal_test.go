package commitlog

import (
	"bytes"
	"context"
	"errors"
	"runtime"
	"testing"
	"time"

	"github.com/skeinmq/skein/internal/ident"
	"github.com/skeinmq/skein/internal/vfs"
	"log/slog"
)

// await spins until ok, which other goroutines of the log bring about, on a busy machine after a while.
func await(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(2 * time.Minute); !ok(); runtime.Gosched() {
		if time.Now().After(end) {
			t.Fatalf("waited for %s", what)
		}
	}
}

func (r *running) awaitSealed() {
	r.t.Helper()
	await(r.t, "indexes", func() bool {
		all := r.files.all()
		for i, f := range all {
			if i < len(all)-1 && !f.sealed.Load() {
				return false
			}
		}
		return true
	})
}

// expected is what each partition must hold.
type expected struct {
	first   map[int32]ident.Offset // of the first batch in batches
	batches map[int32][][]byte
}

func newExpected() *expected {
	return &expected{first: map[int32]ident.Offset{}, batches: map[int32][][]byte{}}
}

func (e *expected) append(t *testing.T, r *running, p int32, data []byte) {
	t.Helper()
	q := r.queue(1, p)
	res := r.append(batchOf(q, data))[0]
	if res.Err != nil {
		t.Fatal(res.Err)
	}
	b := bytes.Clone(data)
	stampBatch(b, res.Base, q.Generation().Epoch)
	e.batches[p] = append(e.batches[p], b)
}

func (e *expected) check(t *testing.T, r *running) {
	t.Helper()
	for p, want := range e.batches {
		got := readAll(t, r.queue(1, p))
		if len(got) != len(want) {
			t.Fatalf("partition %d: %d batches, want %d", p, len(got), len(want))
		}
		for i := range got {
			if !bytes.Equal(got[i], want[i]) {
				t.Fatalf("partition %d: batch %d differs", p, i)
			}
		}
	}
}

func TestSealedFilesReadAndReopen(t *testing.T) {
	cfg := testConfig(vfs.NewMem(), "data")
	want := newExpected()
	for round := range 3 {
		r := start(t, cfg)
		r.begin()
		for i := range 300 {
			want.append(t, r, int32(i%7), testBatch(3, byte(i+round), 9000+i))
		}
		r.awaitSealed()
		want.check(t, r)
		for p := range int32(7) {
			q := r.queue(1, p)
			if n := len(q.sealedSegments()); n < 2 {
				t.Fatalf("partition %d has %d sealed segments", p, n)
			}
			var bytes int64
			end := q.Start()
			for seg, err := range q.Segments() {
				if err != nil || seg.First != end {
					t.Fatalf("segment %+v after %d: %v", seg, end, err)
				}
				end = seg.End
				bytes += seg.Bytes
			}
			if end != q.HighWatermark() || bytes != q.Size() {
				t.Fatalf("segments end at %d of %d, %d bytes of %d", end, q.HighWatermark(), bytes, q.Size())
			}
		}
		r.stop()
	}
}

// TestReclaimAtTheEnd: a log that is closed while its files are to be reclaimed is no reason for a warning.
func TestReclaimAtTheEnd(t *testing.T) {
	cfg := testConfig(vfs.NewMem(), "data")
	var said bytes.Buffer
	cfg.Logger = slog.New(slog.NewTextHandler(&said, &slog.HandlerOptions{Level: slog.LevelWarn}))
	r := start(t, cfg)
	r.begin()
	want := newExpected()
	for i := range 200 {
		want.append(t, r, 0, testBatch(2, byte(i), 9000))
	}
	r.awaitSealed()
	r.stop()
	files := r.files.all()
	for _, f := range files {
		f.live.Store(0)
	}
	r.sealer.snapshotAt = 0
	r.sealer.reclaim()
	if said.Len() > 0 || len(r.files.all()) != len(files) {
		t.Errorf("%d of %d files are left, and the log says: %s", len(r.files.all()), len(files), said.String())
	}
}

func TestFloorReclaimsFiles(t *testing.T) {
	ctx := context.Background()
	mem := vfs.NewMem()
	cfg := testConfig(mem, "data")
	want := newExpected()
	r := start(t, cfg)
	r.begin()
	for i := range 600 {
		want.append(t, r, int32(i%2), producerBatch(3, 9000, int64(i%2), 0, int32(i/2*3)))
	}
	r.awaitSealed()
	before := r.Stats().Files
	for p := range int32(2) {
		q := r.queue(1, p)
		if err := q.SetLogStart(ctx, 600); err != nil {
			t.Fatal(err)
		}
		want.batches[p] = want.batches[p][200:]
	}
	await(t, "reclaim", func() bool { return r.Stats().Files <= before-3 })
	want.check(t, r)
	r.stop()

	r = start(t, cfg)
	r.begin()
	for p := range int32(2) {
		q := r.queue(1, p)
		if q.LogStart() != 600 || q.HighWatermark() != 900 {
			t.Fatalf("partition %d: log start %d, high watermark %d", p, q.LogStart(), q.HighWatermark())
		}
		if err := q.Read(ctx, ReadOptions{From: 599, MaxBytes: 1}, &Records{}); !errors.Is(err, ErrOutOfRange) {
			t.Fatalf("read below the log start: %v", err)
		}
		ps, err := q.Producers(ctx)
		if err != nil || len(ps) != 1 || len(ps[0].Batches) != 5 || ps[0].Batches[4].LastOffset != 899 {
			t.Fatalf("producers %+v, %v", ps, err)
		}
	}
	want.check(t, r)
	r.stop()
}
