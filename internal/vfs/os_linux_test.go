package vfs

import (
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// TestWillNeedWholeRange: of a range of which the page cache has kept each fourth page, everything is read anew; where it has nearly
// all, only the rest.
func TestWillNeedWholeRange(t *testing.T) {
	const pages = 256
	name := filepath.Join(t.TempDir(), "f")
	if err := os.WriteFile(name, make([]byte, pages*PageSize), 0o600); err != nil {
		t.Fatal(err)
	}
	file, err := os.Open(name)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	fd, f := int(file.Fd()), &osFile{f: file}
	if err := errors.Join(unix.Fsync(fd), unix.Fadvise(fd, 0, 0, unix.FADV_RANDOM)); err != nil {
		t.Fatal(err)
	}
	// leave has the cache keep the pages of which keep says so, and returns how many it has.
	leave := func(keep func(int64) bool) int64 {
		for end := time.Now().Add(10 * time.Second); ; time.Sleep(time.Millisecond) { // pages that have just come are not always dropped
			if err := unix.Fadvise(fd, 0, pages*PageSize, unix.FADV_DONTNEED); err != nil {
				t.Fatal(err)
			}
			if cachedPages(fd, 0, pages*PageSize) == 0 || time.Now().After(end) {
				break
			}
		}
		for i := range int64(pages) {
			if keep(i) {
				if _, err := file.ReadAt(make([]byte, 1), i*PageSize); err != nil {
					t.Fatal(err)
				}
			}
		}
		return cachedPages(fd, 0, pages*PageSize)
	}
	if n := leave(func(i int64) bool { return i < 1 }); n != 1 {
		t.Skipf("the kernel or the file system of %s has %d pages cached, not 1", name, n)
	}
	for what, keep := range map[string]func(int64) bool{
		"fragments": func(i int64) bool { return i%4 == 0 },
		"most":      func(i int64) bool { return i != 100 },
		"nothing":   func(int64) bool { return false },
	} {
		before := leave(keep)
		if dropped := f.prepare(0, pages*PageSize); dropped != (what == "fragments") {
			t.Errorf("%s: %d pages cached, dropped: %v", what, before, dropped)
		}
		f.WillNeed(0, pages*PageSize)
		for end := time.Now().Add(time.Minute); cachedPages(fd, 0, pages*PageSize) < pages; time.Sleep(time.Millisecond) {
			if time.Now().After(end) {
				t.Fatalf("%s: %d of %d pages cached", what, cachedPages(fd, 0, pages*PageSize), pages)
			}
		}
	}
}

// TestPopulate: the pages are there before anybody writes to them.
func TestPopulate(t *testing.T) {
	b, err := AllocAligned(64 * PageSize)
	if err != nil {
		t.Fatal(err)
	}
	defer FreeAligned(b)
	there := make([]byte, 64)
	mincore := func() (n int) {
		t.Helper()
		if _, _, errno := unix.Syscall(unix.SYS_MINCORE, uintptr(unsafe.Pointer(&b[0])), uintptr(len(b)), uintptr(unsafe.Pointer(&there[0]))); errno != 0 {
			t.Fatal(errno)
		}
		for _, p := range there {
			n += int(p & 1)
		}
		return n
	}
	if n := mincore(); n != 0 {
		t.Fatalf("%d pages are there already", n)
	}
	Populate(b)
	if n := mincore(); n != len(there) {
		t.Errorf("%d of %d pages are there", n, len(there))
	}
}
