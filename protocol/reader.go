package protocol

import (
	"encoding/binary"
	"math"
)

// UUID is a topic id, directory id or other 16-byte identifier. The zero UUID means none.
type UUID [16]byte

// Reader decodes Kafka's primitive types from a slice. It fails once: after the first failure every method returns
// a zero value at once, and Err tells what happened and where. A Reader never allocates but for String, NullableString
// and the error itself.
//
// Untrusted lengths are compared with what is left and never added to anything, so no method can overflow or read
// past the end, and loops bounded by ArrayLen or TagCount end.
type Reader struct {
	buf      []byte
	off      int
	err      *DecodeError
	flexible bool
}

// NewReader returns a reader of b. A flexible reader decodes strings, byte fields and arrays in their compact forms
// (KIP-482).
func NewReader(b []byte, flexible bool) Reader { return Reader{buf: b, flexible: flexible} }

// Flexible reports whether compact forms are decoded.
func (r *Reader) Flexible() bool { return r.flexible }

// Len returns the number of bytes not yet read; 0 after a failure.
func (r *Reader) Len() int { return len(r.buf) - r.off }

// Offset returns the number of bytes read.
func (r *Reader) Offset() int { return r.off }

// Ok reports whether nothing has failed so far.
func (r *Reader) Ok() bool { return r.err == nil }

// Fail records a failure at the present offset, unless there is one already.
func (r *Reader) Fail(problem string, value int64) {
	if r.err == nil {
		r.err = &DecodeError{Offset: r.off, Problem: problem, Value: value}
	}
	r.buf = r.buf[:r.off]
}

// Err returns the failure, or nil. message and version are put into it.
func (r *Reader) Err(message string, version int16) error {
	if r.err == nil {
		return nil
	}
	r.err.Message, r.err.Version = message, version
	return r.err
}

// take returns the next n bytes, or nil after recording a failure.
func (r *Reader) take(n int) []byte {
	if n > len(r.buf)-r.off {
		r.Fail("message ends too early, bytes wanted", int64(n))
		return nil
	}
	b := r.buf[r.off : r.off+n : r.off+n]
	r.off += n
	return b
}

// Bool reads a BOOLEAN: any byte but 0 is true.
func (r *Reader) Bool() bool { return r.Int8() != 0 }

// Int8 reads an INT8.
func (r *Reader) Int8() int8 {
	if b := r.take(1); b != nil {
		return int8(b[0])
	}
	return 0
}

// Int16 reads an INT16.
func (r *Reader) Int16() int16 {
	if b := r.take(2); b != nil {
		return int16(binary.BigEndian.Uint16(b))
	}
	return 0
}

// Int32 reads an INT32.
func (r *Reader) Int32() int32 {
	if b := r.take(4); b != nil {
		return int32(binary.BigEndian.Uint32(b))
	}
	return 0
}

// Int64 reads an INT64.
func (r *Reader) Int64() int64 {
	if b := r.take(8); b != nil {
		return int64(binary.BigEndian.Uint64(b))
	}
	return 0
}

// UUID reads a UUID.
func (r *Reader) UUID() (u UUID) {
	copy(u[:], r.take(len(u)))
	return u
}

// Uvarint reads an UNSIGNED_VARINT of at most 32 bits.
func (r *Reader) Uvarint() uint32 {
	var x uint32
	for shift := 0; shift < 35; shift += 7 {
		b := r.take(1)
		if b == nil {
			return 0
		}
		if shift == 28 && b[0] > 0x0f {
			break
		}
		x |= uint32(b[0]&0x7f) << shift
		if b[0] < 0x80 {
			return x
		}
	}
	r.Fail("varint exceeds 32 bits", math.MaxUint32)
	return 0
}

// stringLen reads the length of a string; -1 is null.
func (r *Reader) stringLen() int {
	if r.flexible {
		return r.compactLen()
	}
	n := int(r.Int16())
	if n < -1 {
		r.Fail("negative string length", int64(n))
		return -1
	}
	return n
}

// bytesLen reads the length of a byte field; -1 is null.
func (r *Reader) bytesLen() int {
	if r.flexible {
		return r.compactLen()
	}
	n := int(r.Int32())
	if n < -1 {
		r.Fail("negative byte length", int64(n))
		return -1
	}
	return n
}

