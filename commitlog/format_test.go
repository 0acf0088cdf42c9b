package commitlog

import (
	"encoding/binary"
	"encoding/hex"
	"errors"
	"hash/crc32"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"github.com/skeinmq/skein/internal/ident"
)

func goldenFileHeader() fileHeader {
	return fileHeader{cluster: "Zm9vYmFy", log: ident.Log{1, 2, 3, 15: 16}, first: 1 << 29, size: 1 << 29, align: 512, madeMs: 1_700_000_000_000}
}

func goldenSortedHeader() sortedHeader {
	return sortedHeader{
		cluster: "Zm9vYmFy", log: ident.Log{1, 2, 3, 15: 16}, first: sortedFirst(5), end: sortedFirst(5) + 70000,
		span: span{1 << 29, 3 << 29}, madeMs: 1_700_000_000_000, batches: 7,
	}
}

func goldenBlockHeader() blockHeader {
	return blockHeader{
		position: 1<<29 + 4096, durable: 1 << 29, prevEnd: 1<<29 - 512, epoch: 7, clockMs: 1_700_000_000_001,
		padded: 1024, payload: 900, payloadCRC: 0xdeadbeef, prevCRC: 0xfeedface, frames: 3,
	}
}

func goldenFrameHeader() frameHeader {
	return frameHeader{
		kind: frameData, length: 123, count: 9,
		partition: ident.Partition{Topic: ident.Topic{0xaa, 15: 0xbb}, Index: 5},
		gen:       ident.Generation{Group: 311, Epoch: 4, Frame: ident.Frame{Epoch: 2, Position: 8192}},
		base:      1000, maxTime: 1_700_000_000_002,
	}
}

func goldenStates() []ident.PartitionState {
	return []ident.PartitionState{{
		Partition: ident.Partition{Topic: ident.Topic{7}, Index: 1}, End: 100, LogStart: 20,
		Producers: []ident.ProducerState{{
			ID: 9, Epoch: 2, CoordinatorEpoch: -1, TxnStart: 55, LastTimestamp: 1000,
			Batches: []ident.ProducerBatch{{FirstSequence: 1, LastSequence: 5, LastOffset: 99, OffsetDelta: 4, Timestamp: 1000}},
		}},
	}}
}

