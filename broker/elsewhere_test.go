package broker

import (
	"slices"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/skeinmq/skein/internal/peer/peerpb"
	"github.com/skeinmq/skein/queuemapper"
)

// TestAdminAnywhere makes topics, partitions and configs at a broker that owns nothing of them: when its answer comes,
// the owner acts on it, and so does everybody.
func TestAdminAnywhere(t *testing.T) {
	cs := startBrokers(t, 2, 1, Config{})
	owner, other := cs[0], cs[1]
	create := kmsg.NewPtrCreateTopicsRequest()
	create.SetVersion(7)
	ct := kmsg.NewCreateTopicsRequestTopic()
	ct.Topic, ct.NumPartitions, ct.ReplicationFactor = "t", 3, 3
	create.Topics = append(create.Topics, ct)
	at := other.dial()
	if got := at.ask(create).(*kmsg.CreateTopicsResponse).Topics[0]; got.ErrorCode != 0 || got.ReplicationFactor != 3 {
		t.Fatalf("create: %+v", got)
	}
	produce := func(p int32) int16 {
		tp := owner.b.topic("t")
		if tp == nil {
			return kerr.UnknownTopicOrPartition.Code
		}
		return owner.dial().ask(produceRequest(9, tp, p, batch(1, time.Now()))).(*kmsg.ProduceResponse).Topics[0].Partitions[0].ErrorCode
	}
	if code := produce(2); code != 0 {
		t.Errorf("produce at the owner at once: code %d", code)
	}
	grow := kmsg.NewPtrCreatePartitionsRequest()
	grow.SetVersion(3)
	gt := kmsg.NewCreatePartitionsRequestTopic()
	gt.Topic, gt.Count = "t", 5
	grow.Topics = append(grow.Topics, gt)
	if got := at.ask(grow).(*kmsg.CreatePartitionsResponse).Topics[0]; got.ErrorCode != 0 {
		t.Fatalf("add partitions: code %d", got.ErrorCode)
	}
	if code := produce(4); code != 0 {
		t.Errorf("produce to a new partition at once: code %d", code)
	}
	configs := kmsg.NewPtrIncrementalAlterConfigsRequest()
	configs.SetVersion(1)
	cr := kmsg.NewIncrementalAlterConfigsRequestResource()
	cr.ResourceType, cr.ResourceName = resourceTopic, "t"
	cr.Configs = []kmsg.IncrementalAlterConfigsRequestResourceConfig{{Name: "max.message.bytes", Value: kmsg.StringPtr("50")}}
	configs.Resources = append(configs.Resources, cr)
	at.ask(configs)
	if code := produce(0); code != kerr.MessageTooLarge.Code {
		t.Errorf("produce after the config: code %d, want %d", code, kerr.MessageTooLarge.Code)
	}
	for _, c := range cs {
		resp := c.dial().ask(metadataRequest("t")).(*kmsg.MetadataResponse)
		if len(resp.Brokers) != 2 || len(resp.Topics[0].Partitions) != 5 {
			t.Errorf("broker %d lists %d brokers, %d partitions; want 2, 5", c.id, len(resp.Brokers), len(resp.Topics[0].Partitions))
		}
		for _, p := range resp.Topics[0].Partitions {
			if p.ErrorCode != 0 || p.Leader != 1 || !slices.Equal(p.ISR, p.Replicas) || p.Replicas[0] != 1 {
				t.Errorf("broker %d, partition %d: %+v", c.id, p.Partition, p)
			}
		}
	}
	del := kmsg.NewPtrDeleteTopicsRequest()
	del.SetVersion(5)
	del.TopicNames = []string{"t"}
	at.ask(del)
	if code := produce(0); code != kerr.UnknownTopicOrPartition.Code {
		t.Errorf("produce after the topic's end: code %d", code)
	}
	auto := metadataRequest("made")
	auto.AllowAutoTopicCreation = true
	if got := other.dial().ask(auto).(*kmsg.MetadataResponse).Topics[0]; got.ErrorCode != 0 || owner.b.topic("made") == nil {
		t.Errorf("create on demand: code %d", got.ErrorCode)
	}
}

// TestAdminAwaitsConnection makes a topic when the first connection to the owner comes to nothing: the answer waits for the next one.
func TestAdminAwaitsConnection(t *testing.T) {
	cs := startBrokers(t, 2, 1, Config{})
	owner, other := cs[0], cs[1]
	peers := other.peers
	peers.mu.Lock()
	peers.onRefused = peers.allow
	peers.mu.Unlock()
	peers.refuse(1)
	at := other.dial()
	auto := metadataRequest("made")
	auto.AllowAutoTopicCreation = true
	if got := at.ask(auto).(*kmsg.MetadataResponse).Topics[0]; got.ErrorCode != 0 {
		t.Fatalf("create on demand: code %d", got.ErrorCode)
	}
	made := other.b.store.Map().Topic("made").Revision
	if !slices.ContainsFunc(peers.asked(owner.id, "AwaitMap"), func(rq any) bool { return rq.(*peerpb.AwaitMapRequest).Revision >= made }) {
		t.Error("the owner was not waited for")
	}
}

func metadataRequest(topic string) *kmsg.MetadataRequest {
	req := kmsg.NewPtrMetadataRequest()
	req.SetVersion(12)
	rt := kmsg.NewMetadataRequestTopic()
	rt.Topic = kmsg.StringPtr(topic)
	req.Topics = append(req.Topics, rt)
	return req
}

