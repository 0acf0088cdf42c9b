package commitlog

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/skeinmq/skein/internal/ident"
	"github.com/skeinmq/skein/internal/vfs"
)

const oldBatches = 40

// reclaimedBehind makes a log whose first file holds oldBatches batches of partition 0, in a block each, and that files
// were reclaimed behind, as restarts do: the chain of blocks has a hole that is no damage.
func reclaimedBehind(t *testing.T) (*vfs.Mem, *expected) {
	t.Helper()
	fs := vfs.NewMem()
	cfg, want := testConfig(fs, "data"), newExpected()
	for round := range 5 {
		r := start(t, cfg)
		r.begin()
		if round == 0 {
			for i := range oldBatches {
				want.append(t, r, 0, testBatch(2, byte(i), 9000))
			}
		}
		q := r.queue(1, 1)
		if res := r.append(batchOf(q, testBatch(1, 1, 100)))[0]; res.Err != nil {
			t.Fatal(res.Err)
		}
		if round > 1 { // what is in the files of the rounds before lives no more
			if err := q.SetLogStart(context.Background(), q.HighWatermark()-1); err != nil {
				t.Fatal(err)
			}
			await(t, "a file reclaimed", func() bool {
				r.sealer.wake.poke()
				_, err := fs.Stat("data/log/" + logFileName(ident.Position(cfg.FileSize)))
				return err != nil
			})
		}
		r.stop()
	}
	if _, err := fs.Stat("data/log/" + logFileName(0)); err != nil {
		t.Fatal(err)
	}
	return fs, want
}

// readEach reads batch after batch, of two records, of a partition: each is right, or refused as corrupt. It returns which were refused.
func readEach(t *testing.T, r *running, p int32, want *expected) (refused []int) {
	t.Helper()
	q := r.queue(1, p)
	var rec Records
	defer rec.Release()
	for i, b := range want.batches[p] {
		rec.Release()
		err := q.Read(context.Background(), ReadOptions{From: ident.Offset(2 * i), MaxBytes: 1, AtLeastOne: true}, &rec)
		switch {
		case errors.Is(err, ErrCorrupt):
			refused = append(refused, i)
		case err != nil || len(rec.Slices) != 1 || !bytes.Equal(rec.Slices[0], b):
			t.Fatalf("batch %d: %d slices, other bytes, or %v", i, len(rec.Slices), err)
		}
	}
	return refused
}

// TestDamageBeforeReclaimedFiles damages a block in a file behind which others were reclaimed, and takes its index away or
// not: nothing but the damaged batch is lost, not after further starts either, and Verify says what is.
func TestDamageBeforeReclaimedFiles(t *testing.T) {
	fs, want := reclaimedBehind(t)
	file, index := "data/log/"+logFileName(0), "data/log/"+logFileName(0)[:20]+indexSuffix
	before, err := fs.Stat(file)
	if err != nil {
		t.Fatal(err)
	}
	for _, block := range []int{0, 1, oldBatches / 2, oldBatches - 3, oldBatches - 2, oldBatches - 1} {
		for _, how := range []string{"index whole", "index flipped", "index absent"} {
			t.Run(fmt.Sprint(how, ", block ", block), func(t *testing.T) {
				disk := fs.Crash(1)
				flip(t, disk, file, 8*blockWith(t, disk, want, block))
				switch how {
				case "index flipped":
					flip(t, disk, index, 8*20)
				case "index absent":
					if err := disk.Remove(index); err != nil {
						t.Fatal(err)
					}
				}
				cfg := testConfig(disk, "data")
				for round := range 3 {
					r := start(t, cfg)
					r.begin()
					if known := r.Stats().Unavailable; round > 0 && len(known) != 1 {
						t.Errorf("start %d knows of %+v", round, known)
					}
					if refused := readEach(t, r, 0, want); len(refused) != 1 || refused[0] != block {
						t.Errorf("batches %v are refused, want %d", refused, block)
					}
					r.awaitSealed()
					r.stop()
				}
				if st, err := disk.Stat(file); err != nil || st.Size < before.Size {
					t.Errorf("the file has %d bytes, had %d, %v", st.Size, before.Size, err)
				}
				v, err := Verify(context.Background(), disk, "data", nil)
				if err != nil || len(v.Problems) == 0 || v.Batches < oldBatches-1 {
					t.Errorf("verify: %+v, %v", v, err)
				}
				passes(t, cfg)
			})
		}
	}
}

