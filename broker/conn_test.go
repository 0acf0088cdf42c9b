package broker

import (
	"bytes"
	"encoding/binary"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/skeinmq/skein/protocol"
)

func TestPipelinedAnswersComeInOrder(t *testing.T) {
	c := startCluster(t, 2, Config{})
	topic := c.topic("t", 6, nil)
	w := c.dial()
	var sent []kmsg.Request
	var ids []int32
	for i := range 300 {
		var req kmsg.Request = produceRequest(9, topic, int32(i%6), batch(1+i%5, time.Now()))
		if i%17 == 5 {
			req = kmsg.NewPtrMetadataRequest()
		}
		if i%41 == 7 {
			req = fetchRequest(11, topic, 0)
		}
		sent = append(sent, req)
		ids = append(ids, w.send(req))
	}
	next := make(map[int32]int64)
	for i, req := range sent {
		resp := w.receive(ids[i], req)
		p, ok := resp.(*kmsg.ProduceResponse)
		if !ok {
			continue
		}
		got := p.Topics[0].Partitions[0]
		if got.ErrorCode != 0 || got.BaseOffset != next[got.Partition] {
			t.Fatalf("request %d: code %d offset %d, want %d", i, got.ErrorCode, got.BaseOffset, next[got.Partition])
		}
		next[got.Partition] += int64(1 + i%5)
	}
}

func TestMalformedRequestsCloseTheConnection(t *testing.T) {
	c := startCluster(t, 1, Config{})
	frame := func(body ...byte) []byte {
		return append(binary.BigEndian.AppendUint32(nil, uint32(len(body))), body...)
	}
	tests := map[string][]byte{
		"http":                  []byte("GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"),
		"tls":                   {0x16, 3, 1, 2, 0, 1, 0, 1, 0xfc, 3, 3, 1, 2, 3},
		"negative size":         {0xff, 0xff, 0xff, 0xff},
		"two gigabytes":         {0x7f, 0xff, 0xff, 0xff},
		"no size":               frame(),
		"short header":          frame(0, 3, 0),
		"unknown key":           frame(0, 99, 0, 0, 0, 0, 0, 1, 0xff, 0xff),
		"negative key":          frame(0xff, 0xff, 0, 0, 0, 0, 0, 1, 0xff, 0xff),
		"version too new":       frame(0, 3, 0, 99, 0, 0, 0, 1, 0xff, 0xff, 0),
		"version negative":      frame(0, 3, 0xff, 0xff, 0, 0, 0, 1, 0xff, 0xff),
		"cut body":              frame(0, 3, 0, 1, 0, 0, 0, 1, 0xff, 0xff, 0, 0),
		"huge array":            frame(0, 3, 0, 1, 0, 0, 0, 1, 0xff, 0xff, 0x7f, 0xff, 0xff, 0xff),
		"api versions of tags":  frame(0, 18, 0, 3, 0, 0, 0, 1, 0, 0, 0, 0xff, 0xff, 0xff, 0xff, 0x0f),
		"produce cut":           frame(0, 0, 0, 9, 0, 0, 0, 1, 0xff, 0xff, 0, 0, 0xff),
		"fetch cut":             frame(0, 1, 0, 12, 0, 0, 0, 1, 0xff, 0xff, 0, 0, 0xff),
		"key that has no codec": frame(0, 4, 0, 0, 0, 0, 0, 1, 0xff, 0xff),
	}
	for name, b := range tests {
		t.Run(name, func(t *testing.T) {
			w := c.dial()
			w.write(b)
			w.closed()
		})
	}
	if got := c.dial().ask(kmsg.NewPtrMetadataRequest()).(*kmsg.MetadataResponse); len(got.Brokers) != 1 {
		t.Error("the broker does not serve after garbage")
	}
	// What a request had reserved is given back after its answer was sent.
	eventually(t, "nothing of the budget is lost", func() bool { return c.b.memory.used.Load() == 0 })
}

