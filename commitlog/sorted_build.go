package commitlog

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"path/filepath"
	"slices"

	"github.com/skeinmq/skein/internal/ident"
	"github.com/skeinmq/skein/internal/vfs"
)

const (
	// sortBuffer is how much of a sorted file is put together at once: what belongs there is fetched in order of where it lies.
	sortBuffer = 32 << 20
	// sortWrite is how much is written between two looks at the rate, sortSync how much may be dirty.
	sortWrite = 1 << 20
	sortSync  = 8 << 20
	// sortTempSuffix marks a sorted file that is being written; a leftover is garbage.
	sortTempSuffix = ".tmp"
)

// sortedPart is one segment of a sorted file and the one that it takes the place of. Nothing in it is left when seg has no batches.
type sortedPart struct {
	q    *Queue
	was  segment
	seg  segment // its file is not known yet
	from *logFile
}

// moved is a batch on its way: where it lies and where it goes.
type moved struct {
	located
	q  *Queue
	to ident.Position // of its frame header
}

// sortedBuilder makes one sorted file.
type sortedBuilder struct {
	l    *Log
	pace func(ctx context.Context, n int) error // waits until n more bytes may be copied
	f    vfs.File
	head sortedHeader

	at    ident.Position // where the next frame goes
	batch []moved        // what is to be fetched for buf, in order of to
	first ident.Position // position of buf[0]: page-aligned
	buf   []byte         // off the heap, aligned
	in    []byte         // what is read, as buf
	dirty int
	parts []sortedPart
	index map[*logFile]*indexFile // of the sources, as they were at the beginning
}

// buildSorted writes what is live of the sources, which are neighbours and pinned, to a new sorted file with its index, durably. It does
// not change what readers see. Without anything live it makes no file, and returns nil.
func (l *Log) buildSorted(ctx context.Context, sources []*logFile, serial uint32, pace func(context.Context, int) error) (*logFile, []sortedPart, error) {
	stands := span{sources[0].span().from, sources[len(sources)-1].span().to}
	b := &sortedBuilder{l: l, pace: pace, head: sortedHeader{
		cluster: l.cluster, log: l.id, first: sortedFirst(serial), span: stands, madeMs: l.cfg.Now().UnixMilli(),
	}}
	b.at = b.head.first + fileHeaderSize
	b.first = b.at
	b.index = make(map[*logFile]*indexFile, len(sources))
	for _, f := range sources {
		b.index[f] = f.index.Load()
	}
	name := filepath.Join(l.logDir, sortedName(stands, serial))
	f, err := b.write(ctx, name, sources)
	if err != nil || f == nil {
		err = errors.Join(err, l.pool.setAside(name+sortTempSuffix, name+indexSuffix, name+indexSuffix+indexTempSuffix))
	}
	if err != nil {
		return nil, nil, err
	}
	return f, b.parts, nil
}

// write makes the file and its index. The index has its name before the file has: a sorted file with a name is whole.
func (b *sortedBuilder) write(ctx context.Context, name string, sources []*logFile) (_ *logFile, err error) {
	b.f, err = b.l.fs.Open(name+sortTempSuffix, vfs.OpenOptions{Create: true, Truncate: true, Direct: b.l.direct.Available})
	if err != nil {
		return nil, fmt.Errorf("sort: %w", err)
	}
	defer func() {
		b.free(&b.buf)
		b.free(&b.in)
	}()
	var failed error
	queues := func(yield func(indexQueue) bool) {
		for q, err := range b.queues(ctx, sources) {
			if failed = err; err != nil || !yield(q) {
				return
			}
		}
		failed = b.fetch(ctx)
	}
	// The index is as long as the file can be: where that ends is known only after the last queue.
	err = writeIndex(b.l.fs, name+indexSuffix, b.l.id, b.head.first, b.head.first+maxFileSize, queues)
	if err = errors.Join(failed, err); err == nil {
		err = b.finish(ctx)
	}
	err = errors.Join(err, b.f.Close())
	for _, f := range sources {
		if err == nil && f.index.Load() != b.index[f] { // what is live was looked up by the old one
			err = fmt.Errorf("sort %s: %w", f.name, errAgain)
		}
	}
	if err != nil || b.head.batches == 0 {
		return nil, err
	}
	f, err := b.l.openSorted(name+sortTempSuffix, b.head.span, b.head.first)
	if err != nil {
		return nil, err
	}
	if err := b.publish(ctx, f, name); err != nil {
		return nil, errors.Join(err, f.closeHandles())
	}
	return f, nil
}

