package bench

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"sync"
	"syscall"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
)

// consumers kills brokers under an idempotent producer and a consumer that has read everything, both real clients, and
// measures for how long the consumer was given nothing of some partition, and beside it for how long the producer had nothing
// acknowledged of some partition: the consumer's pause is judged by the write pause of the same kill. Partitions that wait for the
// disk are counted, and in neither.
func (b *faultBench) consumers(ctx context.Context) error {
	w := &watcher{parts: b.topics.total(), topics: b.topics, next: make([]int64, b.topics.total()), read: newGaps(b.topics.total()), written: newGaps(b.topics.total())}
	fast := []kgo.Opt{kgo.SeedBrokers(b.fleet.Seeds()...), kgo.ClientID(clientID), kgo.MetadataMinAge(20 * time.Millisecond),
		kgo.RetryBackoffFn(func(int) time.Duration { return 20 * time.Millisecond }), kgo.AlwaysRetryEOF()}
	producer, err := kgo.NewClient(append(fast, kgo.RecordPartitioner(kgo.ManualPartitioner()), kgo.ProducerLinger(0), kgo.UnknownTopicRetries(-1))...)
	if err != nil {
		return err
	}
	defer producer.Close()
	from := map[string]map[int32]kgo.Offset{}
	for i := range w.parts {
		name, p := b.topics.at(i)
		if from[name] == nil {
			from[name] = map[int32]kgo.Offset{}
		}
		from[name][p] = kgo.NewOffset().AtEnd()
	}
	consumer, err := kgo.NewClient(append(fast, kgo.ConsumePartitions(from), kgo.FetchMaxWait(100*time.Millisecond))...)
	if err != nil {
		return err
	}
	defer consumer.Close()
	ctx, stop := context.WithCancel(ctx)
	var wg sync.WaitGroup
	defer wg.Wait()
	defer stop()
	wg.Go(func() { w.consume(ctx, consumer) })
	time.Sleep(time.Second) // the consumer has found the ends
	wg.Go(func() { w.produce(ctx, producer) })
	time.Sleep(2 * time.Second)
	w.take(time.Time{})
	time.Sleep(2 * time.Second)
	b.out.Base, _ = w.take(time.Time{})
	last := 0
	for range b.kills {
		id := b.busiest(ctx, last)
		last = id
		w.take(time.Time{})
		if err := errors.Join(b.fleet.Signal(id, syscall.SIGKILL), b.fleet.Await(id)); err != nil {
			return err
		}
		limit := diskPatience
		if b.out.Target == "kafka" { // whose replicas have everything
			limit = patience
		}
		dead := time.Now().Add(2 * produceEvery) // what had been on its way has come by then
		left := w.await(ctx, dead, limit)
		took, writes := w.take(dead)
		b.out.Samples = append(b.out.Samples, took)
		b.out.Writes = append(b.out.Writes, writes)
		b.out.Behind += left
		fmt.Fprintf(b.log, "    broker %d: %.3f s, its writes %.3f s, %d partitions wait for its disk\n", id, took, writes, left)
		if err := b.fleet.Start(ctx, id); err != nil {
			return err
		}
		if left := w.await(ctx, time.Now(), patience); left > 0 && ctx.Err() == nil {
			return fmt.Errorf("broker %d is back: a consumer gets nothing of %d partitions", id, left)
		}
		b.balanced(ctx)
		time.Sleep(time.Second)
	}
	stop()
	wg.Wait()
	w.mu.Lock()
	defer w.mu.Unlock()
	b.out.Gaps, b.out.Doubles, b.out.Failed = w.gaps, w.doubles, w.failed
	return nil
}

// watcher numbers what it produces to each partition and looks at what comes back.
type watcher struct {
	topics Topics
	parts  int

	mu            sync.Mutex
	next          []int64 // by partition: the number that is to come; 0 before the first
	read, written gaps
	gaps, doubles int
	failed        int
}

// gaps are the longest pauses between two events of each partition.
type gaps struct {
	last []time.Time // zero before the first
	gap  []time.Duration
}

func newGaps(parts int) gaps { return gaps{make([]time.Time, parts), make([]time.Duration, parts)} }

func (g gaps) event(i int, now time.Time) {
	if !g.last[i].IsZero() {
		g.gap[i] = max(g.gap[i], now.Sub(g.last[i]))
	}
	g.last[i] = now
}

// waiting are the partitions of which there was no event from a moment on.
func (g gaps) waiting(since time.Time) (n int) {
	for _, at := range g.last {
		if at.Before(since) {
			n++
		}
	}
	return n
}

// produceEvery is the interval between two records of one partition.
const produceEvery = 10 * time.Millisecond

func (w *watcher) produce(ctx context.Context, cl *kgo.Client) {
	tick := time.NewTicker(produceEvery)
	defer tick.Stop()
	for n := int64(1); ; n++ {
		select {
		case <-tick.C:
		case <-ctx.Done():
			flush, done := context.WithTimeout(context.Background(), deliveryLimit)
			defer done()
			_ = cl.Flush(flush)
			return
		}
		for i := range w.parts {
			name, p := w.topics.at(i)
			rec := &kgo.Record{Topic: name, Partition: p, Value: binary.BigEndian.AppendUint64(nil, uint64(n))}
			cl.Produce(context.Background(), rec, func(_ *kgo.Record, err error) {
				now := time.Now()
				w.mu.Lock()
				defer w.mu.Unlock()
				if err != nil {
					w.failed++
					return
				}
				w.written.event(i, now)
			})
		}
	}
}

func (w *watcher) consume(ctx context.Context, cl *kgo.Client) {
	index := map[string]int{}
	for i := 0; i < w.parts; i += w.topics.Partitions {
		name, _ := w.topics.at(i)
		index[name] = i
	}
	for ctx.Err() == nil {
		fs := cl.PollFetches(ctx)
		now := time.Now()
		w.mu.Lock()
		fs.EachRecord(func(r *kgo.Record) {
			if len(r.Value) == 8 {
				w.saw(index[r.Topic]+int(r.Partition), int64(binary.BigEndian.Uint64(r.Value)), now)
			}
		})
		w.mu.Unlock()
	}
}

// saw notes one record; mu is held.
func (w *watcher) saw(i int, n int64, now time.Time) {
	switch {
	case w.next[i] == 0 || n == w.next[i]:
		w.next[i] = n + 1
	case n < w.next[i]:
		w.doubles++
	default:
		w.gaps += int(n - w.next[i])
		w.next[i] = n + 1
	}
	w.read.event(i, now)
}

// take are the longest pauses since the last call, in seconds, of the partitions of which something was read after a moment.
func (w *watcher) take(after time.Time) (read, written float64) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for i, at := range w.read.last {
		if !at.Before(after) {
			read, written = max(read, w.read.gap[i].Seconds()), max(written, w.written.gap[i].Seconds())
		}
	}
	clear(w.read.gap)
	clear(w.written.gap)
	return read, written
}

// diskPatience is after how long a consumer that gets nothing of a partition is one that was behind when the broker died: the last
// records that it had not been given are on that broker's disk only.
const diskPatience = 5 * time.Second

// await waits until something has come of every partition, and has been acknowledged, after the moment, and returns of how many nothing came.
func (w *watcher) await(ctx context.Context, since time.Time, limit time.Duration) (left int) {
	for end := time.Now().Add(limit); ; time.Sleep(5 * time.Millisecond) {
		w.mu.Lock()
		left = w.read.waiting(since)
		writes := w.written.waiting(since)
		w.mu.Unlock()
		if left+writes == 0 || ctx.Err() != nil || time.Now().After(end) {
			return left
		}
	}
}
