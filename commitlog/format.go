package commitlog

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"

	"github.com/skeinmq/skein/internal/ident"
)

// The log on disk, to the byte. docs/format/log.md tells the same story with
// its reasons. All numbers are little-endian; every CRC is CRC-32C.
//
// A file is a window [first, first+size) on the endless log. It starts with a
// file header of fileHeaderSize bytes, then come blocks, each at a multiple of
// the file's alignment, then whatever the disk held before.

// ErrVersion: the bytes are sound, but of a format newer than this program.
var ErrVersion = errors.New("format version not known")

const formatVersion = 1

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// File header:
//
//	 0       4       8     10    12      16              24              32
//	+-------+-------+-----+-----+-------+---------------+---------------+
//	| magic | crc   | ver | 0   | align | first position| file size     |
//	+-------+-------+-----+-----+-------+---------------+---------------+
//	| log UUID (16)             | made at, ms   | cluster id length, bytes ...
//	+---------------------------+---------------+-------------------- 60+n, zeroes to 4096
//
// crc covers bytes 8 to 4096.
const (
	fileHeaderSize  = 4096
	fileMagic       = 0x464c4b53 // "SKLF"
	fileCRCOff      = 4
	fileVersionOff  = 8
	fileAlignOff    = 12
	fileFirstOff    = 16
	fileSizeOff     = 24
	fileLogOff      = 32
	fileMadeOff     = 48
	fileClusterLen  = 56
	fileClusterOff  = 60
	maxClusterBytes = 256
)

// fileHeader is the identity of one log file.
type fileHeader struct {
	cluster string
	log     ident.Log
	first   ident.Position
	size    int64
	align   int
	madeMs  int64
}

// encodeFileHeader fills dst, which has fileHeaderSize bytes.
func encodeFileHeader(dst []byte, h fileHeader) {
	clear(dst[:fileHeaderSize])
	le := binary.LittleEndian
	le.PutUint32(dst, fileMagic)
	le.PutUint16(dst[fileVersionOff:], formatVersion)
	le.PutUint32(dst[fileAlignOff:], uint32(h.align))
	le.PutUint64(dst[fileFirstOff:], uint64(h.first))
	le.PutUint64(dst[fileSizeOff:], uint64(h.size))
	copy(dst[fileLogOff:], h.log[:])
	le.PutUint64(dst[fileMadeOff:], uint64(h.madeMs))
	n := copy(dst[fileClusterOff:fileClusterOff+maxClusterBytes], h.cluster)
	le.PutUint32(dst[fileClusterLen:], uint32(n))
	le.PutUint32(dst[fileCRCOff:], crc32.Checksum(dst[fileVersionOff:fileHeaderSize], castagnoli))
}

// decodeFileHeader reads a file header: errBad when the bytes are not one,
// ErrVersion when they are one of a newer format.
func decodeFileHeader(b []byte) (fileHeader, error) {
	le := binary.LittleEndian
	if len(b) < fileHeaderSize {
		return fileHeader{}, fmt.Errorf("file header: %w: %d bytes", errBad, len(b))
	}
	b = b[:fileHeaderSize]
	if le.Uint32(b) != fileMagic {
		return fileHeader{}, fmt.Errorf("file header: %w: magic %08x", errBad, le.Uint32(b))
	}
	if got, want := crc32.Checksum(b[fileVersionOff:], castagnoli), le.Uint32(b[fileCRCOff:]); got != want {
		return fileHeader{}, fmt.Errorf("file header: %w: crc %08x, stored %08x", errBad, got, want)
	}
	if v := le.Uint16(b[fileVersionOff:]); v != formatVersion {
		return fileHeader{}, fmt.Errorf("file header: version %d: %w", v, ErrVersion)
	}
	n := le.Uint32(b[fileClusterLen:])
	h := fileHeader{
		log:    ident.Log(b[fileLogOff : fileLogOff+16]),
		first:  ident.Position(le.Uint64(b[fileFirstOff:])),
		size:   int64(le.Uint64(b[fileSizeOff:])),
		align:  int(le.Uint32(b[fileAlignOff:])),
		madeMs: int64(le.Uint64(b[fileMadeOff:])),
	}
	aligned := h.align >= 512 && h.align <= 1<<20 && h.align&(h.align-1) == 0
	if n > maxClusterBytes || !aligned || h.first < 0 || h.size < 2*fileHeaderSize || h.size > maxFileSize {
		return fileHeader{}, fmt.Errorf("file header: %w: values out of range", errBad)
	}
	h.cluster = string(b[fileClusterOff : fileClusterOff+n])
	return h, nil
}

