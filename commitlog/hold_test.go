package commitlog

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/skeinmq/skein/internal/ident"
	"github.com/skeinmq/skein/internal/vfs"
)

// later appends batches without waiting; the channel has the append once it is answered.
func (r *running) later(batches ...Batch) chan *Append {
	done := make(chan *Append, 1)
	r.Append(&Append{Batches: batches, Done: func(a *Append) { done <- a }})
	return done
}

func (r *running) freezeNow(g ident.Group) []ident.PartitionState {
	r.t.Helper()
	states, err := r.Freeze(context.Background(), g)
	if err != nil {
		r.t.Fatal(err)
	}
	return states[g]
}

// TestHeldAppends: what comes while a group is frozen waits, in order; other groups go on. It waits for a second: one of a bubble.
func TestHeldAppends(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := start(t, testConfig(vfs.NewMem(), "data"))
		defer r.stop()
		r.begin()
		r.openGroup(2, 1, nil)
		held, free := r.queue(1, 0), r.queue(2, 0)
		r.append(batchOf(held, testBatch(2, 1, 10)))
		if got := r.freezeNow(1); len(got) != 1 || got[0].End != 2 {
			t.Fatalf("state of the frozen group: %+v", got)
		}
		var waiting []chan *Append
		for i := range 3 { // with one batch of another group among them
			bs := []Batch{batchOf(held, testBatch(1, byte(i), 10))}
			if i == 1 {
				bs = append(bs, batchOf(free, testBatch(1, 9, 10)))
			}
			waiting = append(waiting, r.later(bs...))
		}
		if res := r.append(batchOf(free, testBatch(1, 5, 10)))[0]; res.Err != nil || res.Base != 1 {
			t.Fatalf("append to a group that is not frozen: %+v", res)
		}
		for i, w := range waiting {
			select {
			case <-w:
				t.Fatalf("append %d was answered in the freeze", i)
			default:
			}
		}
		if err := r.Thaw(1); err != nil {
			t.Fatal(err)
		}
		for i, w := range waiting {
			if a := <-w; a.Batches[0].Result.Err != nil || a.Batches[0].Result.Base != ident.Offset(2+i) {
				t.Errorf("append %d after the thaw: %+v", i, a.Batches[0].Result)
			}
		}
		// The next freeze ends with a move: all are refused, and the generation has what it had.
		states := r.freezeNow(1)
		w := r.later(batchOf(held, testBatch(1, 1, 10)))
		gen := held.Generation()
		if err := r.Seal(context.Background(), MapGeneration{Generation: gen, Ends: map[ident.Partition]ident.Offset{held.Partition(): states[0].End}}); err != nil {
			t.Fatal(err)
		}
		if a := <-w; !errors.Is(a.Batches[0].Result.Err, ErrNotOpen) {
			t.Errorf("append after the move: %+v", a.Batches[0].Result)
		}
		if held.HighWatermark() != 5 {
			t.Errorf("high watermark %d, want 5", held.HighWatermark())
		}
	})
}

// TestHeldAppendsEnd: a wait ends with the log, with the fence, and after a second.
func TestHeldAppendsEnd(t *testing.T) {
	for name, end := range map[string]struct {
		do   func(r *running)
		want error
	}{
		"closed": {func(r *running) { r.cancel() }, ErrClosed},
		"fenced": {func(r *running) { r.Fence(errors.New("sealed by somebody")) }, ErrFenced},
		"late":   {func(*running) { time.Sleep(holdTime + time.Millisecond) }, ErrFrozen},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := start(t, testConfig(vfs.NewMem(), "data"))
				defer r.stop()
				r.begin()
				q := r.queue(1, 0)
				r.freezeNow(1)
				w := r.later(batchOf(q, testBatch(1, 1, 10)))
				synctest.Wait()
				end.do(r)
				if a := <-w; !errors.Is(a.Batches[0].Result.Err, end.want) {
					t.Errorf("got %+v, want %v", a.Batches[0].Result, end.want)
				}
				if name != "late" {
					return
				}
				// What follows a refusal is refused, too: it must not overtake.
				if res := r.append(batchOf(q, testBatch(1, 2, 10)))[0]; !errors.Is(res.Err, ErrFrozen) {
					t.Errorf("append after a refusal: %+v", res)
				}
				if err := r.Thaw(1); err != nil {
					t.Fatal(err)
				}
				if res := r.append(batchOf(q, testBatch(1, 3, 10)))[0]; res.Err != nil || res.Base != 0 {
					t.Errorf("append after the thaw: %+v", res)
				}
			})
		})
	}
}

// TestHeldWhenStopped: what the sequencer meets for a frozen group after it was told to stop is refused. Which of the two
// it sees first is the runtime's choice, so it is asked often.
func TestHeldWhenStopped(t *testing.T) {
	for range 32 {
		synctest.Test(t, func(t *testing.T) {
			r := start(t, testConfig(vfs.NewMem(), "data"))
			defer r.stop()
			r.begin()
			q := r.queue(1, 0)
			r.freezeNow(1)
			busy := make(chan struct{})
			err := r.inbox.put(submission{step: func(*sequencer) bool { <-busy; return true }, fail: func(error) {}})
			if err != nil {
				t.Fatal(err)
			}
			synctest.Wait()
			w := r.later(batchOf(q, testBatch(1, 1, 10)))
			r.cancel()
			close(busy)
			select {
			case a := <-w:
				if err := a.Batches[0].Result.Err; !errors.Is(err, ErrClosed) && !errors.Is(err, ErrFrozen) {
					t.Errorf("got %v, want %v or %v", err, ErrClosed, ErrFrozen)
				}
			case <-time.After(2 * holdTime):
				t.Error("an append to a frozen group was not answered when the log ended")
			}
		})
	}
}

// TestFence: a fenced log answers what it has not committed with the fence, and nothing more.
func TestFence(t *testing.T) {
	r := start(t, testConfig(vfs.NewMem(), "data"))
	defer r.stop()
	r.begin()
	q := r.queue(1, 0)
	r.append(batchOf(q, testBatch(1, 1, 10)))
	r.Fence(errors.New("the record is at epoch 7"))
	if res := r.append(batchOf(q, testBatch(1, 2, 10)))[0]; !errors.Is(res.Err, ErrFenced) {
		t.Errorf("append to a fenced log: %+v", res)
	}
	<-r.Poisoned()
	if err := r.Err(); !errors.Is(err, ErrFenced) || !errors.Is(err, ErrPoisoned) {
		t.Errorf("why it is dead: %v", err)
	}
}
