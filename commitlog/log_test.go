package commitlog

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"hash/crc32"
	"testing"

	"github.com/skeinmq/skein/internal/ident"
	"github.com/skeinmq/skein/internal/vfs"
)

// testBatch is a record batch whose records are opaque bytes.
func testBatch(records int32, fill byte, size int) []byte {
	b := make([]byte, batchHeaderSize+size)
	be := binary.BigEndian
	be.PutUint32(b[batchLengthOff:], uint32(len(b)-batchLeaderOff))
	b[batchMagicOff] = 2
	be.PutUint32(b[batchLastDeltaOff:], uint32(records-1))
	be.PutUint64(b[batchMaxTimeOff:], 1000)
	be.PutUint64(b[batchProducerOff:], 1<<64-1)
	be.PutUint16(b[batchEpochOff:], 1<<16-1)
	be.PutUint32(b[batchSequenceOff:], 1<<32-1)
	for i := range b[batchHeaderSize:] {
		b[batchHeaderSize+i] = fill + byte(i)
	}
	seal(b)
	return b
}

func seal(b []byte) {
	binary.BigEndian.PutUint32(b[batchCRCOff:], crc32.Checksum(b[batchAttributesOff:], castagnoli))
}

// producerBatch is testBatch with a producer.
func producerBatch(records int32, size int, id int64, epoch int16, seq int32) []byte {
	b := testBatch(records, 7, size)
	be := binary.BigEndian
	be.PutUint64(b[batchProducerOff:], uint64(id))
	be.PutUint16(b[batchEpochOff:], uint16(epoch))
	be.PutUint32(b[batchSequenceOff:], uint32(seq))
	seal(b)
	return b
}

func batchOf(q *Queue, data []byte) Batch {
	f, err := readBatch(data)
	if err != nil {
		panic(err)
	}
	return Batch{
		Queue: q, Data: data, Records: f.records, MaxTimestamp: f.maxTime, ProducerID: f.producer,
		ProducerEpoch: f.epoch, BaseSequence: f.sequence, Transactional: f.transactional, Control: f.control,
	}
}

// running is an open log with its Run.
type running struct {
	*Log
	t      *testing.T
	cancel context.CancelFunc
	ended  chan error
}

func start(t *testing.T, cfg Config) *running {
	t.Helper()
	l, err := Open(context.Background(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	r := &running{Log: l, t: t, cancel: cancel, ended: make(chan error, 1)}
	go func() { r.ended <- l.Run(ctx) }()
	return r
}

func (r *running) stop() {
	r.t.Helper()
	r.cancel()
	if err := <-r.ended; err != nil && !errors.Is(err, ErrPoisoned) {
		r.t.Error(err)
	}
	if err := r.Close(); err != nil {
		r.t.Error(err)
	}
}

func (r *running) named() []MapGeneration {
	var out []MapGeneration
	for _, g := range r.Recovered().Generations {
		out = append(out, MapGeneration{Generation: g.Generation, Open: true})
	}
	return out
}

// begin opens the log with everything that it recovered, or with one fresh group.
func (r *running) begin() {
	r.t.Helper()
	ctx := context.Background()
	if err := r.Begin(ctx, r.Recovered().Epoch+1, r.named()); err != nil {
		r.t.Fatal(err)
	}
	if len(r.Recovered().Generations) == 0 {
		r.openGroup(1, 1, nil)
	}
}

func (r *running) openGroup(g ident.Group, e ident.Epoch, state []ident.PartitionState) ident.Generation {
	r.t.Helper()
	fr, err := r.Prepare(context.Background(), []Opening{{Group: g, Epoch: e, State: state}})
	if err != nil {
		r.t.Fatal(err)
	}
	gen := ident.Generation{Group: g, Epoch: e, Frame: fr[0]}
	if err := r.Activate([]ident.Generation{gen}); err != nil {
		r.t.Fatal(err)
	}
	return gen
}

func (r *running) queue(g ident.Group, p int32) *Queue {
	r.t.Helper()
	q, err := r.Queue(g, ident.Partition{Topic: ident.Topic{1}, Index: p})
	if err != nil {
		r.t.Fatal(err)
	}
	return q
}

func (r *running) append(batches ...Batch) []Result {
	r.t.Helper()
	done := make(chan struct{})
	a := &Append{Batches: batches, Done: func(*Append) { close(done) }}
	r.Append(a)
	<-done
	out := make([]Result, len(batches))
	for i := range a.Batches {
		out[i] = a.Batches[i].Result
	}
	return out
}

func readAll(t *testing.T, q *Queue) (out [][]byte) {
	t.Helper()
	var rec Records
	for at := max(q.Start(), q.LogStart()); at < q.HighWatermark(); at = rec.Next {
		rec.Release()
		if err := q.Read(context.Background(), ReadOptions{From: at, MaxBytes: 1 << 20, AtLeastOne: true}, &rec); err != nil {
			t.Fatalf("read %s at %d: %v", q.Partition(), at, err)
		}
		if len(rec.Slices) == 0 {
			t.Fatalf("read %s at %d of %d: nothing", q.Partition(), at, q.HighWatermark())
		}
		for _, s := range rec.Slices {
			out = append(out, bytes.Clone(s))
		}
	}
	rec.Release()
	return out
}

func testConfig(fs vfs.FS, dir string) Config {
	return Config{FS: fs, Dir: dir, ClusterID: "c", FileSize: 1 << 20, MaxBlock: 64 << 10, CacheBytes: 1 << 20}
}

func TestAppendReadReopen(t *testing.T) {
	for _, tc := range []struct {
		name string
		fs   vfs.FS
		dir  string
	}{{"mem", vfs.NewMem(), "data"}, {"disk", vfs.OS(), t.TempDir()}} {
		t.Run(tc.name, func(t *testing.T) {
			cfg := testConfig(tc.fs, tc.dir)
			var want [3][][]byte
			for round := range 3 {
				r := start(t, cfg)
				r.begin()
				for i := range 100 {
					var bs []Batch
					for p := range int32(3) {
						bs = append(bs, batchOf(r.queue(1, p), testBatch(5, byte(i+round), 3000+i)))
					}
					for p, res := range r.append(bs...) {
						if res.Err != nil {
							t.Fatal(res.Err)
						}
						w := bytes.Clone(bs[p].Data)
						stampBatch(w, ident.Offset(5*len(want[p])), 1)
						if res.Base != ident.Offset(5*len(want[p])) {
							t.Fatalf("base %d, want %d", res.Base, 5*len(want[p]))
						}
						want[p] = append(want[p], w)
					}
				}
				for p := range want {
					got := readAll(t, r.queue(1, int32(p)))
					if len(got) != len(want[p]) {
						t.Fatalf("round %d: %d batches, want %d", round, len(got), len(want[p]))
					}
					for i := range got {
						if !bytes.Equal(got[i], want[p][i]) {
							t.Fatalf("round %d: batch %d differs", round, i)
						}
					}
				}
				r.stop()
			}
		})
	}
}
