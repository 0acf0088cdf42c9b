package commitlog

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"testing"

	"github.com/skeinmq/skein/internal/ident"
	"github.com/skeinmq/skein/internal/vfs"
)

func checkpointPayload(n int, seed byte) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(i*7) + byte(i>>8) + seed
	}
	return b
}

func checkpointDisk(t testing.TB) *vfs.Mem {
	t.Helper()
	mem := vfs.NewMem()
	if err := errors.Join(mem.MkdirAll("/meta"), mem.SyncDir("/")); err != nil {
		t.Fatal(err)
	}
	return mem
}

// putCheckpoint writes in pieces of odd sizes.
func putCheckpoint(c *checkpoints, position ident.Position, payload []byte) error {
	return c.write(position, 3, func(w io.Writer) error {
		for n := 1; len(payload) > 0; n = n*3 + 1 {
			piece := payload[:min(n, len(payload))]
			if _, err := w.Write(piece); err != nil {
				return err
			}
			payload = payload[len(piece):]
		}
		return nil
	})
}

func TestCheckpointNewestWins(t *testing.T) {
	mem := checkpointDisk(t)
	c := openCheckpoints(mem, "/meta", indexTestLog)
	if _, ok, damage := c.load(); ok || damage != nil {
		t.Fatalf("empty directory: %v, %v", ok, damage)
	}
	for i, size := range []int{0, 1, checkpointChunk - 1, checkpointChunk, checkpointChunk + 1, 3*checkpointChunk + 5, 10} {
		want := checkpointPayload(size, byte(i))
		if err := putCheckpoint(c, ident.Position(i*4096), want); err != nil {
			t.Fatal(err)
		}
		cut := openCheckpoints(mem.Crash(uint64(i)), "/meta", indexTestLog)
		got, ok, damage := cut.load()
		if !ok || damage != nil || got.position != ident.Position(i*4096) || got.epoch != 3 ||
			got.serial != uint64(i+1) || !bytes.Equal(got.payload, want) {
			t.Errorf("checkpoint %d of %d bytes: %+v, %v, %v", i, size, got.checkpointMark, ok, damage)
		}
	}
}

func TestCheckpointFallsBack(t *testing.T) {
	mem := checkpointDisk(t)
	c := openCheckpoints(mem, "/meta", indexTestLog)
	first, second := checkpointPayload(100, 1), checkpointPayload(100, 2)
	if err := errors.Join(putCheckpoint(c, 1, first), putCheckpoint(c, 2, second)); err != nil {
		t.Fatal(err)
	}
	if err := vfs.FlipStoredBit(mem, "/meta/checkpoint-B", 8*100); err != nil {
		t.Fatal(err)
	}
	c = openCheckpoints(mem, "/meta", indexTestLog)
	got, ok, damage := c.load()
	if !ok || !bytes.Equal(got.payload, first) || !errors.Is(damage, ErrCorrupt) {
		t.Fatalf("one bad slot: %+v, %v, %v", got.checkpointMark, ok, damage)
	}
	// The next one goes over the bad slot and keeps the good one.
	if err := putCheckpoint(c, 3, second); err != nil {
		t.Fatal(err)
	}
	if got, ok, damage := c.load(); !ok || damage != nil || got.position != 3 || got.serial != 3 {
		t.Errorf("after the next write: %+v, %v, %v", got.checkpointMark, ok, damage)
	}
	other := openCheckpoints(mem, "/meta", ident.Log{9})
	if _, ok, damage := other.load(); ok || !errors.Is(damage, ErrCorrupt) {
		t.Errorf("checkpoint of another log: %v, %v", ok, damage)
	}
}

func TestCheckpointGoldenBytes(t *testing.T) {
	mem := checkpointDisk(t)
	c := openCheckpoints(mem, "/meta", indexTestLog)
	if err := putCheckpoint(c, 0x0102030405, checkpointPayload(checkpointChunk+40, 0)[checkpointChunk-60:]); err != nil {
		t.Fatal(err)
	}
	checkGolden(t, "checkpoint.hex", fileBytes(t, mem, "/meta/checkpoint-A"))
}

func TestCheckpointDetectsEveryBitFlip(t *testing.T) {
	mem := checkpointDisk(t)
	c := openCheckpoints(mem, "/meta", indexTestLog)
	if err := putCheckpoint(c, 5, checkpointPayload(checkpointChunk+100, 1)); err != nil {
		t.Fatal(err)
	}
	good := fileBytes(t, mem, "/meta/checkpoint-A")
	for bit := int64(0); bit < int64(len(good))*8; bit++ {
		if bit == 8*400 { // bytes of the middle are alike: look at some of them
			bit = int64(len(good)-400) * 8
		}
		if err := vfs.FlipStoredBit(mem, "/meta/checkpoint-A", bit); err != nil {
			t.Fatal(err)
		}
		if _, ok, damage := c.load(); ok || !(errors.Is(damage, ErrCorrupt) || errors.Is(damage, ErrVersion)) {
			t.Fatalf("bit %d of byte %d: %v, %v", bit%8, bit/8, ok, damage)
		}
		if err := vfs.FlipStoredBit(mem, "/meta/checkpoint-A", bit); err != nil {
			t.Fatal(err)
		}
	}
}

