package commitlog

import (
	"encoding/binary"
	"fmt"
	"hash/crc32"

	"github.com/skeinmq/skein/internal/ident"
)

// The index file to the byte; docs/format/index.md says the same. Numbers are
// little-endian, CRCs are CRC-32C, pages are 4096 bytes:
//
//	page 0                header
//	pages 1..E            entries, in order of (queue, base offset)
//	pages E+1..E+D        directory: one row for each queue, in order of queue
//	then, to the end      snapshots: opaque bytes of a queue, each with its CRC
//
// No byte of the file is outside a CRC, and the CRC of a page goes on over the
// file's first position and the page's number (8 + 8 bytes that are not stored),
// so that a page in the wrong place or file is not believed.
const (
	indexPage    = 4096
	indexMagic   = 0x58494b53 // "SKIX"
	indexVersion = 1
)

// Header page:
//
//	 0       4       8       12      16              32              40              48
//	+-------+-------+-------+-------+---------------+---------------+---------------+
//	| crc   | magic | ver   | 0     | log UUID      | first position| end position  |
//	+-------+-------+-------+-------+---------------+---------------+---------------+
//	| entries       | queues        | snapshot bytes| max timestamp | data bytes    |  48..88
//	+---------------+---------------+---------------+---------------+---------------+
//	| zeroes                                                                          to 4096
const (
	indexHeadMagic    = 4
	indexHeadVersion  = 8
	indexHeadLog      = 16
	indexHeadFirst    = 32
	indexHeadEnd      = 40
	indexHeadEntries  = 48
	indexHeadQueues   = 56
	indexHeadSnapshot = 64
	indexHeadMaxTime  = 72
	indexHeadBytes    = 80
)

// Entry and directory pages:
//
//	 0       4       8
//	+-------+-------+-------------------------------------+
//	| crc   | count | count entries or rows, then zeroes  |
//	+-------+-------+-------------------------------------+
//
// Entry, 32 bytes:
//
//	 0               8               16      20      24      28      32
//	+---------------+---------------+-------+-------+-------+-------+
//	| base offset   | max timestamp | at    | size  | count | back  |
//	+---------------+---------------+-------+-------+-------+-------+
//
// at: the frame header's place in the log file, in bytes from its first
// position. back: how many entries before this one, in the same queue, the
// first of those with the greatest timestamp up to here lies; 0: this one. The
// running maximum never falls, so a timestamp is found by binary search although
// timestamps need not rise.
//
// Directory row, 96 bytes:
//
//	 0               16      20      24      28              36              44
//	+---------------+-------+-------+-------+---------------+---------------+
//	| topic id      | part. | group | gen   | opening: log epoch, position  |
//	+---------------+-------+-------+-------+---------------+---------------+
//	 44              52              60              68              76
//	+---------------+---------------+---------------+---------------+
//	| first offset  | end offset    | max timestamp | its base offs.|
//	+---------------+---------------+---------------+---------------+
//	 76      80      84      88      92      96
//	+-------+-------+-------+-------+-------+
//	| bytes | entry | count | snap  | length|
//	+-------+-------+-------+-------+-------+
//
// bytes: the sum of the batches. entry: number of the first entry. snap: where
// the snapshot starts in its section; length excludes its CRC, which follows it;
// length 0: no snapshot, and no bytes in the section.
const (
	indexCount       = 4
	indexBody        = 8
	indexEntrySize   = 32
	indexRowSize     = 96
	entriesPerPage   = (indexPage - indexBody) / indexEntrySize // 127
	rowsPerPage      = (indexPage - indexBody) / indexRowSize   // 42
	snapshotCRCSize  = 4
	maxIndexEntries  = 1 << 31 / indexEntrySize
	indexRowKeyBytes = 44
)

// derivedError: a file that can be made again from the log (index, checkpoint)
// is not what was written. It costs time only.
type derivedError struct {
	file   string
	at     int64 // byte in the file
	reason string
}

func (e *derivedError) Error() string {
	return fmt.Sprintf("read %s: at byte %d: %s", e.file, e.at, e.reason)
}

// Is makes errors.Is(err, ErrCorrupt) true.
func (e *derivedError) Is(target error) bool { return target == ErrCorrupt }

// indexRow is what one log file holds of one queue.
type indexRow struct {
	partition ident.Partition
	gen       ident.Generation

	first, end    ident.Offset // offsets of the entries: [first, end)
	maxTime       int64        // greatest of the entries; -1 when there is none
	maxTimeOffset ident.Offset // base of the first batch that has it
	bytes         int64        // of the batches

	entry, count uint32 // range of entries
	snap, length uint32 // range of the snapshot in its section
}

