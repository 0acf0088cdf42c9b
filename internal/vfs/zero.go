package vfs

import (
	"fmt"
	"sync"
)

// zeroChunk is how much ZeroFill writes at once: large enough for the device,
// small enough that a writer beside it waits little.
const zeroChunk = 1 << 20

// zeroes is one page-aligned run of zero bytes for everybody. It is only read.
var zeroes = sync.OnceValue(func() []byte { return alignedCopy(make([]byte, zeroChunk)) })

// ZeroFill writes real zeroes over [off, off+n). Blocks that were only reserved
// (Allocate) still change metadata when they are first written, and pay the
// file system's journal for it at every sync; blocks that were written do not.
// With direct I/O off and n must be aligned. NOT promised: durability (Sync).
func ZeroFill(f File, off, n int64) error {
	for n > 0 {
		chunk := zeroes()[:min(n, zeroChunk)]
		if _, err := f.WriteAt(chunk, off); err != nil {
			return fmt.Errorf("zero-fill %d bytes at %d: %w", n, off, err)
		}
		off += int64(len(chunk))
		n -= int64(len(chunk))
	}
	return nil
}
