package commitlog

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"

	"github.com/skeinmq/skein/internal/ident"
	"github.com/skeinmq/skein/internal/vfs"
)

// openSorted opens a sorted file for reading. One whose header is damaged is opened all the same: its name says what it
// stands for, and its frames prove themselves.
func (l *Log) openSorted(name string, s span, first ident.Position) (*logFile, error) {
	f := &logFile{
		fileHeader: fileHeader{cluster: l.cluster, log: l.id, first: first, align: vfs.PageSize},
		name:       name, sorted: &s,
	}
	f.refs.Store(1)
	err := l.openReaders(f)
	if err == nil {
		err = l.readSortedHeader(f)
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("open sorted file %s: %w", name, err), f.closeHandles())
	}
	return f, nil
}

func (l *Log) readSortedHeader(f *logFile) error {
	size, err := f.r.Size()
	if err != nil {
		return err
	}
	f.size, f.end = size, f.first+ident.Position(size)
	var page [fileHeaderSize]byte
	n, err := f.r.ReadAt(page[:], 0)
	if err != nil && n < len(page) && size >= fileHeaderSize {
		return err
	}
	h, err := decodeSortedHeader(page[:n])
	switch {
	case errors.Is(err, errBad):
		l.log.Error("header of sorted file is not readable", "log", l.id, "file", f.name, "error", err)
		return nil
	case err != nil:
		return err
	case h.log != l.id || h.cluster != l.cluster || h.first != f.first || h.span != *f.sorted:
		return fmt.Errorf("header of log %s, positions %d to %d, cluster %q", h.log, h.span.from, h.span.to, h.cluster)
	}
	f.end, f.madeMs = h.end, h.madeMs
	return nil
}

// dataEnd is where the frames of a sorted file end, in bytes from its start.
func (f *logFile) dataEnd() int64 { return int64(f.end - f.first) }

// sortedFound is what a directory has of sorted files.
type sortedFound struct {
	files   []*logFile // those that count, newest first
	garbage []string   // names of what a crash left behind
	serial  uint32     // the highest that is known
}

// listSorted opens the sorted files and marks the log files that they stand for. A sorted file has its name only when it is whole, so
// that one which stands for all of another one, or of a log file, and is newer, has all that was live of it.
func (l *Log) listSorted(logs []*logFile) (out sortedFound, err error) {
	names, err := l.fs.List(l.logDir)
	if err != nil {
		return out, fmt.Errorf("list %s: %w", l.logDir, err)
	}
	type candidate struct {
		name   string
		span   span
		serial uint32
	}
	var found []candidate
	for _, name := range names {
		path := filepath.Join(l.logDir, name)
		whole, rest, _ := strings.Cut(name, sortedSuffix)
		s, serial, ok := parseSortedName(whole + sortedSuffix)
		switch {
		case !ok:
			continue
		case rest == "":
			found = append(found, candidate{path, s, serial})
		case rest != indexSuffix || !slices.Contains(names, whole+sortedSuffix):
			out.garbage = append(out.garbage, path)
		}
		out.serial = max(out.serial, serial)
	}
	slices.SortFunc(found, func(a, b candidate) int { return cmp.Compare(b.serial, a.serial) }) // newest first
	for _, c := range found {
		if slices.ContainsFunc(out.files, func(f *logFile) bool { return f.sorted.contains(c.span) }) {
			out.garbage = append(out.garbage, c.name+indexSuffix, c.name)
			continue
		}
		f, err := l.openSorted(c.name, c.span, sortedFirst(c.serial))
		if err != nil {
			closeFiles(out.files)
			return out, err
		}
		out.files = append(out.files, f)
	}
	for _, f := range logs {
		f.covered = slices.ContainsFunc(out.files, func(g *logFile) bool { return g.sorted.contains(f.span()) })
	}
	return out, nil
}

// addSorted makes the sorted files known, after the log files, with what their indexes say. One that has no sound index gets it here.
func (l *Log) addSorted(ctx context.Context, found sortedFound) error {
	l.sorter.serial = found.serial
	if err := l.pool.setAside(found.garbage...); err != nil { // durably: what took its place may go, too, and it must not come back then
		return fmt.Errorf("remove what was left of sorting: %w", err)
	}
	l.openIndexes(found.files)
	for _, f := range found.files {
		f.recovered = true
		f.cut.Store(true)
		l.files.add(f)
		if f.index.Load() != nil {
			continue
		}
		if err := l.rebuildIndex(ctx, f); err != nil {
			return err
		}
	}
	return nil
}

// walkSorted calls each for every frame of a sorted file whose header is whole, in the order in which they lie, reading past the page
// cache where that is possible.
func walkSorted(ctx context.Context, fsys vfs.FS, f *logFile, each func(fr *frame) error, damaged func(from, to ident.Position)) error {
	w := window{fs: fsys, direct: f.d != nil}
	defer w.close()
	for off := int64(fileHeaderSize); off+frameHeaderSize <= f.dataEnd(); {
		fr, err := readFrame(&w, f, off)
		if err != nil && !errors.Is(err, errBad) {
			return err
		}
		if err == nil {
			if err := each(fr); err != nil {
				return err
			}
			off += frameHeaderSize + int64(fr.length)
			continue
		}
		bad := off
		if off, err = nextFrame(ctx, &w, f, off+1); err != nil {
			return err
		}
		damaged(f.first+ident.Position(bad), f.first+ident.Position(off))
	}
	return ctx.Err()
}

// nextFrame looks for the next whole frame from off on; the end of the data when there is none.
func nextFrame(ctx context.Context, w *window, f *logFile, off int64) (int64, error) {
	for ; off+frameHeaderSize <= f.dataEnd(); off++ {
		_, err := readFrame(w, f, off)
		if err == nil {
			return off, nil
		}
		if !errors.Is(err, errBad) {
			return off, err
		}
	}
	return f.dataEnd(), ctx.Err()
}

// readFrame reads the frame at off of a sorted file; its payload is valid until the next one.
func readFrame(w *window, f *logFile, off int64) (*frame, error) {
	b, err := w.view(f, off, frameHeaderSize)
	if err != nil {
		return nil, err
	}
	pos := f.first + ident.Position(off)
	h, err := decodeFrameHeader(b, pos)
	if err != nil {
		return nil, err
	}
	if off+frameHeaderSize+int64(h.length) > f.dataEnd() {
		return nil, fmt.Errorf("frame at %d: %w: length %d", pos, errBad, h.length)
	}
	if b, err = w.view(f, off, frameHeaderSize+int(h.length)); err != nil {
		return nil, err
	}
	if len(b) < frameHeaderSize+int(h.length) {
		return nil, fmt.Errorf("frame at %d: %w: the file ends", pos, errBad)
	}
	return &frame{frameHeader: h, position: pos, payload: b[frameHeaderSize:]}, nil
}
