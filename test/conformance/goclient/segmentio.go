package goclient

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net"
	"slices"
	"sync"
	"time"

	"github.com/segmentio/kafka-go"

	"github.com/skeinmq/skein/test/conformance/record"
)

// segmentio is segmentio's kafka-go: Writer, Reader, ConsumerGroup and Client.
type segmentio struct {
	bootstrap string
	addr      net.Addr
	cl        *kafka.Client
}

func newSegmentio(bootstrap string) *segmentio {
	addr := kafka.TCP(bootstrap)
	return &segmentio{bootstrap, addr, &kafka.Client{Addr: addr, Timeout: 10 * time.Second, Transport: newTransport()}}
}

// newTransport sees new topics soon: by default kafka-go keeps metadata for six
// seconds and answers "unknown topic" from it without asking the broker.
func newTransport() *kafka.Transport { return &kafka.Transport{MetadataTTL: 100 * time.Millisecond} }

func (s *segmentio) Close() { s.cl.Transport.(*kafka.Transport).CloseIdleConnections() }

var segmentioCodecs = map[string]kafka.Compression{"gzip": kafka.Gzip, "snappy": kafka.Snappy, "lz4": kafka.Lz4, "zstd": kafka.Zstd}

func (s *segmentio) Produce(ctx context.Context, topic, codec string, idempotent bool, recs []record.Record) error {
	if idempotent {
		return fmt.Errorf("%w: kafka-go has no idempotent producer", errNoAPI)
	}
	byPartition := map[int][]kafka.Message{}
	for _, r := range recs {
		m := kafka.Message{Key: r.Key, Value: r.Value, Time: time.UnixMilli(r.Timestamp)}
		for _, h := range r.Headers {
			m.Headers = append(m.Headers, kafka.Header{Key: h.Key, Value: h.Value})
		}
		byPartition[int(r.Partition)] = append(byPartition[int(r.Partition)], m)
	}
	for p, msgs := range byPartition {
		w := &kafka.Writer{
			Addr: s.addr, Topic: topic, RequiredAcks: kafka.RequireAll, Compression: segmentioCodecs[codec], BatchTimeout: 10 * time.Millisecond, Transport: s.cl.Transport,
			Balancer: kafka.BalancerFunc(func(kafka.Message, ...int) int { return p }),
		}
		if err := errors.Join(w.WriteMessages(ctx, msgs...), w.Close()); err != nil {
			return err
		}
	}
	return nil
}

func fromSegmentio(m kafka.Message) record.Record {
	r := record.Record{Partition: int32(m.Partition), Offset: m.Offset, Timestamp: m.Time.UnixMilli(), Key: m.Key, Value: m.Value}
	for _, h := range m.Headers {
		r.Headers = append(r.Headers, record.Header{Key: h.Key, Value: h.Value})
	}
	return r
}

func (s *segmentio) reader(topic string, partition int, offset int64) (*kafka.Reader, error) {
	r := kafka.NewReader(kafka.ReaderConfig{Brokers: []string{s.bootstrap}, Topic: topic, Partition: partition, MaxWait: 250 * time.Millisecond})
	return r, r.SetOffset(offset) // -2 is kafka.FirstOffset too
}

func (s *segmentio) Read(ctx context.Context, topic string, partition int32, offset int64, n int) ([]record.Record, error) {
	r, err := s.reader(topic, int(partition), offset)
	if err != nil {
		return nil, err
	}
	defer r.Close()
	var out []record.Record
	for len(out) < n {
		m, err := r.ReadMessage(ctx)
		if err != nil {
			return nil, fmt.Errorf("after %d of %d records: %w", len(out), n, err)
		}
		out = append(out, fromSegmentio(m))
	}
	return out, nil
}

func (s *segmentio) OffsetAt(ctx context.Context, topic string, ms int64) (int64, error) {
	resp, err := s.cl.ListOffsets(ctx, &kafka.ListOffsetsRequest{Topics: map[string][]kafka.OffsetRequest{topic: {{Partition: 0, Timestamp: ms}}}})
	if err != nil {
		return 0, err
	}
	for _, p := range resp.Topics[topic] {
		for at := range p.Offsets {
			return at, p.Error
		}
		return -1, p.Error
	}
	return 0, errors.New("list offsets: no answer for partition 0")
}

