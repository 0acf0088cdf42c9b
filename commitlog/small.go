package commitlog

import (
	"errors"
	"io"
	"path/filepath"

	"github.com/skeinmq/skein/internal/vfs"
)

// writeSmall gives a file new content in one step, durably: a crash leaves the old content or the new.
func writeSmall(fsys vfs.FS, name string, content []byte) error {
	f, err := fsys.Open(name+".new", vfs.OpenOptions{Create: true, Truncate: true})
	if err != nil {
		return err
	}
	_, err = f.WriteAt(content, 0)
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err == nil {
		err = fsys.Rename(name+".new", name)
	}
	if err == nil {
		err = fsys.SyncDir(filepath.Dir(name))
	}
	return err
}

// readSmall reads a file, but no more of it than most bytes.
func readSmall(fsys vfs.FS, name string, most int) ([]byte, error) {
	f, err := fsys.Open(name, vfs.OpenOptions{})
	if err != nil {
		return nil, err
	}
	b := make([]byte, most)
	n, err := f.ReadAt(b, 0)
	if errors.Is(err, io.EOF) {
		err = nil // it is shorter, as it should be
	}
	return b[:n], errors.Join(err, f.Close())
}
