package crash

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
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
	envKills = "SKEIN_CRASH_KILLS" // default 100
	envSeed  = "SKEIN_CRASH_SEED"  // default random
	envKeep  = "SKEIN_CRASH_KEEP"  // directory that is left behind
	envLogs  = "SKEIN_CRASH_LOGS"  // data directories from the start; default 1, and 2 from half of the kills on
)

// startPatience is how long a broker may take to be ready. On a quiet machine it takes 0.1 s.
const startPatience = 90 * time.Second

// patience is how long clients may take to get on once the broker stays up.
const patience = 90 * time.Second

// stopPatience is how long a broker may take to exit after SIGTERM.
const stopPatience = 60 * time.Second

var built struct {
	once sync.Once
	dir  string // to be removed
	path string
	err  error
}

// skein builds the binary once for all tests of the package.
func skein(t *testing.T) string {
	t.Helper()
	built.once.Do(func() {
		if built.dir, built.err = os.MkdirTemp("", "skein-crash"); built.err == nil {
			built.path, built.err = process.Build(built.dir)
		}
	})
	if built.err != nil {
		t.Fatal(built.err)
	}
	return built.path
}

func TestMain(m *testing.M) {
	code := m.Run()
	os.RemoveAll(built.dir)
	os.Exit(code)
}

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
		if err := os.MkdirAll(dir, 0o755); err != nil {
			t.Fatal(err)
		}
		t.Logf("data stays in %s", dir)
		return dir
	}
	return t.TempDir()
}

// run is one crash run: a broker, its load, and what happened.
type run struct {
	t      *testing.T
	rng    *rand.Rand
	broker process.Broker
	load   *load.Load

	kills, early, stops, productive int
	restarts, stopTimes             []time.Duration
	logs                            map[string]int // warning lines of the brokers, by message
}

// TestKill kills one broker over and over under load, in the second half with a second data directory and with
// placement groups on the move, and compares what is there in the end with what its clients were told.
func TestKill(t *testing.T) {
	kills := int(number(t, envKills, 100))
	seed := number(t, envSeed, rand.Uint64()%1e9)
	t.Logf("replay with %s=%d %s=%d go test -count=1 -v -run TestKill ./test/crash", envSeed, seed, envKills, kills)
	ports, err := process.Ports(2)
	if err != nil {
		t.Fatal(err)
	}
	dir := workDir(t)
	r := &run{t: t, rng: rand.New(rand.NewPCG(seed, 0)), logs: make(map[string]int)}
	r.broker = process.Broker{Bin: skein(t), Data: []string{filepath.Join(dir, "a")}, Listen: ports[0], HTTP: ports[1],
		Args: []string{"--set", "group.initial.rebalance.delay.ms=0"}}
	if number(t, envLogs, 1) > 1 {
		r.broker.Data = append(r.broker.Data, filepath.Join(dir, "b"))
	}
	r.load = &load.Load{Seeds: []string{ports[0]}, Seed: seed, H: history.New(), Patience: patience}

	p := r.start()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	if err := r.load.Create(ctx); err != nil {
		p.Kill()
		t.Fatal(err)
	}
	if err := r.load.Begin(); err != nil {
		p.Kill()
		t.Fatal(err)
	}
	for r.kills < kills && !t.Failed() {
		if r.kills >= kills/2 && len(r.broker.Data) == 1 {
			r.stop(p)
			r.broker.Data = append(r.broker.Data, filepath.Join(dir, "b"))
			p = r.start()
		}
		p = r.round(p)
	}
	r.finish(p)
}

// start starts the broker or ends the test.
func (r *run) start() *process.Process {
	r.t.Helper()
	p, err := r.broker.Start(startPatience)
	if err != nil {
		r.t.Fatalf("after %d kills: %v", r.kills, err)
	}
	r.restarts = append(r.restarts, p.Ready)
	return p
}

