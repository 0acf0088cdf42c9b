package witness

import (
	"errors"
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
