package faultdisk

import (
	"errors"
	"os"
	"path/filepath"
	"syscall"
)

// Fill takes the room of the file system below dir but for the bytes that are to be left, with one file that costs no
// writes. empty gives it back. A file of an earlier call grows.
func Fill(dir string, left int64) (empty func() error, err error) {
	name := filepath.Join(dir, "ballast")
	f, err := os.OpenFile(name, os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	for at := info.Size(); ; {
		var st syscall.Statfs_t
		if err := syscall.Statfs(dir, &st); err != nil {
			return nil, err
		}
		room := int64(st.Bavail)*st.Bsize - left
		if room <= 0 {
			return func() error { return os.Remove(name) }, nil
		}
		for ; room >= st.Bsize; room /= 2 { // somebody else may have taken some, and extents take some themselves
			if err = syscall.Fallocate(int(f.Fd()), 0, at, room); err == nil {
				at += room
				break
			} else if !errors.Is(err, syscall.ENOSPC) {
				return nil, err
			}
		}
		if room < st.Bsize {
			return func() error { return os.Remove(name) }, nil
		}
	}
}