// round lets a broker serve for a moment, ends it somehow, and returns the next one.
func (r *run) round(p *process.Process) *process.Process {
	r.t.Helper()
	moving := r.moveGroups(p)
	before, seen, commits := r.load.Acked(), r.load.Seen(), r.load.Commits()
	switch n := r.rng.IntN(100); {
	case n < 65: // under load
		r.await(p, "acked", r.load.Acked, before+1+r.rng.Int64N(400))
		if n < 40 {
			r.await(p, "seen", r.load.Seen, seen+1)
		}
		if n < 15 {
			r.await(p, "committed", r.load.Commits, commits+1)
		}
		r.pause(60)
	case n < 85: // soon after it serves
		r.pause(60)
	case n < 93: // in order
		r.await(p, "acked", r.load.Acked, before+1)
		r.stop(p)
		moving()
		return r.start()
	default: // while it stops
		r.await(p, "acked", r.load.Acked, before+1)
		p.Signal()
		r.pause(30)
	}
	if r.load.Acked() > before {
		r.productive++
	}
	r.kill(p)
	moving()
	for r.rng.IntN(100) < 15 { // while it recovers
		p, err := r.broker.Spawn()
		if err != nil {
			r.t.Fatal(err)
		}
		r.pause(150)
		r.early++
		r.kill(p)
	}
	return r.start()
}

// pause waits for a random time up to so many milliseconds: the moment of a kill is what is random here.
func (r *run) pause(ms int) { time.Sleep(time.Duration(r.rng.IntN(ms*1000)) * time.Microsecond) }

// await waits until a count has reached n; a count that stands still for long fails the test.
func (r *run) await(p *process.Process, what string, count func() int64, n int64) {
	r.t.Helper()
	deadline := time.Now().Add(patience)
	for last := count(); count() < n; time.Sleep(time.Millisecond) {
		if now := count(); now > last {
			last, deadline = now, time.Now().Add(patience)
		}
		if time.Now().After(deadline) {
			r.t.Errorf("nothing %s for %v (%d so far)\n%s", what, patience, count(), p.Log())
			r.autopsy()
			return
		}
	}
}

// autopsy writes down what a broker that stands still is doing, and what a fresh client sees of it.
func (r *run) autopsy() {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	if rq, err := http.NewRequestWithContext(ctx, "GET", "http://"+r.broker.HTTP+"/debug/pprof/goroutine?debug=1", nil); err == nil {
		if rs, err := http.DefaultClient.Do(rq); err == nil {
			text, _ := io.ReadAll(rs.Body)
			rs.Body.Close()
			r.t.Logf("goroutines:\n%s", text)
		}
	}
	r.t.Logf("a fresh producer: %v", r.load.Probe(ctx))
}

func (r *run) kill(p *process.Process) {
	r.t.Helper()
	r.kills++
	if err := p.Kill(); err != nil && !p.Signalled() {
		r.t.Error(err)
	}
	r.readLog(p)
}

func (r *run) stop(p *process.Process) {
	r.t.Helper()
	took, err := p.Stop(stopPatience)
	if err != nil {
		r.t.Error(err)
	}
	r.stops++
	r.stopTimes = append(r.stopTimes, took)
	r.readLog(p)
}

// readLog counts a broker's log lines by message and fails on a panic.
func (r *run) readLog(p *process.Process) {
	r.t.Helper()
	text := p.Log()
	if strings.Contains(text, "panic:") || strings.Contains(text, "fatal error:") {
		r.t.Errorf("the broker panicked:\n%s", text)
	}
	for line := range strings.Lines(text) {
		if _, msg, ok := strings.Cut(line, "level="); ok {
			if len(msg) > 100 {
				msg = msg[:100]
			}
			r.logs[strings.TrimSpace(msg)]++
		}
	}
}

// moveGroups moves groups between two logs, by turns all and spread out, until the broker is gone. The function that it
// returns waits for the end.
func (r *run) moveGroups(p *process.Process) (wait func()) {
	if len(r.broker.Data) < 2 {
		return func() {}
	}
	var wg sync.WaitGroup
	wg.Go(func() {
		for turn := 0; ; turn++ {
			err := r.moveOnce(turn)
			pause := time.Duration(0)
			if err != nil { // it is gone, or has not noticed yet that a log came back
				pause = 10 * time.Millisecond
			}
			select {
			case <-p.Done():
				return
			case <-time.After(pause):
			}
		}
	})
	return wg.Wait
}