// publish gives the file its name, durably, once it has been read back: what it was made of is given up for it.
func (b *sortedBuilder) publish(ctx context.Context, f *logFile, name string) error {
	x, err := openIndex(b.l.fs, name+indexSuffix, b.l.id)
	if err != nil {
		return err
	}
	f.index.Store(x)
	if err := b.readBack(ctx, f); err != nil {
		return err
	}
	err = b.l.fs.Rename(f.name, name)
	if err == nil {
		err = b.l.fs.SyncDir(b.l.logDir)
	}
	if err != nil {
		return fmt.Errorf("sort: %w", err)
	}
	f.name = name
	return nil
}

// readBack proves every batch of the file as it is on the disk, and that none is missing.
func (b *sortedBuilder) readBack(ctx context.Context, f *logFile) error {
	var batches int64
	var damage error
	err := walkSorted(ctx, b.l.fs, f, func(fr *frame) error {
		batches++
		if err := checkBatch(fr.payload, fr.base, fr.count, fr.gen.Epoch); err != nil {
			return err
		}
		return b.pace(ctx, len(fr.payload))
	}, func(from, to ident.Position) { damage = fmt.Errorf("frames from %d to %d: %w", from, to, errBad) })
	if err = errors.Join(err, damage); err == nil && batches != b.head.batches {
		err = fmt.Errorf("%d batches, %d were written: %w", batches, b.head.batches, errBad)
	}
	if err != nil {
		return fmt.Errorf("sort: read back %s: %w", f.name, err)
	}
	return nil
}

func (b *sortedBuilder) free(buf *[]byte) {
	if *buf != nil {
		_ = vfs.FreeAligned(*buf) // what AllocAligned gave cannot be refused
		*buf = nil
	}
}

// queues yields what is live of the sources in the order of the index, with the places that it will have, and fetches it on the way.
func (b *sortedBuilder) queues(ctx context.Context, sources []*logFile) iter.Seq2[indexQueue, error] {
	return func(yield func(indexQueue, error) bool) {
		for r, err := range mergeRows(sources, b.index) {
			if err != nil {
				yield(indexQueue{}, err)
				return
			}
			q, seg := b.l.segmentFor(r.file, &r.row)
			if q == nil {
				continue
			}
			places, err := b.move(ctx, r.file, q, &r.row)
			if err != nil {
				yield(indexQueue{}, err)
				return
			}
			b.part(q, r.file, seg, places)
			if len(places) > 0 && !yield(indexQueue{partition: q.partition, gen: q.run.gen, entries: places}, nil) {
				return
			}
		}
	}
}

// segmentFor returns the queue that a row of a file is about, and the segment that it is, if it is live.
func (l *Log) segmentFor(f *logFile, row *indexRow) (*Queue, segment) {
	r := l.table.get(row.gen)
	if r == nil {
		return nil, segment{}
	}
	q := r.get(row.partition)
	if q == nil {
		return nil, segment{}
	}
	for _, s := range q.sealedSegments() {
		if s.file == f.no && s.entry == row.entry && s.count == row.count {
			return q, s
		}
	}
	return nil, segment{}
}

