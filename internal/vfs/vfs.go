// Package vfs is the seam between Skein and the disk: the few file operations
// that the log needs, each with what it does not promise, so that a simulated
// disk (Mem) and a fault injector (Faulty) can stand in for the real one (OS).
//
// It promises nothing about the content of files and knows no format. Names
// are slash-separated paths in the form of the host's file system. Every error
// of a file system call wraps the cause, so errors.Is works with io/fs and
// syscall errors alike (fs.ErrNotExist, syscall.ENOSPC, syscall.EIO).
package vfs

import (
	"errors"
	"io"
	"strconv"
)

// Sentinels that callers branch on.
var (
	// ErrUnaligned: a buffer address, offset or length of direct I/O is not a
	// multiple of what DirectIO asks for. Nothing was read or written.
	ErrUnaligned = errors.New("direct I/O is not aligned")
	// ErrDirectUnsupported: Open asked for direct I/O where Direct reports none.
	ErrDirectUnsupported = errors.New("direct I/O is not supported here")
	// ErrLocked: another holder has the lock. See LockedError.
	ErrLocked = errors.New("file is locked")
)

// LockedError says who holds a lock file.
type LockedError struct {
	Name string // the lock file
	PID  int    // process id written in it; 0 when it holds none
}

// Error names the file and, when known, the process.
func (e *LockedError) Error() string {
	if e.PID == 0 {
		return "lock " + e.Name + ": held by another process"
	}
	return "lock " + e.Name + ": held by process " + strconv.Itoa(e.PID)
}

// Is makes errors.Is(err, ErrLocked) true.
func (e *LockedError) Is(target error) bool { return target == ErrLocked }

// OpenOptions says how a file is opened. The zero value opens an existing file
// for buffered reading.
type OpenOptions struct {
	Write     bool // for reading and writing
	Create    bool // make the file when it is not there; implies Write
	Exclusive bool // with Create: fail with fs.ErrExist when it is there
	Truncate  bool // empty the file; implies Write

	// Direct bypasses the page cache: every buffer address, offset and length
	// must be aligned as DirectIO says, else ErrUnaligned. Direct alone makes
	// nothing durable: the device has a cache too.
	Direct bool
	// Dsync makes every WriteAt durable, with the file size it needs, before it
	// returns without an error. It does not make the file's name durable: that
	// takes SyncDir.
	Dsync bool
	// Random is a hint that reads will jump: no read-ahead. It may do nothing.
	Random bool
}

func (o OpenOptions) writable() bool { return o.Write || o.Create || o.Truncate }

// FileInfo is what Stat tells.
type FileInfo struct {
	Size  int64 // bytes; not meaningful for a directory
	IsDir bool
}

// Space is the room of the file system that holds a directory, in bytes.
type Space struct {
	Total     int64
	Available int64 // to us, without what is reserved for the administrator
}

// DirectIO says whether direct I/O works for files of a directory, and the
// alignment it needs, in bytes. Both alignments are powers of two and are
// usable numbers (4096) even where Available is false, so that one layout
// serves both paths.
type DirectIO struct {
	Available   bool
	MemoryAlign int // of buffer addresses
	OffsetAlign int // of file offsets and of lengths
}

// FS is a file system. Its methods may be called concurrently.
//
// Namespace changes (a file made by Open, MkdirAll, Rename, Remove) are seen at
// once by every caller but are NOT durable until SyncDir of the directory that
// holds the name returned. Until then a power cut may keep or lose each of
// them; it keeps their order only where they touch the same name or file.
type FS interface {
	// Open opens or creates a file. NOT promised: that a created name survives
	// a power cut (SyncDir), not even after File.Sync.
	Open(name string, opt OpenOptions) (File, error)
	// MkdirAll makes a directory and its parents; existing ones are no error.
	// NOT promised: durability; every parent needs its own SyncDir.
	MkdirAll(dir string) error
	// Rename gives a file another name in one step, replacing a file that has
	// it. NOT promised: durability (SyncDir; of both directories when they
	// differ), nor that the file's data reached the disk before its new name.
	Rename(from, to string) error
	// Remove unlinks a file or an empty directory. Open files stay readable.
	// NOT promised: durability, so a removed file may come back; nor that its
	// space is free before the last open handle is closed.
	Remove(name string) error
	// List returns the names in a directory, without their path, sorted.
	// NOT promised: one consistent moment while others rename.
	List(dir string) ([]string, error)
	// Stat describes a file or directory; fs.ErrNotExist when there is none.
	Stat(name string) (FileInfo, error)
	// SyncDir makes the names in a directory durable. NOT promised: the data of
	// the files, the names in its parent, or anything after an error: a failed
	// sync is never repeated (the kernel may have dropped what failed).
	SyncDir(dir string) error
	// Lock takes an exclusive lock, making the file when needed and writing our
	// process id into it. It never waits: *LockedError (ErrLocked) when taken.
	// Closing releases; so does the end of the process. The file stays behind.
	// NOT promised: anything against programs that do not ask for the lock, or
	// over network file systems.
	Lock(name string) (io.Closer, error)
	// Space reports room. NOT promised: that it is still there a moment later.
	Space(dir string) (Space, error)
	// Direct reports whether direct I/O works in a directory, by trying. NOT
	// promised: the same answer for another directory, even a child.
	Direct(dir string) (DirectIO, error)
}

// File is an open file. ReadAt and WriteAt may run concurrently with each other
// as long as overlapping ranges are not written; Close must come last.
type File interface {
	// ReadAt is io.ReaderAt: io.EOF with fewer bytes than asked at the end.
	// NOT promised: that what it returns is on the disk.
	io.ReaderAt
	// WriteAt writes all of p or returns an error; writing past the end makes
	// the file longer. It does not keep p or change it. NOT promised: durability
	// (unless opened with Dsync); atomicity: after an error or a power cut each
	// 512-byte sector of the range may be old or new, in any mixture.
	io.WriterAt
	// Datasync makes all written data durable, and the size. NOT promised: the
	// file's name; other metadata; anything after an error: never repeat it.
	Datasync() error
	// Sync is Datasync with all metadata. The same is not promised.
	Sync() error
	// Truncate sets the size. Growing adds zeroes that take no space (a later
	// write may meet ENOSPC). NOT promised: durability before Sync.
	Truncate(size int64) error
	// Allocate reserves space for a range and grows the file to its end, so that
	// later writes do not meet ENOSPC. NOT promised: speed of the first write,
	// which still changes metadata (see ZeroFill); reservation at all where the
	// host cannot (darwin only grows the file); durability.
	Allocate(off, n int64) error
	// WillNeed is a hint that buffered reads of a range come soon. It returns before
	// they would be fast, and may do nothing.
	WillNeed(off, n int64)
	// Size returns the current length in bytes.
	Size() (int64, error)
	// Close releases the handle. NOT promised: durability of anything.
	Close() error
}
