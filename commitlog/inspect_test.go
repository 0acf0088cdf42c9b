package commitlog

import (
	"bytes"
	"context"
	"io"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/skeinmq/skein/internal/ident"
	"github.com/skeinmq/skein/internal/vfs"
)

func TestInspectAndVerify(t *testing.T) {
	ctx := context.Background()
	mem := vfs.NewMem()
	m := newModel()
	if err := story(mem, m); err != nil {
		t.Fatal(err)
	}
	err := session(mem, m, func(s *scenario) error { // the file that was the newest one is sealed
		(&running{Log: s.l, t: t}).awaitSealed()
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	var told, total int64
	in, err := Inspect(ctx, mem, "data", func(d, of int64) { told, total = d, of })
	if err != nil {
		t.Fatal(err)
	}
	if in.Identity.ClusterID != "c" || in.Epoch != 4 || len(in.Damage) != 0 || len(in.Files) == 0 {
		t.Fatalf("inspection %+v", in)
	}
	if told == 0 || told > total {
		t.Errorf("told of %d of %d bytes", told, total)
	}
	ends := map[ident.Partition]ident.Offset{}
	for _, q := range in.Queues {
		ends[q.Partition] = max(ends[q.Partition], q.End)
	}
	for p, part := range m.parts {
		if want := ident.Offset(part.acked * part.perBatch); !part.dropped && ends[modelPartition(p)] != want {
			t.Errorf("partition %d ends at %d, want %d", p, ends[modelPartition(p)], want)
		}
	}
	v, err := Verify(ctx, mem, "data", func(done, total int64) { told = done })
	if err != nil || len(v.Problems) != 0 || v.Batches == 0 || told != v.Bytes {
		t.Fatalf("verification %+v, %v", v, err)
	}

	for _, sorted := range []bool{false, true} {
		i := slices.IndexFunc(in.Files, func(f InspectedFile) bool { return f.Indexed && f.Sorted == sorted })
		if i < 0 {
			t.Fatalf("no sealed file with sorted %v", sorted)
		}
		verifyFlips(t, mem, &in.Files[i])
	}
}

// verifyFlips flips a bit of a batch, then one of an index entry that stays sound by its CRC.
func verifyFlips(t *testing.T, mem *vfs.Mem, file *InspectedFile) {
	t.Helper()
	bit, first := int64(8*(fileHeaderSize+blockHeaderSize+20)), file.First
	if file.Sorted {
		_, serial, _ := parseSortedName(filepath.Base(file.Name))
		bit, first = 8*(fileHeaderSize+20), sortedFirst(serial)
	}
	disk := mem.Crash(1)
	flip(t, disk, file.Name, bit)
	if v, err := Verify(context.Background(), disk, "data", nil); err != nil || len(v.Problems) == 0 {
		t.Fatalf("a flipped bit goes unseen: %+v, %v", v, err)
	}

	disk = mem.Crash(1)
	f, err := disk.Open(strings.TrimSuffix(file.Name, logSuffix)+indexSuffix, vfs.OpenOptions{Write: true})
	if err != nil {
		t.Fatal(err)
	}
	page := make([]byte, indexPage)
	if _, err := f.ReadAt(page, indexPage); err != nil && err != io.EOF {
		t.Fatal(err)
	}
	page[indexBody+16] ^= 1 // where the first batch lies
	sealIndexPage(page, first, 1)
	if _, err := f.WriteAt(page, indexPage); err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	if v, err := Verify(context.Background(), disk, "data", nil); err != nil || len(v.Problems) != 1 {
		t.Fatalf("an index entry that points elsewhere goes unseen: %+v, %v", v, err)
	}
}

// TestVerifyHeadersAndLastBlock: a flipped bit in a file's header is told, and one in the last block, of which only the
// checkpoint knows that it was durable, is told by range.
func TestVerifyHeadersAndLastBlock(t *testing.T) {
	mem := vfs.NewMem()
	cfg, want := testConfig(mem, "data"), newExpected()
	r := start(t, cfg)
	r.begin()
	for i := range 3 {
		want.append(t, r, 0, testBatch(2, byte(i), 3000))
	}
	r.stop()
	var file string
	var at int
	for _, n := range diskFiles(t, mem) {
		if i := bytes.Index(fileBytes(t, mem, n), want.batches[0][2]); i >= 0 {
			file, at = n, i
		}
	}
	block := at - frameHeaderSize - blockHeaderSize
	for name, c := range map[string]struct {
		bit      int
		from, to ident.Position
	}{
		"header":       {2000 * 8, 0, fileHeaderSize},
		"header magic": {0, 0, fileHeaderSize},
		"last block":   {(block + 20) * 8, ident.Position(block), ident.Position(block) + 3584},
	} {
		disk := mem.Crash(1)
		flip(t, disk, file, int64(c.bit))
		v, err := Verify(context.Background(), disk, "data", nil)
		if err != nil {
			t.Fatal(err)
		}
		if !slices.ContainsFunc(v.Problems, func(p CorruptError) bool { return p.From == c.from && p.To == c.to }) {
			t.Errorf("%s: no problem from %d to %d of %s: %+v", name, c.from, c.to, file, v.Problems)
		}
	}
}
