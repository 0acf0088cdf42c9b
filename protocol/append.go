package protocol

import (
	"encoding/binary"
	"math/bits"
)

// The functions of this file append Kafka's primitive types to dst. With a warm buffer none allocates.

// AppendBool appends a BOOLEAN.
func AppendBool(dst []byte, v bool) []byte {
	if v {
		return append(dst, 1)
	}
	return append(dst, 0)
}

// AppendInt8 appends an INT8.
func AppendInt8(dst []byte, v int8) []byte { return append(dst, byte(v)) }

// AppendInt16 appends an INT16.
func AppendInt16(dst []byte, v int16) []byte { return binary.BigEndian.AppendUint16(dst, uint16(v)) }

// AppendInt32 appends an INT32.
func AppendInt32(dst []byte, v int32) []byte { return binary.BigEndian.AppendUint32(dst, uint32(v)) }

// AppendInt64 appends an INT64.
func AppendInt64(dst []byte, v int64) []byte { return binary.BigEndian.AppendUint64(dst, uint64(v)) }

// AppendUvarint appends an UNSIGNED_VARINT.
func AppendUvarint(dst []byte, v uint32) []byte { return binary.AppendUvarint(dst, uint64(v)) }

// uvarintSize returns the number of bytes that AppendUvarint appends.
func uvarintSize(v uint32) int { return (bits.Len32(v|1) + 6) / 7 }

// AppendString appends a string, compact if flexible. Longer strings than fit (32,767 bytes; not flexible) are cut.
func AppendString(dst []byte, s string, flexible bool) []byte {
	if flexible {
		return append(AppendUvarint(dst, uint32(len(s))+1), s...)
	}
	if len(s) > 1<<15-1 {
		s = s[:1<<15-1]
	}
	return append(AppendInt16(dst, int16(len(s))), s...)
}

// AppendNullableString appends a string, or null if it is not valid.
func AppendNullableString(dst []byte, s string, valid, flexible bool) []byte {
	switch {
	case valid:
		return AppendString(dst, s, flexible)
	case flexible:
		return append(dst, 0)
	default:
		return AppendInt16(dst, -1)
	}
}

// AppendBytesLen appends the length of a byte field of n bytes, which the caller appends, or sends, next; -1 is null.
func AppendBytesLen(dst []byte, n int, flexible bool) []byte {
	if flexible {
		return AppendUvarint(dst, uint32(n+1))
	}
	return AppendInt32(dst, int32(n))
}

// AppendArrayLen appends the length of an array of n elements; -1 is null.
func AppendArrayLen(dst []byte, n int, flexible bool) []byte { return AppendBytesLen(dst, n, flexible) }

// AppendNoTags ends a struct without tagged fields: a zero if flexible, nothing otherwise.
func AppendNoTags(dst []byte, flexible bool) []byte {
	if flexible {
		return append(dst, 0)
	}
	return dst
}
