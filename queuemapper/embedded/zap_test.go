package embedded

import (
	"bytes"
	"log/slog"
	"strings"
	"sync/atomic"
	"testing"
)

// TestHarmless: what every start may say is not logged, what else etcd warns of is.
func TestHarmless(t *testing.T) {
	var out bytes.Buffer
	z := zapTo(slog.New(slog.NewTextHandler(&out, nil)), new(atomic.Bool), nil)
	z.Warn("5efda07be869d6b3 cannot campaign at term 5" + notYet)
	z.Warn("simple token is not cryptographically signed")
	z.Info("for whoever looks closer")
	if out.Len() > 0 {
		t.Errorf("said of a start: %s", out.String())
	}
	z.Warn("something else")
	if !strings.Contains(out.String(), "something else") {
		t.Errorf("not said: %q", out.String())
	}
}
