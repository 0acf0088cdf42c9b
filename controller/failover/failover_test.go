package failover

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"testing"
	"time"

	"github.com/skeinmq/skein/internal/ident"
	"github.com/skeinmq/skein/queuemapper"
)

func want(t *testing.T, r Report, outcomes ...Outcome) {
	t.Helper()
	for i, res := range r.Results {
		if res.Outcome != outcomes[i] || (res.Err == nil) != (res.Outcome == Done || res.Outcome == Reopened) {
			t.Errorf("log %s: %s %v, want %s", res.Log, res.Outcome, res.Err, outcomes[i])
		}
	}
}

// TestFailOver: a broker dies; every partition is writable on the others, exactly where it was.
func TestFailOver(t *testing.T) {
	w := newWorld(t, 4, 16)
	topic := w.createTopic("a", 40)
	for range 3 {
		w.writable(topic)
	}
	before := make(map[ident.Group]queuemapper.Generation)
	for g := range w.store.Map().Groups() {
		before[g.ID] = *g.Current()
	}
	dead := w.brokers[2]
	w.kill(2)
	f := w.failover(nil)
	r := f.FailOver(t.Context(), dead.log)
	want(t, r, Done)
	if r.Groups != 4 || r.Partitions != 10 || r.Rounds != 1 {
		t.Errorf("report: %+v", r)
	}
	w.seen(f)
	m := w.store.Map()
	took := make(map[ident.Log]int)
	for g := range m.Groups() {
		cur := g.Current()
		if before[g.ID].Log != dead.log {
			if cur.Epoch != before[g.ID].Epoch {
				t.Errorf("group %d moved: it was on another log", g.ID)
			}
			continue
		}
		took[cur.Log]++
		old := g.Generations[len(g.Generations)-2]
		if cur.Epoch != before[g.ID].Epoch+1 || !old.Sealed || cur.Ceiling < 3+queuemapper.ReserveDefault {
			t.Errorf("group %d goes on as %+v after %+v", g.ID, cur, old)
		}
	}
	if len(took) != 3 {
		t.Errorf("groups went to %v, want some on each survivor", took)
	}
	for _, b := range w.all() {
		if b.id != 2 && b.prepares != 5 { // four were for the first generations
			t.Errorf("broker %d was asked to prepare %d times, want once", b.id, b.prepares-4)
		}
	}
	w.check()
	w.writable(topic)
	w.check()
	want(t, f.FailOver(t.Context(), dead.log), Done) // nothing is left to do
}

// TestSleeper: an owner that was given up while it slept acknowledges nothing when it wakes up (O10).
func TestSleeper(t *testing.T) {
	w := newWorld(t, 3, 6)
	topic := w.createTopic("a", 12)
	w.writable(topic)
	f := w.failover(nil)
	want(t, f.FailOver(t.Context(), w.brokers[1].log), Done)
	for i, pl := range topic.Partitions {
		p := ident.Partition{Topic: topic.ID, Index: int32(i)}
		n := len(w.acked[p])
		if w.append(p, pl[0].Group) && int(pl[0].Group)%3 == 0 { // those of broker 1
			t.Errorf("%s: a sleeping owner acknowledged record %d", p, n)
		}
	}
	w.seen(f)
	w.check()
	w.writable(topic)
	w.check()
}

// TestLast: with no other open log on a live broker nothing is sealed (O19).
func TestLast(t *testing.T) {
	w := newWorld(t, 2, 4)
	w.kill(2)
	w.brokers[1].standing = Dead
	f := w.failover(nil)
	want(t, f.FailOver(t.Context(), w.brokers[2].log), Last)
	want(t, f.FailOver(t.Context(), w.brokers[1].log, w.brokers[2].log), Last, Last)
	if l := f.store.Map().Log(w.brokers[2].log); l.State != queuemapper.LogOpen {
		t.Errorf("sealed: %+v", l)
	}
	w.brokers[1].standing = Draining
	want(t, f.FailOver(t.Context(), w.brokers[2].log), Done)
}

// TestNews: operators hear of what changes and, now and then, of what does not; of a log without another one not before
// the controller can know.
func TestNews(t *testing.T) {
	now := time.Unix(1e9, 0)
	f := &Failover{said: make(map[ident.Log]said)}
	f.cfg.Now = func() time.Time { return now }
	at := func(after time.Duration, want bool, groups int, outcomes ...Outcome) {
		t.Helper()
		now = time.Unix(1e9, 0).Add(after)
		r := Report{Groups: groups}
		for i, o := range outcomes {
			r.Results = append(r.Results, Result{Log: ident.Log{byte(i)}, Outcome: o})
		}
		if got := f.news(&r); got != want {
			t.Errorf("after %v: %v is news: %v", after, outcomes, got)
		}
	}
	at(0, false, 0, Last)
	at(time.Second, false, 0, Last)
	at(2*time.Second, true, 5, Done) // the others were heard of
	at(3*time.Second, false, 0, Done)
	at(10*time.Second, false, 0, Last)
	at(12*time.Second, false, 0, Last)
	at(13*time.Second, true, 0, Last)
	at(14*time.Second, false, 0, Last)
	at(15*time.Second, true, 0, Last, Waits)
	at(44*time.Second, false, 0, Last, Waits)
	at(45*time.Second, true, 0, Last, Waits)
}

