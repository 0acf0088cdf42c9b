package commitlog

import (
	"context"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/skeinmq/skein/internal/ident"
	"github.com/skeinmq/skein/internal/invariant"
	"github.com/skeinmq/skein/internal/vfs"
)

// chunk is a piece of off-heap memory that mirrors a contiguous piece of the log:
// blocks are built in it, written from it and read from it. It is reference
// counted; the cache holds one reference, the block being built one, each reader
// one.
type chunk struct {
	buf  []byte
	refs atomic.Int64
	home *memory

	first atomic.Int64 // position of buf[0]
	used  int          // bytes taken by blocks; owned by the sequencer
}

// tryPin takes a reference unless the chunk was given back.
func (c *chunk) tryPin() bool {
	for {
		n := c.refs.Load()
		if n == 0 {
			return false
		}
		if c.refs.CompareAndSwap(n, n+1) {
			return true
		}
	}
}

func (c *chunk) unpin() {
	if c.refs.Add(-1) == 0 {
		c.home.put(c)
	}
}

// memory is the bounded cache of recent blocks: chunks in log order, the oldest of
// which is given up when a new one is needed. The sequencer never waits for a reader,
// so a chunk that was given up but is still pinned comes on top of the limit. Beyond a
// second limit, slack, that is taken off the first one; and while more than both is
// allocated, pin refuses and readers go to the disk. So what is allocated stays below
// the sum of the two and keptChunks, however slow readers are.
type memory struct {
	chunkSize int
	slack     int64
	spares    int // free chunks that are kept

	limit atomic.Int64
	view  atomic.Pointer[[]*chunk] // ordered by position; readers load it and never lock

	bytes atomic.Int64 // allocated, free ones included
	taken waker        // a chunk was: run looks whether there are enough

	mu     sync.Mutex
	cached int64    // bytes of view
	free   []*chunk // of chunkSize, refs 0
}

const (
	keptChunks  = 4 // are cached whatever the limits say: the newest block is among them
	readyChunks = 2 // are got ready ahead
)

func newMemory(chunkSize int, limit int64) *memory {
	m := &memory{chunkSize: chunkSize, slack: max(limit, keptChunks*int64(chunkSize)), spares: 4, taken: newWaker()}
	m.limit.Store(m.slack)
	m.view.Store(&[]*chunk{})
	return m
}

// open returns a chunk for the log from position on, at least n bytes long, with a
// reference for the cache and one for the caller. Only the sequencer calls it.
func (m *memory) open(at ident.Position, n int) (*chunk, error) {
	m.shrink(int64(max(n, m.chunkSize)))
	m.recycle()
	c, err := m.get(n)
	if err != nil {
		return nil, err
	}
	c.first.Store(int64(at))
	c.used = 0
	c.refs.Store(2)
	m.mu.Lock()
	defer m.mu.Unlock()
	next := append(*m.view.Load(), c) // behind the end of what readers see of the same array
	m.view.Store(&next)
	m.cached += int64(len(c.buf))
	m.taken.poke()
	return c, nil
}

// run gets chunks ready ahead, as far as the limit allows, until ctx ends: new memory is zeroed by the kernel, which takes milliseconds
// for each on a machine whose host has to find it first.
func (m *memory) run(ctx context.Context) {
	for {
		if m.prepare() {
			continue
		}
		select {
		case <-m.taken:
		case <-ctx.Done():
			return
		}
	}
}

// prepare makes one more free chunk, if there is room, and reports whether it did.
func (m *memory) prepare() bool {
	m.mu.Lock()
	free := int64(len(m.free) * m.chunkSize)
	room := len(m.free) < readyChunks && m.cached+free+int64(m.chunkSize) <= m.most(m.gone())
	m.mu.Unlock()
	if !room {
		return false
	}
	buf, err := vfs.AllocAligned(m.chunkSize)
	if err != nil {
		return false // whoever cannot do without one says so
	}
	populate(buf)
	m.bytes.Add(int64(len(buf)))
	m.put(&chunk{buf: buf, home: m})
	return true
}

// populate gets memory from the kernel a huge page at a time, and rests as long after each: clients wait for the processors meanwhile.
func populate(buf []byte) {
	for part := range slices.Chunk(buf, vfs.HugePage) {
		begun := time.Now()
		vfs.Populate(part)
		time.Sleep(time.Since(begun))
	}
}

// setLimit changes how much is cached, at once if it is less than before.
func (m *memory) setLimit(limit int64) {
	m.limit.Store(max(limit, keptChunks*int64(m.chunkSize)))
	m.shrink(0)
}

