package cluster

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
)

// TestRoomComesBack fills the disk of one of three brokers with records, and gets room by what an operator does then: records
// are deleted, and, the second time, retention is shortened. Each time the broker says that there is room again, and everything is
// written. Every file that is freed had been wound with nothing that lives.
func TestRoomComesBack(t *testing.T) {
	thorough(t)
	const full = 3
	c, _ := onSmallDisks(t, "--set", "log.retention.check.interval.ms=1000")
	l := newLedger(t, c)
	l.write()
	l.owning(1, 2, 3)
	b := newBulk(t, c, full)
	for _, way := range []struct {
		what string
		room func() error
	}{
		{"records are deleted", b.deleteRecords},
		{"retention is shortened", b.shorten},
	} {
		b.fillUntil(func() bool { return b.isFull(full) })
		t.Logf("after %d MiB the disk of broker %d is nearly full", b.written.Load()>>20, full)
		l.write()
		begun := time.Now()
		if err := way.room(); err != nil {
			t.Fatal(err)
		}
		for end := begun.Add(settlePatience); b.isFull(full); time.Sleep(50 * time.Millisecond) {
			if time.Now().After(end) {
				l.fatalf("%s, and there is no room", way.what)
			}
		}
		t.Logf("%s: there is room %v later", way.what, time.Since(begun).Round(time.Millisecond))
		l.owning(1, 2, full)
		t.Logf("broker %d has its share %v later", full, time.Since(begun).Round(time.Millisecond))
		l.write()
	}
	l.check()
}

// bulk is a topic that lies on one broker, with as many bytes as are needed.
type bulk struct {
	t       *testing.T
	c       *Skein
	client  *kgo.Client
	written atomic.Int64
}

const (
	bulkTopic      = "bulk"
	bulkPartitions = 4
)

func newBulk(t *testing.T, c *Skein, on int) *bulk {
	t.Helper()
	b := &bulk{t: t, c: c}
	var err error
	b.client, err = kgo.NewClient(kgo.SeedBrokers(c.Seeds()...), kgo.DefaultProduceTopic(bulkTopic), kgo.RecordPartitioner(kgo.RoundRobinPartitioner()),
		kgo.ProducerBatchMaxBytes(1000<<10), kgo.MaxBufferedBytes(32<<20), kgo.ProducerBatchCompression(kgo.NoCompression()), kgo.RecordDeliveryTimeout(settlePatience))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(b.client.Close)
	ctx, cancel := context.WithTimeout(t.Context(), settlePatience)
	defer cancel()
	adm := kadm.NewClient(b.client)
	if err := createTopic(ctx, b.client, bulkPartitions, -1, bulkTopic); err != nil {
		t.Fatalf("create topic: %v\n%s", err, c.Logs())
	}
	var there kadm.AlterPartitionAssignmentsReq
	for p := range int32(bulkPartitions) {
		there.Assign(bulkTopic, p, []int32{int32(on)}) // and pin it
	}
	rs, err := adm.AlterPartitionAssignments(ctx, there)
	if err := errors.Join(err, rs.Error()); err != nil {
		t.Fatalf("reassign: %v\n%s", err, c.Logs())
	}
	return b
}

// fillUntil writes until something is so. What is refused meanwhile for want of room is retried by the client, and given up
// in the end.
func (b *bulk) fillUntil(done func() bool) {
	b.t.Helper()
	ctx, cancel := context.WithTimeout(b.t.Context(), 3*time.Minute)
	defer cancel()
	var writing sync.WaitGroup
	defer writing.Wait()
	writing.Go(func() {
		value := bytes.Repeat([]byte("bulk"), 64<<8)
		for ctx.Err() == nil { // Produce waits for room in the client
			b.client.Produce(ctx, &kgo.Record{Value: value}, func(r *kgo.Record, err error) {
				if err == nil {
					b.written.Add(int64(len(r.Value)))
				}
			})
		}
	})
	for !done() {
		time.Sleep(200 * time.Millisecond)
		if ctx.Err() != nil {
			b.t.Fatalf("broker is not full after %d MiB\n%s", b.written.Load()>>20, b.c.Logs())
		}
	}
	cancel()
}

// isFull is what the cluster says of a broker's disk.
func (b *bulk) isFull(id int) bool {
	b.t.Helper()
	var list []struct {
		ID   int  `json:"id"`
		Full bool `json:"full"`
	}
	out, err := b.c.quietly(1, "broker", "list", "--json")
	if err := errors.Join(err, json.Unmarshal([]byte(out), &list)); err != nil {
		b.t.Fatalf("%v: %s", err, out)
	}
	for _, br := range list {
		if br.ID == id {
			return br.Full
		}
	}
	return false
}

func (b *bulk) deleteRecords() error {
	adm := kadm.NewClient(b.client)
	ends, err := adm.ListEndOffsets(b.t.Context(), bulkTopic)
	if err != nil {
		return err
	}
	rs, err := adm.DeleteRecords(b.t.Context(), ends.Offsets())
	return errors.Join(err, rs.Error())
}

func (b *bulk) shorten() error {
	return setConfig(b.t.Context(), kadm.NewClient(b.client), bulkTopic, "retention.ms", "1000")
}
