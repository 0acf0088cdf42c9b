package main

import (
	"bufio"
	"context"
	"encoding/json"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/skeinmq/skein/bench"
)

// TestBenchBare has a small load written to a bare server by the commands of both.
func TestBenchBare(t *testing.T) {
	dir := t.TempDir()
	out, in := io.Pipe()
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan int, 1)
	go func() {
		root := rootCommand()
		root.SetOut(in)
		root.SetErr(t.Output())
		ended <- run(ctx, root, []string{"bench", "bare", "--data", dir})
		in.Close()
	}()
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	_, addr, _ := strings.Cut(line, "listen=")
	addr, _, _ = strings.Cut(addr, " ")
	if !strings.HasPrefix(line, "ready ") || addr == "" {
		t.Errorf("ready line %q", line)
	}
	code, stdout, stderr := skein(t, "bench", "produce", "-b", addr, "--warm", "10ms", "--time", "300ms", "--json")
	var p bench.Produced
	if err := json.Unmarshal([]byte(stdout), &p); err != nil || code != exitOK || p.Bytes == 0 {
		t.Errorf("produce: %d, %v: %s%s", code, err, stdout, stderr)
	}
	stop()
	if code := <-ended; code != exitOK {
		t.Errorf("it ended with %d", code)
	}
	if names, err := os.ReadDir(dir); err != nil || len(names) > 0 {
		t.Errorf("left behind: %v, %v", names, err)
	}
	if code, _, stderr := skein(t, "bench", "bare", "--data", filepath.Join(dir, "none")); code != exitUsage {
		t.Errorf("a directory that is not there: exit %d: %s", code, stderr)
	}
}
