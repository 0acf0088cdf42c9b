package broker

import (
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/skeinmq/skein/internal/ident"
	"github.com/skeinmq/skein/internal/peer/peerpb"
	"github.com/skeinmq/skein/queuemapper"
)

// TestReassignLate: a broker is asked to take a partition somewhere, and is slow; another one is asked for something else, and
// does it. What the first one does then, before its step or within it, changes nothing in the end.
func TestReassignLate(t *testing.T) {
	for _, within := range []bool{false, true} {
		for _, to := range []ident.Broker{3, 1} {
			t.Run(fmt.Sprintf("within its step %v, newer to broker %d", within, to), func(t *testing.T) { reassignLate(t, within, to) })
		}
	}
}

func reassignLate(t *testing.T, within bool, to ident.Broker) {
	cs, p := reassignable(t)
	owner, late, newer := cs[0], cs[1], cs[2]
	var slow <-chan struct{}
	var goOn func()
	if within {
		slow, goOn = holdMove(owner)
	} else {
		late.b.reassigns.step.Lock()
		goOn = sync.OnceFunc(late.b.reassigns.step.Unlock)
	}
	defer goOn()
	answer := sendReassign(late, reassigned{"t", 0, []int32{2}})
	if within {
		awaitStep(t, slow)
		if _, ok := late.b.store.Map().Reassignment(p); !ok {
			t.Fatal("its step began before the order was noted")
		}
	} else {
		eventually(t, "the first order is known", func() bool { return late.b.reassigns.has(p) })
	}
	newer.await(func(m *queuemapper.Map) bool { r, ok := m.Reassignment(p); return ok && r.Worker == 2 })
	if got := askReassign(newer, reassigned{"t", 0, []int32{int32(to), 2}})[0]; got.ErrorCode != 0 {
		t.Fatalf("the newer order: code %d", got.ErrorCode)
	}
	newer.await(func(m *queuemapper.Map) bool { _, ok := m.Reassignment(p); return !ok })
	goOn()
	if got := answer()[0]; got.ErrorCode != 0 {
		t.Errorf("the first order: code %d", got.ErrorCode)
	}
	eventually(t, "no reassignment goes on", func() bool { return askOngoing(late) == 0 && !late.b.reassigns.has(p) })
	for _, c := range cs { // what it did too much is undone
		c.await(func(m *queuemapper.Map) bool {
			_, log, ok := m.Owner(m.Topic("t"), 0)
			return ok && log.Host == to
		})
	}
	for _, c := range cs {
		c.await(func(m *queuemapper.Map) bool { return m.Revision() >= late.b.store.Map().Revision() })
		m := c.b.store.Map()
		pin, _ := m.Pin(m.Topic("t").Partitions[0][len(m.Topic("t").Partitions[0])-1].Group)
		if got := c.owners("t")[0]; got != to || pin.Broker != to || !slices.Equal(m.Assignments(p.Topic).Of(0), []ident.Broker{to, 2}) {
			t.Errorf("broker %d: the owner is %d, pinned to %d, the list %v; want %d", c.id, got, pin.Broker, m.Assignments(p.Topic).Of(0), to)
		}
	}
}

// reassignable is three brokers that know of topic t, whose one partition the first of them owns.
func reassignable(t *testing.T) (cs []*cluster, p ident.Partition) {
	t.Helper()
	cs = startBrokers(t, 3, 1, Config{})
	cs[0].topic("t", 1, nil)
	for _, c := range cs {
		c.await(func(m *queuemapper.Map) bool { return m.Topic("t") != nil })
	}
	return cs, ident.Partition{Topic: cs[0].b.topic("t").id}
}

// holdMove holds the first Move that a broker is asked for, and tells of it, until goOn; others pass.
func holdMove(owner *cluster) (slow <-chan struct{}, goOn func()) {
	reached, held := make(chan struct{}), make(chan struct{})
	first := true
	owner.peers.mu.Lock()
	defer owner.peers.mu.Unlock()
	owner.peers.onCall = func(at ident.Broker, method string) {
		owner.peers.mu.Lock()
		hold := first && at == owner.id && method == "Move"
		first = first && !hold
		owner.peers.mu.Unlock()
		if hold {
			close(reached)
			<-held
		}
	}
	return reached, sync.OnceFunc(func() { close(held) })
}

