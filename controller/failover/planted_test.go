//go:build skeinplant

package failover

import (
	"fmt"
	"testing"
)

// story is a world with a dead, or sleeping, broker 4 of four, and a failover that goes wrong only if a rule is broken. It
// returns the complaints of the checks.
type story func(t testing.TB)

// TestPlanted proves that the checks can fail: each mistake makes the story of its rule go wrong, and no story
// does without it.
//
//	go test -tags skeinplant -run TestPlanted ./controller/failover
func TestPlanted(t *testing.T) {
	for _, test := range []struct {
		name  string
		plant *bool
		story story
	}{
		{"a former member is asked (O9)", &plants.cachedSet, setChanged},
		{"unknown counts as empty (O6)", &plants.emptyTable, nobodyKnows},
		{"the source is not compared at the table's epoch (O13)", &plants.anyEpoch, sourceReopened},
		{"an epoch is used again (I5)", &plants.reuseEpoch, plain},
		{"the state does not come along (O12, I8)", &plants.dropState, plain},
	} {
		t.Run(test.name, func(t *testing.T) {
			if c := complaints(t, test.story); len(c) > 0 {
				t.Fatalf("without the mistake: %v", c)
			}
			*test.plant = true
			defer func() { *test.plant = false }()
			if c := complaints(t, test.story); len(c) == 0 {
				t.Error("not caught")
			} else {
				t.Log(c[0])
			}
		})
	}
}

func plain(t testing.TB) {
	w := newWorld(t, 4, 8)
	topic := w.createTopic("a", 16)
	w.writable(topic)
	w.kill(4)
	f := w.failover(nil)
	f.FailOver(t.Context(), w.brokers[4].log)
	w.seen(f)
	w.check()
	w.writable(topic)
}

func setChanged(t testing.TB) {
	w := newWorld(t, 4, 8)
	topic := w.createTopic("a", 16)
	w.swap(w.brokers[4], 1, 2)
	w.writable(topic)
	f := w.failover(&faultKV{before: once(func() error {
		w.swap(w.brokers[4], 3)
		w.writable(topic)
		return nil
	})})
	f.FailOver(t.Context(), w.brokers[4].log)
	w.seen(f)
	w.check()
}

func nobodyKnows(t testing.TB) {
	w := newWorld(t, 4, 8)
	topic := w.createTopic("a", 16)
	w.writable(topic)
	w.kill(4)
	for _, m := range w.brokers[4].rec.Witnesses {
		w.brokers[m.Broker].watched = make(map[slot]*watched)
		w.brokers[m.Broker].incarnation++
	}
	f := w.failover(nil)
	f.FailOver(t.Context(), w.brokers[4].log)
	w.reopen(w.brokers[4])
	w.seen(f)
	w.check()
}

func sourceReopened(t testing.TB) {
	w := newWorld(t, 4, 8)
	topic := w.createTopic("a", 16)
	w.writable(topic)
	w.kill(4)
	n := 0
	back := func() error {
		if n++; n == 2 { // the seal was the first: it is before the publishing
			w.reopen(w.brokers[4])
			w.brokers[4].standing = Live
			w.writable(topic)
		}
		return nil
	}
	f := w.failover(&faultKV{before: back})
	w.step = func() {
		if n == 1 { // before the target prepares
			_ = back()
			for w.store.Map().Revision() > f.store.Map().Revision() {
				<-f.store.Watch(f.store.Map())
			}
		}
	}
	f.FailOver(t.Context(), w.brokers[4].log)
	w.step = nil
	w.seen(f)
	w.check()
}

// recorder is a test that only takes complaints down.
type recorder struct {
	testing.TB
	said []string
}

func complaints(t *testing.T, s story) []string {
	r := &recorder{TB: t}
	s(r)
	return r.said
}

func (r *recorder) Errorf(format string, args ...any) {
	r.said = append(r.said, fmt.Sprintf(format, args...))
}
func (r *recorder) Error(args ...any) { r.said = append(r.said, fmt.Sprintf("%v", args)) }
func (r *recorder) Helper()           {}
