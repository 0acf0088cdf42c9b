// Package vfstest is the conformance suite of vfs.FS: what every
// implementation must do, as checks that return an error, so that a test can
// also prove that a broken implementation is caught. It knows nothing of any
// implementation; power cuts are checked where the file system can simulate them.
package vfstest

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path"
	"slices"
	"testing"

	"github.com/skeinmq/skein/internal/vfs"
)

// Check is one rule of the contract. It gets an empty directory of its own.
type Check struct {
	Name string
	Run  func(fsys vfs.FS, dir string) error
}

// Crasher is a file system that can show what a power cut leaves.
type Crasher interface {
	vfs.FS
	// PowerCut returns one possible outcome, picked by the seed.
	PowerCut(seed uint64) vfs.FS
}

// Run runs every check that the file system allows, each in a directory below dir.
func Run(t *testing.T, fsys vfs.FS, dir string) {
	for i, c := range Checks() {
		t.Run(c.Name, func(t *testing.T) {
			sub := path.Join(dir, fmt.Sprintf("check%02d", i))
			if err := fsys.MkdirAll(sub); err != nil {
				t.Fatal(err)
			}
			if err := c.Run(fsys, sub); err != nil {
				t.Error(err)
			}
		})
	}
}

// RunCrash runs the checks of power cuts; open returns a fresh file system.
func RunCrash(t *testing.T, open func() Crasher) {
	for _, c := range CrashChecks() {
		t.Run(c.Name, func(t *testing.T) {
			for seed := range uint64(64) {
				if err := c.Run(open(), seed); err != nil {
					t.Fatalf("seed %d: %v", seed, err)
				}
			}
		})
	}
}

// Checks returns the checks that need no power cut.
func Checks() []Check {
	return []Check{
		{"create and read back", checkCreate},
		{"open options", checkOpenOptions},
		{"end of file", checkEOF},
		{"truncate and allocate", checkSizes},
		{"zero fill", checkZeroFill},
		{"rename replaces", checkRename},
		{"remove keeps open files", checkRemove},
		{"list is sorted", checkList},
		{"errors are typed", checkErrors},
		{"lock excludes", checkLock},
		{"space", checkSpace},
		{"direct", checkDirect},
		{"concurrent writes", checkConcurrent},
	}
}

func pattern(n int, seed byte) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(i)*31 + byte(i>>8) + seed
	}
	return b
}

func put(fsys vfs.FS, name string, data []byte, opt vfs.OpenOptions) error {
	f, err := fsys.Open(name, opt)
	if err != nil {
		return err
	}
	if _, err := f.WriteAt(data, 0); err != nil {
		return errors.Join(err, f.Close())
	}
	return f.Close()
}

func get(fsys vfs.FS, name string) ([]byte, error) {
	f, err := fsys.Open(name, vfs.OpenOptions{})
	if err != nil {
		return nil, err
	}
	size, err := f.Size()
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	b := make([]byte, size)
	_, err = io.ReadFull(io.NewSectionReader(f, 0, size), b)
	return b, errors.Join(err, f.Close())
}

func expect(fsys vfs.FS, name string, want []byte) error {
	got, err := get(fsys, name)
	if err != nil {
		return err
	}
	if !bytes.Equal(got, want) {
		return fmt.Errorf("%s holds %d bytes that are not the %d written", name, len(got), len(want))
	}
	return nil
}

func checkCreate(fsys vfs.FS, dir string) error {
	name, data := path.Join(dir, "a"), pattern(10_000, 1)
	if err := put(fsys, name, data, vfs.OpenOptions{Create: true}); err != nil {
		return err
	}
	if err := expect(fsys, name, data); err != nil {
		return err
	}
	f, err := fsys.Open(name, vfs.OpenOptions{Write: true})
	if err != nil {
		return err
	}
	defer f.Close()
	copy(data[5000:], "new")
	if _, err := f.WriteAt([]byte("new"), 5000); err != nil {
		return err
	}
	if err := errors.Join(f.Datasync(), f.Sync(), fsys.SyncDir(dir)); err != nil {
		return err
	}
	st, err := fsys.Stat(name)
	if err != nil || st.Size != 10_000 || st.IsDir {
		return fmt.Errorf("stat = %+v, %v", st, err)
	}
	return expect(fsys, name, data)
}

func checkOpenOptions(fsys vfs.FS, dir string) error {
	name := path.Join(dir, "a")
	if err := put(fsys, name, []byte("hello"), vfs.OpenOptions{Create: true, Exclusive: true, Dsync: true}); err != nil {
		return err
	}
	if _, err := fsys.Open(name, vfs.OpenOptions{Create: true, Exclusive: true}); !errors.Is(err, fs.ErrExist) {
		return fmt.Errorf("exclusive create of an existing file: %v, want ErrExist", err)
	}
	f, err := fsys.Open(name, vfs.OpenOptions{Random: true})
	if err != nil {
		return err
	}
	if _, err := f.WriteAt([]byte("x"), 0); err == nil {
		return errors.New("a file opened for reading took a write")
	}
	if err := f.Close(); err != nil {
		return err
	}
	if _, err := f.ReadAt(make([]byte, 1), 0); !errors.Is(err, fs.ErrClosed) {
		return fmt.Errorf("read of a closed file: %v, want ErrClosed", err)
	}
	if err := put(fsys, name, []byte("yo"), vfs.OpenOptions{Truncate: true}); err != nil {
		return err
	}
	return expect(fsys, name, []byte("yo"))
}