// TestGoldenBytes: a change here is a format change.
func TestGoldenBytes(t *testing.T) {
	file := make([]byte, fileHeaderSize)
	encodeFileHeader(file, goldenFileHeader())
	sorted, sh := make([]byte, fileHeaderSize), goldenSortedHeader()
	encodeSortedHeader(sorted, &sh)
	block := make([]byte, blockHeaderSize)
	bh := goldenBlockHeader()
	encodeBlockHeader(block, &bh)
	fr := make([]byte, frameHeaderSize)
	fh := goldenFrameHeader()
	encodeFrameHeader(fr, &fh, 1<<29+4096+80)
	for name, got := range map[string][]byte{
		"file":   file[:80],
		"sorted": sorted[:96],
		"block":  block,
		"frame":  fr,
		"states": AppendStates(nil, goldenStates()),
		"ends":   appendEnds(nil, []partitionEnd{{partition: ident.Partition{Topic: ident.Topic{1}, Index: 2}, end: 3}}),
	} {
		path := filepath.Join("testdata", "golden", "log-"+name+".hex")
		if os.Getenv("GOLDEN") == "rewrite" {
			if err := os.WriteFile(path, []byte(hex.EncodeToString(got)+"\n"), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		want, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if hex.EncodeToString(got) != strings.TrimSpace(string(want)) {
			t.Errorf("%s:\n got %x\nwant %s", name, got, want)
		}
	}
}

func TestFormatRoundTrips(t *testing.T) {
	b := make([]byte, fileHeaderSize)
	encodeFileHeader(b, goldenFileHeader())
	if got, err := decodeFileHeader(b); err != nil || got != goldenFileHeader() {
		t.Errorf("file header %+v, %v", got, err)
	}
	sh := goldenSortedHeader()
	encodeSortedHeader(b, &sh)
	if got, err := decodeSortedHeader(b); err != nil || got != sh {
		t.Errorf("header of sorted file %+v, %v", got, err)
	}
	if s, serial, ok := parseSortedName(sortedName(sh.span, 5)); !ok || s != sh.span || serial != 5 {
		t.Errorf("name of sorted file: %+v, %d, %v", s, serial, ok)
	}
	bh := goldenBlockHeader()
	encodeBlockHeader(b, &bh)
	if got, err := decodeBlockHeader(b, bh.position); err != nil || got != bh {
		t.Errorf("block header %+v, %v", got, err)
	}
	fh := goldenFrameHeader()
	encodeFrameHeader(b, &fh, 99)
	if got, err := decodeFrameHeader(b, 99); err != nil || got != fh {
		t.Errorf("frame header %+v, %v", got, err)
	}
	if _, err := decodeFrameHeader(b, 98); err == nil {
		t.Error("a frame header is believed at another position")
	}
	if got, err := DecodeStates(AppendStates(nil, goldenStates())); err != nil || !reflect.DeepEqual(got, goldenStates()) {
		t.Errorf("states %+v, %v", got, err)
	}
}

// TestEveryBitFlip flips every single bit of each header: none goes unseen.
func TestEveryBitFlip(t *testing.T) {
	file := make([]byte, fileHeaderSize)
	encodeFileHeader(file, goldenFileHeader())
	sorted, sh := make([]byte, fileHeaderSize), goldenSortedHeader()
	encodeSortedHeader(sorted, &sh)
	block := make([]byte, blockHeaderSize)
	bh := goldenBlockHeader()
	encodeBlockHeader(block, &bh)
	fr := make([]byte, frameHeaderSize)
	fh := goldenFrameHeader()
	encodeFrameHeader(fr, &fh, 4176)
	batch := testBatch(3, 1, 200)
	stampBatch(batch, 77, 5)
	for name, c := range map[string]struct {
		bytes  []byte
		decode func([]byte) error
	}{
		"file":   {file, func(b []byte) error { _, err := decodeFileHeader(b); return err }},
		"sorted": {sorted, func(b []byte) error { _, err := decodeSortedHeader(b); return err }},
		"block":  {block, func(b []byte) error { _, err := decodeBlockHeader(b, bh.position); return err }},
		"frame":  {fr, func(b []byte) error { _, err := decodeFrameHeader(b, 4176); return err }},
		"batch":  {batch, func(b []byte) error { return checkBatch(b, 77, 3, 5) }},
	} {
		if err := c.decode(c.bytes); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		for bit := range len(c.bytes) * 8 {
			c.bytes[bit/8] ^= 1 << (bit % 8)
			if err := c.decode(c.bytes); !errors.Is(err, errBad) {
				t.Fatalf("%s: bit %d of byte %d flipped: %v", name, bit%8, bit/8, err)
			}
			c.bytes[bit/8] ^= 1 << (bit % 8)
		}
	}
}

func TestNewerVersion(t *testing.T) {
	file := make([]byte, fileHeaderSize)
	encodeFileHeader(file, goldenFileHeader())
	file[fileVersionOff]++
	binary.LittleEndian.PutUint32(file[fileCRCOff:], crc32.Checksum(file[fileVersionOff:], castagnoli))
	if _, err := decodeFileHeader(file); !errors.Is(err, ErrVersion) {
		t.Errorf("file header: %v", err)
	}
	sorted, sh := make([]byte, fileHeaderSize), goldenSortedHeader()
	encodeSortedHeader(sorted, &sh)
	sorted[sortedVersionOff]++
	binary.LittleEndian.PutUint32(sorted[sortedCRCOff:], crc32.Checksum(sorted[sortedVersionOff:], castagnoli))
	if _, err := decodeSortedHeader(sorted); !errors.Is(err, ErrVersion) {
		t.Errorf("header of sorted file: %v", err)
	}
	block := make([]byte, blockHeaderSize)
	bh := goldenBlockHeader()
	encodeBlockHeader(block, &bh)
	block[blockVersionOff]++
	binary.LittleEndian.PutUint32(block[blockCRCOff:], crc32.Checksum(block[blockVersionOff:], castagnoli))
	if _, err := decodeBlockHeader(block, bh.position); !errors.Is(err, ErrVersion) {
		t.Errorf("block header: %v", err)
	}
	fr := make([]byte, frameHeaderSize)
	fh := goldenFrameHeader()
	fh.kind = frameForgot + 1
	encodeFrameHeader(fr, &fh, 0)
	if _, err := decodeFrameHeader(fr, 0); !errors.Is(err, ErrVersion) {
		t.Errorf("frame header: %v", err)
	}
}

func FuzzPayloads(f *testing.F) {
	f.Add(AppendStates(nil, goldenStates()))
	f.Add(appendEnds(nil, []partitionEnd{{end: 3}}))
	f.Add(testBatch(1, 1, 30))
	f.Fuzz(func(t *testing.T, b []byte) {
		if states, err := DecodeStates(b); err == nil {
			if _, err := DecodeStates(AppendStates(nil, states)); err != nil {
				t.Fatal(err)
			}
		}
		_, _ = decodeEnds(b)
		_, _ = decodeSortedHeader(b)
		if s, serial, ok := parseSortedName(string(b)); ok && sortedName(s, serial) != string(b) {
			t.Fatalf("%q is %+v, %d", b, s, serial)
		}
		_, _ = decodePartitions(b)
		_, _ = readBatch(b)
		_, _ = newReplay(nil).decodeSnapshot(b, 0)
		for fr, err := range frames(b, 0, 1<<20) {
			if err == nil && len(fr.payload) > len(b) {
				t.Fatal("payload beyond the input")
			}
		}
	})
}
