package broker

import (
	"context"
	"sync/atomic"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/skeinmq/skein/queuemapper"
)

// TestLeaderInAnswers: from Produce 10 and Fetch 16 on (KIP-951), and not before, an answer that sends a client away names
// the new leader, its epoch, and how it is reached, each node once.
func TestLeaderInAnswers(t *testing.T) {
	cs := startBrokers(t, 2, 1, Config{Rack: "r"})
	a, b := cs[0], cs[1]
	a.topic("t", 3, nil)
	b.await(func(m *queuemapper.Map) bool { return m.Topic("t") != nil })
	moveTopic(t, a, b, "t")
	epochs := make([]int32, 3)
	for p := range int32(3) {
		run, _, ok := b.b.store.Map().Owner(b.b.topic("t").newest(), p)
		if !ok {
			t.Fatal("no owner")
		}
		epochs[p] = int32(run.Generation.Epoch)
	}
	nodes := func(where string, version int16, has bool, got []kmsg.FetchResponseBroker) {
		t.Helper()
		if !has && len(got) > 0 || has && (len(got) != 1 || got[0].NodeID != 2 || got[0].Host != b.b.cfg.Host || got[0].Port != b.b.cfg.Port || got[0].Rack == nil || *got[0].Rack != "r") {
			t.Errorf("%s v%d names the nodes %+v", where, version, got)
		}
	}
	leader := func(where string, version int16, has bool, p, id, epoch int32) {
		t.Helper()
		if has && (id != 2 || epoch != epochs[p]) || !has && (id != -1 || epoch != -1) {
			t.Errorf("%s v%d, partition %d: leader %d of epoch %d", where, version, p, id, epoch)
		}
	}
	for _, version := range []int16{3, 9, 10, 12, 13} {
		req := produceRequest(version, a.b.topic("t"), 0, batch(1, time.Now()))
		for p := range int32(2) {
			req.Topics[0].Partitions = append(req.Topics[0].Partitions, req.Topics[0].Partitions[0])
			req.Topics[0].Partitions[p+1].Partition = p + 1
		}
		resp := a.dial().ask(req).(*kmsg.ProduceResponse)
		for _, p := range resp.Topics[0].Partitions {
			if p.ErrorCode != kerr.NotLeaderForPartition.Code {
				t.Errorf("produce v%d: code %d", version, p.ErrorCode)
			}
			leader("produce", version, version >= 10, p.Partition, p.CurrentLeader.LeaderID, p.CurrentLeader.LeaderEpoch)
		}
		var got []kmsg.FetchResponseBroker
		for _, n := range resp.Brokers {
			got = append(got, kmsg.FetchResponseBroker(n))
		}
		nodes("produce", version, version >= 10, got)
	}
	for _, version := range []int16{4, 12, 15, 16, 17} {
		resp := a.dial().ask(fetchRequest(version, a.b.topic("t"), 0, 0, 0)).(*kmsg.FetchResponse)
		for _, p := range resp.Topics[0].Partitions {
			if p.ErrorCode != kerr.NotLeaderForPartition.Code {
				t.Errorf("fetch v%d: code %d", version, p.ErrorCode)
			}
			leader("fetch", version, version >= 16, p.Partition, p.CurrentLeader.LeaderID, p.CurrentLeader.LeaderEpoch)
		}
		nodes("fetch", version, version >= 16, resp.Brokers)
		if version < 12 {
			continue
		}
		req := fetchRequest(version, b.b.topic("t"), 0)
		req.Topics[0].Partitions[0].CurrentLeaderEpoch = epochs[0] - 1 // at the right broker, as of an epoch ago
		resp = b.dial().ask(req).(*kmsg.FetchResponse)
		p := resp.Topics[0].Partitions[0]
		if p.ErrorCode != kerr.FencedLeaderEpoch.Code {
			t.Errorf("fetch v%d of an old epoch: code %d", version, p.ErrorCode)
		}
		leader("fenced fetch", version, version >= 16, 0, p.CurrentLeader.LeaderID, p.CurrentLeader.LeaderEpoch)
		nodes("fenced fetch", version, version >= 16, resp.Brokers)
	}
}

// metadataCount counts what a client asks for.
type metadataCount struct{ n atomic.Int64 }

func (c *metadataCount) OnBrokerWrite(_ kgo.BrokerMetadata, key int16, _ int, _, _ time.Duration, _ error) {
	if key == 3 {
		c.n.Add(1)
	}
}

// TestClientFollowsAnswers moves a topic under a producer and a consumer that may not ask for metadata again: they go on by
// what the answers say.
func TestClientFollowsAnswers(t *testing.T) {
	cs := startBrokers(t, 2, 1, Config{})
	a, b := cs[0], cs[1]
	a.topic("t", 2, nil)
	b.await(func(m *queuemapper.Map) bool { return m.Topic("t") != nil })
	var asked metadataCount
	opts := []kgo.Opt{kgo.MetadataMinAge(time.Hour), kgo.MetadataMaxAge(time.Hour), kgo.WithHooks(&asked)}
	producer := a.client(append(opts, kgo.RecordPartitioner(kgo.ManualPartitioner()))...)
	consumer := a.client(append(opts, kgo.ConsumeTopics("t"), kgo.FetchMaxWait(100*time.Millisecond))...)
	ctx, cancel := context.WithTimeout(t.Context(), enough)
	defer cancel()
	round := func(n int) {
		t.Helper()
		for p := range int32(2) {
			if err := producer.ProduceSync(ctx, &kgo.Record{Topic: "t", Partition: p, Value: []byte("x")}).FirstErr(); err != nil {
				t.Fatalf("write %d: %v; metadata was asked for %d times", n, err, asked.n.Load())
			}
		}
		for got := 0; got < 2; {
			fs := consumer.PollFetches(ctx)
			if ctx.Err() != nil {
				t.Fatalf("read %d: %d records; metadata was asked for %d times", n, got, asked.n.Load())
			}
			got += fs.NumRecords()
		}
	}
	round(1)
	before := asked.n.Load()
	moveTopic(t, a, b, "t")
	round(2)
	moveTopic(t, b, a, "t")
	round(3)
	if n := asked.n.Load(); n != before {
		t.Errorf("metadata was asked for %d times more", n-before)
	}
}
