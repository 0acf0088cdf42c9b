package bench

import (
	"context"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
)

// ProduceWithClient runs a load with a real client, franz-go, as its users have it: idempotent, acks=all, records one by
// one. It builds and checksums the batches that Produce sends ready-made, so that the difference of the two is the
// client's. Conns is how many clients there are, and InFlight and Parts
// bound what each may hold. Acks, Routes and Once are the client's to decide.
func ProduceWithClient(ctx context.Context, addr string, load ProduceLoad) (Produced, error) {
	r := &produceRun{load: load, hist: newHistogram()}
	record := int64(len(encodeBatch(load.Records, load.RecordBytes, time.Now())) / load.Records)
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	r.from = time.Now().Add(load.Warm)
	r.to = r.from.Add(load.Time)
	var wg sync.WaitGroup
	for i := range load.Conns {
		cl, err := kgo.NewClient(kgo.SeedBrokers(addr), kgo.ClientID(clientID), kgo.RecordPartitioner(kgo.ManualPartitioner()),
			kgo.ProducerBatchCompression(kgo.NoCompression()), kgo.ProducerBatchMaxBytes(int32(record)*int32(load.Records)+1024),
			kgo.MaxBufferedRecords(max(2*load.InFlight*load.Parts*load.Records, 1000)))
		if err != nil {
			return Produced{}, fmt.Errorf("produce: %w", err)
		}
		defer cl.Close()
		wg.Go(func() {
			r.clientDrive(ctx, cl, i, record, cancel)
			if err := cl.Flush(ctx); err != nil {
				cancel(err)
			}
		})
	}
	wg.Wait()
	if err := context.Cause(ctx); err != nil {
		return Produced{}, fmt.Errorf("produce: %w", err)
	}
	elapsed := max(time.Duration(r.last.Load()), load.Time)
	return Produced{Bytes: r.bytes.Load(), AllBytes: r.all.Load(), Requests: r.requests.Load(), Elapsed: elapsed, Latency: latencyOf(r.hist)}, nil
}

// clientDrive hands records to one client until the time is up: a batch's worth to one partition, then to the next one.
// Latency is that of the last record of each.
func (r *produceRun) clientDrive(ctx context.Context, cl *kgo.Client, index int, record int64, fail func(error)) {
	values := clientValues(r.load.RecordBytes)
	chunk := record * int64(r.load.Records)
	interval := r.interval(int(chunk))
	due := time.Now().Add(time.Duration(index) * interval / time.Duration(r.load.Conns))
	for n := index; ctx.Err() == nil; n += r.load.Conns {
		if r.load.Rate > 0 {
			if wait := time.Until(due); wait > 0 {
				time.Sleep(wait)
			}
		} else {
			due = time.Now()
		}
		if due.After(r.to) {
			return
		}
		topic, partition := r.load.Topics.at(n % r.load.Topics.total())
		called := due
		for i := range r.load.Records {
			rec := &kgo.Record{Topic: topic, Partition: partition, Value: values[(n+i)%len(values)]}
			if i < r.load.Records-1 {
				cl.Produce(ctx, rec, nil)
				continue
			}
			cl.Produce(ctx, rec, func(_ *kgo.Record, err error) {
				if err != nil {
					fail(err)
					return
				}
				r.clientAcked(called, chunk)
			})
		}
		due = due.Add(interval)
	}
}

// clientAcked counts a batch's worth of records, of which the last is acknowledged. The client keeps their order.
func (r *produceRun) clientAcked(called time.Time, bytes int64) {
	now := time.Now()
	r.all.Add(bytes)
	if called.Before(r.from) {
		return
	}
	r.bytes.Add(bytes)
	r.requests.Add(1)
	r.mu.Lock()
	defer r.mu.Unlock()
	r.last.Store(max(r.last.Load(), int64(now.Sub(r.from))))
	_ = r.hist.RecordValue(max(now.Sub(called).Microseconds(), 1))
}

// clientValues are values that do not compress; making one for each record would cost more than sending it.
func clientValues(size int) [][]byte {
	rng := rand.NewChaCha8([32]byte{1})
	values := make([][]byte, 61)
	for i := range values {
		values[i] = make([]byte, size)
		rng.Read(values[i])
	}
	return values
}

// ConsumeWithClient runs a load with a real client, franz-go, which decodes every record. Conns is how many clients there
// are; PerRequest is the client's to decide. Bytes are those of keys and values: a client is told of nothing else.
func ConsumeWithClient(ctx context.Context, addr string, load ConsumeLoad) (Consumed, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	timed, stop := context.WithTimeout(ctx, load.Time)
	defer stop()
	var total atomic.Int64
	var wg sync.WaitGroup
	start := time.Now()
	for i := range load.Conns {
		mine := map[string]map[int32]kgo.Offset{}
		for n := i; n < load.Topics.total(); n += load.Conns {
			topic, partition := load.Topics.at(n)
			if mine[topic] == nil {
				mine[topic] = map[int32]kgo.Offset{}
			}
			mine[topic][partition] = kgo.NewOffset().AtStart()
		}
		if len(mine) == 0 {
			continue
		}
		cl, err := kgo.NewClient(kgo.SeedBrokers(addr), kgo.ClientID(clientID), kgo.ConsumePartitions(mine),
			kgo.FetchMaxBytes(load.RequestMax), kgo.FetchMaxPartitionBytes(load.PartitionMax), kgo.FetchMaxWait(100*time.Millisecond))
		if err != nil {
			return Consumed{}, fmt.Errorf("consume: %w", err)
		}
		defer cl.Close()
		wg.Go(func() {
			if err := clientPoll(timed, cl, load.Bytes, &total); err != nil && timed.Err() == nil {
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

func clientPoll(ctx context.Context, cl *kgo.Client, enough int64, total *atomic.Int64) error {
	for ctx.Err() == nil {
		fetches := cl.PollFetches(ctx)
		if err := fetches.Err(); err != nil {
			return err
		}
		var sum int64
		fetches.EachRecord(func(r *kgo.Record) { sum += int64(len(r.Key) + len(r.Value)) })
		if all := total.Add(sum); enough > 0 && all >= enough {
			return nil
		}
	}
	return nil
}
