package broker

import (
	"slices"
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
	c.t.Helper()
	return sendReassign(c, ps...)()
}

// sendReassign asks, and returns what waits for the answer.
func sendReassign(c *cluster, ps ...reassigned) (answer func() []kmsg.AlterPartitionAssignmentsResponseTopicPartition) {
	c.t.Helper()
	req := reassign(ps...)(nil)
	req.SetVersion(1)
	w := c.dial()
	id := w.send(req)
	return func() (out []kmsg.AlterPartitionAssignmentsResponseTopicPartition) {
		c.t.Helper()
		for _, t := range w.receive(id, req).(*kmsg.AlterPartitionAssignmentsResponse).Topics {
			out = append(out, t.Partitions...)
		}
		return out
	}
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
			for i, want := range [][]int32{{2, 1, 3}, {2}} {
				if p := c.placed("t", i); !slices.Equal(p.Replicas, want) || !slices.Equal(p.ISR, want) || p.Leader != 2 {
					t.Errorf("partition %d: leader %d, replicas %v, in sync %v, want %v", i, p.Leader, p.Replicas, p.ISR, want)
				}
			}
			h.produce(t, b, 10)
			h.check(t, b, func(int) int { return 0 })
		})
	}
}

// placed is what Metadata says of a partition.
func (c *cluster) placed(topic string, index int) kmsg.MetadataResponseTopicPartition {
	return c.dial().ask(metadataRequest(topic)).(*kmsg.MetadataResponse).Topics[0].Partitions[index]
}

// TestAssignedTopic: a topic is created and widened with an assignment, its leaders are the first of each list, and when they are
// elsewhere each is brought back for itself.
func TestAssignedTopic(t *testing.T) {
	cs := startBrokers(t, 3, 1, Config{})
	a, b, c := cs[0], cs[1], cs[2]
	moveAcross(t, a, b, 5)
	moveAcross(t, a, c, 4)
	create := kmsg.NewPtrCreateTopicsRequest()
	create.SetVersion(5)
	ct := kmsg.NewCreateTopicsRequestTopic()
	ct.Topic, ct.NumPartitions, ct.ReplicationFactor = "t", -1, -1
	want := [][]int32{{3, 1, 2}, {1, 2, 3}, {2, 3, 1}, {3, 2, 1}}
	for i, list := range want[:3] {
		ct.ReplicaAssignment = append(ct.ReplicaAssignment, kmsg.CreateTopicsRequestTopicReplicaAssignment{Partition: int32(i), Replicas: list})
	}
	create.Topics = append(create.Topics, ct)
	if r := b.dial().ask(create).(*kmsg.CreateTopicsResponse).Topics[0]; r.ErrorCode != 0 || r.ReplicationFactor != 3 {
		t.Fatalf("create: code %d, factor %d", r.ErrorCode, r.ReplicationFactor)
	}
	widen := kmsg.NewPtrCreatePartitionsRequest()
	wt := kmsg.NewCreatePartitionsRequestTopic()
	wt.Topic, wt.Count, wt.Assignment = "t", 4, []kmsg.CreatePartitionsRequestTopicAssignment{{Replicas: want[3]}}
	widen.Topics = append(widen.Topics, wt)
	if r := b.dial().ask(widen).(*kmsg.CreatePartitionsResponse).Topics[0]; r.ErrorCode != 0 {
		t.Fatalf("widen: code %d", r.ErrorCode)
	}
	for i := range want {
		if p := a.placed("t", i); p.Leader != want[i][0] || !slices.Equal(p.Replicas, want[i]) {
			t.Errorf("partition %d: leader %d, replicas %v, want %v", i, p.Leader, p.Replicas, want[i])
		}
	}
	moveTopic(t, c, a, "t")
	if p := a.placed("t", 0); p.Leader != 1 || !slices.Equal(p.Replicas, want[0]) {
		t.Errorf("after a move: leader %d, replicas %v", p.Leader, p.Replicas)
	}
	req := elect(electPreferred, map[string][]int32{"t": {0}})(nil)
	req.SetVersion(2)
	if p := b.dial().ask(req).(*kmsg.ElectLeadersResponse).Topics[0].Partitions[0]; p.ErrorCode != 0 || a.placed("t", 0).Leader != 3 {
		t.Errorf("elect: code %d, leader %d, want 3", p.ErrorCode, a.placed("t", 0).Leader)
	}
}