func checkEOF(fsys vfs.FS, dir string) error {
	name := path.Join(dir, "a")
	if err := put(fsys, name, pattern(1000, 2), vfs.OpenOptions{Create: true}); err != nil {
		return err
	}
	f, err := fsys.Open(name, vfs.OpenOptions{})
	if err != nil {
		return err
	}
	defer f.Close()
	for _, c := range []struct {
		off  int64
		n    int
		want int
		err  error
	}{{0, 1000, 1000, nil}, {990, 20, 10, io.EOF}, {1000, 1, 0, io.EOF}, {5000, 1, 0, io.EOF}, {500, 500, 500, nil}} {
		n, err := f.ReadAt(make([]byte, c.n), c.off)
		if n != c.want || err != c.err {
			return fmt.Errorf("read %d at %d = %d, %v; want %d, %v", c.n, c.off, n, err, c.want, c.err)
		}
	}
	return nil
}

func checkSizes(fsys vfs.FS, dir string) error {
	name, data := path.Join(dir, "a"), pattern(9000, 3)
	f, err := fsys.Open(name, vfs.OpenOptions{Create: true})
	if err != nil {
		return err
	}
	defer f.Close()
	if _, err := f.WriteAt(data, 0); err != nil {
		return err
	}
	// What is cut away must not come back when the file grows again.
	if err := errors.Join(f.Truncate(4500), f.Truncate(9000)); err != nil {
		return err
	}
	clear(data[4500:])
	if err := expect(fsys, name, data); err != nil {
		return err
	}
	if err := f.Allocate(0, 12_000); err != nil {
		return err
	}
	if n, err := f.Size(); n != 12_000 || err != nil {
		return fmt.Errorf("size after allocate = %d, %v", n, err)
	}
	if err := f.Allocate(0, 100); err != nil {
		return err
	}
	if err := expect(fsys, name, append(data, make([]byte, 3000)...)); err != nil {
		return fmt.Errorf("allocate changed the content: %w", err)
	}
	if _, err := f.WriteAt([]byte("end"), 20_000); err != nil { // leaves a hole
		return err
	}
	want := append(append(data, make([]byte, 11_000)...), "end"...)
	return expect(fsys, name, want)
}

func checkZeroFill(fsys vfs.FS, dir string) error {
	name, data := path.Join(dir, "a"), pattern(3<<20, 4)
	f, err := fsys.Open(name, vfs.OpenOptions{Create: true})
	if err != nil {
		return err
	}
	defer f.Close()
	if _, err := f.WriteAt(data, 0); err != nil {
		return err
	}
	if err := vfs.ZeroFill(f, 4096, 2<<20); err != nil {
		return err
	}
	clear(data[4096 : 4096+2<<20])
	return expect(fsys, name, data)
}

func checkRename(fsys vfs.FS, dir string) error {
	a, b := path.Join(dir, "a"), path.Join(dir, "b")
	if err := errors.Join(
		put(fsys, a, []byte("one"), vfs.OpenOptions{Create: true}),
		put(fsys, b, []byte("two"), vfs.OpenOptions{Create: true}),
	); err != nil {
		return err
	}
	f, err := fsys.Open(a, vfs.OpenOptions{Write: true}) // handles follow the file
	if err != nil {
		return err
	}
	defer f.Close()
	if err := fsys.Rename(a, b); err != nil {
		return err
	}
	if _, err := f.WriteAt([]byte("ONE"), 0); err != nil {
		return err
	}
	if _, err := fsys.Stat(a); !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("stat of the old name: %v", err)
	}
	return expect(fsys, b, []byte("ONE"))
}

func checkRemove(fsys vfs.FS, dir string) error {
	a := path.Join(dir, "a")
	if err := put(fsys, a, []byte("one"), vfs.OpenOptions{Create: true}); err != nil {
		return err
	}
	f, err := fsys.Open(a, vfs.OpenOptions{})
	if err != nil {
		return err
	}
	defer f.Close()
	if err := fsys.Remove(a); err != nil {
		return err
	}
	var b [3]byte
	if _, err := f.ReadAt(b[:], 0); err != nil || string(b[:]) != "one" {
		return fmt.Errorf("read of a removed open file = %q, %v", b, err)
	}
	if err := fsys.Remove(a); !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("second remove: %v, want ErrNotExist", err)
	}
	sub := path.Join(dir, "d/e")
	if err := fsys.MkdirAll(sub); err != nil {
		return err
	}
	if err := fsys.Remove(path.Join(dir, "d")); err == nil {
		return errors.New("a directory with entries was removed")
	}
	return fsys.Remove(sub)
}

