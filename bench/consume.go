package bench

import (
	"context"
	"encoding/binary"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"
)

// ConsumeLoad reads topics from their starts, or from some offset of each partition on: catch-up when the
// data is there, tail when a producer runs beside it.
type ConsumeLoad struct {
	Topics       Topics
	From         []int64 // by the running number of the partition; nil: from the starts
	Conns        int
	PerRequest   int // partitions in one fetch
	PartitionMax int32
	RequestMax   int32
	// Bytes ends the run when that many bytes of batches were read; Time ends it in any case.
	Bytes int64
	Time  time.Duration
}

// Consumed is what came of a ConsumeLoad.
type Consumed struct {
	Bytes   int64         `json:"bytes"`
	Elapsed time.Duration `json:"elapsedNanos"`
}

// MBps is megabytes (10^6) of batches per second.
func (c Consumed) MBps() float64 { return float64(c.Bytes) / 1e6 / c.Elapsed.Seconds() }

const fetchVersion = 12

// Consume runs a load against addr. Every partition is read by exactly one connection, in order;
// batches out of order end the run with an error.
func Consume(ctx context.Context, addr string, load ConsumeLoad) (Consumed, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var total atomic.Int64
	var wg sync.WaitGroup
	start := time.Now()
	deadline := start.Add(load.Time)
	for i := range load.Conns {
		wg.Go(func() {
			if err := consumeOn(ctx, addr, load, i, deadline, &total); err != nil {
				cancel(fmt.Errorf("consume: %w", err))
			}
		})
	}
	wg.Wait()
	if err := context.Cause(ctx); err != nil {
		return Consumed{}, err
	}
	return Consumed{Bytes: total.Load(), Elapsed: time.Since(start)}, nil
}

// fetchPosition is a partition and what is wanted of it next.
type fetchPosition struct {
	topic     string
	partition int32
	next      int64
}

func consumeOn(ctx context.Context, addr string, load ConsumeLoad, index int, deadline time.Time, total *atomic.Int64) error {
	var mine []fetchPosition
	for i := index; i < load.Topics.total(); i += load.Conns {
		name, p := load.Topics.at(i)
		mine = append(mine, fetchPosition{topic: name, partition: p})
		if load.From != nil {
			mine[len(mine)-1].next = load.From[i]
		}
	}
	if len(mine) == 0 {
		return nil
	}
	c, err := dial(ctx, addr)
	if err != nil {
		return err
	}
	defer c.Close()
	stop := context.AfterFunc(ctx, func() { c.Close() })
	defer stop()
	f := kmsg.NewRequestFormatter(kmsg.FormatterClientID(clientID))
	var out []byte
	for at := 0; ; {
		n := min(load.PerRequest, len(mine))
		window := make([]*fetchPosition, n)
		for i := range window {
			window[i] = &mine[(at+i)%len(mine)]
		}
		at = (at + n) % len(mine)
		out = f.AppendRequest(out[:0], fetchRequest(load, window), int32(at))
		if _, err := c.Write(out); err != nil {
			return err
		}
		_, body, err := c.receive()
		if err != nil {
			return err
		}
		got, err := advance(body, window)
		if err != nil {
			return err
		}
		if sum := total.Add(got); load.Bytes > 0 && sum >= load.Bytes || time.Now().After(deadline) {
			return nil
		}
	}
}