// TestReportLevel: brokers log warnings unless told otherwise, and what a failover did is one.
func TestReportLevel(t *testing.T) {
	for _, c := range []struct {
		groups  int
		outcome Outcome
		want    slog.Level
	}{{5, Done, slog.LevelWarn}, {0, Done, slog.LevelInfo}, {0, Last, slog.LevelWarn}, {5, Waits, slog.LevelError}, {0, Failed, slog.LevelError}} {
		r := Report{Groups: c.groups, Results: []Result{{Outcome: c.outcome}}}
		if got := r.level(); got != c.want {
			t.Errorf("%d groups, %v: %v, want %v", c.groups, c.outcome, got, c.want)
		}
	}
}

// TestFullTargets: groups go to brokers whose disks have room; when no disk has any, to all of them.
func TestFullTargets(t *testing.T) {
	w := newWorld(t, 4, 12)
	f := w.failover(nil)
	full := func(ids ...ident.Broker) {
		t.Helper()
		for id := ident.Broker(1); id <= 4; id++ {
			b := queuemapper.Broker{ID: id, Incarnation: w.brokers[id].incarnation}
			if slices.Contains(ids, id) {
				b.Roles = []string{queuemapper.RoleFull}
			}
			if err := w.store.RegisterBroker(t.Context(), b); err != nil {
				t.Fatal(err)
			}
		}
		for w.store.Map().Revision() > f.store.Map().Revision() {
			<-f.store.Watch(f.store.Map())
		}
	}
	owned := func() (out [5]int) {
		for g := range w.store.Map().Groups() {
			out[w.store.Map().Log(g.Current().Log).Host]++
		}
		return out
	}
	full(1, 2)
	w.kill(4)
	want(t, f.FailOver(t.Context(), w.brokers[4].log), Done)
	w.seen(f)
	if got := owned(); got != [5]int{0, 3, 3, 6, 0} {
		t.Errorf("with brokers 1 and 2 full: %v", got)
	}
	full(1, 2, 3)
	w.kill(3)
	want(t, f.FailOver(t.Context(), w.brokers[3].log), Done)
	w.seen(f)
	if got := owned(); got != [5]int{0, 6, 6, 0, 0} {
		t.Errorf("with every disk full: %v", got)
	}
}

// TestWaits: when no member knows the table, the groups wait; a member that comes to know nothing of it does not help
// (O6), the host does (O15).
func TestWaits(t *testing.T) {
	w := newWorld(t, 3, 6)
	topic := w.createTopic("a", 12)
	w.writable(topic)
	w.kill(3)
	for _, m := range w.brokers[3].rec.Witnesses {
		w.brokers[m.Broker].watched = make(map[slot]*watched) // they forgot: restarted
		w.brokers[m.Broker].incarnation++
	}
	f := w.failover(nil)
	r := f.FailOver(t.Context(), w.brokers[3].log)
	want(t, r, Waits)
	if !errors.Is(r.Results[0].Err, ErrNoTable) || r.Results[0].Open != 2 {
		t.Errorf("result: %+v", r.Results[0])
	}
	w.reopen(w.brokers[3])
	w.brokers[3].standing = Live
	w.seen(f)
	for w.store.Map().Revision() > f.store.Map().Revision() {
		<-f.store.Watch(f.store.Map())
	}
	m := f.store.Map()
	if l := m.Log(w.brokers[3].log); l.State != queuemapper.LogOpen || l.Epoch != 2 {
		t.Errorf("reopened: %+v", l)
	}
	w.check()
}

// TestDeadTogether: two of four die; their groups go to the two that are left in one go, and the dead ones are not asked.
func TestDeadTogether(t *testing.T) {
	w := newWorld(t, 4, 16)
	topic := w.createTopic("a", 64)
	w.writable(topic)
	for _, b := range w.all() { // the survivors witness the others
		if b.id > 2 {
			w.swap(b, 1, 2)
		} else {
			w.swap(b, 3-b.id)
		}
	}
	w.writable(topic)
	w.kill(3)
	w.kill(4)
	f := w.failover(nil)
	want(t, f.FailOver(t.Context(), w.brokers[3].log, w.brokers[4].log), Done, Done)
	w.seen(f)
	if w.brokers[3].prepares+w.brokers[4].prepares != 8 {
		t.Error("a dead broker was asked to prepare")
	}
	w.check()
	w.writable(topic)
	w.check()
}

