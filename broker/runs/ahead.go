package runs

import (
	"context"
	"sync"
	"time"

	"github.com/skeinmq/skein/internal/ident"
)

const (
	// aheadFor is how long a chunk waits for its reader.
	aheadFor = 10 * time.Second
	// aheadLeast is the smallest chunk that is worth a request of its own.
	aheadLeast = 64 << 10
)

// runKey names a run among all.
type runKey struct {
	partition  ident.Partition
	generation ident.Generation
}

// aheadKey names what a reader will ask for next.
type aheadKey struct {
	runKey
	from ident.Offset
}

// ahead holds the chunks that readers are likely to ask for next: the rest of the one before, or one that is being
// read meanwhile. Each is handed out once.
type ahead struct {
	limit int64
	ctx   context.Context
	end   context.CancelFunc
	work  sync.WaitGroup

	mu     sync.Mutex
	bytes  int64 // of all chunks, those that are on their way as large as they may get
	chunks map[aheadKey]*aheadChunk
	closed bool
}

type aheadChunk struct {
	done   chan struct{} // closed when got and err are set
	got    *batches
	err    error
	bytes  int64
	cancel context.CancelFunc
	expire *time.Timer
}

func (a *ahead) init(limit int64) {
	a.limit = limit
	a.ctx, a.end = context.WithCancel(context.Background())
	a.chunks = make(map[aheadKey]*aheadChunk)
}

func (a *ahead) close() {
	a.end()
	a.mu.Lock()
	a.closed = true
	for key, c := range a.chunks {
		a.remove(key, c)
	}
	a.mu.Unlock()
	a.work.Wait()
}

// remove takes a chunk out. The caller holds mu.
func (a *ahead) remove(key aheadKey, c *aheadChunk) {
	delete(a.chunks, key)
	a.bytes -= c.bytes
	c.expire.Stop()
}

// take returns the chunk that begins at an offset, nil if there is none. One that is on its way is waited for.
func (a *ahead) take(ctx context.Context, r *Remote, from ident.Offset) (*batches, error) {
	key := aheadKey{runKey{r.ref.Partition, r.ref.Generation}, from}
	a.mu.Lock()
	c := a.chunks[key]
	if c != nil {
		a.remove(key, c)
	}
	a.mu.Unlock()
	if c == nil {
		return nil, nil
	}
	select {
	case <-c.done:
	case <-ctx.Done():
		c.cancel()
		return nil, context.Cause(ctx)
	}
	if c.err != nil || len(c.got.list) == 0 {
		return nil, nil // asked for again, by who wants it now
	}
	r.c.metrics.ahead.Inc()
	return c.got, nil
}

// begin sees to what is at next: rest, or when that is empty, the chunk after it.
func (a *ahead) begin(r *Remote, next ident.Offset, rest *batches, most int) {
	if next >= r.ref.End {
		return
	}
	key := aheadKey{runKey{r.ref.Partition, r.ref.Generation}, next}
	c := &aheadChunk{done: make(chan struct{}), cancel: func() {}}
	fetch := len(rest.list) == 0
	if fetch {
		c.bytes = int64(max(most, aheadLeast))
	} else {
		c.got, c.bytes = rest, int64(rest.bytes)
		close(c.done)
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.closed || a.bytes+c.bytes > a.limit || a.chunks[key] != nil {
		return
	}
	a.chunks[key] = c
	a.bytes += c.bytes
	c.expire = time.AfterFunc(aheadFor, func() {
		a.mu.Lock()
		defer a.mu.Unlock()
		if a.chunks[key] == c {
			a.remove(key, c)
			c.cancel()
		}
	})
	if !fetch {
		return
	}
	var ctx context.Context
	ctx, c.cancel = context.WithCancel(a.ctx)
	size := int(c.bytes)
	a.work.Go(func() {
		defer c.cancel()
		defer close(c.done)
		c.got, c.err = r.fetch(ctx, next, size, true)
	})
}