// endOffsets are where the partitions end now, by running number.
func endOffsets(ctx context.Context, addr string, t Topics) ([]int64, error) {
	c, err := dial(ctx, addr)
	if err != nil {
		return nil, err
	}
	defer c.Close()
	stop := context.AfterFunc(ctx, func() { c.Close() })
	defer stop()
	out := make([]int64, t.total())
	for first := 0; first < len(out); first += t.Partitions {
		rq := kmsg.NewPtrListOffsetsRequest()
		rq.Version = 7
		rt := kmsg.NewListOffsetsRequestTopic()
		rt.Topic, _ = t.at(first)
		for i := range t.Partitions {
			rp := kmsg.NewListOffsetsRequestTopicPartition()
			rp.Partition, rp.Timestamp = int32(i), -1
			rt.Partitions = append(rt.Partitions, rp)
		}
		rq.Topics = append(rq.Topics, rt)
		rs, err := c.request(rq)
		if err != nil {
			return nil, fmt.Errorf("end offsets of %s: %w", rt.Topic, err)
		}
		for _, p := range rs.(*kmsg.ListOffsetsResponse).Topics[0].Partitions {
			if p.ErrorCode != 0 {
				return nil, fmt.Errorf("end offset of %s-%d: code %d", rt.Topic, p.Partition, p.ErrorCode)
			}
			out[first+int(p.Partition)] = p.Offset
		}
	}
	return out, nil
}

func fetchRequest(load ConsumeLoad, window []*fetchPosition) *kmsg.FetchRequest {
	rq := kmsg.NewPtrFetchRequest()
	rq.Version = fetchVersion
	rq.MaxWaitMillis, rq.MinBytes, rq.MaxBytes = 100, 1, load.RequestMax
	rq.SessionEpoch = -1
	for _, p := range window {
		if k := len(rq.Topics); k == 0 || rq.Topics[k-1].Topic != p.topic {
			t := kmsg.NewFetchRequestTopic()
			t.Topic = p.topic
			rq.Topics = append(rq.Topics, t)
		}
		rp := kmsg.NewFetchRequestTopicPartition()
		rp.Partition, rp.FetchOffset, rp.PartitionMaxBytes = p.partition, p.next, load.PartitionMax
		t := &rq.Topics[len(rq.Topics)-1]
		t.Partitions = append(t.Partitions, rp)
	}
	return rq
}

// advance takes a response: it moves the positions on and returns the bytes of whole batches.
func advance(body []byte, window []*fetchPosition) (int64, error) {
	rs := kmsg.NewPtrFetchResponse()
	rs.Version = fetchVersion
	if err := rs.UnsafeReadFrom(body[1:]); err != nil {
		return 0, err
	}
	if rs.ErrorCode != 0 {
		return 0, fmt.Errorf("fetch: code %d", rs.ErrorCode)
	}
	var sum int64
	for _, t := range rs.Topics {
		for i := range t.Partitions {
			p := &t.Partitions[i]
			if p.ErrorCode != 0 {
				return 0, fmt.Errorf("fetch %s-%d: code %d", t.Topic, p.Partition, p.ErrorCode)
			}
			var pos *fetchPosition
			for _, w := range window {
				if w.partition == p.Partition && w.topic == t.Topic {
					pos = w
				}
			}
			if pos == nil {
				return 0, fmt.Errorf("fetch %s-%d: not asked for", t.Topic, p.Partition)
			}
			n, err := pos.take(p.RecordBatches)
			if err != nil {
				return 0, err
			}
			sum += n
		}
	}
	return sum, nil
}

// take walks batches and moves the position behind the last whole one.
func (p *fetchPosition) take(b []byte) (int64, error) {
	var sum int64
	for len(b) >= 27 {
		size := int(binary.BigEndian.Uint32(b[8:])) + 12
		if size > len(b) {
			break // a part of a batch, as old brokers send
		}
		base := int64(binary.BigEndian.Uint64(b))
		last := base + int64(binary.BigEndian.Uint32(b[23:]))
		if last < p.next {
			return 0, fmt.Errorf("fetch %s-%d: batch %d..%d came after %d", p.topic, p.partition, base, last, p.next)
		}
		if base > p.next {
			return 0, fmt.Errorf("fetch %s-%d: gap: batch %d..%d came at %d", p.topic, p.partition, base, last, p.next)
		}
		p.next = last + 1
		sum += int64(size)
		b = b[size:]
	}
	return sum, nil
}
