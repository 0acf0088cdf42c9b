package broker

import (
	"container/list"
	"context"
	"math/bits"
	"sync"
	"sync/atomic"
)

// memory is the budget of bytes for requests in flight. Bytes are reserved before a body is read; when
// the budget is spent the connection is simply not read, and the client sees TCP's back-pressure. Waiters are served
// in the order they came, so that a large request is not starved by small ones.
type memory struct {
	limit int64
	used  atomic.Int64

	mu      sync.Mutex
	waiters list.List // of *memoryWaiter
	waiting atomic.Int64
}

type memoryWaiter struct {
	n     int64
	ready chan struct{}
}

// try reserves n bytes if they are there and nobody waits for some.
func (m *memory) try(n int64) bool {
	if m.waiting.Load() > 0 {
		return false
	}
	if m.used.Add(n) > m.limit {
		m.used.Add(-n)
		return false
	}
	return true
}

// reserve waits for n bytes; more than the whole budget counts as the whole budget, and what was reserved is returned.
func (m *memory) reserve(ctx context.Context, n int64) (int64, error) {
	n = min(n, m.limit)
	if m.try(n) {
		return n, nil
	}
	m.mu.Lock()
	w := &memoryWaiter{n: n, ready: make(chan struct{})}
	e := m.waiters.PushBack(w)
	m.waiting.Add(1)
	m.grant()
	m.mu.Unlock()
	select {
	case <-w.ready:
		return n, nil
	case <-ctx.Done():
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	select {
	case <-w.ready: // granted at the last moment: give it back
		m.used.Add(-n)
	default:
		m.waiters.Remove(e)
		m.waiting.Add(-1)
	}
	m.grant()
	return 0, context.Cause(ctx)
}

// release returns n reserved bytes.
func (m *memory) release(n int64) {
	m.used.Add(-n)
	if m.waiting.Load() > 0 {
		m.mu.Lock()
		m.grant()
		m.mu.Unlock()
	}
}

// grant serves waiters as far as the budget goes; mu is held.
func (m *memory) grant() {
	for e := m.waiters.Front(); e != nil; e = m.waiters.Front() {
		w := e.Value.(*memoryWaiter)
		if m.used.Add(w.n) > m.limit {
			m.used.Add(-w.n)
			return
		}
		m.waiters.Remove(e)
		m.waiting.Add(-1)
		close(w.ready)
	}
}

// buffer is a pooled piece of memory. b has the length that was asked for.
type buffer struct {
	b     []byte
	class int8 // index of its pool, -1 if it has none
}

// Pooled sizes are 1, 1¼, 1½ and 1¾ times the powers of two from 4 KiB to 16 MiB, so that at most a quarter of a
// buffer is idle.
const (
	minBufferBits = 12
	maxBufferBits = 24
	bufferClasses = (maxBufferBits-minBufferBits)*4 + 1
)

var bufferPools [bufferClasses]sync.Pool

// bufferClass returns the smallest class whose buffers hold n bytes and its size, or -1.
func bufferClass(n int) (class, size int) {
	if n <= 1<<minBufferBits {
		return 0, 1 << minBufferBits
	}
	if n > 1<<maxBufferBits {
		return -1, n
	}
	low := bits.Len(uint(n-1)) - 1 // 1<<low < n <= 1<<(low+1)
	quarter := 1 << (low - 2)
	steps := (n - 1<<low + quarter - 1) / quarter // 1 to 4
	return (low-minBufferBits)*4 + steps, 1<<low + steps*quarter
}

// getBuffer returns a buffer of n bytes with whatever content.
func getBuffer(n int) *buffer {
	class, size := bufferClass(n)
	if class >= 0 {
		if buf, ok := bufferPools[class].Get().(*buffer); ok {
			buf.b = buf.b[:n]
			return buf
		}
	}
	return &buffer{b: make([]byte, n, size), class: int8(class)}
}

// release gives the buffer back; nobody may use it any more. A nil buffer is fine.
func (buf *buffer) release() {
	if buf == nil || buf.class < 0 {
		return
	}
	if cap(buf.b) != classSize(int(buf.class)) {
		return // it was grown by append
	}
	bufferPools[buf.class].Put(buf)
}

// classSize is the capacity of the buffers of a class.
func classSize(class int) int {
	if class == 0 {
		return 1 << minBufferBits
	}
	low := minBufferBits + (class-1)/4
	return 1<<low + ((class-1)%4+1)<<(low-2)
}
