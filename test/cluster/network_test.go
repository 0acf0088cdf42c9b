package cluster

import (
	"bufio"
	"errors"
	"net"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/skeinmq/skein/test/history"
)

// networkMade says that this machine and user can make networks.
var networkMade bool

// newNetwork makes a network or skips the test and says why. Where one could be made, the next one must be.
func newNetwork(t *testing.T, n int) *Network {
	t.Helper()
	w, err := NewNetwork(n)
	if err != nil && networkMade {
		t.Fatal(err)
	} else if err != nil {
		t.Skipf("no partitions of the network here: %v", err)
	}
	networkMade = true
	t.Cleanup(w.Close)
	return w
}

// command runs this test binary where a broker is.
func (w *Network) command(id int, args ...string) *exec.Cmd {
	all := slices.Concat(w.inside(id), []string{os.Args[0]}, args)
	return exec.Command(all[0], all[1:]...)
}

// TestNetworkAgain: a network can be made as soon as the one before it is closed. Otherwise the tests after the first one are skipped.
func TestNetworkAgain(t *testing.T) {
	for range 5 {
		newNetwork(t, 3).Close()
	}
}

// TestNetworkCuts proves that the harness cuts one direction and not the other.
func TestNetworkCuts(t *testing.T) {
	w := newNetwork(t, 2)
	reach := func(within time.Duration) bool { // from 1 to 2 and back
		c := w.command(2, "-test.run=^TestListenOnce$")
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
		if line, err := bufio.NewReader(out).ReadString('\n'); err != nil || line != "listening\n" {
			t.Fatalf("%q, %v", line, err)
		}
		d := w.command(1, "-test.run=^TestDialOnce$")
		d.Env = append(os.Environ(), "SKEIN_CLUSTER_DIAL="+w.Addr(2)+":7000 "+within.String())
		return d.Run() == nil
	}
	const soon, late = 3 * time.Second, time.Minute // none is made over a cut, and one is made soon but on a slow machine
	if !reach(late) {
		t.Fatal("whole, but broker 1 does not reach broker 2")
	}
	for _, way := range [][2]int{{1, 2}, {2, 1}} {
		if err := w.Cut(way[0], way[1]); err != nil {
			t.Fatal(err)
		}
		if reach(soon) {
			t.Errorf("%d → %d is cut, but a connection was made", way[0], way[1])
		}
		if err := w.Heal(way[0], way[1]); err != nil {
			t.Fatal(err)
		}
		if !reach(late) {
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
	addr, text, ok := strings.Cut(os.Getenv("SKEIN_CLUSTER_DIAL"), " ")
	if !ok {
		t.Skip("a part of TestNetworkCuts")
	}
	within, err := time.ParseDuration(text)
	if err != nil {
		t.Fatal(err)
	}
	c, err := net.DialTimeout("tcp", addr, within)
	if err != nil {
		t.Fatal(err)
	}
	c.Close()
}

// networked begins a run of three brokers in a network that can be cut.
func networked(t *testing.T) (*Network, *Skein, *run) {
	t.Helper()
	w := newNetwork(t, 3)
	if os.Getenv(envKafka) != "" {
		t.Skip("Skein only")
	}
	c := skeinAt(t, 3, w.Place)
	c.started(t, c.StartAll())
	r := begin(t, c)
	r.load.H.Tolerate(history.Stale, history.Early)
	return w, c, r
}

// TestPartitions cuts one broker off from the others, in both directions and in each of them, while clients still reach it; and
// it cuts two brokers off from each other while both reach the third.
func TestPartitions(t *testing.T) {
	w, _, r := networked(t)
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

// TestLeadersApart cuts the active controller off from the leader of the map's etcd, while the third broker reaches both: each has
// its majority, so neither is replaced, and the controller's own etcd member has no leader. It changes the map through the third
// one's.
func TestLeadersApart(t *testing.T) {
	w, c, r := networked(t)
	leaders := func() (controller, etcd int) {
		v := c.awaitView(t, 1, "both lead", func(v view) bool { return v.Controller != nil && v.etcdLeader() != 0 })
		return *v.Controller, v.etcdLeader()
	}
	controller, etcd := leaders()
	for n := 0; n < 10 && controller == etcd; n++ {
		// One that stops in order hands both over: raft to who has most of its log, etcd to who was connected longest.
		at := r.note("broker %d leads both: it is stopped and started", etcd)
		_, err := c.Stop(etcd)
		r.must(err)
		r.must(c.Start(etcd))
		r.settle("started again", at)
		controller, etcd = leaders()
	}
	if controller == etcd {
		t.Fatalf("broker %d leads raft and etcd, whoever is stopped", etcd)
	}
	for range rounds(2, 10) {
		at := r.note("active controller %d and etcd's leader %d do not hear each other", controller, etcd)
		r.must(errors.Join(w.Cut(controller, etcd), w.Cut(etcd, controller)))
		r.settle("leaders apart", at)
		at = r.note("all hear each other")
		r.must(errors.Join(w.Heal(controller, etcd), w.Heal(etcd, controller)))
		r.settle("healed", at)
		if controller, etcd = leaders(); controller == etcd {
			break
		}
	}
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
