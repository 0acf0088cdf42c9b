package bench

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"syscall"
	"time"
)

// flow is a producer with a fixed rate: request n is due at n times the interval, goes to partition n modulo their number, and is
// sent again until it is acknowledged. Latency counts from when it was due, with everything that the client had to repeat.
type flow struct {
	r        *router
	batch    []byte
	parts    []int
	interval time.Duration
	limit    time.Duration // what is not acknowledged by then has failed

	mu      sync.Mutex
	worst   time.Duration
	sent    int
	failed  int
	refused int
	slow    []late
}

// late is a request and how long it took.
type late struct {
	due  time.Time
	took time.Duration
	part int
}

// maxOutstanding bounds the requests of a flow in flight: more means that the cluster is away for longer than its limit.
const maxOutstanding = 20_000

// run sends until ctx ends and waits for what is in flight.
func (f *flow) run(ctx context.Context) {
	slots := make(chan struct{}, maxOutstanding)
	var wg sync.WaitGroup
	defer wg.Wait()
	due := time.Now()
	for n := 0; ; n++ {
		due = due.Add(f.interval)
		if wait := time.Until(due); wait > 0 {
			select {
			case <-time.After(wait):
			case <-ctx.Done():
				return
			}
		}
		if ctx.Err() != nil {
			return
		}
		slots <- struct{}{}
		part := f.parts[n%len(f.parts)]
		wg.Go(func() {
			defer func() { <-slots }()
			f.one(context.WithoutCancel(ctx), part, due)
		})
	}
}

func (f *flow) one(ctx context.Context, part int, due time.Time) {
	ctx, cancel := context.WithTimeout(ctx, f.limit)
	defer cancel()
	refused, err := f.r.write(ctx, []int{part}, f.batch)
	took := time.Since(due)
	f.mu.Lock()
	defer f.mu.Unlock()
	f.sent++
	f.refused += refused
	if err != nil {
		f.failed++
	}
	f.worst = max(f.worst, took)
	f.slow = append(f.slow, late{due, took, part})
}

// take returns the worst latency since the last call.
func (f *flow) take() time.Duration {
	f.mu.Lock()
	defer f.mu.Unlock()
	w := f.worst
	f.worst = 0
	return w
}

// worstSince returns the worst latency of the requests that were due at a moment or later. The flow has ended.
func (f *flow) worstSince(moment time.Time) (worst time.Duration) {
	for _, l := range f.slow {
		if !l.due.Before(moment) {
			worst = max(worst, l.took)
		}
	}
	return worst
}

// flowRate is the requests a second of the scenarios with a flow.
const flowRate = 250

// deliveryLimit is after how long a client gives a record up: delivery.timeout.ms of Apache Kafka's producer is 120 s.
const deliveryLimit = time.Minute

func (b *faultBench) flow(parts []int) *flow {
	return &flow{r: b.r, batch: b.batch, parts: parts, interval: time.Second / flowRate, limit: deliveryLimit}
}

// underFlow runs fn while a flow goes to the listed partitions, after a second of it alone.
func (b *faultBench) underFlow(ctx context.Context, parts []int, fn func(*flow) error) error {
	f := b.flow(parts)
	ctx, stop := context.WithCancel(ctx)
	ended := make(chan struct{})
	go func() { f.run(ctx); close(ended) }()
	defer func() { stop(); <-ended; b.out.Failed += f.failed; b.out.Refused += f.refused }()
	time.Sleep(time.Second)
	f.take()
	time.Sleep(2 * time.Second)
	b.out.Base = f.take().Seconds()
	return fn(f)
}

// restarts stops brokers in order and starts them again, under a flow; a sample is the worst latency of one round.
func (b *faultBench) restarts(ctx context.Context, each int) error {
	return b.underFlow(ctx, b.r.all(), func(f *flow) error {
		last := 0
		for range b.kills {
			f.take()
			for range each {
				id := b.busiest(ctx, last)
				if each > 1 {
					id = last%len(b.fleet.IDs()) + 1
				}
				last = id
				if err := b.stopAndStart(ctx, f, id); err != nil {
					return err
				}
			}
			b.out.Samples = append(b.out.Samples, f.take().Seconds())
			fmt.Fprintf(b.log, "    %d restarts: worst %.3f s\n", each, b.out.Samples[len(b.out.Samples)-1])
		}
		return nil
	})
}

func (b *faultBench) stopAndStart(ctx context.Context, _ *flow, id int) error {
	if err := errors.Join(b.fleet.Signal(id, syscall.SIGTERM), b.fleet.Await(id)); err != nil {
		return err
	}
	time.Sleep(500 * time.Millisecond) // what it left behind shows
	if err := b.fleet.Start(ctx, id); err != nil {
		return err
	}
	b.balanced(ctx)
	time.Sleep(500 * time.Millisecond)
	return nil
}
