package commitlog

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"iter"
	"sort"
	"sync"

	"github.com/skeinmq/skein/internal/ident"
	"github.com/skeinmq/skein/internal/vfs"
)

// An index file says, for one sealed log file, which queues it holds and where
// each of their batches lies. It is written once (writeIndex) and dies with its
// log file. It is derived: when it does not open or a page is bad (ErrCorrupt),
// it is made again from the log.
//
//	x, err := openIndex(fsys, name, log)
//	for row, err := range x.rows() { … }             // restart: one sequential pass
//	row, ok, err := x.row(partition, generation)     // or binary search by pread
//	e, ok, err := x.find(&row, offset)               // the batch that holds offset, or the next one
//	for e, err := range x.entries(&row, offset) { … } // read plans
//	e, ok, err := x.findTime(&row, from, timestamp)
//
// Rows are values and stay valid; a caller that keeps them skips the search in
// the directory. Nothing but the header is held in memory.

// indexFile is an open index. Its methods may be called concurrently; close last.
type indexFile struct {
	f    vfs.File
	name string
	head indexHeader
}

// openIndex opens an index and reads its header: ErrCorrupt when it is not one
// of this log, ErrVersion when it is one of a newer program. The pages are
// verified when they are read.
func openIndex(fsys vfs.FS, name string, log ident.Log) (*indexFile, error) {
	f, err := fsys.Open(name, vfs.OpenOptions{Random: true})
	if err != nil {
		return nil, fmt.Errorf("open index: %w", err)
	}
	x := &indexFile{f: f, name: name}
	if err := x.readHeader(log); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return x, nil
}

// isOf reports whether the header fits a file: an index that was copied or misnamed does not.
func (x *indexFile) isOf(f *logFile) bool {
	return x.head.first == f.first && (f.sorted != nil || x.head.end <= f.limit())
}

func (x *indexFile) readHeader(log ident.Log) error {
	size, err := x.f.Size()
	if err != nil {
		return fmt.Errorf("open index: %w", err)
	}
	var page [indexPage]byte
	n, err := x.f.ReadAt(page[:], 0)
	if err != nil && err != io.EOF {
		return fmt.Errorf("open index: %w", err)
	}
	h, reason, err := decodeIndexHeader(page[:n], size)
	switch {
	case err != nil:
		return fmt.Errorf("open index %s: %w", x.name, err)
	case reason != "":
		return x.bad(0, "%s", reason)
	case h.log != log:
		return x.bad(indexHeadLog, "belongs to log %v", h.log)
	}
	x.head = h
	return nil
}

func (x *indexFile) close() error { return x.f.Close() }

func (x *indexFile) bad(at int64, format string, args ...any) error {
	return &derivedError{file: x.name, at: at, reason: fmt.Sprintf(format, args...)}
}

var indexPages = sync.Pool{New: func() any { return new([indexPage]byte) }}

// page reads and verifies one page and returns its number of items.
func (x *indexFile) page(buf *[indexPage]byte, number int64, perPage int) (int, error) {
	if _, err := x.f.ReadAt(buf[:], number*indexPage); err != nil {
		return 0, fmt.Errorf("read %s: page %d: %w", x.name, number, err)
	}
	n, reason := checkIndexPage(buf[:], x.head.first, number, perPage)
	if reason != "" {
		return 0, x.bad(number*indexPage, "%s", reason)
	}
	return n, nil
}

// checkRow refuses a row that points outside the file.
func (x *indexFile) checkRow(r *indexRow, page int64) error {
	if int64(r.entry)+int64(r.count) > x.head.entries || r.end < r.first ||
		(r.length > 0 && int64(r.snap)+int64(r.length)+snapshotCRCSize > x.head.snapshots) {
		return x.bad(page*indexPage, "row of %v %v out of range", r.partition, r.gen)
	}
	return nil
}

// indexScanPages is how many pages a sequential pass reads at once.
const indexScanPages = 64

