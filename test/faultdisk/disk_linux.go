package faultdisk

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// The kernel's requests, of linux/fs.h and of ext4 (which has them from XFS).
const (
	freeze   = 0xc0045877 // FIFREEZE
	thaw     = 0xc0045878 // FITHAW
	shutdown = 0x8004587d // EXT4_IOC_SHUTDOWN
)

// noFlush is the way of shutting down that writes nothing more: what was not synced is lost, as when a disk is gone.
const noFlush = 2

// busyPatience is how long an unmount may be refused because a process that was killed is not gone yet.
const busyPatience = 20 * time.Second

// Disk is a mounted file system. One goroutine at a time uses it.
type Disk struct {
	Dir string // where it is mounted

	image string
	root  *os.File // nil while it is not mounted
	guard *guard
}

// New makes a file system of so many bytes in a sparse file, image below dir, and mounts it below dir. Close takes it
// away; so does the end of this process, however it ends.
func New(dir string, size int64) (*Disk, error) {
	if os.Geteuid() != 0 {
		return nil, fmt.Errorf("%w: mounting one takes root", ErrUnsupported)
	}
	d := &Disk{Dir: filepath.Join(dir, "disk"), image: filepath.Join(dir, "image")}
	if err := os.Mkdir(d.Dir, 0o755); err != nil {
		return nil, err
	}
	f, err := os.Create(d.image)
	if err != nil {
		return nil, err
	}
	if err := errors.Join(f.Truncate(size), f.Close()); err != nil {
		return nil, err
	}
	if err := command("mkfs.ext4", "-q", "-F", "-m", "0", "-E", "lazy_itable_init=1,lazy_journal_init=1", d.image); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrUnsupported, err)
	}
	if d.guard, err = newGuard(d.Dir); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrUnsupported, err)
	}
	if err := d.mount(); err != nil {
		d.guard.release()
		return nil, fmt.Errorf("%w: %w", ErrUnsupported, err)
	}
	return d, nil
}

func (d *Disk) mount() (err error) {
	if err = command("mount", "-o", "loop", d.image, d.Dir); err != nil {
		return err
	}
	d.root, err = os.Open(d.Dir)
	return err
}

// unmount waits for processes that are just ending. When it returns nil the image is nobody's.
func (d *Disk) unmount() error {
	err := errors.Join(d.root.Close())
	d.root = nil
	for end := time.Now().Add(busyPatience); ; time.Sleep(20 * time.Millisecond) {
		uerr := syscall.Unmount(d.Dir, 0)
		if uerr == nil || !errors.Is(uerr, syscall.EBUSY) || time.Now().After(end) {
			return errors.Join(err, uerr)
		}
	}
}

// Hang lets every write, sync and change of a name wait until Resume. A process that waits there cannot even be killed.
func (d *Disk) Hang() error {
	if err := unix.IoctlSetInt(int(d.root.Fd()), freeze, 0); err != nil {
		return fmt.Errorf("hang the disk: %w", err)
	}
	return nil
}

// Resume lets what waits go on.
func (d *Disk) Resume() error {
	if err := unix.IoctlSetInt(int(d.root.Fd()), thaw, 0); err != nil {
		return fmt.Errorf("let the disk go on: %w", err)
	}
	return nil
}

// Fail lets every call, reads too, end with EIO from now on. What was not synced is lost.
func (d *Disk) Fail() error {
	if err := unix.IoctlSetPointerInt(int(d.root.Fd()), shutdown, noFlush); err != nil {
		return fmt.Errorf("fail the disk: %w", err)
	}
	return nil
}

// Heal mounts a failed disk anew; nobody may have a file open there.
func (d *Disk) Heal() error { return errors.Join(d.unmount(), d.mount()) }

// Close takes the disk away, in whatever state it is.
func (d *Disk) Close() error {
	var err error
	if d.root != nil {
		_ = unix.IoctlSetInt(int(d.root.Fd()), thaw, 0) // it hangs only after a test that failed
		err = d.unmount()
	}
	return errors.Join(err, d.guard.release(), os.Remove(d.image))
}

// guard is a process that ends when this one does, and then takes the mount away: a file system that hangs for ever
// would hang whoever syncs the machine.
type guard struct {
	cmd *exec.Cmd
	end io.Closer
}

const guardScript = `trap '' HUP INT QUIT TERM
cat >/dev/null
fsfreeze -u "$0" 2>/dev/null
umount -l "$0" 2>/dev/null
exit 0`

func newGuard(dir string) (*guard, error) {
	if _, err := exec.LookPath("fsfreeze"); err != nil {
		return nil, err
	}
	cmd := exec.Command("sh", "-c", guardScript, dir)
	end, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} // an interrupt of the tests is not meant for it
	return &guard{cmd: cmd, end: end}, cmd.Start()
}

func (g *guard) release() error { return errors.Join(g.end.Close(), g.cmd.Wait()) }

func command(name string, args ...string) error {
	var stderr bytes.Buffer
	cmd := exec.Command(name, args...)
	cmd.Stderr = &stderr
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("%s: %w: %s", name, err, bytes.TrimSpace(stderr.Bytes()))
	}
	return nil
}
