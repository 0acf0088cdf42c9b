package commitlog

import (
	"sync/atomic"

	"github.com/skeinmq/skein/internal/ident"
)

// place says where one batch of a queue lies.
type place struct {
	base     ident.Offset
	position ident.Position // of its frame header; the batch follows it
	maxTime  int64
	size     int32 // of the batch
	count    int32 // of offsets: last = base + count - 1
}

func (p *place) end() ident.Offset { return p.base + ident.Offset(p.count) }

// tail is the in-memory index of one queue in one unsealed file: its committed
// batches in offset order. The completing goroutine adds; readers never wait. A
// tail that is full is replaced by a larger copy.
type tail struct {
	file  *logFile
	older *atomic.Pointer[tail] // of the file before that is not yet sealed; grown copies share the cell
	n     atomic.Int64
	e     []place // fixed length; [0,n) is published
}

const firstTailLen = 4

// last returns the newest place. n > 0 holds for every published tail.
func (t *tail) last() *place { return &t.e[t.n.Load()-1] }

// search returns the index of the first published place that ends after off.
func (t *tail) search(off ident.Offset) int {
	lo, hi := 0, int(t.n.Load())
	for lo < hi {
		mid := int(uint(lo+hi) >> 1)
		if t.e[mid].end() <= off {
			lo = mid + 1
		} else {
			hi = mid
		}
	}
	return lo
}

// addPlace publishes one committed batch in the tail of its file. It is called by
// one goroutine at a time.
func (q *Queue) addPlace(f *logFile, p place) {
	t := q.tail.Load()
	if t == nil || t.file != f {
		q.startTail(t, f, p)
		return
	}
	n := t.n.Load()
	if int(n) == len(t.e) {
		grown := &tail{file: f, e: make([]place, 2*len(t.e)), older: t.older}
		copy(grown.e, t.e)
		grown.e[n] = p
		grown.n.Store(n + 1)
		q.tail.Store(grown) // the sealer leaves the newest file's tails alone
		return
	}
	t.e[n] = p
	t.n.Store(n + 1)
}

func (q *Queue) startTail(t *tail, f *logFile, p place) {
	fresh := &tail{file: f, e: make([]place, firstTailLen), older: new(atomic.Pointer[tail])}
	fresh.older.Store(t)
	fresh.e[0] = p
	fresh.n.Store(1)
	f.touched = append(f.touched, q)
	if !q.tail.CompareAndSwap(t, fresh) { // sealed and unlinked in between
		fresh.older.Store(nil)
		q.tail.Store(fresh)
	}
}

// unlinkTail removes a sealed file's tail from the queue. The queue's segments
// cover it already, so a reader finds the data on one side or on both.
func (q *Queue) unlinkTail(f *logFile) {
	for {
		t := q.tail.Load()
		if t == nil {
			return
		}
		if t.file == f {
			if q.tail.CompareAndSwap(t, t.older.Load()) {
				return
			}
			continue
		}
		for cell := t.older; ; {
			next := cell.Load()
			if next == nil {
				return
			}
			if next.file == f {
				cell.CompareAndSwap(next, next.older.Load())
				return
			}
			cell = next.older
		}
	}
}