// rows iterates the whole directory in the order of queues, in one sequential
// pass. It stops at the first error.
func (x *indexFile) rows() iter.Seq2[indexRow, error] {
	return func(yield func(indexRow, error) bool) {
		start := 1 + x.head.entryPages()
		buf := make([]byte, min(indexScanPages, x.head.rowPages())*indexPage)
		left := x.head.queues
		for at := int64(0); left > 0; at += int64(len(buf)) / indexPage {
			buf = buf[:min(int64(len(buf)), (x.head.rowPages()-at)*indexPage)]
			if _, err := x.f.ReadAt(buf, (start+at)*indexPage); err != nil {
				yield(indexRow{}, fmt.Errorf("read %s: %w", x.name, err))
				return
			}
			for i := 0; i < len(buf); i += indexPage {
				number := start + at + int64(i/indexPage)
				n, reason := checkIndexPage(buf[i:i+indexPage], x.head.first, number, rowsPerPage)
				if reason == "" && int64(n) != min(rowsPerPage, left) {
					reason = fmt.Sprintf("%d rows, %d are left", n, left)
				}
				if reason != "" {
					yield(indexRow{}, x.bad(number*indexPage, "%s", reason))
					return
				}
				for k := range n {
					r := decodeIndexRow(buf[i+indexBody+k*indexRowSize:])
					if err := x.checkRow(&r, number); err != nil || !yield(r, nil) {
						if err != nil {
							yield(indexRow{}, err)
						}
						return
					}
				}
				left -= int64(n)
			}
		}
	}
}

// row finds a queue's row by binary search: one page read for each halving of
// the directory's pages.
func (x *indexFile) row(p ident.Partition, g ident.Generation) (indexRow, bool, error) {
	buf := indexPages.Get().(*[indexPage]byte)
	defer indexPages.Put(buf)
	lo, hi := int64(0), x.head.rowPages() // the row is in a page of [lo, hi)
	for lo < hi {
		mid := (lo + hi) / 2
		number := 1 + x.head.entryPages() + mid
		n, err := x.page(buf, number, rowsPerPage)
		if err != nil {
			return indexRow{}, false, err
		}
		i := sort.Search(n, func(i int) bool {
			q, h := decodeIndexKey(buf[indexBody+i*indexRowSize:])
			return compareQueues(q, h, p, g) >= 0
		})
		if i == n {
			lo = mid + 1
			continue
		}
		r := decodeIndexRow(buf[indexBody+i*indexRowSize:])
		if compareQueues(r.partition, r.gen, p, g) == 0 {
			return r, true, x.checkRow(&r, number)
		}
		if i > 0 {
			return indexRow{}, false, nil
		}
		hi = mid
	}
	return indexRow{}, false, nil
}

// entryReader reads entries by number, keeping the page of the last one.
type entryReader struct {
	x      *indexFile
	buf    *[indexPage]byte
	number int64 // of the page in buf; 0: none
}

func (x *indexFile) reader() entryReader {
	return entryReader{x: x, buf: indexPages.Get().(*[indexPage]byte)}
}

func (r *entryReader) release() { indexPages.Put(r.buf) }

func (r *entryReader) get(i uint32) (place, uint32, error) {
	number, k := 1+int64(i)/entriesPerPage, int(i%entriesPerPage)
	if number != r.number {
		r.number = 0
		n, err := r.x.page(r.buf, number, entriesPerPage)
		if err != nil {
			return place{}, 0, err
		}
		if want := min(entriesPerPage, r.x.head.entries-(number-1)*entriesPerPage); int64(n) != want {
			return place{}, 0, r.x.bad(number*indexPage, "%d entries, want %d", n, want)
		}
		r.number = number
	}
	e, back := decodeIndexEntry(r.buf[indexBody+k*indexEntrySize:], r.x.head.first)
	return e, back, nil
}

// search returns the first entry number of the row for which after is true; the
// row's end when there is none. after must be false, then true, along the row.
func (r *entryReader) search(row *indexRow, after func(e place, i, back uint32) (bool, error)) (uint32, error) {
	lo, hi := row.entry, row.entry+row.count
	for lo < hi {
		mid := lo + (hi-lo)/2
		e, back, err := r.get(mid)
		if err != nil {
			return 0, err
		}
		yes, err := after(e, mid, back)
		if err != nil {
			return 0, err
		}
		if yes {
			hi = mid
		} else {
			lo = mid + 1
		}
	}
	return lo, nil
}

// at returns the number of the first entry that ends after off.
func (r *entryReader) at(row *indexRow, off ident.Offset) (uint32, error) {
	if off <= row.first {
		return row.entry, nil
	}
	return r.search(row, func(e place, _, _ uint32) (bool, error) { return e.end() > off, nil })
}

// find returns the batch that holds off, or else the first one after it; false
// when the row ends before.
func (x *indexFile) find(row *indexRow, off ident.Offset) (place, bool, error) {
	for e, err := range x.entries(row, off) {
		return e, err == nil, err
	}
	return place{}, false, nil
}

// entries iterates the batches of a row in offset order, from the one that holds
// the offset (or the next) on. It stops at the first error.
func (x *indexFile) entries(row *indexRow, from ident.Offset) iter.Seq2[place, error] {
	return func(yield func(place, error) bool) {
		r := x.reader()
		defer r.release()
		i, err := r.at(row, from)
		for ; err == nil && i < row.entry+row.count; i++ {
			var e place
			if e, _, err = r.get(i); err == nil && !yield(e, nil) {
				return
			}
		}
		if err != nil {
			yield(place{}, err)
		}
	}
}

