package protocol

import (
	"bytes"
	"errors"
	"math"
	"math/rand/v2"
	"testing"

	"github.com/twmb/franz-go/pkg/kmsg"
)

func ptr[T any](v T) *T { return &v }

// name returns the topic name or id that belongs into a message of that kind.
func name(byID bool, i int) (string, UUID) {
	if byID {
		return "", UUID{1, byte(i)}
	}
	return "topic-" + string(rune('a'+i%26)), UUID{}
}

func kmsgProduce(v int16, topics, partitions int, records []byte) []byte {
	k := kmsg.NewPtrProduceRequest()
	k.Version = v
	k.Acks, k.TimeoutMillis = -1, 30_000
	if v >= 3 {
		k.TransactionID = ptr("txn")
	}
	for i := range topics {
		t := kmsg.NewProduceRequestTopic()
		t.Topic, t.TopicID = name(v >= 13, i)
		for j := range partitions {
			p := kmsg.NewProduceRequestTopicPartition()
			p.Partition, p.Records = int32(j), records
			if v >= 9 && j == 1 {
				p.UnknownTags.Set(7, []byte("x"))
			}
			t.Partitions = append(t.Partitions, p)
		}
		k.Topics = append(k.Topics, t)
	}
	return k.AppendTo(nil)
}

func TestProduceRequestReadsWhatKmsgWrites(t *testing.T) {
	var q ProduceRequest // used again for all versions, as a connection does
	for v := int16(0); v <= ProduceMaxVersion; v++ {
		for _, records := range [][]byte{nil, {}, []byte("batch")} {
			if err := q.Decode(kmsgProduce(v, 3, 2, records), v); err != nil {
				t.Fatalf("v%d: %v", v, err)
			}
			if q.Acks != -1 || q.TimeoutMillis != 30_000 || q.HasTransactionalID != (v >= 3) || (v >= 3) != (q.TransactionalID == "txn") {
				t.Errorf("v%d: got head %+v", v, q)
			}
			if len(q.Topics) != 3 {
				t.Fatalf("v%d: got %d topics", v, len(q.Topics))
			}
			for i, topic := range q.Topics {
				wantName, wantID := name(v >= 13, i)
				if topic.Name != wantName || topic.ID != wantID || len(topic.Partitions) != 2 {
					t.Errorf("v%d: got topic %+v", v, topic)
				}
				for j, p := range topic.Partitions {
					if p.Index != int32(j) || !bytes.Equal(p.Records, records) || (p.Records == nil) != (records == nil) {
						t.Errorf("v%d: got partition %+v, want records %q", v, p, records)
					}
				}
			}
		}
	}
}

func kmsgFetch(v int16) *kmsg.FetchRequest {
	k := kmsg.NewPtrFetchRequest()
	k.Version = v
	k.ReplicaID, k.MaxWaitMillis, k.MinBytes, k.MaxBytes = -1, 500, 1, 1<<20
	k.IsolationLevel, k.SessionID, k.SessionEpoch, k.Rack = 1, 77, 78, "rack-1"
	if v >= 12 {
		k.ClusterID = ptr("cluster")
	}
	if v >= 15 {
		k.ReplicaState.ID, k.ReplicaState.Epoch = 5, 6
	}
	for i := range 3 {
		t := kmsg.NewFetchRequestTopic()
		t.Topic, t.TopicID = name(v >= 13, i)
		f := kmsg.NewFetchRequestForgottenTopic()
		f.Topic, f.TopicID = name(v >= 13, i)
		f.Partitions = []int32{1, 2, 3}
		k.ForgottenTopics = append(k.ForgottenTopics, f)
		for j := range 2 {
			p := kmsg.NewFetchRequestTopicPartition()
			p.Partition, p.CurrentLeaderEpoch, p.FetchOffset = int32(j), 11, 12
			p.LastFetchedEpoch, p.LogStartOffset, p.PartitionMaxBytes = 13, 14, 15
			if v >= 17 {
				p.ReplicaDirectoryID = UUID{9}
			}
			if v >= 18 {
				p.HighWatermark = 16
			}
			t.Partitions = append(t.Partitions, p)
		}
		k.Topics = append(k.Topics, t)
	}
	return k
}

