package record

import (
	"encoding/binary"
	"hash/crc32"
)

// A batch of magic 2. The CRC-32C covers everything from the attributes to the end, so base offset and leader epoch can
// be written without touching it.
//
//	 0             8        12             16      17     21           23
//	+-------------+--------+--------------+-------+------+------------+-------------------+
//	| base offset | length | leader epoch | magic | crc  | attributes | last offset delta |
//	+-------------+--------+--------------+-------+------+------------+-------------------+
//	 27               35              43            51               53              57      61
//	+----------------+---------------+-------------+----------------+---------------+-------+---------+
//	| base timestamp | max timestamp | producer id | producer epoch | base sequence | count | records |
//	+----------------+---------------+-------------+----------------+---------------+-------+---------+
//
// length counts what follows it. Magic 0 and 1 share the first three fields' places: offset, size; and the magic.
const (
	baseOffsetOff      = 0
	lengthOff          = 8
	leaderEpochOff     = 12
	magicOff           = 16
	crcOff             = 17
	attributesOff      = 21
	lastOffsetDeltaOff = 23
	baseTimestampOff   = 27
	maxTimestampOff    = 35
	producerIDOff      = 43
	producerEpochOff   = 51
	baseSequenceOff    = 53
	countOff           = 57

	// HeaderSize is the size of a batch of magic 2 without records.
	HeaderSize = 61
	// overhead is what the length of any magic does not count: offset and length.
	overhead = 12
	// minLength is the least length of any magic: a message of magic 0 without key and value.
	minLength = 14
	// upToMagic is how many bytes must be there to tell the magic.
	upToMagic = 17
)

// Attributes are the attribute bits of a batch.
//
//	bits 0–2 codec, 3 log append time, 4 transactional, 5 control, 6 base timestamp is a delete horizon
type Attributes int16

const (
	attrCodec         Attributes = 7
	attrLogAppendTime Attributes = 1 << 3
	attrTransactional Attributes = 1 << 4
	attrControl       Attributes = 1 << 5
	attrDeleteHorizon Attributes = 1 << 6
)

// Codec returns the codec, which may be one that does not exist.
func (a Attributes) Codec() Codec { return Codec(a & attrCodec) }

// LogAppendTime reports whether the max timestamp is the time of the append and holds for all records.
func (a Attributes) LogAppendTime() bool { return a&attrLogAppendTime != 0 }

// Transactional reports whether the batch belongs to a transaction.
func (a Attributes) Transactional() bool { return a&attrTransactional != 0 }

// Control reports whether the batch is a marker.
func (a Attributes) Control() bool { return a&attrControl != 0 }

// DeleteHorizon reports whether the base timestamp is the time from which the cleaner may drop the batch's tombstones.
func (a Attributes) DeleteHorizon() bool { return a&attrDeleteHorizon != 0 }

// NoTimestamp is the timestamp of records that have none.
const NoTimestamp = -1

// Header is the header of a batch of magic 2.
type Header struct {
	BaseOffset      int64
	Length          int32 // as stored: without base offset and length
	LeaderEpoch     int32
	Magic           int8
	CRC             uint32
	Attributes      Attributes
	LastOffsetDelta int32
	BaseTimestamp   int64 // milliseconds since 1970
	MaxTimestamp    int64
	ProducerID      int64 // -1 for none
	ProducerEpoch   int16
	BaseSequence    int32
	Count           int32 // of records
}

// Size returns the size of the whole batch in bytes.
func (h *Header) Size() int { return int(h.Length) + overhead }

// LastOffset returns the offset of the last record.
func (h *Header) LastOffset() int64 { return h.BaseOffset + int64(h.LastOffsetDelta) }

// LastSequence returns the sequence number of the last record. Sequences wrap from 2³¹−1 to 0.
func (h *Header) LastSequence() int32 {
	return int32((int64(h.BaseSequence) + int64(h.LastOffsetDelta)) & (1<<31 - 1))
}

// HasProducer reports whether the batch comes from an idempotent producer.
func (h *Header) HasProducer() bool { return h.ProducerID >= 0 }

