package commitlog

import (
	"errors"
	"sync"
	"sync/atomic"

	"github.com/skeinmq/skein/internal/vfs"
)

// poolFile is a log file as take hands it out. WriteAt may be called while the
// rest of the file is still being filled: everything below safe is never touched
// by the filler again, and a write first moves safe past its end.
type poolFile struct {
	vfs.File
	size int64
	used *atomic.Int64 // counts what the holder writes
	safe atomic.Int64  // multiple of a page, or size

	mu   sync.Mutex
	fill vfs.File      // the filler's handle; nil when there is no more to fill
	busy chan struct{} // closed when the chunk at safe is written; nil: none is under way
}

// Prepared is the bytes from the start on that are prepared, or that the holder
// has already claimed by writing.
func (f *poolFile) Prepared() int64 { return f.safe.Load() }

// WriteAt implements vfs.File.
func (f *poolFile) WriteAt(b []byte, off int64) (int, error) {
	if end := off + int64(len(b)); end > f.safe.Load() {
		f.claim(end)
	}
	f.used.Add(int64(len(b)))
	return f.File.WriteAt(b, off)
}

// Close ends the filling, then closes the file. The file may be recycled only
// after that: a filler must never meet its next holder.
func (f *poolFile) Close() error {
	f.claim(f.size)
	return errors.Join(f.endFill(), f.File.Close())
}

// claim waits for the chunk that is being filled, if any, and takes everything
// below end away from the filler.
func (f *poolFile) claim(end int64) {
	end = min((end+vfs.PageSize-1)&^(vfs.PageSize-1), f.size)
	for {
		f.mu.Lock()
		busy := f.busy
		if busy == nil || end <= f.safe.Load() {
			f.safe.Store(max(f.safe.Load(), end))
			f.mu.Unlock()
			return
		}
		f.mu.Unlock()
		<-busy
	}
}

// fillSome zeroes the next chunk and returns its bytes; 0: nothing is left.
func (f *poolFile) fillSome() (int64, error) {
	f.mu.Lock()
	at := f.safe.Load()
	n := min(poolFillChunk, f.size-at)
	fill := f.fill
	if fill == nil || n <= 0 {
		f.mu.Unlock()
		return 0, nil
	}
	busy := make(chan struct{})
	f.busy = busy
	f.mu.Unlock()

	err := vfs.ZeroFill(fill, at, n)

	f.mu.Lock()
	f.busy = nil
	if err == nil {
		f.safe.Store(at + n)
	}
	f.mu.Unlock()
	close(busy)
	return n, err
}

// endFill closes the filler's handle.
func (f *poolFile) endFill() error {
	f.mu.Lock()
	fill := f.fill
	f.fill = nil
	f.mu.Unlock()
	if fill == nil {
		return nil
	}
	return errors.Join(fill.Sync(), fill.Close())
}
