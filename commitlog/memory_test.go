package commitlog

import (
	"context"
	"encoding/binary"
	"math/rand/v2"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/skeinmq/skein/internal/ident"
	"github.com/skeinmq/skein/internal/invariant"
)

const memoryTestChunk = 64 << 10

// fillChunk writes at each 8 bytes of a chunk their position in the log.
func fillChunk(c *chunk) {
	for i := 0; i+8 <= len(c.buf); i += 8 {
		binary.LittleEndian.PutUint64(c.buf[i:], uint64(c.first.Load())+uint64(i))
	}
}

func holdsPositions(b []byte, at ident.Position) bool {
	for i := 0; i+8 <= len(b); i += 8 {
		if binary.LittleEndian.Uint64(b[i:]) != uint64(at)+uint64(i) {
			return false
		}
	}
	return true
}

func TestMemoryServesTheNewestAndDropsTheOldest(t *testing.T) {
	m := newMemory(memoryTestChunk, 8*memoryTestChunk)
	for i := range ident.Position(20) {
		c, err := m.open(i*memoryTestChunk, 100)
		if err != nil {
			t.Fatal(err)
		}
		fillChunk(c)
		c.unpin()
	}
	if n := m.bytes.Load(); n > 8*memoryTestChunk {
		t.Errorf("%d bytes allocated without readers", n)
	}
	for i := range ident.Position(20) {
		at := i*memoryTestChunk + 4096
		c, b := m.pin(at, 512)
		if want := i >= 12; (c != nil) != want {
			t.Fatalf("chunk %d in memory: %v, want %v", i, c != nil, want)
		}
		if c == nil {
			continue
		}
		if len(b) != 512 || !holdsPositions(b, at) {
			t.Errorf("chunk %d holds other bytes", i)
		}
		c.unpin()
		if c, _ := m.pin((i+1)*memoryTestChunk-8, 16); c != nil {
			t.Errorf("a range over the end of chunk %d was pinned", i)
		}
	}
	m.clear()
	if n := m.bytes.Load(); n != 0 {
		t.Errorf("%d bytes left after clear", n)
	}
}

// TestMemoryIsBoundedUnderSlowReaders: readers that never let go do not make the
// log take more and more memory.
func TestMemoryIsBoundedUnderSlowReaders(t *testing.T) {
	const limit = 8 * memoryTestChunk
	m := newMemory(memoryTestChunk, limit)
	var held []*chunk
	refused := 0
	for i := range ident.Position(200) {
		c, err := m.open(i*memoryTestChunk, 100)
		if err != nil {
			t.Fatal(err)
		}
		fillChunk(c)
		c.unpin()
		if c, _ := m.pin(i*memoryTestChunk, 8); c != nil {
			held = append(held, c)
		} else {
			refused++
		}
		if n := m.bytes.Load(); n > 2*limit+(keptChunks+1)*memoryTestChunk {
			t.Fatalf("%d bytes allocated, limit %d", n, limit)
		}
	}
	if refused == 0 {
		t.Error("no pin was refused")
	}
	for _, c := range held {
		c.unpin()
	}
	if c, _ := m.pin(199*memoryTestChunk, 8); c == nil {
		t.Error("pins are still refused after the readers let go")
	} else {
		c.unpin()
	}
	m.clear()
	if n := m.bytes.Load(); n != 0 {
		t.Errorf("%d bytes left after clear", n)
	}
}

// TestMemoryLimitChanges: what is too much goes at once, what a reader holds when that reader lets go, and what is there later stays.
func TestMemoryLimitChanges(t *testing.T) {
	m := newMemory(memoryTestChunk, 8*memoryTestChunk)
	next := ident.Position(0)
	open := func(n int) {
		t.Helper()
		for range n {
			c, err := m.open(next*memoryTestChunk, 100)
			if err != nil {
				t.Fatal(err)
			}
			c.unpin()
			next++
		}
	}
	there := func(want int) {
		t.Helper()
		n := 0
		for i := range next {
			if c, _ := m.pin(i*memoryTestChunk, 8); c != nil {
				c.unpin()
				n++
			}
		}
		if n != want {
			t.Fatalf("%d chunks in memory, want %d", n, want)
		}
	}
	open(20)
	there(8)
	m.setLimit(16 * memoryTestChunk)
	there(8)
	open(20)
	there(8) // no new memory is ready: the sequencer does not wait for it
	for range 20 {
		m.prepare()
		open(1)
	}
	there(16)
	held, _ := m.pin((next-16)*memoryTestChunk, 8)
	m.setLimit(6 * memoryTestChunk)
	there(6)
	if n, most := m.bytes.Load(), int64(6+1+m.spares)*memoryTestChunk; n > most {
		t.Errorf("%d bytes allocated, want %d at most", n, most)
	}
	open(2)
	there(6)
	held.unpin()
	m.setLimit(0)
	there(keptChunks)
	m.clear()
	if n := m.bytes.Load(); n != 0 {
		t.Errorf("%d bytes left after clear", n)
	}
	m.setLimit(8 * memoryTestChunk) // after the end: nothing to give up
}

