package bench

import (
	"bufio"
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"net"

	"github.com/twmb/franz-go/pkg/kmsg"
)

const clientID = "skein-bench"

// maxResponse bounds a response's size: a generator must not die of a broker's bug.
const maxResponse = 256 << 20

// conn is one connection to a broker. Send and receive may be used by one goroutine each.
type conn struct {
	net.Conn
	r   *bufio.Reader
	buf []byte
}

func dial(ctx context.Context, addr string) (*conn, error) {
	var d net.Dialer
	c, err := d.DialContext(ctx, "tcp", addr)
	if err != nil {
		return nil, err
	}
	return &conn{Conn: c, r: bufio.NewReaderSize(c, 64<<10)}, nil
}

// readFrame reads a frame of least to most bytes behind its size, into buf if it has room.
func readFrame(r io.Reader, buf []byte, least, most int) ([]byte, error) {
	var head [4]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return buf, err
	}
	n := int(binary.BigEndian.Uint32(head[:]))
	if n < least || n > most {
		return buf, fmt.Errorf("frame of %d bytes", n)
	}
	if cap(buf) < n {
		buf = make([]byte, n, n+n/4)
	}
	buf = buf[:n]
	_, err := io.ReadFull(r, buf)
	return buf, err
}

// receive reads the next response frame: its correlation id and what follows. The bytes are
// valid until the next call.
func (c *conn) receive() (correlation int32, body []byte, err error) {
	if c.buf, err = readFrame(c.r, c.buf, 4, maxResponse); err != nil {
		return 0, nil, fmt.Errorf("receive: %w", err)
	}
	return int32(binary.BigEndian.Uint32(c.buf)), c.buf[4:], nil
}

// request sends one kmsg request and waits for its response.
func (c *conn) request(rq kmsg.Request) (kmsg.Response, error) {
	f := kmsg.NewRequestFormatter(kmsg.FormatterClientID(clientID))
	if _, err := c.Write(f.AppendRequest(nil, rq, 1)); err != nil {
		return nil, err
	}
	_, body, err := c.receive()
	if err != nil {
		return nil, err
	}
	rs := rq.ResponseKind()
	if rs.IsFlexible() && rs.Key() != 18 {
		body = body[1:] // no tags in the header
	}
	return rs, rs.ReadFrom(body)
}

// Topics names n topics with the given partitions each.
type Topics struct {
	Prefix     string
	Count      int
	Partitions int // of each
}

func (t Topics) total() int { return t.Count * t.Partitions }

// at maps a running number to a topic and a partition.
func (t Topics) at(i int) (topic string, partition int32) {
	return fmt.Sprintf("%s-%d", t.Prefix, i/t.Partitions), int32(i % t.Partitions)
}

// createTopics creates them, each in a request of its own, and waits until each partition
// has a leader. Configs are set on each.
func createTopics(ctx context.Context, addr string, t Topics, configs map[string]string) error {
	return createTopicsWith(ctx, addr, t, 1, configs)
}

// createTopicsWith is createTopics with a replication factor.
func createTopicsWith(ctx context.Context, addr string, t Topics, factor int16, configs map[string]string) error {
	c, err := dial(ctx, addr)
	if err != nil {
		return err
	}
	defer c.Close()
	stop := context.AfterFunc(ctx, func() { c.Close() })
	defer stop()
	for i := range t.Count {
		rq := kmsg.NewPtrCreateTopicsRequest()
		rq.Version, rq.TimeoutMillis = 5, 60_000
		rt := kmsg.NewCreateTopicsRequestTopic()
		rt.Topic, _ = t.at(i * t.Partitions)
		rt.NumPartitions, rt.ReplicationFactor = int32(t.Partitions), factor
		for k, v := range configs {
			rt.Configs = append(rt.Configs, kmsg.CreateTopicsRequestTopicConfig{Name: k, Value: &v})
		}
		rq.Topics = append(rq.Topics, rt)
		rs, err := c.request(rq)
		if err != nil {
			return fmt.Errorf("create topic %s: %w", rt.Topic, err)
		}
		if got := rs.(*kmsg.CreateTopicsResponse).Topics[0]; got.ErrorCode != 0 {
			return fmt.Errorf("create topic %s: code %d", rt.Topic, got.ErrorCode)
		}
	}
	for i := range t.Count {
		if err := awaitLeaders(ctx, c, t, i); err != nil {
			return err
		}
	}
	return nil
}

// awaitLeaders asks for a topic's metadata until every partition has a leader.
func awaitLeaders(ctx context.Context, c *conn, t Topics, i int) error {
	name, _ := t.at(i * t.Partitions)
	for ctx.Err() == nil {
		rq := kmsg.NewPtrMetadataRequest()
		rq.Version = 9
		rq.Topics = []kmsg.MetadataRequestTopic{{Topic: &name}}
		rs, err := c.request(rq)
		if err != nil {
			return fmt.Errorf("metadata of %s: %w", name, err)
		}
		led := 0
		for _, p := range rs.(*kmsg.MetadataResponse).Topics[0].Partitions {
			if p.ErrorCode == 0 && p.Leader >= 0 {
				led++
			}
		}
		if led == t.Partitions {
			return nil
		}
	}
	return context.Cause(ctx)
}

// CreateTopics makes the topics of a load with default configs.
func CreateTopics(ctx context.Context, addr string, t Topics) error {
	return createTopics(ctx, addr, t, nil)
}
