package goclient

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/skeinmq/skein/test/conformance/record"
)

// franz is franz-go: kgo for records and groups, kadm for admin calls.
type franz struct {
	bootstrap string
	cl        *kgo.Client
}

func newFranz(bootstrap string) (*franz, error) {
	cl, err := kgo.NewClient(kgo.SeedBrokers(bootstrap), kgo.MetadataMinAge(50*time.Millisecond)) // admin calls list topics right after a change
	return &franz{bootstrap, cl}, err
}

func (f *franz) Close() { f.cl.Close() }

func franzCodec(name string) kgo.CompressionCodec {
	switch name {
	case "gzip":
		return kgo.GzipCompression()
	case "snappy":
		return kgo.SnappyCompression()
	case "lz4":
		return kgo.Lz4Compression()
	case "zstd":
		return kgo.ZstdCompression()
	}
	return kgo.NoCompression()
}

func (f *franz) Produce(ctx context.Context, topic, codec string, idempotent bool, recs []record.Record) error {
	opts := []kgo.Opt{
		kgo.SeedBrokers(f.bootstrap), kgo.RecordPartitioner(kgo.ManualPartitioner()), kgo.RequiredAcks(kgo.AllISRAcks()),
		kgo.ProducerBatchCompression(franzCodec(codec)), kgo.ProducerLinger(20 * time.Millisecond),
	}
	if !idempotent {
		opts = append(opts, kgo.DisableIdempotentWrite())
	}
	cl, err := kgo.NewClient(opts...)
	if err != nil {
		return err
	}
	defer cl.Close()
	var out []*kgo.Record
	for _, r := range recs {
		k := &kgo.Record{Topic: topic, Partition: r.Partition, Key: r.Key, Value: r.Value, Timestamp: time.UnixMilli(r.Timestamp)}
		for _, h := range r.Headers {
			k.Headers = append(k.Headers, kgo.RecordHeader{Key: h.Key, Value: h.Value})
		}
		out = append(out, k)
	}
	return cl.ProduceSync(ctx, out...).FirstErr()
}

func fromFranz(k *kgo.Record) record.Record {
	r := record.Record{Partition: k.Partition, Offset: k.Offset, Timestamp: k.Timestamp.UnixMilli(), Key: k.Key, Value: k.Value}
	for _, h := range k.Headers {
		r.Headers = append(r.Headers, record.Header{Key: h.Key, Value: h.Value})
	}
	return r
}

func (f *franz) Read(ctx context.Context, topic string, partition int32, offset int64, n int) ([]record.Record, error) {
	at := kgo.NewOffset().At(offset)
	if offset == -2 {
		at = kgo.NewOffset().AtStart()
	}
	cl, err := kgo.NewClient(kgo.SeedBrokers(f.bootstrap), kgo.FetchMaxWait(500*time.Millisecond),
		kgo.ConsumePartitions(map[string]map[int32]kgo.Offset{topic: {partition: at}}))
	if err != nil {
		return nil, err
	}
	defer cl.Close()
	var out []record.Record
	for len(out) < n {
		fetches := cl.PollFetches(ctx)
		if err := fetches.Err(); err != nil {
			return nil, fmt.Errorf("after %d of %d records: %w", len(out), n, err)
		}
		fetches.EachRecord(func(k *kgo.Record) { out = append(out, fromFranz(k)) })
	}
	return out[:n], nil
}

func (f *franz) OffsetAt(ctx context.Context, topic string, ms int64) (int64, error) {
	// kadm replaces "none" by the end offset and marks it with timestamp -1.
	listed, err := kadm.NewClient(f.cl).ListOffsetsAfterMilli(ctx, ms, topic)
	if err != nil {
		return 0, err
	}
	l, ok := listed.Lookup(topic, 0)
	switch {
	case !ok:
		return 0, fmt.Errorf("list offsets: no answer for %s:0", topic)
	case l.Err != nil:
		return 0, l.Err
	case l.Timestamp == -1:
		return -1, nil
	}
	return l.Offset, nil
}

func (f *franz) Committed(ctx context.Context, group, topic string) (int64, error) {
	resp, err := kadm.NewClient(f.cl).FetchOffsets(ctx, group)
	if err != nil {
		return 0, err
	}
	o, ok := resp.Lookup(topic, 0)
	if !ok {
		return -1, nil
	}
	return o.At, o.Err
}

type franzMember struct {
	cl    *kgo.Client
	topic string
	max   int

	mu   sync.Mutex
	held map[int32]bool // guarded by mu; the callbacks run inside kgo
}

func (f *franz) Join(_ context.Context, group, topic string, max int) (Member, error) {
	m := &franzMember{topic: topic, max: max, held: map[int32]bool{}}
	mark := func(on bool) func(context.Context, *kgo.Client, map[string][]int32) {
		return func(_ context.Context, _ *kgo.Client, parts map[string][]int32) {
			m.mu.Lock()
			defer m.mu.Unlock()
			for _, p := range parts[topic] {
				if on {
					m.held[p] = true
				} else {
					delete(m.held, p)
				}
			}
		}
	}
	var err error
	m.cl, err = kgo.NewClient(kgo.SeedBrokers(f.bootstrap), kgo.ConsumerGroup(group), kgo.ConsumeTopics(topic), kgo.DisableAutoCommit(),
		kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()), kgo.FetchMaxWait(500*time.Millisecond), kgo.HeartbeatInterval(300*time.Millisecond),
		kgo.OnPartitionsAssigned(mark(true)), kgo.OnPartitionsRevoked(mark(false)), kgo.OnPartitionsLost(mark(false)))
	return m, err
}

func (m *franzMember) Poll(ctx context.Context) ([]record.Record, error) {
	ctx, cancel := context.WithTimeout(ctx, 100*time.Millisecond)
	defer cancel()
	limit := 10000
	if m.max > 0 {
		limit = m.max
	}
	fetches := m.cl.PollRecords(ctx, limit)
	for _, e := range fetches.Errors() {
		if !errors.Is(e.Err, context.DeadlineExceeded) {
			return nil, e.Err
		}
	}
	var out []record.Record
	fetches.EachRecord(func(k *kgo.Record) { out = append(out, fromFranz(k)) })
	return out, nil
}

func (m *franzMember) Assignment() []int32 {
	m.mu.Lock()
	defer m.mu.Unlock()
	return slices.Sorted(maps.Keys(m.held))
}

func (m *franzMember) Commit(ctx context.Context, next map[int32]int64) error {
	offsets := map[int32]kgo.EpochOffset{}
	for p, at := range next {
		offsets[p] = kgo.EpochOffset{Epoch: -1, Offset: at}
	}
	var failed error
	m.cl.CommitOffsetsSync(ctx, map[string]map[int32]kgo.EpochOffset{m.topic: offsets},
		func(_ *kgo.Client, _ *kmsg.OffsetCommitRequest, resp *kmsg.OffsetCommitResponse, err error) {
			if failed = err; err != nil {
				return
			}
			for _, t := range resp.Topics {
				for _, p := range t.Partitions {
					failed = errors.Join(failed, kerr.ErrorForCode(p.ErrorCode))
				}
			}
		})
	return failed
}

func (m *franzMember) Close() error { m.cl.Close(); return nil }