func TestApiVersionsOfTheFuture(t *testing.T) {
	c := startCluster(t, 1, Config{})
	w := c.dial()
	h := protocol.RequestHeader{Key: protocol.KeyApiVersions, Version: 77, CorrelationID: 5}
	frame := h.AppendTo(protocol.AppendFrameSize(nil))
	frame = append(frame, 2, 'x', 2, 'y', 0)
	protocol.EndFrame(frame, 0)
	w.write(frame)
	b := w.frame()
	resp := kmsg.NewPtrApiVersionsResponse()
	if err := resp.ReadFrom(b[4:]); err != nil {
		t.Fatal(err)
	}
	if resp.ErrorCode != int16(protocol.CodeUnsupportedVersion) || len(resp.ApiKeys) != 1 || resp.ApiKeys[0].ApiKey != keyApiVersions {
		t.Errorf("got %+v", resp)
	}
	for v := range int16(5) { // and the connection goes on
		req := kmsg.NewPtrApiVersionsRequest()
		req.SetVersion(v)
		req.ClientSoftwareName, req.ClientSoftwareVersion = "test", "1.0"
		got := w.ask(req).(*kmsg.ApiVersionsResponse)
		if got.ErrorCode != 0 || len(got.ApiKeys) < 10 {
			t.Errorf("v%d: code %d, %d keys", v, got.ErrorCode, len(got.ApiKeys))
		}
		for _, f := range got.SupportedFeatures {
			if v == 3 && f.MinVersion == 0 {
				t.Errorf("v3 names feature %s with minimum 0: old Java clients die of it", f.Name)
			}
		}
	}
}

// A handler table row is whole, and what it says it serves can be decoded.
func TestHandlersAreWhole(t *testing.T) {
	for i := range handlers {
		row := &handlers[i]
		if row.name == "" {
			continue
		}
		if int(row.key) != i {
			t.Errorf("row %d has key %d", i, row.key)
		}
		if want := protocol.APIKey(row.key).String(); row.name != want {
			t.Errorf("row %d is named %q, want %q", i, row.name, want)
		}
		if row.min < 0 || row.max < row.min {
			t.Errorf("%s: versions %d to %d", row.name, row.min, row.max)
		}
		if (row.handle == nil) != (row.key == keyProduce || row.key == keyFetch) {
			t.Errorf("%s: handle is not as it should be", row.name)
		}
		if req := kmsg.RequestForKey(row.key); row.max > req.MaxVersion() {
			t.Errorf("%s: v%d cannot be decoded", row.name, row.max)
		}
	}
}

func TestBodyIsReservedBeforeItIsRead(t *testing.T) {
	c := startCluster(t, 1, Config{Static: map[string]string{"socket.request.max.bytes": "1048576"}, MemoryBytes: 1 << 20})
	topic := c.topic("t", 1, nil)
	hog := c.dial()
	hog.write(binary.BigEndian.AppendUint32(nil, 1<<20)) // announces everything, sends nothing
	until(t, "the body is reserved", func() bool { return c.b.memory.used.Load() == 1<<20 })
	w := c.dial()
	req := produceRequest(9, topic, 0, batch(3, time.Now()))
	id := w.send(req)
	until(t, "the next one waits", func() bool { return c.b.memory.waiting.Load() > 0 })
	hog.nc.Close()
	if got := w.receive(id, req).(*kmsg.ProduceResponse).Topics[0].Partitions[0]; got.ErrorCode != 0 {
		t.Errorf("code %d", got.ErrorCode)
	}
}

func TestAcksZero(t *testing.T) {
	c := startCluster(t, 1, Config{})
	topic := c.topic("t", 1, nil)
	w := c.dial()
	req := produceRequest(7, topic, 0, batch(3, time.Now()))
	req.Acks = 0
	w.send(req)
	if got := w.produceTo(7, topic, 0, batch(1, time.Now())); got.BaseOffset != 3 {
		t.Errorf("offset %d after three records without answer", got.BaseOffset)
	}
	bad := batch(3, time.Now())
	bad[len(bad)-1] ^= 1
	req = produceRequest(7, topic, 0, bad)
	req.Acks = 0
	w.send(req)
	w.closed()
}

