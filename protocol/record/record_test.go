package record

import (
	"bytes"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
)

var codecs = []Codec{None, Gzip, Snappy, Lz4, Zstd}

// modern are the rules of a plain topic and a new client.
var modern = Rules{MaxBytes: 1 << 20, AllowZstd: true}

// batch builds n records of some compressible bytes, a key in every second one, timestamps rising from 1000.
func batch(codec Codec, n int) []byte {
	b := Builder{Codec: codec}
	for i := range n {
		var key []byte
		if i%2 == 0 {
			key = fmt.Appendf(nil, "key-%d", i)
		}
		b.Append(1000+int64(i), key, bytes.Repeat([]byte{byte('a' + i%26)}, 100), KeyValue{"h", []byte{1}}, KeyValue{"null", nil})
	}
	return b.AppendBatch(nil)
}

// text lists records readably.
func text(t *testing.T, set []byte) string {
	t.Helper()
	var out strings.Builder
	for r, err := range Records(set, 0) {
		if err != nil {
			t.Fatal(err)
		}
		fmt.Fprintf(&out, "%d@%d %q=%q", r.Offset, r.Timestamp, r.Key, r.Value)
		for _, h := range r.Headers {
			fmt.Fprintf(&out, " %s:%v", h.Key, h.Value)
		}
		out.WriteByte('\n')
	}
	return out.String()
}

func TestEveryCodecKeepsRecords(t *testing.T) {
	want := text(t, batch(None, 500))
	if strings.Count(want, "\n") != 500 {
		t.Fatalf("got %d records", strings.Count(want, "\n"))
	}
	for _, c := range codecs {
		b := batch(c, 500)
		got, err := Validate(slices.Clone(b), &modern)
		if err != nil {
			t.Fatalf("%v: %v", c, err)
		}
		if !bytes.Equal(got.Bytes, b) {
			t.Errorf("%v: a valid batch was changed", c)
		}
		if got.Count != 500 || got.LastOffset() != 499 || got.MaxTimestamp != 1499 || got.Attributes.Codec() != c {
			t.Errorf("%v: got %+v", c, got.Header)
		}
		if text(t, b) != want {
			t.Errorf("%v: records differ", c)
		}
		for _, to := range codecs {
			rules := modern
			rules.Recompress, rules.Codec = true, to
			got, err := Validate(slices.Clone(b), &rules)
			if err != nil || got.Attributes.Codec() != to || Checksum(got.Bytes) != got.CRC || text(t, got.Bytes) != want {
				t.Errorf("%v to %v: %+v, %v", c, to, got.Header, err)
			}
		}
	}
}

func TestStampAndLogAppendTime(t *testing.T) {
	b := batch(Zstd, 3)
	crc := Checksum(b)
	Stamp(b, 1<<40, 7)
	h, err := ParseHeader(b)
	if err != nil || h.BaseOffset != 1<<40 || h.LeaderEpoch != 7 || Checksum(b) != crc || h.CRC != crc {
		t.Errorf("got %+v, %v", h, err)
	}
	rules := modern
	rules.LogAppendTime, rules.Now, rules.AfterMax, rules.BeforeMax = true, 1_000_000, 1, 1
	got, err := Validate(batch(Gzip, 3), &rules)
	if err != nil || !got.Attributes.LogAppendTime() || got.MaxTimestamp != 1_000_000 || got.CRC != Checksum(got.Bytes) {
		t.Errorf("got %+v, %v", got.Header, err)
	}
	if want := "2@1000000"; !strings.Contains(text(t, got.Bytes), want) {
		t.Errorf("got %s, want %s", text(t, got.Bytes), want)
	}
}

// changed returns a batch with f applied to its header and the CRC made right.
func changed(codec Codec, n int, f func(*Header)) []byte {
	b := batch(codec, n)
	h := header(b)
	f(&h)
	h.put(b)
	h.CRC = Checksum(b)
	h.put(b)
	return b
}

