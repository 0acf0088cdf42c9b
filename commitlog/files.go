package commitlog

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/skeinmq/skein/internal/ident"
	"github.com/skeinmq/skein/internal/vfs"
)

// logFile is one file of the log: a window on positions. Or a sorted file, which has what is live of some windows.
type logFile struct {
	fileHeader
	badHeader error // why the header could not be read; what stands above is then from the name
	name      string

	sorted  *span // of a sorted file; nil: a log file
	covered bool  // a sorted file, later in the set, has all that is live of it
	blind   bool  // it could not be sorted; owned by the sorter

	w vfs.File // direct and synchronous; nil once nothing is written any more
	r vfs.File // buffered, for reading
	d vfs.File // direct, for large reads; nil: where the disk cannot

	// end is where its last block ended, once the next file was begun.
	end    ident.Position
	doubt  bool           // recovery cannot rule out that there was more behind end
	told   ident.Position // where its index says that it ends, the file's limit if nobody knew; 0: no index says so
	sealed atomic.Bool    // its index covers it
	cut    atomic.Bool    // and its unused end was given back, if it could be

	refs atomic.Int64 // 1 for the set, 1 for each reader
	live atomic.Int64 // once sealed: segments that still have something to read in it
	kept atomic.Int64 // and the bytes of their frames

	unused atomic.Int64 // bytes at its end that were given back

	recovered bool     // held blocks when the log was opened
	no        uint32   // counts the files of this process, in order of position
	touched   []*Queue // owned by the completing goroutine, then by the sealer

	heat atomic.Pointer[heat] // nil before the first small read

	index      atomic.Pointer[indexFile]
	oldIndexes []*indexFile // replaced, perhaps still being read; owned by the sealer
}

func (f *logFile) tryPin() bool {
	for {
		n := f.refs.Load()
		if n == 0 {
			return false
		}
		if f.refs.CompareAndSwap(n, n+1) {
			return true
		}
	}
}

func (f *logFile) unpin() { f.refs.Add(-1) }

func (f *logFile) limit() ident.Position { return f.first + ident.Position(f.size) }

// span is the positions of the log that the file stands for.
func (f *logFile) span() span {
	if f.sorted != nil {
		return *f.sorted
	}
	return span{f.first, f.limit()}
}

// spans reports whether a damaged range lies in the file.
func (f *logFile) spans(r *CorruptError) bool { return f.first <= r.From && r.To <= f.limit() }

// keep counts a segment as live, or, with -1, no longer.
func (f *logFile) keep(s *segment, n int64) {
	f.live.Add(n)
	f.kept.Add(n * s.frames())
}

func (f *logFile) closeHandles() error {
	var errs []error
	if f.w != nil {
		errs = append(errs, f.w.Close())
		f.w = nil
	}
	if f.r != nil {
		errs = append(errs, f.r.Close())
		f.r = nil
	}
	if f.d != nil {
		errs = append(errs, f.d.Close())
		f.d = nil
	}
	if x := f.index.Swap(nil); x != nil {
		errs = append(errs, x.close())
	}
	for _, x := range f.oldIndexes {
		errs = append(errs, x.close())
	}
	f.oldIndexes = nil
	return errors.Join(errs...)
}

const logSuffix = ".log"

func logFileName(first ident.Position) string { return fmt.Sprintf("%020d%s", first, logSuffix) }

// parseLogFileName is the inverse of logFileName.
func parseLogFileName(name string) (ident.Position, bool) {
	digits, ok := strings.CutSuffix(name, logSuffix)
	if !ok || len(digits) != 20 {
		return 0, false
	}
	n, err := strconv.ParseInt(digits, 10, 64)
	return ident.Position(n), err == nil && n >= 0
}

// fileSet is the files that hold log, in order of what they stand for. Readers load the view
// and never lock.
type fileSet struct {
	mu   sync.Mutex
	last uint32 // number of the newest file
	view atomic.Pointer[fileView]
}

// fileView is a fileSet at one moment.
type fileView struct {
	ordered  []*logFile
	numbered []*logFile // by number
}

func (s *fileSet) load() *fileView {
	if v := s.view.Load(); v != nil {
		return v
	}
	return &fileView{}
}

func (s *fileSet) all() []*logFile { return s.load().ordered }

// add puts a file behind those that stand for the same or earlier positions.
func (s *fileSet) add(f *logFile) {
	s.mu.Lock()
	defer s.mu.Unlock()
	old := s.load()
	s.last++
	f.no = s.last
	at := len(old.ordered)
	for at > 0 && old.ordered[at-1].span().from > f.span().from {
		at--
	}
	s.view.Store(&fileView{
		ordered:  slices.Insert(slices.Clone(old.ordered), at, f),
		numbered: append(slices.Clone(old.numbered), f),
	})
}

func (s *fileSet) remove(f *logFile) {
	s.mu.Lock()
	defer s.mu.Unlock()
	old, is := s.load(), func(g *logFile) bool { return f == g }
	s.view.Store(&fileView{
		ordered:  slices.DeleteFunc(slices.Clone(old.ordered), is),
		numbered: slices.DeleteFunc(slices.Clone(old.numbered), is),
	})
}

// byNumber returns the file with a number, or nil.
func (s *fileSet) byNumber(no uint32) *logFile {
	view := s.load().numbered
	i, ok := slices.BinarySearchFunc(view, no, func(f *logFile, no uint32) int { return cmp.Compare(f.no, no) })
	if !ok {
		return nil
	}
	return view[i]
}

// takeFile gets the file that begins at a position from the pool: durable, with its name.
func (l *Log) takeFile(ctx context.Context, first ident.Position) (*logFile, error) {
	f := &logFile{fileHeader: fileHeader{
		cluster: l.cluster, log: l.id, first: first, size: l.cfg.FileSize,
		align: l.align, madeMs: l.cfg.Now().UnixMilli(),
	}}
	f.refs.Store(1)
	var head [fileHeaderSize]byte
	encodeFileHeader(head[:], f.fileHeader)
	w, name, err := l.pool.take(ctx, first, head[:])
	if err != nil {
		return nil, err
	}
	f.w, f.name = w, name
	if err := l.openReaders(f); err != nil {
		return nil, errors.Join(err, f.closeHandles())
	}
	return f, nil
}

// openReaders opens what is missing of the handles that reads use.
func (l *Log) openReaders(f *logFile) (err error) {
	if f.r == nil {
		f.r, err = l.fs.Open(f.name, vfs.OpenOptions{Random: true})
	}
	if err == nil && l.direct.Available {
		f.d, err = l.fs.Open(f.name, vfs.OpenOptions{Direct: true})
	}
	if err != nil {
		return fmt.Errorf("open log file: %w", err)
	}
	return nil
}
