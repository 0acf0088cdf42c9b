package cluster

import (
	"context"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/skeinmq/skein/test/history"
	"github.com/skeinmq/skein/test/load"
	"github.com/skeinmq/skein/test/process"
)

// The environment of a run; README.md says more.
const (
	envLong  = "SKEIN_CLUSTER_LONG"  // any value: the long form
	envSeed  = "SKEIN_CLUSTER_SEED"  // default random
	envKeep  = "SKEIN_CLUSTER_KEEP"  // directory that is left behind
	envTrace = "SKEIN_CLUSTER_TRACE" // file for every operation as a line of JSON
	envKafka = "SKEIN_CLUSTER_KAFKA" // the script that runs Apache Kafka: the harness is tried on it instead
	envPort  = "SKEIN_CLUSTER_PORT"  // first port of Kafka's brokers; default 19300
	envSet   = "SKEIN_CLUSTER_SET"   // configs of Skein's brokers under the load: name=value,name=value
)

var built struct {
	once sync.Once
	dir  string // to be removed
	path string
	err  error
}

// binary builds skein once for all tests of the package.
func binary(t *testing.T) string {
	t.Helper()
	built.once.Do(func() {
		if built.dir, built.err = os.MkdirTemp("", "skein-cluster"); built.err == nil {
			built.path, built.err = process.Build(built.dir)
		}
	})
	if built.err != nil {
		t.Fatal(built.err)
	}
	return built.path
}

// clusterBinary is the binary, if it can form clusters.
func clusterBinary(t *testing.T) string {
	t.Helper()
	bin := binary(t)
	if help, err := exec.Command(bin, "serve", "--help").Output(); err != nil || !strings.Contains(string(help), "--peers") {
		t.Skipf("this binary forms no clusters: serve has no --peers (%v)", err)
	}
	return bin
}

func TestMain(m *testing.M) {
	code := m.Run()
	os.RemoveAll(built.dir)
	os.Exit(code)
}

func long() bool { return os.Getenv(envLong) != "" }

// number reads a number from the environment.
func number(t *testing.T, name string, otherwise uint64) uint64 {
	t.Helper()
	s := os.Getenv(name)
	if s == "" {
		return otherwise
	}
	n, err := strconv.ParseUint(s, 10, 64)
	if err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	return n
}

func workDir(t *testing.T) string {
	if dir := os.Getenv(envKeep); dir != "" {
		dir = filepath.Join(dir, strings.ReplaceAll(t.Name(), "/", "-"))
		if err := os.MkdirAll(dir, 0o755); err != nil {
			t.Fatal(err)
		}
		t.Logf("data stays in %s", dir)
		return dir
	}
	return t.TempDir()
}

// clusterOf starts n brokers: of Skein, or of Apache Kafka if the environment says so.
func clusterOf(t *testing.T, n int) Cluster {
	t.Helper()
	var c Cluster
	if script := os.Getenv(envKafka); script != "" {
		if n != 3 {
			t.Skip("Apache Kafka runs with three brokers only")
		}
		path, err := filepath.Abs(script)
		if err != nil {
			t.Fatal(err)
		}
		c = &Kafka{Script: path, Port: int(number(t, envPort, 19300)), Dir: workDir(t)}
	} else {
		args := []string{"--set", "group.initial.rebalance.delay.ms=0"}
		for set := range strings.SplitSeq(os.Getenv(envSet), ",") {
			if set != "" {
				args = append(args, "--set", set)
			}
		}
		s, err := NewSkein(clusterBinary(t), workDir(t), n, nil, args...)
		if err != nil {
			t.Fatal(err)
		}
		c = s
	}
	t.Cleanup(c.Close)
	if err := c.StartAll(); err != nil {
		t.Fatal(err)
	}
	return c
}

// run is one run: a cluster, its load, and what was done to it.
type run struct {
	t    *testing.T
	rng  *rand.Rand
	c    Cluster
	load *load.Load

	writable map[string][]time.Duration // by fault: until every partition had taken a write
	stops    []time.Duration
}

