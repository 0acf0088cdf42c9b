package witness

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/skeinmq/skein/commitlog"
	"github.com/skeinmq/skein/internal/ident"
)

// memberProcess in the environment makes this binary a broker that is a witness, by its number, until its input ends.
const memberProcess = "WITNESS_MEMBER"

// TestMain is the tests, or a member in a process of its own for BenchmarkRoundTrip.
func TestMain(m *testing.M) {
	if b, err := strconv.Atoi(os.Getenv(memberProcess)); err == nil {
		s, err := serveMember(ID{ident.Broker(b), 1})
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		fmt.Println(s.addr)
		_, _ = io.Copy(io.Discard, os.Stdin)
		s.stop()
		return
	}
	m.Run()
}

// startProcess starts a member in a process of its own, so that an answer wakes what it wakes between brokers.
func (c *cluster) startProcess(id ID) {
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), fmt.Sprintf("%s=%d", memberProcess, id.Broker))
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		c.t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		c.t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		c.t.Fatal(err)
	}
	stop := func() {
		in.Close()
		_ = cmd.Wait()
	}
	addr, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		stop()
		c.t.Fatal(err)
	}
	c.mu.Lock()
	c.members[id.Broker] = &served{member: NewMember(MemberConfig{ID: id}), addr: strings.TrimSpace(addr), stop: stop}
	c.mu.Unlock()
}

// BenchmarkRoundTrip is one group commit at a time, from its registration to a waiting goroutine that it is committed: back to back, and
// with pauses, in which cores go to sleep as they do under a light load. ns/trip and the percentiles are without the pauses.
func BenchmarkRoundTrip(b *testing.B) {
	for _, members := range []int{1, 2} {
		for _, pause := range []time.Duration{0, time.Millisecond, 5 * time.Millisecond} {
			b.Run(fmt.Sprintf("members=%d/pause=%v", members, pause), func(b *testing.B) { benchRoundTrip(b, members, pause) })
		}
	}
}

func benchRoundTrip(b *testing.B, members int, pause time.Duration) {
	c := newCluster(b, 0)
	for i := range members {
		c.startProcess(ID{ident.Broker(2 + i), 1})
	}
	o := c.own(b.TempDir(), members)
	defer o.stop()
	gens := o.open(1)
	u := commitlog.Update{Generation: gens[0], State: ident.PartitionState{Partition: ident.Partition{Topic: ident.Topic{1}}, End: 5}}
	committed := make(chan error, 1)
	took := make([]time.Duration, 0, b.N)
	var sum time.Duration
	b.ReportAllocs()
	b.ResetTimer()
	for i := range b.N {
		time.Sleep(pause)
		begun := time.Now()
		o.r.Register(ident.Position(1<<30+i), []commitlog.Update{u}, func(err error) { committed <- err })
		if err := <-committed; err != nil {
			b.Fatal(err)
		}
		took = append(took, time.Since(begun))
		sum += took[i]
	}
	slices.Sort(took)
	b.ReportMetric(float64(sum.Nanoseconds())/float64(len(took)), "ns/trip")
	b.ReportMetric(float64(took[len(took)/2].Nanoseconds())/1e3, "p50-µs")
	b.ReportMetric(float64(took[len(took)*9/10].Nanoseconds())/1e3, "p90-µs")
}
