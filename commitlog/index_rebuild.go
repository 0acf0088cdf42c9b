package commitlog

import (
	"context"
	"errors"
	"iter"
	"slices"

	"github.com/skeinmq/skein/internal/ident"
)

// rebuildIndex makes a sealed file's index again from the file itself.
func (l *Log) rebuildIndex(ctx context.Context, f *logFile) error {
	places := map[*Queue][]place{}
	if err := l.collectAll(ctx, f, places); err != nil {
		return err
	}
	if err := writeIndex(l.fs, f.indexName(), l.id, f.first, f.end, rowsOf(f, places)); err != nil {
		return err
	}
	x, err := openIndex(l.fs, f.indexName(), l.id)
	if err != nil {
		return err
	}
	return l.replaceSegments(f, x)
}

// collectAll reads a file and collects where the batches of live queues lie.
func (l *Log) collectAll(ctx context.Context, f *logFile, places map[*Queue][]place) error {
	if f.sorted != nil {
		return walkSorted(ctx, l.fs, f, func(fr *frame) error {
			l.collect(places, fr)
			return nil
		}, func(from, to ident.Position) {
			l.damage.note(CorruptError{File: f.name, From: from, To: to, Reason: "frames not readable"})
		})
	}
	sc := scan{
		files: []*logFile{f}, sure: -1,
		block: func(_ *logFile, h *blockHeader, payload []byte) error {
			for fr, err := range frames(payload, h.position+blockHeaderSize, h.frames) {
				if err != nil {
					return err
				}
				l.collect(places, &fr)
			}
			return nil
		},
		salvage: func(_ *logFile, fr *frame) { l.collect(places, fr) },
	}
	defer sc.buf.close()
	if err := sc.run(); err != nil {
		return err
	}
	if sc.end < f.end && f.end < f.limit() && len(sc.damage) == 0 {
		return &CorruptError{File: f.name, From: sc.end, To: f.end, Reason: "blocks not readable"}
	}
	return nil
}

// collect keeps a data frame of a live queue.
func (l *Log) collect(places map[*Queue][]place, fr *frame) {
	if fr.kind != frameData {
		return
	}
	r := l.table.get(fr.gen)
	if r == nil {
		return
	}
	q := r.get(fr.partition)
	if q == nil || q.since > fr.position {
		return
	}
	e := places[q]
	if n := len(e); n > 0 && e[n-1].end() > fr.base || fr.base >= q.HighWatermark() {
		return
	}
	places[q] = append(e, placeOf(fr))
}

func placeOf(fr *frame) place {
	return place{base: fr.base, position: fr.position, maxTime: fr.maxTime, size: int32(fr.length), count: fr.count}
}

// rowsOf yields the rows of an index: the segments that the queues have in the file, or, when they have none, all of a
// queue as one.
func rowsOf(f *logFile, places map[*Queue][]place) iter.Seq[indexQueue] {
	queues := make([]*Queue, 0, len(places))
	for q := range places {
		queues = append(queues, q)
	}
	sortQueues(queues)
	return func(yield func(indexQueue) bool) {
		for _, q := range queues {
			rest := places[q]
			for _, s := range q.sealedSegments() {
				if s.file != f.no {
					continue
				}
				n := 0
				for n < len(rest) && rest[n].base < s.end {
					n++
				}
				if n > 0 && !yield(indexQueue{partition: q.partition, gen: q.run.gen, entries: rest[:n]}) {
					return
				}
				rest = rest[n:]
			}
			if len(rest) > 0 && !yield(indexQueue{partition: q.partition, gen: q.run.gen, entries: rest}) {
				return
			}
		}
	}
}

// replaceSegments points the queues at a new index of a file. The old one stays open
// until the log is closed: readers may be in it.
func (l *Log) replaceSegments(f *logFile, x *indexFile) error {
	rows := map[*Queue][]indexRow{}
	for row, err := range x.rows() {
		if err != nil {
			return errors.Join(err, x.close())
		}
		if r := l.table.get(row.gen); r != nil {
			if q := r.get(row.partition); q != nil {
				rows[q] = append(rows[q], row)
			}
		}
	}
	if old := f.index.Swap(x); old != nil {
		f.oldIndexes = append(f.oldIndexes, old)
	}
	for q, list := range rows {
		segs := slices.Clone(q.sealedSegments())
		for i := range segs {
			s := &segs[i]
			if s.file != f.no {
				continue
			}
			k := slices.IndexFunc(list, func(r indexRow) bool { return r.first < s.end && s.first < r.end })
			if k < 0 {
				continue
			}
			f.keep(s, -1)
			s.entry, s.count = list[k].entry, list[k].count
			f.keep(s, 1)
		}
		if len(segs) > 0 {
			q.segs.Store(&segs)
		}
	}
	l.log.Info("index rebuilt", "log", l.id, "file", f.name)
	return nil
}
