package queuemapper

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"maps"
	"math"
	"slices"

	"github.com/skeinmq/skein/internal/ident"
)

// The values of the map's keys. docs/format/map.md draws them.
//
//	0      1         2                  n-4     n
//	+------+---------+------------------+-------+
//	| kind | version | body …           | crc   |
//	+------+---------+------------------+-------+
//
// kind is a letter, version counts up per kind, crc is CRC-32C (little endian) of all before
// it. In the body, uvarint is encoding/binary's; str is a uvarint length and bytes; id is 16
// bytes. Numbers that cannot be negative are uvarints.
const (
	kindCluster    = 'C'
	kindTopic      = 'T'
	kindGroup      = 'G'
	kindLog        = 'L'
	kindBroker     = 'B'
	kindConfigs    = 'D'
	kindController = 'K'

	kindIncarnation = 'I'
	kindLevel       = 'F'

	formatVersion      = 1 // of every kind but
	groupFormatVersion = 2 // of groups: 2 brought ceilings and gaps

	headerSize = 2
	crcSize    = 4

	// A log's state and epoch stand at fixed places, so that a transaction can compare them
	// without the rest (logGuard).
	logStateOff  = 2
	logEpochOff  = 3  // big endian
	logNonceOff  = 11 // 8 random bytes: two writers of equal records tell themselves apart
	logFixedSize = 19
)

