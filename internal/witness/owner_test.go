package witness

import (
	"cmp"
	"errors"
	"slices"
	"testing"
	"time"

	"github.com/skeinmq/skein/internal/ident"
)

// TestReturnedMemberJoinsAtOnce: a broker that failed is left alone for a while, but not its next incarnation: until it
// has joined, a death of the owner may leave nobody who knows the log.
func TestReturnedMemberJoinsAtOnce(t *testing.T) {
	now := time.Unix(0, 0)
	o := NewOwner(OwnerConfig{Key: Key{Log: ident.Log{1}, Epoch: 1}, Self: ID{Broker: 1, Incarnation: 1}})
	asked := func() (out []ID) {
		for _, a := range o.Take() {
			if a.Kind == ActSend && a.Message.Hello != nil {
				out = append(out, a.Member)
			}
		}
		return out
	}
	o.Opened(now, Record{Open: true, Host: 1, Epoch: 1})
	old, fresh := ID{Broker: 2, Incarnation: 5}, ID{Broker: 2, Incarnation: 9}
	for range 3 {
		o.Candidates(now, []Candidate{{ID: old}})
		if got := asked(); len(got) != 1 || got[0] != old {
			t.Fatalf("asked %v", got)
		}
		o.Failed(now, old, o.Session(), errors.New("broken"))
		o.Tick(now.Add(time.Millisecond))
		if got := asked(); len(got) != 0 {
			t.Fatalf("asked %v at once", got)
		}
		now = now.Add(time.Minute)
	}
	o.Tick(now)
	asked()
	o.Failed(now, old, o.Session(), errors.New("broken"))
	o.Candidates(now, []Candidate{{ID: fresh}})
	if got := asked(); len(got) != 1 || got[0] != fresh {
		t.Errorf("asked %v, want the next incarnation", got)
	}
}

// TestOnlyWitnessRestsShortly: one that fails again and again rests longer and longer, but not while it is the only one.
func TestOnlyWitnessRestsShortly(t *testing.T) {
	now := time.Unix(0, 0)
	only, other := ID{Broker: 2, Incarnation: 1}, ID{Broker: 3, Incarnation: 1}
	o := NewOwner(OwnerConfig{Key: Key{Log: ident.Log{1}, Epoch: 1}, Self: ID{Broker: 1, Incarnation: 1}})
	o.Opened(now, Record{Open: true, Host: 1, Epoch: 1})
	o.Candidates(now, []Candidate{{ID: only}})
	asked := func() bool { return o.attachedID(only) != nil }
	for i := range 6 {
		if !asked() {
			t.Fatalf("not asked for the %d. time", i+1)
		}
		o.Failed(now, only, o.attachedID(only).session, errors.New("slow"))
		now = now.Add(900 * time.Millisecond)
		if o.Tick(now); asked() {
			t.Fatal("asked again at once")
		}
		now = now.Add(100 * time.Millisecond)
		o.Tick(now)
	}
	o.Failed(now, only, o.attachedID(only).session, errors.New("slow"))
	o.Candidates(now, []Candidate{{ID: only}, {ID: other}})
	now = now.Add(2 * time.Second)
	if o.Tick(now); asked() || o.attachedID(other) == nil {
		t.Error("the one that failed seven times did not rest although there is another one")
	}
	now = now.Add(time.Minute)
	if o.Tick(now); !asked() {
		t.Error("it rests for ever")
	}
}

// TestAlone: an owner whose only witness fails goes on without one at once when there is no other broker, and late
// when there are: it may be the one that is cut off.
func TestAlone(t *testing.T) {
	for _, others := range []bool{false, true} {
		now := time.Unix(0, 0)
		w := ID{Broker: 2, Incarnation: 1}
		o := NewOwner(OwnerConfig{Key: Key{Log: ident.Log{1}, Epoch: 1}, Self: ID{Broker: 1, Incarnation: 1}})
		if others {
			o.Candidates(now, []Candidate{{ID: ID{Broker: 3, Incarnation: 1}}})
		}
		o.Opened(now, Record{Open: true, Host: 1, Epoch: 1, Set: []ID{w}}) // and nobody follows
		swapped := func() bool {
			for _, a := range o.Take() {
				if a.Kind == ActSwap && len(a.Set) == 0 {
					return true
				}
			}
			return false
		}
		if got := swapped(); got == others {
			t.Errorf("others %v: swapped at once: %v", others, got)
		}
		if !others {
			continue
		}
		now = now.Add(2900 * time.Millisecond)
		if o.Tick(now); swapped() {
			t.Error("swapped before anybody can have taken over")
		}
		now = now.Add(200 * time.Millisecond)
		if o.Tick(now); !swapped() {
			t.Error("never goes on alone")
		}
	}
}

