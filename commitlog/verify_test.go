package commitlog

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/skeinmq/skein/internal/ident"
	"github.com/skeinmq/skein/internal/vfs"
)

// wholeFile is a log file and its blocks, as they were written.
type wholeFile struct {
	name   string
	first  ident.Position
	blocks []blockHeader
}

func (f *wholeFile) last() *blockHeader { return &f.blocks[len(f.blocks)-1] }

// wholeFiles reads the log files that have blocks.
func wholeFiles(t *testing.T, fs vfs.FS) (out []wholeFile) {
	t.Helper()
	for _, n := range diskFiles(t, fs) {
		first, ok := parseLogFileName(n[len("data/log/"):])
		if !ok {
			continue
		}
		f, b := wholeFile{name: n, first: first}, fileBytes(t, fs, n)
		for off := fileHeaderSize; off < len(b); {
			h, err := decodeBlockHeader(b[off:], first+ident.Position(off))
			if err != nil {
				break
			}
			f.blocks = append(f.blocks, h)
			off += int(h.padded)
		}
		if len(f.blocks) > 0 {
			out = append(out, f)
		}
	}
	return out
}

// rolled makes a log whose files were begun as the one before was full, and, the last one, as the log was opened again. The newest one has
// one block only when lone is set.
func rolled(t *testing.T, lone bool) *vfs.Mem {
	t.Helper()
	mem := vfs.NewMem()
	cfg, want := testConfig(mem, "data"), newExpected()
	for round := range 2 {
		r := start(t, cfg)
		r.begin()
		for i := range 250 {
			if round == 0 || i < 3 && !lone {
				want.append(t, r, 0, testBatch(2, byte(i), 9000))
			}
		}
		r.awaitSealed()
		r.stop()
	}
	return mem
}

// ranges are the problems that are bytes of the log, without those of offsets that are absent for them.
func ranges(list []CorruptError) (out []string) {
	for _, p := range list {
		if p.From < p.To {
			out = append(out, fmt.Sprintf("%s %d..%d", p.File, p.From, p.To))
		}
	}
	return out
}

// destroy makes the header of a block unreadable and returns how the damage is told.
func destroy(t *testing.T, fs vfs.FS, f *wholeFile, h *blockHeader) string {
	t.Helper()
	flip(t, fs, f.name, 8*(int64(h.position-f.first)+20))
	return fmt.Sprintf("%s %d..%d", f.name, h.position, h.end())
}

// TestDamageAtTheEndOfAFile destroys the first block of a file, the last one of the file before it, or both: what is damaged is told to
// the byte, by Verify, by Inspect and by recovery, and what the file before it has left is none of it.
func TestDamageAtTheEndOfAFile(t *testing.T) {
	mem := rolled(t, false)
	files := wholeFiles(t, mem)
	if len(files) < 3 {
		t.Fatalf("%d files", len(files))
	}
	for i := range len(files) - 1 {
		f, next := &files[i], &files[i+1]
		for _, c := range []struct {
			name               string
			last, first, index bool // index: that of the file is there
		}{
			{"first block of the next", false, true, true},
			{"last block", true, false, true},
			{"last block, no index", true, false, false},
			{"both", true, true, true},
		} {
			t.Run(fmt.Sprint("file ", i, ", ", c.name), func(t *testing.T) {
				disk := mem.Crash(1)
				var want []string
				if c.last {
					want = append(want, destroy(t, disk, f, f.last()))
				}
				if c.first {
					want = append(want, destroy(t, disk, next, &next.blocks[0]))
				}
				if !c.index {
					removeIndex(t, disk, f)
				}
				checkDamage(t, disk, want)
			})
		}
	}
}

func removeIndex(t *testing.T, fs vfs.FS, f *wholeFile) {
	t.Helper()
	if err := errors.Join(fs.Remove(strings.TrimSuffix(f.name, logSuffix)+indexSuffix), fs.SyncDir("data/log")); err != nil {
		t.Fatal(err)
	}
}

// checkDamage wants the same ranges told by everyone who reads the log.
func checkDamage(t *testing.T, disk *vfs.Mem, want []string) {
	t.Helper()
	v, err := Verify(context.Background(), disk, "data", nil)
	if got := ranges(v.Problems); err != nil || !slices.Equal(got, want) {
		t.Errorf("verify says %q, %v, want %q", got, err, want)
	}
	in, err := Inspect(context.Background(), disk, "data", nil)
	if got := ranges(in.Damage); err != nil || !slices.Equal(got, want) {
		t.Errorf("inspect says %q, %v, want %q", got, err, want)
	}
	cfg := testConfig(disk, "data")
	cfg.FS = disk.Crash(1)
	for _, n := range diskFiles(t, cfg.FS) { // without them recovery reads all
		if strings.Contains(n, "/checkpoint-") {
			if err := cfg.FS.Remove(n); err != nil {
				t.Fatal(err)
			}
		}
	}
	l, err := Open(context.Background(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if got := ranges(l.Recovered().Damage); !slices.Equal(got, want) {
		t.Errorf("recovery says %q, want %q", got, want)
	}
}

// TestEndThatNobodyTells: where no index says where a file ended, everything up to the next block that can be read may have been written,
// and is told; also when a recovery that could not know has made the index again.
func TestEndThatNobodyTells(t *testing.T) {
	mem := rolled(t, false)
	files := wholeFiles(t, mem)
	f, next := &files[0], &files[1]
	cfg := testConfig(mem, "data")
	destroy(t, mem, f, f.last())
	for off := f.last().position - f.first; off < f.last().end()-f.first; off += frameHeaderSize {
		flip(t, mem, f.name, 8*int64(off)+1) // no frame can be saved, in which the new index would know of the block
	}
	first := destroy(t, mem, next, &next.blocks[0])
	removeIndex(t, mem, f)
	want := []string{fmt.Sprintf("%s %d..%d", f.name, f.last().position, f.first+ident.Position(cfg.FileSize)), first}
	for range 2 {
		checkDamage(t, mem, want)
		r := start(t, cfg)
		r.begin()
		r.awaitSealed()
		r.stop()
	}
}

// TestNewestFileUnreadable: of the newest file no block can be read, and a checkpoint proves that there were some: what the file before it
// has left is none of it.
func TestNewestFileUnreadable(t *testing.T) {
	mem := rolled(t, true)
	files := wholeFiles(t, mem)
	next := &files[len(files)-1]
	for i := range next.blocks {
		destroy(t, mem, next, &next.blocks[i])
	}
	v, err := Verify(context.Background(), mem, "data", nil)
	want := []string{fmt.Sprintf("%s %d..%d", next.name, next.blocks[0].position, next.last().end())}
	if got := ranges(v.Problems); err != nil || !slices.Equal(got, want) {
		t.Errorf("verify says %q, %v, want %q", got, err, want)
	}
	l, err := Open(context.Background(), testConfig(mem, "data"))
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if got := ranges(l.Recovered().Damage); !slices.Equal(got, want) {
		t.Errorf("recovery says %q, want %q", got, want)
	}
}
