package abuse

import (
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"io"
	"net"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"
)

// patience is how long an answer may take before a test calls it missing.
const patience = time.Minute

// raw is a connection on which requests are made by hand.
type raw struct {
	net.Conn
}

func dial(addr string) (raw, error) {
	nc, err := net.DialTimeout("tcp", addr, patience)
	return raw{nc}, err
}

// request is the frame of a request.
func request(correlation int32, rq kmsg.Request) []byte {
	return kmsg.NewRequestFormatter(kmsg.FormatterClientID("abuse")).AppendRequest(nil, rq, correlation)
}

// frame is a frame with a body that may be anything.
func frame(body []byte) []byte {
	return append(binary.BigEndian.AppendUint32(nil, uint32(len(body))), body...)
}

// answer reads a frame and returns its correlation id and what follows.
func (c raw) answer() (int32, []byte, error) {
	c.SetReadDeadline(time.Now().Add(patience))
	var size [4]byte
	if _, err := io.ReadFull(c, size[:]); err != nil {
		return 0, nil, err
	}
	n := binary.BigEndian.Uint32(size[:])
	if n < 4 || n > 256<<20 {
		return 0, nil, fmt.Errorf("answer of %d bytes", n)
	}
	b := make([]byte, n)
	if _, err := io.ReadFull(c, b); err != nil {
		return 0, nil, err
	}
	return int32(binary.BigEndian.Uint32(b)), b[4:], nil
}

// ask sends a request that has an answer of the old header form, and decodes it.
func (c raw) ask(rq kmsg.Request) (kmsg.Response, error) {
	if _, err := c.Write(request(1, rq)); err != nil {
		return nil, err
	}
	_, b, err := c.answer()
	if err != nil {
		return nil, err
	}
	rs := rq.ResponseKind()
	if rs.IsFlexible() && rq.Key() != 18 {
		if len(b) == 0 {
			return nil, io.ErrUnexpectedEOF
		}
		b = b[1:] // no tags
	}
	return rs, rs.ReadFrom(b)
}

// ended reports an error unless the broker ends the connection; what it sends before is read and dropped.
func (c raw) ended() error {
	c.SetReadDeadline(time.Now().Add(patience))
	_, err := io.Copy(io.Discard, c)
	if nerr, ok := err.(net.Error); ok && nerr.Timeout() {
		return fmt.Errorf("still open after %v", patience)
	}
	return nil
}

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// batch is a record batch of one record.
func batch(value []byte) []byte {
	r := kmsg.Record{Value: value}
	r.Length = int32(len(r.AppendTo(nil)) - 1) // without the varint of a zero length
	rb := kmsg.RecordBatch{
		PartitionLeaderEpoch: -1, Magic: 2, FirstTimestamp: time.Now().UnixMilli(), MaxTimestamp: time.Now().UnixMilli(),
		ProducerID: -1, ProducerEpoch: -1, FirstSequence: -1, NumRecords: 1, Records: r.AppendTo(nil),
	}
	b := rb.AppendTo(nil)
	binary.BigEndian.PutUint32(b[8:], uint32(len(b)-12))
	binary.BigEndian.PutUint32(b[17:], crc32.Checksum(b[21:], castagnoli))
	return b
}

// produce is a Produce request for one partition.
func produce(topic string, partition int32, records []byte) *kmsg.ProduceRequest {
	rq := kmsg.NewPtrProduceRequest()
	rq.Version, rq.Acks, rq.TimeoutMillis = 7, -1, 5000
	p := kmsg.NewProduceRequestTopicPartition()
	p.Partition, p.Records = partition, records
	t := kmsg.NewProduceRequestTopic()
	t.Topic, t.Partitions = topic, append(t.Partitions, p)
	rq.Topics = append(rq.Topics, t)
	return rq
}

// fetch is a Fetch request for one partition that takes as much as it can get.
func fetch(topic string, partition int32) *kmsg.FetchRequest {
	rq := kmsg.NewPtrFetchRequest()
	rq.Version, rq.MaxBytes, rq.MinBytes, rq.MaxWaitMillis = 11, 1<<30, 1, 100
	p := kmsg.NewFetchRequestTopicPartition()
	p.Partition, p.PartitionMaxBytes = partition, 1<<30
	t := kmsg.NewFetchRequestTopic()
	t.Topic, t.Partitions = topic, append(t.Partitions, p)
	rq.Topics = append(rq.Topics, t)
	return rq
}
