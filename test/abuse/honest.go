package abuse

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
)

// honest is a client that behaves: it writes a record at a time, reads what it wrote, and keeps how long each took
// from its sending until it was read.
type honest struct {
	topic  string
	cl     *kgo.Client
	cancel context.CancelFunc
	wg     sync.WaitGroup

	mu    sync.Mutex
	took  []time.Duration
	since time.Time // of the record that is under way
	err   error
}

func newHonest(addr, topic string) (*honest, error) {
	cl, err := kgo.NewClient(kgo.SeedBrokers(addr), kgo.DefaultProduceTopic(topic), kgo.ConsumeTopics(topic),
		kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()), kgo.AllowAutoTopicCreation(), kgo.ProducerLinger(0))
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancel(context.Background())
	h := &honest{topic: topic, cl: cl, cancel: cancel}
	h.wg.Go(func() { h.run(ctx) })
	return h, nil
}

func (h *honest) run(ctx context.Context) {
	beat := time.NewTicker(10 * time.Millisecond)
	defer beat.Stop()
	for n := 0; ctx.Err() == nil; n++ {
		begin := time.Now()
		h.note(func() { h.since = begin })
		r := h.cl.ProduceSync(ctx, &kgo.Record{Value: fmt.Appendf(nil, "honest %d", n)})[0]
		for read := false; r.Err == nil && !read && ctx.Err() == nil; {
			h.cl.PollFetches(ctx).EachRecord(func(got *kgo.Record) {
				read = read || got.Offset == r.Record.Offset && got.Partition == r.Record.Partition
			})
		}
		if ctx.Err() != nil {
			return
		}
		h.note(func() {
			h.took, h.since = append(h.took, time.Since(begin)), time.Time{}
			if r.Err != nil && h.err == nil {
				h.err = r.Err
			}
		})
		<-beat.C
	}
}

func (h *honest) note(f func()) {
	h.mu.Lock()
	defer h.mu.Unlock()
	f()
}

// served returns how it was served since the last call: median and worst, with what is still under way.
func (h *honest) served() (n int, median, worst time.Duration, err error) {
	h.note(func() {
		took := h.took
		if !h.since.IsZero() {
			took = append(took, time.Since(h.since))
		}
		slices.Sort(took)
		if n = len(took); n > 0 {
			median, worst = took[n/2], took[n-1]
		}
		err = h.err
		h.took, h.err = nil, nil
	})
	return n, median, worst, err
}

func (h *honest) close() {
	h.cancel()
	h.cl.Close()
	h.wg.Wait()
}