// begin puts the load on a cluster that runs; set changes it before it starts.
func begin(t *testing.T, c Cluster, set ...func(*load.Load)) *run {
	t.Helper()
	seed := number(t, envSeed, rand.Uint64()%1e9)
	t.Logf("replay the choices with %s=%d go test -count=1 -v -run '^%s$' ./test/cluster", envSeed, seed, t.Name())
	r := &run{t: t, rng: rand.New(rand.NewPCG(seed, 0)), c: c, writable: map[string][]time.Duration{}}
	r.load = &load.Load{Seeds: c.Seeds(), Seed: seed, H: history.New(), Patience: settlePatience, Slower: 5}
	for _, f := range set {
		f(r.load)
	}
	if name := os.Getenv(envTrace); name != "" {
		f, err := os.Create(name)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { r.load.H.Flush(); f.Close() })
		r.load.H.TraceTo(f)
	}
	ctx, cancel := context.WithTimeout(context.Background(), settlePatience)
	defer cancel()
	if err := r.load.Create(ctx); err != nil {
		t.Fatal(err)
	}
	if err := r.load.Begin(); err != nil {
		t.Fatal(err)
	}
	r.settle("start", time.Now())
	return r
}

// settlePatience is how long a cluster may take until it serves everything again.
const settlePatience = 2 * time.Minute

// settle waits until every partition has taken a write that was sent at the moment or later.
func (r *run) settle(fault string, since time.Time) {
	r.t.Helper()
	for end := time.Now().Add(settlePatience); ; time.Sleep(2 * time.Millisecond) {
		n, example := r.load.Stale(since)
		if n == 0 {
			r.writable[fault] = append(r.writable[fault], time.Since(since))
			return
		}
		if time.Now().After(end) {
			r.t.Fatalf("%s: %d partitions, %v among them, take no writes %v later\n%s", fault, n, example, settlePatience, r.c.Logs())
		}
	}
}

// note writes a fault into the trace and the test's log.
func (r *run) note(format string, args ...any) time.Time {
	text := fmt.Sprintf(format, args...)
	now := time.Now()
	r.load.H.Trace(history.Op{Name: "fault", Text: text, Called: now})
	r.t.Logf("%s %s", now.Format("15:04:05.000"), text)
	return now
}

// must ends the test if the harness itself could not do what it wanted.
func (r *run) must(err error) {
	r.t.Helper()
	if err != nil {
		r.t.Fatalf("%v\n%s", err, r.c.Logs())
	}
}

// any is a random broker.
func (r *run) any() int {
	ids := r.c.IDs()
	return ids[r.rng.IntN(len(ids))]
}

// pause waits a random time up to so many milliseconds: the moment of a fault is what is random.
func (r *run) pause(ms int) { time.Sleep(time.Duration(1+r.rng.IntN(ms*1000)) * time.Microsecond) }

// finish ends the load, reads everything and judges.
func (r *run) finish() {
	t := r.t
	t.Helper()
	if err := r.load.Finish(); err != nil {
		t.Errorf("%v\n%s", err, r.c.Logs())
	}
	ctx, cancel := context.WithTimeout(context.Background(), 2*settlePatience)
	defer cancel()
	if err := r.load.ReadAll(ctx); err != nil {
		t.Errorf("%v\n%s", err, r.c.Logs())
	}
	found, totals := r.load.H.Check()
	for _, v := range found {
		t.Error(v)
	}
	logs := r.c.Logs()
	for _, bad := range []string{"panic:", "fatal error:", "DATA RACE"} {
		if i := strings.Index(logs, bad); i >= 0 {
			t.Errorf("a broker said %q:\n%s", bad, logs[i:min(len(logs), i+4000)])
		}
	}
	if t.Failed() {
		t.Log(logs)
		t.Log(r.load.ForeignLogs())
	}
	t.Logf("%d records sent, %d acked, %d read in the end, %d seen before; %d doubles of plain producers; %d commits, %d partitions revoked; tolerated %v",
		totals.Sent, totals.Acked, totals.Read, totals.Seen, totals.Doubles, r.load.Commits(), r.load.Revoked(), totals.Tolerated)
	for _, fault := range slices.Sorted(maps.Keys(r.writable)) {
		t.Logf("%-12s writable after %s", fault, spread(r.writable[fault]))
	}
	if len(r.stops) > 0 {
		t.Logf("%-12s %s", "SIGTERM→exit", spread(r.stops))
	}
	if totals.Acked < 1000 || r.load.Commits() == 0 {
		t.Errorf("the load did not run: %d acked, %d commits", totals.Acked, r.load.Commits())
	}
}

// spread renders median and extremes.
func spread(d []time.Duration) string {
	s := slices.Sorted(slices.Values(d))
	ms := func(d time.Duration) string { return d.Round(time.Millisecond).String() }
	return fmt.Sprintf("%s median, %s at most, %d times", ms(s[len(s)/2]), ms(s[len(s)-1]), len(s))
}
