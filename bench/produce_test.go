package bench

import (
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"
)

// TestTemplateIsARequest reads a template with another library.
func TestTemplateIsARequest(t *testing.T) {
	batch := encodeBatch(3, 10, time.UnixMilli(5))
	pt := newProduceTemplate(Topics{Prefix: "t", Count: 2, Partitions: 3}, 2, 3, -1, batch)
	var frame []byte
	for _, p := range pt.pieces {
		frame = append(frame, p...)
	}
	if got, want := len(frame)-4, int(uint32(frame[0])<<24|uint32(frame[1])<<16|uint32(frame[2])<<8|uint32(frame[3])); got != want {
		t.Fatalf("frame of %d bytes says %d", got, want)
	}
	rq := kmsg.NewPtrProduceRequest()
	rq.Version = produceVersion
	if err := rq.ReadFrom(frame[4+8+2+len(clientID)+1:]); err != nil {
		t.Fatal(err)
	}
	if len(rq.Topics) != 2 || rq.Topics[0].Topic != "t-0" || rq.Topics[0].Partitions[0].Partition != 2 ||
		len(rq.Topics[1].Partitions) != 2 || string(rq.Topics[1].Partitions[1].Records) != string(batch) || rq.Acks != -1 {
		t.Errorf("decoded %+v", rq)
	}
	rb := kmsg.NewRecordBatch()
	if err := rb.ReadFrom(batch); err != nil || rb.NumRecords != 3 || rb.LastOffsetDelta != 2 {
		t.Errorf("batch %+v: %v", rb, err)
	}
}

func TestCeiling(t *testing.T) {
	load := ProduceLoad{Topics: Topics{Prefix: "t", Count: 2, Partitions: 5}, RecordBytes: 100, Records: 4, Parts: 3, Conns: 2, InFlight: 3, Acks: -1, Time: 2 * time.Second}
	p, err := Ceiling(t.Context(), load)
	if err != nil {
		t.Fatal(err)
	}
	if p.Bytes == 0 || p.Latency.P50 <= 0 {
		t.Errorf("nothing measured: %+v", p)
	}
	load.Once = true
	if p, err = Ceiling(t.Context(), load); err != nil {
		t.Fatal(err)
	}
	if want := int64(10 * len(encodeBatch(4, 100, time.Now()))); p.Bytes != want {
		t.Errorf("once: %d bytes, want every partition's batch once: %d", p.Bytes, want)
	}
}

// TestRefusalsAreSeen: a generator that counted refused requests would measure nothing.
func TestRefusalsAreSeen(t *testing.T) {
	rs := kmsg.NewPtrProduceResponse()
	rs.Version = produceVersion
	rt := kmsg.NewProduceResponseTopic()
	rt.Topic = "t"
	ok, bad := kmsg.NewProduceResponseTopicPartition(), kmsg.NewProduceResponseTopicPartition()
	bad.ErrorCode = 6
	rt.Partitions = append(rt.Partitions, ok, bad)
	rs.Topics = append(rs.Topics, rt)
	body := rs.AppendTo([]byte{0})
	if n, err := checkProduceResponse(body); n != 2 || err == nil || !strings.Contains(err.Error(), "code 6") {
		t.Errorf("got %d, %v", n, err)
	}
	for i := range body {
		if n, err := checkProduceResponse(body[:i]); err == nil && n == 2 {
			t.Errorf("a response cut at %d of %d passes", i, len(body))
		}
	}
}

// TestOrderIsChecked: the consumer must see gaps and doubles.
func TestOrderIsChecked(t *testing.T) {
	batch := encodeBatch(4, 10, time.Now())
	p := &fetchPosition{topic: "t"}
	if n, err := p.take(batch); n != int64(len(batch)) || err != nil || p.next != 4 {
		t.Fatalf("take: %d, %v, next %d", n, err, p.next)
	}
	if _, err := p.take(batch); err == nil {
		t.Error("a batch that came twice passes")
	}
	p.next = 0
	batch[7] = 9 // base offset 9
	if _, err := p.take(batch); err == nil {
		t.Error("a gap passes")
	}
}
