package commitlog

import (
	"encoding/binary"
	"fmt"

	"github.com/skeinmq/skein/internal/ident"
)

// Payloads of the frames that are not data. Little-endian, appended in order:
//
//	states:    count u32, then per partition: topic 16, index i32, end i64, log start i64,
//	           producers u32, then per producer: id i64, epoch i16, coordinator epoch i32,
//	           transaction start i64, last timestamp i64, batches u8, then per batch:
//	           first i32, last i32, last offset i64, offset delta i32, timestamp i64
//	ends:      count u32, then per partition: topic 16, index i32, end i64
//	partitions: count u32, then per partition: topic 16, index i32
const (
	partitionBytes     = 20
	stateMinBytes      = partitionBytes + 8 + 8 + 4
	producerMinBytes   = 8 + 2 + 4 + 8 + 8 + 1
	producerBatchBytes = 4 + 4 + 8 + 4 + 8
	endBytes           = partitionBytes + 8
	batchesKept        = 5 // Kafka's window per producer
)

func appendPartition(dst []byte, p ident.Partition) []byte {
	return binary.LittleEndian.AppendUint32(append(dst, p.Topic[:]...), uint32(p.Index))
}

// appendStates encodes a table of partition states.
func appendStates(dst []byte, states []ident.PartitionState) []byte {
	dst = binary.LittleEndian.AppendUint32(dst, uint32(len(states)))
	for i := range states {
		dst = appendState(dst, &states[i])
	}
	return dst
}

// AppendStates encodes partition states as opening frames have them: so they travel between brokers, too.
func AppendStates(dst []byte, states []ident.PartitionState) []byte { return appendStates(dst, states) }

// DecodeStates reads what AppendStates wrote. It never panics and allocates no more than a small multiple of b.
func DecodeStates(b []byte) ([]ident.PartitionState, error) { return decodeStates(b) }

func appendState(dst []byte, s *ident.PartitionState) []byte {
	le := binary.LittleEndian
	dst = appendPartition(dst, s.Partition)
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
		batches := p.Batches[max(0, len(p.Batches)-batchesKept):]
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

// reader decodes appended fields. It fails once and stays failed, with the offset.
type reader struct {
	b   []byte
	off int
	err error
}

func (r *reader) take(n int) []byte {
	if r.err != nil || n > len(r.b)-r.off {
		if r.err == nil {
			r.err = fmt.Errorf("payload at %d: %w: want %d bytes of %d", r.off, errBad, n, len(r.b)-r.off)
		}
		return nil
	}
	out := r.b[r.off : r.off+n]
	r.off += n
	return out
}

func (r *reader) u8() uint8 {
	if b := r.take(1); b != nil {
		return b[0]
	}
	return 0
}

func (r *reader) u16() uint16 {
	if b := r.take(2); b != nil {
		return binary.LittleEndian.Uint16(b)
	}
	return 0
}

func (r *reader) u32() uint32 {
	if b := r.take(4); b != nil {
		return binary.LittleEndian.Uint32(b)
	}
	return 0
}

func (r *reader) u64() uint64 {
	if b := r.take(8); b != nil {
		return binary.LittleEndian.Uint64(b)
	}
	return 0
}

// count reads the length of a list whose elements take at least min bytes each, so
// that the caller may allocate it.
func (r *reader) count(min int) int {
	n := r.u32()
	if r.err == nil && int64(n) > int64((len(r.b)-r.off)/min) {
		r.err = fmt.Errorf("payload at %d: %w: list of %d", r.off, errBad, n)
	}
	if r.err != nil {
		return 0
	}
	return int(n)
}

func (r *reader) partition() (p ident.Partition) {
	copy(p.Topic[:], r.take(16))
	p.Index = int32(r.u32())
	return p
}

// done reports the first error, or bytes that nobody asked for.
func (r *reader) done() error {
	if r.err == nil && r.off != len(r.b) {
		return fmt.Errorf("payload at %d: %w: %d bytes too many", r.off, errBad, len(r.b)-r.off)
	}
	return r.err
}

// decodeStates reads what appendStates wrote.
func decodeStates(b []byte) ([]ident.PartitionState, error) {
	r := reader{b: b}
	out := make([]ident.PartitionState, 0, min(r.count(stateMinBytes), 1<<16))
	r.off = 0
	for n := r.count(stateMinBytes); n > 0 && r.err == nil; n-- {
		out = append(out, r.state())
	}
	return out, r.done()
}

func (r *reader) state() ident.PartitionState {
	s := ident.PartitionState{Partition: r.partition()}
	s.End = ident.Offset(r.u64())
	s.LogStart = ident.Offset(r.u64())
	n := r.count(producerMinBytes)
	for ; n > 0 && r.err == nil; n-- {
		p := ident.ProducerState{ID: int64(r.u64()), Epoch: int16(r.u16())}
		p.CoordinatorEpoch = int32(r.u32())
		p.TxnStart = ident.Offset(r.u64())
		p.LastTimestamp = int64(r.u64())
		batches := int(r.u8())
		if r.err == nil && batches > batchesKept {
			r.err = fmt.Errorf("payload at %d: %w: %d batches of a producer", r.off, errBad, batches)
		}
		for ; batches > 0 && r.err == nil; batches-- {
			b := ident.ProducerBatch{FirstSequence: int32(r.u32()), LastSequence: int32(r.u32())}
			b.LastOffset = ident.Offset(r.u64())
			b.OffsetDelta = int32(r.u32())
			b.Timestamp = int64(r.u64())
			p.Batches = append(p.Batches, b)
		}
		s.Producers = append(s.Producers, p)
	}
	return s
}

// partitionEnd is one row of a cut.
type partitionEnd struct {
	partition ident.Partition
	end       ident.Offset
}

func appendEnds(dst []byte, ends []partitionEnd) []byte {
	dst = binary.LittleEndian.AppendUint32(dst, uint32(len(ends)))
	for _, e := range ends {
		dst = binary.LittleEndian.AppendUint64(appendPartition(dst, e.partition), uint64(e.end))
	}
	return dst
}

func decodeEnds(b []byte) ([]partitionEnd, error) {
	r := reader{b: b}
	n := r.count(endBytes)
	out := make([]partitionEnd, 0, n)
	for ; n > 0 && r.err == nil; n-- {
		out = append(out, partitionEnd{partition: r.partition(), end: ident.Offset(r.u64())})
	}
	return out, r.done()
}

func appendPartitions(dst []byte, ps []ident.Partition) []byte {
	dst = binary.LittleEndian.AppendUint32(dst, uint32(len(ps)))
	for _, p := range ps {
		dst = appendPartition(dst, p)
	}
	return dst
}

func decodePartitions(b []byte) ([]ident.Partition, error) {
	r := reader{b: b}
	n := r.count(partitionBytes)
	out := make([]ident.Partition, 0, n)
	for ; n > 0 && r.err == nil; n-- {
		out = append(out, r.partition())
	}
	return out, r.done()
}