// followed is an owner with one member, which is in the record.
func followed(t *testing.T, now time.Time) (*Owner, ID, uint64) {
	t.Helper()
	w := ID{Broker: 2, Incarnation: 1}
	o := NewOwner(OwnerConfig{Key: Key{Log: ident.Log{1}, Epoch: 1}, Self: ID{Broker: 1, Incarnation: 1}, Size: 1})
	o.Opened(now, Record{Open: true, Host: 1, Epoch: 1})
	o.Candidates(now, []Candidate{{ID: w}})
	for _, a := range o.Take() {
		if a.Kind == ActTable {
			o.TableReady(now, a.Ticket, 0, nil)
		}
	}
	session := o.attachedID(w).session
	o.Recorded(now, w, session, 0)
	o.SwapWon(now)
	o.Take()
	if set := o.Members(); len(set) != 1 || set[0] != w {
		t.Fatalf("members: %v", set)
	}
	return o, w, session
}

// TestHangNoticedAtRest: a member that hangs is noticed although nothing is committed, and the commit that comes meanwhile waits no
// longer than it would have.
func TestHangNoticedAtRest(t *testing.T) {
	now := time.Unix(0, 0)
	o, w, session := followed(t, now)
	const tick = 50 * time.Millisecond
	asked := func() (n uint64) {
		for _, a := range o.Take() {
			if a.Kind == ActSend && a.Message.Delta != nil {
				n = a.Message.Delta.Number
			}
		}
		return n
	}
	begin, probes := now, 0
	for ; now.Sub(begin) < 10*time.Second; now = now.Add(tick) {
		o.Tick(now)
		if n := asked(); n > 0 {
			probes++
			o.Recorded(now, w, session, n)
		}
	}
	if o.attachedID(w) == nil || probes < 15 || probes > 21 {
		t.Fatalf("a member that answers: %v after %d probes in 10 s", o.attachedID(w), probes)
	}
	hang := now
	for o.attachedID(w) != nil && now.Sub(hang) < 10*time.Second {
		now = now.Add(tick)
		o.Tick(now)
	}
	if took := now.Sub(hang); took < 800*time.Millisecond || took > 1500*time.Millisecond {
		t.Errorf("a hang was noticed after %v", took)
	}

	o, w, _ = followed(t, now)
	for hang = now; asked() == 0; now = now.Add(tick) {
		o.Tick(now)
	}
	now = now.Add(200 * time.Millisecond)
	o.Register(now, 1, EncodeUpdates(nil))
	commit := now
	for o.attachedID(w) != nil && now.Sub(hang) < 10*time.Second {
		now = now.Add(tick)
		o.Tick(now)
	}
	if took := now.Sub(commit); took > 150*time.Millisecond {
		t.Errorf("a commit behind a probe waited for %v", took)
	}
}

// racked is an owner in rack a whose witnesses are there, too, and what it has asked for since.
type racked struct {
	t    *testing.T
	o    *Owner
	now  time.Time
	seen []Action

	noTable, noSwap bool // are never answered
}

func newRacked(t *testing.T) *racked {
	t.Helper()
	r := &racked{t: t, now: time.Unix(0, 0), o: NewOwner(OwnerConfig{Key: Key{Log: ident.Log{1}, Epoch: 1}, Self: ID{Broker: 1, Incarnation: 1}, Rack: "a"})}
	r.o.Opened(r.now, Record{Open: true, Host: 1, Epoch: 1})
	r.candidates(2, 3)
	r.join()
	if set := r.o.Members(); len(set) != 2 {
		t.Fatalf("members: %v", set)
	}
	return r
}

// candidates are brokers by number: up to 3 in rack a, 4 in rack b, 5 in rack c.
func (r *racked) candidates(ids ...ident.Broker) {
	var list []Candidate
	for _, b := range ids {
		rack := map[ident.Broker]string{4: "b", 5: "c"}[b]
		list = append(list, Candidate{ID: ID{Broker: b, Incarnation: 1}, Rack: cmp.Or(rack, "a")})
	}
	r.o.Candidates(r.now, list)
}

func (r *racked) take() []Action {
	out := r.o.Take()
	r.seen = append(r.seen, out...)
	return out
}

// join gives joiners their tables, and lets swaps win, until nothing is asked for any more.
func (r *racked) join() {
	for {
		actions := r.take()
		if len(actions) == 0 {
			return
		}
		for _, a := range actions {
			switch {
			case a.Kind == ActTable && !r.noTable:
				r.o.TableReady(r.now, a.Ticket, 0, nil)
			case a.Kind == ActSend && a.Message.Table != nil && a.Message.Table.Done:
				r.o.Recorded(r.now, a.Member, a.Session, a.Message.Table.Next-1)
			case a.Kind == ActSend && a.Message.Delta != nil:
				r.o.Recorded(r.now, a.Member, a.Session, a.Message.Delta.Number)
			case a.Kind == ActSwap && !r.noSwap:
				r.o.SwapWon(r.now)
			}
		}
	}
}

