package controller

import (
	"bufio"
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"sync"
	"testing"
	"time"

	"github.com/skeinmq/skein/internal/ident"
)

const killDirEnv = "SKEIN_CONTROLLER_KILL_DIR"

// TestKillChild is the process that TestKill kills: it commits rising offsets to many
// partitions and prints each one once it is acknowledged.
func TestKillChild(t *testing.T) {
	dir := os.Getenv(killDirEnv)
	if dir == "" {
		t.Skip("only a child of TestKill")
	}
	c, err := Open(Config{Dir: dir, SnapshotBytes: 64 << 10}) // snapshots all the time
	if err != nil {
		t.Fatal(err)
	}
	go c.Run(context.Background())
	<-c.Ready()
	claims := make([]Claim, Partitions)
	for i := range claims {
		claims[i].Partition = int32(i)
	}
	epochs, err := c.Claim(t.Context(), claims)
	if err != nil {
		t.Fatal(err)
	}
	var mu sync.Mutex
	say := func(format string, args ...any) {
		mu.Lock()
		defer mu.Unlock()
		fmt.Fprintf(os.Stdout, format, args...)
	}
	var wg sync.WaitGroup
	for p := range int32(8) {
		first := ident.Offset(0)
		for _, o := range c.Offsets(p, "g") {
			first = o.Offset.Offset
		}
		wg.Go(func() {
			for i := uint64(1); ; i++ {
				off := first + ident.Offset(i)
				if err := c.Write(context.Background(), &Batch{Partition: p, Epoch: epochs[p], Seq: i, Ops: []Op{offsetsOp("g", 0, off)}}); err != nil {
					say("error %v\n", err)
					return
				}
				say("acked %d %d\n", p, off)
				if i%64 == 0 {
					if id, _, err := c.ProducerIDs(context.Background()); err == nil {
						say("ids %d 0\n", id)
					}
				}
			}
		})
	}
	wg.Wait()
}

// TestKill kills a process in the middle of its writes and its snapshots, again and again on
// one directory: what it had acknowledged is there afterwards, and no producer id comes twice.
func TestKill(t *testing.T) {
	if testing.Short() {
		t.Skip("starts processes")
	}
	dir := t.TempDir()
	acked := map[int32]ident.Offset{}
	ids := map[int64]bool{}
	for round := range 6 {
		cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestKillChild$")
		cmd.Env = append(os.Environ(), killDirEnv+"="+dir)
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		lines, kill := 0, 100+rand.IntN(1500)
		timer := time.AfterFunc(2*patience, func() { cmd.Process.Kill() })
		for s := bufio.NewScanner(out); s.Scan(); {
			var what string
			var a, b int64
			if n, _ := fmt.Sscan(s.Text(), &what, &a, &b); n == 3 {
				switch what {
				case "acked":
					acked[int32(a)] = max(acked[int32(a)], ident.Offset(b))
				case "ids":
					if ids[a] {
						t.Fatalf("round %d: producer ids from %d were given out twice", round, a)
					}
					ids[a] = true
				}
			}
			if lines++; lines == kill {
				cmd.Process.Kill()
			}
		}
		timer.Stop()
		cmd.Wait()
		if lines < kill {
			t.Fatalf("round %d: the child ended by itself after %d lines", round, lines)
		}
		c, stop := running(t, Config{Dir: dir})
		for p, want := range acked {
			got := c.Offsets(p, "g")
			if len(got) != 1 || got[0].Offset.Offset < want {
				t.Fatalf("round %d: partition %d has %+v, %d was acknowledged", round, p, got, want)
			}
		}
		if err := stop(); err != nil {
			t.Fatal(err)
		}
	}
}
