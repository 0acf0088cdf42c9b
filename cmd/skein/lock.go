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
// for whoever wonders.
func lockDirs(dirs []string) (unlock func(), err error) {
	var held []*os.File
	unlock = func() {
		for _, f := range held {
			f.Close()
		}
	}
	var problems []error
	missing := func(d string) bool { _, err := os.Stat(d); return errors.Is(err, os.ErrNotExist) }
	there := slices.DeleteFunc(slices.Clone(dirs), missing)
	rest := slices.DeleteFunc(slices.Clone(dirs), func(d string) bool { return slices.Contains(there, d) })
	for _, list := range [][]string{there, rest} {
		for _, d := range list {
			f, err := lockDir(d)
			if err != nil {
				problems = append(problems, err)
				continue
			}
			held = append(held, f)
		}
		if len(problems) > 0 {
			unlock()
			return nil, errors.Join(problems...)
		}
	}
	return unlock, nil
}

func lockDir(dir string) (*os.File, error) {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, fmt.Errorf("data %s: %w", dir, err)
	}
	f, err := os.OpenFile(filepath.Join(dir, pidName), os.O_RDWR|os.O_CREATE, 0o644)
	if err != nil {
		return nil, fmt.Errorf("data %s: %w", dir, err)
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		pid, _ := io.ReadAll(io.LimitReader(f, 32))
		f.Close()
		if errors.Is(err, syscall.EWOULDBLOCK) {
			return nil, fmt.Errorf("data %s: process %s serves it", dir, strings.TrimSpace(string(pid)))
		}
		return nil, fmt.Errorf("data %s: lock: %w", dir, err)
	}
	pid := strconv.Itoa(os.Getpid()) + "\n"
	if err := errors.Join(f.Truncate(0), writeAt(f, pid)); err != nil {
		f.Close()
		return nil, fmt.Errorf("data %s: %w", dir, err)
	}
	return f, nil
}

func writeAt(f *os.File, text string) error {
	_, err := f.WriteAt([]byte(text), 0)
	return err
}
