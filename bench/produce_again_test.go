package bench

import (
	"errors"
	"strings"
	"testing"
	"time"
)

// againLoad goes to six partitions, two in each request, of which three may go on their way alone.
func againLoad(patience time.Duration) ProduceLoad {
	return ProduceLoad{
		Topics: Topics{Prefix: "t", Count: 1, Partitions: 6}, RecordBytes: 100, Records: 2, Parts: 2, Conns: 2, InFlight: 3, Acks: -1,
		Time: time.Hour, Patience: patience,
	}
}

func (w *fakeWorld) total() (n int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, k := range w.written {
		n += k
	}
	return n
}

func (w *fakeWorld) requestsRouted() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.routed
}

// leadOdd makes somebody the leader of every second partition.
func (w *fakeWorld) leadOdd(to int32) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for i := 1; i < len(w.leader); i += 2 {
		w.leader[i] = to
	}
}

// awaitMore returns when more batches were written, or the load has ended.
func (w *fakeWorld) awaitMore(t *testing.T, ended <-chan struct{}, n int) {
	for more := w.total() + n; w.total() < more; {
		select {
		case <-time.After(time.Millisecond):
		case <-ended:
			t.Errorf("the load has ended before its story: %d batches", w.total())
			return
		}
	}
}

// TestProduceGoesOn: half of the partitions have no leader for a while, then another broker leads them, then the first one again. Nothing
// ends the load, each batch is written once, what was refused is counted as one slow request, what another broker leads goes there
// without asking the first one each time, and what comes back takes the short way again.
func TestProduceGoesOn(t *testing.T) {
	w := newFakeWorld(t, 2, 6)
	load := againLoad(time.Minute)
	const away = 100 * time.Millisecond
	slots := load.Conns * load.InFlight
	story, ended := make(chan struct{}), make(chan struct{})
	load.over = story
	go func() {
		defer close(story)
		w.awaitMore(t, ended, 100)
		w.leadOdd(-1)
		time.Sleep(away) // what is measured
		w.leadOdd(1)
		w.awaitMore(t, ended, 300)
		w.leadOdd(0)
		w.awaitMore(t, ended, 100)
		before := w.requestsRouted()
		w.awaitMore(t, ended, 300)
		if n := w.requestsRouted() - before; n > 3*slots { // each slot's last one may be refused, and refused again by who led before
			t.Errorf("%d requests went through the router with everybody back", n)
		}
	}()
	p, err := Produce(t.Context(), w.brokers[0].ln.Addr().String(), load)
	close(ended)
	<-story // what it has to say of the test is said
	if err != nil {
		t.Fatal(err)
	}
	if want := int64(w.total() * len(encodeBatch(2, 100, time.Now()))); p.AllBytes != want {
		t.Errorf("%d bytes acknowledged, %d written", p.AllBytes, want)
	}
	// Three changes, at each of which every slot's request may be refused once by the leader before.
	if most := int64(3 * slots); p.Refused == 0 || p.Refused > most {
		t.Errorf("%d refused, want 1 to %d", p.Refused, most)
	}
	if p.Latency.Max < float64(away.Milliseconds()) {
		t.Errorf("worst latency %.1f ms: it does not count from the first sending", p.Latency.Max)
	}
}

// TestProduceGivesUp: without patience, for a refusal that stays, and after the patience.
func TestProduceGivesUp(t *testing.T) {
	for _, c := range []struct {
		name     string
		patience time.Duration
		refusal  int16
		want     []string
	}{
		{"no patience", 0, 6, []string{"produce refused: code 6"}},
		{"not passing", time.Minute, 29, []string{"produce refused: code 29"}},
		{"unknown topic", time.Minute, 3, []string{"produce refused: code 3"}},
		{"for good", 200 * time.Millisecond, 6, []string{"produce refused: code 6", "not acknowledged by a leader within 200ms"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := newFakeWorld(t, 1, 6)
			w.refusal = c.refusal
			w.leadOdd(-1)
			begun := time.Now()
			load := againLoad(c.patience)
			_, err := Produce(t.Context(), w.brokers[0].ln.Addr().String(), load)
			if _, refused := errors.AsType[RefusedError](err); !refused {
				t.Errorf("no refusal: %v", err)
			}
			for _, want := range c.want {
				if !strings.Contains(err.Error(), want) {
					t.Errorf("%v, want %q", err, want)
				}
			}
			if took := time.Since(begun); took > load.Time/2 {
				t.Errorf("it took %v", took)
			}
		})
	}
}
