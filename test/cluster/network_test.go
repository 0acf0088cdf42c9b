package cluster

import (
	"errors"
	"net"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/skeinmq/skein/test/history"
)

// newNetwork makes a network or skips the test and says why.
func newNetwork(t *testing.T, n int) *Network {
	t.Helper()
	w, err := NewNetwork(n)
	if err != nil {
		t.Skipf("no partitions of the network here: %v", err)
	}
	t.Cleanup(w.Close)
	return w
}

// TestNetworkCuts proves that the harness cuts one direction and not the other.
func TestNetworkCuts(t *testing.T) {
	w := newNetwork(t, 2)
	reach := func() bool { // from 1 to 2 and back
		c := exec.Command("ip", "netns", "exec", w.space(2), os.Args[0], "-test.run=^TestListenOnce$")
		c.Env = append(os.Environ(), "SKEIN_CLUSTER_LISTEN="+w.Addr(2)+":7000")
		out, err := c.StdoutPipe()
		if err == nil {
			err = c.Start()
		}
		if err != nil {
			t.Fatal(err)
		}
		defer c.Wait()
		defer c.Process.Kill()
		buf := make([]byte, 100)
		if n, err := out.Read(buf); err != nil || !strings.HasPrefix(string(buf[:n]), "listening") {
			t.Fatalf("%q, %v", buf[:n], err)
		}
		d := exec.Command("ip", "netns", "exec", w.space(1), os.Args[0], "-test.run=^TestDialOnce$")
		d.Env = append(os.Environ(), "SKEIN_CLUSTER_DIAL="+w.Addr(2)+":7000")
		return d.Run() == nil
	}
	if !reach() {
		t.Fatal("whole, but broker 1 does not reach broker 2")
	}
	for _, way := range [][2]int{{1, 2}, {2, 1}} {
		if err := w.Cut(way[0], way[1]); err != nil {
			t.Fatal(err)
		}
		if reach() {
			t.Errorf("%d → %d is cut, but a connection was made", way[0], way[1])
		}
		if err := w.Heal(way[0], way[1]); err != nil {
			t.Fatal(err)
		}
		if !reach() {
			t.Errorf("%d → %d was healed, but no connection was made", way[0], way[1])
		}
	}
}

// TestListenOnce and TestDialOnce are the ends of TestNetworkCuts, in their namespaces.
func TestListenOnce(t *testing.T) {
	addr := os.Getenv("SKEIN_CLUSTER_LISTEN")
	if addr == "" {
		t.Skip("a part of TestNetworkCuts")
	}
	ln, err := net.Listen("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	os.Stdout.WriteString("listening\n")
	for {
		c, err := ln.Accept()
		if err != nil {
			return
		}
		c.Close()
	}
}

func TestDialOnce(t *testing.T) {
	addr := os.Getenv("SKEIN_CLUSTER_DIAL")
	if addr == "" {
		t.Skip("a part of TestNetworkCuts")
	}
	c, err := net.DialTimeout("tcp", addr, time.Second)
	if err != nil {
		t.Fatal(err)
	}
	c.Close()
}

// TestPartitions cuts one broker off from the others, in both directions and in each of them, while clients still reach it; and
// it cuts two brokers off from each other while both reach the third.
func TestPartitions(t *testing.T) {
	w := newNetwork(t, 3)
	if os.Getenv(envKafka) != "" {
		t.Skip("Skein only")
	}
	c, err := NewSkein(clusterBinary(t), workDir(t), 3, w.Place, "--set", "group.initial.rebalance.delay.ms=0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	if err := c.StartAll(); err != nil {
		t.Fatal(err)
	}
	r := begin(t, c)
	r.load.H.Tolerate(history.Stale, history.Early)
	r.breakIt([]fault{
		{"alone", func(r *run) { r.partition(w, "hears nobody, nobody hears it", true, true) }},
		{"deaf", func(r *run) { r.partition(w, "hears nobody", true, false) }},
		{"mute", func(r *run) { r.partition(w, "is heard by nobody", false, true) }},
		{"apart", func(r *run) {
			a, b := r.pair()
			at := r.note("brokers %d and %d do not hear each other", a, b)
			r.must(errors.Join(w.Cut(a, b), w.Cut(b, a)))
			r.settle("apart", at)
			r.pause(2000)
			r.note("all hear each other")
			r.must(errors.Join(w.Heal(a, b), w.Heal(b, a)))
		}},
	})
	r.finish()
}

// partition cuts one broker's directions from or to all others, until everything is writable, and a while longer.
func (r *run) partition(w *Network, what string, in, out bool) {
	r.t.Helper()
	id := r.any()
	each := func(do func(from, to int) error) {
		r.t.Helper()
		for _, other := range r.c.IDs() {
			if other == id {
				continue
			}
			if in {
				r.must(do(other, id))
			}
			if out {
				r.must(do(id, other))
			}
		}
	}
	at := r.note("broker %d %s", id, what)
	each(w.Cut)
	r.settle("cut: "+what, at)
	r.pause(3000)
	at = r.note("broker %d hears and is heard", id)
	each(w.Heal)
	r.settle("healed", at)
}
