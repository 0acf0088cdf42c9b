package cluster

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/skeinmq/skein/test/load"
)

// envClock sets the clock of a skewed binary: SECONDS ahead, or SECONDS:PERIOD, which is that much ahead, behind and right in
// turn, for PERIOD seconds each. The monotonic clock is untouched.
const envClock = "TEST_CLOCK_SKEW"

// skewNow is what package time gets: Now asks it.
const skewNow = `
// The clock of a test: see TEST_CLOCK_SKEW in test/cluster.
var testSkew, testPeriod = readTestSkew()

func readTestSkew() (skew, period int64) {
	s, _ := syscall.Getenv("TEST_CLOCK_SKEW")
	negative := false
	for at := &skew; len(s) > 0; s = s[1:] {
		switch c := s[0]; {
		case c == '-':
			negative = true
		case c == ':':
			at = &period
		case '0' <= c && c <= '9':
			*at = *at*10 + int64(c-'0')
		}
	}
	if negative {
		skew = -skew
	}
	return skew, period
}

func testSkewAt(mono int64) int64 {
	if testPeriod == 0 {
		return testSkew
	}
	return testSkew * ((mono/(testPeriod*1e9)+1)%3 - 1)
}
`

// skewedBinary builds skein with a package time whose Now can be set by the environment.
func skewedBinary(t *testing.T) string {
	t.Helper()
	root, err := exec.Command("go", "env", "GOROOT").Output()
	if err != nil {
		t.Fatalf("find GOROOT: %v", err)
	}
	original := filepath.Join(strings.TrimSpace(string(root)), "src", "time", "time.go")
	source, err := os.ReadFile(original)
	if err != nil {
		t.Fatalf("read package time: %v", err)
	}
	const begin, asks, imports = "func Now() Time {\n", "\tsec, nsec, mono := runtimeNow()\n", "import (\n"
	text := string(source)
	if strings.Count(text, begin+asks) != 1 || !strings.Contains(text, imports) {
		t.Fatalf("%s is not as this test knows it", original)
	}
	text = strings.Replace(text, begin+asks, begin+asks+"\tsec += testSkewAt(mono)\n", 1)
	text = strings.Replace(text, imports, imports+"\t\"syscall\"\n", 1) + skewNow
	dir := t.TempDir()
	changed, overlay, bin := filepath.Join(dir, "time.go"), filepath.Join(dir, "overlay.json"), filepath.Join(dir, "skein")
	list, err := json.Marshal(map[string]map[string]string{"Replace": {original: changed}})
	if err != nil {
		t.Fatal(err)
	}
	for path, data := range map[string][]byte{changed: []byte(text), overlay: list} {
		if err := os.WriteFile(path, data, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	cmd := exec.Command("go", "build", "-overlay", overlay, "-o", bin, "./cmd/skein")
	cmd.Dir = filepath.Join("..", "..")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("build with a clock that can be set: %v: %s", err, out)
	}
	return bin
}

// TestSkewedClocks breaks brokers whose clocks are an hour behind, right, a day and an hour ahead, and one that jumps: nothing
// may depend on them. Each start gives a broker another clock, so that logs, witnesses and sessions see all of them. The same
// faults come first to brokers of the same binary whose clocks are right: with others it takes no longer.
func TestSkewedClocks(t *testing.T) {
	thorough(t)
	bin := skewedBinary(t)
	right := breakClocks(t, bin, []string{"0"})
	skewed := breakClocks(t, bin, []string{"-3600", "0", "90000", "-7200:2", "100000:1"}) // a day and more: what a producer is remembered for
	for name, d := range skewed {
		if is, was := median(d), median(right[name]); is > 2*was+2*time.Second {
			t.Errorf("after %s it took %v in the median until everything was writable; with clocks that are right, %v", name, is, was)
		}
	}
}

func median(d []time.Duration) time.Duration {
	if len(d) == 0 {
		return 0
	}
	return slices.Sorted(slices.Values(d))[len(d)/2]
}

// breakClocks breaks four brokers that are given the clocks in turn. It returns how long it took after each kind of fault until
// everything was writable.
func breakClocks(t *testing.T, bin string, clocks []string) map[string][]time.Duration {
	starts := 0
	c, err := NewSkein(bin, workDir(t), 4, nil, "--set", "group.initial.rebalance.delay.ms=0",
		"--set", "log.message.timestamp.after.max.ms=9223372036854775807") // the default is an hour by the owner's clock
	if err != nil {
		t.Fatal(err)
	}
	c.More = func(id int) More {
		starts++
		clock := clocks[(starts-1)%len(clocks)]
		t.Logf("broker %d gets the clock %s", id, clock)
		return More{Env: []string{envClock + "=" + clock}}
	}
	t.Cleanup(c.Close)
	defer c.Close() // one cluster at a time
	if err := c.StartAll(); err != nil {
		t.Fatal(err)
	}
	var opts []func(*load.Load)
	if os.Getenv(envForeign) != "" {
		opts = append(opts, withForeign(foreignClients(t)))
	}
	r := begin(t, c, opts...)
	r.keepsSessions()
	for range 3 {
		for _, f := range named("kill", "stop", "pause", "two", "all", "roll", "kill") {
			f.do(r)
			at := r.note("all is up after %s", f.name)
			r.settle("after "+f.name, at)
			r.pause(400)
		}
	}
	r.keepsSessions()
	r.finish()
	return r.writable
}

// keepsSessions lets clocks jump for a while in which nothing else happens: nobody is held for dead, no member of a group is
// sent away, no partition changes hands.
func (r *run) keepsSessions() {
	r.t.Helper()
	c := r.c.(*Skein)
	began, revoked, logs := r.note("clocks jump"), r.load.Revoked(), c.Logs()
	time.Sleep(12 * time.Second) // several periods: that is what is tested
	r.settle("clocks jump", time.Now())
	if n := r.load.Revoked(); n != revoked {
		r.t.Errorf("%d partitions were taken from group members in %v without a fault", n-revoked, time.Since(began))
	}
	for line := range strings.Lines(c.Logs()) {
		if strings.Contains(line, "failover") && !strings.Contains(logs, line) {
			r.t.Errorf("without a fault: %s", line)
		}
	}
}
