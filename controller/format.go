package controller

import (
	"encoding/binary"
	"fmt"
	"math"

	"github.com/skeinmq/skein/internal/ident"
)

// The bytes of a raft entry. docs/format/raft.md says the same in words.
//
//	 0         1        2
//	+---------+--------+---------+
//	| version | kind   | body …  |
//	+---------+--------+---------+
//
//	claim        count, count × { partition, owner }
//	batch        partition, epoch, seq, count, count × op
//	producer ids count
//
//	op           kind u8, group, then
//	  put group     value
//	  drop group    –
//	  put offsets   count, count × { topic 16 bytes, index, offset, leader epoch, commit
//	                time, expire time, metadata }
//	  drop offsets  count, count × { topic 16 bytes, index }
//
// Numbers that can be negative are zigzag varints, counts and lengths unsigned varints,
// strings and values a length and their bytes.
const (
	commandVersion = 1

	commandVersionOff = 0
	commandKindOff    = 1
	commandHeaderSize = 2

	kindClaim       = 1
	kindBatch       = 2
	kindProducerIDs = 3

	topicSize = 16

	// The least bytes an element can take: a count is compared with what is left.
	minClaim      = 2
	minOp         = 2
	minPutOffset  = topicSize + 6
	minDropOffset = topicSize + 1
)

func appendClaims(dst []byte, claims []Claim) []byte {
	dst = append(dst, commandVersion, kindClaim)
	dst = binary.AppendUvarint(dst, uint64(len(claims)))
	for _, c := range claims {
		dst = binary.AppendVarint(dst, int64(c.Partition))
		dst = binary.AppendVarint(dst, int64(c.Owner))
	}
	return dst
}

func appendProducerIDs(dst []byte, count int) []byte {
	dst = append(dst, commandVersion, kindProducerIDs)
	return binary.AppendUvarint(dst, uint64(count))
}

func appendBatch(dst []byte, b *Batch) []byte {
	dst = append(dst, commandVersion, kindBatch)
	dst = binary.AppendVarint(dst, int64(b.Partition))
	dst = binary.AppendVarint(dst, int64(b.Epoch))
	dst = binary.AppendUvarint(dst, b.Seq)
	dst = binary.AppendUvarint(dst, uint64(len(b.Ops)))
	for i := range b.Ops {
		dst = appendOp(dst, &b.Ops[i])
	}
	return dst
}

func appendOp(dst []byte, op *Op) []byte {
	dst = append(dst, byte(op.Kind))
	dst = appendString(dst, op.Group)
	switch op.Kind {
	case PutGroup:
		dst = binary.AppendUvarint(dst, uint64(len(op.Value)))
		dst = append(dst, op.Value...)
	case PutOffsets:
		dst = binary.AppendUvarint(dst, uint64(len(op.Offsets)))
		for i := range op.Offsets {
			dst = appendPartitionOffset(dst, &op.Offsets[i])
		}
	case DropOffsets:
		dst = binary.AppendUvarint(dst, uint64(len(op.Offsets)))
		for i := range op.Offsets {
			dst = appendPartition(dst, op.Offsets[i].Partition)
		}
	}
	return dst
}

func appendPartition(dst []byte, p ident.Partition) []byte {
	dst = append(dst, p.Topic[:]...)
	return binary.AppendVarint(dst, int64(p.Index))
}

func appendPartitionOffset(dst []byte, o *PartitionOffset) []byte {
	dst = appendPartition(dst, o.Partition)
	dst = binary.AppendVarint(dst, int64(o.Offset.Offset))
	dst = binary.AppendVarint(dst, int64(o.LeaderEpoch))
	dst = binary.AppendVarint(dst, o.CommitTime)
	dst = binary.AppendVarint(dst, o.ExpireTime)
	return appendString(dst, o.Metadata)
}

func appendString(dst []byte, s string) []byte {
	dst = binary.AppendUvarint(dst, uint64(len(s)))
	return append(dst, s...)
}

// A result travels from the leader to the broker that sent the command: version u8, the number of epochs and the
// epochs, the first producer id. Index and error have fields of their own in the message.
const resultVersion = 1

func appendResult(dst []byte, out *result) []byte {
	dst = append(dst, resultVersion)
	dst = binary.AppendUvarint(dst, uint64(len(out.epochs)))
	for _, e := range out.epochs {
		dst = binary.AppendVarint(dst, int64(e))
	}
	return binary.AppendVarint(dst, out.first)
}

// decodeResult reads what appendResult wrote.
func decodeResult(b []byte) (result, error) {
	r := reader{what: "result", buf: b}
	var out result
	if v := r.byte(); r.err == nil && v != resultVersion {
		r.refuse(0, "version %d", v)
		return out, r.err
	}
	n := r.count(1)
	out.epochs = make([]Epoch, 0, n)
	for range n {
		out.epochs = append(out.epochs, Epoch(r.varint()))
	}
	out.first = r.varint()
	r.end()
	return out, r.err
}

// command is one decoded entry; the field that its kind names is set.
type command struct {
	kind        byte
	claims      []Claim
	batch       Batch
	producerIDs int
}