// maxFileSize keeps offsets inside a file within 32 bits (index entries).
const maxFileSize = 1 << 31

// errBad: bytes that are not what was expected there. What that means (torn,
// corrupt, never written) is for the reader of the whole log to say.
var errBad = errors.New("not valid")

// Block header:
//
//	 0       4       8     10    12      16              24              32
//	+-------+-------+-----+-----+-------+---------------+---------------+
//	| magic | crc   | ver | 0   | frames| position      | durable up to |
//	+-------+-------+-----+-----+-------+---------------+---------------+
//	| previous end  | log epoch     | wall clock, ms| padded| payld |    32..64
//	+-------+-------+---------------+---------------+-------+-------+
//	| payCRC| prvCRC| 0             |                                   64..80
//	+-------+-------+---------------+
//
// crc covers bytes 8 to 80. padded is the whole block with its header, a
// multiple of the file's alignment; payld the bytes of frames after the header;
// prvCRC the crc of the previous block's header, previous end where that block
// ended: the two chain blocks across files and across what a recovery cut off.
const (
	blockHeaderSize    = 80
	blockMagic         = 0x4b424b53 // "SKBK"
	blockCRCOff        = 4
	blockVersionOff    = 8
	blockFramesOff     = 12
	blockPositionOff   = 16
	blockDurableOff    = 24
	blockPrevEndOff    = 32
	blockEpochOff      = 40
	blockClockOff      = 48
	blockPaddedOff     = 56
	blockPayloadOff    = 60
	blockPayloadCRCOff = 64
	blockPrevCRCOff    = 68
)

// blockHeader is one group commit's header.
type blockHeader struct {
	position   ident.Position
	durable    ident.Position // everything below was on disk when this block was built
	prevEnd    ident.Position // end of the block before: 0 for the first of a log
	epoch      ident.LogEpoch
	clockMs    int64
	padded     uint32
	payload    uint32
	payloadCRC uint32
	prevCRC    uint32 // header CRC of the block before
	frames     uint32
	crc        uint32 // own header CRC, set by encode and decode
}

func (h *blockHeader) end() ident.Position { return h.position + ident.Position(h.padded) }

// encodeBlockHeader fills the first blockHeaderSize bytes of dst and sets h.crc.
func encodeBlockHeader(dst []byte, h *blockHeader) {
	le := binary.LittleEndian
	clear(dst[:blockHeaderSize])
	le.PutUint32(dst, blockMagic)
	le.PutUint16(dst[blockVersionOff:], formatVersion)
	le.PutUint32(dst[blockFramesOff:], h.frames)
	le.PutUint64(dst[blockPositionOff:], uint64(h.position))
	le.PutUint64(dst[blockDurableOff:], uint64(h.durable))
	le.PutUint64(dst[blockPrevEndOff:], uint64(h.prevEnd))
	le.PutUint64(dst[blockEpochOff:], uint64(h.epoch))
	le.PutUint64(dst[blockClockOff:], uint64(h.clockMs))
	le.PutUint32(dst[blockPaddedOff:], h.padded)
	le.PutUint32(dst[blockPayloadOff:], h.payload)
	le.PutUint32(dst[blockPayloadCRCOff:], h.payloadCRC)
	le.PutUint32(dst[blockPrevCRCOff:], h.prevCRC)
	h.crc = crc32.Checksum(dst[blockVersionOff:blockHeaderSize], castagnoli)
	le.PutUint32(dst[blockCRCOff:], h.crc)
}

