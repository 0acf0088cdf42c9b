package vfs

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path"
	"slices"
	"strings"
	"sync"
	"syscall"
)

// SectorSize is the unit that a disk writes whole: the smallest piece that a
// power cut leaves either old or new.
const SectorSize = 512

// ErrHalted is what a halted Mem answers to everything.
var ErrHalted = errors.New("simulated disk is halted")

// Mem is a simulated disk for tests. It keeps what was written apart from what
// is durable, per sector and per directory entry, and Crash returns the disk as
// a power cut would leave it. It is stricter than the usual file systems: a
// file's sync does not keep its name, and unsynced sectors and names reach the
// disk in any order. It checks the alignment of direct I/O as a device would.
type Mem struct {
	mu       sync.Mutex
	root     *memNode
	ops      []memOp // namespace changes that no SyncDir covered, oldest first
	locks    map[*memNode]bool
	direct   DirectIO
	capacity int64 // bytes that data may take, in whole pages
	used     int64
	halted   bool
}

// memNode is a directory (file nil) or a file.
type memNode struct {
	entries map[string]*memNode // as seen now
	durable map[string]*memNode // as on the disk
	file    *memData
}

// memOp is one namespace change: what the named entries become, together.
type memOp struct{ changes []memChange }

type memChange struct {
	dir  *memNode
	name string
	from *memNode // nil: there was none
	to   *memNode // nil: the name goes
}

// NewMem returns an empty disk with room for 1 TiB, with direct I/O aligned to
// SectorSize, and with a root directory that every name starts from.
func NewMem() *Mem {
	return &Mem{
		root:     newMemDir(),
		locks:    map[*memNode]bool{},
		direct:   DirectIO{Available: true, MemoryAlign: SectorSize, OffsetAlign: SectorSize},
		capacity: 1 << 40,
	}
}

func newMemDir() *memNode {
	return &memNode{entries: map[string]*memNode{}, durable: map[string]*memNode{}}
}

// SetCapacity bounds the bytes that files may take; writes beyond it fail with
// ENOSPC. Space is counted in pages of 4 KiB.
func (m *Mem) SetCapacity(bytes int64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.capacity = bytes
}

// SetDirect replaces what Direct answers and Open checks (not Available: tmpfs).
func (m *Mem) SetDirect(d DirectIO) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.direct = d
}

// Halt makes every later operation fail with ErrHalted, so that goroutines of a
// process that crashed in the test find no disk any more.
func (m *Mem) Halt() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.halted = true
}

func splitPath(name string) []string {
	return strings.FieldsFunc(path.Clean("/"+name), func(r rune) bool { return r == '/' })
}

func pathError(op, name string, err error) error {
	return &fs.PathError{Op: op, Path: name, Err: err}
}

// find returns the node of a name.
func (m *Mem) find(op, name string) (*memNode, error) {
	if m.halted {
		return nil, pathError(op, name, ErrHalted)
	}
	n := m.root
	for _, part := range splitPath(name) {
		if n.file != nil {
			return nil, pathError(op, name, syscall.ENOTDIR)
		}
		if n = n.entries[part]; n == nil {
			return nil, pathError(op, name, fs.ErrNotExist)
		}
	}
	return n, nil
}

// findParent returns the directory that holds a name, and the name's last part.
func (m *Mem) findParent(op, name string) (*memNode, string, error) {
	parts := splitPath(name)
	if len(parts) == 0 {
		return nil, "", pathError(op, name, fs.ErrInvalid)
	}
	dir, err := m.find(op, path.Join(parts[:len(parts)-1]...))
	if err != nil {
		return nil, "", pathError(op, name, errors.Unwrap(err))
	}
	if dir.file != nil {
		return nil, "", pathError(op, name, syscall.ENOTDIR)
	}
	return dir, parts[len(parts)-1], nil
}

// change applies a namespace change to what is seen, and remembers it as not
// yet durable.
func (m *Mem) change(changes ...memChange) {
	for _, c := range changes {
		c.apply(c.dir.entries)
	}
	m.ops = append(m.ops, memOp{changes})
}

func (c memChange) apply(entries map[string]*memNode) {
	if c.to == nil {
		delete(entries, c.name)
		return
	}
	entries[c.name] = c.to
}

// forget counts the space of a file that lost its name as free.
func (m *Mem) forget(d *memData) {
	m.used -= d.pagesBytes()
	d.gone = true
}

func (m *Mem) truncate(d *memData, size int64) {
	change := d.truncate(size)
	if !d.gone {
		m.used += change
	}
}

// dependsOn is true when later cannot be durable without earlier: they touch
// the same name or the same file.
func (later memOp) dependsOn(earlier memOp) bool {
	for _, l := range later.changes {
		for _, e := range earlier.changes {
			if l.dir == e.dir && l.name == e.name {
				return true
			}
			if l.to != nil && (l.to == e.to || l.to == e.from) {
				return true
			}
			if l.from != nil && (l.from == e.to || l.from == e.from) {
				return true
			}
		}
	}
	return false
}

