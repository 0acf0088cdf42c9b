package commitlog

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/skeinmq/skein/internal/vfs"
)

// TestRestartsKeepLittle: each restart begins a new file. The rest of the one before is given back, and everything stays
// readable; once a loop of restarts had filled a disk with almost empty files.
func TestRestartsKeepLittle(t *testing.T) {
	dir := t.TempDir()
	cfg := testConfig(vfs.OS(), dir)
	want := newExpected()
	const restarts = 8
	for i := range restarts {
		r := start(t, cfg)
		r.begin()
		want.append(t, r, 0, testBatch(3, byte(i), 9000))
		want.check(t, r)
		r.stop()
	}
	r := start(t, cfg)
	r.begin()
	want.check(t, r)
	defer r.stop()
	entries, err := os.ReadDir(filepath.Join(dir, "log"))
	if err != nil {
		t.Fatal(err)
	}
	var sum, files int64
	for _, e := range entries {
		if info, err := e.Info(); err == nil && strings.HasSuffix(e.Name(), logSuffix) {
			sum += info.Size()
			files++
		}
	}
	if most := 2*cfg.FileSize + restarts*(64<<10); files > restarts+2 || sum > most { // the newest two are whole
		t.Errorf("%d log files of %d bytes together, want at most %d files of %d bytes", files, sum, restarts+2, most)
	}
}
