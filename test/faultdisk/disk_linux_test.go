package faultdisk

import (
	"errors"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"
)

// TestDisk proves that a disk does what the tests of others build on.
func TestDisk(t *testing.T) {
	d, err := New(t.TempDir(), 64<<20)
	if errors.Is(err, ErrUnsupported) {
		t.Skip(err)
	}
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := d.Close(); err != nil {
			t.Error(err)
		}
	}()
	name := filepath.Join(d.Dir, "file")
	f, err := os.Create(name)
	if err != nil {
		t.Fatal(err)
	}
	write := func(text string) error {
		_, err := f.WriteAt([]byte(text), 0)
		return errors.Join(err, f.Sync())
	}
	if err := write("durable"); err != nil {
		t.Fatal(err)
	}
	if err := d.Hang(); err != nil {
		t.Fatal(err)
	}
	wrote := make(chan error, 1)
	go func() { wrote <- write("delayed") }()
	select {
	case err := <-wrote:
		t.Errorf("a disk that hangs was written: %v", err)
	case <-time.After(time.Second): // long enough for a write to begin on a slow machine
	}
	if err := d.Resume(); err != nil {
		t.Fatal(err)
	}
	if err := <-wrote; err != nil {
		t.Errorf("write after the hang: %v", err)
	}
	if err := d.Fail(); err != nil {
		t.Fatal(err)
	}
	if err := write("refused"); !errors.Is(err, syscall.EIO) {
		t.Errorf("write on a dead disk: %v, want EIO", err)
	}
	if _, err := os.ReadFile(name); !errors.Is(err, syscall.EIO) {
		t.Errorf("read on a dead disk: %v, want EIO", err)
	}
	f.Close()
	if err := d.Heal(); err != nil {
		t.Fatal(err)
	}
	if got, err := os.ReadFile(name); err != nil || string(got) != "delayed" {
		t.Errorf("after healing: %q, %v; want what was synced", got, err)
	}
}
