package vfs

import (
	"fmt"
	"unsafe"

	"golang.org/x/sys/unix"
)

// PageSize is the alignment of every buffer that AllocAligned returns. No known
// device asks direct I/O for more.
const PageSize = 4096

// HugePage is from where on memory is asked for in huge pages: a fault each 4 KiB takes longer than what is then written there.
const HugePage = 2 << 20

// AllocAligned returns n zeroed bytes (rounded up to whole pages in cap) outside
// the Go heap, aligned to PageSize. The garbage collector neither scans nor
// frees them: the owner calls FreeAligned exactly once.
func AllocAligned(n int) ([]byte, error) {
	if n <= 0 {
		return nil, fmt.Errorf("allocate aligned buffer: size %d", n)
	}
	size := (n + PageSize - 1) &^ (PageSize - 1)
	b, err := unix.Mmap(-1, 0, size, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_ANON|unix.MAP_PRIVATE)
	if err != nil {
		return nil, fmt.Errorf("allocate aligned buffer: %d bytes: %w", size, err)
	}
	if size >= HugePage {
		adviseHuge(b)
	}
	return b[:n], nil
}

// Populate has the kernel give a buffer of AllocAligned its memory now, zeroed, which it does else as each page is first written.
func Populate(b []byte) {
	if populate(b) {
		return
	}
	for i := 0; i < len(b); i += PageSize {
		b[i] = 0
	}
}

// FreeAligned gives a buffer of AllocAligned back. b must start where that one
// started. Any later use of the memory is a fault, so the caller proves first
// that nobody else holds it.
func FreeAligned(b []byte) error {
	if err := unix.Munmap(b[:cap(b)]); err != nil {
		return fmt.Errorf("free aligned buffer: %w", err)
	}
	return nil
}

// IsAligned reports whether b starts at a multiple of align (a power of two).
func IsAligned(b []byte, align int) bool {
	return len(b) == 0 || uintptr(unsafe.Pointer(unsafe.SliceData(b)))&uintptr(align-1) == 0
}

// checkAligned refuses what the device would refuse, with a name for it.
func (d DirectIO) checkAligned(p []byte, off int64) error {
	mask := int64(d.OffsetAlign - 1)
	if off&mask != 0 || int64(len(p))&mask != 0 || !IsAligned(p, d.MemoryAlign) {
		return fmt.Errorf("%w: offset %d, length %d, want multiples of %d in memory aligned to %d",
			ErrUnaligned, off, len(p), d.OffsetAlign, d.MemoryAlign)
	}
	return nil
}

// alignedCopy returns a copy of p on the Go heap, aligned to PageSize.
func alignedCopy(p []byte) []byte {
	b := make([]byte, len(p)+PageSize)
	skip := int(-uintptr(unsafe.Pointer(unsafe.SliceData(b))) & (PageSize - 1))
	b = b[skip : skip+len(p) : skip+len(p)]
	copy(b, p)
	return b
}
