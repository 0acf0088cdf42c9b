package vfs

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// fallbackAlign serves where the kernel does not tell: every disk in use takes it.
const fallbackAlign = 4096

// OS returns the real file system.
func OS() FS { return osFS{} }

type osFS struct{}

type osFile struct {
	f      *os.File
	direct *DirectIO // nil when buffered
}

func (osFS) Open(name string, opt OpenOptions) (File, error) {
	flag := os.O_RDONLY
	if opt.writable() {
		flag = os.O_RDWR
	}
	if opt.Create {
		flag |= os.O_CREATE
	}
	if opt.Exclusive {
		flag |= os.O_EXCL
	}
	if opt.Truncate {
		flag |= os.O_TRUNC
	}
	if opt.Dsync {
		flag |= unix.O_DSYNC
	}
	if opt.Direct {
		if oDirect == 0 {
			return nil, fmt.Errorf("open %s: %w", name, ErrDirectUnsupported)
		}
		flag |= oDirect
	}
	f, err := os.OpenFile(name, flag, 0o644)
	if err != nil {
		if opt.Direct && errors.Is(err, unix.EINVAL) {
			return nil, fmt.Errorf("open %s: %w", name, ErrDirectUnsupported)
		}
		return nil, err
	}
	out := &osFile{f: f}
	if opt.Direct {
		d := directAlign(f)
		if !d.Available {
			return nil, errors.Join(fmt.Errorf("open %s: %w", name, ErrDirectUnsupported), f.Close())
		}
		out.direct = &d
	}
	if opt.Random {
		adviseRandom(f) // a hint: there is nothing to do about a refusal
	}
	return out, nil
}

func (osFS) MkdirAll(dir string) error    { return os.MkdirAll(dir, 0o755) }
func (osFS) Rename(from, to string) error { return os.Rename(from, to) }
func (osFS) Remove(name string) error     { return os.Remove(name) }

func (osFS) List(dir string) ([]string, error) {
	d, err := os.Open(dir)
	if err != nil {
		return nil, err
	}
	names, err := d.Readdirnames(-1)
	if err = errors.Join(err, d.Close()); err != nil {
		return nil, err
	}
	slices.Sort(names)
	return names, nil
}

func (osFS) Stat(name string) (FileInfo, error) {
	st, err := os.Stat(name)
	if err != nil {
		return FileInfo{}, err
	}
	return FileInfo{Size: st.Size(), IsDir: st.IsDir()}, nil
}

func (osFS) SyncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

func (osFS) Lock(name string) (io.Closer, error) {
	f, err := os.OpenFile(name, os.O_RDWR|os.O_CREATE, 0o644)
	if err != nil {
		return nil, err
	}
	err = control(f, func(fd int) error { return unix.Flock(fd, unix.LOCK_EX|unix.LOCK_NB) })
	if errors.Is(err, unix.EWOULDBLOCK) {
		var text [20]byte
		n, _ := f.ReadAt(text[:], 0) // the id only helps the message
		pid, _ := strconv.Atoi(strings.TrimSpace(string(text[:n])))
		return nil, errors.Join(&LockedError{Name: name, PID: pid}, f.Close())
	}
	if err == nil {
		err = f.Truncate(0)
	}
	if err == nil {
		_, err = f.WriteAt([]byte(strconv.Itoa(os.Getpid())+"\n"), 0)
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("lock %s: %w", name, err), f.Close())
	}
	return f, nil
}

func (osFS) Space(dir string) (Space, error) {
	var st unix.Statfs_t
	if err := unix.Statfs(dir, &st); err != nil {
		return Space{}, &fs.PathError{Op: "statfs", Path: dir, Err: err}
	}
	block := int64(st.Bsize)
	return Space{Total: int64(st.Blocks) * block, Available: int64(st.Bavail) * block}, nil
}

func (osFS) Direct(dir string) (DirectIO, error) {
	none := DirectIO{MemoryAlign: fallbackAlign, OffsetAlign: fallbackAlign}
	if oDirect == 0 || inMemoryFS(dir) {
		return none, nil
	}
	f, err := os.CreateTemp(dir, ".direct-probe-*")
	if err != nil {
		return none, err
	}
	defer os.Remove(f.Name())
	if err := f.Close(); err != nil {
		return none, err
	}
	// Some file systems take the flag and refuse the write: write once.
	probe, err := OS().Open(f.Name(), OpenOptions{Write: true, Direct: true})
	if errors.Is(err, ErrDirectUnsupported) {
		return none, nil
	}
	if err != nil {
		return none, err
	}
	d := *probe.(*osFile).direct
	_, err = probe.WriteAt(zeroes()[:max(fallbackAlign, d.OffsetAlign)], 0)
	if cerr := probe.Close(); cerr != nil {
		return none, cerr
	}
	if errors.Is(err, unix.EINVAL) || errors.Is(err, ErrUnaligned) {
		return none, nil
	}
	if err != nil {
		return none, err
	}
	return d, nil
}

func (o *osFile) ReadAt(p []byte, off int64) (int, error) {
	if o.direct != nil {
		if err := o.direct.checkAligned(p, off); err != nil {
			return 0, fmt.Errorf("read %s: %w", o.f.Name(), err)
		}
	}
	return o.f.ReadAt(p, off)
}

func (o *osFile) WriteAt(p []byte, off int64) (int, error) {
	if o.direct != nil {
		if err := o.direct.checkAligned(p, off); err != nil {
			return 0, fmt.Errorf("write %s: %w", o.f.Name(), err)
		}
	}
	return o.f.WriteAt(p, off)
}

func (o *osFile) Sync() error               { return o.f.Sync() }
func (o *osFile) Truncate(size int64) error { return o.f.Truncate(size) }
func (o *osFile) Close() error              { return o.f.Close() }

func (o *osFile) Size() (int64, error) {
	st, err := o.f.Stat()
	if err != nil {
		return 0, err
	}
	return st.Size(), nil
}

// control runs a system call on the descriptor while nobody can close it.
func control(f *os.File, call func(fd int) error) error {
	conn, err := f.SyscallConn()
	if err != nil {
		return err
	}
	var callErr error
	if err := conn.Control(func(fd uintptr) {
		for {
			if callErr = call(int(fd)); callErr != unix.EINTR {
				return
			}
		}
	}); err != nil {
		return err
	}
	return callErr
}
