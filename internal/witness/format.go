package witness

import (
	"encoding/binary"
	"fmt"

	"google.golang.org/protobuf/proto"

	"github.com/skeinmq/skein/commitlog"
	"github.com/skeinmq/skein/internal/ident"
	"github.com/skeinmq/skein/internal/peer"
)

// The updates of a delta, version 1. Numbers are unsigned varints (u) or zigzag varints (z); sums wrap at 64 bits.
// docs/format/witness.md draws it.
//
//	version 1 byte (1), then until the end updates:
//	  kind 1 byte: 0 state, 1 opened, 2 forgotten, 3 dropped
//	  generation: u 0, then u group, u epoch, u frame epoch, u frame position; or u k: the k-th one of this delta
//	  state and dropped: topic: u 0, then 16 bytes; or u k: the k-th one of this delta. u index
//	  state: u end, u end − log start, u removed × { z id }, u producers × { z id, u length, producer }
//	producer: z epoch, z coordinator epoch, u transaction start + 1, z last timestamp, u batches × {
//	  z first sequence − (last sequence of the batch before + 1, or 0), z last − first sequence, z last offset − the one
//	  before or 0, z offset delta − (last − first sequence), z timestamp − last timestamp of the producer }
const (
	updatesVersion = 1
	idBytes        = 16
)

// maxDelta is about how many bytes of updates go into one delta.
const maxDelta = 512 << 10

// A session's stream, either way: messages of peerpb (FollowRequest, FollowReply), each behind its length.
//
//	 0        4
//	+--------+-----------+
//	| length | message … |    length: of the message, big-endian, at most peer.MaxMessageBytes
//	+--------+-----------+
const lengthBytes = 4

// appendMessage appends a message as the stream has it.
func appendMessage(dst []byte, m proto.Message) ([]byte, error) {
	at := len(dst)
	out, err := proto.MarshalOptions{}.MarshalAppend(append(dst, make([]byte, lengthBytes)...), m)
	if n := len(out) - at - lengthBytes; err == nil && n > peer.MaxMessageBytes {
		err = fmt.Errorf("message of %d bytes", n)
	}
	if err != nil {
		return dst, err
	}
	binary.BigEndian.PutUint32(out[at:], uint32(len(out)-at-lengthBytes))
	return out, nil
}

// messageLength is the length at the beginning of head, which has lengthBytes at least.
func messageLength(head []byte) (int, error) {
	n := binary.BigEndian.Uint32(head)
	if n > peer.MaxMessageBytes {
		return 0, fmt.Errorf("%w: length %d", ErrMalformed, n)
	}
	return int(n), nil
}

// AppendUpdates encodes updates as one delta has them.
func AppendUpdates(dst []byte, updates []commitlog.Update) []byte {
	var e encoder
	dst = append(dst, updatesVersion)
	for i := range updates {
		dst = e.update(dst, &updates[i])
	}
	return dst
}

// EncodeUpdates encodes the updates of one block as the bytes of one or more deltas of moderate size.
func EncodeUpdates(updates []commitlog.Update) [][]byte {
	var out [][]byte
	var e encoder
	buf := make([]byte, 1, 64+48*min(len(updates), maxDelta/48))
	buf[0] = updatesVersion
	for i := range updates {
		buf = e.update(buf, &updates[i])
		if len(buf) >= maxDelta && i < len(updates)-1 {
			out = append(out, buf)
			e, buf = encoder{}, make([]byte, 1, maxDelta)
			buf[0] = updatesVersion
		}
	}
	return append(out, buf)
}

// encoder remembers what a delta has named already.
type encoder struct {
	gens    []ident.Generation
	topics  []ident.Topic
	genAt   map[ident.Generation]int
	topicAt map[ident.Topic]int
	scratch []byte
}

// fewNames is up to how many names a walk finds one sooner than a map does.
const fewNames = 8

// named returns the number of v among the names, 0 when it is a new one, which is added.
func named[T comparable](names *[]T, at *map[T]int, v T) uint64 {
	if *at == nil {
		for i, n := range *names {
			if n == v {
				return uint64(i) + 1
			}
		}
	} else if k, ok := (*at)[v]; ok {
		return uint64(k)
	}
	*names = append(*names, v)
	if *at == nil && len(*names) > fewNames {
		*at = make(map[T]int, 4*fewNames)
		for i, n := range *names {
			(*at)[n] = i + 1
		}
	} else if *at != nil {
		(*at)[v] = len(*names)
	}
	return 0
}

