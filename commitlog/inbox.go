package commitlog

import (
	"sync"
	"sync/atomic"
	"time"
)

// submission is one thing for the sequencer to do: an append, or a step that runs on
// its goroutine.
type submission struct {
	a *Append
	// step returns false when there was no room and it must be called again.
	step func(*sequencer) bool
	// fail is told when step will never be called.
	fail func(error)
}

// inbox is the way into the sequencer: many put, one takes everything at once.
type inbox struct {
	mu        sync.Mutex
	items     []submission
	since     time.Time // when the first of items came
	closed    error
	left      atomic.Int64 // what was taken and is in no block yet
	leftSince atomic.Int64 // when the oldest of that came, or one that was taken with it; ns since 1970
	wake      waker        // capacity 1: a token means look again
}

func newInbox() *inbox { return &inbox{wake: newWaker()} }

// put hands one submission over, or returns why the inbox is closed.
func (in *inbox) put(s submission) error {
	in.mu.Lock()
	if in.closed != nil {
		in.mu.Unlock()
		return in.closed
	}
	first := len(in.items) == 0
	if first {
		in.since = time.Now()
	}
	in.items = append(in.items, s)
	in.mu.Unlock()
	if first {
		in.wake.poke()
	}
	return nil
}

// take swaps the waiting items for an empty slice.
func (in *inbox) take(empty []submission) []submission {
	in.mu.Lock()
	defer in.mu.Unlock()
	out := in.items
	in.items = empty
	if len(out) > 0 {
		in.leftSince.Store(in.since.UnixNano())
	}
	in.left.Store(int64(len(out)))
	return out
}

// empty reports whether nothing waits to be taken.
func (in *inbox) empty() bool {
	in.mu.Lock()
	defer in.mu.Unlock()
	return len(in.items) == 0
}

// waiting is how many submissions are in no block yet, and how long the oldest has waited, in seconds, at most.
func (in *inbox) waiting() (n int, oldest float64) {
	in.mu.Lock()
	n = len(in.items)
	since := in.since
	in.mu.Unlock()
	if left := int(in.left.Load()); left > 0 {
		n, since = n+left, time.Unix(0, in.leftSince.Load())
	}
	if n == 0 {
		return 0, 0
	}
	return n, max(time.Since(since).Seconds(), 0)
}

// close makes every later put fail with err; what is inside stays.
func (in *inbox) close(err error) {
	in.mu.Lock()
	defer in.mu.Unlock()
	if in.closed == nil {
		in.closed = err
	}
}
