package record

import "slices"

// KeyValue is a header of a record. A nil Value is null.
type KeyValue struct {
	Key   string
	Value []byte
}

// Builder makes a batch of magic 2, for tools, tests and conversion. Set the fields, Append records, take the batch.
type Builder struct {
	Codec         Codec
	Level         Level
	BaseOffset    int64
	LeaderEpoch   int32
	ProducerID    int64 // with Idempotent or Transactional
	ProducerEpoch int16
	BaseSequence  int32
	// Idempotent makes the batch carry the producer fields; without it they are -1.
	Idempotent    bool
	Transactional bool
	Control       bool

	records       []byte
	count         int32
	lastDelta     int32
	baseTimestamp int64
	maxTimestamp  int64
}

// Append adds a record with the next offset. Nil key and value are null. The timestamp is in milliseconds since 1970.
func (b *Builder) Append(timestamp int64, key, value []byte, headers ...KeyValue) {
	e := element{key: key, hasKey: key != nil, value: value, headerCount: int32(len(headers))}
	for _, h := range headers {
		e.headers = appendSized(e.headers, []byte(h.Key), true)
		e.headers = appendSized(e.headers, h.Value, h.Value != nil)
	}
	b.appendElement(&e, timestamp, b.nextDelta())
}

// nextDelta is the offset delta after the last one.
func (b *Builder) nextDelta() int32 {
	if b.count == 0 {
		return 0
	}
	return b.lastDelta + 1
}

func (b *Builder) appendElement(e *element, timestamp int64, offsetDelta int32) {
	if b.count == 0 {
		b.baseTimestamp, b.maxTimestamp = timestamp, NoTimestamp
	}
	b.maxTimestamp = max(b.maxTimestamp, timestamp)
	b.records = e.appendTo(b.records, timestamp-b.baseTimestamp, offsetDelta)
	b.lastDelta = offsetDelta
	b.count++
}

// Len returns how many records were appended.
func (b *Builder) Len() int { return int(b.count) }

// AppendBatch appends the finished batch to dst. The builder is empty afterwards and keeps its settings.
func (b *Builder) AppendBatch(dst []byte) []byte {
	h := Header{
		BaseOffset: b.BaseOffset, LeaderEpoch: b.LeaderEpoch, Attributes: Attributes(b.Codec), LastOffsetDelta: b.lastDelta,
		BaseTimestamp: b.baseTimestamp, MaxTimestamp: b.maxTimestamp,
		ProducerID: -1, ProducerEpoch: -1, BaseSequence: -1, Count: b.count,
	}
	if b.Idempotent || b.Transactional {
		h.ProducerID, h.ProducerEpoch, h.BaseSequence = b.ProducerID, b.ProducerEpoch, b.BaseSequence
	}
	if b.Transactional {
		h.Attributes |= attrTransactional
	}
	if b.Control {
		h.Attributes |= attrControl
	}
	dst = appendBatch(dst, &h, b.Level, b.records)
	b.records, b.count, b.lastDelta = b.records[:0], 0, 0
	return dst
}

// AppendEmpty appends a batch without records that covers the offsets from base to last, as compaction leaves them
// behind: who reads it goes on after last. last is at most 2³¹−1 beyond base.
func AppendEmpty(dst []byte, base, last int64, leaderEpoch int32) []byte {
	h := Header{
		BaseOffset: base, LeaderEpoch: leaderEpoch, LastOffsetDelta: int32(last - base),
		BaseTimestamp: -1, MaxTimestamp: -1, ProducerID: -1, ProducerEpoch: -1, BaseSequence: -1,
	}
	return appendBatch(dst, &h, 0, nil)
}

// appendBatch appends a batch of magic 2 with these records, compressed as the attributes of h say, and completes h.
func appendBatch(dst []byte, h *Header, l Level, records []byte) []byte {
	start := len(dst)
	dst = slices.Grow(dst, HeaderSize+len(records)/2)
	dst = append(dst, make([]byte, HeaderSize)...)
	dst = compress(dst, h.Attributes.Codec(), l, records)
	batch := dst[start:]
	h.Length, h.Magic, h.CRC = int32(len(batch)-overhead), 2, 0
	h.put(batch)
	h.CRC = Checksum(batch)
	h.put(batch)
	return dst
}
