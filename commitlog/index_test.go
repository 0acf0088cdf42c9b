package commitlog

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"flag"
	"fmt"
	"iter"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/skeinmq/skein/internal/ident"
	"github.com/skeinmq/skein/internal/vfs"
)

var rewriteGolden = flag.Bool("rewrite-golden", false, "write testdata/golden anew: a format change")

const indexTestName = "/00000000000000000000.idx"

var indexTestLog = ident.Log{0xA0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15}

func indexKey(n int) (ident.Partition, ident.Generation) {
	var topic ident.Topic
	binary.BigEndian.PutUint32(topic[:], uint32(n/100))
	return ident.Partition{Topic: topic, Index: int32(n % 100)},
		ident.Generation{Group: ident.Group(n % 64), Epoch: 3, Frame: ident.Frame{Epoch: 2, Position: 4096}}
}

// indexSample makes queues with entries that are contiguous in offsets, spread
// over positions, and with timestamps that now and then fall.
func indexSample(queues, entries int, seed uint64) []indexQueue {
	rng := rand.New(rand.NewPCG(seed, 0))
	out := make([]indexQueue, queues)
	for i := range out {
		q := &out[i]
		q.partition, q.gen = indexKey(i)
		next := ident.Offset(rng.IntN(1000))
		for k := range entries {
			e := place{base: next, position: ident.Position(4096 + (k*queues+i)*100),
				maxTime: 1_000_000 + int64(k)*10 + int64(rng.IntN(40)), size: 70 + int32(k%7), count: 1 + int32(rng.IntN(5))}
			next = e.end()
			q.entries = append(q.entries, e)
		}
		if i%3 == 0 {
			q.snapshot = fmt.Appendf(nil, "snapshot of queue %d", i)
		}
	}
	return out
}

const indexTestEnd = 1 << 30

func buildIndex(t testing.TB, fsys vfs.FS, name string, queues iter.Seq[indexQueue]) *indexFile {
	t.Helper()
	if err := writeIndex(fsys, name, indexTestLog, 0, indexTestEnd, queues); err != nil {
		t.Fatal(err)
	}
	x, err := openIndex(fsys, name, indexTestLog)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { x.close() })
	return x
}

func TestIndexFindsEveryBatch(t *testing.T) {
	for _, size := range []struct{ queues, entries int }{{0, 0}, {1, 1}, {1, 1000}, {43, 3}, {500, 5}, {3, 127}} {
		sample := indexSample(size.queues, size.entries, 1)
		x := buildIndex(t, vfs.NewMem(), indexTestName, slices.Values(sample))
		if err := x.verify(); err != nil {
			t.Fatal(err)
		}
		n := 0
		for row, err := range x.rows() {
			if err != nil {
				t.Fatal(err)
			}
			q := &sample[n]
			n++
			checkIndexRow(t, x, q, row)
		}
		if n != len(sample) {
			t.Errorf("%d rows of %d queues", n, len(sample))
		}
		for i := range sample {
			r, ok, err := x.row(sample[i].partition, sample[i].gen)
			if !ok || err != nil || r.partition != sample[i].partition || r.gen != sample[i].gen {
				t.Fatalf("row of queue %d: %+v, %v, %v", i, r, ok, err)
			}
			other := sample[i].gen
			other.Frame.Position++
			if _, ok, err := x.row(sample[i].partition, other); ok || err != nil {
				t.Errorf("row of a queue that is not there: %v, %v", ok, err)
			}
		}
	}
}

