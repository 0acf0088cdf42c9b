package record

import (
	"bytes"
	"errors"
	"strings"
	"testing"

	"github.com/klauspost/compress/zstd"
)

// A streamed zstd frame, such as librdkafka writes, does not announce its size.
func TestZstdWithoutContentSize(t *testing.T) {
	for _, n := range []int{1, 3000, 50_000, 1 << 20} {
		plain := []byte(strings.Repeat("0123456789abcdef, and so on; ", n/29+1)[:n])
		var frame bytes.Buffer
		w, err := zstd.NewWriter(&frame)
		if err != nil {
			t.Fatal(err)
		}
		for rest := plain; len(rest) > 0; {
			k := min(len(rest), 1000)
			if _, err := w.Write(rest[:k]); err != nil {
				t.Fatal(err)
			}
			if err := w.Flush(); err != nil {
				t.Fatal(err)
			}
			rest = rest[k:]
		}
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
		got, err := decompress(make([]byte, 0, 100), Zstd, frame.Bytes(), 2<<20)
		if err != nil || !bytes.Equal(got, plain) {
			t.Errorf("%d bytes: %v, got %d bytes", n, err, len(got))
		}
		if n > 1 {
			if _, err := decompress(nil, Zstd, frame.Bytes(), n-1); !errors.Is(err, errDecompressed) {
				t.Errorf("%d bytes over the limit: %v", n, err)
			}
		}
	}
}
