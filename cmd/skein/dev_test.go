package main

import (
	"io"
	"net"
	"os/exec"
	"strings"
	"testing"

	"github.com/skeinmq/skein/cmd/skein/dev"
)

// TestDevTwice: a second skein dev on a directory is refused before it starts brokers there, those too that do not run at the moment.
func TestDevTwice(t *testing.T) {
	dir := t.TempDir()
	first, err := net.Listen("unix", dev.SocketPath(dir))
	if err != nil {
		t.Fatal(err)
	}
	defer first.Close()
	s, err := dev.New(dev.Config{Dir: dir, BasePort: 1000, Brokers: 1, Out: io.Discard, Command: func(dev.Spec, []dev.Spec, bool) *exec.Cmd {
		t.Error("it starts a broker")
		return exec.Command("true")
	}})
	if err != nil {
		t.Fatal(err)
	}
	if err := runDev(t.Context(), s, false, strings.NewReader(""), io.Discard); err == nil || !strings.Contains(err.Error(), "another skein dev runs on "+dir) {
		t.Errorf("a second one: %v", err)
	}
}