func (s *segmentio) Committed(ctx context.Context, group, topic string) (int64, error) {
	resp, err := s.cl.OffsetFetch(ctx, &kafka.OffsetFetchRequest{GroupID: group, Topics: map[string][]int{topic: {0}}})
	if err != nil {
		return 0, err
	}
	for _, p := range resp.Topics[topic] {
		return p.CommittedOffset, errors.Join(resp.Error, p.Error)
	}
	return 0, errors.New("fetch offsets: no answer for partition 0")
}

// segmentioMember runs the generations of a ConsumerGroup, with one Reader for each assigned partition.
type segmentioMember struct {
	s      *segmentio
	group  *kafka.ConsumerGroup
	topic  string
	out    chan record.Record
	failed chan error
	stop   context.CancelFunc
	done   sync.WaitGroup

	mu  sync.Mutex
	gen *kafka.Generation // guarded by mu; nil between generations
}

func (s *segmentio) Join(_ context.Context, group, topic string, _ int) (Member, error) {
	g, err := kafka.NewConsumerGroup(kafka.ConsumerGroupConfig{
		ID: group, Brokers: []string{s.bootstrap}, Topics: []string{topic}, StartOffset: kafka.FirstOffset, HeartbeatInterval: 300 * time.Millisecond,
	})
	if err != nil {
		return nil, err
	}
	ctx, stop := context.WithCancel(context.Background())
	m := &segmentioMember{s: s, group: g, topic: topic, out: make(chan record.Record), failed: make(chan error, 16), stop: stop}
	m.done.Go(func() {
		for {
			gen, err := g.Next(ctx)
			if err != nil {
				if ctx.Err() != nil || errors.Is(err, kafka.ErrGroupClosed) {
					return
				}
				m.fail(err)
				continue
			}
			m.run(gen)
		}
	})
	return m, nil
}

func (m *segmentioMember) fail(err error) {
	select {
	case m.failed <- err:
	default:
	}
}

func (m *segmentioMember) run(gen *kafka.Generation) {
	m.setGeneration(gen)
	gen.Start(func(ctx context.Context) {
		<-ctx.Done()
		m.setGeneration(nil)
	})
	for _, a := range gen.Assignments[m.topic] {
		gen.Start(func(ctx context.Context) {
			r, err := m.s.reader(m.topic, a.ID, a.Offset)
			if err != nil {
				m.fail(err)
				return
			}
			defer r.Close()
			for {
				msg, err := r.ReadMessage(ctx)
				if err != nil {
					if ctx.Err() == nil {
						m.fail(err)
					}
					return
				}
				select {
				case m.out <- fromSegmentio(msg):
				case <-ctx.Done():
					return
				}
			}
		})
	}
}

func (m *segmentioMember) setGeneration(g *kafka.Generation) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.gen = g
}

func (m *segmentioMember) generation() *kafka.Generation {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.gen
}

func (m *segmentioMember) Poll(ctx context.Context) ([]record.Record, error) {
	return drain(ctx, m.out, m.failed)
}

func (m *segmentioMember) Assignment() []int32 {
	var out []int32
	if g := m.generation(); g != nil {
		for _, a := range g.Assignments[m.topic] {
			out = append(out, int32(a.ID))
		}
	}
	slices.Sort(out)
	return out
}

func (m *segmentioMember) Commit(_ context.Context, next map[int32]int64) error {
	g := m.generation()
	if g == nil {
		return errors.New("commit: no generation")
	}
	offsets := map[int]int64{}
	for p := range maps.Keys(next) {
		offsets[int(p)] = next[p]
	}
	return g.CommitOffsets(map[string]map[int]int64{m.topic: offsets})
}

func (m *segmentioMember) Close() error {
	m.stop()
	err := m.group.Close()
	m.done.Wait()
	return err
}
