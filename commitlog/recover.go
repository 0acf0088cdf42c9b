package commitlog

import (
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"path/filepath"
	"slices"

	"github.com/skeinmq/skein/internal/ident"
	"github.com/skeinmq/skein/internal/vfs"
)

// scan walks the blocks of the log's files in order, tells a torn tail from damage in
// the middle, and stops at the end of what is proven or plausible.
type scan struct {
	files []*logFile
	from  int // the first file to look at
	block func(f *logFile, h *blockHeader, payload []byte) error
	// salvage gets the frames of a damaged range whose headers are whole.
	salvage func(f *logFile, fr *frame)

	chained bool           // end and crc are those of a block before
	end     ident.Position // where the log ends so far
	crc     uint32         // header CRC of the last block
	epoch   ident.LogEpoch // of the last block
	last    *logFile       // file of the last block
	damage  []CorruptError

	// sure is a position up to which the log is known to have been durable: a search for
	// blocks beyond a hole goes on at least so far. Negative: nothing is known, search all.
	sure ident.Position
	// sureEpoch is the log epoch in which that was said: its blocks below sure are proven.
	sureEpoch ident.LogEpoch

	buf window
}

// searchAhead is how far beyond a hole, and beyond what is known to be durable, blocks are
// looked for: further than writes in flight can reach.
const searchAhead = 64 << 20

// window reads a file through one buffer, past the page cache where the disk can: what
// counts is what is on the disk.
type window struct {
	fs     vfs.FS // nil: read through the file's own handle
	direct bool

	f   *logFile
	h   vfs.File // open for f when fs is set
	buf []byte   // off the heap, aligned
	off int64    // of buf[0] in f
	n   int
}

func (w *window) close() {
	if w.h != nil {
		_ = w.h.Close() // only read from
	}
	if w.buf != nil {
		_ = vfs.FreeAligned(w.buf) // what AllocAligned gave cannot be refused
	}
	*w = window{fs: w.fs, direct: w.direct}
}

// handle returns what to read f with.
func (w *window) handle(f *logFile) (vfs.File, error) {
	if w.fs == nil {
		return f.r, nil
	}
	if w.h != nil && w.f == f {
		return w.h, nil
	}
	if w.h != nil {
		_ = w.h.Close() // only read from
		w.h = nil
	}
	var err error
	w.h, err = w.fs.Open(f.name, vfs.OpenOptions{Direct: w.direct})
	return w.h, err
}

const windowSize = 4 << 20

// view returns n bytes at off, fewer at the end of the file. They are valid until the
// next view.
func (w *window) view(f *logFile, off int64, n int) ([]byte, error) {
	if n = int(min(int64(n), f.size-off)); n <= 0 {
		return nil, nil
	}
	if w.f == f && off >= w.off && off+int64(n) <= w.off+int64(w.n) {
		return w.buf[off-w.off:][:n], nil
	}
	h, err := w.handle(f)
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", f.name, err)
	}
	w.f, w.n = f, 0
	w.off = off &^ (vfs.PageSize - 1)
	skip := int(off - w.off)
	if want := max(skip+n+vfs.PageSize, windowSize); len(w.buf) < want {
		if w.buf != nil {
			_ = vfs.FreeAligned(w.buf) // as in close
		}
		if w.buf, err = vfs.AllocAligned(want); err != nil {
			w.buf = nil
			return nil, err
		}
	}
	got, err := h.ReadAt(w.buf[:min(int64(len(w.buf))&^(vfs.PageSize-1), f.size-w.off)], w.off)
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, fmt.Errorf("read %s: %w", f.name, err)
	}
	w.n = got
	return w.buf[min(skip, got):min(skip+n, got)], nil
}

// read decodes the block at off. The payload is valid until the next read.
func (s *scan) read(f *logFile, off int64) (blockHeader, []byte, error) {
	b, err := s.buf.view(f, off, blockHeaderSize)
	if err != nil {
		return blockHeader{}, nil, err
	}
	h, err := decodeBlockHeader(b, f.first+ident.Position(off))
	if err != nil {
		return h, nil, err
	}
	if int64(h.padded) > f.size-off || int(h.padded)%f.align != 0 {
		return h, nil, fmt.Errorf("block at %d: %w: length %d", h.position, errBad, h.padded)
	}
	if b, err = s.buf.view(f, off, blockHeaderSize+int(h.payload)); err != nil {
		return h, nil, err
	}
	payload := b[min(len(b), blockHeaderSize):]
	if len(payload) != int(h.payload) || crc32.Checksum(payload, castagnoli) != h.payloadCRC {
		return h, nil, fmt.Errorf("block at %d: %w: payload crc", h.position, errBad)
	}
	return h, payload, nil
}

