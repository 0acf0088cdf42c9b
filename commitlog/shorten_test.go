package commitlog

import (
	"testing"

	"github.com/skeinmq/skein/internal/vfs"
)

// TestRestartsTakeLittleDisk restarts a log that writes little: each start begins a file, but what the one before has not
// used must be given back, also when the cut itself is lost, and everything must be readable with and without indexes.
func TestRestartsTakeLittleDisk(t *testing.T) {
	fs := vfs.NewMem()
	cfg := testConfig(fs, "data")
	want := newExpected()
	for range 12 {
		r := start(t, cfg)
		r.begin()
		want.append(t, r, 1, testBatch(2, 1, 100))
		r.awaitSealed()
		await(t, "files cut", func() bool {
			all := r.files.all()
			for _, f := range all[:len(all)-1] {
				if st, err := fs.Stat(f.name); err != nil || st.Size > f.size/shortenFrom {
					return false
				}
			}
			return true
		})
		await(t, "room counted", func() bool { return r.Stats().DiskBytes < 2*cfg.FileSize })
		want.check(t, r)
		r.stop()
	}

	// A crash may undo a cut, and an index may go: the log is what counts.
	for i, name := range diskFiles(t, fs) {
		switch {
		case i%2 == 0 && len(name) > 4 && name[len(name)-4:] == indexSuffix:
			if err := fs.Remove(name); err != nil {
				t.Fatal(err)
			}
		case i%2 == 1 && len(name) > 4 && name[len(name)-4:] == logSuffix:
			f, err := fs.Open(name, vfs.OpenOptions{Write: true})
			if err == nil {
				err = f.Truncate(cfg.FileSize)
			}
			if err != nil {
				t.Fatal(err)
			}
			f.Close()
		}
	}
	r := start(t, cfg)
	if d := r.Recovered().Damage; len(d) > 0 {
		t.Errorf("damage: %v", d)
	}
	r.begin()
	want.check(t, r)
	r.stop()
}
