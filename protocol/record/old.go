package record

import (
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"slices"
)

// A message of magic 0 or 1. The CRC-32 (IEEE) covers everything from the magic on. Sets are messages one after the other.
//
//	 0        8      12    16      17           18                   (magic 1 only)
//	+--------+------+-----+-------+------------+-----------+------------------+-------------------+
//	| offset | size | crc | magic | attributes | timestamp | key length, key  | value length, val |
//	+--------+------+-----+-------+------------+-----------+------------------+-------------------+
//
// Attributes: bits 0–2 codec, bit 3 log append time (magic 1). In a compressed message, the wrapper, the value is a
// compressed set; the offset of the wrapper is that of its last message. The offsets within are absolute in magic 0 and
// relative in magic 1.
const (
	oldCRCOff        = 12
	oldAttributesOff = 17
	oldTimestampOff  = 18
	oldKeyOff0       = 18
	oldKeyOff1       = 26
	oldLogAppendTime = 1 << 3
)

// message is one message of magic 0 or 1. Slices alias the input.
type message struct {
	offset        int64
	magic         int8
	codec         Codec
	logAppendTime bool
	timestamp     int64 // NoTimestamp in magic 0
	key, value    []byte
	hasKey        bool
}

// parseMessage decodes a whole message, as batchSize found it, and checks its CRC.
func parseMessage(b []byte) (message, error) {
	m := message{offset: int64(binary.BigEndian.Uint64(b)), magic: int8(b[magicOff]), timestamp: NoTimestamp}
	at := oldKeyOff0
	if m.magic == 1 {
		at = oldKeyOff1
	}
	if m.magic > 1 || len(b) < at+8 {
		return m, refuse(ErrCorrupt, "message ends within its header")
	}
	if got, want := crc32.ChecksumIEEE(b[magicOff:]), binary.BigEndian.Uint32(b[oldCRCOff:]); got != want {
		return m, refuse(ErrCorrupt, fmt.Sprintf("crc is %08x, stored %08x", got, want))
	}
	m.codec = Codec(b[oldAttributesOff] & byte(attrCodec))
	if m.magic == 1 {
		m.timestamp = int64(binary.BigEndian.Uint64(b[oldTimestampOff:]))
		m.logAppendTime = b[oldAttributesOff]&oldLogAppendTime != 0
	}
	var ok bool
	if m.key, m.hasKey, b, ok = oldField(b[at:]); ok {
		m.value, _, b, ok = oldField(b)
	}
	if !ok || len(b) > 0 {
		return m, refuse(ErrCorrupt, "message has another length than it says")
	}
	return m, nil
}

func oldField(b []byte) (field []byte, there bool, rest []byte, ok bool) {
	if len(b) < 4 {
		return nil, false, b, false
	}
	n := int32(binary.BigEndian.Uint32(b))
	b = b[4:]
	if n < 0 {
		return nil, false, b, true
	}
	if int(n) > len(b) {
		return nil, false, b, false
	}
	return b[:n:n], true, b[n:], true
}

// appendTo appends the message with its CRC.
func (m *message) appendTo(dst []byte) []byte {
	start := len(dst)
	attributes := byte(m.codec)
	if m.logAppendTime && m.magic == 1 {
		attributes |= oldLogAppendTime
	}
	dst = binary.BigEndian.AppendUint64(dst, uint64(m.offset))
	dst = append(dst, 0, 0, 0, 0, 0, 0, 0, 0, byte(m.magic), attributes)
	if m.magic == 1 {
		dst = binary.BigEndian.AppendUint64(dst, uint64(m.timestamp))
	}
	dst = appendOldField(dst, m.key, m.hasKey)
	dst = appendOldField(dst, m.value, m.value != nil)
	msg := dst[start:]
	binary.BigEndian.PutUint32(msg[lengthOff:], uint32(len(msg)-overhead))
	binary.BigEndian.PutUint32(msg[oldCRCOff:], crc32.ChecksumIEEE(msg[magicOff:]))
	return dst
}

func appendOldField(dst, b []byte, there bool) []byte {
	if !there {
		return append(dst, 0xff, 0xff, 0xff, 0xff)
	}
	return append(binary.BigEndian.AppendUint32(dst, uint32(len(b))), b...)
}

// unwrap decompresses the set within a wrapper into buf and calls f with each message, its offset made absolute.
func (m *message) unwrap(buf []byte, limit int, f func(*message) error) ([]byte, error) {
	src := m.value
	if m.codec == Lz4 && m.magic == 0 {
		src = fixLz4(src)
	}
	set, err := decompress(buf[:0], m.codec, src, limit)
	if err != nil {
		return buf, decompressError(err)
	}
	last := int64(-1) // of the inner offsets
	for b := set; ; {
		size, err := batchSize(b)
		if err != nil {
			return set, err
		}
		if size == 0 {
			break
		}
		last = int64(binary.BigEndian.Uint64(b))
		b = b[size:]
	}
	for b := set; ; {
		size, _ := batchSize(b) // was checked above
		if size == 0 {
			return set, nil
		}
		inner, err := parseMessage(b[:size])
		if err != nil {
			return set, err
		}
		if inner.magic != m.magic || inner.codec != None {
			return set, refuse(ErrInvalid, "a compressed message must hold plain messages of its own magic")
		}
		if m.magic == 1 {
			inner.offset += m.offset - last
		}
		if m.logAppendTime {
			inner.timestamp, inner.logAppendTime = m.timestamp, true
		}
		if err := f(&inner); err != nil {
			return set, err
		}
		b = b[size:]
	}
}

