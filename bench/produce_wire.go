package bench

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"sync/atomic"
)

// produceVersion is the version of Produce that the generators send: flexible, and served by
// every broker since Kafka 2.4.
const produceVersion = 9

// produceTemplate is one pre-encoded Produce request: small pieces of its own between
// references to one shared batch.
type produceTemplate struct {
	head   []byte // the frame up to the first batch: patched with the correlation id
	pieces net.Buffers
	list   []int // of partitions, by running number
	bytes  int   // of record batches
	parts  int
	away   atomic.Bool // another broker than that of the connection leads some of them
}

// gatherFrom is the batch size from which sending pieces by writev beats one copy made beforehand: below it the
// generator would be the bottleneck.
const gatherFrom = 8 << 10

const (
	versionAt     = 6 // in head: size 4, key 2
	correlationAt = 8
)

// setVersion makes it a request of another version with the same fields: 9 to 12.
func (pt *produceTemplate) setVersion(v uint16) { binary.BigEndian.PutUint16(pt.head[versionAt:], v) }

// newProduceTemplate encodes a request that writes batch to the partitions numbered from
// first on, count of them, wrapping at the end.
func newProduceTemplate(t Topics, first, count int, acks int16, batch []byte) *produceTemplate {
	list := make([]int, count)
	for i := range list {
		list[i] = (first + i) % t.total()
	}
	return templateFor(t, list, acks, batch)
}

// templateFor encodes a request that writes batch to each of the listed partitions.
func templateFor(t Topics, list []int, acks int16, batch []byte) *produceTemplate {
	pt := &produceTemplate{list: list, bytes: len(list) * len(batch), parts: len(list)}
	cur := make([]byte, 4, 64)
	cur = binary.BigEndian.AppendUint16(cur, 0) // produce
	cur = binary.BigEndian.AppendUint16(cur, produceVersion)
	cur = binary.BigEndian.AppendUint32(cur, 0)
	cur = binary.BigEndian.AppendUint16(cur, uint16(len(clientID)))
	cur = append(cur, clientID...)
	cur = append(cur, 0, 0) // header tags; no transactional id
	cur = binary.BigEndian.AppendUint16(cur, uint16(acks))
	cur = binary.BigEndian.AppendUint32(cur, 30_000)

	type topicRun struct {
		name  string
		parts []int32
	}
	var runs []topicRun
	for _, i := range list {
		name, p := t.at(i)
		if len(runs) == 0 || runs[len(runs)-1].name != name {
			runs = append(runs, topicRun{name: name})
		}
		r := &runs[len(runs)-1]
		r.parts = append(r.parts, p)
	}
	size := 0
	flush := func() {
		size += len(cur)
		pt.pieces = append(pt.pieces, cur)
		cur = nil
	}
	cur = binary.AppendUvarint(cur, uint64(len(runs)+1))
	for _, r := range runs {
		cur = binary.AppendUvarint(cur, uint64(len(r.name)+1))
		cur = append(cur, r.name...)
		cur = binary.AppendUvarint(cur, uint64(len(r.parts)+1))
		for _, p := range r.parts {
			cur = binary.BigEndian.AppendUint32(cur, uint32(p))
			cur = binary.AppendUvarint(cur, uint64(len(batch)+1))
			flush()
			pt.pieces = append(pt.pieces, batch)
			size += len(batch)
			cur = append(cur, 0) // partition tags
		}
		cur = append(cur, 0) // topic tags
	}
	cur = append(cur, 0) // request tags
	flush()
	if len(batch) < gatherFrom {
		whole := make([]byte, 0, size)
		for _, p := range pt.pieces {
			whole = append(whole, p...)
		}
		pt.pieces = net.Buffers{whole}
	}
	pt.head = pt.pieces[0]
	binary.BigEndian.PutUint32(pt.head, uint32(size-4))
	return pt
}

// write sends the request. scratch is reused between calls.
func (pt *produceTemplate) write(c net.Conn, correlation int32, scratch *net.Buffers) error {
	binary.BigEndian.PutUint32(pt.head[correlationAt:], uint32(correlation))
	*scratch = append((*scratch)[:0], pt.pieces...)
	send := *scratch
	_, err := send.WriteTo(c)
	return err
}

// RefusedError is a partition's error code in a Produce response.
type RefusedError int16

func (e RefusedError) Error() string { return fmt.Sprintf("produce refused: code %d", int16(e)) }

var errShort = errors.New("short produce response")

// checkProduceResponse walks a Produce response (v9) after its correlation id and returns how
// many partitions were acknowledged, or the first error code as an error.
func checkProduceResponse(b []byte) (acked int, err error) {
	d := cursor{b: b}
	d.skip(1) // header tags
	for range d.count() {
		d.skip(d.count()) // name
		for range d.count() {
			d.skip(4)
			code := d.int16()
			d.skip(8 + 8 + 8)
			for range d.count() { // record errors
				d.skip(4)
				d.skip(d.count())
				d.skip(1)
			}
			d.skip(d.count()) // message
			d.skip(1)
			if code != 0 && err == nil {
				err = RefusedError(code)
			}
			acked++
		}
		d.skip(1)
	}
	if d.bad {
		return 0, errShort
	}
	return acked, err
}

// cursor reads trusted-enough bytes: it never panics, and says at the end whether it ran out.
type cursor struct {
	b   []byte
	bad bool
}

func (d *cursor) skip(n int) { d.take(n) }

// take is the next n bytes, or nothing where they are not there.
func (d *cursor) take(n int) []byte {
	if n < 0 || n > len(d.b) {
		d.bad, d.b = true, nil
		return nil
	}
	p := d.b[:n]
	d.b = d.b[n:]
	return p
}

func (d *cursor) int16() int16 {
	if len(d.b) < 2 {
		d.bad, d.b = true, nil
		return 0
	}
	v := int16(binary.BigEndian.Uint16(d.b))
	d.b = d.b[2:]
	return v
}

// count reads a compact length: 0 for null and for empty.
func (d *cursor) count() int {
	v, n := binary.Uvarint(d.b)
	if n <= 0 || v > uint64(len(d.b)) {
		d.bad, d.b = true, nil
		return 0
	}
	d.b = d.b[n:]
	return max(int(v)-1, 0)
}