// TestTargets: one that refuses is left out, one that dies after it prepared is noticed by the compare (O13); the rest goes on.
func TestTargets(t *testing.T) {
	t.Run("refuses", func(t *testing.T) {
		w := newWorld(t, 3, 12)
		topic := w.createTopic("a", 24)
		w.writable(topic)
		w.kill(1)
		w.brokers[2].refuse = true
		f := w.failover(nil)
		r := f.FailOver(t.Context(), w.brokers[1].log)
		want(t, r, Done)
		if r.Rounds != 2 || w.brokers[2].prepares != 5 {
			t.Errorf("rounds %d, prepares %d", r.Rounds, w.brokers[2].prepares-4)
		}
		w.seen(f)
		w.check()
		w.writable(topic)
	})
	t.Run("all refuse", func(t *testing.T) {
		w := newWorld(t, 3, 12)
		w.kill(1)
		w.brokers[2].refuse, w.brokers[3].refuse = true, true
		f := w.failover(nil)
		r := f.FailOver(t.Context(), w.brokers[1].log)
		want(t, r, Failed)
		if !errors.Is(r.Results[0].Err, ErrNoTarget) || r.Results[0].Open != 4 {
			t.Errorf("result %+v", r.Results[0])
		}
		w.brokers[3].refuse = false
		want(t, f.FailOver(t.Context(), w.brokers[1].log), Done)
	})
	t.Run("reopened before the publishing", func(t *testing.T) {
		w := newWorld(t, 3, 12)
		topic := w.createTopic("a", 24)
		w.writable(topic)
		w.kill(1)
		kv := &faultKV{}
		n := 0
		kv.before = func() error {
			if n++; n == 2 { // the seal was the first
				w.kill(2)
				w.reopen(w.brokers[2]) // it has forgotten what no record names (O3)
				w.brokers[2].standing = Live
			}
			return nil
		}
		f := w.failover(kv)
		r := f.FailOver(t.Context(), w.brokers[1].log)
		want(t, r, Done)
		if r.Rounds < 2 {
			t.Errorf("rounds: %d", r.Rounds)
		}
		w.seen(f)
		w.check()
	})
}

// crashes plays a failover during which something happens before, or after, its n-th request to anybody, for every n.
// happen returns what the controller sees: an error, which stands for its crash or a lost answer. Then a second
// controller finishes, and everything is checked.
func crashes(t *testing.T, happen func(w *world, n int) error) {
	for n := 1; ; n++ {
		for _, after := range []bool{false, true} {
			w := newWorld(t, 3, 6)
			topic := w.createTopic("a", 12)
			w.writable(topic)
			w.writable(topic)
			w.kill(3)
			count, fired := 0, false
			dead := false
			event := func() error {
				if dead {
					return context.Canceled
				}
				if count++; count != n || fired {
					return nil
				}
				fired = true
				err := happen(w, n)
				dead = errors.Is(err, context.Canceled)
				return err
			}
			kv := &faultKV{}
			if after {
				kv.after = event
			} else {
				kv.before = event
			}
			f := w.failover(kv)
			ctx, cancel := context.WithCancel(t.Context())
			w.step = func() {
				if event() != nil {
					cancel() // RPCs of a dead controller reach nobody, or their answers do not reach it
				}
			}
			if after {
				kv.after = func() error {
					err := event()
					if dead {
						cancel()
					}
					return err
				}
			} else {
				kv.before = func() error {
					err := event()
					if dead {
						cancel()
					}
					return err
				}
			}
			first := f.FailOver(ctx, w.brokers[3].log)
			cancel()
			w.step = nil
			t.Logf("event at %d (after: %v): %v", n, after, first.Outcome())
			second := w.failover(nil)
			r := second.FailOver(t.Context(), w.brokers[3].log)
			if o := r.Outcome(); o != Done && o != Reopened {
				t.Errorf("event at %d (after: %v): then %s %v", n, after, o, r.Results[0].Err)
			}
			w.seen(second)
			w.check()
			w.writable(topic)
			w.check()
			if t.Failed() {
				t.Fatalf("with the event at request %d (after its effect: %v)", n, after)
			}
			if !fired {
				return
			}
		}
	}
}

func TestControllerCrashes(t *testing.T) {
	crashes(t, func(*world, int) error { return context.Canceled })
}

func TestLostAnswers(t *testing.T) {
	crashes(t, func(*world, int) error { return errGone })
}

// TestHostReturns: the host comes back at any point, keeps what is still open on its disk, and takes appends.
func TestHostReturns(t *testing.T) {
	crashes(t, func(w *world, _ int) error {
		w.reopen(w.brokers[3])
		w.brokers[3].standing = Live
		w.appendAll()
		return nil
	})
}

