package commitlog

import (
	"encoding/binary"
	"fmt"
	"hash/crc32"

	"github.com/skeinmq/skein/internal/ident"
)

// A checkpoint slot to the byte; docs/format/checkpoint.md says the same.
// Numbers are little-endian, CRCs are CRC-32C.
//
//	 0       4       8       12      16              32
//	+-------+-------+-------+-------+---------------+
//	| crc   | magic | ver   | 0     | log UUID      |
//	+-------+-------+-------+-------+-------+-------+-------+-------+
//	| serial        | position      | log epoch     | payload bytes |  32..64
//	+---------------+---------------+---------------+---------------+
//	| chunks, to the end of the file
//
// crc covers bytes 4 to 64. Chunk:
//
//	 0       4       8
//	+-------+-------+------------------+
//	| crc   | length| length bytes     |
//	+-------+-------+------------------+
//
// length is 65536 but for the last chunk. Its crc covers length and bytes and
// goes on over the serial and the chunk's number (8 + 8 bytes that are not
// stored): what an older checkpoint left in the slot is not believed.
const (
	checkpointMagic   = 0x50434b53 // "SKCP"
	checkpointVersion = 1
	checkpointHeader  = 64
	checkpointChunk   = 64 << 10
	chunkHeader       = 8

	checkpointMagicOff    = 4
	checkpointVersionOff  = 8
	checkpointLogOff      = 16
	checkpointSerialOff   = 32
	checkpointPositionOff = 40
	checkpointEpochOff    = 48
	checkpointLengthOff   = 56
)

// checkpointMark says what a checkpoint is about.
type checkpointMark struct {
	log      ident.Log
	serial   uint64         // grows by one with each checkpoint
	position ident.Position // everything below is in the payload
	epoch    ident.LogEpoch
	length   int64 // bytes of payload
}

// fileSize is the exact size of the slot.
func (m *checkpointMark) fileSize() int64 {
	chunks := (m.length + checkpointChunk - 1) / checkpointChunk
	return checkpointHeader + chunks*chunkHeader + m.length
}

func encodeCheckpointHeader(dst []byte, m *checkpointMark) {
	le := binary.LittleEndian
	dst = dst[:checkpointHeader]
	clear(dst)
	le.PutUint32(dst[checkpointMagicOff:], checkpointMagic)
	le.PutUint32(dst[checkpointVersionOff:], checkpointVersion)
	copy(dst[checkpointLogOff:], m.log[:])
	le.PutUint64(dst[checkpointSerialOff:], m.serial)
	le.PutUint64(dst[checkpointPositionOff:], uint64(m.position))
	le.PutUint64(dst[checkpointEpochOff:], uint64(m.epoch))
	le.PutUint64(dst[checkpointLengthOff:], uint64(m.length))
	le.PutUint32(dst, crc32.Checksum(dst[checkpointMagicOff:], castagnoli))
}

// decodeCheckpointHeader reads the header of a slot of fileSize bytes: errBad
// when it is none, ErrVersion when it is one of a newer format.
func decodeCheckpointHeader(b []byte, fileSize int64) (checkpointMark, error) {
	le := binary.LittleEndian
	if len(b) < checkpointHeader || le.Uint32(b[checkpointMagicOff:]) != checkpointMagic {
		return checkpointMark{}, fmt.Errorf("checkpoint header: %w", errBad)
	}
	b = b[:checkpointHeader]
	if got, want := crc32.Checksum(b[checkpointMagicOff:], castagnoli), le.Uint32(b); got != want {
		return checkpointMark{}, fmt.Errorf("checkpoint header: %w: crc %08x, stored %08x", errBad, got, want)
	}
	if v := le.Uint32(b[checkpointVersionOff:]); v != checkpointVersion {
		return checkpointMark{}, fmt.Errorf("checkpoint version %d: %w", v, ErrVersion)
	}
	m := checkpointMark{
		log:      ident.Log(b[checkpointLogOff : checkpointLogOff+16]),
		serial:   le.Uint64(b[checkpointSerialOff:]),
		position: ident.Position(le.Uint64(b[checkpointPositionOff:])),
		epoch:    ident.LogEpoch(le.Uint64(b[checkpointEpochOff:])),
		length:   int64(le.Uint64(b[checkpointLengthOff:])),
	}
	if m.length < 0 || m.length > fileSize || m.position < 0 || m.fileSize() != fileSize {
		return checkpointMark{}, fmt.Errorf("checkpoint header: %w: %d bytes of payload in a file of %d", errBad, m.length, fileSize)
	}
	return m, nil
}

// sealChunk writes the header of a chunk in place; b is the header's room and
// the chunk's bytes.
func sealChunk(b []byte, serial, number uint64) {
	binary.LittleEndian.PutUint32(b[4:], uint32(len(b)-chunkHeader))
	binary.LittleEndian.PutUint32(b, chunkCRC(b, serial, number))
}

func chunkCRC(b []byte, serial, number uint64) uint32 {
	return crcAt(b[4:], ident.Position(serial), int64(number))
}

// checkChunk verifies a chunk that must fill b exactly.
func checkChunk(b []byte, serial, number uint64) error {
	le := binary.LittleEndian
	if got, want := chunkCRC(b, serial, number), le.Uint32(b); got != want {
		return fmt.Errorf("checkpoint chunk %d: %w: crc %08x, stored %08x", number, errBad, got, want)
	}
	if n := le.Uint32(b[4:]); int64(n) != int64(len(b)-chunkHeader) {
		return fmt.Errorf("checkpoint chunk %d: %w: length %d", number, errBad, n)
	}
	return nil
}
