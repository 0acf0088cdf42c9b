package dev

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"reflect"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/skeinmq/skein/internal/logtest"
)

// envFake makes the test binary play a broker: it says so, and ends on SIGTERM.
const envFake = "SKEIN_DEV_FAKE"

func TestMain(m *testing.M) {
	switch os.Getenv(envFake) {
	case "":
		os.Exit(m.Run())
	case "broker":
		term := make(chan os.Signal, 1)
		signal.Notify(term, syscall.SIGTERM)
		fmt.Println("ready listen=fake")
		<-term
	case "fails":
		fmt.Fprintln(os.Stderr, "no")
		os.Exit(3)
	case "supervisor": // to be killed: its children must go with it
		s, err := New(Config{Dir: os.Getenv("SKEIN_DEV_DIR"), BasePort: 1000, Brokers: 2, Command: fake("broker"), Out: os.Stdout})
		if err == nil {
			err = s.Run(context.Background())
		}
		fmt.Fprintln(os.Stderr, err)
	}
	os.Exit(0)
}

func fake(kind string) func(Spec, []Spec, bool) *exec.Cmd {
	return func(Spec, []Spec, bool) *exec.Cmd {
		cmd := exec.Command(os.Args[0])
		cmd.Env = append(os.Environ(), envFake+"="+kind)
		return cmd
	}
}

// running starts a supervisor whose brokers are fakes and returns it when all of them serve.
func running(t *testing.T, brokers int) (*Supervisor, *logtest.Output) {
	t.Helper()
	out := &logtest.Output{}
	cfg := Config{Dir: t.TempDir(), BasePort: 1000, Brokers: brokers, Command: fake("broker"), Out: out, Patience: time.Minute}
	cfg.Order = func(_ context.Context, verb string, target, by Spec) error {
		if target.ID == by.ID {
			return fmt.Errorf("asked itself")
		}
		return nil
	}
	s, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- s.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("run: %v", err)
		}
	})
	for strings.Count(out.String(), "ready id=") < brokers {
		select {
		case err := <-ended:
			ended <- err
			t.Fatalf("ended at once: %v", err)
		default:
			do(t, s, "status")
		}
	}
	return s, out
}

func do(t *testing.T, s *Supervisor, line string) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	text, err := s.Do(ctx, line)
	if err != nil {
		t.Errorf("%s: %v", line, err)
	}
	return text
}

func states(t *testing.T, s *Supervisor) (out []string) {
	t.Helper()
	for line := range strings.Lines(do(t, s, "status")) {
		for f := range strings.FieldsSeq(line) {
			if state, ok := strings.CutPrefix(f, "state="); ok {
				out = append(out, state)
			}
		}
	}
	return out
}

func TestCommands(t *testing.T) {
	s, out := running(t, 3)
	var told []Status
	if err := json.Unmarshal([]byte(do(t, s, "status json")), &told); err != nil || len(told) != 3 || told[1].ID != 2 || told[1].State != Ready || told[1].PID == 0 {
		t.Errorf("status as JSON: %+v, %v", told, err)
	}
	for _, c := range []struct {
		do   string
		want []string
	}{
		{"kill 2", []string{"ready", "down", "ready"}},
		{"start 2", []string{"ready", "ready", "ready"}},
		{"stop 1", []string{"down", "ready", "ready"}},
		{"restart 1", []string{"ready", "ready", "ready"}},
		{"restart 1", []string{"ready", "ready", "ready"}},
		{"pause 3", []string{"ready", "ready", "paused"}},
		{"kill 3", []string{"ready", "ready", "down"}},
		{"start all", []string{"ready", "ready", "ready"}},
		{"drain 2", []string{"ready", "ready", "ready"}},
		{"undrain 2", []string{"ready", "ready", "ready"}},
		{"add", []string{"ready", "ready", "ready", "ready"}},
		{"roll", []string{"ready", "ready", "ready", "ready"}},
		{"pause all", []string{"paused", "paused", "paused", "paused"}},
		{"continue all", []string{"ready", "ready", "ready", "ready"}},
		{"kill all", []string{"down", "down", "down", "down"}},
		{"start all", []string{"ready", "ready", "ready", "ready"}},
		{"pause 4", []string{"ready", "ready", "ready", "paused"}}, // is stopped in the end all the same
	} {
		do(t, s, c.do)
		if got := states(t, s); !reflect.DeepEqual(got, c.want) {
			t.Fatalf("after %s: %v, want %v", c.do, got, c.want)
		}
	}
	if !strings.Contains(out.String(), "ended id=2 pid=") || !strings.Contains(out.String(), "signal: killed") {
		t.Errorf("the end of a killed broker was not told:\n%s", out)
	}
}