// shrink gives up the oldest chunks until there is room for that many bytes.
func (m *memory) shrink(room int64) {
	m.mu.Lock()
	n, view, cached, gone := 0, *m.view.Load(), m.cached, m.gone()
	for ; n < len(view)-keptChunks && cached+room > m.most(gone); n++ {
		cached -= int64(len(view[n].buf))
		if view[n].refs.Load() > 1 {
			gone += int64(len(view[n].buf))
		}
	}
	old := m.dropOldest(n)
	m.mu.Unlock()
	letGo(old)
}

// recycle frees the oldest chunk if none is free, once slack is cached: the sequencer does not wait for new memory. What has not been
// got ready in time does not grow the cache.
func (m *memory) recycle() {
	m.mu.Lock()
	var old []*chunk
	if len(m.free) == 0 && m.cached >= m.slack && len(*m.view.Load()) > keptChunks {
		old = m.dropOldest(1)
	}
	m.mu.Unlock()
	letGo(old)
}

// gone is the bytes of chunks that were given up and are still pinned. The caller holds mu.
func (m *memory) gone() int64 {
	return m.bytes.Load() - int64(len(m.free)*m.chunkSize) - m.cached
}

// most is what may be cached while that much is gone.
func (m *memory) most(gone int64) int64 { return m.limit.Load() - max(0, gone-m.slack) }

// dropOldest takes n chunks out of the view; their references are the caller's, who holds mu and lets them go without it: to unmap
// memory takes a while.
func (m *memory) dropOldest(n int) []*chunk {
	view := *m.view.Load()
	for _, c := range view[:n] {
		m.cached -= int64(len(c.buf))
	}
	keep := view[n:]
	m.view.Store(&keep)
	return view[:n:n]
}

func letGo(list []*chunk) {
	for _, c := range list {
		c.unpin()
	}
}

func (m *memory) get(n int) (*chunk, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if n <= m.chunkSize {
		n = m.chunkSize
		if k := len(m.free); k > 0 {
			c := m.free[k-1]
			m.free = m.free[:k-1]
			return c, nil
		}
	}
	buf, err := vfs.AllocAligned(n)
	if err != nil {
		return nil, err
	}
	m.bytes.Add(int64(len(buf)))
	return &chunk{buf: buf, home: m}, nil
}

// mangled is what a released chunk holds in builds that check invariants.
const mangled = 0xDB

// put takes a chunk that nobody references. A spare or two is kept.
func (m *memory) put(c *chunk) {
	if invariant.Enabled { // whoever still reads it shall see that it is not his
		for i := range c.buf {
			c.buf[i] = mangled
		}
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if len(c.buf) == m.chunkSize && len(m.free) < m.spares {
		m.free = append(m.free, c)
		return
	}
	m.bytes.Add(-int64(len(c.buf)))
	_ = vfs.FreeAligned(c.buf) // an address that munmap gave us cannot be refused
	c.buf = nil
}

// pin finds the n bytes at a position and pins their chunk, or returns nil.
func (m *memory) pin(at ident.Position, n int) (*chunk, []byte) {
	if m.bytes.Load() > m.limit.Load()+m.slack {
		return nil, nil
	}
	view := *m.view.Load()
	lo, hi := 0, len(view)
	for lo < hi { // first chunk that begins past at
		mid := int(uint(lo+hi) >> 1)
		if view[mid].first.Load() <= int64(at) {
			lo = mid + 1
		} else {
			hi = mid
		}
	}
	if lo == 0 {
		return nil, nil
	}
	c := view[lo-1]
	if !c.tryPin() {
		return nil, nil
	}
	off := int64(at) - c.first.Load() // read after the pin: the chunk may have been reused
	if off < 0 || off+int64(n) > int64(len(c.buf)) {
		c.unpin()
		return nil, nil
	}
	return c, c.buf[off : off+int64(n) : off+int64(n)]
}

// holds reports whether a position is as new as what is kept.
func (m *memory) holds(at ident.Position) bool {
	view := *m.view.Load()
	return len(view) > 0 && int64(at) >= view[0].first.Load()
}

// clear gives up the cache's references.
func (m *memory) clear() {
	m.mu.Lock()
	all := m.dropOldest(len(*m.view.Load()))
	m.mu.Unlock()
	letGo(all)
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, c := range m.free {
		m.bytes.Add(-int64(len(c.buf)))
		_ = vfs.FreeAligned(c.buf) // as in put
	}
	m.free = nil
}
