package commitlog

import (
	"context"
	"errors"
	"iter"

	"github.com/skeinmq/skein/internal/ident"
)

func (p *place) stamp() Stamp {
	return Stamp{Offset: p.base, Last: p.end() - 1, Timestamp: p.maxTime}
}

// tails returns the queue's tails that end after off, oldest first.
func (q *Queue) tails(off ident.Offset) []*tail {
	var out []*tail
	for t := q.tail.Load(); t != nil && t.last().end() > off; t = t.older.Load() {
		out = append(out, t)
	}
	for i, j := 0, len(out)-1; i < j; i, j = i+1, j-1 {
		out[i], out[j] = out[j], out[i]
	}
	return out
}

// findTime is Queue.FindTime.
func (q *Queue) findTime(ctx context.Context, from ident.Offset, ts int64) (Stamp, bool, error) {
	from = max(from, q.start, q.LogStart())
	hw := q.HighWatermark()
	for from < hw {
		tails := q.tails(from) // before the segments: what is sealed in between is seen twice, not missed
		seg := q.segmentAt(from)
		if seg == nil {
			for _, t := range tails {
				n := int(t.n.Load())
				for i := t.search(from); i < n && t.e[i].base < hw; i++ {
					if t.e[i].maxTime >= ts {
						return t.e[i].stamp(), true, nil
					}
				}
			}
			return Stamp{}, false, nil
		}
		if seg.maxTime >= ts {
			e, ok, err := q.findInSegment(ctx, seg, from, ts)
			if err != nil {
				return Stamp{}, false, err
			}
			if ok && e.base < hw {
				return e.stamp(), true, nil
			}
		}
		from = seg.end
	}
	return Stamp{}, false, nil
}

func (q *Queue) findInSegment(ctx context.Context, seg *segment, from ident.Offset, ts int64) (place, bool, error) {
	l := q.run.log
	f, err := q.pinFile(seg)
	if errors.Is(err, errAgain) {
		if seg = q.segmentAt(seg.first); seg != nil {
			return q.findInSegment(ctx, seg, from, ts)
		}
	}
	if err != nil {
		return place{}, false, nil // retention passed it
	}
	defer f.unpin()
	row := seg.row(q)
	e, ok, err := f.index.Load().findTime(&row, from, ts)
	if errors.Is(err, ErrCorrupt) {
		if err = l.sealer.rebuild(ctx, f); err != nil {
			return place{}, false, err
		}
		fresh := q.segmentAt(seg.first)
		if fresh == nil {
			return place{}, false, nil
		}
		row = fresh.row(q)
		if e, ok, err = f.index.Load().findTime(&row, from, ts); err != nil {
			return place{}, false, err
		}
	}
	return e, ok, ctx.Err()
}

// maxTime is Queue.MaxTime.
func (q *Queue) maxTime(ctx context.Context, from ident.Offset) (Stamp, bool, error) {
	from = max(from, q.start, q.LogStart())
	hw := q.HighWatermark()
	tails := q.tails(from)
	best := Stamp{Timestamp: -1 << 63}
	found := false
	next := from
	for next < hw {
		seg := q.segmentAt(next)
		if seg == nil {
			break
		}
		// The segment that from cuts may have its greatest timestamp before from.
		ts := seg.maxTime
		if seg.first < from {
			var err error
			if ts, err = q.maxInSegment(ctx, seg, from); err != nil {
				return Stamp{}, false, err
			}
		}
		if !found || ts > best.Timestamp {
			e, ok, err := q.findInSegment(ctx, seg, next, ts)
			if err != nil {
				return Stamp{}, false, err
			}
			if ok && e.base < hw {
				best, found = e.stamp(), true
			}
		}
		next = seg.end
	}
	for _, t := range tails {
		n := int(t.n.Load())
		for i := t.search(next); i < n && t.e[i].base < hw; i++ {
			if !found || t.e[i].maxTime > best.Timestamp {
				best, found = t.e[i].stamp(), true
			}
		}
	}
	if !found {
		return Stamp{}, false, nil
	}
	return best, true, nil
}

// maxInSegment is the greatest timestamp of a segment's batches from an offset on.
func (q *Queue) maxInSegment(ctx context.Context, seg *segment, from ident.Offset) (int64, error) {
	best := int64(-1 << 63)
	for {
		_, err := q.sealedPlaces(ctx, from, func(_ *logFile, p *place) bool {
			best = max(best, p.maxTime)
			return p.end() < seg.end
		})
		if !errors.Is(err, errAgain) {
			return best, err
		}
	}
}

// segments is Queue.Segments.
func (q *Queue) segments() iter.Seq2[Segment, error] {
	return func(yield func(Segment, error) bool) {
		from, hw := max(q.start, q.LogStart()), q.HighWatermark()
		tails := q.tails(from)
		for from < hw {
			s := q.segmentAt(from)
			if s == nil {
				break
			}
			if !yield(Segment{First: max(s.first, from), End: min(s.end, hw), Bytes: int64(s.bytes), MaxTimestamp: s.maxTime}, nil) {
				return
			}
			from = s.end
		}
		for _, t := range tails {
			seg := Segment{MaxTimestamp: -1 << 63, Unsealed: true}
			n := int(t.n.Load())
			i := t.search(from)
			for first := i; i < n && t.e[i].base < hw; i++ {
				if i == first {
					seg.First = t.e[i].base
				}
				seg.Bytes += int64(t.e[i].size)
				seg.MaxTimestamp = max(seg.MaxTimestamp, t.e[i].maxTime)
				seg.End = t.e[i].end()
				from = seg.End
			}
			if seg.End > 0 && !yield(seg, nil) {
				return
			}
		}
	}
}

// size is Queue.Size.
func (q *Queue) size() int64 {
	var n int64
	for seg := range q.segments() {
		n += seg.Bytes
	}
	return n
}