func TestRefusals(t *testing.T) {
	s, _ := running(t, 1)
	for _, line := range []string{"kill", "kill 2", "kill x", "kill 1 2", "dance 1", "continue 1", "start 1", "start all", "add", "quit 1"} {
		if text, err := s.Do(t.Context(), line); err == nil {
			t.Errorf("%q was accepted: %s", line, text)
		}
	}
	if got := do(t, s, "help"); !strings.Contains(got, "pause N") {
		t.Errorf("help says %q", got)
	}
	if got := do(t, s, "  "); got != "" {
		t.Errorf("an empty line says %q", got)
	}
}

func TestStartThatFails(t *testing.T) {
	s, _ := running(t, 1)
	s.onLoop(func() { s.cfg.Command = fake("fails") })
	do(t, s, "kill 1")
	for _, verb := range []string{"start 1", "restart 1"} {
		if text, err := s.Do(t.Context(), verb); err == nil || !strings.Contains(err.Error(), "exit status 3") || text != "" {
			t.Errorf("%s, of a broker that ends with code 3: %q, %v", verb, text, err)
		}
	}
	log, err := os.ReadFile(filepath.Join(s.cfg.Dir, "1.log"))
	if err != nil || !strings.Contains(string(log), "no\n") {
		t.Errorf("its log is %q, %v", log, err)
	}
}

// TestLostDirectory: a founder is told the founders' list; when its directory is lost while others serve, there is a cluster
// without it, which it can only join.
func TestLostDirectory(t *testing.T) {
	s, _ := running(t, 3)
	told := make(chan []Spec, 1)
	s.onLoop(func() {
		s.cfg.Command = func(c Spec, voters []Spec, alone bool) *exec.Cmd {
			told <- voters
			return fake("broker")(c, voters, alone)
		}
	})
	node := filepath.Join(s.cfg.Dir, "2", "meta", "node.json")
	for _, c := range []struct {
		has  bool
		do   []string
		want int // voters that it is told
	}{{true, []string{"restart 2"}, 3}, {false, []string{"restart 2"}, 2}, {false, []string{"kill all", "start 2"}, 3}} {
		if err := os.MkdirAll(filepath.Dir(node), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(node, nil, 0o644); err != nil {
			t.Fatal(err)
		}
		if !c.has {
			if err := os.Remove(node); err != nil {
				t.Fatal(err)
			}
		}
		for _, line := range c.do {
			do(t, s, line)
		}
		if got := <-told; len(got) != c.want {
			t.Errorf("%v, with a node file %v: told of %v, want %d", c.do, c.has, got, c.want)
		}
	}
}

// TestKilledSupervisor: the kernel ends the children of a supervisor that had no time to.
func TestKilledSupervisor(t *testing.T) {
	if _, err := os.Stat("/proc/self/stat"); err != nil {
		t.Skip("needs Linux")
	}
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), envFake+"=supervisor", "SKEIN_DEV_DIR="+t.TempDir())
	pipe, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	var text strings.Builder
	buf := make([]byte, 4096)
	for strings.Count(text.String(), "\n") < 2 {
		n, err := pipe.Read(buf)
		text.Write(buf[:n])
		if err != nil {
			t.Fatal(err, text.String())
		}
	}
	cmd.Process.Kill()
	cmd.Wait()
	for f := range strings.FieldsSeq(text.String()) {
		p, ok := strings.CutPrefix(f, "pid=")
		if !ok {
			continue
		}
		pid, err := strconv.Atoi(p)
		if err != nil {
			t.Fatal(err)
		}
		deadline := time.Now().Add(time.Minute)
		for lives(pid) {
			if time.Now().After(deadline) {
				t.Fatalf("child %d outlives its supervisor", pid)
			}
			time.Sleep(time.Millisecond)
		}
	}
}

// lives: a process that has ended but was not waited for is not.
func lives(pid int) bool {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	return err == nil && !strings.Contains(string(stat), ") Z ")
}