// move gives the batches of a row that somebody may still read their new places.
func (b *sortedBuilder) move(ctx context.Context, f *logFile, q *Queue, row *indexRow) ([]place, error) {
	var out []place
	sealed := q.Sealed() // before the end is read: then it is final
	end := q.HighWatermark()
	for e, err := range b.index[f].entries(row, q.effectiveFloor()) {
		if err != nil {
			return nil, err
		}
		if sealed && e.base >= end {
			break // cut off (I10)
		}
		size := ident.Position(frameHeaderSize + int64(e.size))
		if b.at+size > b.head.first+maxFileSize {
			return nil, fmt.Errorf("sort %s: more than %d bytes are live", f.name, int64(maxFileSize))
		}
		if len(b.batch) > 0 && b.at+size-b.first > sortBuffer {
			if err := b.fetch(ctx); err != nil {
				return nil, err
			}
		}
		b.batch = append(b.batch, moved{located: located{place: e, file: f}, q: q, to: b.at})
		e.position = b.at
		b.at += size
		b.head.batches++
		out = append(out, e)
	}
	return out, nil
}

func (b *sortedBuilder) part(q *Queue, f *logFile, was segment, places []place) {
	p := sortedPart{q: q, was: was, from: f}
	for i := range places {
		e := &places[i]
		if i == 0 {
			p.seg.first, p.seg.maxTime = e.base, e.maxTime
		}
		p.seg.maxTime = max(p.seg.maxTime, e.maxTime)
		p.seg.end = e.end()
		p.seg.bytes += uint32(e.size)
	}
	p.seg.count = uint32(len(places))
	if n := len(b.parts); n > 0 {
		p.seg.entry = b.parts[n-1].seg.entry + b.parts[n-1].seg.count
	}
	b.parts = append(b.parts, p)
}

// fetch puts together what was collected and writes the pages that are full.
func (b *sortedBuilder) fetch(ctx context.Context) error {
	if len(b.batch) == 0 {
		return nil
	}
	if err := b.room(int(b.at - b.first)); err != nil {
		return err
	}
	slices.SortFunc(b.batch, func(x, y moved) int {
		return cmp.Or(cmp.Compare(x.file.no, y.file.no), cmp.Compare(x.position, y.position))
	})
	plan := make([]located, len(b.batch))
	for i := range b.batch {
		plan[i] = b.batch[i].located
	}
	for i := 0; i < len(plan); {
		n := extent(plan[i:])
		if err := b.copyExtent(ctx, b.batch[i:i+n]); err != nil {
			return err
		}
		i += n
	}
	b.batch = b.batch[:0]
	full := int(b.at-b.first) &^ (vfs.PageSize - 1)
	if err := b.put(ctx, full); err != nil {
		return err
	}
	copy(b.buf, b.buf[full:int(b.at-b.first)])
	b.first += ident.Position(full)
	return nil
}

// room makes the buffer large enough for n bytes and the rest of a page.
func (b *sortedBuilder) room(n int) error {
	if len(b.buf) >= n+vfs.PageSize {
		return nil
	}
	buf, err := vfs.AllocAligned(max(n+vfs.PageSize, sortBuffer+vfs.PageSize))
	if err != nil {
		return fmt.Errorf("sort: %w", err)
	}
	copy(buf, b.buf[:min(len(b.buf), vfs.PageSize)]) // the page that was begun
	b.free(&b.buf)
	b.buf = buf
	return nil
}

// copyExtent fetches neighbouring batches with one read, proves them, and puts them where they go.
func (b *sortedBuilder) copyExtent(ctx context.Context, batch []moved) error {
	from := batch[0].position
	size := int(batch[len(batch)-1].frameEnd() - from)
	if err := b.pace(ctx, size); err != nil {
		return err
	}
	read, err := b.read(batch[0].file, from, size)
	if err != nil {
		return err
	}
	for i := range batch {
		m := &batch[i]
		raw := read[m.position-from:][:frameHeaderSize+int(m.size)]
		if err := m.q.prove(&m.located, raw); err != nil {
			bad := CorruptError{File: m.file.name, From: m.position, To: m.frameEnd(), Reason: err.Error()}
			b.l.damage.note(bad)
			return &bad
		}
		h := frameHeader{
			kind: frameData, length: uint32(m.size), count: m.count, partition: m.q.partition, gen: m.q.run.gen,
			base: m.base, maxTime: m.maxTime,
		}
		dst := b.buf[m.to-b.first:]
		encodeFrameHeader(dst, &h, m.to)
		copy(dst[frameHeaderSize:], raw[frameHeaderSize:])
	}
	return nil
}

