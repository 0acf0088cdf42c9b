package controller

import (
	"bytes"
	"encoding/hex"
	"errors"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/skeinmq/skein/internal/ident"
)

func contains(s, sub string) bool { return strings.Contains(s, sub) }

var topicA = ident.Topic{0xa0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15}

func sampleBatch() *Batch {
	return &Batch{Partition: 49, Epoch: 2, Seq: 300, Ops: []Op{
		{Kind: PutGroup, Group: "g1", Value: []byte{0xff}},
		{Kind: DropGroup, Group: "g2"},
		{Kind: PutOffsets, Group: "g1", Offsets: []PartitionOffset{{
			Partition: ident.Partition{Topic: topicA, Index: 3},
			Offset:    Offset{Offset: 1000, LeaderEpoch: -1, Metadata: "hi", CommitTime: 5, ExpireTime: -1},
		}}},
		{Kind: DropOffsets, Group: "g1", Offsets: []PartitionOffset{{Partition: ident.Partition{Topic: topicA, Index: 4}}}},
	}}
}

// TestGolden: a change here is a change of the format, and needs a new version.
func TestGolden(t *testing.T) {
	topic := "a00102030405060708090a0b0c0d0e0f"
	for _, tc := range []struct {
		name string
		got  []byte
		want string
	}{
		{"claim", appendClaims(nil, []Claim{{Partition: 1, Owner: 2}, {Partition: 49, Owner: 0}}), "0101" + "02" + "0204" + "6200"},
		{"producer ids", appendProducerIDs(nil, 1000), "0103" + "e807"},
		{"batch", appendBatch(nil, sampleBatch()), "0102" + "62" + "04" + "ac02" + "04" +
			"01" + "026731" + "01ff" +
			"02" + "026732" +
			"03" + "026731" + "01" + topic + "06" + "d00f" + "01" + "0a" + "01" + "026869" +
			"04" + "026731" + "01" + topic + "08"},
	} {
		if got := hex.EncodeToString(tc.got); got != tc.want {
			t.Errorf("%s:\n got %s\nwant %s", tc.name, got, tc.want)
		}
	}
	c, err := decodeCommand(appendBatch(nil, sampleBatch()))
	if err != nil || !reflect.DeepEqual(&c.batch, sampleBatch()) {
		t.Errorf("decoded %+v, %v", c.batch, err)
	}
}

func TestDecodeRefuses(t *testing.T) {
	good := appendBatch(nil, sampleBatch())
	for n := range good {
		if _, err := decodeCommand(good[:n]); !errors.Is(err, ErrCorrupt) {
			t.Errorf("cut at %d: %v", n, err)
		}
	}
	if _, err := decodeCommand(append(bytes.Clone(good), 0)); !errors.Is(err, ErrCorrupt) {
		t.Error("trailing byte accepted")
	}
	for _, hexed := range []string{"0201", "0109", "010262040101" + "09" + "00"} {
		b, _ := hex.DecodeString(hexed)
		if _, err := decodeCommand(b); !errors.Is(err, ErrVersion) {
			t.Errorf("%s: %v, want a version error", hexed, err)
		}
	}
	if _, err := decodeCommand([]byte{1, kindBatch, 100, 0, 0, 0}); !errors.Is(err, ErrCorrupt) {
		t.Error("partition 50 accepted")
	}
}

func FuzzDecodeCommand(f *testing.F) {
	f.Add(appendBatch(nil, sampleBatch()))
	f.Add(appendClaims(nil, []Claim{{Partition: 1, Owner: 2}}))
	f.Add(appendProducerIDs(nil, 1000))
	f.Fuzz(func(t *testing.T, b []byte) {
		c, err := decodeCommand(b)
		if err != nil {
			if !errors.Is(err, ErrCorrupt) && !errors.Is(err, ErrVersion) {
				t.Fatalf("untyped error %v", err)
			}
			return
		}
		newState().apply(&c)
	})
}

func sampleState() *state {
	s := newState()
	s.nextProducerID = 2000
	s.applyClaims([]Claim{{Partition: 49, Owner: 5}, {Partition: 49, Owner: 6}})
	s.applyBatch(sampleBatch())
	return s
}

func TestSnapshotGolden(t *testing.T) {
	var b bytes.Buffer
	if err := writeSnapshot(&b, sampleState().freeze()); err != nil {
		t.Fatal(err)
	}
	got := hex.EncodeToString(b.Bytes())
	const head, tail = "534b4e5302000000", "ff"
	const applied, ids = "e2258ed1" + "02000000" + "0500", "fb6f7f6c" + "03000000" + "01a01f"
	if !strings.HasPrefix(got, head+applied+ids) {
		t.Errorf("snapshot begins %s", got[:60])
	}
	// The last partition, its group, its offset, and the end.
	const want = "5299f271" + "06000000" + "02620c04ac02" +
		"ff078170" + "07000000" + "030101ff026731" +
		"9c24103c" + "1b000000" + "0401a00102030405060708090a0b0c0d0e0f06d00f010a01026869" +
		"93560739" + "02000000" + tail + "36"
	if !strings.HasSuffix(got, want) {
		t.Errorf("snapshot ends\n%s, want\n%s", got[len(got)-len(want):], want)
	}
}

