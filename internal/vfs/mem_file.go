package vfs

import (
	"io"
	"io/fs"
	"syscall"
)

const (
	memPage       = 4096
	pageSectors   = memPage / SectorSize
	maxOldSectors = 8 // versions of one unsynced sector that Crash chooses from
)

// memData is the content of one file.
type memData struct {
	size int64
	// gone files have no name any more; their space is counted as free.
	gone  bool
	pages map[int64]*[memPage]byte // as seen now; absent pages read as zeroes

	// dirty holds what the disk may have instead, for sectors that were written
	// or cut since the last sync. A sector that is not in it is durable as seen.
	dirty map[int64]*dirtySector
	// sizes holds the file's length after each change of it since the last
	// sync; sizes[0] is on the disk. Its index is the epoch of a version.
	sizes []int64
}

type dirtySector struct {
	durable  []byte // nil: zeroes
	versions []sectorVersion
}

// sectorVersion is one later content. A cut zeroes the sector as part of a
// change of size; it reaches the disk with that change, not by itself.
type sectorVersion struct {
	data  []byte // nil: zeroes
	epoch int
	cut   bool
}

func newMemData() *memData {
	return &memData{pages: map[int64]*[memPage]byte{}, dirty: map[int64]*dirtySector{}, sizes: []int64{0}}
}

func (d *memData) pagesBytes() int64 { return int64(len(d.pages)) * memPage }

// sector returns the bytes of a sector in its page; nil when it has no page.
func (d *memData) sector(s int64) []byte {
	p := d.pages[s/pageSectors]
	if p == nil {
		return nil
	}
	at := s % pageSectors * SectorSize
	return p[at : at+SectorSize]
}

func (d *memData) page(i int64) *[memPage]byte {
	p := d.pages[i]
	if p == nil {
		p = new([memPage]byte)
		d.pages[i] = p
	}
	return p
}

// missing returns how many bytes of new pages a range needs.
func (d *memData) missing(off, n int64) int64 {
	var need int64
	for i := off / memPage; n > 0 && i <= (off+n-1)/memPage; i++ {
		if d.pages[i] == nil {
			need += memPage
		}
	}
	return need
}

// clone copies a sector; nil stands for zeroes, which files are filled with.
func clone(sector []byte) []byte {
	if sector == nil || [SectorSize]byte(sector) == [SectorSize]byte{} {
		return nil
	}
	return append(make([]byte, 0, SectorSize), sector...)
}

// unsynced returns the entry of a sector that is about to change.
func (d *memData) unsynced(s int64) *dirtySector {
	st := d.dirty[s]
	if st == nil {
		st = &dirtySector{durable: clone(d.sector(s))}
		d.dirty[s] = st
	}
	return st
}

func (st *dirtySector) add(v sectorVersion) {
	if len(st.versions) == maxOldSectors && !st.versions[0].cut {
		st.versions = append(st.versions[:0], st.versions[1:]...)
	}
	st.versions = append(st.versions, v)
}

func (d *memData) write(p []byte, off int64, durable bool) {
	end := off + int64(len(p))
	for s := off / SectorSize; s*SectorSize < end; s++ {
		from, to := max(off, s*SectorSize), min(end, (s+1)*SectorSize)
		var st *dirtySector
		if !durable {
			st = d.unsynced(s)
		}
		d.page(s / pageSectors)
		sector := d.sector(s)
		copy(sector[from-s*SectorSize:], p[from-off:to-off])
		if durable {
			delete(d.dirty, s)
		} else {
			st.add(sectorVersion{data: clone(sector), epoch: len(d.sizes) - 1})
		}
	}
	if end > d.size {
		d.size = end
		d.sizes = append(d.sizes, end)
	}
	if durable && len(d.sizes) > 1 {
		d.syncSize()
	}
}

// syncSize makes the current size durable and with it every cut that led here.
func (d *memData) syncSize() {
	for _, st := range d.dirty {
		for i := len(st.versions) - 1; i >= 0; i-- {
			if st.versions[i].cut {
				st.durable, st.versions = nil, st.versions[i+1:]
				break
			}
		}
		for i := range st.versions {
			st.versions[i].epoch = 0
		}
	}
	d.sizes = []int64{d.size}
}

func (d *memData) sync() {
	clear(d.dirty)
	d.sizes = []int64{d.size}
}

// truncate returns the change in space taken.
func (d *memData) truncate(size int64) int64 {
	if size == d.size {
		return 0
	}
	before := d.pagesBytes()
	d.sizes = append(d.sizes, size)
	epoch := len(d.sizes) - 1
	for i, p := range d.pages {
		if (i+1)*memPage <= size {
			continue
		}
		for s := i * pageSectors; s < (i+1)*pageSectors; s++ {
			if (s+1)*SectorSize <= size {
				continue
			}
			st := d.unsynced(s)
			keep := max(size-s*SectorSize, 0)
			clear(d.sector(s)[keep:])
			v := sectorVersion{epoch: epoch, cut: keep == 0}
			if keep > 0 {
				v.data = clone(d.sector(s))
			}
			st.versions = append(st.versions, v)
		}
		if i*memPage >= size {
			clear(p[:])
			delete(d.pages, i)
		}
	}
	d.size = size
	return d.pagesBytes() - before
}

