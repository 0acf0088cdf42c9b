package broker

import (
	"context"
	"slices"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
)

// A consumer that follows the tail while every group moves between two logs is offered every record once, in order, and
// comes to the end: its fetch session hears of each new generation. (A part that watched the queue of the generation
// before was once starved for ever.)
func TestConsumeAcrossMoves(t *testing.T) {
	c := startCluster(t, 2, Config{Static: map[string]string{"num.partitions": "24"}})
	load := startLoad(t, c, "followed", 24)
	until(t, "the topic is there", func() bool { return c.b.topic("followed") != nil })
	cl := c.client(kgo.ConsumeTopics("followed"), kgo.FetchMaxWait(time.Second))
	var mu sync.Mutex
	next := make([]int, 24)
	done := make(chan struct{})
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	go func() {
		defer close(done)
		for ctx.Err() == nil {
			fetches := cl.PollFetches(ctx)
			mu.Lock()
			fetches.EachRecord(func(r *kgo.Record) {
				if want := next[r.Partition]; r.Offset != int64(want) || string(r.Value) != strconv.Itoa(want) {
					t.Errorf("partition %d: got offset %d, value %s; want both %d", r.Partition, r.Offset, r.Value, want)
					cancel()
				}
				next[r.Partition]++
			})
			mu.Unlock()
		}
	}()
	for round := range 4 {
		to := c.logs[round%2].Recovered().ID
		for g := range c.b.store.Map().Groups() {
			if g.Current().Log == to {
				continue
			}
			if v := c.b.moveGroup(t.Context(), g.ID, to); v.Error != "" {
				t.Fatalf("move %d: %s", g.ID, v.Error)
			}
		}
	}
	load.end(t)
	until(t, "the consumer is at the end", func() bool {
		mu.Lock()
		defer mu.Unlock()
		return ctx.Err() != nil || slices.Equal(next, load.sent)
	})
	cancel()
	<-done
	if !slices.Equal(next, load.sent) {
		t.Errorf("consumed to %v, want %v", next, load.sent)
	}
}
