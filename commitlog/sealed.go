package commitlog

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"slices"
	"strings"

	"github.com/skeinmq/skein/internal/ident"
)

// segment is what one sealed file holds of a queue: enough to decide about retention and
// to go straight to its entries in the file's index.
type segment struct {
	first, end   ident.Offset
	maxTime      int64
	bytes        uint32
	entry, count uint32 // range of entries in the index
	file         uint32 // logFile.no
}

// frames is how many bytes the segment takes in its file.
func (s *segment) frames() int64 { return int64(s.bytes) + int64(s.count)*frameHeaderSize }

// row is the segment as the index file knows it.
func (s *segment) row(q *Queue) indexRow {
	return indexRow{
		partition: q.partition, gen: q.run.gen, first: s.first, end: s.end, maxTime: s.maxTime,
		bytes: int64(s.bytes), entry: s.entry, count: s.count,
	}
}

// segmentOf is what a row of a file's index says.
func segmentOf(row *indexRow, f *logFile) segment {
	return segment{
		first: row.first, end: row.end, maxTime: row.maxTime, bytes: uint32(row.bytes),
		entry: row.entry, count: row.count, file: f.no,
	}
}

// sealedSegments returns the queue's segments in sealed files, in offset order. The
// slice is never written to below its length.
func (q *Queue) sealedSegments() []segment {
	if s := q.segs.Load(); s != nil {
		return *s
	}
	return nil
}

// segmentAt returns the first segment that ends after off.
func (q *Queue) segmentAt(off ident.Offset) *segment {
	segs := q.sealedSegments()
	i, _ := slices.BinarySearchFunc(segs, off, func(s segment, off ident.Offset) int {
		if s.end <= off {
			return -1
		}
		return 1
	})
	if i == len(segs) {
		return nil
	}
	return &segs[i]
}

// sealedHas reports whether a sealed segment may hold off or something after it.
func (q *Queue) sealedHas(off ident.Offset) bool { return q.segmentAt(off) != nil }

// addSegment publishes one more segment. Only the sealer and recovery call it.
func (q *Queue) addSegment(s segment) {
	old := q.sealedSegments()
	n := len(old)
	for n > 0 && old[n-1].first > s.first { // an index that was lost is made late
		n--
	}
	var next []segment
	if n == len(old) {
		next = append(old, s) // beyond what readers see
	} else {
		next = slices.Insert(slices.Clone(old), n, s)
	}
	q.segs.Store(&next)
}

// trimSegments drops the segments that end at or before the floor and tells their files.
// Only the sealer calls it.
func (q *Queue) trimSegments(floor ident.Offset, files *fileSet) {
	segs := q.sealedSegments()
	n := 0
	for n < len(segs) && segs[n].end <= floor {
		if f := files.byNumber(segs[n].file); f != nil {
			f.keep(&segs[n], -1)
		}
		n++
	}
	switch {
	case n == 0:
	case n == len(segs):
		q.segs.Store(nil)
	default:
		rest := slices.Clone(segs[n:]) // let go of the memory of the rest
		q.segs.Store(&rest)
	}
}

// errAgain: an index was bad and was made anew, or what was in the file is in another one now. Ask again.
var errAgain = errors.New("moved meanwhile")

// sealedPlaces yields the places of the first segment that ends after off. It reports
// false when there is no such segment.
func (q *Queue) sealedPlaces(ctx context.Context, off ident.Offset, yield func(*logFile, *place) bool) (bool, error) {
	seg := q.segmentAt(off)
	if seg == nil {
		return false, nil
	}
	l := q.run.log
	f, err := q.pinFile(seg)
	if err != nil {
		return true, fmt.Errorf("read %s at %d: %w", q.partition, off, err)
	}
	defer f.unpin()
	row := seg.row(q)
	for e, err := range f.index.Load().entries(&row, off) {
		if err != nil {
			if errors.Is(err, ErrCorrupt) {
				if err = l.sealer.rebuild(ctx, f); err == nil {
					err = errAgain
				}
			}
			return true, err
		}
		if !yield(f, &e) {
			return true, nil
		}
	}
	return true, ctx.Err()
}