// TestReplicasOfTheDead: who is away stays in the lists, and is not in sync; who was drained is the last to be in one.
func TestReplicasOfTheDead(t *testing.T) {
	cs := startBrokers(t, 3, 1, Config{})
	a, b, c := cs[0], cs[1], cs[2]
	nt := plannedTopic{name: "t", partitions: 1, replication: 3}
	if _, err := a.b.createTopic(t.Context(), &nt); err != nil {
		t.Fatal(err)
	}
	check := func(replicas, inSync, offline []int32) {
		t.Helper()
		if p := a.placed("t", 0); !slices.Equal(p.Replicas, replicas) || !slices.Equal(p.ISR, inSync) || !slices.Equal(p.OfflineReplicas, offline) {
			t.Errorf("replicas %v, in sync %v, offline %v; want %v, %v, %v", p.Replicas, p.ISR, p.OfflineReplicas, replicas, inSync, offline)
		}
	}
	check([]int32{1, 2, 3}, []int32{1, 2, 3}, nil)
	if err := b.b.store.UnregisterBroker(t.Context()); err != nil {
		t.Fatal(err)
	}
	a.await(func(m *queuemapper.Map) bool { return m.Broker(2) == nil })
	check([]int32{1, 2, 3}, []int32{1, 3}, []int32{2})
	for _, tt := range []struct {
		to   []int32
		code int16
	}{{[]int32{1, 2, 3}, 0}, {[]int32{2}, kerr.InvalidReplicaAssignment.Code}, {[]int32{1, 9}, kerr.InvalidReplicaAssignment.Code}} {
		if p := askReassign(a, reassigned{"t", 0, tt.to})[0]; p.ErrorCode != tt.code {
			t.Errorf("reassign to %v with broker 2 away: code %d, want %d", tt.to, p.ErrorCode, tt.code)
		}
	}
	if err := a.b.store.Assign(t.Context(), a.b.topic("t").id, map[int32][]ident.Broker{0: nil}); err != nil {
		t.Fatal(err)
	}
	if err := c.b.store.DrainBroker(t.Context(), 2, true); err != nil {
		t.Fatal(err)
	}
	a.await(func(m *queuemapper.Map) bool { return m.Drained(2) })
	check([]int32{1, 3, 2}, []int32{1, 3}, []int32{2})
}