// wait lets time pass.
func (r *racked) wait(d time.Duration) {
	end := r.now.Add(d)
	r.until(func() bool { return !r.now.Before(end) })
}

func (r *racked) until(cond func() bool) {
	r.t.Helper()
	for limit := r.now.Add(5 * time.Minute); !cond(); {
		if r.now.After(limit) {
			r.t.Fatalf("never, members %v", r.o.Members())
		}
		r.now = r.now.Add(50 * time.Millisecond)
		r.o.Tick(r.now)
		r.join()
	}
}

func (r *racked) swaps() (n int) {
	for _, a := range r.seen {
		if a.Kind == ActSwap {
			n++
		}
	}
	r.seen = nil
	return n
}

func (r *racked) brokers() (out []ident.Broker) {
	for _, id := range r.o.Members() {
		out = append(out, id.Broker)
	}
	return out
}

// TestOtherRackTakesAPlace: a set that formed before there were other racks moves into them, one member at a time, once a broker there
// has stood ready for a while, and then stays.
func TestOtherRackTakesAPlace(t *testing.T) {
	r := newRacked(t)
	r.swaps()
	r.candidates(2, 3, 4)
	r.wait(9 * time.Second)
	r.candidates(2, 3) // it goes, and comes back: its time begins anew
	r.wait(100 * time.Millisecond)
	r.candidates(2, 3, 4)
	r.wait(9 * time.Second)
	if n := r.swaps(); n != 0 {
		t.Fatalf("%d swaps before a broker had stood for 10 s: %v", n, r.brokers())
	}
	r.wait(2 * time.Second)
	if got := r.brokers(); len(got) != 2 || got[1] != 4 || r.swaps() != 1 || len(r.o.members) != 2 {
		t.Fatalf("members %v", got)
	}
	r.candidates(2, 3, 4, 5)
	r.wait(11 * time.Second)
	if got := r.brokers(); !slices.Equal(got, []ident.Broker{4, 5}) || r.swaps() != 1 {
		t.Fatalf("members %v", got)
	}
	r.wait(time.Minute)
	if n := r.swaps(); n != 0 {
		t.Errorf("%d more swaps at the best there is", n)
	}
	r.candidates(2, 3, 4) // rack c is away
	m := r.o.attachedBroker(5)
	r.o.Failed(r.now, m.id, m.session, errors.New("broken"))
	r.wait(30 * time.Second)
	if got := r.brokers(); len(got) != 2 || slices.Contains(got, 5) || !slices.Contains(got, 4) {
		t.Fatalf("members %v", got)
	}
	r.swaps()
	r.candidates(2, 3, 4, 5)
	r.wait(11 * time.Second)
	if got := r.brokers(); !slices.Equal(got, []ident.Broker{4, 5}) || r.swaps() != 1 {
		t.Errorf("members %v after the rack came back", got)
	}
}

// TestReplacedIsNeededUntilSettled: the member whose place is taken must record every delta until the swap is settled (O7), and a joiner
// that fails costs nothing but its own session.
func TestReplacedIsNeededUntilSettled(t *testing.T) {
	r := newRacked(t)
	old := slices.Clone(r.o.Members())
	r.noTable = true
	r.candidates(2, 3, 4)
	r.until(func() bool { return r.o.attachedBroker(4) != nil })
	m := r.o.attachedBroker(4)
	r.o.Failed(r.now, m.id, m.session, errors.New("broken"))
	r.o.TableFailed(r.now, r.o.ticket)
	r.wait(5 * time.Second)
	if !slices.Equal(r.o.Members(), old) || len(r.o.members) != 2 {
		t.Fatalf("members %v after the joiner failed", r.o.Members())
	}
	r.noTable, r.noSwap = false, true
	r.until(func() bool { return r.o.swap != swapNone })
	n := r.o.Register(r.now, 1, EncodeUpdates(nil))
	var gone *member
	for _, m := range slices.Clone(r.o.members) {
		if slices.Contains(old, m.id) && !slices.Contains(r.o.target, m.id) {
			gone = m
			continue
		}
		r.o.Recorded(r.now, m.id, m.session, n)
	}
	if gone == nil || len(r.o.members) != 3 {
		t.Fatalf("%d members, target %v of %v", len(r.o.members), r.o.target, old)
	}
	if r.o.Committed() >= n {
		t.Fatal("committed without the member that is recorded")
	}
	r.o.Recorded(r.now, gone.id, gone.session, n)
	if r.o.Committed() != n {
		t.Fatal("not committed by all three")
	}
	r.take()
	r.o.SwapWon(r.now)
	if acts := r.take(); len(acts) != 1 || acts[0].Kind != ActClose || acts[0].Member != gone.id {
		t.Errorf("after the swap: %+v", acts)
	}
}