// pinFile pins the file of a segment. errAgain: what was in it is in another one now; ErrOutOfRange: it was reclaimed.
func (q *Queue) pinFile(seg *segment) (*logFile, error) {
	if f := q.run.log.files.byNumber(seg.file); f != nil && f.tryPin() {
		return f, nil
	}
	if now := q.segmentAt(seg.first); now != nil && now.file != seg.file && now.first < seg.end {
		return nil, errAgain
	}
	return nil, fmt.Errorf("file reclaimed: %w", ErrOutOfRange)
}

// setFloor is Queue.Floor.
func (q *Queue) setFloor(to ident.Offset) {
	for {
		old := q.floor.Load()
		if int64(to) <= old {
			return
		}
		if q.floor.CompareAndSwap(old, int64(to)) {
			break
		}
	}
	if segs := q.sealedSegments(); len(segs) > 0 && segs[0].end <= to {
		q.run.log.sealer.trim(q)
	}
}

// effectiveFloor is below what nothing of the queue is read any more.
func (q *Queue) effectiveFloor() ident.Offset {
	if q.gone.Load() {
		return 1<<63 - 1
	}
	return max(ident.Offset(q.floor.Load()), q.LogStart())
}

// release gives up what the log keeps for a dropped queue.
func (l *Log) release(q *Queue) { l.sealer.trim(q) }

// forget gives up a generation that the map never named.
func (l *Log) forget(r *run) {
	l.table.close(r, runGone)
	for _, q := range r.sorted() {
		q.gone.Store(true)
		l.release(q)
	}
}

const indexSuffix = ".idx"

// indexName is the name of a log file's index.
func (f *logFile) indexName() string { return strings.TrimSuffix(f.name, logSuffix) + indexSuffix }

// tailOf returns the queue's tail in an unsealed file.
func (q *Queue) tailOf(f *logFile) *tail {
	for t := q.tail.Load(); t != nil; t = t.older.Load() {
		if t.file == f {
			return t
		}
	}
	return nil
}

// keptPlaces are the tail's places that may still be read: a sealed run's cut data is not
// among them (I10).
func (q *Queue) keptPlaces(t *tail) []place {
	n := int(t.n.Load())
	if !q.run.is(runOpen) {
		for hw := q.HighWatermark(); n > 0 && t.e[n-1].end() > hw; {
			n--
		}
	}
	return t.e[:n]
}

// sealFile writes the index of a file whose blocks are all committed and moves its queues
// from their tails to it.
func (l *Log) sealFile(f *logFile) error {
	queues := slices.DeleteFunc(f.touched, func(q *Queue) bool { return q.gone.Load() })
	sortQueues(queues)
	f.touched = queues
	all := func(yield func(indexQueue) bool) {
		for _, q := range queues {
			t := q.tailOf(f)
			if t == nil {
				continue
			}
			if e := q.keptPlaces(t); len(e) > 0 && !yield(indexQueue{partition: q.partition, gen: q.run.gen, entries: e}) {
				return
			}
		}
	}
	if f.doubt {
		f.end = f.limit() // nobody may cut it, nor take its end for proven, after the next start either
	}
	if err := writeIndex(l.fs, f.indexName(), l.id, f.first, f.end, iter.Seq[indexQueue](all)); err != nil {
		return err
	}
	x, err := openIndex(l.fs, f.indexName(), l.id)
	if err != nil {
		return err
	}
	if err := l.publishSegments(f, x); err != nil {
		return errors.Join(err, x.close())
	}
	for _, q := range queues {
		q.unlinkTail(f)
	}
	f.touched = nil
	return nil
}

// publishSegments gives each queue of an index its segment. Rows of queues that the log
// does not know any more count as dead.
func (l *Log) publishSegments(f *logFile, x *indexFile) error {
	rows := make([]indexRow, 0, x.head.queues)
	for row, err := range x.rows() {
		if err != nil {
			return err
		}
		rows = append(rows, row)
	}
	f.index.Store(x)
	var r *run
	for i := range rows {
		row := &rows[i]
		if r == nil || r.gen != row.gen {
			r = l.table.get(row.gen)
		}
		if r == nil {
			continue
		}
		q := r.get(row.partition)
		if q == nil || q.since > f.span().to || row.end <= q.effectiveFloor() || row.count == 0 {
			continue
		}
		s := segmentOf(row, f)
		f.keep(&s, 1)
		q.addSegment(s)
	}
	f.sealed.Store(true)
	return nil
}