// TestWitnessSetChanges: the sleeping owner's last swap lands before the seal.
func TestWitnessSetChanges(t *testing.T) {
	w := newWorld(t, 4, 8)
	topic := w.createTopic("a", 16)
	w.swap(w.brokers[4], 1, 2)
	w.writable(topic)
	f := w.failover(&faultKV{before: once(func() error {
		w.swap(w.brokers[4], 3) // it slept until now
		w.writable(topic)       // acknowledged with the new set
		return nil
	})})
	want(t, f.FailOver(t.Context(), w.brokers[4].log), Done)
	w.seen(f)
	w.check()
}

func once(f func() error) func() error {
	done := false
	return func() error {
		if done {
			return nil
		}
		done = true
		return f()
	}
}

// TestTwoControllers: two act at the same time, with the same or with an older view; every group goes on once.
func TestTwoControllers(t *testing.T) {
	for n := 1; n < 12; n++ {
		w := newWorld(t, 3, 6)
		topic := w.createTopic("a", 12)
		w.writable(topic)
		w.kill(3)
		other := w.failover(nil)
		count, inside := 0, false
		w.step = func() {
			if count++; count == n && !inside {
				inside = true
				other.FailOver(t.Context(), w.brokers[3].log)
			}
		}
		f := w.failover(&faultKV{before: func() error { w.step(); return nil }})
		want(t, f.FailOver(t.Context(), w.brokers[3].log), Done)
		w.step = nil
		w.seen(f)
		w.seen(other)
		for g := range w.store.Map().Groups() {
			if len(g.Generations) > 2 {
				t.Errorf("group %d has %d generations", g.ID, len(g.Generations))
			}
		}
		w.check()
		w.writable(topic)
		w.check()
	}
}

// appendAll sends a record to every partition, whoever takes it.
func (w *world) appendAll() {
	for topic := range w.store.Map().Topics() {
		for i, pl := range topic.Partitions {
			w.append(ident.Partition{Topic: topic.ID, Index: int32(i)}, pl[len(pl)-1].Group)
		}
	}
}

// TestDeletedTopic: what is left of a deleted topic does not come along.
func TestDeletedTopic(t *testing.T) {
	w := newWorld(t, 3, 3)
	keep, gone := w.createTopic("keep", 6), w.createTopic("gone", 6)
	w.writable(keep)
	w.writable(gone)
	if err := w.store.DeleteTopic(t.Context(), "gone", gone.ID); err != nil {
		t.Fatal(err)
	}
	for p := range w.acked {
		if p.Topic == gone.ID {
			delete(w.acked, p)
		}
	}
	w.kill(1)
	f := w.failover(nil)
	want(t, f.FailOver(t.Context(), w.brokers[1].log), Done)
	w.seen(f)
	w.check()
	for g := range w.store.Map().Groups() {
		for p := range g.Generations[0].Ends {
			if p.Topic == gone.ID {
				t.Errorf("group %d ends with %s", g.ID, p)
			}
		}
	}
}

// TestUnknownGeneration: a table without a generation that the map names takes nothing of that group over.
func TestUnknownGeneration(t *testing.T) {
	w := newWorld(t, 3, 6)
	w.kill(3)
	for _, m := range w.brokers[3].rec.Witnesses {
		table := w.brokers[m.Broker].watched[slot{w.brokers[3].log, 1}].table
		for gen := range table {
			if gen.Group == 5 {
				delete(table, gen)
			}
		}
	}
	f := w.failover(nil)
	r := f.FailOver(t.Context(), w.brokers[3].log)
	want(t, r, Waits)
	if r.Groups != 1 || r.Results[0].Open != 1 {
		t.Errorf("report: %+v", r)
	}
}

func TestSpread(t *testing.T) {
	w := newWorld(t, 5, 50)
	w.createTopic("a", 333)
	for i := range 7 {
		if _, err := w.store.CreateTopic(t.Context(), queuemapper.NewTopic{Name: fmt.Sprint("skew", i), Placements: make([]ident.Group, 20)}); err != nil {
			t.Fatal(err)
		}
	}
	w.kill(5)
	f := w.failover(nil)
	want(t, f.FailOver(t.Context(), w.brokers[5].log), Done)
	partitions := make(map[ident.Log]int)
	for g := range f.store.Map().Groups() {
		if g.ID != 0 {
			partitions[g.Current().Log] += f.store.Map().Partitions(g.ID)
		}
	}
	least, most := 1<<30, 0
	for _, n := range partitions {
		least, most = min(least, n), max(most, n)
	}
	t.Log(partitions)
	if len(partitions) != 4 || partitions[w.brokers[1].log] > 80 {
		t.Errorf("partitions by log: %v; the first has 140 more in a group of its own", partitions)
	}
}
