package crash

import (
	"context"
	"fmt"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/skeinmq/skein/test/process"
)

// TestAbsentDirectory kills a broker under load, takes its second directory away, kills it under load without it, and
// gives it back: every acknowledged record is at its offset then, and no offset was ever given twice.
func TestAbsentDirectory(t *testing.T) {
	const partitions = 4
	addrs, err := process.Ports(2)
	if err != nil {
		t.Fatal(err)
	}
	dirs := []string{filepath.Join(t.TempDir(), "a"), filepath.Join(t.TempDir(), "b")}
	b := process.Broker{Bin: skein(t), Data: dirs, Listen: addrs[0], HTTP: addrs[1], Args: []string{"--set", fmt.Sprintf("num.partitions=%d", partitions)}}
	acked := make([]map[int64]string, partitions)
	for p := range acked {
		acked[p] = map[int64]string{}
	}
	for i, data := range [][]string{dirs, dirs[:1], dirs, dirs[:1]} {
		b.Data = data
		p, err := b.Start(startPatience)
		if err != nil {
			t.Fatal(err)
		}
		n := loadUntilKilled(t, p, b.Listen, fmt.Sprint(i), acked)
		t.Logf("round %d: %d records acknowledged", i, n)
	}
	b.Data = dirs
	p, err := b.Start(startPatience)
	if err != nil {
		t.Fatal(err)
	}
	defer p.Kill()
	readBack(t, b.Listen, acked)
}

// loadUntilKilled produces to all partitions until the broker, killed meanwhile, is gone.
func loadUntilKilled(t *testing.T, p *process.Process, addr, round string, acked []map[int64]string) (n int) {
	t.Helper()
	cl, err := kgo.NewClient(kgo.SeedBrokers(addr), kgo.RecordPartitioner(kgo.ManualPartitioner()), kgo.AllowAutoTopicCreation(),
		kgo.UnknownTopicRetries(-1), kgo.MaxBufferedRecords(400))
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var mu sync.Mutex
	enough := make(chan struct{})
	var load sync.WaitGroup
	load.Go(func() {
		for i := 0; ctx.Err() == nil; i++ {
			part, value := i%len(acked), fmt.Sprintf("%s-%d", round, i)
			cl.Produce(ctx, &kgo.Record{Topic: "t", Partition: int32(part), Value: []byte(value)}, func(r *kgo.Record, err error) {
				mu.Lock()
				defer mu.Unlock()
				if err != nil {
					return // not acknowledged
				}
				if was, there := acked[part][r.Offset]; there {
					t.Errorf("partition %d: offset %d was given to %s and to %s", part, r.Offset, was, value)
				}
				acked[part][r.Offset] = value
				if n++; n == 20_000 {
					close(enough)
				}
			})
		}
	})
	select {
	case <-enough:
	case <-time.After(patience):
		t.Error("the load does not get on")
	}
	if err := p.Kill(); err != nil {
		t.Error(err)
	}
	cancel()
	load.Wait()
	cl.Close()
	mu.Lock()
	defer mu.Unlock()
	return n
}

// readBack reads everything and compares.
func readBack(t *testing.T, addr string, acked []map[int64]string) {
	t.Helper()
	cl, err := kgo.NewClient(kgo.SeedBrokers(addr), kgo.ConsumeTopics("t"), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()))
	if err != nil {
		t.Fatal(err)
	}
	defer cl.Close()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	left := 0
	last := make([]int64, len(acked))
	for p := range acked {
		left, last[p] = left+len(acked[p]), -1
	}
	for left > 0 {
		fs := cl.PollFetches(ctx)
		if err := fs.Err(); err != nil {
			t.Fatalf("%d acknowledged records left: %v", left, err)
		}
		fs.EachRecord(func(r *kgo.Record) {
			if r.Offset <= last[r.Partition] {
				t.Errorf("partition %d: offset %d after %d", r.Partition, r.Offset, last[r.Partition])
			}
			last[r.Partition] = r.Offset
			if want, ok := acked[r.Partition][r.Offset]; ok {
				left--
				if string(r.Value) != want {
					t.Errorf("partition %d: offset %d holds %s, acknowledged was %s", r.Partition, r.Offset, r.Value, want)
				}
			}
		})
	}
}