func (r *run) moveOnce(turn int) error {
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	args := []string{"--spread"}
	if turn%3 != 2 {
		logs, err := logIDs(ctx, r.broker.HTTP)
		if err != nil {
			return err
		}
		if len(logs) < 2 {
			return fmt.Errorf("%d logs", len(logs))
		}
		args = []string{"--all", "--from", logs[turn%2], "--to", logs[1-turn%2]}
	}
	return exec.CommandContext(ctx, r.broker.Bin, append([]string{"map", "move", "--http", r.broker.HTTP, "--json"}, args...)...).Run()
}

// mapView is what the tests need of the operators' view of the map.
type mapView struct {
	Logs   []struct{ ID, State string }
	Groups []struct{ Epoch int64 }
}

func readMap(ctx context.Context, addr string) (mapView, error) {
	var view mapView
	rq, err := http.NewRequestWithContext(ctx, "GET", "http://"+addr+"/v1/map", nil)
	if err != nil {
		return view, err
	}
	rs, err := http.DefaultClient.Do(rq)
	if err != nil {
		return view, err
	}
	defer rs.Body.Close()
	return view, json.NewDecoder(rs.Body).Decode(&view)
}

// logIDs lists the open logs.
func logIDs(ctx context.Context, addr string) ([]string, error) {
	view, err := readMap(ctx, addr)
	var out []string
	for _, l := range view.Logs {
		if l.State == "open" {
			out = append(out, l.ID)
		}
	}
	return out, err
}

// finish ends the load, reads everything and judges.
func (r *run) finish(p *process.Process) {
	t := r.t
	moving := r.moveGroups(p)
	problems := r.load.Finish()
	if problems != nil {
		t.Errorf("%v\n%s", problems, p.Log())
	}
	ctx, cancel := context.WithTimeout(context.Background(), 2*patience)
	defer cancel()
	if err := r.load.ReadAll(ctx); err != nil {
		t.Errorf("%v\n%s", err, p.Log())
	}
	rss, _, _, _ := p.Memory()
	moved := int64(0)
	if view, err := readMap(ctx, r.broker.HTTP); err == nil {
		for _, g := range view.Groups {
			moved += g.Epoch
		}
	}
	r.stop(p)
	moving()
	found, totals := r.load.H.Check()
	for _, v := range found {
		t.Error(v)
	}
	r.verify()
	t.Logf("%d kills (%d of a broker under load, %d of one that was starting), %d orderly stops, %d groups moved",
		r.kills, r.productive, r.early, r.stops, moved)
	t.Logf("%d records sent, %d acked, %d read in the end, %d seen before; %d doubles of plain producers; %d commits",
		totals.Sent, totals.Acked, totals.Read, totals.Seen, totals.Doubles, r.load.Commits())
	t.Logf("ready after %s; exit after SIGTERM %s; resident memory in the end %d MiB", spread(r.restarts), spread(r.stopTimes), rss>>20)
	for msg, n := range r.logs {
		t.Logf("%6d × %s", n, msg)
	}
	if totals.Acked < int64(r.kills) {
		t.Errorf("the load did not run: %d acked", totals.Acked)
	}
	if r.load.Commits() == 0 {
		t.Log("no offset was committed: the broker does not serve groups")
	}
}

// verify has the binary check every CRC of the logs that the run left behind.
func (r *run) verify() {
	if out, err := exec.Command(r.broker.Bin, "log", "--help").CombinedOutput(); err != nil {
		r.t.Logf("skein log: %s", out)
		return
	}
	for _, dir := range r.broker.Data {
		if out, err := exec.Command(r.broker.Bin, "log", "verify", dir).CombinedOutput(); err != nil {
			r.t.Errorf("skein log verify %s: %v\n%s", dir, err, out)
		}
	}
}

// spread renders median and extremes.
func spread(d []time.Duration) string {
	if len(d) == 0 {
		return "-"
	}
	s := slices.Sorted(slices.Values(d))
	ms := func(d time.Duration) string { return d.Round(time.Millisecond).String() }
	return fmt.Sprintf("%s median, %s p90, %s at most", ms(s[len(s)/2]), ms(s[len(s)*9/10]), ms(s[len(s)-1]))
}