// TestReassignUndone: a partition that had arrived when its reassignment was cancelled goes back.
func TestReassignUndone(t *testing.T) {
	cs := startBrokers(t, 2, 1, Config{})
	a, b := cs[0], cs[1]
	a.topic("t", 1, nil)
	b.await(func(m *queuemapper.Map) bool { return m.Topic("t") != nil })
	r := &reassignment{id: ident.Partition{Topic: a.b.topic("t").id}, topic: "t", to: 2, from: 1, list: []ident.Broker{2, 1}}
	a.b.reassigns.add(t.Context(), r)
	if err := a.b.reassignOne(r); err != nil || a.owners("t")[0] != 2 {
		t.Fatalf("step: %v, owner %d", err, a.owners("t")[0])
	}
	group := a.b.store.Map().Topic("t").Partitions[0][0].Group
	if err := a.b.cancelReassignment(t.Context(), r.id); err != nil {
		t.Fatal(err)
	}
	if pin, ok := a.b.store.Map().Pin(group); ok || a.owners("t")[0] != 1 {
		t.Errorf("after it was cancelled the owner is %d, pin %v %v", a.owners("t")[0], pin, ok)
	}
	if again := a.b.reassignRound([]*reassignment{r}); len(again) != 0 || a.owners("t")[0] != 1 || len(a.placed("t", 0).Replicas) != 1 {
		t.Errorf("it goes on: %v, owner %d", again, a.owners("t")[0])
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
	cs := startBrokersOn(t, 2, 1, Config{}, nil, hasty)
	a, b := cs[0], cs[1]
	a.topic("t", 1, nil)
	b.peers.refuse(2)
	began := time.Now()
	if p := askReassign(a, reassigned{"t", 0, []int32{2}})[0]; p.ErrorCode != 0 {
		t.Fatalf("reassign: code %d", p.ErrorCode)
	}
	if took := time.Since(began); took < reassignPatience || took > 30*time.Second {
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

// goesOn waits until a broker lists as many reassignments, and its map says who works on them.
func (c *cluster) goesOn(n int, worker ident.Broker) {
	c.t.Helper()
	c.await(func(m *queuemapper.Map) bool {
		got := 0
		for _, r := range m.Reassignments() {
			if r.Worker != worker {
				return false
			}
			got++
		}
		return got == n
	})
	if got := askOngoing(c); got != n {
		c.t.Errorf("broker %d lists %d reassignments, want %d", c.id, got, n)
	}
}

// slowReassign asks a broker for what takes longer than it waits, as broker 2 cannot be reached.
func slowReassign(t *testing.T, cs []*cluster, by *cluster) {
	t.Helper()
	cs[0].topic("t", 2, nil)
	by.await(func(m *queuemapper.Map) bool { return m.Topic("t") != nil })
	cs[1].peers.refuse(2)
	for _, p := range askReassign(by, reassigned{"t", 0, []int32{2, 1}}, reassigned{"t", 1, []int32{2}}) {
		if p.ErrorCode != 0 {
			t.Fatalf("reassign: code %d", p.ErrorCode)
		}
	}
	for _, c := range cs {
		c.goesOn(2, by.id)
	}
}

// TestReassignOutlives: a reassignment that goes on is finished by another broker when the one that was asked is gone.
func TestReassignOutlives(t *testing.T) {
	cs := startBrokersOn(t, 3, 1, Config{}, nil, hasty)
	a, b, c := cs[0], cs[1], cs[2]
	slowReassign(t, cs, c)
	c.crash()
	a.goesOn(2, 1)
	b.goesOn(2, 1)
	a.peers.allow(2)
	for _, x := range []*cluster{a, b} {
		x.await(func(m *queuemapper.Map) bool {
			for range m.Reassignments() {
				return false
			}
			return true
		})
		if got := x.owners("t"); !slices.Equal(got, []ident.Broker{2, 2}) {
			t.Errorf("broker %d sees the partitions at %v", x.id, got)
		}
		if p := x.placed("t", 0); !slices.Equal(p.Replicas, []int32{2, 1}) {
			t.Errorf("broker %d shows the replicas %v", x.id, p.Replicas)
		}
		if n := askOngoing(x); n != 0 {
			t.Errorf("broker %d lists %d reassignments", x.id, n)
		}
	}
}

// TestReassignElsewhere: what goes on at one broker is ended, and changed, by way of another one.
func TestReassignElsewhere(t *testing.T) {
	cs := startBrokersOn(t, 3, 1, Config{}, nil, hasty)
	a, b, c := cs[0], cs[1], cs[2]
	slowReassign(t, cs, c)
	if p := askReassign(b, reassigned{"t", 0, nil})[0]; p.ErrorCode != 0 {
		t.Errorf("cancel at another broker: code %d", p.ErrorCode)
	}
	if p := askReassign(b, reassigned{"t", 0, nil})[0]; p.ErrorCode != kerr.NoReassignmentInProgress.Code {
		t.Errorf("cancel again: code %d", p.ErrorCode)
	}
	a.goesOn(1, 3)
	for _, p := range askReassign(b, reassigned{"t", 1, []int32{3}}) { // which broker 3 can do
		if p.ErrorCode != 0 {
			t.Errorf("reassign at another broker: code %d", p.ErrorCode)
		}
	}
	c.await(func(m *queuemapper.Map) bool {
		for range m.Reassignments() {
			return false
		}
		return true
	})
	a.peers.allow(2)
	until(t, "the first broker gives both up", func() bool {
		topic := c.b.topic("t").id
		return !c.b.reassigns.has(ident.Partition{Topic: topic, Index: 0}) && !c.b.reassigns.has(ident.Partition{Topic: topic, Index: 1})
	})
	c.b.reassigns.step.Lock() // whatever it was at
	got := c.owners("t")
	c.b.reassigns.step.Unlock()
	if !slices.Equal(got, []ident.Broker{1, 3}) {
		t.Errorf("the partitions are at %v", got)
	}
}
