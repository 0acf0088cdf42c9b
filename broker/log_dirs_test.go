package broker

import (
	"path/filepath"
	"testing"

	"github.com/skeinmq/skein/commitlog"
	"github.com/skeinmq/skein/internal/ident"
)

// TestDirectoriesAreAbsolute: tools are shown where a log lies from anywhere, as the protocol has it, also when the broker was given
// a relative name.
func TestDirectoriesAreAbsolute(t *testing.T) {
	b := &Broker{cfg: Config{Logs: make([]*commitlog.Log, 2), Static: map[string]string{"log.dirs": "./data, /disk2"}}}
	want, err := filepath.Abs("data")
	if err != nil {
		t.Fatal(err)
	}
	if got := b.directory(0, ident.Log{}); got != want {
		t.Errorf("the first directory is %q, want %q", got, want)
	}
	if got := b.directory(1, ident.Log{}); got != "/disk2" {
		t.Errorf("the second directory is %q", got)
	}
	b.cfg.Static = nil
	if got := b.directory(1, ident.Log{}); got != (ident.Log{}).String() {
		t.Errorf("a directory that is not known is %q", got)
	}
}