// validateOld is Validate for message sets of magic 0 and 1, which become one batch of magic 2.
func validateOld(set []byte, rules *Rules) (Batch, error) {
	up := upConversion{rules: rules}
	up.lo, up.hi = rules.timestampRange()
	wrapped := false
	for i := 0; ; i++ {
		size, err := batchSize(set)
		if err != nil {
			return Batch{}, err
		}
		if size == 0 {
			break // what is left is a message cut off
		}
		b := set[:size:size]
		set = set[size:]
		if b[magicOff] > 1 {
			return Batch{}, refuse(ErrInvalid, "message set mixes magics")
		}
		if rules.MaxBytes > 0 && size > rules.MaxBytes {
			return Batch{}, refuse(ErrTooLarge, fmt.Sprintf("message of %d bytes exceeds the limit of %d", size, rules.MaxBytes))
		}
		m, err := parseMessage(b)
		if err != nil {
			return Batch{}, err
		}
		if wrapped || m.codec != None && i > 0 {
			return Batch{}, refuse(ErrInvalid, "a compressed message must be alone")
		}
		if m.codec == None {
			err = up.add(&m)
		} else {
			wrapped = true
			err = up.addWrapped(&m)
		}
		if err != nil {
			return Batch{}, err
		}
	}
	return up.finish()
}

// upConversion builds the batch of magic 2.
type upConversion struct {
	rules   *Rules
	lo, hi  int64
	builder Builder
	bad     refusals
}

func (u *upConversion) add(m *message) error {
	index := int32(u.builder.Len())
	switch {
	case u.rules.RequireKeys && !m.hasKey:
		u.bad.add(index, ErrInvalid, "a compacted topic takes no record without key")
	case !u.rules.LogAppendTime && m.timestamp != NoTimestamp && (m.timestamp < u.lo || m.timestamp > u.hi):
		u.bad.add(index, ErrTimestamp, fmt.Sprintf("timestamp %d is not between %d and %d", m.timestamp, u.lo, u.hi))
	}
	u.builder.appendElement(&element{key: m.key, hasKey: m.hasKey, value: m.value}, m.timestamp, index)
	return nil
}

func (u *upConversion) addWrapped(m *message) error {
	if m.codec > Lz4 {
		return refuse(ErrInvalid, "old message formats do not have "+m.codec.String())
	}
	u.builder.Codec = m.codec
	buf := getScratch()
	defer putScratch(buf)
	set, err := m.unwrap(*buf, u.rules.limit(), u.add)
	*buf = set[:0]
	return err
}

func (u *upConversion) finish() (Batch, error) {
	if u.builder.Len() == 0 {
		return Batch{}, refuse(ErrEmpty, "message set holds no whole message")
	}
	if err := u.bad.err(); err != nil {
		return Batch{}, err
	}
	if u.rules.Recompress {
		u.builder.Codec = u.rules.Codec
		u.builder.Level = u.rules.Level
	}
	b := u.builder.AppendBatch(nil)
	if u.rules.MaxBytes > 0 && len(b) > u.rules.MaxBytes {
		return Batch{}, refuse(ErrTooLarge, fmt.Sprintf("converted batch of %d bytes exceeds the limit of %d", len(b), u.rules.MaxBytes))
	}
	if u.rules.LogAppendTime {
		SetLogAppendTime(b, u.rules.Now)
	}
	return Batch{Header: header(b), Bytes: b}, nil
}

// DownConvert appends batches of magic 2, as they lie in a log one after the other, as messages of magic 0 or 1 for a
// client that knows no better (Fetch v0–v1: magic 0, v2–v3: magic 1). Markers and record headers are dropped, and so are
// uncompressed records before offset from. Batches keep their codec; zstd, which the old formats lack, matches ErrCodec.
// limit bounds what one batch may decompress to, 0 for the default.
func DownConvert(dst, batches []byte, magic int8, from int64, limit int) ([]byte, error) {
	if limit <= 0 {
		limit = DefaultDecompressLimit
	}
	for len(batches) > 0 {
		h, err := ParseHeader(batches)
		if err != nil {
			return dst, err
		}
		b := batches[:h.Size()]
		batches = batches[h.Size():]
		if h.Attributes.Control() {
			continue
		}
		if h.Attributes.Codec() == Zstd {
			return dst, refuse(ErrCodec, "old message formats cannot carry zstd")
		}
		if dst, err = downConvertBatch(dst, b, &h, magic, from, limit); err != nil {
			return dst, err
		}
	}
	return dst, nil
}

func downConvertBatch(dst, b []byte, h *Header, magic int8, from int64, limit int) ([]byte, error) {
	codec := h.Attributes.Codec()
	var inner []byte
	wrapper := message{offset: -1, magic: magic, codec: codec, timestamp: NoTimestamp, logAppendTime: h.Attributes.LogAppendTime()}
	first := int64(-1)
	for r, err := range Records(b, limit) {
		if err != nil {
			return dst, err
		}
		m := message{offset: r.Offset, magic: magic, timestamp: r.Timestamp, key: r.Key, hasKey: r.Key != nil, value: r.Value,
			logAppendTime: h.Attributes.LogAppendTime()}
		if codec == None {
			if r.Offset >= from {
				dst = m.appendTo(dst)
			}
			continue
		}
		if first < 0 {
			first = r.Offset
		}
		wrapper.offset, wrapper.timestamp = r.Offset, max(wrapper.timestamp, r.Timestamp)
		if magic == 1 {
			m.offset -= first
		}
		inner = m.appendTo(inner)
	}
	if len(inner) == 0 {
		return dst, nil
	}
	wrapper.value = compress(nil, codec, 0, inner)
	if codec == Lz4 && magic == 0 {
		breakLz4(wrapper.value)
	}
	return wrapper.appendTo(slices.Grow(dst, len(wrapper.value)+64)), nil
}