func TestCheckpointNewerVersion(t *testing.T) {
	var head [checkpointHeader]byte
	encodeCheckpointHeader(head[:], &checkpointMark{serial: 1})
	binary.LittleEndian.PutUint32(head[checkpointVersionOff:], checkpointVersion+1)
	binary.LittleEndian.PutUint32(head[:], crc32.Checksum(head[checkpointMagicOff:], castagnoli))
	if _, err := decodeCheckpointHeader(head[:], checkpointHeader); !errors.Is(err, ErrVersion) || errors.Is(err, errBad) {
		t.Errorf("newer version: %v", err)
	}
}

// TestCheckpointFaultSweep: the n-th operation fails, then the power is cut: the
// newest checkpoint that was acknowledged is there, or the one under way.
func TestCheckpointFaultSweep(t *testing.T) {
	for _, effect := range []vfs.Effect{vfs.FailBefore, vfs.FailAfter, vfs.Tear} {
		for n := 1; ; n++ {
			mem := checkpointDisk(t)
			faulty := vfs.NewFaulty(mem)
			fault := faulty.Inject(vfs.Rule{Nth: n, Effect: effect, Seed: uint64(n)})
			c := openCheckpoints(faulty, "/meta", indexTestLog)
			acked := ident.Position(0)
			check := func(step int) {
				for seed := range uint64(6) {
					cut := openCheckpoints(mem.Crash(seed), "/meta", indexTestLog)
					got, ok, _ := cut.load()
					what := fmt.Sprintf("%v of %v, step %d, seed %d", effect, fault.Fired(), step, seed)
					if acked > 0 && (!ok || got.position < acked) {
						t.Fatalf("%s: found %d (%v), acknowledged %d", what, got.position, ok, acked)
					}
					if ok && !bytes.Equal(got.payload, checkpointPayload(int(got.position)*30_000, byte(got.position))) {
						t.Fatalf("%s: checkpoint %d has another's payload", what, got.position)
					}
				}
			}
			for step := 1; step <= 5; step++ {
				if err := putCheckpoint(c, ident.Position(step), checkpointPayload(step*30_000, byte(step))); err == nil {
					acked = ident.Position(step)
				}
				check(step)
			}
			if len(fault.Fired()) == 0 {
				break
			}
		}
	}
}

func FuzzCheckpointLoad(f *testing.F) {
	for _, n := range []int{0, 10, checkpointChunk + 10} {
		mem := checkpointDisk(f)
		if err := putCheckpoint(openCheckpoints(mem, "/meta", indexTestLog), 7, checkpointPayload(n, 1)); err != nil {
			f.Fatal(err)
		}
		f.Add(fileBytes(f, mem, "/meta/checkpoint-A"))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		mem := checkpointDisk(t)
		file, err := mem.Open("/meta/checkpoint-B", vfs.OpenOptions{Create: true})
		if err != nil {
			t.Fatal(err)
		}
		if len(b) >= checkpointHeader { // let the mutations past the header's checksum
			binary.LittleEndian.PutUint32(b, crc32.Checksum(b[checkpointMagicOff:checkpointHeader], castagnoli))
		}
		if _, err := file.WriteAt(b, 0); err != nil {
			t.Fatal(err)
		}
		c := openCheckpoints(mem, "/meta", indexTestLog)
		cp, ok, damage := c.load()
		if ok == (damage != nil) && len(b) > 0 {
			t.Fatalf("ok %v and damage %v", ok, damage)
		}
		if int64(cap(cp.payload)) > int64(len(b)) {
			t.Fatalf("%d bytes of memory for a file of %d", cap(cp.payload), len(b))
		}
	})
}

func BenchmarkCheckpoint10MB(b *testing.B) {
	c := openCheckpoints(vfs.OS(), b.TempDir(), indexTestLog)
	payload := checkpointPayload(10<<20, 1)
	b.Run("write", func(b *testing.B) {
		for b.Loop() {
			if err := c.write(1, 1, func(w io.Writer) error { _, err := w.Write(payload); return err }); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("load", func(b *testing.B) {
		for b.Loop() {
			if _, ok, err := c.load(); !ok || err != nil {
				b.Fatal(ok, err)
			}
		}
	})
}