func TestFetchRequestReadsWhatKmsgWrites(t *testing.T) {
	pick := func(there bool, v, otherwise int64) int64 {
		if there {
			return v
		}
		return otherwise
	}
	var q FetchRequest
	for v := int16(0); v <= FetchMaxVersion; v++ {
		if err := q.Decode(kmsgFetch(v).AppendTo(nil), v); err != nil {
			t.Fatalf("v%d: %v", v, err)
		}
		got := []int64{int64(q.ReplicaID), q.ReplicaEpoch, int64(q.MaxWaitMillis), int64(q.MinBytes), int64(q.MaxBytes), int64(q.IsolationLevel), int64(q.SessionID), int64(q.SessionEpoch), int64(len(q.Topics)), int64(len(q.Forgotten))}
		want := []int64{pick(v >= 15, 5, -1), pick(v >= 15, 6, -1), 500, 1, pick(v >= 3, 1<<20, math.MaxInt32), pick(v >= 4, 1, 0), pick(v >= 7, 77, 0), pick(v >= 7, 78, -1), 3, pick(v >= 7, 3, 0)}
		for i := range want {
			if got[i] != want[i] {
				t.Errorf("v%d: field %d is %d, want %d", v, i, got[i], want[i])
			}
		}
		if (q.Rack == "rack-1") != (v >= 11) || (q.ClusterID == "cluster") != (v >= 12) {
			t.Errorf("v%d: got rack %q, cluster %q", v, q.Rack, q.ClusterID)
		}
		for i, topic := range q.Topics {
			wantName, wantID := name(v >= 13, i)
			if topic.Name != wantName || topic.ID != wantID || len(topic.Partitions) != 2 {
				t.Fatalf("v%d: got topic %+v", v, topic)
			}
			want := FetchPartition{Index: 1, CurrentLeaderEpoch: int32(pick(v >= 9, 11, -1)), FetchOffset: 12,
				LastFetchedEpoch: int32(pick(v >= 12, 13, -1)), LogStartOffset: pick(v >= 5, 14, -1), MaxBytes: 15,
				HighWatermark: pick(v >= 18, 16, math.MaxInt64)}
			if v >= 17 {
				want.ReplicaDirectoryID = UUID{9}
			}
			if topic.Partitions[1] != want {
				t.Errorf("v%d: got %+v, want %+v", v, topic.Partitions[1], want)
			}
		}
		for i, f := range q.Forgotten {
			wantName, wantID := name(v >= 13, i)
			if f.Name != wantName || f.ID != wantID || len(f.Partitions) != 3 || f.Partitions[2] != 3 {
				t.Errorf("v%d: got forgotten %+v", v, f)
			}
		}
	}
}

// produceResponses returns the same answer in our form and in kmsg's.
func produceResponses(v int16) (*ProduceResponse, *kmsg.ProduceResponse) {
	p, k := &ProduceResponse{ThrottleMillis: 99}, kmsg.NewPtrProduceResponse()
	k.Version, k.ThrottleMillis = v, 99
	for i := range 2 {
		var pt ProduceResponseTopic
		kt := kmsg.NewProduceResponseTopic()
		pt.Name, pt.ID = name(v >= 13, i)
		kt.Topic, kt.TopicID = pt.Name, pt.ID
		for j := range 3 {
			pp := ProduceResponsePartition{Index: int32(j), Code: Code(j), BaseOffset: 1 << 40, LogAppendTime: -1, LogStartOffset: 7}
			kp := kmsg.NewProduceResponseTopicPartition()
			kp.Partition, kp.ErrorCode, kp.BaseOffset, kp.LogAppendTime, kp.LogStartOffset = int32(j), int16(j), 1<<40, -1, 7
			if j == 1 {
				pp.RecordErrors = []RecordError{{Index: 4, Message: "bad"}, {Index: 5}}
				a, b := kmsg.NewProduceResponseTopicPartitionErrorRecord(), kmsg.NewProduceResponseTopicPartitionErrorRecord()
				a.RelativeOffset, a.ErrorMessage, b.RelativeOffset = 4, ptr("bad"), 5
				kp.ErrorRecords = append(kp.ErrorRecords, a, b)
				pp.Message, kp.ErrorMessage = "why", ptr("why")
			}
			if j == 2 && v >= 10 {
				pp.CurrentLeader = LeaderEpoch{NodeID: 3, Epoch: 8, Known: true}
				kp.CurrentLeader.LeaderID, kp.CurrentLeader.LeaderEpoch = 3, 8
			}
			pt.Partitions, kt.Partitions = append(pt.Partitions, pp), append(kt.Partitions, kp)
		}
		p.Topics, k.Topics = append(p.Topics, pt), append(k.Topics, kt)
	}
	if v >= 10 {
		p.Nodes = []NodeEndpoint{{NodeID: 3, Host: "h", Port: 9092, Rack: "r"}, {NodeID: 4, Host: "i", Port: 9093}}
		for _, n := range p.Nodes {
			b := kmsg.NewProduceResponseBroker()
			b.NodeID, b.Host, b.Port = n.NodeID, n.Host, n.Port
			if n.Rack != "" {
				b.Rack = &n.Rack
			}
			k.Brokers = append(k.Brokers, b)
		}
	}
	return p, k
}

