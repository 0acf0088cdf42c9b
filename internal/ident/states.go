package ident

import (
	"encoding/binary"
	"errors"
	"fmt"
)

// GenerationState is what is known of one generation: one row of a log's table. A partition without
// any state is absent (O5).
type GenerationState struct {
	Generation Generation
	Partitions []PartitionState // ordered by partition
}

// ErrMalformed: bytes that are no partition states.
var ErrMalformed = errors.New("malformed")

// Partition states as opening frames have them, and as they travel between brokers: docs/format/log.md.
// Little-endian, appended in order:
//
//	states:  count u32, then per partition a state
//	state:   topic 16, index i32, end i64, log start i64,
//	         producers u32, then per producer: id i64, epoch i16, coordinator epoch i32,
//	         transaction start i64, last timestamp i64, batches u8, then per batch:
//	         first i32, last i32, last offset i64, offset delta i32, timestamp i64
const (
	stateMinBytes    = 20 + 8 + 8 + 4
	producerMinBytes = 8 + 2 + 4 + 8 + 8 + 1
)

// BatchesKept is how many batches of a producer deduplication knows: Kafka's window.
const BatchesKept = 5

// AppendStates encodes a list of partition states.
func AppendStates(dst []byte, states []PartitionState) []byte {
	dst = binary.LittleEndian.AppendUint32(dst, uint32(len(states)))
	for i := range states {
		dst = AppendState(dst, &states[i])
	}
	return dst
}

// AppendState encodes one partition's state. Of a producer's batches the newest five are kept.
func AppendState(dst []byte, s *PartitionState) []byte {
	le := binary.LittleEndian
	dst = le.AppendUint32(append(dst, s.Partition.Topic[:]...), uint32(s.Partition.Index))
	dst = le.AppendUint64(dst, uint64(s.End))
	dst = le.AppendUint64(dst, uint64(s.LogStart))
	dst = le.AppendUint32(dst, uint32(len(s.Producers)))
	for i := range s.Producers {
		p := &s.Producers[i]
		dst = le.AppendUint64(dst, uint64(p.ID))
		dst = le.AppendUint16(dst, uint16(p.Epoch))
		dst = le.AppendUint32(dst, uint32(p.CoordinatorEpoch))
		dst = le.AppendUint64(dst, uint64(p.TxnStart))
		dst = le.AppendUint64(dst, uint64(p.LastTimestamp))
		batches := p.Batches[max(0, len(p.Batches)-BatchesKept):]
		dst = append(dst, byte(len(batches)))
		for _, b := range batches {
			dst = le.AppendUint32(dst, uint32(b.FirstSequence))
			dst = le.AppendUint32(dst, uint32(b.LastSequence))
			dst = le.AppendUint64(dst, uint64(b.LastOffset))
			dst = le.AppendUint32(dst, uint32(b.OffsetDelta))
			dst = le.AppendUint64(dst, uint64(b.Timestamp))
		}
	}
	return dst
}

// DecodeStates reads what AppendStates wrote: all of b. It allocates no more than a small multiple of b.
// ErrMalformed otherwise.
func DecodeStates(b []byte) ([]PartitionState, error) {
	r := stateReader{b: b}
	n := r.count(stateMinBytes)
	out := make([]PartitionState, 0, min(n, 1<<16))
	for ; n > 0 && r.err == nil; n-- {
		out = append(out, r.state())
	}
	if r.err == nil && r.off != len(b) {
		r.fail("%d bytes too many", len(b)-r.off)
	}
	return out, r.err
}

// DecodeState reads one state from the start of b and returns how many bytes it took. ErrMalformed if there is none.
func DecodeState(b []byte) (PartitionState, int, error) {
	r := stateReader{b: b}
	s := r.state()
	return s, r.off, r.err
}

// stateReader fails once and stays failed, with the offset.
type stateReader struct {
	b   []byte
	off int
	err error
}

func (r *stateReader) fail(format string, args ...any) {
	if r.err == nil {
		r.err = fmt.Errorf("state at %d: %w: %s", r.off, ErrMalformed, fmt.Sprintf(format, args...))
	}
}

var zeroes [16]byte

// take returns n bytes, at most 16, which are zero once the reader has failed.
func (r *stateReader) take(n int) []byte {
	if r.err != nil || n > len(r.b)-r.off {
		r.fail("want %d bytes of %d", n, len(r.b)-r.off)
		return zeroes[:n]
	}
	r.off += n
	return r.b[r.off-n : r.off]
}

func (r *stateReader) u16() uint16 { return binary.LittleEndian.Uint16(r.take(2)) }
func (r *stateReader) u32() uint32 { return binary.LittleEndian.Uint32(r.take(4)) }
func (r *stateReader) u64() uint64 { return binary.LittleEndian.Uint64(r.take(8)) }

// count reads the length of a list whose elements take at least min bytes each.
func (r *stateReader) count(min int) int {
	n := r.u32()
	if int64(n) > int64((len(r.b)-r.off)/min) {
		r.fail("list of %d", n)
		return 0
	}
	return int(n)
}

func (r *stateReader) state() PartitionState {
	var s PartitionState
	copy(s.Partition.Topic[:], r.take(16))
	s.Partition.Index = int32(r.u32())
	s.End = Offset(r.u64())
	s.LogStart = Offset(r.u64())
	for n := r.count(producerMinBytes); n > 0 && r.err == nil; n-- {
		s.Producers = append(s.Producers, r.producer())
	}
	return s
}

func (r *stateReader) producer() ProducerState {
	p := ProducerState{ID: int64(r.u64()), Epoch: int16(r.u16())}
	p.CoordinatorEpoch = int32(r.u32())
	p.TxnStart = Offset(r.u64())
	p.LastTimestamp = int64(r.u64())
	batches := int(r.take(1)[0])
	if batches > BatchesKept {
		r.fail("%d batches of a producer", batches)
	}
	for ; batches > 0 && r.err == nil; batches-- {
		b := ProducerBatch{FirstSequence: int32(r.u32()), LastSequence: int32(r.u32())}
		b.LastOffset = Offset(r.u64())
		b.OffsetDelta = int32(r.u32())
		b.Timestamp = int64(r.u64())
		p.Batches = append(p.Batches, b)
	}
	return p
}
