package record

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"slices"
	"sync"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
	"github.com/pierrec/lz4/v4"
)

// Codec is how the records of a batch are compressed, as in its attributes.
type Codec int8

// The codecs. Snappy is framed as the Java client does it (xerial) and accepted bare as well; lz4 is the frame format.
const (
	None Codec = iota
	Gzip
	Snappy
	Lz4
	Zstd
)

// Valid reports whether the codec exists.
func (c Codec) Valid() bool { return c >= None && c <= Zstd }

// String returns the name that compression.type uses, "none" for none.
func (c Codec) String() string {
	switch c {
	case None:
		return "none"
	case Gzip:
		return "gzip"
	case Snappy:
		return "snappy"
	case Lz4:
		return "lz4"
	case Zstd:
		return "zstd"
	}
	return fmt.Sprintf("codec(%d)", int8(c))
}

// DefaultDecompressLimit is what a batch may decompress to where no limit is given.
const DefaultDecompressLimit = 128 << 20

// maxZstdWindow is the largest window that zstd's own decoder takes by default, 2²⁷.
const maxZstdWindow = 128 << 20

var (
	errDecompressed = errors.New("decompressed size exceeds the limit")
	errBadStream    = errors.New("compressed stream is damaged")
)

// The pools hold what is dear to make. Each value is reset by who takes it.
var (
	gzipReaders = sync.Pool{New: func() any { return new(gzip.Reader) }}
	lz4Readers  = sync.Pool{New: func() any { return lz4.NewReader(nil) }}
	zstdDecoder = sync.OnceValue(func() *zstd.Decoder {
		d, err := zstd.NewReader(nil, zstd.WithDecoderMaxWindow(maxZstdWindow), zstd.WithDecoderMaxMemory(DefaultDecompressLimit))
		if err != nil {
			panic(err) // constant options
		}
		return d
	})
	scratch = sync.Pool{New: func() any { return new([]byte) }}
)

// keepScratch is the largest buffer that goes back to the pool.
const keepScratch = 4 << 20

func getScratch() *[]byte { return scratch.Get().(*[]byte) }

func putScratch(b *[]byte) {
	if cap(*b) <= keepScratch {
		scratch.Put(b)
	}
}

// decompress appends the decompressed form of src to dst and never appends more than limit bytes.
func decompress(dst []byte, c Codec, src []byte, limit int) ([]byte, error) {
	switch c {
	case None:
		if len(src) > limit {
			return dst, errDecompressed
		}
		return append(dst, src...), nil
	case Gzip:
		r := gzipReaders.Get().(*gzip.Reader)
		defer gzipReaders.Put(r)
		if err := r.Reset(bytes.NewReader(src)); err != nil {
			return dst, fmt.Errorf("%w: %w", errBadStream, err)
		}
		return readAll(dst, r, limit)
	case Snappy:
		return decompressSnappy(dst, src, limit)
	case Lz4:
		// Kafka's decoder does not know blocks that depend on one another; a consumer could not read them.
		if len(src) < 7 || src[4]&lz4BlockIndependent == 0 {
			return dst, errBadStream
		}
		r := lz4Readers.Get().(*lz4.Reader)
		defer lz4Readers.Put(r)
		r.Reset(bytes.NewReader(src))
		return readAll(dst, r, limit)
	case Zstd:
		return decompressZstd(dst, src, limit)
	}
	return dst, fmt.Errorf("%w: %s", errBadStream, c)
}

// readAll appends what r yields.
func readAll(dst []byte, r io.Reader, limit int) ([]byte, error) {
	start := len(dst)
	for {
		if len(dst) == cap(dst) {
			dst = slices.Grow(dst, max(4096, len(dst)-start))
		}
		n, err := r.Read(dst[len(dst):cap(dst)])
		dst = dst[:len(dst)+n]
		switch {
		case len(dst)-start > limit:
			return dst[:start], errDecompressed
		case err == io.EOF:
			return dst, nil
		case err != nil:
			return dst[:start], fmt.Errorf("%w: %w", errBadStream, err)
		}
	}
}

// decompressZstd lets the decoder grow the output as it goes: librdkafka's frames do not announce their size, and the
// library's mode that bounds the output by its capacity calls such a frame damaged when it needs more room. What the frame
// announces is held against the limit first; the decoder itself stops at DefaultDecompressLimit.
func decompressZstd(dst, src []byte, limit int) ([]byte, error) {
	start := len(dst)
	var h zstd.Header
	if err := h.Decode(src); err == nil && h.HasFCS && h.FrameContentSize > uint64(limit) {
		return dst, errDecompressed
	}
	out, err := zstdDecoder().DecodeAll(src, dst)
	switch {
	case errors.Is(err, zstd.ErrDecoderSizeExceeded), err == nil && len(out)-start > limit:
		return dst, errDecompressed
	case err != nil:
		return dst, fmt.Errorf("%w: %w", errBadStream, err)
	}
	return out, nil
}