func TestValidateRefuses(t *testing.T) {
	flipped := batch(None, 3)
	flipped[70] ^= 1
	rebuilt := func(records []byte, count int32) []byte {
		return appendBatch(nil, &Header{ProducerID: -1, BaseSequence: -1, Count: count, LastOffsetDelta: count - 1}, 0, records)
	}
	plain := batch(None, 2)[HeaderSize:]
	strict := modern
	strict.RequireKeys = true
	timed := modern
	timed.Now, timed.AfterMax, timed.BeforeMax = 1001, 5, 5
	late := timed
	late.Now = 2000
	small := modern
	small.MaxBytes = 100
	tight := modern
	tight.DecompressLimit = 200
	tests := []struct {
		name  string
		in    []byte
		rules Rules
		want  error
	}{
		{"empty", nil, modern, ErrInvalid},
		{"cut", batch(None, 2)[:100], modern, ErrInvalid},
		{"length too small", append(make([]byte, 8), 0, 0, 0, 13, 0, 0, 0, 0, 2), modern, ErrCorrupt},
		{"header cut by length", append(make([]byte, 8), 0, 0, 0, 14, 0, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0), modern, ErrCorrupt},
		{"two batches", append(batch(None, 1), batch(None, 1)...), modern, ErrInvalid},
		{"garbage batch behind", append(batch(None, 1), make([]byte, 20)...), modern, ErrCorrupt},
		{"bit flip", flipped, modern, ErrCorrupt},
		{"magic 3", append(make([]byte, 8), 0, 0, 0, 14, 0, 0, 0, 0, 3, 0, 0, 0, 0, 0, 0, 0, 0, 0), modern, ErrCorrupt},
		{"magic 1", append(make([]byte, 8), 0, 0, 0, 14, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0), modern, ErrInvalid},
		{"zstd in old produce", batch(Zstd, 1), Rules{}, ErrCodec},
		{"codec 5", changed(None, 1, func(h *Header) { h.Attributes |= 5 }), modern, ErrInvalid},
		{"base offset", changed(None, 1, func(h *Header) { h.BaseOffset = 1 }), modern, ErrInvalid},
		{"too large", batch(None, 3), small, ErrTooLarge},
		{"count 0", changed(None, 1, func(h *Header) { h.Count = 0 }), modern, ErrInvalid},
		{"count too high", changed(None, 2, func(h *Header) { h.Count = 3 }), modern, ErrInvalid},
		{"count and delta too high", changed(None, 2, func(h *Header) { h.Count, h.LastOffsetDelta = 3, 2 }), modern, ErrInvalid},
		{"count and delta too low", changed(None, 2, func(h *Header) { h.Count, h.LastOffsetDelta = 1, 0 }), modern, ErrInvalid},
		{"same, compressed", changed(Lz4, 2, func(h *Header) { h.Count, h.LastOffsetDelta = 1, 0 }), modern, ErrInvalid},
		{"negative delta", changed(None, 1, func(h *Header) { h.LastOffsetDelta = -1 }), modern, ErrInvalid},
		{"control", changed(None, 1, func(h *Header) { h.Attributes |= attrControl }), modern, ErrInvalid},
		{"no sequence", changed(None, 1, func(h *Header) { h.ProducerID = 5 }), modern, ErrInvalid},
		{"no key", batch(None, 2), strict, ErrInvalid},
		{"no key, compressed", batch(Snappy, 2), strict, ErrInvalid},
		{"future", batch(None, 10), timed, ErrTimestamp},
		{"past", batch(Gzip, 10), late, ErrTimestamp},
		{"bomb", batch(Zstd, 1000), tight, ErrTooLarge},
		{"snappy bomb", batch(Snappy, 1000), tight, ErrTooLarge},
		{"lz4 bomb", batch(Lz4, 1000), tight, ErrTooLarge},
		{"gzip bomb", batch(Gzip, 1000), tight, ErrTooLarge},
		{"record cut", rebuilt(plain[:len(plain)-1], 2), modern, ErrInvalid},
		{"bytes behind", rebuilt(append(slices.Clone(plain), 0), 2), modern, ErrInvalid},
	}
	for _, c := range codecs[1:] {
		tests = append(tests, struct {
			name  string
			in    []byte
			rules Rules
			want  error
		}{c.String() + " of garbage", changed(None, 5, func(h *Header) { h.Attributes |= Attributes(c) }), modern, ErrInvalid})
	}
	for _, tt := range tests {
		_, err := Validate(tt.in, &tt.rules)
		var e *Error
		if !errors.Is(err, tt.want) || !errors.As(err, &e) {
			t.Errorf("%s: got %v, want %v", tt.name, err, tt.want)
		}
	}
	if _, err := Validate(append(batch(None, 1), 1, 2, 3), &modern); err != nil {
		t.Errorf("bytes that are no batch behind a batch: %v", err)
	}
	var e *Error
	if _, err := Validate(batch(None, 300), &strict); !errors.As(err, &e) || len(e.Records) != maxRecordErrors || e.Records[1].Index != 3 {
		t.Errorf("record errors: %v", err)
	}
}