// decodeBlockHeader reads a block header that must lie at position at. It checks
// everything but the payload: errBad for what is not a block here, ErrVersion
// for a sound one of a newer format.
func decodeBlockHeader(b []byte, at ident.Position) (blockHeader, error) {
	le := binary.LittleEndian
	if len(b) < blockHeaderSize || le.Uint32(b) != blockMagic {
		return blockHeader{}, errNoBlock
	}
	b = b[:blockHeaderSize]
	crc := le.Uint32(b[blockCRCOff:])
	if crc32.Checksum(b[blockVersionOff:], castagnoli) != crc {
		return blockHeader{}, fmt.Errorf("block at %d: %w: header crc", at, errBad)
	}
	if got := ident.Position(le.Uint64(b[blockPositionOff:])); got != at {
		return blockHeader{}, fmt.Errorf("block at %d: %w: it says %d", at, errBad, got)
	}
	if v := le.Uint16(b[blockVersionOff:]); v != formatVersion {
		return blockHeader{}, fmt.Errorf("block at %d: version %d: %w", at, v, ErrVersion)
	}
	h := blockHeader{
		position:   at,
		durable:    ident.Position(le.Uint64(b[blockDurableOff:])),
		prevEnd:    ident.Position(le.Uint64(b[blockPrevEndOff:])),
		epoch:      ident.LogEpoch(le.Uint64(b[blockEpochOff:])),
		clockMs:    int64(le.Uint64(b[blockClockOff:])),
		padded:     le.Uint32(b[blockPaddedOff:]),
		payload:    le.Uint32(b[blockPayloadOff:]),
		payloadCRC: le.Uint32(b[blockPayloadCRCOff:]),
		prevCRC:    le.Uint32(b[blockPrevCRCOff:]),
		frames:     le.Uint32(b[blockFramesOff:]),
		crc:        crc,
	}
	if h.padded > maxFileSize || h.payload > h.padded || h.padded-h.payload < blockHeaderSize ||
		h.frames > h.payload/frameHeaderSize || h.durable > at || h.prevEnd > at || h.padded == 0 {
		return blockHeader{}, fmt.Errorf("block at %d: %w: values out of range", at, errBad)
	}
	return h, nil
}

// errNoBlock is errBad without a story: most bytes that are looked at in a
// search are simply no block.
var errNoBlock = fmt.Errorf("block: %w: magic", errBad)

// frameType says what a frame is.
type frameType uint8

const (
	frameData     frameType = 1 // payload: one record batch, verbatim
	frameOpened   frameType = 2 // a part of a generation's opening state
	frameCut      frameType = 3 // the ends of a sealed generation
	frameLogStart frameType = 4 // base: the new log start of one queue
	frameDropped  frameType = 5 // payload: partitions that are gone from every generation
	frameEpoch    frameType = 6 // base: the log epoch begun
	frameSnapshot frameType = 7 // a part of a generation's state, written again
	frameForgot   frameType = 8 // the generation was never named: garbage
)

// Frame header:
//
//	 0       4    5    6     8       12      16                          32
//	+-------+----+----+-----+-------+-------+---------------------------+
//	| crc   | ty | 0  | 0   | length| count | topic id                  |
//	+-------+----+----+-----+-------+-------+---------------------------+
//	| part. | group | gen   | 0     | opening: log epoch, position      |  32..64
//	+-------+-------+-------+-------+---------------+-------------------+
//	| base offset   | max timestamp |                                      64..80
//	+---------------+---------------+
//
// crc is the CRC-32C of bytes 4 to 80, XOR bits 32 to 63 of positionMix times the
// frame's absolute position, which is not stored: a frame header is valid at one
// position of the log only, so it can be believed when the block around it cannot. length is the payload
// after the header. For a part of a state, base offset is the part's number and
// count the number of parts.
const (
	frameHeaderSize = 80
	frameTypeOff    = 4
	frameLengthOff  = 8
	frameCountOff   = 12
	frameTopicOff   = 16
	framePartOff    = 32
	frameGroupOff   = 36
	frameGenOff     = 40
	frameOpenEpoch  = 48
	frameOpenPos    = 56
	frameBaseOff    = 64
	frameMaxTimeOff = 72
)

// positionMix spreads a position over 32 bits (2^64 divided by the golden ratio).
const positionMix = 0x9e3779b97f4a7c15

// frameHeader is the self-description of one frame.
type frameHeader struct {
	kind      frameType
	length    uint32
	count     int32
	partition ident.Partition
	gen       ident.Generation
	base      ident.Offset
	maxTime   int64
}

