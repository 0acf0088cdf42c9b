package broker

import (
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/skeinmq/skein/internal/ident"
	"github.com/skeinmq/skein/queuemapper"
)

// owners lists who owns each partition of a topic, as a broker sees it.
func (c *cluster) owners(topic string) []ident.Broker {
	m := c.b.store.Map()
	var out []ident.Broker
	for i := range m.Topic(topic).Partitions {
		_, log, _ := m.Owner(m.Topic(topic), int32(i))
		out = append(out, log.Host)
	}
	return out
}

func askReassign(c *cluster, ps ...reassigned) []kmsg.AlterPartitionAssignmentsResponseTopicPartition {
	var out []kmsg.AlterPartitionAssignmentsResponseTopicPartition
	req := reassign(ps...)(nil)
	req.SetVersion(1)
	for _, t := range c.dial().ask(req).(*kmsg.AlterPartitionAssignmentsResponse).Topics {
		out = append(out, t.Partitions...)
	}
	return out
}

func askOngoing(c *cluster) int {
	n := 0
	for _, t := range c.dial().ask(kmsg.NewPtrListPartitionReassignmentsRequest()).(*kmsg.ListPartitionReassignmentsResponse).Topics {
		n += len(t.Partitions)
	}
	return n
}

// TestReassign sends partitions to brokers by way of one that owns none of them: only they move, whether a group is free
// for them or not, nothing is lost, and the preferred leader can be elected afterwards.
func TestReassign(t *testing.T) {
	for name, partitions := range map[string]int{"groups are free": 4, "no group is free": 24} {
		t.Run(name, func(t *testing.T) {
			cs := startBrokers(t, 3, 1, Config{})
			a, b, c := cs[0], cs[1], cs[2]
			moveAcross(t, a, b, 7) // so that it has something
			a.topic("t", int32(partitions), nil)
			c.await(func(m *queuemapper.Map) bool { return m.Topic("t") != nil })
			h := newHistory("t", partitions)
			h.produce(t, a, 10)
			before := a.owners("t")
			for i, p := range askReassign(c, reassigned{"t", 0, []int32{2, 1, 3}}, reassigned{"t", 1, []int32{2}}) {
				if p.ErrorCode != 0 {
					t.Fatalf("partition %d: code %d", i, p.ErrorCode)
				}
			}
			if n := askOngoing(c); n != 0 {
				t.Errorf("%d reassignments go on", n)
			}
			after := c.owners("t")
			for i := range after {
				want := before[i]
				if i < 2 {
					want = 2
				}
				if after[i] != want {
					t.Errorf("partition %d is at broker %d, want %d", i, after[i], want)
				}
			}
			h.produce(t, b, 10)
			h.check(t, b, func(int) int { return 0 })
		})
	}
}

// TestElectPreferred moves a pinned group away and elects its preferred leader.
func TestElectPreferred(t *testing.T) {
	cs := startBrokers(t, 2, 1, Config{})
	a, b := cs[0], cs[1]
	a.topic("t", 1, nil)
	b.await(func(m *queuemapper.Map) bool { return m.Topic("t") != nil })
	if p := askReassign(a, reassigned{"t", 0, []int32{2}})[0]; p.ErrorCode != 0 || a.owners("t")[0] != 2 {
		t.Fatalf("reassign: code %d, owner %d", p.ErrorCode, a.owners("t")[0])
	}
	vote := func() int16 {
		req := elect(electPreferred, map[string][]int32{"t": {0}})(nil)
		req.SetVersion(2)
		return a.dial().ask(req).(*kmsg.ElectLeadersResponse).Topics[0].Partitions[0].ErrorCode
	}
	if code := vote(); code != kerr.ElectionNotNeeded.Code {
		t.Errorf("at its preferred leader: code %d", code)
	}
	moveTopic(t, b, a, "t")
	if code := vote(); code != 0 {
		t.Errorf("away from it: code %d", code)
	}
	if got := a.owners("t")[0]; got != 2 {
		t.Errorf("the owner is %d, want 2", got)
	}
}

// TestReassignCancel: a move to a broker that takes nothing goes on, is listed, and can be ended.
func TestReassignCancel(t *testing.T) {
	cs := startBrokers(t, 2, 1, Config{})
	a, b := cs[0], cs[1]
	a.topic("t", 1, nil)
	b.peers.refuse(2)
	began := time.Now()
	if p := askReassign(a, reassigned{"t", 0, []int32{2}})[0]; p.ErrorCode != 0 {
		t.Fatalf("reassign: code %d", p.ErrorCode)
	}
	if took := time.Since(began); took < reassignPatience || took > 4*reassignPatience {
		t.Errorf("answered after %v, want %v", took, reassignPatience)
	}
	if n := askOngoing(a); n != 1 {
		t.Errorf("%d reassignments go on, want 1", n)
	}
	if p := askReassign(a, reassigned{"t", 0, nil})[0]; p.ErrorCode != 0 {
		t.Errorf("cancel: code %d", p.ErrorCode)
	}
	if p := askReassign(a, reassigned{"t", 0, nil})[0]; p.ErrorCode != kerr.NoReassignmentInProgress.Code {
		t.Errorf("cancel again: code %d", p.ErrorCode)
	}
	if n := askOngoing(a); n != 0 || a.owners("t")[0] != 1 {
		t.Errorf("%d reassignments go on, the owner is %d", n, a.owners("t")[0])
	}
}