func TestValidateMendsWhatKafkaMends(t *testing.T) {
	for _, c := range codecs {
		got, err := Validate(changed(c, 3, func(h *Header) { h.MaxTimestamp = 5 }), &modern)
		if err != nil || got.MaxTimestamp != 1002 || got.CRC != Checksum(got.Bytes) {
			t.Errorf("%v, max timestamp: %+v, %v", c, got.Header, err)
		}
		b := Builder{Codec: c}
		for i := range int32(3) {
			b.appendElement(&element{value: []byte{byte(i)}}, 7, 2*i)
		}
		gaps := b.AppendBatch(nil)
		h := header(gaps)
		h.LastOffsetDelta = 2
		h.put(gaps)
		h.CRC = Checksum(gaps)
		h.put(gaps)
		if got, err = Validate(gaps, &modern); err != nil || !strings.Contains(text(t, got.Bytes), "1@7 \"\"=\"\\x01\"\n2@7") {
			t.Errorf("%v, gaps: %v\n%s", c, err, text(t, got.Bytes))
		}
	}
}

func TestOldFormats(t *testing.T) {
	old := Rules{OldFormats: true}
	for magic := int8(0); magic <= 1; magic++ {
		for _, c := range codecs[:4] {
			log := batch(c, 5)
			Stamp(log, 100, 3)
			set, err := DownConvert(nil, log, magic, 0, 0)
			if err != nil {
				t.Fatal(err)
			}
			down := text(t, set)
			if strings.Count(down, "\n") != 5 || !strings.Contains(down, "104@") || !strings.HasPrefix(down, "100@") {
				t.Errorf("magic %d %v: got\n%s", magic, c, down)
			}
			up, err := Validate(set, &old)
			if err != nil {
				t.Fatalf("magic %d %v: %v", magic, c, err)
			}
			if up.Attributes.Codec() != c || up.Count != 5 || up.Magic != 2 || up.BaseOffset != 0 || (up.MaxTimestamp == 1004) != (magic == 1) {
				t.Errorf("magic %d %v: got %+v", magic, c, up.Header)
			}
			Stamp(up.Bytes, 100, 0)
			if got := text(t, up.Bytes); got != down {
				t.Errorf("magic %d %v: got\n%s", magic, c, got)
			}
			if _, err := Validate(set, &modern); !errors.Is(err, ErrInvalid) {
				t.Errorf("magic %d on a new version: %v", magic, err)
			}
			flip := slices.Clone(set)
			flip[len(flip)-1] ^= 1
			if _, err := Validate(flip, &old); !errors.Is(err, ErrCorrupt) {
				t.Errorf("magic %d flipped: %v", magic, err)
			}
		}
	}
	set, _ := DownConvert(nil, batch(None, 5), 1, 3, 0)
	if got := text(t, set); !strings.HasPrefix(got, "3@1003") {
		t.Errorf("from offset 3: %s", got)
	}
	if _, err := DownConvert(nil, batch(Zstd, 1), 1, 0, 0); !errors.Is(err, ErrCodec) {
		t.Errorf("zstd: %v", err)
	}
	if _, err := Validate(nil, &old); !errors.Is(err, ErrEmpty) {
		t.Errorf("empty set: %v", err)
	}
	if set, err := Validate(append(set, set[:20]...), &old); err != nil || set.Count != 2 {
		t.Errorf("message cut off at the end: %v", err)
	}
	lz, _ := DownConvert(nil, batch(Lz4, 5), 1, 0, 0)
	if _, err := Validate(append(slices.Clone(lz), lz...), &old); !errors.Is(err, ErrInvalid) {
		t.Errorf("two wrappers: %v", err)
	}
}

