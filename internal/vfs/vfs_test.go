package vfs_test

import (
	"bytes"
	"errors"
	"io"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/skeinmq/skein/internal/vfs"
	"github.com/skeinmq/skein/internal/vfs/vfstest"
)

type crashable struct{ *vfs.Mem }

func (c crashable) PowerCut(seed uint64) vfs.FS { return crashable{c.Crash(seed)} }

func newCrashable() vfstest.Crasher { return crashable{vfs.NewMem()} }

func TestOSConforms(t *testing.T) { vfstest.Run(t, vfs.OS(), t.TempDir()) }

func TestOSOnTmpfsConforms(t *testing.T) {
	dir, err := os.MkdirTemp("/dev/shm", "skein-vfs-*")
	if err != nil {
		t.Skip("no /dev/shm here")
	}
	defer os.RemoveAll(dir)
	vfstest.Run(t, vfs.OS(), dir)
	d, err := vfs.OS().Direct(dir)
	if err != nil || d.Available {
		t.Errorf("direct I/O on tmpfs = %+v, %v; want none", d, err)
	}
}

func TestMemConforms(t *testing.T) { vfstest.Run(t, vfs.NewMem(), "/") }

func TestMemWithoutDirectConforms(t *testing.T) {
	m := vfs.NewMem()
	m.SetDirect(vfs.DirectIO{MemoryAlign: 4096, OffsetAlign: 4096})
	vfstest.Run(t, m, "/data/x")
}

func TestFaultyConforms(t *testing.T) { vfstest.Run(t, vfs.NewFaulty(vfs.NewMem()), "/") }

func TestMemPowerCuts(t *testing.T) { vfstest.RunCrash(t, newCrashable) }

// The planted bugs: each must be caught by at least one check.

type plantedFS struct {
	crashable
	open    func(vfs.File) vfs.File
	syncDir func(dir string) error
	rename  func(from, to string) error
}

func (p plantedFS) Open(name string, opt vfs.OpenOptions) (vfs.File, error) {
	f, err := p.crashable.Open(name, opt)
	if err == nil && p.open != nil {
		f = p.open(f)
	}
	return f, err
}

func (p plantedFS) SyncDir(dir string) error {
	if p.syncDir != nil {
		return p.syncDir(dir)
	}
	return p.crashable.SyncDir(dir)
}

func (p plantedFS) Rename(from, to string) error {
	if p.rename != nil {
		return p.rename(from, to)
	}
	return p.crashable.Rename(from, to)
}

type lazySync struct{ vfs.File }

func (lazySync) Datasync() error { return nil }
func (lazySync) Sync() error     { return nil }

type shortRead struct{ vfs.File }

func (s shortRead) ReadAt(p []byte, off int64) (int, error) {
	n, err := s.File.ReadAt(p, off)
	if err == io.EOF {
		err = nil
	}
	return n, err
}

func TestChecksCatchPlantedBugs(t *testing.T) {
	bugs := map[string]func() plantedFS{
		"sync does nothing": func() plantedFS {
			return plantedFS{crashable: crashable{vfs.NewMem()}, open: func(f vfs.File) vfs.File { return lazySync{f} }}
		},
		"directory sync does nothing": func() plantedFS {
			return plantedFS{crashable: crashable{vfs.NewMem()}, syncDir: func(string) error { return nil }}
		},
		"end of file is no error": func() plantedFS {
			return plantedFS{crashable: crashable{vfs.NewMem()}, open: func(f vfs.File) vfs.File { return shortRead{f} }}
		},
		"rename removes first": func() plantedFS {
			m := vfs.NewMem()
			return plantedFS{crashable: crashable{m}, rename: func(from, to string) error {
				_ = m.Remove(to)
				return m.Rename(from, to+".x")
			}}
		},
	}
	for name, open := range bugs {
		caught := 0
		for _, c := range vfstest.Checks() {
			fsys := open()
			if err := fsys.MkdirAll("/c"); err != nil {
				t.Fatal(err)
			}
			if c.Run(fsys, "/c") != nil {
				caught++
			}
		}
		for _, c := range vfstest.CrashChecks() {
			for seed := range uint64(64) {
				if c.Run(open(), seed) != nil {
					caught++
					break
				}
			}
		}
		if caught == 0 {
			t.Errorf("no check catches: %s", name)
		}
	}
}

