package commitlog

import (
	"sync"
	"sync/atomic"

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
// so a chunk that was given up but is still pinned comes on top of the limit. When
// that adds up to another limit, pin refuses and readers go to the disk: what can be
// allocated stays below three limits, however slow they are.
type memory struct {
	chunkSize int
	limit     int64
	spares    int // free chunks that are kept

	view atomic.Pointer[[]*chunk] // ordered by position; readers load it and never lock

	bytes atomic.Int64 // allocated, free ones included

	mu   sync.Mutex
	free []*chunk // of chunkSize, refs 0
}

func newMemory(chunkSize int, limit int64) *memory {
	m := &memory{chunkSize: chunkSize, limit: max(limit, int64(4*chunkSize)), spares: 4}
	m.view.Store(&[]*chunk{})
	return m
}

// open returns a chunk for the log from position on, at least n bytes long, with a
// reference for the cache and one for the caller. Only the sequencer calls it.
func (m *memory) open(at ident.Position, n int) (*chunk, error) {
	old := *m.view.Load()
	keep := old
	var sum int64
	for i := len(old) - 1; i >= 0; i-- {
		sum += int64(len(old[i].buf))
		if sum+int64(max(n, m.chunkSize)) > m.limit {
			keep = old[i+1:]
			for _, c := range old[:i+1] {
				c.unpin()
			}
			break
		}
	}
	c, err := m.get(n)
	if err != nil {
		return nil, err
	}
	c.first.Store(int64(at))
	c.used = 0
	c.refs.Store(2)
	next := make([]*chunk, 0, len(keep)+1)
	next = append(append(next, keep...), c)
	m.view.Store(&next)
	return c, nil
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
	if m.bytes.Load() > 2*m.limit {
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
	for _, c := range *m.view.Swap(&[]*chunk{}) {
		c.unpin()
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, c := range m.free {
		m.bytes.Add(-int64(len(c.buf)))
		_ = vfs.FreeAligned(c.buf) // as in put
	}
	m.free = nil
}