// TestWrongBroker asks a broker that is not the owner: the answer names the owner and how it is reached.
func TestWrongBroker(t *testing.T) {
	cs := startBrokers(t, 2, 1, Config{Rack: "r"})
	owner, other := cs[0], cs[1]
	owner.topic("t", 1, nil)
	other.await(func(m *queuemapper.Map) bool { return m.Topic("t") != nil })
	at := other.dial()
	p := at.ask(produceRequest(12, other.b.topic("t"), 0, batch(1, time.Now()))).(*kmsg.ProduceResponse)
	if got := p.Topics[0].Partitions[0]; got.ErrorCode != kerr.NotLeaderForPartition.Code || got.CurrentLeader.LeaderID != 1 || got.CurrentLeader.LeaderEpoch != 0 {
		t.Errorf("produce: %+v", got)
	}
	if len(p.Brokers) != 1 || p.Brokers[0].NodeID != 1 || p.Brokers[0].Port != owner.b.cfg.Port || p.Brokers[0].Rack == nil {
		t.Errorf("produce names the nodes %+v", p.Brokers)
	}
	f := at.ask(fetchRequest(16, other.b.topic("t"), 0)).(*kmsg.FetchResponse)
	if got := f.Topics[0].Partitions[0]; got.ErrorCode != kerr.NotLeaderForPartition.Code || got.CurrentLeader.LeaderID != 1 || got.CurrentLeader.LeaderEpoch != 0 {
		t.Errorf("fetch: %+v", got)
	}
	if len(f.Brokers) != 1 || f.Brokers[0].NodeID != 1 || f.Brokers[0].Port != owner.b.cfg.Port {
		t.Errorf("fetch names the nodes %+v", f.Brokers)
	}
	del := kmsg.NewPtrDeleteRecordsRequest()
	del.SetVersion(2)
	dt := kmsg.NewDeleteRecordsRequestTopic()
	dt.Topic, dt.Partitions = "t", []kmsg.DeleteRecordsRequestTopicPartition{{Offset: -1}}
	del.Topics = append(del.Topics, dt)
	if got := at.ask(del).(*kmsg.DeleteRecordsResponse).Topics[0].Partitions[0]; got.ErrorCode != kerr.NotLeaderForPartition.Code {
		t.Errorf("delete records: code %d", got.ErrorCode)
	}
}

// TestDeadOwnerIsNamed: while nobody has taken over, the owner stays the leader, with its last address.
func TestDeadOwnerIsNamed(t *testing.T) {
	cs := startBrokers(t, 2, 1, Config{})
	owner, other := cs[0], cs[1]
	owner.topic("t", 1, nil)
	other.await(func(m *queuemapper.Map) bool { return m.Topic("t") != nil })
	owner.crash()
	other.await(func(m *queuemapper.Map) bool { return m.Broker(1) == nil })
	resp := other.dial().ask(metadataRequest("t")).(*kmsg.MetadataResponse)
	if p := resp.Topics[0].Partitions[0]; p.ErrorCode != 0 || p.Leader != 1 {
		t.Errorf("partition: %+v", p)
	}
	if len(resp.Brokers) != 2 {
		t.Errorf("%d brokers are listed, want the dead leader among them", len(resp.Brokers))
	}
	if got := other.dial().ask(kmsg.NewPtrDescribeClusterRequest()).(*kmsg.DescribeClusterResponse); len(got.Brokers) != 1 {
		t.Errorf("the cluster has %d brokers, want the live one", len(got.Brokers))
	}
	other.b.endpoints.mu.Lock()
	other.b.endpoints.seen[1] = seenBroker{node: other.b.endpoints.seen[1].node, gone: time.Now().Add(-endpointFor - time.Second)}
	other.b.endpoints.mu.Unlock()
	resp = other.dial().ask(metadataRequest("t")).(*kmsg.MetadataResponse)
	if p := resp.Topics[0].Partitions[0]; p.ErrorCode != kerr.LeaderNotAvailable.Code || p.Leader != -1 || len(resp.Brokers) != 1 {
		t.Errorf("after minutes: %+v of %d brokers", p, len(resp.Brokers))
	}
}

// TestReleaseRemoteRuns moves the log start past a run in another broker's log: that broker is told.
func TestReleaseRemoteRuns(t *testing.T) {
	cs := startBrokers(t, 2, 1, Config{})
	a, b := cs[0], cs[1]
	a.topic("t", 1, nil)
	h := newHistory("t", 1)
	h.produce(t, a, 30)
	moveTopic(t, a, b, "t")
	h.produce(t, b, 10)
	p := b.b.topic("t").partition(0)
	if _, err := b.b.deleteRecords(t.Context(), p, 20); err != nil {
		t.Fatal(err)
	}
	if deaf := b.b.retain(t.Context(), time.Now().UnixMilli()); len(deaf) > 0 {
		t.Errorf("deaf: %v", deaf)
	}
	released := func() (from, end int64) {
		for _, m := range b.peers.asked(1, "Release") {
			r := m.(*peerpb.ReleaseRequest).Runs[0]
			from, end = r.Start, r.End
		}
		return from, end
	}
	if from, end := released(); from != 20 || end != 30 {
		t.Errorf("released up to %d of a run that ends at %d, want 20 of 30", from, end)
	}
	if _, err := b.b.deleteRecords(t.Context(), p, 35); err != nil {
		t.Fatal(err)
	}
	b.b.retain(t.Context(), time.Now().UnixMilli())
	if from, end := released(); from != 30 || end != 30 {
		t.Errorf("released up to %d of a run that ends at %d, want all 30", from, end)
	}
	if err := a.stop(); err != nil {
		t.Fatal(err)
	}
	if deaf := b.b.retain(t.Context(), time.Now().UnixMilli()); !deaf[1] {
		t.Errorf("deaf: %v, want the broker that is gone", deaf)
	}
}
