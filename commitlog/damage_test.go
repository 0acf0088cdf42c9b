package commitlog

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"path/filepath"
	"strings"
	"testing"

	"github.com/skeinmq/skein/internal/ident"
	"github.com/skeinmq/skein/internal/vfs"
)

// diskFiles lists the files of a log's directories.
func diskFiles(t *testing.T, fs vfs.FS) []string {
	t.Helper()
	var out []string
	for _, dir := range []string{"data/log", "data/meta"} {
		names, err := fs.List(dir)
		if err != nil {
			t.Fatal(err)
		}
		for _, n := range names {
			out = append(out, filepath.Join(dir, n))
		}
	}
	return out
}

// flip changes one bit of a file.
func flip(t *testing.T, fs vfs.FS, name string, bit int64) {
	t.Helper()
	f, err := fs.Open(name, vfs.OpenOptions{Write: true})
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var b [1]byte
	if _, err := f.ReadAt(b[:], bit/8); err != nil && err != io.EOF {
		t.Fatal(err)
	}
	b[0] ^= 1 << (bit % 8)
	if _, err := f.WriteAt(b[:], bit/8); err != nil {
		t.Fatal(err)
	}
	if err := f.Sync(); err != nil {
		t.Fatal(err)
	}
}

// checkDamaged reads every acked batch: each is right or named as corrupt, never wrong
// and never silently absent. It returns how many were corrupt.
func (m *model) checkDamaged(l *Log) (int, error) {
	bad := 0
	for p, part := range m.parts {
		if part.dropped {
			continue
		}
		for _, g := range m.gens {
			if g.Generation.Group != part.group {
				continue
			}
			q, ok := l.Sealed(g.Generation, modelPartition(p))
			if !ok {
				continue
			}
			if last := m.gens[len(m.gens)-1]; g.Open && last.Open && int(q.HighWatermark()) < part.acked*part.perBatch {
				return bad, fmt.Errorf("%w: partition %d ends at %d, acked %d", errBroken, p, q.HighWatermark(), part.acked*part.perBatch)
			}
			n, err := readDamaged(q, part)
			bad += n
			if err != nil {
				return bad, err
			}
		}
	}
	return bad, nil
}

func readDamaged(q *Queue, part *modelPart) (bad int, err error) {
	var rec Records
	defer rec.Release()
	for at := max(q.Start(), q.LogStart(), part.logStart); at < q.HighWatermark(); {
		rec.Release()
		err := q.Read(context.Background(), ReadOptions{From: at, MaxBytes: 1 << 20, AtLeastOne: true}, &rec)
		if errors.Is(err, ErrCorrupt) {
			bad++
			at += ident.Offset(part.perBatch)
			continue
		}
		if err != nil || len(rec.Slices) == 0 {
			return bad, fmt.Errorf("%w: read at %d: %d slices, %w", errBroken, at, len(rec.Slices), err)
		}
		for _, s := range rec.Slices {
			i := int(at) / part.perBatch
			want := bytes.Clone(part.sent[i])
			stampBatch(want, at, q.Generation().Epoch)
			if !bytes.Equal(s, want) {
				return bad, fmt.Errorf("%w: offset %d of %s: wrong bytes", errBroken, at, q.Partition())
			}
			at += ident.Offset(part.perBatch)
		}
	}
	return bad, nil
}

// TestBitFlips flips bits all over a log's files. What is served is right or refused, the
// log opens, and derived files cost nothing but time.
func TestBitFlips(t *testing.T) {
	mem := vfs.NewMem()
	m := newModel()
	if err := story(mem, m); err != nil {
		t.Fatal(err)
	}
	rnd := rand.New(rand.NewPCG(3, 4))
	counts := map[string]int{}
	for i := range 400 {
		disk := mem.Crash(1)
		names := diskFiles(t, disk)
		name := names[rnd.IntN(len(names))]
		if strings.Contains(name, "pool-") || strings.HasSuffix(name, identityName) { // TestIdentityDamage
			continue
		}
		st, err := disk.Stat(name)
		if err != nil {
			t.Fatal(err)
		}
		bit := rnd.Int64N(st.Size * 8)
		flip(t, disk, name, bit)
		kind := filepath.Ext(name)
		counts[kind]++
		err = session(disk, m, func(s *scenario) error {
			bad, err := m.checkDamaged(s.l)
			if err == nil && bad > 0 && kind != logSuffix && kind != sortedSuffix {
				err = fmt.Errorf("%w: %d batches lost with a derived file", errBroken, bad)
			}
			if bad > 0 {
				counts["refused"]++
			}
			if len(s.l.Recovered().Damage) > 0 {
				counts["reported"]++
			}
			return err
		})
		if err != nil && (bit/8 >= fileHeaderSize || kind != logSuffix || errors.Is(err, errBroken)) {
			t.Fatalf("flip %d: bit %d of byte %d of %s: %v", i, bit%8, bit/8, name, err)
		}
	}
	t.Logf("%v", counts)
}