func checkIndexRow(t *testing.T, x *indexFile, q *indexQueue, row indexRow) {
	t.Helper()
	last := q.entries[len(q.entries)-1]
	if row.partition != q.partition || row.gen != q.gen || row.first != q.entries[0].base || row.end != last.end() ||
		int(row.count) != len(q.entries) {
		t.Fatalf("row %+v of queue %v %v", row, q.partition, q.gen)
	}
	for _, e := range q.entries {
		for off := e.base; off < e.end(); off++ {
			got, ok, err := x.find(&row, off)
			if !ok || err != nil || got != e {
				t.Fatalf("find %d = %+v, %v, %v; want %+v", off, got, ok, err, e)
			}
		}
	}
	if _, ok, err := x.find(&row, row.end); ok || err != nil {
		t.Errorf("find at the end = %v, %v", ok, err)
	}
	for _, from := range []ident.Offset{0, row.first + 1, q.entries[len(q.entries)/2].base, last.base, row.end} {
		for ts := int64(999_990); ts < last.maxTime+50; ts += 7 {
			got, ok, err := x.findTime(&row, from, ts)
			i := slices.IndexFunc(q.entries, func(e place) bool { return e.end() > from && e.maxTime >= ts })
			if err != nil || ok != (i >= 0) || (ok && got != q.entries[i]) {
				t.Fatalf("find time %d from %d = %+v, %v, %v; want entry %d", ts, from, got, ok, err, i)
			}
			if len(q.entries) > 200 {
				ts += 500
			}
		}
	}
	if s, err := x.snapshot(&row); err != nil || !bytes.Equal(s, q.snapshot) {
		t.Errorf("snapshot = %q, %v; want %q", s, err, q.snapshot)
	}
}

func TestIndexGaps(t *testing.T) {
	q := indexQueue{entries: []place{
		{base: 10, position: 4096, maxTime: 5, size: 100, count: 5},
		{base: 20, position: 8192, maxTime: 5, size: 100, count: 1},
	}}
	q.partition, q.gen = indexKey(7)
	x := buildIndex(t, vfs.NewMem(), indexTestName, slices.Values([]indexQueue{q}))
	row, _, err := x.row(q.partition, q.gen)
	if err != nil || row.maxTimeOffset != 10 {
		t.Fatalf("row %+v, %v; want the first of equal timestamps", row, err)
	}
	for off, want := range map[ident.Offset]ident.Offset{0: 10, 14: 10, 15: 20, 20: 20} {
		if e, ok, err := x.find(&row, off); !ok || err != nil || e.base != want {
			t.Errorf("find %d = %d, %v, %v; want %d", off, e.base, ok, err, want)
		}
	}
}

func TestIndexBuilderRefuses(t *testing.T) {
	good := place{base: 5, position: 4096, size: 1, count: 2}
	queue := func(n int, entries ...place) indexQueue {
		q := indexQueue{entries: entries}
		q.partition, q.gen = indexKey(n)
		return q
	}
	for name, queues := range map[string][]indexQueue{
		"queues out of order": {queue(2, good), queue(1, good)},
		"a queue twice":       {queue(1, good), queue(1, good)},
		"overlap":             {queue(1, good, place{base: 6, position: 5000, size: 1, count: 1})},
		"no records":          {queue(1, place{base: 5, position: 4096, size: 1})},
		"outside the file":    {queue(1, place{base: 5, position: indexTestEnd, size: 1, count: 1})},
	} {
		mem := vfs.NewMem()
		if err := writeIndex(mem, indexTestName, indexTestLog, 0, indexTestEnd, slices.Values(queues)); err == nil {
			t.Errorf("%s: taken", name)
		}
		if _, err := mem.Stat(indexTestName); err == nil {
			t.Errorf("%s: a file was published", name)
		}
	}
}

