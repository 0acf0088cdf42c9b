package session

import (
	"bufio"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/skeinmq/skein/controller/failover"
	"github.com/skeinmq/skein/internal/ident"
)

var rewrite = flag.Bool("rewrite", false, "write the transcripts")

// TestScripts plays events against the machine. A line is a time in ms, a verb and its arguments; what the machine wants
// done follows it, indented.
func TestScripts(t *testing.T) {
	files, err := filepath.Glob("testdata/*.txt")
	if err != nil || len(files) == 0 {
		t.Fatal(files, err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txt"), func(t *testing.T) {
			was, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			got := play(t, string(was))
			if *rewrite {
				if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
					t.Fatal(err)
				}
			} else if got != string(was) {
				t.Errorf("got\n%s", got)
			}
		})
	}
}

func play(t *testing.T, script string) string {
	m := NewMachine(1, 2*time.Second, 50*time.Millisecond)
	var out strings.Builder
	clock := 0
	step := func(now int, line string) {
		words := strings.Fields(line)
		var a, b, c int
		at := time.Duration(now) * time.Millisecond
		nums := func(to ...*int) {
			for i, p := range to {
				fmt.Sscan(words[i+1], p)
			}
		}
		switch words[0] {
		case "list": // broker:incarnation …
			var l []Listed
			for _, w := range words[1:] {
				fmt.Sscanf(w, "%d:%d", &a, &b)
				addr := fmt.Sprintf("host%d", a)
				if b == 0 {
					addr = ""
				}
				l = append(l, Listed{Broker: ident.Broker(a), Incarnation: int64(b), Address: addr})
			}
			m.List(at, l)
		case "beat": // stream broker incarnation [leaving|draining]
			nums(&a, &b, &c)
			hb := Beat{Broker: ident.Broker(b), Incarnation: int64(c), Leaving: strings.Contains(line, "leaving"), Draining: strings.Contains(line, "draining")}
			if m.Beat(at, uint64(a), hb) {
				fmt.Fprintf(&out, "      told that it is dead\n")
			}
		case "closed":
			nums(&a)
			m.Closed(at, uint64(a))
		case "refused", "answered":
			nums(&a, &b)
			m.Probed(at, ident.Broker(a), int64(b), words[0] == "refused")
		case "tick":
			m.Tick(at)
		default:
			t.Fatalf("verb %q", words[0])
		}
		for _, a := range m.Drain() {
			if a.Probe {
				fmt.Fprintf(&out, "      %d: knock at broker %d.%d %s\n", now, a.Broker, a.Incarnation, a.Address)
			} else {
				fmt.Fprintf(&out, "      %d: broker %d.%d is %s: %s\n", now, a.Broker, a.Incarnation, standingName(a.Standing), a.Reason)
			}
		}
	}
	for s := bufio.NewScanner(strings.NewReader(script)); s.Scan(); {
		line := s.Text()
		if strings.HasPrefix(line, " ") {
			continue
		}
		out.WriteString(line + "\n")
		if line == "" || line[0] == '#' {
			continue
		}
		now, rest, _ := strings.Cut(line, " ")
		var at int
		fmt.Sscan(now, &at)
		if rest == "stall" { // no tick until then
			clock = at
		}
		for ; clock < at; clock += 25 {
			step(clock, "tick")
		}
		if rest != "stall" && rest != "run" {
			step(at, rest)
		}
	}
	return out.String()
}

// TestWhoeverBeatsLives: whatever happens around it, a broker that is heard often enough, and whose incarnation is
// the newest, is never given up.
func FuzzWhoeverBeatsLives(f *testing.F) {
	f.Add([]byte{1, 2, 3, 4, 5, 6})
	f.Fuzz(func(t *testing.T, events []byte) {
		m := NewMachine(1, 2*time.Second, 50*time.Millisecond)
		now := time.Duration(0)
		for i, e := range events {
			now += time.Duration(e>>3) * 10 * time.Millisecond
			if m.Beat(now, 1, Beat{Broker: 2, Incarnation: 7}) {
				t.Fatalf("event %d: given up", i)
			}
			other := ident.Broker(3 + e&1)
			switch e & 7 {
			case 0, 1:
				m.Tick(now)
			case 2:
				m.List(now, []Listed{{2, 7, "a"}, {other, int64(e), "b"}})
			case 3:
				m.Beat(now, uint64(e), Beat{Broker: other, Incarnation: int64(e >> 3), Leaving: e&16 != 0})
			case 4:
				m.Closed(now, uint64(e))
			case 5:
				m.Probed(now, other, int64(e>>3), true)
			case 6:
				m.Probed(now, 2, 7, true)
			case 7:
				m.List(now, nil)
			}
			m.Drain()
		}
	})
}

// TestFormer: the leader before has been silent for a while when a term begins, and the new one need not wait for all of
// its timeout again; it has a quarter of it to show that it was only deposed.
func TestFormer(t *testing.T) {
	for _, c := range []struct{ silent, dead time.Duration }{
		{0, 2 * time.Second},
		{900 * time.Millisecond, 1100 * time.Millisecond},
		{time.Hour, 500 * time.Millisecond},
		{-time.Hour, 2 * time.Second},
	} {
		m := NewMachine(1, 2*time.Second, 50*time.Millisecond)
		m.Former(2, c.silent)
		m.List(0, []Listed{{Broker: 2, Incarnation: 7}, {Broker: 3, Incarnation: 7}})
		at := map[ident.Broker]time.Duration{}
		for now := time.Duration(0); now <= 3*time.Second; now += 10 * time.Millisecond {
			m.Tick(now)
			for _, a := range m.Drain() {
				if a.Standing == failover.Dead {
					at[a.Broker] = now
				}
			}
		}
		if at[2] != c.dead || at[3] != 2*time.Second {
			t.Errorf("silent for %v: dead after %v", c.silent, at)
		}
	}
}
