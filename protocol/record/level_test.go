package record

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"testing"
)

// TestLevels: every level that Kafka allows makes something that is read again, and more of it makes it smaller, as far as
// the libraries tell levels apart.
func TestLevels(t *testing.T) {
	rnd := rand.New(rand.NewPCG(1, 2))
	var plain []byte
	for len(plain) < 200_000 {
		plain = fmt.Appendf(plain, "user=%d;page=/shop/%d;took=%dms;", rnd.IntN(5000), rnd.IntN(300), rnd.IntN(1000))
	}
	size := func(c Codec, l Level) int {
		t.Helper()
		packed := compress(nil, c, l, plain)
		got, err := decompress(nil, c, packed, len(plain))
		if err != nil || !bytes.Equal(got, plain) {
			t.Errorf("%s level %d: %v", c, l, err)
		}
		return len(packed)
	}
	for c, levels := range map[Codec][]Level{
		Gzip: {-1, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9}, Lz4: {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17},
		Zstd: {-131072, -1, 0, 1, 3, 6, 10, 22}, Snappy: {0, 9}, None: {0},
	} {
		for _, l := range levels {
			size(c, l)
		}
	}
	for _, tt := range []struct {
		codec     Codec
		low, high Level
	}{{Gzip, 1, 9}, {Lz4, 9, 17}, {Zstd, 1, 22}, {Zstd, 3, 22}} {
		if low, high := size(tt.codec, tt.low), size(tt.codec, tt.high); high >= low {
			t.Errorf("%s: %d bytes at level %d, %d at %d", tt.codec, low, tt.low, high, tt.high)
		}
	}
	for c, def := range map[Codec]Level{Gzip: -1, Lz4: lz4Default, Zstd: 3} {
		if a, b := size(c, 0), size(c, def); a != b {
			t.Errorf("%s: %d bytes by default, %d at Kafka's default level", c, a, b)
		}
	}
}

// TestRecompressLevel: the level of the rules is that of a batch which is stored with another codec.
func TestRecompressLevel(t *testing.T) {
	size := func(l Level) int {
		var b Builder
		rnd := rand.New(rand.NewPCG(3, 4))
		for i := range 2000 {
			b.Append(int64(i), nil, fmt.Appendf(nil, "user=%d;page=/shop/%d", rnd.IntN(500), rnd.IntN(30)))
		}
		got, err := Validate(b.AppendBatch(nil), &Rules{Recompress: true, Codec: Gzip, Level: l})
		if err != nil {
			t.Fatal(err)
		}
		return len(got.Bytes)
	}
	if low, high := size(1), size(9); high >= low {
		t.Errorf("%d bytes at level 1, %d at 9", low, high)
	}
}