// indexHeader is the identity of one index file.
type indexHeader struct {
	log        ident.Log
	first, end ident.Position // of the log file's data
	entries    int64
	queues     int64
	snapshots  int64 // bytes
	maxTime    int64
	bytes      int64
}

func (h *indexHeader) entryPages() int64 { return (h.entries + entriesPerPage - 1) / entriesPerPage }
func (h *indexHeader) rowPages() int64   { return (h.queues + rowsPerPage - 1) / rowsPerPage }

// snapshotStart is the byte at which the snapshot section begins.
func (h *indexHeader) snapshotStart() int64 {
	return (1 + h.entryPages() + h.rowPages()) * indexPage
}

func (h *indexHeader) fileSize() int64 { return h.snapshotStart() + h.snapshots }

// compareQueues orders physical queues as directories do.
func compareQueues(p ident.Partition, g ident.Generation, q ident.Partition, h ident.Generation) int {
	if c := p.Compare(q); c != 0 {
		return c
	}
	return compareGenerations(g, h)
}

// sealIndexPage writes the CRC of a page in place.
func sealIndexPage(page []byte, first ident.Position, number int64) {
	binary.LittleEndian.PutUint32(page, indexPageCRC(page, first, number))
}

func indexPageCRC(page []byte, first ident.Position, number int64) uint32 {
	return crcAt(page[4:indexPage], first, number)
}

// crcAt is the CRC of b and of where it belongs.
func crcAt(b []byte, first ident.Position, at int64) uint32 {
	var where [16]byte
	binary.LittleEndian.PutUint64(where[:], uint64(first))
	binary.LittleEndian.PutUint64(where[8:], uint64(at))
	return crc32.Update(crc32.Checksum(b, castagnoli), castagnoli, where[:])
}

// checkIndexPage verifies a page and returns how many items of a size it holds.
func checkIndexPage(page []byte, first ident.Position, number int64, perPage int) (int, string) {
	le := binary.LittleEndian
	if got, want := indexPageCRC(page, first, number), le.Uint32(page); got != want {
		return 0, fmt.Sprintf("crc %08x, stored %08x", got, want)
	}
	n := le.Uint32(page[indexCount:])
	if n > uint32(perPage) {
		return 0, fmt.Sprintf("count %d of at most %d", n, perPage)
	}
	return int(n), ""
}

func encodeIndexHeader(page []byte, h *indexHeader) {
	le := binary.LittleEndian
	clear(page[:indexPage])
	le.PutUint32(page[indexHeadMagic:], indexMagic)
	le.PutUint32(page[indexHeadVersion:], indexVersion)
	copy(page[indexHeadLog:], h.log[:])
	le.PutUint64(page[indexHeadFirst:], uint64(h.first))
	le.PutUint64(page[indexHeadEnd:], uint64(h.end))
	le.PutUint64(page[indexHeadEntries:], uint64(h.entries))
	le.PutUint64(page[indexHeadQueues:], uint64(h.queues))
	le.PutUint64(page[indexHeadSnapshot:], uint64(h.snapshots))
	le.PutUint64(page[indexHeadMaxTime:], uint64(h.maxTime))
	le.PutUint64(page[indexHeadBytes:], uint64(h.bytes))
	sealIndexPage(page, h.first, 0)
}

// decodeIndexHeader reads the header of a file of fileSize bytes. The reason is
// empty when it is sound.
func decodeIndexHeader(page []byte, fileSize int64) (indexHeader, string, error) {
	le := binary.LittleEndian
	if len(page) < indexPage {
		return indexHeader{}, fmt.Sprintf("%d bytes, want a header of %d", len(page), indexPage), nil
	}
	h := indexHeader{
		log:       ident.Log(page[indexHeadLog : indexHeadLog+16]),
		first:     ident.Position(le.Uint64(page[indexHeadFirst:])),
		end:       ident.Position(le.Uint64(page[indexHeadEnd:])),
		entries:   int64(le.Uint64(page[indexHeadEntries:])),
		queues:    int64(le.Uint64(page[indexHeadQueues:])),
		snapshots: int64(le.Uint64(page[indexHeadSnapshot:])),
		maxTime:   int64(le.Uint64(page[indexHeadMaxTime:])),
		bytes:     int64(le.Uint64(page[indexHeadBytes:])),
	}
	if le.Uint32(page[indexHeadMagic:]) != indexMagic {
		return h, "magic", nil
	}
	if got, want := indexPageCRC(page, h.first, 0), le.Uint32(page); got != want {
		return h, fmt.Sprintf("header crc %08x, stored %08x", got, want), nil
	}
	if v := le.Uint32(page[indexHeadVersion:]); v != indexVersion {
		return h, "", fmt.Errorf("index version %d: %w", v, ErrVersion)
	}
	if h.entries < 0 || h.entries > fileSize/indexEntrySize || h.queues < 0 || h.queues > fileSize/indexRowSize ||
		h.snapshots < 0 || h.snapshots > fileSize || h.first < 0 || h.end < h.first {
		return h, "header values out of range", nil
	}
	if h.fileSize() != fileSize {
		return h, fmt.Sprintf("file of %d bytes, want %d", fileSize, h.fileSize()), nil
	}
	return h, "", nil
}

