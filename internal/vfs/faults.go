package vfs

import (
	"cmp"
	"fmt"
	"io"
	"math/bits"
	"math/rand/v2"
	"path"
	"sync"
	"syscall"
)

// Kind is a set of kinds of file system operations.
type Kind uint32

// One bit for each kind of operation.
const (
	KindOpen     Kind = 1 << iota // Open of a file that exists
	KindCreate                    // Open that makes a file
	KindMkdir                     // MkdirAll
	KindRename                    // Rename
	KindRemove                    // Remove
	KindList                      // List
	KindStat                      // Stat
	KindSyncDir                   // SyncDir
	KindLock                      // Lock
	KindSpace                     // Space
	KindDirect                    // Direct
	KindRead                      // File.ReadAt
	KindWrite                     // File.WriteAt
	KindSync                      // File.Sync and File.Datasync
	KindTruncate                  // File.Truncate
	KindAllocate                  // File.Allocate
	KindSize                      // File.Size
	KindClose                     // File.Close
	kinds        = iota
)

// Sets of kinds for sweeps.
const (
	// KindChange is every operation that changes the disk or makes it durable.
	KindChange = KindCreate | KindMkdir | KindRename | KindRemove | KindSyncDir |
		KindWrite | KindSync | KindTruncate | KindAllocate
	// KindAny is every operation.
	KindAny = Kind(1)<<kinds - 1
)

var kindNames = [kinds]string{"open", "create", "mkdir", "rename", "remove", "list", "stat", "sync directory",
	"lock", "space", "direct", "read", "write", "sync", "truncate", "allocate", "size", "close"}

// String names a single kind; a set prints as a number.
func (k Kind) String() string {
	if i := bits.TrailingZeros32(uint32(k)); i < kinds && k == 1<<i {
		return kindNames[i]
	}
	return fmt.Sprintf("kinds %#x", uint32(k))
}

// Effect is what an injected fault does.
type Effect uint8

const (
	// FailBefore returns the error; nothing happened.
	FailBefore Effect = iota
	// FailAfter does the operation and then returns the error.
	FailAfter
	// Tear writes some of the sectors of a WriteAt, not all of them and in no
	// particular place, and returns the error. Other kinds fail before.
	Tear
	// HangBefore waits for Fault.Release, then does the operation.
	HangBefore
	// HangTorn writes some sectors, waits for Fault.Release, then writes all.
	HangTorn
	// HangAfter does the operation, then waits for Fault.Release.
	HangAfter
	// FlipBit turns one bit of the bytes that are read or written; no error.
	FlipBit
)

var effectNames = [...]string{"fail before", "fail after", "tear", "hang before", "hang torn", "hang after", "flip bit"}

// String names the effect.
func (e Effect) String() string { return effectNames[e] }

// Rule selects operations and says what happens to them.
type Rule struct {
	Kinds Kind // which operations count; zero: KindChange
	// Pattern is a path.Match pattern for the last part of the name ("*.log"),
	// or for the whole name when it holds a slash; empty: every name. Rename
	// matches by either name.
	Pattern string
	// Nth is the first matching operation that is hit, from 1; zero: 1.
	Nth int
	// Times is how many in a row are hit; zero: 1; negative: all from then on.
	Times  int
	Effect Effect
	// Err is what is returned; nil: syscall.EIO. A hang returns it after its
	// release only when it is set.
	Err error
	// Seed picks the sectors and bits that Tear, HangTorn and FlipBit choose.
	Seed uint64
}

// Op describes one operation, for the report of a sweep.
type Op struct {
	Kind   Kind
	Name   string
	Offset int64 // of reads, writes and Allocate; the size of Truncate
	Length int
}

// String prints "write 0.log [4096,8192)".
func (o Op) String() string {
	if o.Length > 0 || o.Offset > 0 {
		return fmt.Sprintf("%v %s [%d,%d)", o.Kind, o.Name, o.Offset, o.Offset+int64(o.Length))
	}
	return fmt.Sprintf("%v %s", o.Kind, o.Name)
}

