package commitlog

import (
	"context"
	"errors"
	"testing"

	"github.com/skeinmq/skein/internal/ident"
	"github.com/skeinmq/skein/internal/vfs"
)

// passedCeiling appends past a generation's ceiling and says whether an offset beyond it was given.
func passedCeiling(t *testing.T) bool {
	r := start(t, testConfig(vfs.NewMem(), "data"))
	defer r.stop()
	if err := r.Begin(context.Background(), 1, nil); err != nil {
		t.Fatal(err)
	}
	frames, err := r.Prepare(context.Background(), []Opening{{Group: 1, Epoch: 1, Ceiling: 100}})
	if err != nil {
		t.Fatal(err)
	}
	gen := ident.Generation{Group: 1, Epoch: 1, Frame: frames[0]}
	if err := r.Activate([]ident.Generation{gen}); err != nil {
		t.Fatal(err)
	}
	asked := func() (got []LowCeiling) {
		select {
		case <-r.LowCeilings():
			return r.TakeLowCeilings()
		default:
			return nil
		}
	}
	q := r.queue(1, 0)
	passed := false
	for range 5 {
		r.append(batchOf(q, testBatch(10, 1, 200)))
	}
	if got := asked(); got != nil {
		t.Errorf("asked for %v at half of the ceiling", got)
	}
	for range 5 {
		r.append(batchOf(q, testBatch(10, 1, 200)))
	}
	if got := asked(); len(got) != 1 || got[0] != (LowCeiling{gen, 60}) {
		t.Errorf("asked for %v beyond half of the ceiling", got)
	}
	for range 3 {
		res := r.append(batchOf(q, testBatch(10, 1, 200)))[0]
		passed = passed || res.Err == nil && res.Base+10 > 100
		if res.Err != nil && !errors.Is(res.Err, ErrFrozen) {
			t.Errorf("beyond the ceiling: %v", res.Err)
		}
	}
	if passed {
		return true
	}
	if got := asked(); len(got) != 1 || got[0].End != 110 {
		t.Errorf("asked for %v at the ceiling", got)
	}
	if err := r.RaiseCeiling(gen, 300); err != nil {
		t.Fatal(err)
	}
	if res := r.append(batchOf(q, testBatch(10, 1, 200)))[0]; res.Err != nil || res.Base != 100 {
		t.Errorf("after the raise: %+v", res)
	}
	return false
}

// TestCeiling: no offset at or past the ceiling is given, more is asked for in time, and a raise lets appends go on.
func TestCeiling(t *testing.T) {
	if passedCeiling(t) {
		t.Error("an offset past the ceiling was given")
	}
}

// TestGapSeal: a generation that was sealed at its ceiling ends with what the disk has, again and again.
func TestGapSeal(t *testing.T) {
	cfg := testConfig(vfs.NewMem(), "data")
	r := start(t, cfg)
	r.begin()
	want := newExpected()
	for i := range 5 {
		want.append(t, r, 0, testBatch(10, byte(i), 300))
	}
	gen := r.queue(1, 0).Generation()
	r.stop()
	part := func(i int32) ident.Partition { return ident.Partition{Topic: ident.Topic{1}, Index: i} }
	named := MapGeneration{Generation: gen, Gap: true, Ends: map[ident.Partition]ident.Offset{part(0): 1000, part(1): 1000}}
	for range 2 {
		r = start(t, cfg)
		if err := r.Begin(context.Background(), r.Recovered().Epoch+1, []MapGeneration{named}); err != nil {
			t.Fatal(err)
		}
		q, ok := r.Sealed(gen, part(0))
		if !ok || q.HighWatermark() != 50 || q.Open() {
			t.Fatalf("the queue ends at %d, open %v", q.HighWatermark(), q.Open())
		}
		if got := readAll(t, q); len(got) != 5 {
			t.Errorf("%d batches, want 5", len(got))
		}
		if q, ok := r.Sealed(gen, part(1)); ok && q.HighWatermark() != 0 {
			t.Errorf("a partition without records ends at %d", q.HighWatermark())
		}
		r.stop()
	}
}