func awaitStep(t *testing.T, slow <-chan struct{}) {
	t.Helper()
	select {
	case <-slow:
	case <-time.After(enough):
		t.Fatal("the first order never comes to its step")
	}
}

// TestReassignNewerElsewhere: a broker that works on an order gives it up, and lists the newer one, when another broker was asked for
// something else, also while both wait for their steps.
func TestReassignNewerElsewhere(t *testing.T) {
	cs, p := reassignable(t)
	late, newer := cs[1], cs[2]
	late.b.reassigns.step.Lock()
	lateGoesOn := sync.OnceFunc(late.b.reassigns.step.Unlock)
	defer lateGoesOn()
	first := sendReassign(late, reassigned{"t", 0, []int32{2}})
	newer.await(func(m *queuemapper.Map) bool { r, ok := m.Reassignment(p); return ok && r.Worker == 2 })
	newer.b.reassigns.step.Lock()
	newerGoesOn := sync.OnceFunc(newer.b.reassigns.step.Unlock)
	defer newerGoesOn()
	second := sendReassign(newer, reassigned{"t", 0, []int32{3, 2}})
	eventually(t, "the newer order is listed by who worked on the older one", func() bool {
		list := late.b.ongoing(late.b.store.Map())
		return len(list) == 1 && slices.Equal(list[0].list, []ident.Broker{3, 2}) && !late.b.reassigns.has(p)
	})
	lateGoesOn()
	newerGoesOn()
	for name, answer := range map[string]func() []kmsg.AlterPartitionAssignmentsResponseTopicPartition{"first": first, "second": second} {
		if got := answer()[0]; got.ErrorCode != 0 {
			t.Errorf("the %s order: code %d", name, got.ErrorCode)
		}
	}
	for _, c := range cs {
		c.await(func(m *queuemapper.Map) bool {
			_, log, ok := m.Owner(m.Topic("t"), 0)
			_, goesOn := m.Reassignment(p)
			return ok && log.Host == 3 && !goesOn
		})
	}
}

// TestReassignReturned: what was asked of the owner reaches it when later orders have taken the partition away and back: it stays.
func TestReassignReturned(t *testing.T) {
	cs, p := reassignable(t)
	owner, late, newer := cs[0], cs[1], cs[2]
	slow, goOn := holdMove(owner)
	defer goOn()
	answer := sendReassign(late, reassigned{"t", 0, []int32{2}})
	awaitStep(t, slow)
	asked := owner.peers.asked(owner.id, "Move")[0].(*peerpb.MoveRequest)
	newer.await(func(m *queuemapper.Map) bool {
		_, ok := m.Reassignment(p)
		return ok
	})
	for _, to := range []ident.Broker{3, 1} {
		if got := askReassign(newer, reassigned{"t", 0, []int32{int32(to), 2}})[0]; got.ErrorCode != 0 {
			t.Fatalf("to broker %d: code %d", to, got.ErrorCode)
		}
		for _, c := range cs {
			c.await(func(m *queuemapper.Map) bool {
				_, log, ok := m.Owner(m.Topic("t"), 0)
				_, goesOn := m.Reassignment(p)
				return ok && log.Host == to && !goesOn
			})
		}
	}
	before, _, _ := owner.b.store.Map().Owner(owner.b.store.Map().Topic("t"), 0)
	reply, err := owner.b.Owner().Move(t.Context(), asked)
	if err != nil || len(reply.GetGroups()) != 1 || reply.GetGroups()[0].GetError() == "" {
		t.Errorf("the late move: %v, %v", reply, err)
	}
	uneven := &peerpb.MoveRequest{Groups: asked.GetGroups(), To: asked.GetTo(), Epochs: []int32{0, 0}}
	if _, err := owner.b.Owner().Move(t.Context(), uneven); status.Code(err) != codes.InvalidArgument {
		t.Errorf("an epoch too many: %v", err)
	}
	goOn()
	answer()
	eventually(t, "the first order is over", func() bool { return askOngoing(late) == 0 })
	m := owner.b.refresh()
	if after, log, _ := m.Owner(m.Topic("t"), 0); log.Host != 1 || after.Generation != before.Generation {
		t.Errorf("generation %v at broker %d, want %v at broker 1", after.Generation, log.Host, before.Generation)
	}
}