// encodeFrameHeader fills the first frameHeaderSize bytes of dst for a frame that
// lies at position at.
func encodeFrameHeader(dst []byte, h *frameHeader, at ident.Position) {
	le := binary.LittleEndian
	dst = dst[:frameHeaderSize]
	le.PutUint32(dst[frameTypeOff:], uint32(h.kind))
	le.PutUint32(dst[frameLengthOff:], h.length)
	le.PutUint32(dst[frameCountOff:], uint32(h.count))
	copy(dst[frameTopicOff:], h.partition.Topic[:])
	le.PutUint32(dst[framePartOff:], uint32(h.partition.Index))
	le.PutUint32(dst[frameGroupOff:], uint32(h.gen.Group))
	le.PutUint64(dst[frameGenOff:], uint64(uint32(h.gen.Epoch)))
	le.PutUint64(dst[frameOpenEpoch:], uint64(h.gen.Frame.Epoch))
	le.PutUint64(dst[frameOpenPos:], uint64(h.gen.Frame.Position))
	le.PutUint64(dst[frameBaseOff:], uint64(h.base))
	le.PutUint64(dst[frameMaxTimeOff:], uint64(h.maxTime))
	le.PutUint32(dst, frameCRC(dst, at))
}

// frameCRC is the checksum of an encoded header that lies at position at.
func frameCRC(b []byte, at ident.Position) uint32 {
	return crc32.Checksum(b[frameTypeOff:frameHeaderSize], castagnoli) ^ uint32(uint64(at)*positionMix>>32)
}

// decodeFrameHeader reads a frame header that must lie at position at.
func decodeFrameHeader(b []byte, at ident.Position) (frameHeader, error) {
	le := binary.LittleEndian
	if len(b) < frameHeaderSize {
		return frameHeader{}, fmt.Errorf("frame at %d: %w: %d bytes left", at, errBad, len(b))
	}
	if frameCRC(b, at) != le.Uint32(b) {
		return frameHeader{}, errNoFrame
	}
	h := frameHeader{
		kind:   frameType(b[frameTypeOff]),
		length: le.Uint32(b[frameLengthOff:]),
		count:  int32(le.Uint32(b[frameCountOff:])),
		partition: ident.Partition{
			Topic: ident.Topic(b[frameTopicOff : frameTopicOff+16]),
			Index: int32(le.Uint32(b[framePartOff:])),
		},
		gen: ident.Generation{
			Group: ident.Group(le.Uint32(b[frameGroupOff:])),
			Epoch: ident.Epoch(le.Uint32(b[frameGenOff:])),
			Frame: ident.Frame{
				Epoch:    ident.LogEpoch(le.Uint64(b[frameOpenEpoch:])),
				Position: ident.Position(le.Uint64(b[frameOpenPos:])),
			},
		},
		base:    ident.Offset(le.Uint64(b[frameBaseOff:])),
		maxTime: int64(le.Uint64(b[frameMaxTimeOff:])),
	}
	if h.kind == 0 || h.kind > frameForgot {
		return frameHeader{}, fmt.Errorf("frame at %d: type %d: %w", at, h.kind, ErrVersion)
	}
	return h, nil
}

var errNoFrame = fmt.Errorf("frame: %w: header crc", errBad)

// frames walks the frames of a block's payload that starts at position at. It
// stops at the first error; payload slices point into b.
func frames(b []byte, at ident.Position, count uint32) func(yield func(frame, error) bool) {
	return func(yield func(frame, error) bool) {
		for off := 0; count > 0; count-- {
			pos := at + ident.Position(off)
			h, err := decodeFrameHeader(b[off:], pos)
			if err == nil && int64(h.length) > int64(len(b)-off-frameHeaderSize) {
				err = fmt.Errorf("frame at %d: %w: length %d of %d left", pos, errBad, h.length, len(b)-off)
			}
			if err != nil {
				yield(frame{}, err)
				return
			}
			end := off + frameHeaderSize + int(h.length)
			if !yield(frame{frameHeader: h, position: pos, payload: b[off+frameHeaderSize : end]}, nil) {
				return
			}
			off = end
		}
	}
}

// frame is a decoded frame in place.
type frame struct {
	frameHeader
	position ident.Position
	payload  []byte
}

// A record batch, as far as the log reads it (Kafka's message format v2; the
// CRC covers everything from the attributes on).
const (
	batchBaseOff       = 0
	batchLengthOff     = 8
	batchLeaderOff     = 12
	batchMagicOff      = 16
	batchCRCOff        = 17
	batchAttributesOff = 21
	batchLastDeltaOff  = 23
	batchMaxTimeOff    = 35
	batchProducerOff   = 43
	batchEpochOff      = 51
	batchSequenceOff   = 53
	batchHeaderSize    = 61

	attrTransactional = 1 << 4
	attrControl       = 1 << 5
)