func checkList(fsys vfs.FS, dir string) error {
	for _, n := range []string{"c", "a", "b"} {
		if err := put(fsys, path.Join(dir, n), nil, vfs.OpenOptions{Create: true}); err != nil {
			return err
		}
	}
	if err := fsys.MkdirAll(path.Join(dir, "aa/x")); err != nil {
		return err
	}
	names, err := fsys.List(dir)
	if want := []string{"a", "aa", "b", "c"}; err != nil || !slices.Equal(names, want) {
		return fmt.Errorf("list = %v, %v; want %v", names, err, want)
	}
	return nil
}

func checkErrors(fsys vfs.FS, dir string) error {
	gone := path.Join(dir, "gone")
	_, openErr := fsys.Open(gone, vfs.OpenOptions{})
	_, parentErr := fsys.Open(path.Join(gone, "x"), vfs.OpenOptions{Create: true})
	_, statErr := fsys.Stat(gone)
	_, listErr := fsys.List(gone)
	for what, err := range map[string]error{
		"open": openErr, "create in missing directory": parentErr, "stat": statErr, "list": listErr,
		"rename": fsys.Rename(gone, gone+"2"), "sync directory": fsys.SyncDir(gone),
	} {
		if !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("%s of what is not there: %v, want ErrNotExist", what, err)
		}
	}
	return nil
}

func checkLock(fsys vfs.FS, dir string) error {
	name := path.Join(dir, "pid")
	lock, err := fsys.Lock(name)
	if err != nil {
		return err
	}
	_, err = fsys.Lock(name)
	var locked *vfs.LockedError
	if !errors.Is(err, vfs.ErrLocked) || !errors.As(err, &locked) || locked.PID == 0 {
		return fmt.Errorf("second lock: %v, want a LockedError with a process id", err)
	}
	if err := lock.Close(); err != nil {
		return err
	}
	again, err := fsys.Lock(name)
	if err != nil {
		return fmt.Errorf("lock after release: %w", err)
	}
	return again.Close()
}

func checkSpace(fsys vfs.FS, dir string) error {
	s, err := fsys.Space(dir)
	if err != nil || s.Available <= 0 || s.Total < s.Available {
		return fmt.Errorf("space = %+v, %v", s, err)
	}
	return nil
}

func checkDirect(fsys vfs.FS, dir string) error {
	d, err := fsys.Direct(dir)
	if err != nil {
		return err
	}
	if names, err := fsys.List(dir); err != nil || len(names) != 0 {
		return fmt.Errorf("the question left %v behind, %v", names, err)
	}
	for _, a := range []int{d.MemoryAlign, d.OffsetAlign} {
		if a <= 0 || a&(a-1) != 0 || a > vfs.PageSize {
			return fmt.Errorf("alignment %d", a)
		}
	}
	name, opt := path.Join(dir, "a"), vfs.OpenOptions{Create: true, Direct: true, Dsync: true}
	if !d.Available { // Open may refuse the flag or, as on tmpfs, take it
		return nil
	}
	buf, err := vfs.AllocAligned(4 * vfs.PageSize)
	if err != nil {
		return err
	}
	defer vfs.FreeAligned(buf)
	copy(buf, pattern(len(buf), 5))
	f, err := fsys.Open(name, opt)
	if err != nil {
		return err
	}
	defer f.Close()
	if _, err := f.WriteAt(buf, 0); err != nil {
		return err
	}
	for _, c := range []struct {
		p   []byte
		off int64
	}{{buf[:100], 0}, {buf, 100}, {buf[1 : 1+vfs.PageSize], 0}} {
		if _, err := f.WriteAt(c.p, c.off); !errors.Is(err, vfs.ErrUnaligned) {
			return fmt.Errorf("unaligned write of %d at %d: %v", len(c.p), c.off, err)
		}
		if _, err := f.ReadAt(c.p, c.off); !errors.Is(err, vfs.ErrUnaligned) {
			return fmt.Errorf("unaligned read of %d at %d: %v", len(c.p), c.off, err)
		}
	}
	if err := vfs.ZeroFill(f, vfs.PageSize, vfs.PageSize); err != nil {
		return err
	}
	want := pattern(len(buf), 5)
	clear(want[vfs.PageSize : 2*vfs.PageSize])
	clear(buf)
	if n, err := f.ReadAt(buf, 0); n != len(buf) || (err != nil && err != io.EOF) {
		return fmt.Errorf("direct read = %d, %w", n, err)
	}
	if !bytes.Equal(buf, want) {
		return errors.New("direct read returned other bytes")
	}
	return expect(fsys, name, want)
}

func checkConcurrent(fsys vfs.FS, dir string) error {
	name := path.Join(dir, "a")
	f, err := fsys.Open(name, vfs.OpenOptions{Create: true})
	if err != nil {
		return err
	}
	defer f.Close()
	data, done := pattern(8*4096, 6), make(chan error)
	for i := range 8 {
		go func() {
			_, err := f.WriteAt(data[i*4096:(i+1)*4096], int64(i*4096))
			done <- err
		}()
	}
	for range 8 {
		err = errors.Join(err, <-done)
	}
	if err != nil {
		return err
	}
	return expect(fsys, name, data)
}
