package vfs

import (
	"io/fs"
	"os"

	"golang.org/x/sys/unix"
)

const oDirect = unix.O_DIRECT

// adviseHuge asks for huge pages. Where there are none, small ones do.
func adviseHuge(b []byte) { _ = unix.Madvise(b, unix.MADV_HUGEPAGE) }

// populate reports false where the kernel cannot (before 5.14).
func populate(b []byte) bool { return unix.Madvise(b, unix.MADV_POPULATE_WRITE) == nil }

// directAlign asks the kernel for the alignment of an open file. Kernels before
// 6.1 and some file systems do not know: then the fallback holds.
func directAlign(f *os.File) DirectIO {
	out := DirectIO{Available: true, MemoryAlign: fallbackAlign, OffsetAlign: fallbackAlign}
	var st unix.Statx_t
	err := control(f, func(fd int) error {
		return unix.Statx(fd, "", unix.AT_EMPTY_PATH, unix.STATX_DIOALIGN, &st)
	})
	if err != nil || st.Mask&unix.STATX_DIOALIGN == 0 {
		return out
	}
	// Zero means that this file cannot do direct I/O, though its file system can.
	if st.Dio_mem_align == 0 || st.Dio_offset_align == 0 {
		out.Available = false
		return out
	}
	// Buffers are aligned to a page, and a sector is the unit of torn writes:
	// a smaller offered alignment buys nothing.
	out.MemoryAlign = int(st.Dio_mem_align)
	out.OffsetAlign = max(int(st.Dio_offset_align), SectorSize)
	return out
}

// inMemoryFS is true for file systems that take O_DIRECT (since Linux 6.6) but
// have no device behind them.
func inMemoryFS(dir string) bool {
	var st unix.Statfs_t
	if err := unix.Statfs(dir, &st); err != nil {
		return false
	}
	return uint32(st.Type) == unix.TMPFS_MAGIC || uint32(st.Type) == unix.RAMFS_MAGIC
}

func adviseRandom(f *os.File) {
	_ = control(f, func(fd int) error { return unix.Fadvise(fd, 0, 0, unix.FADV_RANDOM) })
}

// WillNeed has the kernel read the range into the page cache.
func (o *osFile) WillNeed(off, n int64) {
	o.prepare(off, n)
	_ = control(o.f, func(fd int) error { return unix.Fadvise(fd, off, n, unix.FADV_WILLNEED) })
}

const prepareFrom = 256 << 10

// prepare drops a range from the page cache if that has kept fragments of it only, and says whether it did. Pages that two records
// share are used twice, and outlive the others; and the kernel would read each hole between them by itself. In a short range there
// are few holes, and somebody else is about to use the pages at its ends.
func (o *osFile) prepare(off, n int64) (dropped bool) {
	if n < prepareFrom {
		return false
	}
	_ = control(o.f, func(fd int) error { // a hint
		cached := cachedPages(fd, off, n)
		dropped = cached > 0 && cached < n/PageSize*3/4
		if !dropped {
			return nil
		}
		return unix.Fadvise(fd, off, n, unix.FADV_DONTNEED)
	})
	return dropped
}

// cachedPages is how many pages of the range the page cache has, and 0 where the kernel (before 6.5) cannot say.
func cachedPages(fd int, off, n int64) int64 {
	var st unix.Cachestat_t
	if unix.Cachestat(uint(fd), &unix.CachestatRange{Off: uint64(off), Len: uint64(n)}, &st, 0) != nil {
		return 0
	}
	return int64(st.Cache)
}

func (o *osFile) Datasync() error {
	if err := control(o.f, unix.Fdatasync); err != nil {
		return &fs.PathError{Op: "fdatasync", Path: o.f.Name(), Err: err}
	}
	return nil
}

func (o *osFile) Allocate(off, n int64) error {
	err := control(o.f, func(fd int) error { return unix.Fallocate(fd, 0, off, n) })
	if err == unix.EOPNOTSUPP {
		// No reservation here: grow the file, as Allocate's contract allows.
		size, err := o.Size()
		if err != nil || size >= off+n {
			return err
		}
		return o.Truncate(off + n)
	}
	if err != nil {
		return &fs.PathError{Op: "fallocate", Path: o.f.Name(), Err: err}
	}
	return nil
}