// TestCrashShowsEveryOutcome keeps the simulation honest in the other
// direction: what may be lost is lost for some seed, and kept for another.
func TestCrashShowsEveryOutcome(t *testing.T) {
	m := vfs.NewMem()
	f := mustOpen(t, m, "/a", vfs.OpenOptions{Create: true})
	if err := errors.Join(f.Truncate(4096), f.Sync(), m.SyncDir("/")); err != nil {
		t.Fatal(err)
	}
	mustWrite(t, f, bytes.Repeat([]byte{1}, 4096), 0)
	mustWrite(t, f, bytes.Repeat([]byte{2}, 4096), 0)
	mustWrite(t, mustOpen(t, m, "/b", vfs.OpenOptions{Create: true}), []byte("b"), 0)
	seen := map[byte]bool{}
	mixed, withB, withoutB, emptyB := false, false, false, false
	for seed := range uint64(200) {
		c := m.Crash(seed)
		buf := make([]byte, 4096)
		if _, err := mustOpen(t, c, "/a", vfs.OpenOptions{}).ReadAt(buf, 0); err != nil {
			t.Fatal(err)
		}
		for i := 0; i < len(buf); i += 512 {
			seen[buf[i]] = true
			mixed = mixed || buf[i] != buf[0]
		}
		st, err := c.Stat("/b")
		withB, withoutB = withB || err == nil, withoutB || err != nil
		emptyB = emptyB || (err == nil && st.Size == 0)
	}
	if !seen[0] || !seen[1] || !seen[2] || !mixed || !withB || !withoutB || !emptyB {
		t.Errorf("outcomes missing: contents %v, mixed %v, name kept %v, lost %v, kept empty %v",
			seen, mixed, withB, withoutB, emptyB)
	}
}

func TestCrashProcessKeepsEverythingUnsynced(t *testing.T) {
	m := vfs.NewMem()
	lock, err := m.Lock("/pid")
	if err != nil {
		t.Fatal(err)
	}
	defer lock.Close()
	f := mustOpen(t, m, "/a", vfs.OpenOptions{Create: true})
	mustWrite(t, f, []byte("abc"), 0)
	next := m.CrashProcess()
	m.Halt()
	if _, err := f.WriteAt([]byte("x"), 0); !errors.Is(err, vfs.ErrHalted) {
		t.Errorf("write to a halted disk: %v", err)
	}
	if _, err := next.Lock("/pid"); err != nil {
		t.Errorf("lock after the process ended: %v", err)
	}
	buf := make([]byte, 3)
	if _, err := mustOpen(t, next, "/a", vfs.OpenOptions{}).ReadAt(buf, 0); err != nil || string(buf) != "abc" {
		t.Errorf("read %q, %v", buf, err)
	}
	lost := false
	for seed := range uint64(20) {
		if _, err := next.Crash(seed).Stat("/a"); err != nil {
			lost = true
		}
	}
	if !lost {
		t.Error("a power cut after the process crash never loses the unsynced file")
	}
}

func TestMemCapacity(t *testing.T) {
	m := vfs.NewMem()
	m.SetCapacity(8192)
	f := mustOpen(t, m, "/a", vfs.OpenOptions{Create: true})
	mustWrite(t, f, make([]byte, 8192), 0)
	mustWrite(t, f, make([]byte, 8192), 0) // overwriting takes no space
	if _, err := f.WriteAt([]byte{1}, 8192); !errors.Is(err, syscall.ENOSPC) {
		t.Errorf("write past capacity: %v, want ENOSPC", err)
	}
	if err := f.Allocate(0, 10_000); !errors.Is(err, syscall.ENOSPC) {
		t.Errorf("allocate past capacity: %v, want ENOSPC", err)
	}
	if err := m.Remove("/a"); err != nil {
		t.Fatal(err)
	}
	if s, err := m.Space("/"); err != nil || s.Available != 8192 {
		t.Errorf("space after remove = %+v, %v", s, err)
	}
}

func TestAlignedBuffer(t *testing.T) {
	b, err := vfs.AllocAligned(5000)
	if err != nil || len(b) != 5000 || !vfs.IsAligned(b, vfs.PageSize) {
		t.Fatalf("alloc = %d bytes, %v", len(b), err)
	}
	vfs.Populate(b)
	b[4999] = 1
	if err := vfs.FreeAligned(b); err != nil {
		t.Error(err)
	}
	if _, err := vfs.AllocAligned(0); err == nil {
		t.Error("an empty buffer was allocated")
	}
}

func TestOSFlipStoredBit(t *testing.T) {
	name := filepath.Join(t.TempDir(), "a")
	if err := os.WriteFile(name, []byte{0, 0, 0}, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := vfs.FlipStoredBit(vfs.OS(), name, 9); err != nil {
		t.Fatal(err)
	}
	if got, err := os.ReadFile(name); err != nil || !bytes.Equal(got, []byte{0, 2, 0}) {
		t.Errorf("file = %v, %v", got, err)
	}
}

func mustOpen(t *testing.T, fsys vfs.FS, name string, opt vfs.OpenOptions) vfs.File {
	t.Helper()
	f, err := fsys.Open(name, opt)
	if err != nil {
		t.Fatal(err)
	}
	return f
}

func mustWrite(t *testing.T, f vfs.File, p []byte, off int64) {
	t.Helper()
	if _, err := f.WriteAt(p, off); err != nil {
		t.Fatal(err)
	}
}