// stampBatch writes base offset and leader epoch into a stored copy: neither is
// covered by the batch's CRC.
func stampBatch(b []byte, base ident.Offset, epoch ident.Epoch) {
	binary.BigEndian.PutUint64(b[batchBaseOff:], uint64(base))
	binary.BigEndian.PutUint32(b[batchLeaderOff:], uint32(epoch))
}

// checkBatch proves that b is the batch that the frame header describes, every bit
// of it.
func checkBatch(b []byte, base ident.Offset, count int32, epoch ident.Epoch) error {
	be := binary.BigEndian
	switch {
	case len(b) < batchHeaderSize:
		return fmt.Errorf("record batch: %w: %d bytes", errBad, len(b))
	case ident.Offset(be.Uint64(b[batchBaseOff:])) != base:
		return fmt.Errorf("record batch: %w: base offset %d, want %d", errBad, be.Uint64(b[batchBaseOff:]), base)
	case int64(be.Uint32(b[batchLengthOff:])) != int64(len(b)-batchLeaderOff):
		return fmt.Errorf("record batch: %w: length %d of %d bytes", errBad, be.Uint32(b[batchLengthOff:]), len(b))
	case ident.Epoch(be.Uint32(b[batchLeaderOff:])) != epoch:
		return fmt.Errorf("record batch: %w: leader epoch %d, want %d", errBad, be.Uint32(b[batchLeaderOff:]), epoch)
	case b[batchMagicOff] != 2 || int32(be.Uint32(b[batchLastDeltaOff:])) != count-1:
		return fmt.Errorf("record batch: %w: magic %d, last delta %d", errBad, b[batchMagicOff], be.Uint32(b[batchLastDeltaOff:]))
	case crc32.Checksum(b[batchAttributesOff:], castagnoli) != be.Uint32(b[batchCRCOff:]):
		return fmt.Errorf("record batch: %w: crc", errBad)
	}
	return nil
}

// batchFacts are what producer state needs of a stored batch.
type batchFacts struct {
	producer      int64
	epoch         int16
	sequence      int32
	records       int32
	maxTime       int64
	transactional bool
	control       bool
	coordinator   int32 // epoch in a control record, else -1
}

// readBatch takes the facts from a batch whose bytes were checked.
func readBatch(b []byte) (batchFacts, error) {
	be := binary.BigEndian
	if len(b) < batchHeaderSize {
		return batchFacts{}, fmt.Errorf("record batch: %w: %d bytes", errBad, len(b))
	}
	attr := be.Uint16(b[batchAttributesOff:])
	f := batchFacts{
		producer:      int64(be.Uint64(b[batchProducerOff:])),
		epoch:         int16(be.Uint16(b[batchEpochOff:])),
		sequence:      int32(be.Uint32(b[batchSequenceOff:])),
		records:       int32(be.Uint32(b[batchLastDeltaOff:])) + 1,
		maxTime:       int64(be.Uint64(b[batchMaxTimeOff:])),
		transactional: attr&attrTransactional != 0,
		control:       attr&attrControl != 0,
		coordinator:   -1,
	}
	if f.control {
		f.coordinator = markerCoordinator(b[batchHeaderSize:])
	}
	return f, nil
}

// markerCoordinator finds the coordinator epoch in an end-of-transaction record:
// its value is a version (2 bytes) and the epoch (4 bytes). -1 when there is none.
func markerCoordinator(rec []byte) int32 {
	off := 0
	next := func() int64 {
		v, n := binary.Varint(rec[off:])
		if n <= 0 {
			off = len(rec)
			return -1
		}
		off += n
		return v
	}
	next()                     // record length
	off = min(off+1, len(rec)) // attributes
	next()                     // timestamp delta
	next()                     // offset delta
	key := next()              // key length
	if key < 0 || key > int64(len(rec)-off) {
		return -1
	}
	off += int(key)
	if value := next(); value < 6 || len(rec)-off < 6 {
		return -1
	}
	return int32(binary.BigEndian.Uint32(rec[off+2:]))
}
