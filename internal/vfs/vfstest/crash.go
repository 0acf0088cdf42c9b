package vfstest

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"

	"github.com/skeinmq/skein/internal/vfs"
)

// CrashCheck is one rule about power cuts. It gets a fresh file system.
type CrashCheck struct {
	Name string
	Run  func(fsys Crasher, seed uint64) error
}

// CrashChecks returns the rules about what must survive a power cut.
func CrashChecks() []CrashCheck {
	return []CrashCheck{
		{"synced data and name survive", crashSynced},
		{"dsync writes survive", crashDsync},
		{"sectors are old or new", crashSectors},
		{"unsynced rename is all or nothing", crashRename},
		{"synced truncate stays", crashTruncate},
		{"outcomes are final", crashFinal},
	}
}

const crashDir = "/d"

// durableFile makes a directory and a file that are wholly durable.
func durableFile(fsys vfs.FS, name string, data []byte) error {
	if err := errors.Join(fsys.MkdirAll(crashDir), fsys.SyncDir("/")); err != nil {
		return err
	}
	f, err := fsys.Open(name, vfs.OpenOptions{Create: true})
	if err != nil {
		return err
	}
	if _, err := f.WriteAt(data, 0); err != nil {
		return err
	}
	return errors.Join(f.Datasync(), f.Close(), fsys.SyncDir(crashDir))
}

func crashSynced(fsys Crasher, seed uint64) error {
	data := pattern(5000, 1)
	if err := durableFile(fsys, "/d/a", data); err != nil {
		return err
	}
	return expect(fsys.PowerCut(seed), "/d/a", data)
}

func crashDsync(fsys Crasher, seed uint64) error {
	data := pattern(8192, 1)
	if err := durableFile(fsys, "/d/a", data); err != nil {
		return err
	}
	f, err := fsys.Open("/d/a", vfs.OpenOptions{Write: true, Direct: true, Dsync: true})
	if err != nil {
		return err
	}
	buf, err := vfs.AllocAligned(8192)
	if err != nil {
		return err
	}
	defer vfs.FreeAligned(buf)
	copy(buf, pattern(8192, 9))
	if _, err := f.WriteAt(buf, 4096); err != nil { // half over old data, half past the end
		return err
	}
	return expect(fsys.PowerCut(seed), "/d/a", append(data[:4096:4096], buf...))
}

func crashSectors(fsys Crasher, seed uint64) error {
	old, young := pattern(8192, 1), pattern(8192, 77)
	if err := durableFile(fsys, "/d/a", old); err != nil {
		return err
	}
	if err := put(fsys, "/d/a", young, vfs.OpenOptions{Write: true}); err != nil {
		return err
	}
	got, err := get(fsys.PowerCut(seed), "/d/a")
	if err != nil || len(got) != len(old) {
		return fmt.Errorf("file of %d bytes after the cut, %v", len(got), err)
	}
	for i := 0; i < len(got); i += vfs.SectorSize {
		s := got[i : i+vfs.SectorSize]
		if !bytes.Equal(s, old[i:i+vfs.SectorSize]) && !bytes.Equal(s, young[i:i+vfs.SectorSize]) {
			return fmt.Errorf("sector at %d is neither old nor new", i)
		}
	}
	return nil
}

func crashRename(fsys Crasher, seed uint64) error {
	if err := durableFile(fsys, "/d/a", []byte("old")); err != nil {
		return err
	}
	if err := durableFile(fsys, "/d/tmp", []byte("new")); err != nil {
		return err
	}
	if err := fsys.Rename("/d/tmp", "/d/a"); err != nil {
		return err
	}
	cut := fsys.PowerCut(seed)
	got, err := get(cut, "/d/a")
	if err != nil || (string(got) != "old" && string(got) != "new") {
		return fmt.Errorf("after an unsynced rename the file holds %q, %v", got, err)
	}
	_, err = cut.Stat("/d/tmp")
	if there := err == nil; there != (string(got) == "old") {
		return fmt.Errorf("the file holds %q and the temporary name is there: %v", got, there)
	}
	if err := fsys.SyncDir(crashDir); err != nil {
		return err
	}
	cut = fsys.PowerCut(seed)
	if err := expect(cut, "/d/a", []byte("new")); err != nil {
		return fmt.Errorf("after a synced rename: %w", err)
	}
	if _, err := cut.Stat("/d/tmp"); !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("after a synced rename the old name: %v", err)
	}
	return nil
}

func crashTruncate(fsys Crasher, seed uint64) error {
	data := pattern(9000, 1)
	if err := durableFile(fsys, "/d/a", data); err != nil {
		return err
	}
	f, err := fsys.Open("/d/a", vfs.OpenOptions{Write: true})
	if err != nil {
		return err
	}
	if err := f.Truncate(3000); err != nil {
		return err
	}
	got, err := get(fsys.PowerCut(seed), "/d/a")
	if err != nil || (len(got) != 3000 && len(got) != 9000) || !bytes.Equal(got[:2560], data[:2560]) {
		return fmt.Errorf("after an unsynced truncate: %d bytes, %v", len(got), err)
	}
	if err := errors.Join(f.Sync(), f.Truncate(9000), f.Sync()); err != nil {
		return err
	}
	return expect(fsys.PowerCut(seed), "/d/a", append(data[:3000:3000], make([]byte, 6000)...))
}

// crashFinal: what one cut left, no later cut may take.
func crashFinal(fsys Crasher, seed uint64) error {
	if err := durableFile(fsys, "/d/a", pattern(4096, 1)); err != nil {
		return err
	}
	if err := put(fsys, "/d/a", pattern(6000, 2), vfs.OpenOptions{Write: true}); err != nil {
		return err
	}
	if err := put(fsys, "/d/b", pattern(6000, 3), vfs.OpenOptions{Create: true}); err != nil {
		return err
	}
	first := fsys.PowerCut(seed)
	again, ok := first.(Crasher)
	if !ok {
		return errors.New("the outcome of a power cut cannot be cut again")
	}
	second := again.PowerCut(seed + 1)
	names, err := first.List(crashDir)
	if err != nil {
		return err
	}
	for _, name := range names {
		want, err := get(first, crashDir+"/"+name)
		if err != nil {
			return err
		}
		if err := expect(second, crashDir+"/"+name, want); err != nil {
			return err
		}
	}
	return nil
}