// read reads from a source past the page cache, where that is possible: what is copied is not what consumers read.
func (b *sortedBuilder) read(f *logFile, at ident.Position, size int) ([]byte, error) {
	off := int64(at - f.first)
	skip, want := wholePages(off, size)
	if len(b.in) < want {
		buf, err := vfs.AllocAligned(max(want, readMax+2*vfs.PageSize))
		if err != nil {
			return nil, fmt.Errorf("sort: %w", err)
		}
		b.free(&b.in)
		b.in = buf
	}
	h := f.r
	if f.d != nil {
		h = f.d
	}
	n, err := h.ReadAt(b.in[:want], off-int64(skip))
	if n < skip+size {
		return nil, fmt.Errorf("sort: read %s: %w", f.name, errors.Join(err, io.ErrUnexpectedEOF))
	}
	return b.in[skip : skip+size], nil
}

// put writes the first n bytes of the buffer to their place in the file.
func (b *sortedBuilder) put(ctx context.Context, n int) error {
	for off := 0; off < n; off += sortWrite {
		piece := b.buf[off:min(off+sortWrite, n)]
		if err := b.pace(ctx, len(piece)); err != nil {
			return err
		}
		if _, err := b.f.WriteAt(piece, int64(b.first-b.head.first)+int64(off)); err != nil {
			return fmt.Errorf("sort: %w", err)
		}
		if b.dirty += len(piece); b.dirty >= sortSync && !b.l.direct.Available {
			b.dirty = 0
			if err := b.f.Datasync(); err != nil {
				return fmt.Errorf("sort: %w", err)
			}
		}
	}
	return nil
}

// finish writes the last page and the header, and makes it all durable.
func (b *sortedBuilder) finish(ctx context.Context) error {
	if b.head.batches == 0 {
		return nil
	}
	rest := int(b.at - b.first)
	clear(b.buf[rest:vfs.PageSize])
	if rest > 0 {
		if err := b.put(ctx, vfs.PageSize); err != nil {
			return err
		}
	}
	b.head.end = b.at
	encodeSortedHeader(b.buf, &b.head)
	if _, err := b.f.WriteAt(b.buf[:fileHeaderSize], 0); err != nil {
		return fmt.Errorf("sort: %w", err)
	}
	if plants.sortUnsynced {
		return nil
	}
	if err := b.f.Sync(); err != nil {
		return fmt.Errorf("sort: %w", err)
	}
	return nil
}

// fileRow is a row of a file's index.
type fileRow struct {
	file *logFile
	row  indexRow
}

// mergeRows yields the rows of the files' indexes in the order of one index: by queue, and those of a queue in the order of the files.
func mergeRows(files []*logFile, index map[*logFile]*indexFile) iter.Seq2[fileRow, error] {
	return func(yield func(fileRow, error) bool) {
		heads := make([]*fileRow, len(files))
		next := make([]func() (indexRow, error, bool), len(files))
		advance := func(i int) error {
			row, err, ok := next[i]()
			if heads[i] = nil; ok && err == nil {
				heads[i] = &fileRow{files[i], row}
			}
			return err
		}
		for i, f := range files {
			pull, stop := iter.Pull2(index[f].rows())
			defer stop()
			next[i] = pull
			if err := advance(i); err != nil {
				yield(fileRow{}, err)
				return
			}
		}
		for {
			least := -1
			for i, h := range heads {
				if h != nil && (least < 0 || compareQueues(h.row.partition, h.row.gen, heads[least].row.partition, heads[least].row.gen) < 0) {
					least = i
				}
			}
			if least < 0 || !yield(*heads[least], nil) {
				return
			}
			if err := advance(least); err != nil {
				yield(fileRow{}, err)
				return
			}
		}
	}
}
