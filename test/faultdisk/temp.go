package faultdisk

import (
	"errors"
	"testing"
)

// Temp makes a disk of size bytes that lasts as long as the test, or skips the test where there can be none.
func Temp(t testing.TB, size int64) *Disk {
	t.Helper()
	d, err := New(t.TempDir(), size)
	if errors.Is(err, ErrUnsupported) {
		t.Skip(err)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := d.Close(); err != nil {
			t.Error(err)
		}
	})
	return d
}
