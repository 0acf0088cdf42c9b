package controller

import (
	"bufio"
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"io"
	"maps"
	"slices"

	"github.com/skeinmq/skein/internal/ident"
)

// A snapshot is a stream of records behind a header, so neither writing nor reading it needs
// it in memory at once.
//
//	 0        4         6     8
//	+--------+---------+-----+----------+----------+-----+------------+
//	| "SKNS" | version | 0 0 | record   | record   | …   | end record |
//	+--------+---------+-----+----------+----------+-----+------------+
//
//	 0       4       8      9
//	+-------+-------+------+--------+   crc: CRC-32C of size, kind and body
//	| crc   | size  | kind | body … |   size: of kind and body
//	+-------+-------+------+--------+   both little endian
//
//	applied       index of the newest command (from version 2 on)
//	producer ids  next id
//	partition     index, owner epoch, epoch, seq
//	group         has value u8, value if so, name. Belongs to the last partition record
//	offsets       count, count × as in a put offsets operation. Belong to the last group record
//	end           records before it
const (
	snapshotMagic   = "SKNS"
	snapshotVersion = 2

	snapshotVersionOff  = 4
	snapshotReservedOff = 6
	snapshotHeaderSize  = 8

	recordCRCOff     = 0
	recordSizeOff    = 4
	recordBodyOff    = 8
	recordHeaderSize = 8

	recordProducerIDs = 1
	recordPartition   = 2
	recordGroup       = 3
	recordOffsets     = 4
	recordApplied     = 5
	recordEnd         = 255

	// offsetsPerRecord keeps records small; recordMax refuses an absurd length before it
	// is allocated (metadata strings are bounded by the largest command).
	offsetsPerRecord = 256
	recordMax        = MaxEntryBytes + MaxValueBytes
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// writeSnapshot writes f to w.
func writeSnapshot(w io.Writer, f *frozen) error {
	sw := &snapshotWriter{w: bufio.NewWriterSize(w, 64<<10)}
	head := make([]byte, snapshotHeaderSize)
	copy(head, snapshotMagic)
	binary.LittleEndian.PutUint16(head[snapshotVersionOff:], snapshotVersion)
	_, sw.err = sw.w.Write(head)

	sw.record(recordApplied, func(b []byte) []byte { return binary.AppendUvarint(b, f.applied) })
	sw.record(recordProducerIDs, func(b []byte) []byte { return binary.AppendVarint(b, f.nextProducerID) })
	for i := range f.parts {
		sw.partition(int32(i), &f.parts[i])
	}
	n := sw.count
	sw.record(recordEnd, func(b []byte) []byte { return binary.AppendUvarint(b, n) })
	if sw.err != nil {
		return fmt.Errorf("write snapshot: %w", sw.err)
	}
	if err := sw.w.Flush(); err != nil {
		return fmt.Errorf("write snapshot: %w", err)
	}
	return nil
}

type snapshotWriter struct {
	w     *bufio.Writer
	buf   []byte // of the record being built
	count uint64 // records written
	err   error  // sticky
}

func (w *snapshotWriter) partition(index int32, p *frozenPartition) {
	w.record(recordPartition, func(b []byte) []byte {
		b = binary.AppendVarint(b, int64(index))
		b = binary.AppendVarint(b, int64(p.owner))
		b = binary.AppendVarint(b, int64(p.epoch))
		return binary.AppendUvarint(b, p.seq)
	})
	for _, name := range slices.Sorted(maps.Keys(p.groups)) {
		g := p.groups[name]
		w.record(recordGroup, func(b []byte) []byte {
			if g.value == nil {
				return appendString(append(b, 0), name)
			}
			b = appendString(append(b, 1), string(g.value))
			return appendString(b, name)
		})
		offsets := g.sortedOffsets()
		for chunk := range slices.Chunk(offsets, offsetsPerRecord) {
			w.record(recordOffsets, func(b []byte) []byte {
				b = binary.AppendUvarint(b, uint64(len(chunk)))
				for i := range chunk {
					b = appendPartitionOffset(b, &chunk[i])
				}
				return b
			})
		}
	}
}

func (w *snapshotWriter) record(kind byte, body func([]byte) []byte) {
	if w.err != nil {
		return
	}
	b := append(w.buf[:0], make([]byte, recordHeaderSize)...)
	b = body(append(b, kind))
	binary.LittleEndian.PutUint32(b[recordSizeOff:], uint32(len(b)-recordHeaderSize))
	binary.LittleEndian.PutUint32(b[recordCRCOff:], crc32.Checksum(b[recordSizeOff:], castagnoli))
	w.buf = b
	w.count++
	_, w.err = w.w.Write(b)
}

// readSnapshot reads what writeSnapshot wrote. Nothing is returned unless all of it is
// there and sound.
func readSnapshot(r io.Reader) (*frozen, error) {
	sr := &snapshotReader{r: bufio.NewReaderSize(r, 64<<10), f: &frozen{}, part: -1}
	for i := range sr.f.parts {
		sr.f.parts[i].groups = make(map[string]*groupState)
	}
	head := make([]byte, snapshotHeaderSize)
	if _, err := io.ReadFull(sr.r, head); err != nil {
		return nil, &FormatError{What: "snapshot", Detail: "header: " + err.Error(), cause: ErrCorrupt}
	}
	if string(head[:snapshotVersionOff]) != snapshotMagic {
		return nil, &FormatError{What: "snapshot", Detail: "magic", cause: ErrCorrupt}
	}
	if v := binary.LittleEndian.Uint16(head[snapshotVersionOff:]); v < 1 || v > snapshotVersion {
		return nil, &FormatError{What: "snapshot", Offset: snapshotVersionOff, Detail: fmt.Sprintf("version %d", v), cause: ErrVersion}
	}
	if head[snapshotReservedOff]|head[snapshotReservedOff+1] != 0 {
		return nil, &FormatError{What: "snapshot", Offset: snapshotReservedOff, Detail: "reserved bytes set", cause: ErrVersion}
	}
	sr.at = snapshotHeaderSize
	for !sr.done {
		if err := sr.record(); err != nil {
			return nil, err
		}
	}
	if _, err := sr.r.ReadByte(); err != io.EOF {
		return nil, &FormatError{What: "snapshot", Offset: sr.at, Detail: "bytes behind the end", cause: ErrCorrupt}
	}
	return sr.f, nil
}

type snapshotReader struct {
	r     *bufio.Reader
	f     *frozen
	at    int // byte of the record being read
	count uint64
	part  int         // index of the last partition record, -1 before the first
	group *groupState // of the last group record
	done  bool
}

func (s *snapshotReader) fail(detail string) error {
	return &FormatError{What: "snapshot", Offset: s.at, Detail: detail, cause: ErrCorrupt}
}

func (s *snapshotReader) record() error {
	var head [recordHeaderSize]byte
	if _, err := io.ReadFull(s.r, head[:]); err != nil {
		return s.fail("record header: " + err.Error())
	}
	size := binary.LittleEndian.Uint32(head[recordSizeOff:])
	if size < 1 || size > recordMax {
		return s.fail(fmt.Sprintf("record of %d bytes", size))
	}
	body, err := readAll(s.r, int(size))
	if err != nil {
		return s.fail("record: " + err.Error())
	}
	crc := crc32.Update(crc32.Checksum(head[recordSizeOff:], castagnoli), castagnoli, body)
	if crc != binary.LittleEndian.Uint32(head[recordCRCOff:]) {
		return s.fail("checksum")
	}
	rd := reader{what: "snapshot record", buf: body}
	s.apply(rd.byte(), &rd)
	rd.end()
	if rd.err != nil {
		return fmt.Errorf("snapshot at byte %d: %w", s.at, rd.err)
	}
	s.at += recordHeaderSize + int(size)
	s.count++
	return nil
}

func (s *snapshotReader) apply(kind byte, rd *reader) {
	switch {
	case kind == recordApplied:
		s.f.applied = rd.uvarint()
	case kind == recordProducerIDs:
		s.f.nextProducerID = rd.varint()
	case kind == recordPartition:
		i := int(rd.partitionIndex())
		if rd.err == nil && i <= s.part {
			rd.fail("partition %d after %d", i, s.part)
		}
		if rd.err != nil {
			return
		}
		p := &s.f.parts[i]
		p.owner, p.epoch, p.seq = ident.Epoch(rd.int32()), Epoch(rd.varint()), rd.uvarint()
		s.part, s.group = i, nil
	case kind == recordGroup && s.part >= 0:
		g := &groupState{offsets: make(map[ident.Partition]Offset)}
		if rd.byte() != 0 {
			g.value = rd.bytes()
		}
		if name := rd.string(); rd.err == nil {
			s.f.parts[s.part].groups[name] = g
		}
		s.group = g
	case kind == recordOffsets && s.group != nil:
		for _, o := range rd.offsets() {
			s.group.offsets[o.Partition] = o.Offset
		}
	case kind == recordEnd:
		if n := rd.uvarint(); rd.err == nil && n != s.count {
			rd.fail("%d records, %d were written", s.count, n)
		}
		s.done = true
	default:
		rd.refuse(recordBodyOff, "record kind %d", kind)
	}
}

// readAll reads n bytes without trusting n with one allocation.
func readAll(r io.Reader, n int) ([]byte, error) {
	if n <= 64<<10 {
		b := make([]byte, n)
		_, err := io.ReadFull(r, b)
		return b, err
	}
	b, err := io.ReadAll(io.LimitReader(r, int64(n)))
	if err == nil && len(b) != n {
		err = io.ErrUnexpectedEOF
	}
	return b, err
}