// run walks everything. It returns an error only when the disk cannot be read, or when
// the format is newer than this program.
func (s *scan) run() error {
	if s.from >= len(s.files) {
		return nil
	}
	i, off := s.from, int64(fileHeaderSize)
	for {
		f := s.files[i]
		h, payload, err := s.read(f, off)
		if err != nil && !errors.Is(err, errBad) {
			return err
		}
		if err == nil && s.follows(&h) {
			if err := s.accept(f, &h, payload); err != nil {
				return err
			}
			off += int64(h.padded)
			continue
		}
		next, at, err := s.resume(i, off)
		if err != nil {
			return err
		}
		if next < 0 {
			return nil
		}
		i, off = next, at
	}
}

// follows reports whether a block continues the chain.
func (s *scan) follows(h *blockHeader) bool {
	return !s.chained || h.prevEnd == s.end && h.prevCRC == s.crc
}

func (s *scan) accept(f *logFile, h *blockHeader, payload []byte) error {
	f.end = h.end()
	s.chained, s.end, s.crc, s.epoch, s.last = true, h.end(), h.crc, h.epoch, f
	return s.block(f, h, payload)
}

// resume finds where the log goes on when nothing follows at (i, off): at the head of a
// later file that continues the chain, behind a damaged range, or behind files that were
// reclaimed. It returns -1 when the log ends here.
func (s *scan) resume(i int, off int64) (int, int64, error) {
	heads, err := s.heads(i + 1)
	if err != nil {
		return 0, 0, err
	}
	if s.chained {
		for _, h := range heads {
			if h.prevEnd == s.end && h.prevCRC == s.crc {
				return h.file, fileHeaderSize, nil
			}
		}
	}
	// Damage comes first: what lies behind it in this file must not be taken for gone with the files behind.
	found, err := s.survey(i, i+1, off)
	if err != nil {
		return 0, 0, err
	}
	if k := s.firstLegitimate(append(found, heads...)); k >= 0 && k < len(found) {
		return s.goOn(i, off, found[k])
	}
	if s.chained {
		for _, h := range heads {
			if h.prevEnd > s.end && !holds(s.files, h.prevEnd) {
				s.files[i].doubt = true
				s.chained = false // the file between was reclaimed
				return h.file, fileHeaderSize, nil
			}
		}
	}
	later, err := s.survey(i+1, len(s.files), fileHeaderSize)
	if err != nil {
		return 0, 0, err
	}
	found = append(found, later...)
	if k := s.firstLegitimate(found); k >= 0 {
		return s.goOn(i, off, found[k])
	}
	return -1, 0, nil
}

// goOn takes a block up behind the damaged range that begins at (i, off).
func (s *scan) goOn(i int, off int64, b surveyed) (int, int64, error) {
	for _, f := range s.files[i:b.file] {
		f.doubt = true
	}
	if err := s.quarantine(i, s.files[i].first+ident.Position(off), b); err != nil {
		return 0, 0, err
	}
	s.chained = false
	return b.file, int64(b.position - s.files[b.file].first), nil
}

// surveyed is a sound block header found beyond a hole.
type surveyed struct {
	blockHeader
	file int
}

// heads lists the first blocks, as far as their headers are sound, of the files from i on.
func (s *scan) heads(i int) ([]surveyed, error) {
	var out []surveyed
	for ; i < len(s.files); i++ {
		switch h, err := s.files[i].firstBlock(); {
		case err == nil:
			out = append(out, surveyed{blockHeader: h, file: i})
		case !errors.Is(err, errBad):
			return nil, err
		}
	}
	return out, nil
}

// survey lists every sound block from (i, off) to the end of the files before last. Blocks lie at
// multiples of the alignment; a found block is stepped over.
func (s *scan) survey(i, last int, off int64) ([]surveyed, error) {
	var found []surveyed
	for ; i < last; i, off = i+1, fileHeaderSize {
		more, err := s.surveyFile(i, off)
		if err != nil {
			return nil, err
		}
		found = append(found, more...)
	}
	return found, nil
}

func (s *scan) surveyFile(i int, off int64) (found []surveyed, err error) {
	f := s.files[i]
	r, err := s.buf.handle(f)
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", f.name, err)
	}
	size, err := r.Size() // less than f.size when its end was given back
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", f.name, err)
	}
	size = min(size, f.size)
	end := size
	if s.sure >= 0 {
		end = min(end, max(int64(s.sure-f.first), off)+searchAhead)
	}
	for off < end {
		b, err := s.buf.view(f, off, blockHeaderSize)
		if err != nil {
			return nil, err
		}
		h, err := decodeBlockHeader(b, f.first+ident.Position(off))
		if err == nil {
			_, _, err = s.read(f, off)
		}
		if errors.Is(err, ErrVersion) || err != nil && !errors.Is(err, errBad) {
			return nil, err
		}
		if err == nil {
			found = append(found, surveyed{blockHeader: h, file: i})
			off += int64(h.padded)
			end = max(end, min(size, off+searchAhead))
			continue
		}
		off += int64(f.align)
	}
	return found, nil
}