// compactLen reads a length that is stored plus one; -1 is null.
func (r *Reader) compactLen() int {
	n := r.Uvarint()
	if n > math.MaxInt32 {
		r.Fail("length exceeds 31 bits", int64(n))
		return -1
	}
	return int(n) - 1
}

// RawString reads a string that may not be null. The bytes alias the input.
func (r *Reader) RawString() []byte {
	n := r.stringLen()
	if n < 0 {
		r.Fail("null in place of a string", int64(n))
		return nil
	}
	return r.take(n)
}

// RawNullableString reads a string and reports whether it is there. The bytes alias the input.
func (r *Reader) RawNullableString() ([]byte, bool) {
	n := r.stringLen()
	if n < 0 || !r.Ok() {
		return nil, false
	}
	b := r.take(n)
	return b, r.Ok()
}

// String reads a string that may not be null.
func (r *Reader) String() string { return string(r.RawString()) }

// NullableString reads a string; null is the empty string and false.
func (r *Reader) NullableString() (string, bool) {
	b, ok := r.RawNullableString()
	return string(b), ok
}

// reuseString reads a string into *s and leaves *s as it is if it is equal already, which spares the allocation on
// connections that send the same names again and again.
func (r *Reader) reuseString(s *string) {
	if b := r.RawString(); *s != string(b) {
		*s = string(b)
	}
}

// reuseNullableString is reuseString for a string that may be null, which reads as empty.
func (r *Reader) reuseNullableString(s *string) bool {
	b, ok := r.RawNullableString()
	if *s != string(b) {
		*s = string(b)
	}
	return ok
}

// Bytes reads a byte field that may not be null. The bytes alias the input.
func (r *Reader) Bytes() []byte {
	n := r.bytesLen()
	if n < 0 {
		r.Fail("null in place of bytes", int64(n))
		return nil
	}
	return r.take(n)
}

// NullableBytes reads a byte field; null is nil, and empty is not nil. The bytes alias the input.
func (r *Reader) NullableBytes() []byte {
	n := r.bytesLen()
	if n < 0 {
		return nil
	}
	return r.take(n)
}

// ArrayLen reads the length of an array that may not be null. It refuses a count of elements that could not fit in
// the bytes left if each takes elemMin (at least 1), so callers may allocate it.
func (r *Reader) ArrayLen(elemMin int) int {
	n := r.NullableArrayLen(elemMin)
	if n < 0 {
		r.Fail("null in place of an array", int64(n))
		return 0
	}
	return n
}

// NullableArrayLen is ArrayLen for an array that may be null, which is -1. After a failure it returns 0.
func (r *Reader) NullableArrayLen(elemMin int) int {
	var n int
	if r.flexible {
		n = r.compactLen()
	} else {
		n = int(r.Int32())
	}
	if !r.Ok() {
		return 0
	}
	if n < -1 || n > r.Len()/max(elemMin, 1) {
		r.Fail("array count does not fit", int64(n))
		return 0
	}
	return n
}

// TagCount reads the number of tagged fields that follow. A tag takes two bytes at least, and a count that does not
// fit is refused. Only flexible messages have tags: for others it is 0.
func (r *Reader) TagCount() int {
	if !r.flexible {
		return 0
	}
	n := r.Uvarint()
	if n > math.MaxInt32 || int(n) > r.Len()/2 {
		r.Fail("tag count does not fit", int64(n))
		return 0
	}
	return int(n)
}

// Tag reads one tagged field: its number and its bytes, which alias the input.
func (r *Reader) Tag() (uint32, []byte) {
	key, size := r.Uvarint(), r.Uvarint()
	if size > math.MaxInt32 {
		r.Fail("tag size exceeds 31 bits", int64(size))
		return 0, nil
	}
	return key, r.take(int(size))
}

// SkipTags reads a section of tagged fields and drops it.
func (r *Reader) SkipTags() {
	for range r.TagCount() {
		if r.Tag(); !r.Ok() {
			return
		}
	}
}

// adopt records the failure of a reader of tag bytes that end where r stands now.
func (r *Reader) adopt(tag *Reader) {
	if n := tag.Len(); n > 0 {
		tag.Fail("bytes after the end of the tag", int64(n))
	}
	if tag.err != nil && r.err == nil {
		r.Fail(tag.err.Problem, tag.err.Value)
	}
}
