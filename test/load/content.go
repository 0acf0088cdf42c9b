package load

import (
	"encoding/binary"
	"errors"
	"hash/crc32"
	"math/rand/v2"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/skeinmq/skein/test/history"
)

// A value is
//
//	0          4        12       20
//	+----------+--------+--------+-------+
//	| producer | seq    | sum    | noise |
//	+----------+--------+--------+-------+
//
// where the sum is the CRC-32 (IEEE: every language has it) of everything else, and how many bytes that is: producer, seq,
// noise, key and headers. The workers of Foreign make and read the same.
const (
	seqAt      = 4
	sumAt      = 12
	noiseAt    = 20
	minContent = noiseAt
)

var (
	errForged = errors.New("a record that no producer made")
	errSpoilt = errors.New("a record whose bytes have changed")
)

// newContent makes the record seq of a producer, with size bytes of value at least.
func newContent(rng *rand.Rand, producer int32, seq int64, size int) *kgo.Record {
	v := make([]byte, max(size, minContent))
	binary.BigEndian.PutUint32(v, uint32(producer))
	binary.BigEndian.PutUint64(v[seqAt:], uint64(seq))
	for i := noiseAt; i < len(v); i += 8 { // noise in the first byte of eight: it compresses, as real data does
		v[i] = byte(rng.Uint32())
	}
	r := &kgo.Record{Value: v}
	if seq%3 == 0 {
		r.Key = binary.AppendVarint(nil, seq)
	}
	if seq%7 == 0 {
		r.Headers = []kgo.RecordHeader{{Key: "h", Value: v[:seqAt]}, {Key: "empty"}}
	}
	binary.BigEndian.PutUint64(v[sumAt:], checksum(r))
	return r
}

func checksum(r *kgo.Record) uint64 {
	crc, size := uint32(0), 0
	add := func(b []byte) {
		crc = crc32.Update(crc, crc32.IEEETable, b)
		size += len(b)
	}
	add(r.Value[:sumAt])
	add(r.Value[noiseAt:])
	add(r.Key)
	for _, h := range r.Headers {
		add([]byte(h.Key))
		add(h.Value)
	}
	return uint64(crc)<<32 | uint64(size)
}

// readContent is what a record says about itself, if its bytes are those that were sent.
func readContent(r *kgo.Record) (history.Record, error) {
	if len(r.Value) < minContent {
		return history.Record{}, errForged
	}
	rec := history.Record{
		Producer: int32(binary.BigEndian.Uint32(r.Value)),
		Seq:      int64(binary.BigEndian.Uint64(r.Value[seqAt:])),
		Sum:      binary.BigEndian.Uint64(r.Value[sumAt:]),
	}
	if checksum(r) != rec.Sum {
		return rec, errSpoilt
	}
	return rec, nil
}