// Faulty wraps a file system, counts what is done and makes chosen operations
// fail. A sweep runs a scenario with Rule.Nth 1, 2, 3 … until the fault no
// longer fires.
type Faulty struct {
	fs FS

	mu     sync.Mutex
	faults []*Fault
	counts [kinds]uint64
}

// NewFaulty wraps fs; without rules it only counts.
func NewFaulty(fs FS) *Faulty { return &Faulty{fs: fs} }

// Fault is a rule at work.
type Fault struct {
	rule Rule
	hit  chan struct{} // closed when it first fires
	free chan struct{} // closed by Release

	// Guarded by Faulty.mu.
	owner *Faulty
	seen  int
	fired []Op
	rng   *rand.Rand
}

// Inject adds a rule. When several rules match an operation, the first added
// that fires wins; all of them count it.
func (f *Faulty) Inject(r Rule) *Fault {
	if r.Kinds == 0 {
		r.Kinds = KindChange
	}
	r.Nth, r.Times = max(r.Nth, 1), cmp.Or(r.Times, 1)
	ft := &Fault{rule: r, owner: f, hit: make(chan struct{}), free: make(chan struct{}),
		rng: rand.New(rand.NewPCG(r.Seed, 0x9e3779b9))}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.faults = append(f.faults, ft)
	return ft
}

// Clear removes all rules and releases everything that hangs.
func (f *Faulty) Clear() {
	f.mu.Lock()
	faults := f.faults
	f.faults = nil
	f.mu.Unlock()
	for _, ft := range faults {
		ft.Release()
	}
}

// Count returns how many operations of the kinds were asked for, hit or not.
func (f *Faulty) Count(k Kind) uint64 {
	f.mu.Lock()
	defer f.mu.Unlock()
	var n uint64
	for i := range f.counts {
		if k&(1<<i) != 0 {
			n += f.counts[i]
		}
	}
	return n
}

// Fired returns the operations that the fault hit so far.
func (ft *Fault) Fired() []Op {
	ft.owner.mu.Lock()
	defer ft.owner.mu.Unlock()
	return append([]Op(nil), ft.fired...)
}

// Hit is closed when the fault fires for the first time.
func (ft *Fault) Hit() <-chan struct{} { return ft.hit }

// Release lets everything that this fault holds go on, now and later.
func (ft *Fault) Release() {
	ft.owner.mu.Lock()
	defer ft.owner.mu.Unlock()
	select {
	case <-ft.free:
	default:
		close(ft.free)
	}
}

func (r Rule) matches(op Op, other string) bool {
	if r.Kinds&op.Kind == 0 {
		return false
	}
	if r.Pattern == "" {
		return true
	}
	for _, name := range []string{op.Name, other} {
		if name == "" {
			continue
		}
		if path.Base(r.Pattern) == r.Pattern {
			name = path.Base(name)
		}
		if ok, err := path.Match(r.Pattern, name); ok && err == nil {
			return true
		}
	}
	return false
}

// begin counts an operation and returns the fault that hits it, if any, with a
// seed of its own.
func (f *Faulty) begin(op Op, other string) (*Fault, uint64) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.counts[bits.TrailingZeros32(uint32(op.Kind))]++
	var hit *Fault
	for _, ft := range f.faults {
		if !ft.rule.matches(op, other) {
			continue
		}
		ft.seen++
		past := ft.seen - ft.rule.Nth
		if hit == nil && past >= 0 && (ft.rule.Times < 0 || past < ft.rule.Times) {
			hit = ft
		}
	}
	if hit == nil {
		return nil, 0
	}
	if len(hit.fired) == 0 {
		close(hit.hit)
	}
	hit.fired = append(hit.fired, op)
	return hit, hit.rng.Uint64()
}

func (ft *Fault) err(op Op) error {
	cause := ft.rule.Err
	if cause == nil {
		cause = syscall.EIO
	}
	return pathError(op.Kind.String(), op.Name, cause)
}