func TestProduceRefusals(t *testing.T) {
	c := startCluster(t, 1, Config{})
	plain := c.topic("plain", 2, map[string]string{"max.message.bytes": "500"})
	compact := c.topic("compact", 1, map[string]string{"cleanup.policy": "compact"})
	now := time.Now()
	corrupt := batch(2, now)
	corrupt[40] ^= 1
	two := append(batch(1, now), batch(1, now)...)
	tests := []struct {
		name string
		req  *kmsg.ProduceRequest
		want protocol.Code
	}{
		{"unknown topic", produceRequest(9, &topic{name: "none"}, 0, batch(1, now)), protocol.CodeUnknownTopicOrPartition},
		{"unknown id", produceRequest(13, &topic{id: newTopicID()}, 0, batch(1, now)), protocol.CodeUnknownTopicID},
		{"unknown partition", produceRequest(9, plain, 2, batch(1, now)), protocol.CodeUnknownTopicOrPartition},
		{"internal topic", produceRequest(9, &topic{name: offsetsTopic}, 0, batch(1, now)), protocol.CodeInvalidTopicException},
		{"bad crc", produceRequest(9, plain, 0, corrupt), protocol.CodeCorruptMessage},
		{"too large", produceRequest(9, plain, 0, batch(100, now)), protocol.CodeMessageTooLarge},
		{"two batches", produceRequest(9, plain, 0, two), protocol.CodeInvalidRecord},
		{"nothing", produceRequest(9, plain, 0, []byte{}), protocol.CodeInvalidRecord},
		{"from the future", produceRequest(9, plain, 0, batch(1, now.Add(2*time.Hour))), protocol.CodeInvalidTimestamp},
		{"no key", produceRequest(9, compact, 0, batch(1, now)), protocol.CodeInvalidRecord},
		{"acks", func() *kmsg.ProduceRequest {
			r := produceRequest(9, plain, 0, batch(1, now))
			r.Acks = 2
			return r
		}(), protocol.CodeInvalidRequiredAcks},
	}
	w := c.dial()
	for _, tt := range tests {
		got := w.ask(tt.req).(*kmsg.ProduceResponse).Topics[0].Partitions[0]
		if got.ErrorCode != int16(tt.want) || got.BaseOffset != -1 {
			t.Errorf("%s: code %s offset %d, want %s", tt.name, protocol.Code(got.ErrorCode), got.BaseOffset, tt.want)
		}
	}
	if got := w.produceTo(9, plain, 0, batch(1, now)); got.ErrorCode != 0 || got.BaseOffset != 0 || got.LogStartOffset != 0 {
		t.Errorf("after all refusals: %+v", got)
	}
}

func TestDuplicatesAndSequences(t *testing.T) {
	c := startCluster(t, 1, Config{})
	topic := c.topic("t", 1, nil)
	w := c.dial()
	send := func(sequence int32) kmsg.ProduceResponseTopicPartition {
		b := sequenced(7, 0, sequence, 2)
		return w.produceTo(9, topic, 0, b)
	}
	for i, tt := range []struct {
		sequence int32
		code     protocol.Code
		offset   int64
	}{{0, 0, 0}, {2, 0, 2}, {2, 0, 2}, {0, 0, 0}, {6, protocol.CodeOutOfOrderSequenceNumber, -1}, {4, 0, 4}} {
		got := send(tt.sequence)
		if got.ErrorCode != int16(tt.code) || got.BaseOffset != tt.offset {
			t.Errorf("step %d, sequence %d: code %d offset %d, want %d at %d", i, tt.sequence, got.ErrorCode, got.BaseOffset, tt.code, tt.offset)
		}
	}
	req := kmsg.NewPtrDescribeProducersRequest()
	rt := kmsg.NewDescribeProducersRequestTopic()
	rt.Topic, rt.Partitions = "t", []int32{0}
	req.Topics = append(req.Topics, rt)
	got := w.ask(req).(*kmsg.DescribeProducersResponse).Topics[0].Partitions[0]
	if len(got.ActiveProducers) != 1 || got.ActiveProducers[0].ProducerID != 7 || got.ActiveProducers[0].LastSequence != 5 {
		t.Errorf("producers: %+v", got)
	}
}

func TestLogAppendTime(t *testing.T) {
	c := startCluster(t, 1, Config{})
	topic := c.topic("t", 1, map[string]string{"message.timestamp.type": "LogAppendTime"})
	w := c.dial()
	before := time.Now().UnixMilli()
	got := w.produceTo(9, topic, 0, batch(2, time.Unix(1000, 0)))
	if got.LogAppendTime < before {
		t.Errorf("log append time %d, before %d", got.LogAppendTime, before)
	}
	resp := w.ask(fetchRequest(11, topic, 0)).(*kmsg.FetchResponse)
	if !bytes.Contains(resp.Topics[0].Partitions[0].RecordBatches, binary.BigEndian.AppendUint64(nil, uint64(got.LogAppendTime))) {
		t.Error("the stored batch does not have the time that was answered")
	}
}