func TestSnapshotRoundTrip(t *testing.T) {
	s := sampleState()
	f := s.freeze()
	// What is frozen does not see what comes later.
	s.applyBatch(&Batch{Partition: 49, Epoch: 2, Seq: 301, Ops: []Op{
		{Kind: DropOffsets, Group: "g1", Offsets: []PartitionOffset{{Partition: ident.Partition{Topic: topicA, Index: 3}}}},
		{Kind: PutGroup, Group: "late", Value: []byte("x")},
	}})
	var b bytes.Buffer
	if err := writeSnapshot(&b, f); err != nil {
		t.Fatal(err)
	}
	back, err := readSnapshot(bytes.NewReader(b.Bytes()))
	if err != nil {
		t.Fatal(err)
	}
	p := back.parts[49]
	if back.nextProducerID != 2000 || p.owner != 6 || p.epoch != 2 || p.seq != 300 || len(p.groups) != 1 {
		t.Fatalf("read %+v", p)
	}
	g := p.groups["g1"]
	if o := g.offsets[ident.Partition{Topic: topicA, Index: 3}]; o.Offset != 1000 || o.Metadata != "hi" || string(g.value) != "\xff" {
		t.Fatalf("group %+v", g)
	}
	if got := len(s.parts[49].groups["g1"].offsets); got != 0 {
		t.Fatalf("live state has %d offsets", got)
	}

	for i := range b.Bytes() { // every bit counts
		for bit := range 8 {
			bad := bytes.Clone(b.Bytes())
			bad[i] ^= 1 << bit
			if _, err := readSnapshot(bytes.NewReader(bad)); err == nil {
				t.Fatalf("bit %d of byte %d does not matter", bit, i)
			}
		}
	}
	for n := range b.Bytes() {
		if _, err := readSnapshot(bytes.NewReader(b.Bytes()[:n])); !errors.Is(err, ErrCorrupt) {
			t.Fatalf("cut at %d: %v", n, err)
		}
	}
}

func FuzzReadSnapshot(f *testing.F) {
	var b bytes.Buffer
	writeSnapshot(&b, sampleState().freeze())
	f.Add(b.Bytes())
	f.Fuzz(func(t *testing.T, b []byte) {
		if _, err := readSnapshot(bytes.NewReader(b)); err != nil && !errors.Is(err, ErrCorrupt) && !errors.Is(err, ErrVersion) {
			t.Fatalf("untyped error %v", err)
		}
	})
}

// TestSnapshotVersion1: what a build before there were several voters wrote is read; it shows no index.
func TestSnapshotVersion1(t *testing.T) {
	old, err := hex.DecodeString("534b4e5301000000" + "fb6f7f6c" + "03000000" + "01a01f" + "c97b2edd" + "02000000" + "ff01")
	if err != nil {
		t.Fatal(err)
	}
	f, err := readSnapshot(bytes.NewReader(old))
	if err != nil || f.nextProducerID != 2000 || f.applied != 0 {
		t.Fatalf("read %+v, %v", f, err)
	}
}

func TestResultRoundTrip(t *testing.T) {
	for _, out := range []result{{}, {epochs: []Epoch{1, 1 << 40}}, {first: 7000}} {
		b := appendResult(nil, &out)
		back, err := decodeResult(b)
		if err != nil || !slices.Equal(back.epochs, out.epochs) || back.first != out.first {
			t.Errorf("%+v came back as %+v, %v", out, back, err)
		}
		for n := range b {
			if _, err := decodeResult(b[:n]); !errors.Is(err, ErrCorrupt) {
				t.Errorf("cut at %d: %v", n, err)
			}
		}
	}
	if got := hex.EncodeToString(appendResult(nil, &result{epochs: []Epoch{3}, first: 1000})); got != "010106d00f" {
		t.Errorf("bytes %s", got)
	}
	if _, err := decodeResult([]byte{9, 0, 0}); !errors.Is(err, ErrVersion) {
		t.Errorf("newer version: %v", err)
	}
}

func FuzzDecodeResult(f *testing.F) {
	f.Add([]byte{1, 1, 6, 0})
	f.Fuzz(func(t *testing.T, b []byte) {
		if _, err := decodeResult(b); err != nil && !errors.Is(err, ErrCorrupt) && !errors.Is(err, ErrVersion) {
			t.Fatalf("untyped error %v", err)
		}
	})
}