// decodeCommand reads an entry. Values and strings do not alias b.
func decodeCommand(b []byte) (command, error) {
	r := reader{what: "command", buf: b}
	version := r.byte()
	c := command{kind: r.byte()}
	if r.err == nil && version != commandVersion {
		r.refuse(commandVersionOff, "version %d", version)
		return c, r.err
	}
	switch {
	case r.err != nil:
	case c.kind == kindClaim:
		c.claims = r.claims()
	case c.kind == kindBatch:
		c.batch = r.batch()
	case c.kind == kindProducerIDs:
		n := r.uvarint()
		if n < 1 || n > 1<<20 {
			r.fail("%d producer ids", n)
		}
		c.producerIDs = int(n)
	default:
		// A kind this build does not know was written by a newer one.
		r.refuse(commandKindOff, "kind %d", c.kind)
	}
	r.end()
	return c, r.err
}

func (r *reader) claims() []Claim {
	n := r.count(minClaim)
	out := make([]Claim, 0, n)
	for range n {
		out = append(out, Claim{Partition: r.partitionIndex(), Owner: ident.Epoch(r.int32())})
	}
	return out
}

func (r *reader) batch() Batch {
	b := Batch{Partition: r.partitionIndex(), Epoch: Epoch(r.varint()), Seq: r.uvarint()}
	n := r.count(minOp)
	b.Ops = make([]Op, 0, n)
	for range n {
		b.Ops = append(b.Ops, r.op())
		if r.err != nil {
			return b
		}
	}
	return b
}

func (r *reader) op() Op {
	op := Op{Kind: OpKind(r.byte())}
	at := r.off - 1
	op.Group = r.string()
	switch op.Kind {
	case PutGroup:
		op.Value = r.bytes()
	case DropGroup:
	case PutOffsets:
		op.Offsets = r.offsets()
	case DropOffsets:
		n := r.count(minDropOffset)
		op.Offsets = make([]PartitionOffset, 0, n)
		for range n {
			op.Offsets = append(op.Offsets, PartitionOffset{Partition: r.partition()})
		}
	default:
		r.refuse(at, "operation %d", op.Kind)
	}
	return op
}

func (r *reader) offsets() []PartitionOffset {
	n := r.count(minPutOffset)
	out := make([]PartitionOffset, 0, n)
	for range n {
		o := PartitionOffset{Partition: r.partition()}
		o.Offset.Offset = ident.Offset(r.varint())
		o.LeaderEpoch = ident.Epoch(r.int32())
		o.CommitTime = r.varint()
		o.ExpireTime = r.varint()
		o.Metadata = r.string()
		if r.err != nil {
			return out
		}
		out = append(out, o)
	}
	return out
}

func (r *reader) partition() ident.Partition {
	var p ident.Partition
	copy(p.Topic[:], r.take(topicSize))
	p.Index = r.int32()
	return p
}

func (r *reader) partitionIndex() int32 {
	p := r.int32()
	if r.err == nil && (p < 0 || p >= Partitions) {
		r.fail("coordinator partition %d", p)
	}
	return p
}

// reader decodes with one sticky error that says where it was.
type reader struct {
	what string
	buf  []byte
	off  int
	err  error
}

func (r *reader) fail(format string, args ...any) { r.set(r.off, ErrCorrupt, format, args...) }

func (r *reader) refuse(at int, format string, args ...any) {
	r.set(at, ErrVersion, format, args...)
}

func (r *reader) set(at int, cause error, format string, args ...any) {
	if r.err == nil {
		r.err = &FormatError{What: r.what, Offset: at, Detail: fmt.Sprintf(format, args...), cause: cause}
	}
}

// end fails if bytes are left over.
func (r *reader) end() {
	if r.err == nil && r.off != len(r.buf) {
		r.fail("%d bytes too many", len(r.buf)-r.off)
	}
}

func (r *reader) take(n int) []byte {
	if r.err != nil {
		return nil
	}
	if n > len(r.buf)-r.off {
		r.fail("%d bytes wanted, %d left", n, len(r.buf)-r.off)
		return nil
	}
	b := r.buf[r.off : r.off+n]
	r.off += n
	return b
}

func (r *reader) byte() byte {
	if b := r.take(1); b != nil {
		return b[0]
	}
	return 0
}

func (r *reader) uvarint() uint64 {
	if r.err != nil {
		return 0
	}
	v, n := binary.Uvarint(r.buf[r.off:])
	if n <= 0 {
		r.fail("bad varint")
		return 0
	}
	r.off += n
	return v
}

func (r *reader) varint() int64 {
	u := r.uvarint()
	return int64(u>>1) ^ -int64(u&1)
}

func (r *reader) int32() int32 {
	v := r.varint()
	if r.err == nil && (v < math.MinInt32 || v > math.MaxInt32) {
		r.fail("%d is no 32-bit number", v)
	}
	return int32(v)
}

// count reads a number of elements that fit into what is left, so callers may allocate it.
func (r *reader) count(elemMin int) int {
	v := r.uvarint()
	if r.err == nil && v > uint64((len(r.buf)-r.off)/elemMin) {
		r.fail("%d elements", v)
		return 0
	}
	return int(v)
}

func (r *reader) bytes() []byte {
	n := r.count(1)
	b := r.take(n)
	if r.err != nil {
		return nil
	}
	return append(make([]byte, 0, n), b...)
}

func (r *reader) string() string {
	n := r.count(1)
	return string(r.take(n))
}
