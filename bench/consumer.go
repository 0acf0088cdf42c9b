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
// measures for how long the consumer was given nothing of some partition.
func (b *faultBench) consumers(ctx context.Context) error {
	w := &watcher{parts: b.topics.total(), topics: b.topics, next: make([]int64, b.topics.total()), seen: make([]time.Time, b.topics.total()), gap: make([]time.Duration, b.topics.total())}
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
	w.take()
	time.Sleep(2 * time.Second)
	b.out.Base = w.take().Seconds()
	last := 0
	for range b.kills {
		id := b.busiest(ctx, last)
		last = id
		w.take()
		if err := errors.Join(b.fleet.Signal(id, syscall.SIGKILL), b.fleet.Await(id)); err != nil {
			return err
		}
		limit := diskPatience
		if b.out.Target == "kafka" { // whose replicas have everything
			limit = patience
		}
		left := w.await(ctx, time.Now(), limit)
		took := w.take().Seconds()
		b.out.Samples = append(b.out.Samples, took)
		b.out.Behind += left
		fmt.Fprintf(b.log, "    broker %d: %.3f s, %d partitions wait for its disk\n", id, took, left)
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
	next          []int64     // by partition: the number that is to come; 0 before the first
	seen          []time.Time // when something came last
	gap           []time.Duration
	gaps, doubles int
	failed        int
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
				if err != nil {
					w.mu.Lock()
					w.failed++
					w.mu.Unlock()
				}
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
	if !w.seen[i].IsZero() {
		w.gap[i] = max(w.gap[i], now.Sub(w.seen[i]))
	}
	w.seen[i] = now
}

// take is the longest pause of any partition since the last call.
func (w *watcher) take() (worst time.Duration) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for i := range w.gap {
		worst = max(worst, w.gap[i])
		w.gap[i] = 0
	}
	return worst
}

// diskPatience is after how long a consumer that gets nothing of a partition is one that was behind when the broker died: the last
// records that it had not been given are on that broker's disk only.
const diskPatience = 5 * time.Second

// await waits until something has come of every partition after the moment, and returns of how many nothing came.
func (w *watcher) await(ctx context.Context, since time.Time, limit time.Duration) (left int) {
	for end := time.Now().Add(limit); ; time.Sleep(5 * time.Millisecond) {
		w.mu.Lock()
		left = 0
		for _, at := range w.seen {
			if at.Before(since) {
				left++
			}
		}
		w.mu.Unlock()
		if left == 0 || ctx.Err() != nil || time.Now().After(end) {
			return left
		}
	}
}