func TestControl(t *testing.T) {
	s, _ := running(t, 1)
	ctx, cancel := context.WithCancel(t.Context())
	ln, err := s.ListenControl()
	if err != nil {
		t.Fatal(err)
	}
	served := make(chan error, 1)
	go func() { served <- s.ServeControl(ctx, ln) }()
	text, err := Control(t.Context(), s.cfg.Dir, "kill 1")
	if err != nil || !strings.Contains(text, "broker 1 ended") {
		t.Errorf("kill 1: %q, %v", text, err)
	}
	if _, err := Control(t.Context(), s.cfg.Dir, "kill 1"); err == nil || !strings.Contains(err.Error(), "does not run") {
		t.Errorf("kill of a dead broker: %v", err)
	}
	if _, err := s.ListenControl(); err == nil {
		t.Error("two supervisors on one directory")
	}
	cancel()
	if err := <-served; err != nil {
		t.Error(err)
	}
}

func TestPlan(t *testing.T) {
	want := Spec{ID: 3, Dir: "d/3", Listen: "127.0.0.1:9112", Internal: "127.0.0.1:9113", HTTP: "127.0.0.1:9114"}
	got, err := SpecOf("d", 9092, 3)
	if err != nil || got != want {
		t.Errorf("%+v, %v", got, err)
	}
	for _, base := range []int{0, 65534} {
		if _, err := SpecOf("d", base, 1); err == nil {
			t.Errorf("base port %d was accepted", base)
		}
	}
	one, _ := SpecOf("d", 9092, 1)
	two, _ := SpecOf("d", 9092, 2)
	for _, c := range []struct {
		args []string
		want string
	}{
		{ServeArgs(one, []Spec{one}, true), "serve --data d/1 --node-id 1 --listen 127.0.0.1:9092 --http 127.0.0.1:9094"},
		{ServeArgs(one, []Spec{one, two}, false), "serve --data d/1 --node-id 1 --listen 127.0.0.1:9092 --http 127.0.0.1:9094 " +
			"--internal 127.0.0.1:9093 --peers 1@127.0.0.1:9093,2@127.0.0.1:9103"},
		{ServeArgs(two, []Spec{one}, false), "serve --data d/2 --node-id 2 --listen 127.0.0.1:9102 --http 127.0.0.1:9104 " +
			"--internal 127.0.0.1:9103 --join 127.0.0.1:9093"},
	} {
		if got := strings.Join(c.args, " "); got != c.want {
			t.Errorf("got  %s\nwant %s", got, c.want)
		}
	}
	for n, want := range map[int]int{1: 1, 2: 1, 3: 3, 4: 3, 5: 5, 9: 5} {
		if got := Voters(n); got != want {
			t.Errorf("%d of %d vote, want %d", got, n, want)
		}
	}
}

func TestTableLines(t *testing.T) {
	view := func(rev int64, epochs ...int64) mapView {
		v := mapView{Revision: rev, Partitions: 7}
		for i, id := range []string{"A", "B"} {
			v.Logs = append(v.Logs, struct {
				ID     string `json:"id"`
				Broker int    `json:"broker"`
				Epoch  int64  `json:"epoch"`
				State  string `json:"state"`
			}{id, i + 1, 5, "open"})
		}
		for g, e := range epochs {
			v.Groups = append(v.Groups, struct {
				Group int    `json:"group"`
				Epoch int64  `json:"epoch"`
				Log   string `json:"log"`
			}{g, e, []string{"A", "B"}[e%2]})
		}
		return v
	}
	at := time.Unix(1000, 0)
	rows := []row{{spec: Spec{ID: 1, Listen: "one:1"}, state: Ready, pid: 11, since: at}, {spec: Spec{ID: 2, Listen: "two:2"}, state: Down, since: at}}
	table := Table{}
	first := sample{at: at, rows: rows, view: view(1, 2, 3, 2), haveView: true, received: map[int]float64{1: 1e6}}
	table.lines(first)
	table.last = first
	text := strings.Join(table.lines(sample{at: at.Add(time.Second), rows: rows, view: view(2, 3, 3, 3), haveView: true, received: map[int]float64{1: 4e6}}), "\n")
	for _, want := range []string{"one:1", "3.0  1s", "2 changes of generations", "2 groups: broker 1 → broker 2", "7 partitions"} {
		if !strings.Contains(text, want) {
			t.Errorf("no %q in\n%s", want, text)
		}
	}
}

func TestFindMetric(t *testing.T) {
	page := "# HELP a_total x\na_total_b 5\na_total{node=\"1\"} 12.5\n"
	if v, err := findMetric(strings.NewReader(page), "a_total"); err != nil || v != 12.5 {
		t.Errorf("%v, %v", v, err)
	}
	if _, err := findMetric(strings.NewReader(page), "c"); err == nil {
		t.Error("found what is not there")
	}
}
