package record

import (
	"encoding/binary"
	"errors"
	"math/bits"
)

// A record of magic 2. All numbers are zigzag varints, up to 64 bits for the timestamp delta, up to 32 for the others.
//
//	length, attributes (int8, unused), timestamp delta, offset delta,
//	key length or -1, key, value length or -1, value,
//	number of headers, each: key length, key, value length or -1, value
//
// length counts what follows it.

// element is one record of magic 2 as it lies in a batch.
type element struct {
	timestampDelta int64
	offsetDelta    int32
	hasKey         bool
	key, value     []byte // alias the input; nil if null
	headerCount    int32
	headers        []byte // the encoded headers
}

var (
	errRecordShort  = errors.New("record ends too early")
	errRecordLength = errors.New("record has another length than it says")
)

// varint decodes a zigzag varint of at most 32 bits; n is 0 if there is none.
func varint(b []byte) (v int32, n int) {
	if len(b) > 0 && b[0] < 0x80 { // by far the most frequent
		u := uint32(b[0])
		return int32(u>>1) ^ -int32(u&1), 1
	}
	u, n := binary.Uvarint(b)
	if n <= 0 || u > 1<<32-1 {
		return 0, 0
	}
	return int32(uint32(u)>>1) ^ -int32(u&1), n
}

// varlong decodes a zigzag varint of at most 64 bits; n is 0 if there is none.
func varlong(b []byte) (v int64, n int) {
	u, n := binary.Uvarint(b)
	return int64(u>>1) ^ -int64(u&1), max(n, 0)
}

func varintSize(v int32) int {
	u := uint32(v)<<1 ^ uint32(v>>31)
	return (bits.Len32(u|1) + 6) / 7
}

func varlongSize(v int64) int {
	u := uint64(v)<<1 ^ uint64(v>>63)
	return (bits.Len64(u|1) + 6) / 7
}

func appendVarint(dst []byte, v int32) []byte {
	return binary.AppendUvarint(dst, uint64(uint32(v)<<1^uint32(v>>31)))
}

func appendVarlong(dst []byte, v int64) []byte {
	return binary.AppendUvarint(dst, uint64(v)<<1^uint64(v>>63))
}

// sized reads a length and as many bytes: nil for a length below 0.
func sized(b []byte) (field []byte, null bool, rest []byte, ok bool) {
	n, used := varint(b)
	if used == 0 {
		return nil, false, b, false
	}
	b = b[used:]
	if n < 0 {
		return nil, true, b, true
	}
	if int(n) > len(b) {
		return nil, false, b, false
	}
	return b[:n:n], false, b[n:], true
}

// next decodes the record that b begins with and returns the rest of b.
func (e *element) next(b []byte) (rest []byte, err error) {
	length, n := varint(b)
	if n == 0 || length < 0 || int(length) > len(b)-n {
		return b, errRecordShort
	}
	rest = b[n+int(length):]
	b = b[n : n+int(length)]
	if len(b) < 1 {
		return rest, errRecordShort
	}
	b = b[1:] // attributes
	if e.timestampDelta, n = varlong(b); n == 0 {
		return rest, errRecordShort
	}
	b = b[n:]
	if e.offsetDelta, n = varint(b); n == 0 {
		return rest, errRecordShort
	}
	b = b[n:]
	var ok, null bool
	if e.key, null, b, ok = sized(b); !ok {
		return rest, errRecordShort
	}
	e.hasKey = !null
	if e.value, _, b, ok = sized(b); !ok {
		return rest, errRecordShort
	}
	if e.headerCount, n = varint(b); n == 0 || e.headerCount < 0 || int(e.headerCount) > (len(b)-n)/2 {
		return rest, errRecordShort
	}
	e.headers = b[n:]
	b = e.headers
	for range e.headerCount {
		if _, null, b, ok = sized(b); !ok || null {
			return rest, errRecordShort
		}
		if _, _, b, ok = sized(b); !ok {
			return rest, errRecordShort
		}
	}
	if len(b) != 0 {
		return rest, errRecordLength
	}
	return rest, nil
}