// fileBytes is the whole content of a file.
func fileBytes(t testing.TB, fsys vfs.FS, name string) []byte {
	t.Helper()
	f, err := fsys.Open(name, vfs.OpenOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	size, err := f.Size()
	if err != nil {
		t.Fatal(err)
	}
	b := make([]byte, size)
	if n, err := f.ReadAt(b, 0); n < len(b) {
		t.Fatal(err)
	}
	return b
}

// checkGolden compares bytes with the recorded ones, zero runs squeezed.
func checkGolden(t *testing.T, name string, b []byte) {
	t.Helper()
	var text bytes.Buffer
	for i := 0; i < len(b); i += 32 {
		line := b[i:min(i+32, len(b))]
		if slices.ContainsFunc(line, func(c byte) bool { return c != 0 }) {
			fmt.Fprintf(&text, "%08x %s\n", i, hex.EncodeToString(line))
		}
	}
	fmt.Fprintf(&text, "%08x end\n", len(b))
	path := filepath.Join("testdata", "golden", name)
	if *rewriteGolden {
		if err := os.WriteFile(path, text.Bytes(), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(text.Bytes(), want) {
		t.Errorf("%s changed: a change here is a format change\n%s", name, text.Bytes())
	}
}

func TestIndexGoldenBytes(t *testing.T) {
	mem := vfs.NewMem()
	buildIndex(t, mem, indexTestName, slices.Values(indexSample(2, 3, 9)))
	checkGolden(t, "index.hex", fileBytes(t, mem, indexTestName))
}

func readWholeIndex(fsys vfs.FS) error {
	x, err := openIndex(fsys, indexTestName, indexTestLog)
	if err != nil {
		return err
	}
	defer x.close()
	return x.verify()
}

func TestIndexDetectsEveryBitFlip(t *testing.T) {
	mem := vfs.NewMem()
	buildIndex(t, mem, indexTestName, slices.Values(indexSample(2, 2, 4)))
	good := fileBytes(t, mem, indexTestName)
	f, err := mem.Open(indexTestName, vfs.OpenOptions{Write: true})
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	step := 1
	if testing.Short() {
		step = 7
	}
	for bit := 0; bit < len(good)*8; bit += step {
		flipped := []byte{good[bit/8] ^ 1<<(bit%8)}
		if _, err := f.WriteAt(flipped, int64(bit/8)); err != nil {
			t.Fatal(err)
		}
		if err := readWholeIndex(mem); !errors.Is(err, ErrCorrupt) {
			t.Fatalf("bit %d of byte %d: %v, want ErrCorrupt", bit%8, bit/8, err)
		}
		if _, err := f.WriteAt(good[bit/8:bit/8+1], int64(bit/8)); err != nil {
			t.Fatal(err)
		}
	}
	if err := readWholeIndex(mem); err != nil {
		t.Errorf("the mended file: %v", err)
	}
}

func TestIndexRefusesForeignAndNewer(t *testing.T) {
	mem := vfs.NewMem()
	buildIndex(t, mem, indexTestName, slices.Values(indexSample(1, 1, 1)))
	if _, err := openIndex(mem, indexTestName, ident.Log{1}); !errors.Is(err, ErrCorrupt) {
		t.Errorf("index of another log: %v", err)
	}
	b := fileBytes(t, mem, indexTestName)
	f, err := mem.Open(indexTestName, vfs.OpenOptions{Write: true})
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	binary.LittleEndian.PutUint32(b[indexHeadVersion:], indexVersion+1)
	sealIndexPage(b[:indexPage], 0, 0)
	if _, err := f.WriteAt(b[:indexPage], 0); err != nil {
		t.Fatal(err)
	}
	if _, err := openIndex(mem, indexTestName, indexTestLog); !errors.Is(err, ErrVersion) || errors.Is(err, ErrCorrupt) {
		t.Errorf("newer version: %v", err)
	}
	if err := f.Truncate(indexPage + 100); err != nil {
		t.Fatal(err)
	}
	binary.LittleEndian.PutUint32(b[indexHeadVersion:], indexVersion)
	sealIndexPage(b[:indexPage], 0, 0)
	if _, err := f.WriteAt(b[:indexPage], 0); err != nil {
		t.Fatal(err)
	}
	if _, err := openIndex(mem, indexTestName, indexTestLog); !errors.Is(err, ErrCorrupt) {
		t.Errorf("cut file: %v", err)
	}
}

// TestIndexFaultSweep: whatever fails, a published index is whole, and a failed
// write can be repeated.
func TestIndexFaultSweep(t *testing.T) {
	sample := indexSample(60, 20, 3)
	for _, effect := range []vfs.Effect{vfs.FailBefore, vfs.FailAfter, vfs.Tear} {
		for n := 1; ; n++ {
			mem := vfs.NewMem()
			faulty := vfs.NewFaulty(mem)
			fault := faulty.Inject(vfs.Rule{Nth: n, Effect: effect, Seed: uint64(n)})
			err := writeIndex(faulty, indexTestName, indexTestLog, 0, indexTestEnd, slices.Values(sample))
			fired := fault.Fired()
			if (err != nil) != (len(fired) > 0) {
				t.Fatalf("%v %d: %v after %v", effect, n, err, fired)
			}
			for seed := range uint64(8) {
				cut := mem.Crash(seed)
				if _, serr := cut.Stat(indexTestName); serr != nil && err != nil {
					continue
				}
				if rerr := readWholeIndex(cut); rerr != nil {
					t.Fatalf("%v of %v, seed %d: %v", effect, fired, seed, rerr)
				}
			}
			if err := writeIndex(mem, indexTestName, indexTestLog, 0, indexTestEnd, slices.Values(sample)); err != nil {
				t.Fatal(err)
			}
			if err := readWholeIndex(mem); err != nil {
				t.Fatal(err)
			}
			if len(fired) == 0 {
				break
			}
		}
	}
}

func FuzzIndexOpen(f *testing.F) {
	for _, n := range []int{0, 1, 3} {
		mem := vfs.NewMem()
		buildIndex(f, mem, indexTestName, slices.Values(indexSample(n, 2, 1)))
		f.Add(fileBytes(f, mem, indexTestName))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		for _, reseal := range []bool{false, true} {
			if reseal { // let the mutations past the checksums
				for at := 0; at+indexPage <= len(b); at += indexPage {
					sealIndexPage(b[at:at+indexPage], 0, int64(at/indexPage))
				}
			}
			mem := vfs.NewMem()
			file, err := mem.Open(indexTestName, vfs.OpenOptions{Create: true})
			if err != nil {
				t.Fatal(err)
			}
			if _, err := file.WriteAt(b, 0); err != nil {
				t.Fatal(err)
			}
			x, err := openIndex(mem, indexTestName, indexTestLog)
			if err != nil {
				continue
			}
			_ = x.verify()
			for row, err := range x.rows() {
				if err != nil {
					break
				}
				_, _, _ = x.row(row.partition, row.gen)
				_, _, _ = x.find(&row, row.first+1)
				_, _, _ = x.findTime(&row, row.first, row.maxTime)
				_, _ = x.snapshot(&row)
			}
			x.close()
		}
	})
}

// The figures that docs/adr/0003 quotes.

func BenchmarkIndexBuildMillion(b *testing.B) {
	sample := indexSample(1000, 1000, 1)
	name := filepath.Join(b.TempDir(), "0.idx")
	for b.Loop() {
		if err := writeIndex(vfs.OS(), name, indexTestLog, 0, indexTestEnd, slices.Values(sample)); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkIndexFind(b *testing.B) {
	sample := indexSample(1000, 1000, 1)
	x := buildIndex(b, vfs.OS(), filepath.Join(b.TempDir(), "0.idx"), slices.Values(sample))
	row, _, err := x.row(sample[500].partition, sample[500].gen)
	if err != nil {
		b.Fatal(err)
	}
	b.Run("row", func(b *testing.B) {
		for i := 0; b.Loop(); i++ {
			q := &sample[i*7919%len(sample)]
			if _, ok, err := x.row(q.partition, q.gen); !ok || err != nil {
				b.Fatal(ok, err)
			}
		}
	})
	b.Run("offset", func(b *testing.B) {
		b.ReportAllocs()
		for i := 0; b.Loop(); i++ {
			if _, ok, err := x.find(&row, row.first+ident.Offset(i*7919)%(row.end-row.first)); !ok || err != nil {
				b.Fatal(ok, err)
			}
		}
	})
	b.Run("time", func(b *testing.B) {
		for i := 0; b.Loop(); i++ {
			if _, ok, err := x.findTime(&row, row.first, 1_000_000+int64(i*7919%10_000)); !ok || err != nil {
				b.Fatal(ok, err)
			}
		}
	})
}

func BenchmarkIndexRestart(b *testing.B) {
	const queues, files = 100_000, 20
	sample := indexSample(queues, 1, 1)
	dir := b.TempDir()
	var opened []*indexFile
	for i := range files {
		opened = append(opened, buildIndex(b, vfs.OS(), filepath.Join(dir, fmt.Sprintf("%d.idx", i)), slices.Values(sample)))
	}
	for b.Loop() {
		start, n := time.Now(), 0
		for _, x := range opened {
			for _, err := range x.rows() {
				if err != nil {
					b.Fatal(err)
				}
				n++
			}
		}
		if n != queues*files {
			b.Fatal(n)
		}
		b.ReportMetric(time.Since(start).Seconds(), "s/restart")
	}
}
