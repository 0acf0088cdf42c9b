package commitlog

import (
	"context"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/skeinmq/skein/internal/ident"
)

// Consumer groups that lag in the same queue want the same part of the log within moments. What a large read fetched stays for a
// while, and who wants it before it is there waits for that read, so that groups which are near one another make one pass over the
// log together. Small reads have the page cache for that (heat).
const (
	passedMemory = 32 << 20        // bytes, on top of what readers hold
	passedFor    = 2 * time.Second // how long nobody needs to want what is kept
)

// passed holds what large reads fetched last.
type passed struct {
	held atomic.Int32 // len(list), for reads that need not lock

	mu     sync.Mutex
	list   []*stretch // oldest first
	bytes  int64      // of the list
	idle   *time.Timer
	closed bool
}

// stretch is a piece of the log that is being read, or was.
type stretch struct {
	from, to ident.Position
	done     chan struct{} // closed once it is known what became of the read
	b        []byte        // from to to; empty if the read failed. Valid once done is closed, as long as the chunk is pinned
	c        *chunk        // under passed.mu: nil until the read is over, and once it was given up
	old      bool          // under passed.mu: nobody has wanted it since the last look
}

// enter says where the first places of a plan, that one pread could fetch, come from. s is a stretch that has them, of somebody
// else or, if mine, of the caller's, who must read it and say so (finish); nil: the caller reads for itself. n is how many of the
// places that is true of.
func (a *passed) enter(plan []located) (s *stretch, n int, mine bool) {
	first := plan[0].position
	if a.held.Load() == 0 && plan[len(plan)-1].frameEnd()-first < directRead {
		return nil, len(plan), false
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	bound := plan[len(plan)-1].frameEnd()
	for _, other := range a.list {
		switch {
		case other.from <= first && plan[0].frameEnd() <= other.to:
			s = other
		case other.from > first:
			bound = min(bound, other.from)
		}
	}
	if s != nil {
		bound = s.to
	}
	for n = 1; n < len(plan) && plan[n].frameEnd() <= bound; n++ {
	}
	if s != nil || a.closed || plan[n-1].frameEnd()-first < directRead {
		return s, n, false
	}
	s = &stretch{from: first, to: plan[n-1].frameEnd(), done: make(chan struct{})}
	a.list = append(a.list, s)
	for a.bytes += s.size(); a.bytes > passedMemory; {
		a.drop(a.list[0])
	}
	a.held.Store(int32(len(a.list)))
	return s, n, true
}

func (s *stretch) size() int64 { return int64(s.to - s.from) }

// finish hands over what was read of a stretch, nil if nothing was. The chunk is the caller's.
func (a *passed) finish(s *stretch, b []byte, c *chunk) {
	a.mu.Lock()
	defer a.mu.Unlock()
	defer close(s.done)
	switch listed := slices.Contains(a.list, s); {
	case !listed: // it was pushed out, or everything is over
	case c == nil:
		a.drop(s)
	default:
		c.refs.Add(1)
		s.b, s.c = b, c
	}
	if a.idle == nil && len(a.list) > 0 {
		a.idle = time.AfterFunc(passedFor, a.rest)
	}
}

// pin waits for a stretch of somebody else's and pins its chunk for dst; nil: there is nothing to be had.
func (a *passed) pin(ctx context.Context, s *stretch, dst *Records) ([]byte, error) {
	select {
	case <-s.done:
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if s.c == nil {
		return nil, nil
	}
	s.old = false
	s.c.refs.Add(1)
	dst.hold(s.c)
	return s.b, nil
}

// drop gives up a stretch that is listed. The caller holds mu.
func (a *passed) drop(s *stretch) {
	i := slices.Index(a.list, s)
	a.list = slices.Delete(a.list, i, i+1)
	a.held.Store(int32(len(a.list)))
	a.bytes -= s.size()
	if s.c != nil {
		s.c.unpin()
		s.c = nil
	}
}

// rest gives up what nobody has wanted since it ran last.
func (a *passed) rest() {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.idle == nil {
		return // closed
	}
	for _, s := range slices.Clone(a.list) {
		if s.old && s.c != nil {
			a.drop(s)
		}
		s.old = true
	}
	if len(a.list) == 0 {
		a.idle = nil
		return
	}
	a.idle.Reset(passedFor)
}

// close gives everything up.
func (a *passed) close() {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.closed = true; a.idle != nil {
		a.idle.Stop()
		a.idle = nil
	}
	for len(a.list) > 0 {
		a.drop(a.list[0])
	}
}
