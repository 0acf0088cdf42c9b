package commitlog

import (
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"strconv"
	"strings"

	"github.com/skeinmq/skein/internal/ident"
)

// A sorted file has what was live in some neighbouring files of the log when it was made, each queue's batches next to one
// another. It is as immutable as they were, and takes their place. docs/format/sorted.md says the same with its reasons.
//
// Its frames are those of log files, from fileHeaderSize on, one right behind the other, without blocks. Their positions are not
// the log's: each sorted file has its own range of positions, from sortedFirst of its serial number on, so that nothing that
// is known by position (memory, damage, the checksums of frame headers) can be mistaken for the log's, or for another sorted file's.

// span is the positions of the log that a file stands for.
type span struct{ from, to ident.Position }

// contains reports whether all of t is in s.
func (s span) contains(t span) bool { return s.from <= t.from && t.to <= s.to }

const (
	sortedSuffix    = ".sorted"
	sortedPositions = ident.Position(1) << 62 // below are the log's
	maxSerial       = 1<<31 - 1
)

// sortedFirst is where the positions of the sorted file with a serial number begin.
func sortedFirst(serial uint32) ident.Position {
	return sortedPositions + ident.Position(serial)*maxFileSize
}

// sortedName is the name of a sorted file: what it stands for, so that its header is not needed for that.
func sortedName(s span, serial uint32) string {
	return fmt.Sprintf("%020d-%020d-%010d%s", s.from, s.to, serial, sortedSuffix)
}

// parseSortedName is the inverse of sortedName.
func parseSortedName(name string) (s span, serial uint32, ok bool) {
	parts := strings.Split(strings.TrimSuffix(name, sortedSuffix), "-")
	if len(parts) != 3 || len(parts[0]) != 20 || len(parts[1]) != 20 || len(parts[2]) != 10 {
		return span{}, 0, false
	}
	from, err1 := strconv.ParseInt(parts[0], 10, 64)
	to, err2 := strconv.ParseInt(parts[1], 10, 64)
	n, err3 := strconv.ParseUint(parts[2], 10, 31)
	s = span{ident.Position(from), ident.Position(to)}
	ok = err1 == nil && err2 == nil && err3 == nil && 0 <= from && from < to && sortedName(s, uint32(n)) == name
	return s, uint32(n), ok
}

// Header:
//
//	 0       4       8     10    12      16              24              32
//	+-------+-------+-----+-----+-------+---------------+---------------+
//	| magic | crc   | ver | 0   | 0     | first position| end position  |
//	+-------+-------+-----+-----+-------+---------------+---------------+
//	| log UUID (16)             | made at, ms   | stands for: from      |  32..64
//	+---------------------------+---------------+-----------------------+
//	| stands for: to| batches       | cluster id length, bytes …           64..84+n, zeroes to 4096
//	+---------------+---------------+-----------------------
//
// crc covers bytes 8 to 4096.
const (
	sortedMagic      = 0x46534b53 // "SKSF"
	sortedCRCOff     = 4
	sortedVersionOff = 8
	sortedFirstOff   = 16
	sortedEndOff     = 24
	sortedLogOff     = 32
	sortedMadeOff    = 48
	sortedFromOff    = 56
	sortedToOff      = 64
	sortedBatchesOff = 72
	sortedClusterLen = 80
	sortedClusterOff = 84
)

// sortedHeader is the identity of one sorted file.
type sortedHeader struct {
	cluster    string
	log        ident.Log
	first, end ident.Position // of its own positions: end is that of its last frame
	span       span
	madeMs     int64
	batches    int64
}

// encodeSortedHeader fills dst, which has fileHeaderSize bytes.
func encodeSortedHeader(dst []byte, h *sortedHeader) {
	clear(dst[:fileHeaderSize])
	le := binary.LittleEndian
	le.PutUint32(dst, sortedMagic)
	le.PutUint16(dst[sortedVersionOff:], formatVersion)
	le.PutUint64(dst[sortedFirstOff:], uint64(h.first))
	le.PutUint64(dst[sortedEndOff:], uint64(h.end))
	copy(dst[sortedLogOff:], h.log[:])
	le.PutUint64(dst[sortedMadeOff:], uint64(h.madeMs))
	le.PutUint64(dst[sortedFromOff:], uint64(h.span.from))
	le.PutUint64(dst[sortedToOff:], uint64(h.span.to))
	le.PutUint64(dst[sortedBatchesOff:], uint64(h.batches))
	n := copy(dst[sortedClusterOff:sortedClusterOff+maxClusterBytes], h.cluster)
	le.PutUint32(dst[sortedClusterLen:], uint32(n))
	le.PutUint32(dst[sortedCRCOff:], crc32.Checksum(dst[sortedVersionOff:fileHeaderSize], castagnoli))
}

// decodeSortedHeader reads the header of a sorted file: errBad when the bytes are not one, ErrVersion when they are one of a newer
// format.
func decodeSortedHeader(b []byte) (sortedHeader, error) {
	le := binary.LittleEndian
	if len(b) < fileHeaderSize || le.Uint32(b) != sortedMagic {
		return sortedHeader{}, fmt.Errorf("header of sorted file: %w: magic", errBad)
	}
	b = b[:fileHeaderSize]
	if got, want := crc32.Checksum(b[sortedVersionOff:], castagnoli), le.Uint32(b[sortedCRCOff:]); got != want {
		return sortedHeader{}, fmt.Errorf("header of sorted file: %w: crc %08x, stored %08x", errBad, got, want)
	}
	if v := le.Uint16(b[sortedVersionOff:]); v != formatVersion {
		return sortedHeader{}, fmt.Errorf("header of sorted file: version %d: %w", v, ErrVersion)
	}
	n := le.Uint32(b[sortedClusterLen:])
	h := sortedHeader{
		log:     ident.Log(b[sortedLogOff : sortedLogOff+16]),
		first:   ident.Position(le.Uint64(b[sortedFirstOff:])),
		end:     ident.Position(le.Uint64(b[sortedEndOff:])),
		span:    span{ident.Position(le.Uint64(b[sortedFromOff:])), ident.Position(le.Uint64(b[sortedToOff:]))},
		madeMs:  int64(le.Uint64(b[sortedMadeOff:])),
		batches: int64(le.Uint64(b[sortedBatchesOff:])),
	}
	if n > maxClusterBytes || h.first < sortedPositions || h.end-h.first < fileHeaderSize || h.end-h.first > maxFileSize ||
		h.span.from < 0 || h.span.to <= h.span.from || h.batches < 0 {
		return sortedHeader{}, fmt.Errorf("header of sorted file: %w: values out of range", errBad)
	}
	h.cluster = string(b[sortedClusterOff : sortedClusterOff+n])
	return h, nil
}