// Errors of the decoders.
var (
	// ErrVersion: the value was written by a newer version of this program.
	ErrVersion = errors.New("newer map format")
	// ErrCorrupt: the value is not what this program writes.
	ErrCorrupt = errors.New("corrupt map value")
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

func begin(kind byte) []byte { return append(make([]byte, 0, 128), kind, versionOf(kind)) }

// versionOf is the newest version of a kind, which is written.
func versionOf(kind byte) byte {
	if kind == kindGroup {
		return groupFormatVersion
	}
	return formatVersion
}

func finish(b []byte) []byte {
	return binary.LittleEndian.AppendUint32(b, crc32.Checksum(b, castagnoli))
}

func appendStr(b []byte, s string) []byte {
	return append(binary.AppendUvarint(b, uint64(len(s))), s...)
}

func appendConfigs(b []byte, m map[string]string) []byte {
	b = binary.AppendUvarint(b, uint64(len(m)))
	for _, k := range slices.Sorted(maps.Keys(m)) {
		b = appendStr(appendStr(b, k), m[k])
	}
	return b
}

func encodeCluster(c Cluster) []byte {
	b := appendStr(begin(kindCluster), c.ID)
	b = binary.AppendUvarint(b, uint64(c.Format))
	return finish(binary.AppendUvarint(b, uint64(c.Groups)))
}

func decodeCluster(v []byte) (c Cluster, err error) {
	r := open(kindCluster, v)
	c = Cluster{ID: r.str(), Format: int(r.num(math.MaxInt32)), Groups: int(r.num(maxGroups))}
	return c, r.done()
}

// encodeLevel: uvarint level.
func encodeLevel(l Level) []byte { return finish(binary.AppendUvarint(begin(kindLevel), uint64(l))) }

func decodeLevel(v []byte) (Level, error) {
	r := open(kindLevel, v)
	l := Level(r.num(math.MaxInt32))
	return l, r.done()
}

// encodeController: uvarint term, uvarint broker.
func encodeController(c Controller) []byte {
	b := binary.AppendUvarint(begin(kindController), uint64(c.Term))
	return finish(binary.AppendUvarint(b, uint64(c.Broker)))
}

func decodeController(v []byte) (c Controller, err error) {
	r := open(kindController, v)
	c = Controller{Term: int64(r.num(math.MaxInt64)), Broker: ident.Broker(r.num(math.MaxInt32))}
	return c, r.done()
}

// encodeTopic: the name is in the key.
//
//	id  uvarint rf  configs  uvarint partitions { uvarint group<<1|split  [split: stays] }
//	stays: uvarint n  { uvarint group  uvarint from  uvarint first  uvarint last }
//
// split is 0 for a partition that has lived in one group since offset 0.
func encodeTopic(t *Topic) []byte {
	b := append(begin(kindTopic), t.ID[:]...)
	b = binary.AppendUvarint(b, uint64(uint16(t.ReplicationFactor)))
	b = appendConfigs(b, t.Configs)
	b = binary.AppendUvarint(b, uint64(len(t.Partitions)))
	for _, pl := range t.Partitions {
		if len(pl) == 1 && pl[0].From == 0 && pl[0].First == 0 && pl[0].Last == 0 {
			b = binary.AppendUvarint(b, uint64(pl[0].Group)<<1)
			continue
		}
		b = binary.AppendUvarint(b, uint64(pl[0].Group)<<1|1)
		b = binary.AppendUvarint(b, uint64(len(pl)))
		for _, s := range pl {
			b = binary.AppendUvarint(b, uint64(s.Group))
			b = binary.AppendUvarint(b, uint64(s.From))
			b = binary.AppendUvarint(b, uint64(s.First))
			b = binary.AppendUvarint(b, uint64(s.Last))
		}
	}
	return finish(b)
}

func decodeTopic(name string, v []byte, revision int64) (*Topic, error) {
	r := open(kindTopic, v)
	t := &Topic{Name: name, Revision: revision}
	r.id((*[16]byte)(&t.ID))
	t.ReplicationFactor = int16(r.num(math.MaxUint16))
	t.Configs = r.configs()
	n := r.count(1)
	t.Partitions = make([]Placement, n)
	stays := make([]Residence, 0, n) // one array for all that never moved
	for i := range t.Partitions {
		g := r.num(maxGroups<<1 | 1)
		if g&1 == 0 {
			stays = append(stays, Residence{Group: ident.Group(g >> 1)})
			t.Partitions[i] = Placement(stays[len(stays)-1 : len(stays) : len(stays)])
			continue
		}
		pl := make(Placement, r.count(4))
		for k := range pl {
			pl[k] = Residence{Group: ident.Group(r.num(maxGroups)), From: r.offset(), First: r.epoch(), Last: r.epoch()}
		}
		if len(pl) == 0 {
			r.fail("placement without a group")
		}
		t.Partitions[i] = pl
	}
	return t, r.done()
}

// encodeGroup: the id is in the key.
//
//	starts: table   uvarint generations { uvarint length  generation }
//	generation: uvarint epoch  id log  uvarint frame epoch  uvarint frame position  state (1)
//	            [open: uvarint ceiling]  [sealed: ends: table   lost: table of ranges]
//	table: uvarint topics { id  uvarint n { uvarint index step  uvarint offset } }
//
// An index step is the index for the first, then the difference to the one before. In the
// table of lost ranges a number of ranges and pairs of (from, length) stand for the offset.
func encodeGroup(g *Group) []byte {
	b := appendTable(begin(kindGroup), g.Starts, appendOffset)
	b = binary.AppendUvarint(b, uint64(len(g.Generations)))
	for i := range g.Generations {
		var raw []byte
		if i < len(g.raw) {
			raw = g.raw[i]
		}
		if raw == nil {
			raw = appendGeneration(nil, &g.Generations[i])
		}
		b = append(binary.AppendUvarint(b, uint64(len(raw))), raw...)
	}
	return finish(b)
}

// States of a generation. Version 1 had the first two.
const (
	genOpen    = 0
	genSealed  = 1
	genBounded = 2 // open, with a ceiling
	genGap     = 3 // sealed at its ceiling
)

func appendGeneration(b []byte, g *Generation) []byte {
	b = binary.AppendUvarint(b, uint64(g.Epoch))
	b = append(b, g.Log[:]...)
	b = binary.AppendUvarint(b, uint64(g.Frame.Epoch))
	b = binary.AppendUvarint(b, uint64(g.Frame.Position))
	switch {
	case g.Gap:
		b = append(b, genGap)
	case g.Sealed:
		b = append(b, genSealed)
	case g.Ceiling > 0:
		return binary.AppendUvarint(append(b, genBounded), uint64(g.Ceiling))
	default:
		return append(b, genOpen)
	}
	b = appendTable(b, g.Ends, appendOffset)
	return appendTable(b, g.Lost, appendRanges)
}

func appendOffset(b []byte, o ident.Offset) []byte { return binary.AppendUvarint(b, uint64(o)) }

func appendRanges(b []byte, rs []Range) []byte {
	b = binary.AppendUvarint(b, uint64(len(rs)))
	for _, r := range rs {
		b = binary.AppendUvarint(b, uint64(r.From))
		b = binary.AppendUvarint(b, uint64(r.To-r.From))
	}
	return b
}

// appendTable groups by topic: its id is most of a row.
func appendTable[V any](b []byte, m map[ident.Partition]V, val func([]byte, V) []byte) []byte {
	ps := slices.SortedFunc(maps.Keys(m), ident.Partition.Compare)
	topics := 0
	for i, p := range ps {
		if i == 0 || p.Topic != ps[i-1].Topic {
			topics++
		}
	}
	b = binary.AppendUvarint(b, uint64(topics))
	for len(ps) > 0 {
		n := 1
		for n < len(ps) && ps[n].Topic == ps[0].Topic {
			n++
		}
		b = append(b, ps[0].Topic[:]...)
		b = binary.AppendUvarint(b, uint64(n))
		last := int32(0)
		for _, p := range ps[:n] {
			b = val(binary.AppendUvarint(b, uint64(p.Index-last)), m[p])
			last = p.Index
		}
		ps = ps[n:]
	}
	return b
}

// decodeGroup reads a record. Sealed generations never change, so those whose bytes are
// prev's share prev's tables.
func decodeGroup(id ident.Group, v []byte, revision int64, prev *Group) (*Group, error) {
	r := open(kindGroup, v)
	g := &Group{ID: id, Revision: revision, Starts: decodeTable(r, (*reader).offset)}
	n := r.count(1)
	g.Generations = make([]Generation, n)
	g.raw = make([][]byte, n)
	for i := range g.Generations {
		raw := r.bytes()
		g.raw[i] = raw
		if prev != nil && i < len(prev.raw) && bytes.Equal(raw, prev.raw[i]) {
			g.Generations[i] = prev.Generations[i]
			continue
		}
		if r.err == nil {
			g.Generations[i] = decodeGeneration(r, raw)
		}
		if r.err == nil && i > 0 && g.Generations[i].Epoch <= g.Generations[i-1].Epoch {
			r.fail("epoch %d after %d", g.Generations[i].Epoch, g.Generations[i-1].Epoch)
		}
		if r.err == nil && !g.Generations[i].Sealed && i != n-1 {
			r.fail("open generation %d of %d", i, n)
		}
	}
	if err := r.done(); err != nil {
		return nil, err
	}
	g.reindex(prev)
	return g, nil
}

func decodeGeneration(outer *reader, raw []byte) Generation {
	r := &reader{kind: kindGroup, buf: raw}
	g := Generation{Epoch: r.epoch()}
	r.id((*[16]byte)(&g.Log))
	g.Frame.Epoch = ident.LogEpoch(r.num(math.MaxInt64))
	g.Frame.Position = ident.Position(r.num(math.MaxInt64))
	state := r.num(genGap)
	g.Sealed, g.Gap = state == genSealed || state == genGap, state == genGap
	if state == genBounded {
		if g.Ceiling = r.offset(); g.Ceiling == 0 && r.err == nil {
			r.fail("ceiling 0")
		}
	}
	if g.Sealed {
		g.Ends = decodeTable(r, (*reader).offset)
		g.Lost = decodeTable(r, (*reader).ranges)
	}
	if r.err == nil && r.off != len(raw) {
		r.fail("%d bytes left", len(raw)-r.off)
	}
	if outer.err == nil {
		outer.err = r.err
	}
	return g
}

func (r *reader) ranges() []Range {
	out := make([]Range, r.count(2))
	for i := range out {
		from := r.offset()
		out[i] = Range{From: from, To: from + ident.Offset(r.num(uint64(math.MaxInt64-from)))}
	}
	return out
}

func decodeTable[V any](r *reader, val func(*reader) V) map[ident.Partition]V {
	topics := r.count(19)
	if topics == 0 {
		return nil
	}
	var out map[ident.Partition]V
	for range topics {
		var p ident.Partition
		r.id((*[16]byte)(&p.Topic))
		n := r.count(2)
		if out == nil {
			out = make(map[ident.Partition]V, n)
		}
		for range n {
			p.Index += int32(r.num(uint64(math.MaxInt32 - p.Index)))
			v := val(r)
			if r.err != nil {
				return nil
			}
			out[p] = v
		}
	}
	return out
}

// encodeLog: state (1), epoch (8), nonce (8), then uvarint host, uvarint begun epoch, uvarint witnesses
// { uvarint broker  uvarint incarnation }.
func encodeLog(l *Log, nonce [8]byte) []byte {
	b := append(begin(kindLog), byte(l.State))
	b = binary.BigEndian.AppendUint64(b, uint64(l.Epoch))
	b = append(b, nonce[:]...)
	b = binary.AppendUvarint(b, uint64(l.Host))
	b = binary.AppendUvarint(b, uint64(l.Incarnation))
	b = binary.AppendUvarint(b, uint64(l.Begun))
	b = binary.AppendUvarint(b, uint64(len(l.Witnesses)))
	for _, w := range l.Witnesses {
		b = binary.AppendUvarint(b, uint64(w.Broker))
		b = binary.AppendUvarint(b, uint64(w.Incarnation))
	}
	return finish(b)
}

func decodeLog(id ident.Log, v []byte, revision int64) (*Log, error) {
	r := open(kindLog, v)
	l := &Log{ID: id, Revision: revision}
	if len(r.buf) < logFixedSize {
		r.fail("short log record")
		return nil, r.done()
	}
	if l.State = LogState(r.buf[logStateOff]); l.State != LogOpen && l.State != LogSealed {
		r.fail("log state %d", l.State)
	}
	epoch := binary.BigEndian.Uint64(r.buf[logEpochOff:])
	if epoch == 0 || epoch > math.MaxInt64 {
		r.fail("log epoch %d", epoch)
	}
	l.Epoch = ident.LogEpoch(epoch)
	r.off = logFixedSize
	l.Host, l.Incarnation = ident.Broker(r.num(math.MaxInt32)), int64(r.num(math.MaxInt64))
	if l.Begun = ident.LogEpoch(r.num(math.MaxInt64)); l.Begun > l.Epoch {
		r.fail("log has begun epoch %d, beyond its own", l.Begun)
	}
	l.Witnesses = make([]Witness, r.count(2))
	for i := range l.Witnesses {
		l.Witnesses[i] = Witness{ident.Broker(r.num(math.MaxInt32)), int64(r.num(math.MaxInt64))}
	}
	return l, r.done()
}

// logNonce returns the nonce of an encoded log record.
func logNonce(v []byte) (n [8]byte) {
	if len(v) >= logFixedSize {
		copy(n[:], v[logNonceOff:])
	}
	return n
}

// logGuard returns bounds such that exactly the encoded records of a log in this state at
// this epoch lie strictly between them, whatever their host, witnesses and nonce.
func logGuard(state LogState, epoch ident.LogEpoch) (above, below []byte) {
	above = binary.BigEndian.AppendUint64([]byte{kindLog, formatVersion, byte(state)}, uint64(epoch))
	below = binary.BigEndian.AppendUint64([]byte{kindLog, formatVersion, byte(state)}, uint64(epoch)+1)
	return above, below
}

func encodeBroker(b *Broker) []byte {
	out := binary.AppendUvarint(begin(kindBroker), uint64(b.Incarnation))
	out = appendStr(out, b.Host)
	out = binary.AppendUvarint(out, uint64(b.Port))
	out = appendStr(appendStr(out, b.Internal), b.Rack)
	out = binary.AppendUvarint(out, uint64(len(b.Roles)))
	for _, role := range b.Roles {
		out = appendStr(out, role)
	}
	return finish(out)
}

func decodeBroker(id ident.Broker, v []byte) (*Broker, error) {
	r := open(kindBroker, v)
	b := &Broker{
		ID: id, Incarnation: int64(r.num(math.MaxInt64)), Host: r.str(),
		Port: int32(r.num(math.MaxInt32)), Internal: r.str(), Rack: r.str(),
	}
	for range r.count(1) {
		b.Roles = append(b.Roles, r.str())
	}
	return b, r.done()
}

// encodeIncarnation has no body: what counts is the revision at which it is written.
func encodeIncarnation() []byte { return finish(begin(kindIncarnation)) }

func encodeConfigs(m map[string]string) []byte { return finish(appendConfigs(begin(kindConfigs), m)) }

func decodeConfigs(v []byte) (map[string]string, error) {
	r := open(kindConfigs, v)
	m := r.configs()
	return m, r.done()
}

// maxGroups bounds the number of groups and so every group id.
const maxGroups = 1 << 20

// reader reads one value. It fails once and stays failed; reads after that give zeros.
type reader struct {
	kind byte
	buf  []byte
	off  int
	err  error
}

// open checks header and checksum.
func open(kind byte, v []byte) *reader {
	v = withoutNext(v)
	r := &reader{kind: kind, off: headerSize}
	switch {
	case len(v) < headerSize+crcSize:
		r.fail("%d bytes", len(v))
	case v[0] != kind:
		r.fail("kind %q", v[0])
	case v[1] > versionOf(kind):
		r.err = fmt.Errorf("decode %q value: %w: %d, newest known %d", kind, ErrVersion, v[1], versionOf(kind))
	case v[1] == 0:
		r.fail("version 0")
	default:
		body := v[:len(v)-crcSize]
		if got, want := crc32.Checksum(body, castagnoli), binary.LittleEndian.Uint32(v[len(body):]); got != want {
			r.fail("crc %08x, computed %08x", want, got)
		} else {
			r.buf = body
		}
	}
	return r
}

func (r *reader) fail(format string, args ...any) {
	if r.err == nil {
		r.err = fmt.Errorf("decode %q value at %d: %w: %s", r.kind, r.off, ErrCorrupt, fmt.Sprintf(format, args...))
	}
}

func (r *reader) done() error {
	if r.err == nil && r.off != len(r.buf) {
		r.fail("%d bytes left", len(r.buf)-r.off)
	}
	return r.err
}

// num reads a uvarint of at most limit.
func (r *reader) num(limit uint64) uint64 {
	if r.err != nil {
		return 0
	}
	v, n := binary.Uvarint(r.buf[r.off:])
	if n <= 0 || v > limit {
		r.fail("number out of range")
		return 0
	}
	r.off += n
	return v
}

func (r *reader) offset() ident.Offset { return ident.Offset(r.num(math.MaxInt64)) }
func (r *reader) epoch() ident.Epoch   { return ident.Epoch(r.num(math.MaxInt32)) }

// count reads a number of elements of at least elem bytes each, so that callers may allocate.
func (r *reader) count(elem int) int {
	n := r.num(math.MaxInt32)
	if left := len(r.buf) - r.off; n > uint64(left/elem) {
		r.fail("%d elements in %d bytes", n, left)
		return 0
	}
	return int(n)
}

// bytes reads a length and as many bytes; they share the value.
func (r *reader) bytes() []byte {
	n := r.count(1)
	if r.err != nil {
		return nil
	}
	r.off += n
	return r.buf[r.off-n : r.off : r.off]
}

func (r *reader) str() string { return string(r.bytes()) }

func (r *reader) id(dst *[16]byte) {
	if r.err != nil || len(r.buf)-r.off < len(dst) {
		r.fail("id cut short")
		return
	}
	copy(dst[:], r.buf[r.off:])
	r.off += len(dst)
}

func (r *reader) configs() map[string]string {
	n := r.count(2)
	if n == 0 {
		return nil
	}
	m := make(map[string]string, n)
	for range n {
		k := r.str()
		m[k] = r.str()
	}
	return m
}
