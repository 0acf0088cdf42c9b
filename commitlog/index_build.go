package commitlog

import (
	"encoding/binary"
	"errors"
	"fmt"
	"iter"
	"path/filepath"

	"github.com/skeinmq/skein/internal/ident"
	"github.com/skeinmq/skein/internal/vfs"
)

// indexQueue is one queue's part of a log file, as the builder takes it.
type indexQueue struct {
	partition ident.Partition
	gen       ident.Generation
	entries   []place // in offset order, not overlapping; only read, and only until the next queue
	snapshot  []byte  // opaque; empty: none
}

// indexWriteChunk is how much is written at once, and indexSyncEvery how much
// may be dirty: the index is written beside the appends and must not hand the
// device a burst that they wait for.
const (
	indexWriteChunk = 1 << 20
	indexSyncEvery  = 8 << 20
)

// indexTempSuffix marks an index that is being written; a leftover is garbage.
const indexTempSuffix = ".tmp"

// writeIndex writes the immutable index of a sealed log file: data in positions
// [first, end) of the log. queues come in the order of compareQueues, one several
// times only with entries that lie one behind the other; a queue with neither entries nor snapshot gets no row. The file
// has its name only once it is whole and durable; an older one is replaced.
// Rows (96 bytes each) and snapshots are kept in memory until the end.
func writeIndex(fsys vfs.FS, name string, log ident.Log, first, end ident.Position, queues iter.Seq[indexQueue]) error {
	temp := name + indexTempSuffix
	f, err := fsys.Open(temp, vfs.OpenOptions{Create: true, Truncate: true})
	if err != nil {
		return fmt.Errorf("write index: %w", err)
	}
	b := indexBuilder{f: f, buf: make([]byte, 0, indexWriteChunk), at: indexPage,
		head: indexHeader{log: log, first: first, end: end, maxTime: -1}}
	err = b.build(queues)
	if err == nil {
		err = f.Sync()
	}
	err = errors.Join(err, f.Close())
	if err == nil {
		err = fsys.Rename(temp, name)
	}
	if err == nil {
		err = fsys.SyncDir(filepath.Dir(name))
	}
	if err != nil {
		return fmt.Errorf("write index: %w", err)
	}
	return nil
}

// indexBuilder lays pages out in buf and writes it when it is full.
type indexBuilder struct {
	f      vfs.File
	buf    []byte // whole pages, then the open one
	at     int64  // where buf goes in the file
	synced int64
	items  int // in the open page; 0: no page is open

	head      indexHeader
	rows      []indexRow
	snapshots []byte
}

func (b *indexBuilder) build(queues iter.Seq[indexQueue]) error {
	for q := range queues {
		if err := b.addQueue(&q); err != nil {
			return err
		}
	}
	b.closePage()
	for i := range b.rows {
		slot, err := b.slot(indexRowSize, rowsPerPage)
		if err != nil {
			return err
		}
		encodeIndexRow(slot, &b.rows[i])
	}
	b.closePage()
	if err := b.flush(); err != nil {
		return err
	}
	b.head.queues, b.head.snapshots = int64(len(b.rows)), int64(len(b.snapshots))
	if _, err := b.f.WriteAt(b.snapshots, b.at); err != nil {
		return err
	}
	var page [indexPage]byte
	encodeIndexHeader(page[:], &b.head)
	_, err := b.f.WriteAt(page[:], 0)
	return err
}

func (b *indexBuilder) addQueue(q *indexQueue) error {
	if n := len(b.rows); n > 0 {
		last := &b.rows[n-1]
		order := compareQueues(last.partition, last.gen, q.partition, q.gen)
		if order > 0 || order == 0 && (len(q.entries) == 0 || q.entries[0].base < last.end) {
			return fmt.Errorf("queue %v %v after %v %v", q.partition, q.gen, last.partition, last.gen)
		}
	}
	if len(q.entries) == 0 && len(q.snapshot) == 0 {
		return nil
	}
	if b.head.entries+int64(len(q.entries)) > maxIndexEntries || len(b.snapshots)+len(q.snapshot) > 1<<31 {
		return fmt.Errorf("%d entries and %d bytes of snapshots are too many", b.head.entries, len(b.snapshots))
	}
	r := indexRow{partition: q.partition, gen: q.gen, maxTime: -1,
		entry: uint32(b.head.entries), count: uint32(len(q.entries))}
	newest := 0
	for i := range q.entries {
		e := &q.entries[i]
		if i == 0 {
			r.first = e.base
		} else if e.base < r.end {
			return fmt.Errorf("queue %v %v: batch at offset %d after one that ends at %d", q.partition, q.gen, e.base, r.end)
		}
		if e.position < b.head.first || e.position >= b.head.end || e.size < 0 || e.count <= 0 {
			return fmt.Errorf("queue %v %v: batch at offset %d lies at %d (%d bytes, %d records)",
				q.partition, q.gen, e.base, e.position, e.size, e.count)
		}
		if i == 0 || e.maxTime > r.maxTime {
			newest, r.maxTime, r.maxTimeOffset = i, e.maxTime, e.base
		}
		slot, err := b.slot(indexEntrySize, entriesPerPage)
		if err != nil {
			return err
		}
		encodeIndexEntry(slot, e, b.head.first, uint32(i-newest))
		r.end = e.end()
		r.bytes += int64(e.size)
	}
	if len(q.snapshot) > 0 {
		r.snap, r.length = uint32(len(b.snapshots)), uint32(len(q.snapshot))
		b.snapshots = append(b.snapshots, q.snapshot...)
		b.snapshots = binary.LittleEndian.AppendUint32(b.snapshots, crcAt(q.snapshot, b.head.first, int64(r.snap)))
	}
	b.head.entries += int64(len(q.entries))
	b.head.bytes += r.bytes
	b.head.maxTime = max(b.head.maxTime, r.maxTime)
	b.rows = append(b.rows, r)
	return nil
}

// slot returns the place of the next item in the open page, opening one.
func (b *indexBuilder) slot(size, perPage int) ([]byte, error) {
	if b.items == perPage {
		b.closePage()
	}
	if b.items == 0 {
		if len(b.buf) == cap(b.buf) {
			if err := b.flush(); err != nil {
				return nil, err
			}
		}
		n := len(b.buf)
		b.buf = b.buf[:n+indexPage]
		clear(b.buf[n:])
	}
	page := b.buf[len(b.buf)-indexPage:]
	at := indexBody + b.items*size
	b.items++
	return page[at : at+size], nil
}

// closePage seals the open page.
func (b *indexBuilder) closePage() {
	if b.items == 0 {
		return
	}
	page := b.buf[len(b.buf)-indexPage:]
	binary.LittleEndian.PutUint32(page[indexCount:], uint32(b.items))
	number := (b.at+int64(len(b.buf)))/indexPage - 1
	sealIndexPage(page, b.head.first, number)
	b.items = 0
}

func (b *indexBuilder) flush() error {
	if _, err := b.f.WriteAt(b.buf, b.at); err != nil {
		return err
	}
	b.at += int64(len(b.buf))
	b.buf = b.buf[:0]
	if b.at-b.synced >= indexSyncEvery {
		b.synced = b.at
		return b.f.Datasync()
	}
	return nil
}
