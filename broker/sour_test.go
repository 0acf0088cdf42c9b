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
		if got := s.add(now); got != want*time.Millisecond {
			t.Errorf("answer %d is held for %v, want %d ms", i, got, want)
		}
	}
	for range 1000 {
		s.add(now)
	}
	if got := s.add(now); got != sourMost {
		t.Errorf("held for %v", got)
	}
	if got := s.add(now.Add(sourFor + time.Second)); got != 0 {
		t.Errorf("after a while held for %v, want 0", got)
	}
	s.add(now.Add(sourFor + time.Second))
	s.clear()
	if got := s.add(now.Add(sourFor + time.Second)); got != 0 {
		t.Errorf("after a good answer held for %v, want 0", got)
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
			if took := time.Since(began); took < 270*time.Millisecond || took > 5*time.Second {
				t.Errorf("8 answers in %v, want more than 270 ms", took)
			}
		})
	}
}
