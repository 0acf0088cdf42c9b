package broker

import (
	"encoding/binary"
	"errors"
	"io"
	"net"
	"os"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/skeinmq/skein/protocol"
	"github.com/skeinmq/skein/protocol/record"
)

// wire is a raw connection to a broker: a test sees each byte and decides when it reads.
type wire struct {
	t    testing.TB
	nc   net.Conn
	next int32
}

func (c *cluster) dial() *wire {
	c.t.Helper()
	nc, err := net.Dial("tcp", c.addr)
	if err != nil {
		c.t.Fatal(err)
	}
	c.t.Cleanup(func() { nc.Close() })
	return &wire{t: c.t, nc: nc}
}

// send writes a request in its version and returns its correlation id.
func (w *wire) send(req kmsg.Request) int32 {
	w.t.Helper()
	w.next++
	w.write(frameOf(req, w.next))
	return w.next
}

func (w *wire) write(b []byte) {
	w.t.Helper()
	if _, err := w.nc.Write(b); err != nil {
		w.t.Fatal(err)
	}
}

// frame reads one frame; nil after the broker has closed the connection.
func (w *wire) frame() []byte {
	w.t.Helper()
	w.nc.SetReadDeadline(time.Now().Add(enough))
	var size [4]byte
	if _, err := io.ReadFull(w.nc, size[:]); err != nil {
		if errors.Is(err, os.ErrDeadlineExceeded) {
			w.t.Fatal("no answer")
		}
		return nil
	}
	b := make([]byte, binary.BigEndian.Uint32(size[:]))
	if _, err := io.ReadFull(w.nc, b); err != nil {
		w.t.Fatal(err)
	}
	return b
}

// receive reads the answer to a request of that correlation id into resp.
func (w *wire) receive(id int32, req kmsg.Request) kmsg.Response {
	w.t.Helper()
	b := w.frame()
	if b == nil {
		w.t.Fatalf("connection closed instead of an answer to key %d v%d", req.Key(), req.GetVersion())
	}
	if got := int32(binary.BigEndian.Uint32(b)); got != id {
		w.t.Fatalf("answer %d came, want %d", got, id)
	}
	b = b[4:]
	if req.Key() != keyApiVersions && req.IsFlexible() {
		b = b[1:]
	}
	resp := req.ResponseKind()
	if err := resp.ReadFrom(b); err != nil {
		w.t.Fatalf("answer to key %d v%d: %v", req.Key(), req.GetVersion(), err)
	}
	return resp
}

// ask sends a request and reads its answer.
func (w *wire) ask(req kmsg.Request) kmsg.Response {
	w.t.Helper()
	return w.receive(w.send(req), req)
}

// closed checks that the broker closes the connection without an answer.
func (w *wire) closed() {
	w.t.Helper()
	if b := w.frame(); b != nil {
		w.t.Fatalf("an answer of %d bytes instead of the end of the connection", len(b))
	}
}

// topic creates a topic.
func (c *cluster) topic(name string, partitions int32, configs map[string]string) *topic {
	c.t.Helper()
	t, err := c.b.createTopic(c.t.Context(), &plannedTopic{name: name, partitions: partitions, replication: 1, configs: configs})
	if err != nil {
		c.t.Fatal(err)
	}
	return t
}

// batch makes a batch of n records with values "v0", "v1", … of the time.
func batch(n int, at time.Time) []byte {
	var b record.Builder
	for i := range n {
		b.Append(at.UnixMilli()+int64(i), nil, []byte("v"+string(rune('0'+i%10))))
	}
	return b.AppendBatch(nil)
}

// produceRequest makes a request for one partition.
func produceRequest(version int16, t *topic, partition int32, records []byte) *kmsg.ProduceRequest {
	req := kmsg.NewPtrProduceRequest()
	req.SetVersion(version)
	req.Acks, req.TimeoutMillis = -1, int32(enough.Milliseconds())
	rt := kmsg.NewProduceRequestTopic()
	rt.Topic, rt.TopicID = t.name, t.id
	rp := kmsg.NewProduceRequestTopicPartition()
	rp.Partition, rp.Records = partition, records
	rt.Partitions = append(rt.Partitions, rp)
	req.Topics = append(req.Topics, rt)
	return req
}

// produceTo appends a batch and returns its answer.
func (w *wire) produceTo(version int16, t *topic, partition int32, records []byte) kmsg.ProduceResponseTopicPartition {
	w.t.Helper()
	resp := w.ask(produceRequest(version, t, partition, records)).(*kmsg.ProduceResponse)
	return resp.Topics[0].Partitions[0]
}

// fetchRequest makes a request for partitions of one topic, from the offsets on.
func fetchRequest(version int16, t *topic, offsets ...int64) *kmsg.FetchRequest {
	req := kmsg.NewPtrFetchRequest()
	req.SetVersion(version)
	req.ReplicaID, req.MaxWaitMillis, req.MinBytes, req.MaxBytes = -1, 0, 1, 1<<20
	req.SessionEpoch = -1
	rt := kmsg.NewFetchRequestTopic()
	rt.Topic, rt.TopicID = t.name, t.id
	for i, o := range offsets {
		rp := kmsg.NewFetchRequestTopicPartition()
		rp.Partition, rp.FetchOffset, rp.PartitionMaxBytes, rp.CurrentLeaderEpoch = int32(i), o, 1<<20, -1
		rt.Partitions = append(rt.Partitions, rp)
	}
	if len(offsets) > 0 {
		req.Topics = append(req.Topics, rt)
	}
	return req
}

// sequenced makes a batch of an idempotent producer.
func sequenced(producer int64, epoch int16, sequence int32, n int) []byte {
	var b record.Builder
	b.Idempotent, b.ProducerID, b.ProducerEpoch, b.BaseSequence = true, producer, epoch, sequence
	for range n {
		b.Append(time.Now().UnixMilli(), nil, []byte("x"))
	}
	return b.AppendBatch(nil)
}

// until waits for something that another goroutine does.
func until(t testing.TB, what string, ok func() bool) {
	t.Helper()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for end := time.Now().Add(enough); !ok(); <-tick.C {
		if time.Now().After(end) {
			t.Fatalf("never happened: %s", what)
		}
	}
}

// frameOf encodes a request in its version.
func frameOf(req kmsg.Request, id int32) []byte {
	h := protocol.RequestHeader{Key: protocol.APIKey(req.Key()), Version: req.GetVersion(), CorrelationID: id, ClientID: "test"}
	frame := req.AppendTo(h.AppendTo(protocol.AppendFrameSize(nil)))
	protocol.EndFrame(frame, 0)
	return frame
}

// roundTrip returns a function that sends a frame and reads the answer, without allocating.
func (w *wire) roundTrip(frame []byte) func() {
	answer := make([]byte, 64<<10)
	return func() {
		w.nc.Write(frame)
		if _, err := io.ReadFull(w.nc, answer[:4]); err != nil {
			w.t.Fatal(err)
		}
		if _, err := io.ReadFull(w.nc, answer[:binary.BigEndian.Uint32(answer)]); err != nil {
			w.t.Fatal(err)
		}
	}
}