// firstLegitimate returns the index of the first block that was certainly durable in
// order. A later block of its own epoch says so, or a checkpoint; or a block of a later epoch continues it,
// which exists only because a recovery accepted what came before; or one continues it of
// which that is true. What a torn tail left behind is never proven so. -1: none.
func (s *scan) firstLegitimate(found []surveyed) int {
	durable := map[ident.LogEpoch]ident.Position{}
	if s.sure >= 0 {
		durable[s.sureEpoch] = s.sure
	}
	for i := range found {
		durable[found[i].epoch] = max(durable[found[i].epoch], found[i].durable)
	}
	first := -1
	for i := len(found) - 1; i >= 0; i-- {
		b := &found[i]
		legitimate := b.end() <= durable[b.epoch] || plants.anyBlock
		if !legitimate && i+1 < len(found) {
			if next := &found[i+1]; next.prevEnd == b.end() && next.prevCRC == b.crc {
				legitimate = next.epoch > b.epoch || first == i+1
			}
		}
		if legitimate {
			first = i
		}
	}
	return first
}

// quarantine records the damaged range up to block b and saves what can be saved of it.
// Where another epoch began inside the range, what an earlier recovery cut off may lie
// there too and could not be told apart: then nothing is saved.
func (s *scan) quarantine(i int, from ident.Position, to surveyed) error {
	const reason = "blocks not readable, later ones prove that they were written"
	before := len(s.damage)
	for k := i; k <= to.file; k++ {
		f := s.files[k]
		lo := max(from, f.first+fileHeaderSize)
		hi := f.writtenTo(lo, to)
		if lo >= hi {
			continue
		}
		s.damage = append(s.damage, CorruptError{File: f.name, From: lo, To: hi, Reason: reason})
		if to.epoch != s.epoch {
			continue
		}
		b := make([]byte, hi-lo)
		if n, err := f.r.ReadAt(b, int64(lo-f.first)); err != nil && !errors.Is(err, io.EOF) {
			return fmt.Errorf("read %s: %w", f.name, err)
		} else {
			b = b[:n]
		}
		for off := 0; off+frameHeaderSize <= len(b); off++ {
			pos := lo + ident.Position(off)
			h, err := decodeFrameHeader(b[off:], pos)
			if err != nil || int64(h.length) > int64(len(b)-off-frameHeaderSize) {
				continue
			}
			end := off + frameHeaderSize + int(h.length)
			s.salvage(f, &frame{frameHeader: h, position: pos, payload: b[off+frameHeaderSize : end]})
			off = end - 1
		}
	}
	if f := s.files[i]; len(s.damage) == before && from < f.limit() {
		// No byte is told to be damaged, and yet the block is not the one that was written after the last one here.
		s.damage = append(s.damage, CorruptError{File: f.name, From: from, To: min(to.position, f.limit()), Reason: reason})
	}
	return nil
}

// writtenTo is how far into the file blocks may have been written at lo and behind it, and before block to. What a file has left when the
// next one is begun is no damage: the end is told by the block that comes next, if it is to, or by the file's index.
func (f *logFile) writtenTo(lo ident.Position, to surveyed) ident.Position {
	hi := min(to.position, f.limit())
	if to.prevEnd > lo {
		hi = min(hi, to.prevEnd)
	}
	if f.told >= lo {
		hi = min(hi, f.told)
	}
	return hi
}

// listFiles opens every log file in the directory, in order, checking identity.
func (l *Log) listFiles() ([]*logFile, error) {
	names, err := l.fs.List(l.logDir)
	if err != nil {
		return nil, fmt.Errorf("list %s: %w", l.logDir, err)
	}
	var files []*logFile
	var head [fileHeaderSize]byte
	for _, name := range names {
		first, ok := parseLogFileName(name)
		if !ok {
			continue
		}
		path := filepath.Join(l.logDir, name)
		r, err := l.fs.Open(path, vfs.OpenOptions{})
		if err != nil {
			return files, fmt.Errorf("open log file: %w", err)
		}
		_, err = r.ReadAt(head[:], 0)
		if errors.Is(err, io.EOF) {
			err = nil
		}
		var h fileHeader
		var badHeader error
		if err == nil {
			h, err = decodeFileHeader(head[:])
		}
		if errors.Is(err, errBad) {
			badHeader = err
			// Its identity is lost, its blocks are not: they carry their positions.
			l.log.Error("header of log file is not readable", "log", l.id, "file", path, "error", err)
			h = fileHeader{cluster: l.cluster, log: l.id, first: first, align: l.align}
			h.size, err = r.Size()
		}
		if err == nil && (h.log != l.id || h.cluster != l.cluster || h.first != first) {
			err = fmt.Errorf("header of log %s, position %d, cluster %q", h.log, h.first, h.cluster)
		}
		if err != nil {
			return files, errors.Join(fmt.Errorf("log file %s: %w", path, err), r.Close())
		}
		f := &logFile{fileHeader: h, badHeader: badHeader, name: path, r: r}
		f.refs.Store(1)
		files = append(files, f)
	}
	slices.SortFunc(files, func(a, b *logFile) int { return int(min(max(a.first-b.first, -1), 1)) })
	return files, nil
}
