package record

import (
	"io"
	"sync"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
	"github.com/pierrec/lz4/v4"
)

// Level is how hard a codec tries, in the numbers of Kafka's compression.*.level (KIP-390): -1 and 1 to 9 for gzip, 1 to 17
// for lz4, where 9 is its fast compressor, -131072 to 22 for zstd. 0 is the codec's default. The libraries have fewer
// steps: a level is rounded to the nearest that there is, and snappy has none.
type Level int

// lz4Default is the level of lz4 that means its fast compressor, as in Kafka.
const lz4Default Level = 9

// compressors are the writers of a codec by its library's step, made when they are first needed.
var (
	gzipWriters  [gzip.BestCompression + 1]sync.Pool // 0: the default
	lz4Writers   [10]sync.Pool                       // 0: fast
	zstdEncoders = func() (out [zstd.SpeedBestCompression + 1]func() *zstd.Encoder) {
		for i := range out {
			out[i] = sync.OnceValue(func() *zstd.Encoder { return newZstd(zstd.EncoderLevel(i)) })
		}
		return out
	}()
)

// gzipWriter returns a writer of a level, which goes back to its pool.
func gzipWriter(l Level) (*gzip.Writer, *sync.Pool) {
	if l < 1 {
		l = 0
	}
	step := min(int(l), gzip.BestCompression)
	pool := &gzipWriters[step]
	if w, ok := pool.Get().(*gzip.Writer); ok {
		return w, pool
	}
	if step == 0 {
		step = gzip.DefaultCompression
	}
	w, err := gzip.NewWriterLevel(io.Discard, step)
	if err != nil {
		panic(err) // the levels are the library's
	}
	return w, pool
}

var lz4Steps = [...]lz4.CompressionLevel{
	lz4.Fast, lz4.Level1, lz4.Level2, lz4.Level3, lz4.Level4, lz4.Level5, lz4.Level6, lz4.Level7, lz4.Level8, lz4.Level9,
}

// lz4Writer is gzipWriter for lz4.
func lz4Writer(l Level) (*lz4.Writer, *sync.Pool) {
	step := 0
	if l > 0 && l != lz4Default {
		step = min(int(l), len(lz4Steps)-1)
	}
	pool := &lz4Writers[step]
	if w, ok := pool.Get().(*lz4.Writer); ok {
		return w, pool
	}
	w := lz4.NewWriter(io.Discard)
	// Kafka's own blocks: 64 KiB, independent, no checksums.
	if err := w.Apply(lz4.BlockSizeOption(lz4.Block64Kb), lz4.ChecksumOption(false), lz4.CompressionLevelOption(lz4Steps[step])); err != nil {
		panic(err) // constant options
	}
	return w, pool
}

func zstdEncoder(l Level) *zstd.Encoder {
	if l == 0 {
		return zstdEncoders[zstd.SpeedDefault]()
	}
	return zstdEncoders[zstd.EncoderLevelFromZstd(int(l))]()
}

func newZstd(step zstd.EncoderLevel) *zstd.Encoder {
	e, err := zstd.NewWriter(nil, zstd.WithZeroFrames(true), zstd.WithEncoderLevel(step))
	if err != nil {
		panic(err) // the levels are the library's
	}
	return e
}

// compress appends the compressed form of src to dst.
func compress(dst []byte, c Codec, l Level, src []byte) []byte {
	out := appender{dst}
	switch c {
	case None:
		return append(dst, src...)
	case Gzip:
		w, pool := gzipWriter(l)
		w.Reset(&out)
		writeAll(w, src)
		pool.Put(w)
	case Snappy:
		return compressSnappy(dst, src)
	case Lz4:
		w, pool := lz4Writer(l)
		w.Reset(&out)
		writeAll(w, src)
		pool.Put(w)
	case Zstd:
		return zstdEncoder(l).EncodeAll(src, dst)
	default:
		panic("record: compress with " + c.String()) // callers have checked Valid
	}
	return out.b
}

// appender is an io.Writer that cannot fail.
type appender struct{ b []byte }

func (a *appender) Write(p []byte) (int, error) {
	a.b = append(a.b, p...)
	return len(p), nil
}

// writeAll writes and closes a compressor above an appender. Its errors could only come from the appender, which has none.
func writeAll(w io.WriteCloser, src []byte) {
	if _, err := w.Write(src); err != nil {
		panic(err)
	}
	if err := w.Close(); err != nil {
		panic(err)
	}
}