// around does an operation under the fault that hits it.
func (f *Faulty) around(op Op, other string, do func() error) error {
	ft, _ := f.begin(op, other)
	if ft == nil {
		return do()
	}
	return ft.around(op, do)
}

// around does an operation that the fault hits. What Tear and HangTorn do to
// the bytes is done before (faultyFile.tear); flipped bits never come here.
func (ft *Fault) around(op Op, do func() error) error {
	switch ft.rule.Effect {
	case FailBefore, Tear:
		return ft.err(op)
	case HangBefore, HangTorn:
		<-ft.free
		if ft.rule.Err != nil {
			return ft.err(op)
		}
		return do()
	case FlipBit: // of an operation without bytes: nothing to flip
		return do()
	}
	if err := do(); err != nil {
		return err
	}
	if ft.rule.Effect == HangAfter {
		<-ft.free
		if ft.rule.Err == nil {
			return nil
		}
	}
	return ft.err(op)
}

// Open implements FS.
func (f *Faulty) Open(name string, opt OpenOptions) (out File, err error) {
	kind := KindOpen
	if opt.Create {
		if _, err := f.fs.Stat(name); err != nil {
			kind = KindCreate
		}
	}
	err = f.around(Op{Kind: kind, Name: name}, "", func() error {
		inner, err := f.fs.Open(name, opt)
		if err == nil {
			out = &faultyFile{f: f, file: inner, name: name}
		}
		return err
	})
	if err != nil && out != nil { // failed after its effect: the caller has no handle to close
		_ = out.(*faultyFile).file.Close()
		out = nil
	}
	return out, err
}

// MkdirAll implements FS.
func (f *Faulty) MkdirAll(dir string) error {
	return f.around(Op{Kind: KindMkdir, Name: dir}, "", func() error { return f.fs.MkdirAll(dir) })
}

// Rename implements FS.
func (f *Faulty) Rename(from, to string) error {
	return f.around(Op{Kind: KindRename, Name: from}, to, func() error { return f.fs.Rename(from, to) })
}

// Remove implements FS.
func (f *Faulty) Remove(name string) error {
	return f.around(Op{Kind: KindRemove, Name: name}, "", func() error { return f.fs.Remove(name) })
}

// List implements FS.
func (f *Faulty) List(dir string) (names []string, err error) {
	err = f.around(Op{Kind: KindList, Name: dir}, "", func() (err error) {
		names, err = f.fs.List(dir)
		return err
	})
	return names, err
}

// Stat implements FS.
func (f *Faulty) Stat(name string) (info FileInfo, err error) {
	err = f.around(Op{Kind: KindStat, Name: name}, "", func() (err error) {
		info, err = f.fs.Stat(name)
		return err
	})
	return info, err
}

// SyncDir implements FS.
func (f *Faulty) SyncDir(dir string) error {
	return f.around(Op{Kind: KindSyncDir, Name: dir}, "", func() error { return f.fs.SyncDir(dir) })
}

// Lock implements FS.
func (f *Faulty) Lock(name string) (lock io.Closer, err error) {
	err = f.around(Op{Kind: KindLock, Name: name}, "", func() (err error) {
		lock, err = f.fs.Lock(name)
		return err
	})
	if err != nil && lock != nil {
		_ = lock.Close()
		lock = nil
	}
	return lock, err
}

// Space implements FS.
func (f *Faulty) Space(dir string) (space Space, err error) {
	err = f.around(Op{Kind: KindSpace, Name: dir}, "", func() (err error) {
		space, err = f.fs.Space(dir)
		return err
	})
	return space, err
}

// Direct implements FS.
func (f *Faulty) Direct(dir string) (d DirectIO, err error) {
	err = f.around(Op{Kind: KindDirect, Name: dir}, "", func() (err error) {
		d, err = f.fs.Direct(dir)
		return err
	})
	return d, err
}
