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
	"time"

	"github.com/spf13/cobra"

	"github.com/skeinmq/skein/bench"
)

// TestBenchWithClient puts both forms of a small load on a broker, and reads it in both forms.
func TestBenchWithClient(t *testing.T) {
	out, in := io.Pipe()
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan int, 1)
	go func() {
		root := rootCommand()
		root.SetOut(in)
		root.SetErr(t.Output())
		ended <- run(ctx, root, []string{"serve", "--data", t.TempDir(), "--listen", "127.0.0.1:0", "--http", "127.0.0.1:0"})
		in.Close()
	}()
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	_, addr, _ := strings.Cut(line, "listen=")
	addr, _, _ = strings.Cut(addr, " ")
	defer func() {
		stop()
		if code := <-ended; code != exitOK {
			t.Errorf("serve ended with %d", code)
		}
	}()
	load := []string{"-b", addr, "--partitions", "3", "--client", "--time", "2s", "--json"}
	code, stdout, stderr := skein(t, append([]string{"bench", "produce", "--create", "--warm", "10ms", "--records", "4"}, load...)...)
	var p versus[bench.Produced]
	if err := json.Unmarshal([]byte(stdout), &p); err != nil || code != exitOK {
		t.Fatalf("produce: %d, %v: %s%s", code, err, stdout, stderr)
	}
	if p.Wire.Bytes == 0 || p.Client.Bytes == 0 || p.Client.Latency.P50 <= 0 || p.Ratio <= 0 {
		t.Errorf("produced %+v", p)
	}
	// What a broker refuses for its value was refused before anything was touched, the configs beside it included.
	code, _, stderr = skein(t, "topic", "alter", "bench-0", "-p", "1", "--config", "retention.ms=5000", "-b", addr)
	if code != exitUsage || !strings.Contains(stderr, "INVALID_PARTITIONS") {
		t.Errorf("fewer partitions: exit %d: %s", code, stderr)
	}
	if _, stdout, _ = skein(t, "topic", "describe", "bench-0", "-b", addr); strings.Contains(stdout, "retention.ms") {
		t.Errorf("a refusal changed a config: %s", stdout)
	}
	for _, c := range []struct {
		args []string
		code int
	}{
		{[]string{"topic", "create", "no good"}, exitUsage},
		{[]string{"topic", "create", "no good", "good"}, exitFailed}, // one of them was made
		{[]string{"topic", "alter", "good", "--config", "no.such=1"}, exitUsage},
		{[]string{"topic", "delete", "absent"}, exitFailed},
	} {
		if code, _, stderr := skein(t, append(c.args, "-b", addr)...); code != c.code {
			t.Errorf("%q: exit %d, want %d: %s", c.args, code, c.code, stderr)
		}
	}
	code, stdout, stderr = skein(t, append([]string{"bench", "consume"}, load...)...)
	var c versus[bench.Consumed]
	if err := json.Unmarshal([]byte(stdout), &c); err != nil || code != exitOK {
		t.Fatalf("consume: %d, %v: %s%s", code, err, stdout, stderr)
	}
	if c.Wire.Bytes == 0 || c.Client.Bytes == 0 || c.Ratio <= 0 {
		t.Errorf("consumed %+v", c)
	}
}

// TestReportFlags: a benchmark's report goes to a file with --report, and to standard output as JSON with --json.
func TestReportFlags(t *testing.T) {
	for _, c := range commands(rootCommand()) {
		f := c.Flags().Lookup("json")
		if f == nil {
			f = c.InheritedFlags().Lookup("json")
		}
		if f != nil && f.Value.Type() != "bool" {
			t.Errorf("%s: --json is no switch", c.CommandPath())
		}
	}
	file := filepath.Join(t.TempDir(), "report.json")
	var out strings.Builder
	cmd := &cobra.Command{}
	cmd.SetOut(&out)
	if err := (&reportFlags{file: file, json: true}).report(cmd, bench.GrowthReport{}, nil); err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(file)
	if err != nil || out.String() != string(text) || !json.Valid(text) {
		t.Errorf("file (%v):\n%s\nprinted:\n%s", err, text, out.String())
	}
}

func TestProducedLineCountsRefusals(t *testing.T) {
	p := bench.Produced{Bytes: 2e6, Requests: 3, Elapsed: time.Second}
	const quiet = "2.0 MB/s  3 requests  p50 0.00  p99 0.00  p99.9 0.00  max 0.00 ms"
	if got := producedLine(p); got != quiet {
		t.Errorf("got %q, want %q", got, quiet)
	}
	p.Refused = 7
	if got, want := producedLine(p), quiet+"  7 refused and sent again"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}
