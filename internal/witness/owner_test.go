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
