package goclient

import (
	"context"
	"errors"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/IBM/sarama"

	"github.com/skeinmq/skein/test/conformance/record"
)

// saramaClient is IBM's sarama, either as its default configuration speaks
// (protocol of Kafka 2.8) or with the newest version it knows.
type saramaClient struct {
	bootstrap []string
	version   sarama.KafkaVersion
	cl        sarama.Client
	faults    bool
}

func newSarama(bootstrap string, version sarama.KafkaVersion, faults bool) (*saramaClient, error) {
	s := &saramaClient{bootstrap: []string{bootstrap}, version: version, faults: faults}
	var err error
	s.cl, err = sarama.NewClient(s.bootstrap, s.config())
	return s, err
}

func (s *saramaClient) Close() {
	if s.cl != nil {
		s.cl.Close()
	}
}

func (s *saramaClient) config() *sarama.Config {
	c := sarama.NewConfig()
	c.Version = s.version
	c.Producer.Return.Successes = true
	c.Producer.RequiredAcks = sarama.WaitForAll
	c.Producer.Partitioner = sarama.NewManualPartitioner
	c.Producer.Flush.Frequency = 20 * time.Millisecond
	c.Metadata.AllowAutoTopicCreation = false // or a look at a deleted topic makes it again
	c.Consumer.Return.Errors = true
	c.Consumer.Offsets.Initial = sarama.OffsetOldest
	c.Consumer.Offsets.AutoCommit.Enable = false
	c.Consumer.Group.Heartbeat.Interval = 300 * time.Millisecond
	c.Consumer.MaxWaitTime = 250 * time.Millisecond
	return c
}

var saramaCodecs = map[string]sarama.CompressionCodec{
	"gzip": sarama.CompressionGZIP, "snappy": sarama.CompressionSnappy, "lz4": sarama.CompressionLZ4, "zstd": sarama.CompressionZSTD,
}

func (s *saramaClient) Produce(_ context.Context, topic, codec string, idempotent bool, recs []record.Record) error {
	c := s.config()
	c.Producer.Compression = saramaCodecs[codec]
	if idempotent {
		c.Producer.Idempotent = true
		c.Net.MaxOpenRequests = 1 // sarama refuses an idempotent producer with more
	}
	p, err := sarama.NewSyncProducer(s.bootstrap, c)
	if err != nil {
		return err
	}
	var msgs []*sarama.ProducerMessage
	for _, r := range recs {
		m := &sarama.ProducerMessage{Topic: topic, Partition: r.Partition, Key: sarama.ByteEncoder(r.Key), Timestamp: time.UnixMilli(r.Timestamp)}
		if r.Value != nil {
			m.Value = sarama.ByteEncoder(r.Value)
		}
		for _, h := range r.Headers {
			m.Headers = append(m.Headers, sarama.RecordHeader{Key: []byte(h.Key), Value: h.Value})
		}
		msgs = append(msgs, m)
	}
	return errors.Join(p.SendMessages(msgs), p.Close())
}

func fromSarama(m *sarama.ConsumerMessage) record.Record {
	r := record.Record{Partition: m.Partition, Offset: m.Offset, Timestamp: m.Timestamp.UnixMilli(), Key: m.Key, Value: m.Value}
	for _, h := range m.Headers {
		r.Headers = append(r.Headers, record.Header{Key: string(h.Key), Value: h.Value})
	}
	return r
}

func (s *saramaClient) Read(ctx context.Context, topic string, partition int32, offset int64, n int) ([]record.Record, error) {
	c, err := sarama.NewConsumerFromClient(s.cl)
	if err != nil {
		return nil, err
	}
	defer c.Close()
	pc, err := c.ConsumePartition(topic, partition, offset) // -2 is sarama.OffsetOldest too
	if err != nil {
		return nil, err
	}
	defer pc.AsyncClose()
	var out []record.Record
	for len(out) < n {
		select {
		case m := <-pc.Messages():
			out = append(out, fromSarama(m))
		case err := <-pc.Errors():
			return nil, err
		case <-ctx.Done():
			return nil, errAfter(len(out), n, ctx)
		}
	}
	return out, nil
}

