package main

import (
	"context"
	"encoding/binary"
	"fmt"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/skeinmq/skein/test/conformance/record"
)

// batch is the header of one record batch as it stands in the log.
type batch struct {
	first    int64
	records  int32
	codec    string
	producer int64
	sequence int32
}

// batches reads partition 0 from its start, undecoded, until it has the headers
// of that many records.
func (s *stage) batches(ctx context.Context, topic string, records int64) ([]batch, error) {
	meta, err := s.adm.ListTopics(ctx, topic)
	if err != nil {
		return nil, fmt.Errorf("find leader: %w", err)
	}
	detail := meta[topic]
	leader := detail.Partitions[0].Leader
	var out []batch
	next := int64(0)
	for next < records {
		raw, err := s.fetch(ctx, leader, topic, detail.ID, next)
		if err != nil {
			return nil, fmt.Errorf("fetch batches from %d: %w", next, err)
		}
		found := splitBatches(raw)
		if len(found) == 0 {
			return nil, fmt.Errorf("fetch batches from %d: %d bytes without a whole batch", next, len(raw))
		}
		for _, b := range found {
			if b.first != next {
				return nil, fmt.Errorf("fetch batches: batch at %d, want %d", b.first, next)
			}
			next = b.first + int64(b.records)
			out = append(out, b)
		}
	}
	if next != records {
		return nil, fmt.Errorf("fetch batches: log has %d records, want %d", next, records)
	}
	return out, nil
}

func (s *stage) fetch(ctx context.Context, leader int32, topic string, id [16]byte, from int64) ([]byte, error) {
	part := kmsg.NewFetchRequestTopicPartition()
	part.FetchOffset, part.PartitionMaxBytes, part.CurrentLeaderEpoch = from, 1<<20, -1
	t := kmsg.NewFetchRequestTopic()
	t.Topic, t.TopicID, t.Partitions = topic, id, []kmsg.FetchRequestTopicPartition{part}
	req := kmsg.NewPtrFetchRequest()
	req.MaxWaitMillis, req.MinBytes, req.MaxBytes, req.Topics = 500, 1, 1<<20, []kmsg.FetchRequestTopic{t}
	resp, err := s.cl.Broker(int(leader)).Request(ctx, req)
	if err != nil {
		return nil, err
	}
	f := resp.(*kmsg.FetchResponse)
	if err := kerr.ErrorForCode(f.ErrorCode); err != nil {
		return nil, err
	}
	if len(f.Topics) != 1 || len(f.Topics[0].Partitions) != 1 {
		return nil, fmt.Errorf("answer for %d topics", len(f.Topics))
	}
	p := f.Topics[0].Partitions[0]
	return p.RecordBatches, kerr.ErrorForCode(p.ErrorCode)
}

// splitBatches reads the headers of the whole v2 batches at the front of raw.
func splitBatches(raw []byte) []batch {
	const lengthEnd, headerSize = 12, 61
	var out []batch
	for len(raw) >= headerSize {
		size := int64(int32(binary.BigEndian.Uint32(raw[8:]))) + lengthEnd
		if size < headerSize || size > int64(len(raw)) {
			break
		}
		out = append(out, batch{
			first:    int64(binary.BigEndian.Uint64(raw)),
			records:  int32(binary.BigEndian.Uint32(raw[57:])),
			codec:    codecName(binary.BigEndian.Uint16(raw[21:]) & 7),
			producer: int64(binary.BigEndian.Uint64(raw[43:])),
			sequence: int32(binary.BigEndian.Uint32(raw[53:])),
		})
		raw = raw[size:]
	}
	return out
}

func codecName(n uint16) string {
	if int(n) < len(codecs) {
		return codecs[n] // none 0, gzip 1, snappy 2, lz4 3, zstd 4
	}
	return fmt.Sprintf("number %d", n)
}

// read consumes n records of partition 0 from its start.
func (s *stage) read(ctx context.Context, topic string, n int) ([]record.Record, error) {
	cl, err := kgo.NewClient(kgo.SeedBrokers(s.addr), kgo.FetchMaxWait(500*time.Millisecond),
		kgo.ConsumePartitions(map[string]map[int32]kgo.Offset{topic: {0: kgo.NewOffset().AtStart()}}))
	if err != nil {
		return nil, err
	}
	defer cl.Close()
	var out []record.Record
	for len(out) < n {
		fetches := cl.PollFetches(ctx)
		if err := fetches.Err(); err != nil {
			return nil, fmt.Errorf("read with franz-go: %w", err)
		}
		fetches.EachRecord(func(k *kgo.Record) {
			r := record.Record{Partition: k.Partition, Offset: k.Offset, Timestamp: k.Timestamp.UnixMilli(), Key: k.Key, Value: k.Value}
			for _, h := range k.Headers {
				r.Headers = append(r.Headers, record.Header{Key: h.Key, Value: h.Value})
			}
			out = append(out, r)
		})
	}
	return out, nil
}
