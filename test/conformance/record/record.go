// Package record is the reference data of the conformance suite: which record
// stands at which offset of which partition, to the byte. Every client program
// in every language builds the same records from the same three facts (salt,
// time base, index) and compares all fields of what it reads with them.
//
// It knows nothing of any client library.
package record

import (
	"bytes"
	"fmt"
	"strings"
)

// PerPartition is the distance between the indexes of neighbouring partitions:
// the record at offset o of partition p has index p*PerPartition+o.
const PerPartition = 1000

// Header is one record header. Key is text, Value any bytes.
type Header struct {
	Key   string
	Value []byte
}

// Record is one record as a client sees it. A nil Value is a tombstone.
// Timestamp is in milliseconds since the epoch.
type Record struct {
	Partition int32
	Offset    int64
	Timestamp int64
	Key       []byte
	Value     []byte
	Headers   []Header
}

// Set is a family of reference records: all that differs between two topics.
type Set struct {
	Salt     string // begins every value, so that records of two topics differ
	TimeBase int64  // timestamp of index 0 in milliseconds; one second more per index

	// Loose is for programs that can set neither timestamps nor a header per
	// record (kcat): the idx header holds the same text in all records and
	// timestamps are not compared.
	Loose bool
}

// Time returns the timestamp of index i in milliseconds.
func (s Set) Time(i int64) int64 { return s.TimeBase + 1000*i }

// At returns the record at an offset of a partition. Every tenth record is a
// tombstone; every record has a textual, a binary and an empty header.
func (s Set) At(partition int32, offset int64) Record {
	i := int64(partition)*PerPartition + offset
	r := Record{
		Partition: partition,
		Offset:    offset,
		Timestamp: s.Time(i),
		Key:       fmt.Appendf(nil, "key-%d", i),
		Headers: []Header{
			{"idx", fmt.Append(nil, i)},
			{"bin", []byte{0xff, 0xfe, 0x01}},
			{"empty", []byte{}},
		},
	}
	if s.Loose {
		r.Headers[0].Value = []byte("all")
	}
	if i%10 != 9 {
		r.Value = fmt.Appendf(nil, "%s-%d-%s", s.Salt, i, strings.Repeat("abcdefghij", int(i%8)))
	}
	return r
}

// Range returns n records of a partition from an offset on.
func (s Set) Range(partition int32, from int64, n int) []Record {
	out := make([]Record, n)
	for i := range out {
		out[i] = s.At(partition, from+int64(i))
	}
	return out
}

// Check compares a record that was read with the reference record of its
// partition and offset. The error names the field, what was wanted and what came.
func (s Set) Check(got Record) error {
	want := s.At(got.Partition, got.Offset)
	where := fmt.Sprintf("record %d:%d", got.Partition, got.Offset)
	if !bytes.Equal(got.Key, want.Key) || (got.Key == nil) != (want.Key == nil) {
		return fmt.Errorf("%s: key %q, want %q", where, got.Key, want.Key)
	}
	if !bytes.Equal(got.Value, want.Value) || (got.Value == nil) != (want.Value == nil) {
		return fmt.Errorf("%s: value %q (null %t), want %q (null %t)", where, got.Value, got.Value == nil, want.Value, want.Value == nil)
	}
	if !s.Loose && got.Timestamp != want.Timestamp {
		return fmt.Errorf("%s: timestamp %d, want %d", where, got.Timestamp, want.Timestamp)
	}
	if len(got.Headers) != len(want.Headers) {
		return fmt.Errorf("%s: %d headers, want %d", where, len(got.Headers), len(want.Headers))
	}
	for i, h := range want.Headers {
		if g := got.Headers[i]; g.Key != h.Key || !bytes.Equal(g.Value, h.Value) {
			return fmt.Errorf("%s: header %d is %q=%q, want %q=%q", where, i, g.Key, g.Value, h.Key, h.Value)
		}
	}
	return nil
}

// CheckRun compares records that must be the n records of one partition from an
// offset on: in order, none missing, none twice.
func (s Set) CheckRun(got []Record, partition int32, from int64, n int) error {
	for i, r := range got {
		if r.Partition != partition || r.Offset != from+int64(i) {
			return fmt.Errorf("record number %d is %d:%d, want %d:%d", i, r.Partition, r.Offset, partition, from+int64(i))
		}
		if err := s.Check(r); err != nil {
			return err
		}
	}
	if len(got) != n {
		return fmt.Errorf("%d records from offset %d on, want %d", len(got), from, n)
	}
	return nil
}