func (s *saramaClient) OffsetAt(_ context.Context, topic string, ms int64) (int64, error) {
	return s.cl.GetOffset(topic, 0, ms)
}

func (s *saramaClient) Committed(_ context.Context, group, topic string) (int64, error) {
	om, err := sarama.NewClusterAdmin(s.bootstrap, s.config())
	if err != nil {
		return 0, err
	}
	defer om.Close()
	resp, err := om.ListConsumerGroupOffsets(group, map[string][]int32{topic: {0}})
	if err != nil {
		return 0, err
	}
	b := resp.GetBlock(topic, 0)
	if b == nil {
		return 0, errors.New("fetch offsets: no answer for partition 0")
	}
	if b.Err != sarama.ErrNoError {
		return 0, b.Err
	}
	return b.Offset, nil
}

// saramaMember runs sarama's consume loop beside the case and hands records over a channel.
type saramaMember struct {
	group  sarama.ConsumerGroup
	topic  string
	out    chan record.Record
	failed chan error
	stop   context.CancelFunc
	done   sync.WaitGroup

	mu      sync.Mutex
	session sarama.ConsumerGroupSession // guarded by mu; nil between sessions
}

func (s *saramaClient) Join(_ context.Context, group, topic string, _ int) (Member, error) {
	g, err := sarama.NewConsumerGroup(s.bootstrap, group, s.config())
	if err != nil {
		return nil, err
	}
	ctx, stop := context.WithCancel(context.Background())
	m := &saramaMember{group: g, topic: topic, out: make(chan record.Record), failed: make(chan error, 16), stop: stop}
	m.done.Go(func() {
		for ctx.Err() == nil {
			if err := g.Consume(ctx, []string{topic}, m); err != nil && ctx.Err() == nil {
				if s.faults { // what its documentation says: consume again
					time.Sleep(100 * time.Millisecond)
					continue
				}
				select {
				case m.failed <- err:
				default:
				}
			}
		}
	})
	return m, nil
}

// Setup, Cleanup and ConsumeClaim are sarama's callbacks.
func (m *saramaMember) Setup(s sarama.ConsumerGroupSession) error { m.setSession(s); return nil }
func (m *saramaMember) Cleanup(sarama.ConsumerGroupSession) error { m.setSession(nil); return nil }
func (m *saramaMember) setSession(s sarama.ConsumerGroupSession) {
	m.mu.Lock()
	m.session = s
	m.mu.Unlock()
}
func (m *saramaMember) getSession() (s sarama.ConsumerGroupSession) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.session
}

func (m *saramaMember) ConsumeClaim(s sarama.ConsumerGroupSession, claim sarama.ConsumerGroupClaim) error {
	for {
		select {
		case msg, ok := <-claim.Messages():
			if !ok {
				return nil
			}
			select {
			case m.out <- fromSarama(msg):
			case <-s.Context().Done():
				return nil
			}
		case <-s.Context().Done():
			return nil
		}
	}
}

func (m *saramaMember) Poll(ctx context.Context) ([]record.Record, error) {
	return drain(ctx, m.out, m.failed)
}

func (m *saramaMember) Assignment() []int32 {
	if s := m.getSession(); s != nil {
		return slices.Sorted(slices.Values(s.Claims()[m.topic]))
	}
	return nil
}

func (m *saramaMember) Commit(_ context.Context, next map[int32]int64) error {
	s := m.getSession()
	if s == nil {
		return errors.New("commit: no session")
	}
	for p := range maps.Keys(next) {
		s.MarkOffset(m.topic, p, next[p], "")
	}
	s.Commit()
	select {
	case err := <-m.group.Errors():
		return err
	default:
		return nil
	}
}

func (m *saramaMember) Close() error {
	m.stop()
	err := m.group.Close()
	m.done.Wait()
	return err
}