// ParseHeader decodes the header of the batch of magic 2 that b begins with and checks that the batch is whole. It does
// not look at the CRC. An incomplete batch or another magic match ErrCorrupt.
func ParseHeader(b []byte) (Header, error) {
	if len(b) < HeaderSize {
		return Header{}, refuse(ErrCorrupt, "batch ends within its header")
	}
	h := header(b)
	if h.Magic != 2 {
		return h, refuse(ErrCorrupt, "magic is not 2")
	}
	if h.Length < HeaderSize-overhead || int(h.Length) > len(b)-overhead {
		return h, refuse(ErrCorrupt, "batch length does not fit")
	}
	return h, nil
}

// header decodes HeaderSize bytes.
func header(b []byte) Header {
	_ = b[HeaderSize-1]
	be := binary.BigEndian
	return Header{
		BaseOffset:      int64(be.Uint64(b[baseOffsetOff:])),
		Length:          int32(be.Uint32(b[lengthOff:])),
		LeaderEpoch:     int32(be.Uint32(b[leaderEpochOff:])),
		Magic:           int8(b[magicOff]),
		CRC:             be.Uint32(b[crcOff:]),
		Attributes:      Attributes(be.Uint16(b[attributesOff:])),
		LastOffsetDelta: int32(be.Uint32(b[lastOffsetDeltaOff:])),
		BaseTimestamp:   int64(be.Uint64(b[baseTimestampOff:])),
		MaxTimestamp:    int64(be.Uint64(b[maxTimestampOff:])),
		ProducerID:      int64(be.Uint64(b[producerIDOff:])),
		ProducerEpoch:   int16(be.Uint16(b[producerEpochOff:])),
		BaseSequence:    int32(be.Uint32(b[baseSequenceOff:])),
		Count:           int32(be.Uint32(b[countOff:])),
	}
}

// put encodes h into the first HeaderSize bytes of b.
func (h *Header) put(b []byte) {
	_ = b[HeaderSize-1]
	be := binary.BigEndian
	be.PutUint64(b[baseOffsetOff:], uint64(h.BaseOffset))
	be.PutUint32(b[lengthOff:], uint32(h.Length))
	be.PutUint32(b[leaderEpochOff:], uint32(h.LeaderEpoch))
	b[magicOff] = byte(h.Magic)
	be.PutUint32(b[crcOff:], h.CRC)
	be.PutUint16(b[attributesOff:], uint16(h.Attributes))
	be.PutUint32(b[lastOffsetDeltaOff:], uint32(h.LastOffsetDelta))
	be.PutUint64(b[baseTimestampOff:], uint64(h.BaseTimestamp))
	be.PutUint64(b[maxTimestampOff:], uint64(h.MaxTimestamp))
	be.PutUint64(b[producerIDOff:], uint64(h.ProducerID))
	be.PutUint16(b[producerEpochOff:], uint16(h.ProducerEpoch))
	be.PutUint32(b[baseSequenceOff:], uint32(h.BaseSequence))
	be.PutUint32(b[countOff:], uint32(h.Count))
}

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// Checksum computes the CRC-32C of a whole batch of magic 2.
func Checksum(batch []byte) uint32 { return crc32.Checksum(batch[attributesOff:], castagnoli) }

// Stamp writes base offset and leader epoch into a batch. The CRC covers neither.
func Stamp(batch []byte, baseOffset int64, leaderEpoch int32) {
	binary.BigEndian.PutUint64(batch[baseOffsetOff:], uint64(baseOffset))
	binary.BigEndian.PutUint32(batch[leaderEpochOff:], uint32(leaderEpoch))
}

// SetLogAppendTime gives all records of a batch the timestamp now, in milliseconds since 1970, by the header alone, and
// renews the CRC. Nothing is decompressed.
func SetLogAppendTime(batch []byte, now int64) {
	attributes := Attributes(binary.BigEndian.Uint16(batch[attributesOff:]))
	setMaxTimestamp(batch, attributes|attrLogAppendTime, now)
}

func setMaxTimestamp(batch []byte, a Attributes, timestamp int64) {
	binary.BigEndian.PutUint16(batch[attributesOff:], uint16(a))
	binary.BigEndian.PutUint64(batch[maxTimestampOff:], uint64(timestamp))
	binary.BigEndian.PutUint32(batch[crcOff:], Checksum(batch))
}
