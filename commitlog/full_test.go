package commitlog

import (
	"context"
	"errors"
	"testing"

	"github.com/skeinmq/skein/internal/vfs"
)

// TestFullDisk: everything is answered, nothing acked is lost, and appends go on when
// there is room again.
func TestFullDisk(t *testing.T) {
	mem := vfs.NewMem()
	cfg := testConfig(mem, "data")
	r := start(t, cfg)
	r.begin()
	q := r.queue(1, 0)
	mem.SetCapacity(6 << 20)
	acked := 0
	for range 1000 {
		err := r.append(batchOf(q, testBatch(1, 1, 50000)))[0].Err
		if errors.Is(err, ErrFull) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		acked++
	}
	if acked == 1000 {
		t.Fatal("the disk never became full")
	}
	if got := len(readAll(t, q)); got != acked {
		t.Fatalf("%d batches, acked %d", got, acked)
	}
	if r.Stats().Level != LevelRefuse {
		t.Fatalf("level %d", r.Stats().Level)
	}
	mem.SetCapacity(1 << 40)
	await(t, "room", func() bool { return r.append(batchOf(q, testBatch(1, 1, 50000)))[0].Err == nil })
	r.stop()

	// A log that cannot even begin says so.
	small := vfs.NewMem()
	small.SetCapacity(1 << 20)
	r = start(t, testConfig(small, "data"))
	if err := r.Begin(context.Background(), 1, nil); !errors.Is(err, ErrFull) {
		t.Fatalf("begin on a full disk: %v", err)
	}
	r.stop()
}