func TestProduceResponseEqualsKmsg(t *testing.T) {
	for v := int16(0); v <= ProduceMaxVersion; v++ {
		p, k := produceResponses(v)
		if got, want := p.AppendTo(nil, v), k.AppendTo(nil); !bytes.Equal(got, want) {
			t.Errorf("v%d:\n got %x\nwant %x", v, got, want)
		}
	}
}

func fetchResponses(v int16) (*FetchResponse, *kmsg.FetchResponse) {
	p, k := &FetchResponse{ThrottleMillis: 99, Code: 3, SessionID: 55}, kmsg.NewPtrFetchResponse()
	k.Version, k.ThrottleMillis, k.ErrorCode, k.SessionID = v, 99, 3, 55
	for i := range 2 {
		var pt FetchResponseTopic
		kt := kmsg.NewFetchResponseTopic()
		pt.Name, pt.ID = name(v >= 13, i)
		kt.Topic, kt.TopicID = pt.Name, pt.ID
		for j := range 4 {
			var pp FetchResponsePartition
			pp.Reset(int32(j))
			kp := kmsg.NewFetchResponseTopicPartition()
			kp.Partition, kp.HighWatermark, kp.LastStableOffset, kp.LogStartOffset, kp.PreferredReadReplica = int32(j), -1, -1, -1, -1
			kp.RecordBatches = []byte{}
			switch j {
			case 1:
				pp.HighWatermark, pp.LastStableOffset, pp.LogStartOffset, pp.PreferredReadReplica = 10, 9, 1, 2
				kp.HighWatermark, kp.LastStableOffset, kp.LogStartOffset, kp.PreferredReadReplica = 10, 9, 1, 2
				pp.Records = [][]byte{[]byte("first"), []byte("second"), bytes.Repeat([]byte("x"), 300)}
				kp.RecordBatches = bytes.Join(pp.Records, nil)
				pp.AbortedTransactions = []AbortedTransaction{{5, 6}, {7, 8}}
				for _, a := range pp.AbortedTransactions {
					ka := kmsg.NewFetchResponseTopicPartitionAbortedTransaction()
					ka.ProducerID, ka.FirstOffset = a.ProducerID, a.FirstOffset
					kp.AbortedTransactions = append(kp.AbortedTransactions, ka)
				}
			case 2:
				pp.AbortedTransactions, kp.AbortedTransactions = []AbortedTransaction{}, []kmsg.FetchResponseTopicPartitionAbortedTransaction{}
				if v >= 12 {
					pp.Diverging = EpochEnd{Epoch: 4, EndOffset: 44, Known: true}
					kp.DivergingEpoch.Epoch, kp.DivergingEpoch.EndOffset = 4, 44
				}
			case 3:
				if v >= 12 {
					pp.CurrentLeader = LeaderEpoch{NodeID: 3, Epoch: 8, Known: true}
					kp.CurrentLeader.LeaderID, kp.CurrentLeader.LeaderEpoch = 3, 8
				}
			}
			pt.Partitions, kt.Partitions = append(pt.Partitions, pp), append(kt.Partitions, kp)
		}
		p.Topics, k.Topics = append(p.Topics, pt), append(k.Topics, kt)
	}
	if v >= 16 {
		p.Nodes = []NodeEndpoint{{NodeID: 3, Host: "h", Port: 9092, Rack: "r"}}
		b := kmsg.NewFetchResponseBroker()
		b.NodeID, b.Host, b.Port, b.Rack = 3, "h", 9092, ptr("r")
		k.Brokers = append(k.Brokers, b)
	}
	return p, k
}

func TestFetchResponseEqualsKmsg(t *testing.T) {
	var e FetchEncoder
	for v := int16(0); v <= FetchMaxVersion; v++ {
		p, k := fetchResponses(v)
		bufs, total, err := e.Encode(p, v, 1234)
		if err != nil {
			t.Fatal(err)
		}
		got := bytes.Join(bufs, nil)
		want := AppendResponseHeader(AppendFrameSize(nil), KeyFetch, v, 1234)
		want = k.AppendTo(want)
		EndFrame(want, 0)
		if total != len(got) || !bytes.Equal(got, want) {
			t.Errorf("v%d: total %d\n got %x\nwant %x", v, total, got, want)
		}
	}
}

