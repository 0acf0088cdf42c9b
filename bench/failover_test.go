package bench

import (
	"strings"
	"testing"
	"time"
)

// barsOf finds the judged bars whose name has a part.
func barsOf(bars []Bar, part string) (out []Bar) {
	for _, b := range bars {
		if strings.Contains(b.About, part) {
			out = append(out, b)
		}
	}
	return out
}

// TestByRank: a percentile is not the maximum as soon as there are a hundred samples.
func TestByRank(t *testing.T) {
	for _, c := range []struct {
		n, percent int
		want       float64
	}{{0, 99, 0}, {1, 99, 1}, {2, 50, 1}, {3, 50, 2}, {99, 99, 99}, {100, 99, 99}, {101, 99, 100}, {300, 99, 297}} {
		var s []float64
		for i := range c.n {
			s = append(s, float64(i+1))
		}
		if got := byRank(s, c.percent); got != c.want {
			t.Errorf("%d%% of 1 to %d: %v, want %v", c.percent, c.n, got, c.want)
		}
	}
}

// TestConsumerIsJudgedByItsOwnKills: not by the worst write pause of another scenario, nor of another kill.
func TestConsumerIsJudgedByItsOwnKills(t *testing.T) {
	kill := Pauses{Scenario: "kill", Target: "skein", Samples: []float64{5}}
	kill.close()
	for _, c := range []struct {
		reads, writes []float64
		met           bool
	}{
		{[]float64{0.2, 0.9}, []float64{0.15, 0.85}, true},
		{[]float64{0.3, 0.9}, []float64{0.15, 0.85}, false},
		{[]float64{0.9, 0.2}, []float64{0.1, 0.9}, false},
	} {
		p := Pauses{Scenario: "consumer", Target: "skein", Samples: c.reads, Writes: c.writes, Behind: 3, Partitions: 100}
		p.close()
		rep := FailoverReport{Pauses: []Pauses{kill, p}}
		rep.Bars = judgeFailover(rep)
		bars := barsOf(rep.Bars, "beyond the write pause")
		if len(bars) != 1 || bars[0].Met != c.met {
			t.Errorf("read %v, write %v: %+v, want met %v", c.reads, c.writes, bars, c.met)
		}
		var out strings.Builder
		if err := rep.Print(&out); err != nil || !strings.Contains(out.String(), "3 of 2 × 100 partitions") {
			t.Errorf("printed %v: %s", err, out.String())
		}
	}
}

// TestWatcherLeavesOutWhatWaits: a partition of which nothing was read is in neither pause.
func TestWatcherLeavesOutWhatWaits(t *testing.T) {
	at := func(ms int) time.Time { return time.Unix(1000, 0).Add(time.Duration(ms) * time.Millisecond) }
	w := &watcher{parts: 2, next: make([]int64, 2), read: newGaps(2), written: newGaps(2)}
	w.saw(0, 1, at(0))
	w.saw(1, 1, at(0))
	w.written.event(0, at(0))
	w.written.event(1, at(0))
	w.written.event(0, at(100))
	w.written.event(1, at(700))
	w.saw(0, 2, at(250))
	if n := w.read.waiting(at(50)); n != 1 {
		t.Errorf("%d partitions wait", n)
	}
	if read, written := w.take(at(50)); read != 0.25 || written != 0.1 {
		t.Errorf("pauses %v, %v", read, written)
	}
	w.saw(1, 2, at(900))
	if read, written := w.take(at(50)); read != 0.9 || written != 0 {
		t.Errorf("pauses after it came: %v, %v", read, written)
	}
}

// TestPauseOfAMove: only what was due from the moment on counts, however late it came.
func TestPauseOfAMove(t *testing.T) {
	begun := time.Unix(1000, 0)
	f := &flow{slow: []late{{due: begun.Add(-time.Millisecond), took: time.Second}, {due: begun, took: 7 * time.Millisecond}, {due: begun.Add(time.Millisecond), took: 6 * time.Millisecond}}}
	if got := f.worstSince(begun); got != 7*time.Millisecond {
		t.Errorf("pause %v", got)
	}
}