// memFile is an open handle.
type memFile struct {
	m      *Mem
	node   *memNode
	name   string
	opt    OpenOptions
	closed bool
}

func (f *memFile) check(op string) error {
	switch {
	case f.closed:
		return pathError(op, f.name, fs.ErrClosed)
	case f.m.halted:
		return pathError(op, f.name, ErrHalted)
	}
	return nil
}

func (f *memFile) checkWrite(op string) error {
	if err := f.check(op); err != nil {
		return err
	}
	if !f.opt.writable() {
		return pathError(op, f.name, syscall.EBADF)
	}
	return nil
}

func (f *memFile) checkDirect(op string, p []byte, off int64) error {
	if off < 0 {
		return pathError(op, f.name, fs.ErrInvalid)
	}
	if !f.opt.Direct {
		return nil
	}
	if err := f.m.direct.checkAligned(p, off); err != nil {
		return pathError(op, f.name, err)
	}
	return nil
}

func (f *memFile) ReadAt(p []byte, off int64) (int, error) {
	f.m.mu.Lock()
	defer f.m.mu.Unlock()
	if err := f.check("read"); err != nil {
		return 0, err
	}
	if err := f.checkDirect("read", p, off); err != nil {
		return 0, err
	}
	d := f.node.file
	n := int(min(int64(len(p)), max(d.size-off, 0)))
	for done := 0; done < n; {
		at := off + int64(done)
		in := int(at % memPage)
		piece := p[done:min(n, done+memPage-in)]
		if page := d.pages[at/memPage]; page != nil {
			copy(piece, page[in:])
		} else {
			clear(piece)
		}
		done += len(piece)
	}
	if n < len(p) {
		return n, io.EOF
	}
	return n, nil
}

func (f *memFile) WriteAt(p []byte, off int64) (int, error) {
	f.m.mu.Lock()
	defer f.m.mu.Unlock()
	if err := f.checkWrite("write"); err != nil {
		return 0, err
	}
	if err := f.checkDirect("write", p, off); err != nil {
		return 0, err
	}
	if err := f.reserve("write", off, int64(len(p))); err != nil {
		return 0, err
	}
	f.node.file.write(p, off, f.opt.Dsync)
	return len(p), nil
}

// reserve takes the space that a range needs, or nothing.
func (f *memFile) reserve(op string, off, n int64) error {
	need := f.node.file.missing(off, n)
	if need > 0 && f.m.used+need > f.m.capacity {
		return pathError(op, f.name, syscall.ENOSPC)
	}
	if !f.node.file.gone {
		f.m.used += need
	}
	return nil
}

func (f *memFile) WillNeed(_, _ int64) {}

func (f *memFile) Datasync() error { return f.Sync() }

func (f *memFile) Sync() error {
	f.m.mu.Lock()
	defer f.m.mu.Unlock()
	if err := f.check("sync"); err != nil {
		return err
	}
	f.node.file.sync()
	return nil
}

func (f *memFile) Truncate(size int64) error {
	f.m.mu.Lock()
	defer f.m.mu.Unlock()
	if err := f.checkWrite("truncate"); err != nil {
		return err
	}
	if size < 0 {
		return pathError("truncate", f.name, fs.ErrInvalid)
	}
	f.m.truncate(f.node.file, size)
	return nil
}

func (f *memFile) Allocate(off, n int64) error {
	f.m.mu.Lock()
	defer f.m.mu.Unlock()
	if err := f.checkWrite("allocate"); err != nil {
		return err
	}
	if off < 0 || n <= 0 {
		return pathError("allocate", f.name, fs.ErrInvalid)
	}
	if err := f.reserve("allocate", off, n); err != nil {
		return err
	}
	d := f.node.file
	for i := off / memPage; i <= (off+n-1)/memPage; i++ {
		d.page(i)
	}
	if off+n > d.size {
		d.size = off + n
		d.sizes = append(d.sizes, d.size)
	}
	return nil
}

func (f *memFile) Size() (int64, error) {
	f.m.mu.Lock()
	defer f.m.mu.Unlock()
	if err := f.check("stat"); err != nil {
		return 0, err
	}
	return f.node.file.size, nil
}

func (f *memFile) Close() error {
	f.m.mu.Lock()
	defer f.m.mu.Unlock()
	if f.closed {
		return pathError("close", f.name, fs.ErrClosed)
	}
	f.closed = true
	return nil
}