func TestHandshakeRequestsReadWhatKmsgWrites(t *testing.T) {
	for v := int16(0); v <= 4; v++ {
		k := kmsg.NewPtrApiVersionsRequest()
		k.Version, k.ClientSoftwareName, k.ClientSoftwareVersion = v, "name", "1.2"
		q := ApiVersionsRequest{SoftwareName: "old"}
		if err := q.Decode(k.AppendTo(nil), v); err != nil || (q == ApiVersionsRequest{"name", "1.2"}) != (v >= 3) || (q == ApiVersionsRequest{}) != (v < 3) {
			t.Errorf("api versions v%d: got %+v, %v", v, q, err)
		}
	}
	for v := int16(0); v <= 1; v++ {
		k := kmsg.NewPtrSASLHandshakeRequest()
		k.Version, k.Mechanism = v, "PLAIN"
		var q SaslHandshakeRequest
		if err := q.Decode(k.AppendTo(nil), v); err != nil || q.Mechanism != "PLAIN" {
			t.Errorf("sasl handshake v%d: got %+v, %v", v, q, err)
		}
	}
	for v := int16(0); v <= 2; v++ {
		k := kmsg.NewPtrSASLAuthenticateRequest()
		k.Version, k.SASLAuthBytes = v, []byte("token")
		var q SaslAuthenticateRequest
		if err := q.Decode(k.AppendTo(nil), v); err != nil || string(q.Auth) != "token" {
			t.Errorf("sasl authenticate v%d: got %+v, %v", v, q, err)
		}
	}
}

// TestDecodersRefuseEveryCut cuts each message at every byte: all are refused. Bytes after the end are ignored, as
// Kafka does: librdkafka 2.16 sends some with Metadata v13.
func TestDecodersRefuseEveryCut(t *testing.T) {
	check := func(what string, v int16, body []byte, decode func([]byte, int16) error) {
		for i := range body {
			if err := decode(body[:i], v); !errors.Is(err, ErrMalformed) {
				t.Errorf("%s v%d cut at %d of %d: got %v", what, v, i, len(body), err)
			}
		}
		if err := decode(append(body[:len(body):len(body)], 1, 0, 0), v); err != nil {
			t.Errorf("%s v%d with bytes after its end, which Kafka ignores: got %v", what, v, err)
		}
	}
	for v := int16(0); v <= FetchMaxVersion; v++ {
		check("fetch", v, kmsgFetch(v).AppendTo(nil), new(FetchRequest).Decode)
	}
	for v := int16(0); v <= ProduceMaxVersion; v++ {
		check("produce", v, kmsgProduce(v, 2, 2, []byte("xyz")), new(ProduceRequest).Decode)
	}
}

// TestHostileCountsAreCheap sends the bodies that hold kmsg for a minute or make it allocate gigabytes.
func TestHostileCountsAreCheap(t *testing.T) {
	bodies := [][]byte{
		{1, 1, 0xff, 0xff, 0xff, 0xff, 0x0f},
		append([]byte{0, 0xff, 0xff, 0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff, 0x07}, make([]byte, 1<<16)...),
		bytes.Repeat([]byte{0xff}, 1<<16),
	}
	for _, b := range bodies {
		for v := int16(0); v <= FetchMaxVersion; v++ {
			var a ApiVersionsRequest
			var p ProduceRequest
			var f FetchRequest
			_, _, _ = a.Decode(b, min(v, 4)), p.Decode(b, min(v, ProduceMaxVersion)), f.Decode(b, v)
		}
	}
	var a ApiVersionsRequest
	if err := a.Decode(bodies[0], 3); !errors.Is(err, ErrMalformed) {
		t.Errorf("tag bomb: got %v", err)
	}
}

func TestRandomBytesNeverPanic(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	var p ProduceRequest
	var f FetchRequest
	var h RequestHeader
	for range 20_000 {
		b := make([]byte, rng.IntN(64))
		for i := range b {
			b[i] = byte(rng.IntN(6))
		}
		_ = p.Decode(b, int16(rng.IntN(14)))
		_ = f.Decode(b, int16(rng.IntN(19)))
		_, _ = h.Parse(b)
	}
}
