package commitlog

import (
	"sync/atomic"
	"time"

	"github.com/skeinmq/skein/internal/vfs"
)

// Readers of many queues that lag together each want small pieces of the same part of the log. heat notices: the second
// small read in a stretch of a file within heatFor has the whole stretch read into the page cache, in one piece, and
// the others find theirs there. A reader of one sparse queue never comes back to a stretch, and reads only its own.
const (
	heatStretch = 1 << 20 // bytes
	heatFor     = 10      // seconds
)

// heat is the state of a file's stretches: seconds since began of the last first touch, times two, plus one once the
// stretch was asked for.
type heat struct {
	began     time.Time
	stretches []atomic.Uint32
}

func newHeat(fileSize int64) *heat {
	return &heat{began: time.Now(), stretches: make([]atomic.Uint32, (fileSize+heatStretch-1)/heatStretch)}
}

// touch notes a small read at an offset of the file and says which stretch is worth reading whole now, if any, and whether
// that was asked for already.
func (h *heat) touch(off int64, now time.Time) (from int64, worth, coming bool) {
	i := off / heatStretch
	if i < 0 || i >= int64(len(h.stretches)) {
		return 0, false, false
	}
	at := uint32(now.Sub(h.began)/time.Second) + 1
	was := h.stretches[i].Load()
	switch {
	case was == 0 || at-was>>1 > heatFor:
		h.stretches[i].CompareAndSwap(was, at<<1)
		return 0, false, false
	case was&1 == 0:
		return i * heatStretch, h.stretches[i].CompareAndSwap(was, was|1), true
	}
	return 0, false, true
}

// warm is called once for each small read from a file, of n bytes. With ahead, it comes later, and has the kernel fetch them by then.
func (f *logFile) warm(off, n int64, ahead bool) {
	h := f.heat.Load()
	if h == nil {
		f.heat.CompareAndSwap(nil, newHeat(f.size))
		h = f.heat.Load()
	}
	from, worth, coming := h.touch(off, time.Now())
	if worth {
		f.r.WillNeed(from, min(heatStretch, f.size-from))
	} else if ahead && !coming {
		f.r.WillNeed(off, n)
	}
}

// askDepth is how many small reads of one plan are under way: the disk has other things to do between one answer and the next
// question, most of all when it is at the end of a network.
const askDepth = 16

// asked is how far the kernel was told of the small reads of a plan.
type asked struct {
	next  int // the first place that it was not
	ahead int // reads that it was, and that have not begun
}

// tell is called before each read of an extent, the one that begins at place i.
func (a *asked) tell(mem *memory, plan []located, i int) {
	if a.next > i {
		a.ahead = max(0, a.ahead-1)
	} else {
		a.next, a.ahead = i, -1
	}
	for a.ahead < askDepth && a.next < len(plan) {
		first := &plan[a.next]
		if a.ahead >= 0 && mem.holds(first.position) {
			return // and everything after it
		}
		n := extent(plan[a.next:])
		size := int64(plan[a.next+n-1].frameEnd() - first.position)
		if size < directRead && first.file.tryPin() {
			first.file.warm(int64(first.position-first.file.first), size, a.ahead >= 0)
			first.file.unpin()
		}
		a.next += n
		a.ahead++
	}
}

// pack is the memory of small reads: pieces from many places of the log share a chunk.
const packSize = directRead + vfs.PageSize

// room returns n bytes for a small read; they live until r is released.
func (r *Records) room(l *Log, n int) ([]byte, error) {
	if r.pack == nil || len(r.pack.buf)-r.packed < n {
		c, err := l.packMem.get(n)
		if err != nil {
			return nil, err
		}
		c.refs.Store(1)
		r.pins = append(r.pins, c)
		r.pack, r.packed = c, 0
	}
	b := r.pack.buf[r.packed : r.packed+n : r.packed+n]
	r.packed += n
	return b, nil
}
