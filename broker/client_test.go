package broker

import (
	"context"
	"fmt"
	"testing"

	"github.com/twmb/franz-go/pkg/kgo"
)

// consume reads n records of a topic from the start.
func consume(t *testing.T, cl *kgo.Client, n int) []*kgo.Record {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), enough)
	defer cancel()
	var got []*kgo.Record
	for len(got) < n {
		fetches := cl.PollFetches(ctx)
		if err := fetches.Err(); err != nil {
			t.Fatalf("after %d of %d records: %v", len(got), n, err)
		}
		got = append(got, fetches.Records()...)
	}
	return got
}

func TestProduceConsumeRestart(t *testing.T) {
	c := startCluster(t, 2, Config{Static: map[string]string{"num.partitions": "4"}})
	p := c.client()
	const n = 2000
	want := make(map[string]string)
	for round := range 2 {
		for i := range n {
			key, value := fmt.Sprintf("k%d-%d", round, i), fmt.Sprintf("v%d", i)
			want[key] = value
			p.Produce(t.Context(), &kgo.Record{Topic: "orders", Key: []byte(key), Value: []byte(value)}, func(_ *kgo.Record, err error) {
				if err != nil {
					t.Errorf("produce: %v", err)
				}
			})
		}
		if err := p.Flush(t.Context()); err != nil {
			t.Fatal(err)
		}
		got := consume(t, c.client(kgo.ConsumeTopics("orders")), n*(round+1))
		next := make(map[int32]int64)
		for _, r := range got {
			if want[string(r.Key)] != string(r.Value) {
				t.Fatalf("record %q has value %q, want %q", r.Key, r.Value, want[string(r.Key)])
			}
			if r.Offset != next[r.Partition] {
				t.Fatalf("partition %d: offset %d, want %d", r.Partition, r.Offset, next[r.Partition])
			}
			next[r.Partition]++
		}
		if len(next) != 4 {
			t.Errorf("records in %d partitions, want 4", len(next))
		}
		if err := c.stop(); err != nil {
			t.Fatal(err)
		}
		c.start()
		p = c.client()
	}
}