// passes has the log give up everything that it holds so far: damage in files that are gone is told no more.
func passes(t *testing.T, cfg Config) {
	t.Helper()
	for range 2 {
		r := start(t, cfg)
		r.begin()
		for p := range int32(2) {
			q := r.queue(1, p)
			if err := q.SetLogStart(context.Background(), q.HighWatermark()); err != nil {
				t.Fatal(err)
			}
		}
		await(t, "files reclaimed", func() bool { r.sealer.wake.poke(); return len(r.files.all()) < 3 && len(r.Stats().Unavailable) == 0 })
		r.stop()
	}
}

// blockWith returns a byte of the file that lies in the payload of batch i of partition 0.
func blockWith(t *testing.T, fs vfs.FS, want *expected, i int) int64 {
	t.Helper()
	b := fileBytes(t, fs, "data/log/"+logFileName(0))
	at := bytes.Index(b, want.batches[0][i])
	if at < 0 {
		t.Fatalf("batch %d is not in the file", i)
	}
	return int64(at + 500)
}

// TestDamageListIsDerived: without a sound list the log opens all the same, and believes nothing that is in it.
func TestDamageListIsDerived(t *testing.T) {
	for name, text := range map[string]string{
		"garbage": "\x00{", "other log": `{"log":"x","ranges":[{"file":"00000000000000000000.log","from":1,"to":2}]}`,
		"gone file": `{"log":"%s","ranges":[{"file":"00000000000009999999.log","from":9999999,"to":10000000}]}`,
	} {
		t.Run(name, func(t *testing.T) {
			cfg, want := testConfig(vfs.NewMem(), "data"), newExpected()
			r := start(t, cfg)
			r.begin()
			want.append(t, r, 0, testBatch(2, 1, 100))
			text = strings.ReplaceAll(text, "%s", r.Recovered().ID.String())
			r.stop()
			f, err := cfg.FS.Open("data/meta/"+damageName, vfs.OpenOptions{Create: true})
			if err == nil {
				_, err = f.WriteAt([]byte(text), 0)
			}
			if err = errors.Join(err, f.Close()); err != nil {
				t.Fatal(err)
			}
			r = start(t, cfg)
			defer r.stop()
			r.begin()
			want.check(t, r)
			if known := r.Stats().Unavailable; len(known) > 0 {
				t.Errorf("knows of %+v", known)
			}
		})
	}
}

// TestDamageBeforeTheLastBlock damages everything in the newest file but its last block, which only the checkpoint proves: that
// batch stays, and the file with it.
func TestDamageBeforeTheLastBlock(t *testing.T) {
	cfg, want := testConfig(vfs.NewMem(), "data"), newExpected()
	for round := range 2 {
		r := start(t, cfg)
		r.begin()
		for i := range 3 {
			want.append(t, r, 0, testBatch(2, byte(3*round+i), 3000))
		}
		r.stop()
	}
	names := diskFiles(t, cfg.FS)
	var file string
	for _, n := range names {
		b := fileBytes(t, cfg.FS, n)
		if at := bytes.Index(b, want.batches[0][5]); at >= 0 {
			file = n
			for off := fileHeaderSize; off < at-blockHeaderSize-frameHeaderSize; off += vfs.SectorSize {
				flip(t, cfg.FS, n, int64(8*(off+20)))
			}
		}
	}
	for range 2 {
		r := start(t, cfg)
		r.begin()
		if refused := readEach(t, r, 0, want); !slices.Equal(refused, []int{3, 4}) {
			t.Errorf("of %s batches %v are refused, want 3 and 4", file, refused)
		}
		r.awaitSealed()
		r.stop()
	}
}
