package commitlog

import (
	"encoding/binary"
	"fmt"

	"github.com/skeinmq/skein/internal/ident"
)

// Payloads of the frames that are not data. Little-endian, appended in order:
//
//	states:    internal/ident/states.go
//	ends:      count u32, then per partition: topic 16, index i32, end i64
//	partitions: count u32, then per partition: topic 16, index i32
const (
	partitionBytes = 20
	endBytes       = partitionBytes + 8
	batchesKept    = ident.BatchesKept
)

func appendPartition(dst []byte, p ident.Partition) []byte {
	return binary.LittleEndian.AppendUint32(append(dst, p.Topic[:]...), uint32(p.Index))
}

// AppendStates encodes partition states as opening frames have them: so they travel between brokers, too.
func AppendStates(dst []byte, states []ident.PartitionState) []byte {
	return ident.AppendStates(dst, states)
}

// DecodeStates reads what AppendStates wrote. It never panics and allocates no more than a small multiple of b.
func DecodeStates(b []byte) ([]ident.PartitionState, error) {
	states, err := ident.DecodeStates(b)
	if err != nil {
		return nil, fmt.Errorf("payload: %w: %w", errBad, err)
	}
	return states, nil
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

func (r *reader) state() ident.PartitionState {
	if r.err != nil {
		return ident.PartitionState{}
	}
	s, n, err := ident.DecodeState(r.b[r.off:])
	if err != nil {
		r.err = fmt.Errorf("payload at %d: %w: %w", r.off, errBad, err)
	}
	r.off += n
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
