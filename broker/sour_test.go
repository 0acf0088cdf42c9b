package broker

import (
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/skeinmq/skein/queuemapper"
)

func TestSourness(t *testing.T) {
	var s sourness
	now := time.Now()
	for i, want := range []time.Duration{0, 10, 20, 40, 50, 50} {
		if got := s.add(now, false); got != want*time.Millisecond {
			t.Errorf("answer %d is held for %v, want %d ms", i, got, want)
		}
	}
	for range 1000 {
		s.add(now, false)
	}
	if got := s.add(now, false); got != sourMost {
		t.Errorf("held for %v", got)
	}
	if got := s.add(now.Add(sourFor+time.Second), false); got != 0 {
		t.Errorf("after a while held for %v, want 0", got)
	}
	s.add(now.Add(sourFor+time.Second), false)
	s.clear()
	if got := s.add(now.Add(sourFor+time.Second), false); got != 0 {
		t.Errorf("after a good answer held for %v, want 0", got)
	}
}

// TestSournessTold: answers that say where to go are not held, but for those to a client that does not go.
func TestSournessTold(t *testing.T) {
	var s sourness
	now := time.Now()
	for i := range sourTold {
		if got := s.add(now, true); got != 0 {
			t.Fatalf("answer %d is held for %v", i, got)
		}
	}
	for i, want := range []time.Duration{0, 10, 20} {
		if got := s.add(now, true); got != want*time.Millisecond {
			t.Errorf("answer %d is held for %v, want %d ms", sourTold+i, got, want)
		}
	}
	s.clear()
	if s.add(now, true); s.add(now, true) != 0 {
		t.Error("held after a good answer")
	}
}

// TestRetryStorm hammers the wrong broker with requests: each connection gets few answers, the first at once; what else it
// asks for is not held, and one good answer ends it.
func TestRetryStorm(t *testing.T) {
	cs := startBrokers(t, 2, 1, Config{})
	owner, other := cs[0], cs[1]
	owner.topic("t", 1, nil)
	other.await(func(m *queuemapper.Map) bool { return m.Topic("t") != nil })
	hammer := map[string]func(w *wire) int16{
		"produce": func(w *wire) int16 {
			return w.ask(produceRequest(9, other.b.topic("t"), 0, batch(1, time.Now()))).(*kmsg.ProduceResponse).Topics[0].Partitions[0].ErrorCode
		},
		"produce that is told": func(w *wire) (code int16) { // and does not listen
			for range sourTold/8 + 1 {
				code = w.ask(produceRequest(10, other.b.topic("t"), 0, batch(1, time.Now()))).(*kmsg.ProduceResponse).Topics[0].Partitions[0].ErrorCode
			}
			return code
		},
		"fetch": func(w *wire) int16 {
			return w.ask(fetchRequest(12, other.b.topic("t"), 0)).(*kmsg.FetchResponse).Topics[0].Partitions[0].ErrorCode
		},
	}
	for name, ask := range hammer {
		t.Run(name, func(t *testing.T) {
			w := other.dial()
			began := time.Now()
			for i := range 8 {
				if code := ask(w); code != kerr.NotLeaderForPartition.Code {
					t.Fatalf("request %d: code %d", i, code)
				}
			}
			if took := time.Since(began); took < 270*time.Millisecond || took > 30*time.Second {
				t.Errorf("8 answers in %v, want more than 270 ms", took)
			}
		})
	}
}