// findTime returns the first batch, from the one that holds from on, whose max
// timestamp is at least ts; false when there is none in this file.
func (x *indexFile) findTime(row *indexRow, from ident.Offset, ts int64) (place, bool, error) {
	if row.count == 0 || row.maxTime < ts || row.end <= from {
		return place{}, false, nil
	}
	r := x.reader()
	defer r.release()
	// The running maximum of timestamps never falls. Where it first reaches ts
	// lies the first batch of the whole row that does.
	i, err := r.search(row, func(e place, i, back uint32) (bool, error) {
		if back > 0 {
			if back > i-row.entry {
				return false, x.bad(r.number*indexPage, "entry %d points before its queue", i)
			}
			var err error
			if e, _, err = r.get(i - back); err != nil {
				return false, err
			}
		}
		return e.maxTime >= ts, nil
	})
	if err != nil {
		return place{}, false, err
	}
	start, err := r.at(row, from)
	if err != nil {
		return place{}, false, err
	}
	// It may lie before from: then look on from there, one by one.
	for i = max(i, start); i < row.entry+row.count; i++ {
		e, _, err := r.get(i)
		if err != nil || e.maxTime >= ts {
			return e, err == nil, err
		}
	}
	return place{}, false, nil
}

// snapshot returns the opaque bytes of a row in memory of the caller's; nil when
// it has none.
func (x *indexFile) snapshot(row *indexRow) ([]byte, error) {
	if row.length == 0 {
		return nil, nil
	}
	b := make([]byte, int64(row.length)+snapshotCRCSize)
	at := x.head.snapshotStart() + int64(row.snap)
	if _, err := x.f.ReadAt(b, at); err != nil {
		return nil, fmt.Errorf("read %s: %w", x.name, err)
	}
	out := b[:row.length:row.length]
	if got, want := crcAt(out, x.head.first, int64(row.snap)), binary.LittleEndian.Uint32(b[row.length:]); got != want {
		return nil, x.bad(at, "snapshot crc %08x, stored %08x", got, want)
	}
	return out, nil
}

// verify reads every byte and checks what the format promises: order, ranges,
// checksums. It is for tools and tests.
func (x *indexFile) verify() error {
	r := x.reader()
	defer r.release()
	var last indexRow
	var next, snaps, size int64
	for row, err := range x.rows() {
		if err != nil {
			return err
		}
		order := compareQueues(last.partition, last.gen, row.partition, row.gen)
		if next+snaps > 0 && (order > 0 || order == 0 && row.first < last.end) {
			return x.bad(0, "row of %v %v out of order", row.partition, row.gen)
		}
		if int64(row.entry) != next || (row.length > 0 && int64(row.snap) != snaps) {
			return x.bad(0, "row of %v %v leaves a gap", row.partition, row.gen)
		}
		if err := x.verifyEntries(&r, &row); err != nil {
			return err
		}
		if _, err := x.snapshot(&row); err != nil {
			return err
		}
		next += int64(row.count)
		size += row.bytes
		if row.length > 0 {
			snaps += int64(row.length) + snapshotCRCSize
		}
		last = row
	}
	if next != x.head.entries || snaps != x.head.snapshots || size != x.head.bytes {
		return x.bad(0, "rows cover %d of %d entries, %d of %d bytes of snapshots and %d of %d of data",
			next, x.head.entries, snaps, x.head.snapshots, size, x.head.bytes)
	}
	return nil
}

// verifyEntries checks the entries of one row against it and each other.
func (x *indexFile) verifyEntries(r *entryReader, row *indexRow) error {
	var newest, size, maxTime int64
	end := row.first
	for i := range row.count {
		e, back, err := r.get(row.entry + i)
		if err != nil {
			return err
		}
		if i == 0 || e.maxTime > maxTime {
			newest, maxTime = int64(i), e.maxTime
		}
		if e.base < end || e.count <= 0 || e.size < 0 || e.position >= x.head.end || int64(back) != int64(i)-newest {
			return x.bad(r.number*indexPage, "entry %d of %v %v out of order or range", i, row.partition, row.gen)
		}
		end = e.end()
		size += int64(e.size)
	}
	if end != row.end || size != row.bytes || (row.count > 0 && maxTime != row.maxTime) {
		return x.bad(0, "row of %v %v does not sum up its entries", row.partition, row.gen)
	}
	return nil
}