// skim is next for validation, which wants little and is on the hot path: the record of b at at, and where the next one
// begins; -1 if next would refuse it.
func skim(b []byte, at int) (timestampDelta int64, offsetDelta int32, hasKey bool, end int) {
	length, at := int32At(b, at)
	if at < 0 || length < 1 || int(length) > len(b)-at {
		return 0, 0, false, -1
	}
	end = at + int(length)
	b = b[:end]
	u, at := uvarintAt(b, at+1) // behind the attributes
	if at < 0 {
		return 0, 0, false, -1
	}
	timestampDelta = int64(u>>1) ^ -int64(u&1)
	if offsetDelta, at = int32At(b, at); at < 0 {
		return 0, 0, false, -1
	}
	n, at := int32At(b, at)
	if at < 0 || int(n) > end-at {
		return 0, 0, false, -1
	}
	hasKey = n >= 0
	at += int(max(n, 0))
	if n, at = int32At(b, at); at < 0 || int(n) > end-at {
		return 0, 0, false, -1
	}
	at += int(max(n, 0))
	headers, at := int32At(b, at)
	if at < 0 || headers < 0 || int(headers) > (end-at)/2 {
		return 0, 0, false, -1
	}
	for range headers {
		if n, at = int32At(b, at); at < 0 || n < 0 || int(n) > end-at {
			return 0, 0, false, -1
		}
		at += int(n)
		if n, at = int32At(b, at); at < 0 || int(n) > end-at {
			return 0, 0, false, -1
		}
		at += int(max(n, 0))
	}
	if at != end {
		return 0, 0, false, -1
	}
	return timestampDelta, offsetDelta, hasKey, end
}

// int32At decodes a zigzag varint of at most 32 bits at at and returns where it ends, -1 if there is none. Most are
// single bytes.
func int32At(b []byte, at int) (int32, int) {
	if uint(at) < uint(len(b)) && int8(b[at]) >= 0 {
		return int32(b[at]>>1) ^ -int32(b[at]&1), at + 1
	}
	return longInt32At(b, at)
}

func longInt32At(b []byte, at int) (int32, int) {
	u, at := uvarintAt(b, at)
	if u > 1<<32-1 {
		return 0, -1
	}
	return int32(uint32(u)>>1) ^ -int32(u&1), at
}

// uvarintAt decodes a varint of at most 64 bits.
func uvarintAt(b []byte, at int) (uint64, int) {
	if at < len(b)-1 && b[at] >= 0x80 && b[at+1] < 0x80 {
		return uint64(b[at]&0x7f) | uint64(b[at+1])<<7, at + 2
	}
	u, n := binary.Uvarint(b[min(at, len(b)):])
	if n <= 0 {
		return 0, -1
	}
	return u, at + n
}

// appendTo appends the record with another offset delta and timestamp delta.
func (e *element) appendTo(dst []byte, timestampDelta int64, offsetDelta int32) []byte {
	size := 1 + varlongSize(timestampDelta) + varintSize(offsetDelta) + sizedLen(e.key, e.hasKey) +
		sizedLen(e.value, e.value != nil) + varintSize(e.headerCount) + len(e.headers)
	dst = appendVarint(dst, int32(size))
	dst = append(dst, 0)
	dst = appendVarlong(dst, timestampDelta)
	dst = appendVarint(dst, offsetDelta)
	dst = appendSized(dst, e.key, e.hasKey)
	dst = appendSized(dst, e.value, e.value != nil)
	dst = appendVarint(dst, e.headerCount)
	return append(dst, e.headers...)
}

func sizedLen(b []byte, there bool) int {
	if !there {
		return 1
	}
	return varintSize(int32(len(b))) + len(b)
}

func appendSized(dst, b []byte, there bool) []byte {
	if !there {
		return appendVarint(dst, -1)
	}
	return append(appendVarint(dst, int32(len(b))), b...)
}
