package vfs

import "os"

// oDirect is zero: darwin has no flag that both bypasses its cache and keeps
// the promise for every file, so the buffered path serves there.
const oDirect = 0

func directAlign(*os.File) DirectIO {
	return DirectIO{MemoryAlign: fallbackAlign, OffsetAlign: fallbackAlign}
}

func inMemoryFS(string) bool { return false }

func adviseRandom(*os.File) {}

func adviseHuge([]byte) {}

func populate([]byte) bool { return false }

// WillNeed does nothing here.
func (o *osFile) WillNeed(_, _ int64) {}

// Datasync is a full sync: darwin's fsync does not empty the device's cache,
// and only F_FULLFSYNC, which os.File.Sync uses, does.
func (o *osFile) Datasync() error { return o.f.Sync() }

func (o *osFile) Allocate(off, n int64) error {
	size, err := o.Size()
	if err != nil || size >= off+n {
		return err
	}
	return o.Truncate(off + n)
}