// TestMemoryIsGotReady: chunks are made beside the sequencer while the limit allows it, so that the cache grows.
func TestMemoryIsGotReady(t *testing.T) {
	m := newMemory(memoryTestChunk, 4*memoryTestChunk)
	m.setLimit(12 * memoryTestChunk)
	ctx, stop := context.WithCancel(t.Context())
	var running sync.WaitGroup
	running.Go(func() { m.run(ctx) })
	ready := func() int {
		m.mu.Lock()
		defer m.mu.Unlock()
		return len(m.free)
	}
	for i := range ident.Position(20) {
		for grown := m.cached >= 12*memoryTestChunk; !grown && ready() < 1; {
			time.Sleep(time.Millisecond)
		}
		c, err := m.open(i*memoryTestChunk, 100)
		if err != nil {
			t.Fatal(err)
		}
		c.unpin()
	}
	stop()
	running.Wait()
	if m.cached != 12*memoryTestChunk || ready() > readyChunks {
		t.Errorf("%d bytes in memory and %d chunks ready, want all that the limit allows and %d at most", m.cached, ready(), readyChunks)
	}
	m.clear()
	if n := m.bytes.Load(); n != 0 {
		t.Errorf("%d bytes left after clear", n)
	}
}

// TestMemoryReadersNeverSeeOtherBytes runs readers against a sequencer that
// reuses chunks as fast as it can; with -race it also proves the reference counts.
func TestMemoryReadersNeverSeeOtherBytes(t *testing.T) {
	m := newMemory(memoryTestChunk, 4*memoryTestChunk)
	var end atomic.Int64
	var readers sync.WaitGroup
	var hits, tries atomic.Int64
	limits := make(chan int64)
	readers.Go(func() {
		for n := range limits {
			m.setLimit(n * memoryTestChunk)
		}
	})
	for seed := range uint64(4) {
		readers.Go(func() {
			rng := rand.New(rand.NewPCG(seed, 1))
			for {
				last := end.Load()
				if last < 0 {
					return
				}
				if last == 0 {
					continue
				}
				at := ident.Position(max(last-rng.Int64N(6*memoryTestChunk)-512, 0)) &^ 7
				c, b := m.pin(at, 256)
				tries.Add(1)
				if c == nil {
					continue
				}
				if !holdsPositions(b, at) {
					t.Errorf("other bytes at %d", at)
				}
				hits.Add(1)
				c.unpin()
			}
		})
	}
	for i := range int64(100) {
		c, err := m.open(ident.Position(i*memoryTestChunk), 100)
		if err != nil {
			t.Error(err)
			break
		}
		fillChunk(c)
		limits <- 4 + i%5                    // what is given up meanwhile is given up beside the sequencer
		end.Store((i + 1) * memoryTestChunk) // published: as a commit does
		c.unpin()
		// A writer that the readers cannot keep up with would prove nothing.
		for seen := tries.Load(); tries.Load() == seen; {
			runtime.Gosched()
		}
	}
	end.Store(-1)
	close(limits)
	readers.Wait()
	if hits.Load() == 0 {
		t.Error("no reader met a chunk")
	}
	m.clear()
}

// TestMemoryMangledAfterRelease is the planted bug of the tag skeininvariants: a
// slice that is used after its release shows it.
func TestMemoryMangledAfterRelease(t *testing.T) {
	if !invariant.Enabled {
		t.Skip("needs -tags skeininvariants")
	}
	m := newMemory(memoryTestChunk, 4*memoryTestChunk)
	first, err := m.open(0, 100)
	if err != nil {
		t.Fatal(err)
	}
	fillChunk(first)
	kept := first.buf[:8]
	first.unpin()
	for i := ident.Position(1); i < 5; i++ { // push it out of the cache
		c, err := m.open(i*memoryTestChunk, 100)
		if err != nil {
			t.Fatal(err)
		}
		c.unpin()
	}
	if kept[0] != mangled || kept[7] != mangled {
		t.Errorf("released bytes are %x", kept)
	}
}

func BenchmarkMemoryPin(b *testing.B) {
	m := newMemory(1<<20, 64<<20)
	for i := range ident.Position(64) {
		c, err := m.open(i<<20, 100)
		if err != nil {
			b.Fatal(err)
		}
		c.unpin()
	}
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		c, _ := m.pin(ident.Position(i*4096%(63<<20)), 4096)
		if c == nil {
			b.Fatal("not there")
		}
		c.unpin()
	}
	m.clear()
}
