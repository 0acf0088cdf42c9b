package commitlog

import (
	"errors"

	"github.com/skeinmq/skein/internal/vfs"
)

// shortenFrom is the part of a file that must be unused before it is given back: what a roll leaves over stays, so that
// the file can be recycled.
const shortenFrom = 16

// shorten has the unused end of a sealed file given back. Each start begins a new file, so without it each restart would
// take a whole file of disk for the little that the process before had written. Positions do not change, and the cut is
// repeated after the next start if a crash undoes it: nothing depends on it. A file is cut only where its end is proven:
// by the process that wrote it, by an index, or by a recovery that found nothing behind it that could have been acked.
func (s *sealer) shorten(f *logFile) {
	used := int64(f.end - f.first)
	if f.size-used < f.size/shortenFrom || f.doubt || !f.tryPin() {
		f.cut.Store(true)
		return
	}
	used = (used + vfs.PageSize - 1) &^ (vfs.PageSize - 1)
	s.l.pool.giver.add(surplus{path: f.name, keep: used, done: func(err error) {
		if err == nil {
			f.unused.Store(f.size - used)
		} else if !errors.Is(err, errNotGiven) {
			s.l.log.Warn("give unused disk back", "log", s.l.id, "file", f.name, "error", err)
		}
		f.cut.Store(true)
		f.unpin() // until then it is not recycled
		s.wake.poke()
	}})
}

// shortenRecovered does it for the files that earlier processes sealed.
func (s *sealer) shortenRecovered() {
	for _, f := range s.l.files.all() {
		if f.recovered && f.sealed.Load() && f.sorted == nil {
			s.shorten(f)
		}
	}
}

// onDisk is how much of the disk a file takes.
func (f *logFile) onDisk() int64 { return f.size - f.unused.Load() }