func (e *encoder) update(dst []byte, u *commitlog.Update) []byte {
	dst = append(dst, byte(u.Kind))
	k := named(&e.gens, &e.genAt, u.Generation)
	dst = binary.AppendUvarint(dst, k)
	if k == 0 {
		g := u.Generation
		dst = binary.AppendUvarint(dst, uint64(uint32(g.Group)))
		dst = binary.AppendUvarint(dst, uint64(uint32(g.Epoch)))
		dst = binary.AppendUvarint(dst, uint64(g.Frame.Epoch))
		dst = binary.AppendUvarint(dst, uint64(g.Frame.Position))
	}
	if u.Kind != commitlog.UpdateState && u.Kind != commitlog.UpdateDropped {
		return dst
	}
	s := &u.State
	k = named(&e.topics, &e.topicAt, s.Partition.Topic)
	dst = binary.AppendUvarint(dst, k)
	if k == 0 {
		dst = append(dst, s.Partition.Topic[:]...)
	}
	dst = binary.AppendUvarint(dst, uint64(uint32(s.Partition.Index)))
	if u.Kind == commitlog.UpdateDropped {
		return dst
	}
	dst = binary.AppendUvarint(dst, uint64(s.End))
	dst = binary.AppendUvarint(dst, uint64(s.End-s.LogStart))
	dst = binary.AppendUvarint(dst, uint64(len(u.Removed)))
	for _, id := range u.Removed {
		dst = binary.AppendVarint(dst, id)
	}
	dst = binary.AppendUvarint(dst, uint64(len(s.Producers)))
	for i := range s.Producers {
		e.scratch = appendProducer(e.scratch[:0], &s.Producers[i])
		dst = binary.AppendVarint(dst, s.Producers[i].ID)
		dst = binary.AppendUvarint(dst, uint64(len(e.scratch)))
		dst = append(dst, e.scratch...)
	}
	return dst
}

// appendProducer encodes a producer but for its id.
func appendProducer(dst []byte, p *ident.ProducerState) []byte {
	dst = binary.AppendVarint(dst, int64(p.Epoch))
	dst = binary.AppendVarint(dst, int64(p.CoordinatorEpoch))
	dst = binary.AppendUvarint(dst, uint64(p.TxnStart+1))
	dst = binary.AppendVarint(dst, p.LastTimestamp)
	batches := p.Batches[max(0, len(p.Batches)-ident.BatchesKept):]
	dst = binary.AppendUvarint(dst, uint64(len(batches)))
	next, last := int32(0), ident.Offset(0)
	for _, b := range batches {
		span := b.LastSequence - b.FirstSequence
		dst = binary.AppendVarint(dst, int64(b.FirstSequence-next))
		dst = binary.AppendVarint(dst, int64(span))
		dst = binary.AppendVarint(dst, int64(b.LastOffset-last))
		dst = binary.AppendVarint(dst, int64(b.OffsetDelta-span))
		dst = binary.AppendVarint(dst, b.Timestamp-p.LastTimestamp)
		next, last = b.LastSequence+1, b.LastOffset
	}
	return dst
}

// decodeProducer reads what appendProducer wrote: all of b.
func decodeProducer(id int64, b []byte) (ident.ProducerState, error) {
	r := decoder{b: b}
	p := r.producer()
	p.ID = id
	if r.err == nil && r.off != len(b) {
		r.fail("%d bytes too many", len(b)-r.off)
	}
	return p, r.err
}

// rawUpdate is an update whose producers are not decoded. Its slices are valid until the next one is read.
type rawUpdate struct {
	kind          commitlog.UpdateKind
	gen           ident.Generation
	partition     ident.Partition
	end, logStart ident.Offset
	removed       []int64
	producers     []rawProducer
}

type rawProducer struct {
	id    int64
	state []byte
}

// decoder fails once and stays failed.
type decoder struct {
	b      []byte
	off    int
	err    error
	gens   []ident.Generation
	topics []ident.Topic
	u      rawUpdate
}

func (r *decoder) fail(format string, args ...any) {
	if r.err == nil {
		r.err = fmt.Errorf("update at %d: %w: %s", r.off, ErrMalformed, fmt.Sprintf(format, args...))
	}
}

func (r *decoder) u64() uint64 {
	if r.err != nil {
		return 0
	}
	v, n := binary.Uvarint(r.b[r.off:])
	if n <= 0 {
		r.fail("no number")
		return 0
	}
	r.off += n
	return v
}

func (r *decoder) z64() int64 {
	v := r.u64()
	return int64(v>>1) ^ -int64(v&1)
}

func (r *decoder) u32() int32 {
	v := r.u64()
	if v > 1<<32-1 {
		r.fail("%d in 32 bits", v)
	}
	return int32(uint32(v))
}

