package commitlog

import (
	"context"
	"errors"
	"io"
	"testing"

	"github.com/skeinmq/skein/internal/vfs"
)

// FuzzRecovery overwrites a piece of a good log with arbitrary bytes and opens it. It must
// not panic, must end, and must serve nothing but what was written, or refuse it.
func FuzzRecovery(f *testing.F) {
	mem := vfs.NewMem()
	m := newModel()
	if err := story(mem, m); err != nil {
		f.Fatal(err)
	}
	names, err := mem.List("data/log")
	if err != nil {
		f.Fatal(err)
	}
	f.Add(uint8(0), uint32(fileHeaderSize), []byte{1, 2, 3})
	f.Add(uint8(1), uint32(fileHeaderSize+blockHeaderSize), make([]byte, 4096))
	f.Add(uint8(2), uint32(0), make([]byte, 100))
	f.Add(uint8(3), uint32(fileHeaderSize), make([]byte, 60000))
	f.Fuzz(func(t *testing.T, file uint8, off uint32, junk []byte) {
		disk := mem.Crash(1)
		h, err := disk.Open("data/log/"+names[int(file)%len(names)], vfs.OpenOptions{Write: true})
		if errors.Is(err, vfs.ErrLocked) || err != nil {
			t.Skip()
		}
		size, err := h.Size()
		if err != nil || int64(off)+int64(len(junk)) > size {
			t.Skip()
		}
		if _, err := h.WriteAt(junk, int64(off)); err != nil && err != io.EOF {
			t.Fatal(err)
		}
		if err := errors.Join(h.Sync(), h.Close()); err != nil {
			t.Fatal(err)
		}
		l, err := Open(context.Background(), modelConfig(disk))
		if err != nil {
			return
		}
		defer l.Close()
		for p, part := range m.parts {
			for _, g := range m.gens {
				if q, ok := l.Sealed(g.Generation, modelPartition(p)); ok && !part.dropped {
					ctx, cancel := context.WithCancel(context.Background())
					cancel() // no rebuild: Run is not there
					readJunk(ctx, t, q, part)
				}
			}
		}
	})
}

// readJunk reads a queue; whatever comes must have been written.
func readJunk(ctx context.Context, t *testing.T, q *Queue, part *modelPart) {
	t.Helper()
	var rec Records
	defer rec.Release()
	for at := max(q.Start(), q.LogStart()); at < q.HighWatermark(); at++ {
		rec.Release()
		if err := q.Read(ctx, ReadOptions{From: at, MaxBytes: 1 << 20, AtLeastOne: true}, &rec); err != nil {
			continue
		}
		for _, s := range rec.Slices {
			found := false
			for _, want := range part.sent {
				found = found || string(want[batchHeaderSize:]) == string(s[batchHeaderSize:])
			}
			if !found {
				t.Fatalf("%s at %d: bytes that nobody wrote", q.Partition(), at)
			}
		}
	}
}