func TestSnappyFramesOfOthers(t *testing.T) {
	src := bytes.Repeat([]byte("snappy "), 20_000)
	framed := compressSnappy(nil, src)
	if !bytes.HasPrefix(framed, xerialHeader) {
		t.Error("no xerial header")
	}
	bare, err := hex.DecodeString("0b28" + hex.EncodeToString([]byte("hello world"))) // a literal
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct{ in, want []byte }{
		{framed, src}, {append(slices.Clone(framed), framed...), append(slices.Clone(src), src...)}, {bare, []byte("hello world")}, {xerialHeader, nil},
	} {
		if got, err := decompress(nil, Snappy, tt.in, 1<<20); err != nil || !bytes.Equal(got, tt.want) {
			t.Errorf("got %d bytes, %v", len(got), err)
		}
	}
}

func TestXXH32(t *testing.T) {
	for in, want := range map[string]uint32{"": 0x02cc5d05, "a": 0x550d7456, "abc": 0x32d153ff, "Nobody inspects the spammish repetition": 0xe2293b2f} {
		if got := xxh32([]byte(in)); got != want {
			t.Errorf("%q: got %08x, want %08x", in, got, want)
		}
	}
}

func TestEveryBitFlipIsSeen(t *testing.T) {
	b := batch(None, 2)
	for i := range 8 * len(b) {
		flip := slices.Clone(b)
		flip[i/8] ^= 1 << (i % 8)
		got, err := Validate(flip, &modern)
		if unguarded := i/8 >= leaderEpochOff && i/8 < magicOff; err == nil && !unguarded {
			t.Errorf("bit %d of byte %d: not seen: %+v", i%8, i/8, got.Header)
		}
	}
}

func FuzzValidate(f *testing.F) {
	for _, c := range codecs {
		f.Add(batch(c, 3), true)
	}
	for magic := int8(0); magic <= 1; magic++ {
		for _, c := range codecs[:4] {
			set, _ := DownConvert(nil, batch(c, 3), magic, 0, 0)
			f.Add(set, true)
		}
	}
	f.Fuzz(func(t *testing.T, in []byte, fix bool) {
		if fix && len(in) >= HeaderSize && in[magicOff] == 2 { // let it past the CRC
			h := header(in)
			h.Length, h.BaseOffset = int32(len(in)-overhead), 0
			h.put(in)
			h.CRC = Checksum(in)
			h.put(in)
		}
		rules := Rules{OldFormats: true, AllowZstd: true, DecompressLimit: 1 << 20}
		for _, err := range Records(in, 1<<20) {
			if err != nil {
				break
			}
		}
		got, err := Validate(in, &rules)
		if err != nil {
			var e *Error
			if !errors.As(err, &e) {
				t.Errorf("untyped error %v", err)
			}
			return
		}
		if again, err := Validate(slices.Clone(got.Bytes), &rules); err != nil || !bytes.Equal(again.Bytes, got.Bytes) {
			t.Errorf("what was accepted is not accepted again: %v", err)
		}
		n := int32(0)
		for _, err := range Records(got.Bytes, 1<<20) {
			if err != nil {
				t.Fatalf("what was accepted cannot be read: %v", err)
			}
			n++
		}
		if n != got.Count {
			t.Errorf("%d records in a batch of %d", n, got.Count)
		}
		if got.Attributes.Codec() == Zstd {
			return
		}
		for magic := int8(0); magic <= 1; magic++ {
			old, err := DownConvert(nil, got.Bytes, magic, 0, 1<<20)
			if err != nil {
				t.Fatalf("what was accepted cannot be converted to magic %d: %v", magic, err)
			}
			if up, err := Validate(old, &Rules{OldFormats: true}); err != nil || up.Count != n {
				t.Errorf("magic %d and back: %d of %d records, %v", magic, up.Count, n, err)
			}
		}
	})
}