// Open implements FS.
func (m *Mem) Open(name string, opt OpenOptions) (File, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	dir, base, err := m.findParent("open", name)
	if err != nil {
		return nil, err
	}
	n := dir.entries[base]
	switch {
	case n == nil && !opt.Create:
		return nil, pathError("open", name, fs.ErrNotExist)
	case n != nil && opt.Create && opt.Exclusive:
		return nil, pathError("open", name, fs.ErrExist)
	case n != nil && n.file == nil:
		return nil, pathError("open", name, syscall.EISDIR)
	}
	if opt.Direct && !m.direct.Available {
		return nil, pathError("open", name, ErrDirectUnsupported)
	}
	if n == nil {
		n = &memNode{file: newMemData()}
		m.change(memChange{dir: dir, name: base, to: n})
	}
	if opt.Truncate {
		m.truncate(n.file, 0)
	}
	return &memFile{m: m, node: n, name: name, opt: opt}, nil
}

// MkdirAll implements FS.
func (m *Mem) MkdirAll(dir string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.halted {
		return pathError("mkdir", dir, ErrHalted)
	}
	n := m.root
	for _, part := range splitPath(dir) {
		next := n.entries[part]
		if next == nil {
			next = newMemDir()
			m.change(memChange{dir: n, name: part, to: next})
		}
		if next.file != nil {
			return pathError("mkdir", dir, syscall.ENOTDIR)
		}
		n = next
	}
	return nil
}

// Rename implements FS.
func (m *Mem) Rename(from, to string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	fromDir, fromBase, err := m.findParent("rename", from)
	if err != nil {
		return err
	}
	toDir, toBase, err := m.findParent("rename", to)
	if err != nil {
		return err
	}
	n, old := fromDir.entries[fromBase], toDir.entries[toBase]
	switch {
	case n == nil:
		return pathError("rename", from, fs.ErrNotExist)
	case n == old:
		return nil
	case old != nil && (old.file == nil || n.file == nil):
		return pathError("rename", to, fs.ErrExist)
	}
	if old != nil {
		m.forget(old.file)
	}
	m.change(memChange{dir: fromDir, name: fromBase, from: n},
		memChange{dir: toDir, name: toBase, from: old, to: n})
	return nil
}

// Remove implements FS.
func (m *Mem) Remove(name string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	dir, base, err := m.findParent("remove", name)
	if err != nil {
		return err
	}
	n := dir.entries[base]
	switch {
	case n == nil:
		return pathError("remove", name, fs.ErrNotExist)
	case n.file == nil && len(n.entries) > 0:
		return pathError("remove", name, syscall.ENOTEMPTY)
	case n.file != nil:
		m.forget(n.file)
	}
	m.change(memChange{dir: dir, name: base, from: n})
	return nil
}

// List implements FS.
func (m *Mem) List(dir string) ([]string, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	n, err := m.find("list", dir)
	if err != nil {
		return nil, err
	}
	if n.file != nil {
		return nil, pathError("list", dir, syscall.ENOTDIR)
	}
	return slices.Sorted(maps.Keys(n.entries)), nil
}

// Stat implements FS.
func (m *Mem) Stat(name string) (FileInfo, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	n, err := m.find("stat", name)
	if err != nil {
		return FileInfo{}, err
	}
	if n.file == nil {
		return FileInfo{IsDir: true}, nil
	}
	return FileInfo{Size: n.file.size}, nil
}

// SyncDir implements FS: the changes that touch the directory, and those they
// depend on, become durable.
func (m *Mem) SyncDir(dir string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	n, err := m.find("sync directory", dir)
	if err != nil {
		return err
	}
	if n.file != nil {
		return pathError("sync directory", dir, syscall.ENOTDIR)
	}
	wanted := make([]bool, len(m.ops))
	for i, op := range slices.Backward(m.ops) {
		wanted[i] = slices.ContainsFunc(op.changes, func(c memChange) bool { return c.dir == n })
		for j := i + 1; j < len(m.ops) && !wanted[i]; j++ {
			wanted[i] = wanted[j] && m.ops[j].dependsOn(op)
		}
	}
	var left []memOp
	for i, op := range m.ops {
		if !wanted[i] {
			left = append(left, op)
			continue
		}
		for _, c := range op.changes {
			c.apply(c.dir.durable)
		}
	}
	m.ops = left
	return nil
}

type memLock struct {
	m    *Mem
	node *memNode
}

// Lock implements FS. The lock belongs to this Mem; a crashed copy has none.
func (m *Mem) Lock(name string) (io.Closer, error) {
	f, err := m.Open(name, OpenOptions{Create: true})
	if err != nil {
		return nil, err
	}
	node := f.(*memFile).node
	m.mu.Lock()
	held := m.locks[node]
	m.locks[node] = true
	m.mu.Unlock()
	if held {
		return nil, &LockedError{Name: name, PID: os.Getpid()}
	}
	if err := f.Truncate(0); err != nil {
		return nil, err
	}
	if _, err := fmt.Fprintf(io.NewOffsetWriter(f, 0), "%d\n", os.Getpid()); err != nil {
		return nil, err
	}
	return &memLock{m: m, node: node}, nil
}

// Close releases the lock.
func (l *memLock) Close() error {
	l.m.mu.Lock()
	defer l.m.mu.Unlock()
	if !l.m.locks[l.node] {
		return fs.ErrClosed
	}
	delete(l.m.locks, l.node)
	return nil
}

// Space implements FS.
func (m *Mem) Space(dir string) (Space, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if _, err := m.find("space", dir); err != nil {
		return Space{}, err
	}
	return Space{Total: m.capacity, Available: max(m.capacity-m.used, 0)}, nil
}

// Direct implements FS.
func (m *Mem) Direct(dir string) (DirectIO, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if _, err := m.find("direct", dir); err != nil {
		return DirectIO{}, err
	}
	return m.direct, nil
}
