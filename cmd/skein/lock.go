package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
)

// pidName is the lock file in a data directory.
const pidName = "pid"

// lockDirs takes every data directory, making those that are missing once all others are taken. The lock
// is DIR/pid: the kernel lets go of it when the process ends, however it ends. It holds the process id
// for whoever wonders. If one cannot be taken all are left as they were.
func lockDirs(dirs []string) (unlock func(), err error) {
	l, err := holdDirs(dirs)
	if err == nil {
		err = l.sign()
	}
	if err != nil {
		l.undo()
		return nil, err
	}
	return l.release, nil
}

// tryLockDirs names directories that cannot be taken, and takes none.
func tryLockDirs(dirs []string) error {
	l, err := holdDirs(dirs)
	l.undo()
	return err
}

// locks are the lock files that are held, and what was made for them: outer directories first.
type locks struct {
	held []*os.File
	made []string
}

func (l *locks) release() {
	for _, f := range l.held {
		f.Close()
	}
}

// undo takes away what was made. That comes before the release: holdDir sees by it that a file is no longer the lock.
func (l *locks) undo() {
	for _, path := range slices.Backward(l.made) {
		os.Remove(path) // a directory in which somebody else has put something stays
	}
	l.release()
}

// sign writes the process id into the lock files.
func (l *locks) sign() error {
	var problems []error
	for _, f := range l.held {
		pid := strconv.Itoa(os.Getpid()) + "\n"
		if err := errors.Join(f.Truncate(0), writeAt(f, pid)); err != nil {
			problems = append(problems, fmt.Errorf("data %s: %w", filepath.Dir(f.Name()), err))
		}
	}
	return errors.Join(problems...)
}

func holdDirs(dirs []string) (*locks, error) {
	l := &locks{}
	missing := func(d string) bool { _, err := os.Stat(d); return errors.Is(err, os.ErrNotExist) }
	there := slices.DeleteFunc(slices.Clone(dirs), missing)
	rest := slices.DeleteFunc(slices.Clone(dirs), func(d string) bool { return slices.Contains(there, d) })
	for _, list := range [][]string{there, rest} {
		var problems []error
		for _, d := range list {
			if err := l.hold(d); err != nil {
				problems = append(problems, err)
			}
		}
		if len(problems) > 0 {
			return l, errors.Join(problems...)
		}
	}
	return l, nil
}

// hold takes one directory.
func (l *locks) hold(dir string) error {
	if err := l.makeDirs(dir); err != nil {
		return fmt.Errorf("data %s: %w", dir, err)
	}
	path := filepath.Join(dir, pidName)
	for {
		_, absent := os.Lstat(path)
		f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o644)
		if err != nil {
			return fmt.Errorf("data %s: %w", dir, err)
		}
		if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
			pid, _ := io.ReadAll(io.LimitReader(f, 32))
			f.Close()
			if errors.Is(err, syscall.EWOULDBLOCK) {
				return fmt.Errorf("data %s: process %s serves it", dir, strings.TrimSpace(string(pid)))
			}
			return fmt.Errorf("data %s: lock: %w", dir, err)
		}
		// A process that was refused takes its lock file away. Whoever had opened that one has locked a file
		// that nobody else will find.
		if !isAt(f, path) {
			f.Close()
			continue
		}
		l.held = append(l.held, f)
		if absent != nil {
			l.made = append(l.made, path)
		}
		return nil
	}
}

func isAt(f *os.File, path string) bool {
	mine, err := f.Stat()
	there, errThere := os.Stat(path)
	return err == nil && errThere == nil && os.SameFile(mine, there)
}

// makeDirs makes a directory and those that it lies in, and notes them.
func (l *locks) makeDirs(dir string) error {
	absent, _ := absentDirs(dir)
	slices.Reverse(absent)
	l.made = append(l.made, absent...)
	return os.MkdirAll(dir, 0o755)
}

// absentDirs lists a directory and those that it lies in, as far as they are not there, inner ones first, and names the one that
// they would be made in.
func absentDirs(dir string) (absent []string, in string) {
	in = filepath.Clean(dir)
	for in != filepath.Dir(in) {
		if _, err := os.Stat(in); !errors.Is(err, os.ErrNotExist) {
			break
		}
		absent, in = append(absent, in), filepath.Dir(in)
	}
	return absent, in
}

// mayMake tells of a directory without a lock file whether one could be made, as far as that shows without trying.
func mayMake(dir string) error {
	_, in := absentDirs(dir)
	const write = 2 // W_OK
	if err := syscall.Access(in, write); err != nil {
		return fmt.Errorf("data %s: cannot write to %s: %w", dir, in, err)
	}
	return nil
}

func writeAt(f *os.File, text string) error {
	_, err := f.WriteAt([]byte(text), 0)
	return err
}
