package crash

import (
	"errors"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/skeinmq/skein/test/process"
)

// TestSecondSignal: one SIGTERM has a broker stop in order; another one while it does ends it at once, and it starts again.
func TestSecondSignal(t *testing.T) {
	addrs, err := process.Ports(2)
	if err != nil {
		t.Fatal(err)
	}
	b := process.Broker{Bin: skein(t), Data: []string{filepath.Join(t.TempDir(), "d")}, Listen: addrs[0], HTTP: addrs[1]}
	p, err := b.Start(startPatience)
	if err != nil {
		t.Fatal(err)
	}
	p.Signal()
	again := time.NewTicker(time.Millisecond) // stopping takes many
	defer again.Stop()
	for ended := false; !ended; {
		select {
		case <-p.Done():
			ended = true
		case <-again.C:
			p.Signal()
		}
	}
	var exit *exec.ExitError
	if !errors.As(p.Err(), &exit) {
		t.Fatalf("it stopped in order all the same: %v\n%s", p.Err(), p.Log())
	}
	if st, ok := exit.Sys().(syscall.WaitStatus); !ok || !st.Signaled() || st.Signal() != syscall.SIGTERM {
		t.Errorf("it ended by itself: %v\n%s", exit, p.Log())
	}
	if strings.Contains(p.Log(), "panic") {
		t.Errorf("it panicked:\n%s", p.Log())
	}
	if p, err = b.Start(startPatience); err != nil {
		t.Fatal(err)
	}
	if _, err := p.Stop(stopPatience); err != nil {
		t.Error(err)
	}
}
