package vfs_test

import (
	"bytes"
	"errors"
	"syscall"
	"testing"
	"testing/synctest"

	"github.com/skeinmq/skein/internal/vfs"
)

// publish is the sequence that the log uses for every file it writes once.
func publish(fsys vfs.FS) error {
	f, err := fsys.Open("/tmp", vfs.OpenOptions{Create: true, Truncate: true})
	if err != nil {
		return err
	}
	if _, err := f.WriteAt(bytes.Repeat([]byte{7}, 3000), 0); err != nil {
		return errors.Join(err, f.Close())
	}
	if err := errors.Join(f.Sync(), f.Close()); err != nil {
		return err
	}
	if err := fsys.Rename("/tmp", "/final"); err != nil {
		return err
	}
	return fsys.SyncDir("/")
}

func TestSweepReachesEveryOperation(t *testing.T) {
	for _, effect := range []vfs.Effect{vfs.FailBefore, vfs.FailAfter, vfs.Tear} {
		var hit []vfs.Kind
		for n := 1; ; n++ {
			mem := vfs.NewMem()
			faulty := vfs.NewFaulty(mem)
			fault := faulty.Inject(vfs.Rule{Nth: n, Effect: effect, Seed: uint64(n)})
			err := publish(faulty)
			fired := fault.Fired()
			if len(fired) == 0 {
				if err != nil {
					t.Errorf("%v %d: error without a fault: %v", effect, n, err)
				}
				break
			}
			hit = append(hit, fired[0].Kind)
			if !errors.Is(err, syscall.EIO) {
				t.Errorf("%v of %v: error %v, want EIO", effect, fired[0], err)
			}
			for seed := range uint64(10) { // a published file is whole
				f, err := mem.Crash(seed).Open("/final", vfs.OpenOptions{})
				if err != nil {
					continue
				}
				buf := make([]byte, 3000)
				if n, err := f.ReadAt(buf, 0); n != 3000 || !bytes.Equal(buf, bytes.Repeat([]byte{7}, 3000)) {
					t.Errorf("%v of %v, seed %d: published file has %d bytes, %v", effect, fired[0], seed, n, err)
				}
			}
		}
		want := []vfs.Kind{vfs.KindCreate, vfs.KindWrite, vfs.KindSync, vfs.KindRename, vfs.KindSyncDir}
		if len(hit) != len(want) {
			t.Fatalf("%v: sweep hit %v, want %v", effect, hit, want)
		}
		for i := range want {
			if hit[i] != want[i] {
				t.Errorf("%v: operation %d is %v, want %v", effect, i, hit[i], want[i])
			}
		}
	}
}

func TestTearWritesSomeSectors(t *testing.T) {
	partial := false
	for seed := range uint64(50) {
		faulty := vfs.NewFaulty(vfs.NewMem())
		faulty.Inject(vfs.Rule{Kinds: vfs.KindWrite, Effect: vfs.Tear, Seed: seed})
		f := mustOpen(t, faulty, "/a", vfs.OpenOptions{Create: true, Dsync: true})
		if n, err := f.WriteAt(bytes.Repeat([]byte{1}, 4096), 0); n != 0 || err == nil {
			t.Fatalf("torn write = %d, %v", n, err)
		}
		mustWrite(t, f, nil, 0)
		buf := make([]byte, 4096)
		_, _ = f.ReadAt(buf, 0) // short when nothing was written
		ones := bytes.Count(buf, []byte{1})
		if ones == 4096 {
			t.Errorf("seed %d: the whole write is there", seed)
		}
		partial = partial || ones > 0
	}
	if !partial {
		t.Error("no seed wrote anything")
	}
}

func TestHangUntilReleased(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for _, effect := range []vfs.Effect{vfs.HangBefore, vfs.HangTorn, vfs.HangAfter} {
			faulty := vfs.NewFaulty(vfs.NewMem())
			f := mustOpen(t, faulty, "/0.log", vfs.OpenOptions{Create: true})
			fault := faulty.Inject(vfs.Rule{Pattern: "*.log", Kinds: vfs.KindWrite, Effect: effect})
			done := make(chan error, 1)
			go func() {
				_, err := f.WriteAt(make([]byte, 2048), 0)
				done <- err
			}()
			<-fault.Hit()
			synctest.Wait()
			select {
			case err := <-done:
				t.Errorf("%v: write returned before its release: %v", effect, err)
			default:
			}
			fault.Release()
			fault.Release() // again is harmless
			if err := <-done; err != nil {
				t.Errorf("%v: %v", effect, err)
			}
			if n, err := f.Size(); n != 2048 || err != nil {
				t.Errorf("%v: size %d, %v", effect, n, err)
			}
		}
	})
}

func TestRuleSelection(t *testing.T) {
	faulty := vfs.NewFaulty(vfs.NewMem())
	faulty.Inject(vfs.Rule{Kinds: vfs.KindWrite, Pattern: "b*", Nth: 2, Times: 2, Err: syscall.ENOSPC})
	a := mustOpen(t, faulty, "/a", vfs.OpenOptions{Create: true})
	b := mustOpen(t, faulty, "/b1", vfs.OpenOptions{Create: true})
	for i, want := range []error{nil, syscall.ENOSPC, syscall.ENOSPC, nil} {
		mustWrite(t, a, []byte("x"), 0)
		if _, err := b.WriteAt([]byte("x"), 0); !errors.Is(err, want) {
			t.Errorf("write %d: %v, want %v", i, err, want)
		}
	}
	if n := faulty.Count(vfs.KindWrite); n != 8 {
		t.Errorf("counted %d writes, want 8", n)
	}
	faulty.Inject(vfs.Rule{Kinds: vfs.KindSync, Times: -1})
	for range 3 {
		if err := a.Sync(); !errors.Is(err, syscall.EIO) {
			t.Errorf("sync: %v, want EIO every time", err)
		}
	}
	faulty.Clear()
	if err := a.Sync(); err != nil {
		t.Errorf("sync after clear: %v", err)
	}
}

func TestFlipBitChangesOneBit(t *testing.T) {
	for _, kind := range []vfs.Kind{vfs.KindRead, vfs.KindWrite} {
		faulty := vfs.NewFaulty(vfs.NewMem())
		f := mustOpen(t, faulty, "/a", vfs.OpenOptions{Create: true})
		faulty.Inject(vfs.Rule{Kinds: kind, Effect: vfs.FlipBit, Seed: 3})
		data := make([]byte, 1000)
		mustWrite(t, f, data, 0)
		if !bytes.Equal(data, make([]byte, 1000)) {
			t.Error("the caller's buffer changed")
		}
		got := make([]byte, 1000)
		if _, err := f.ReadAt(got, 0); err != nil {
			t.Fatal(err)
		}
		if n := 1000 - bytes.Count(got, []byte{0}); n != 1 {
			t.Errorf("%v: %d bytes differ, want 1", kind, n)
		}
	}
}