func TestTrustCompressedLooksAtTheHeaderOnly(t *testing.T) {
	garbage := changed(None, 5, func(h *Header) { h.Attributes |= Attributes(Zstd) })
	rules := modern
	rules.TrustCompressed = true
	if got, err := Validate(garbage, &rules); err != nil || got.Count != 5 {
		t.Errorf("got %+v, %v", got.Header, err)
	}
	rules.Recompress, rules.Codec = true, Gzip // needs the records after all
	if _, err := Validate(garbage, &rules); !errors.Is(err, ErrInvalid) {
		t.Errorf("recompress garbage: %v", err)
	}
}

func TestValidateDoesNotAllocate(t *testing.T) {
	in := batch(None, 50)
	stamped := modern
	stamped.LogAppendTime, stamped.Now = true, 5
	allocs := testing.AllocsPerRun(100, func() {
		for _, rules := range []*Rules{&modern, &stamped} {
			if _, err := Validate(in, rules); err != nil && !errors.Is(err, ErrTimestamp) {
				t.Fatal(err)
			}
			in[attributesOff+1] = 0
			setMaxTimestamp(in, 0, 1049)
		}
	})
	if allocs != 0 {
		t.Errorf("got %v allocations, want none", allocs)
	}
}

// FuzzSkim holds the quick parser of records against the thorough one.
func FuzzSkim(f *testing.F) {
	f.Add(batch(None, 3)[HeaderSize:])
	f.Add([]byte{14, 0, 0, 0, 1, 1, 1, 0})
	f.Fuzz(func(t *testing.T, b []byte) {
		var e element
		rest, err := e.next(b)
		timestampDelta, offsetDelta, hasKey, end := skim(b, 0)
		if (end < 0) != (err != nil) {
			t.Fatalf("skim ends at %d, next says %v", end, err)
		}
		if err == nil && (end != len(b)-len(rest) || timestampDelta != e.timestampDelta || offsetDelta != e.offsetDelta || hasKey != e.hasKey) {
			t.Errorf("skim says %d, %d, %v, %d, next %+v and %d", timestampDelta, offsetDelta, hasKey, end, e, len(b)-len(rest))
		}
	})
}

func BenchmarkValidate16KiB(b *testing.B) {
	builder := Builder{}
	for i := range 16 {
		builder.Append(int64(i), nil, make([]byte, 1010))
	}
	in := builder.AppendBatch(nil)
	b.Run("validate", func(b *testing.B) {
		b.SetBytes(int64(len(in)))
		b.ReportAllocs()
		for b.Loop() {
			if _, err := Validate(in, &modern); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("crc alone", func(b *testing.B) {
		b.SetBytes(int64(len(in)))
		for b.Loop() {
			Checksum(in)
		}
	})
	for _, c := range codecs[1:] {
		compressed := batch(c, 100)
		b.Run(c.String(), func(b *testing.B) {
			b.SetBytes(int64(len(compressed)))
			b.ReportAllocs()
			for b.Loop() {
				if _, err := Validate(compressed, &modern); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func BenchmarkValidateSmallRecords(b *testing.B) {
	builder := Builder{}
	for i := range 160 {
		builder.Append(int64(i), nil, make([]byte, 94))
	}
	in := builder.AppendBatch(nil)
	b.SetBytes(int64(len(in)))
	b.ReportAllocs()
	for b.Loop() {
		if _, err := Validate(in, &modern); err != nil {
			b.Fatal(err)
		}
	}
}