func (r *decoder) take(n uint64) []byte {
	if r.err != nil || n > uint64(len(r.b)-r.off) {
		r.fail("want %d bytes of %d", n, len(r.b)-r.off)
		return nil
	}
	r.off += int(n)
	return r.b[r.off-int(n) : r.off]
}

// count reads the length of a list of elements of at least min bytes.
func (r *decoder) count(min int) int {
	n := r.u64()
	if n > uint64((len(r.b)-r.off)/min) {
		r.fail("list of %d", n)
		return 0
	}
	return int(n)
}

// open reads the version.
func (r *decoder) open() {
	if b := r.take(1); b != nil && b[0] != updatesVersion {
		r.fail("version %d, known %d", b[0], updatesVersion)
	}
}

// next reads one update; false at the end, and after a failure.
func (r *decoder) next() bool {
	if r.err != nil || r.off == len(r.b) {
		return false
	}
	u := &r.u
	u.kind = commitlog.UpdateKind(r.take(1)[0])
	if u.kind > commitlog.UpdateDropped {
		r.fail("kind %d", u.kind)
	}
	u.gen = r.generation()
	u.removed, u.producers = u.removed[:0], u.producers[:0]
	if u.kind != commitlog.UpdateState && u.kind != commitlog.UpdateDropped {
		return r.err == nil
	}
	u.partition = ident.Partition{Topic: r.topic(), Index: r.u32()}
	if u.kind == commitlog.UpdateDropped {
		return r.err == nil
	}
	u.end = ident.Offset(r.u64())
	u.logStart = u.end - ident.Offset(r.u64())
	if u.end < 0 || u.logStart < 0 || u.logStart > u.end {
		r.fail("end %d, log start %d", u.end, u.logStart)
	}
	for n := r.count(1); n > 0 && r.err == nil; n-- {
		u.removed = append(u.removed, r.z64())
	}
	for n := r.count(7); n > 0 && r.err == nil; n-- {
		p := rawProducer{id: r.z64()}
		p.state = r.take(r.u64())
		u.producers = append(u.producers, p)
	}
	return r.err == nil
}

func (r *decoder) generation() (g ident.Generation) {
	if k := r.u64(); k > uint64(len(r.gens)) {
		r.fail("generation %d of %d", k, len(r.gens))
		return g
	} else if k > 0 {
		return r.gens[k-1]
	}
	g.Group, g.Epoch = ident.Group(r.u32()), ident.Epoch(r.u32())
	g.Frame.Epoch, g.Frame.Position = ident.LogEpoch(r.u64()), ident.Position(r.u64())
	r.gens = append(r.gens, g)
	return g
}

func (r *decoder) topic() (t ident.Topic) {
	if k := r.u64(); k > uint64(len(r.topics)) {
		r.fail("topic %d of %d", k, len(r.topics))
		return t
	} else if k > 0 {
		return r.topics[k-1]
	}
	copy(t[:], r.take(idBytes))
	r.topics = append(r.topics, t)
	return t
}

func (r *decoder) producer() (p ident.ProducerState) {
	p.Epoch = int16(r.bounded(-1<<15, 1<<15-1))
	p.CoordinatorEpoch = int32(r.bounded(-1<<31, 1<<31-1))
	p.TxnStart = ident.Offset(r.u64()) - 1
	p.LastTimestamp = r.z64()
	n := r.count(5)
	if n > ident.BatchesKept {
		r.fail("%d batches of a producer", n)
	}
	next, last := int32(0), ident.Offset(0)
	for ; n > 0 && r.err == nil; n-- {
		var b ident.ProducerBatch
		b.FirstSequence = next + int32(r.bounded(-1<<31, 1<<31-1))
		span := int32(r.bounded(-1<<31, 1<<31-1))
		b.LastSequence = b.FirstSequence + span
		b.LastOffset = last + ident.Offset(r.z64())
		b.OffsetDelta = span + int32(r.bounded(-1<<31, 1<<31-1))
		b.Timestamp = p.LastTimestamp + r.z64()
		next, last = b.LastSequence+1, b.LastOffset
		p.Batches = append(p.Batches, b)
	}
	return p
}

func (r *decoder) bounded(low, high int64) int64 {
	v := r.z64()
	if v < low || v > high {
		r.fail("%d is not within %d and %d", v, low, high)
	}
	return v
}

// checkUpdates decodes everything and changes nothing.
func checkUpdates(b []byte) error {
	r := decoder{b: b}
	for r.open(); r.next(); {
		for _, p := range r.u.producers {
			if _, err := decodeProducer(p.id, p.state); err != nil {
				return err
			}
		}
	}
	return r.err
}