func encodeIndexEntry(dst []byte, e *place, first ident.Position, back uint32) {
	le := binary.LittleEndian
	dst = dst[:indexEntrySize]
	le.PutUint64(dst, uint64(e.base))
	le.PutUint64(dst[8:], uint64(e.maxTime))
	le.PutUint32(dst[16:], uint32(e.position-first))
	le.PutUint32(dst[20:], uint32(e.size))
	le.PutUint32(dst[24:], uint32(e.count))
	le.PutUint32(dst[28:], back)
}

func decodeIndexEntry(b []byte, first ident.Position) (e place, back uint32) {
	le := binary.LittleEndian
	b = b[:indexEntrySize]
	return place{
		base:     ident.Offset(le.Uint64(b)),
		maxTime:  int64(le.Uint64(b[8:])),
		position: first + ident.Position(le.Uint32(b[16:])),
		size:     int32(le.Uint32(b[20:])),
		count:    int32(le.Uint32(b[24:])),
	}, le.Uint32(b[28:])
}

func encodeIndexRow(dst []byte, r *indexRow) {
	le := binary.LittleEndian
	dst = dst[:indexRowSize]
	copy(dst, r.partition.Topic[:])
	le.PutUint32(dst[16:], uint32(r.partition.Index))
	le.PutUint32(dst[20:], uint32(r.gen.Group))
	le.PutUint32(dst[24:], uint32(r.gen.Epoch))
	le.PutUint64(dst[28:], uint64(r.gen.Frame.Epoch))
	le.PutUint64(dst[36:], uint64(r.gen.Frame.Position))
	le.PutUint64(dst[44:], uint64(r.first))
	le.PutUint64(dst[52:], uint64(r.end))
	le.PutUint64(dst[60:], uint64(r.maxTime))
	le.PutUint64(dst[68:], uint64(r.maxTimeOffset))
	le.PutUint32(dst[76:], uint32(r.bytes))
	le.PutUint32(dst[80:], r.entry)
	le.PutUint32(dst[84:], r.count)
	le.PutUint32(dst[88:], r.snap)
	le.PutUint32(dst[92:], r.length)
}

func decodeIndexRow(b []byte) indexRow {
	le := binary.LittleEndian
	b = b[:indexRowSize]
	p, g := decodeIndexKey(b)
	return indexRow{
		partition:     p,
		gen:           g,
		first:         ident.Offset(le.Uint64(b[44:])),
		end:           ident.Offset(le.Uint64(b[52:])),
		maxTime:       int64(le.Uint64(b[60:])),
		maxTimeOffset: ident.Offset(le.Uint64(b[68:])),
		bytes:         int64(le.Uint32(b[76:])),
		entry:         le.Uint32(b[80:]),
		count:         le.Uint32(b[84:]),
		snap:          le.Uint32(b[88:]),
		length:        le.Uint32(b[92:]),
	}
}

// decodeIndexKey reads the queue that a row is about.
func decodeIndexKey(b []byte) (ident.Partition, ident.Generation) {
	le := binary.LittleEndian
	b = b[:indexRowKeyBytes]
	return ident.Partition{Topic: ident.Topic(b[:16]), Index: int32(le.Uint32(b[16:]))},
		ident.Generation{
			Group: ident.Group(le.Uint32(b[20:])),
			Epoch: ident.Epoch(le.Uint32(b[24:])),
			Frame: ident.Frame{
				Epoch:    ident.LogEpoch(le.Uint64(b[28:])),
				Position: ident.Position(le.Uint64(b[36:])),
			},
		}
}
