package main

import (
	"bufio"
	"context"
	"encoding/json"
	"io"
	"strings"
	"testing"

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
	load := []string{"-b", addr, "--partitions", "3", "--client", "--time", "300ms", "--json"}
	code, stdout, stderr := skein(t, append([]string{"bench", "produce", "--create", "--warm", "10ms", "--records", "4"}, load...)...)
	var p versus[bench.Produced]
	if err := json.Unmarshal([]byte(stdout), &p); err != nil || code != exitOK {
		t.Fatalf("produce: %d, %v: %s%s", code, err, stdout, stderr)
	}
	if p.Wire.Bytes == 0 || p.Client.Bytes == 0 || p.Client.Latency.P50 <= 0 || p.Ratio <= 0 {
		t.Errorf("produced %+v", p)
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
