package broker

import (
	"bytes"
	"context"
	"errors"
	"strconv"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/skeinmq/skein/internal/ident"
	"github.com/skeinmq/skein/protocol/record"
	"github.com/skeinmq/skein/queuemapper"
)

// moveAcross moves a group to the first log of another broker (O18), as its owner and the target do together, and returns when all
// that live know.
func moveAcross(t *testing.T, from, to *cluster, group ident.Group) {
	t.Helper()
	if v := from.b.moveGroup(t.Context(), group, to.logOf(0)); v.Error != "" {
		t.Fatal(v.Error)
	}
	revision := from.b.store.Map().Group(group).Revision
	for _, c := range from.all {
		if c.lives() {
			c.await(func(m *queuemapper.Map) bool { return m.Group(group).Revision >= revision })
		}
	}
}

// lives reports whether the broker was neither stopped nor has ended.
func (c *cluster) lives() bool {
	select {
	case <-c.ended:
		return false
	default:
		return c.stop != nil
	}
}

// catchUp lets the broker know all that is in the map by now, whoever wrote it.
func (c *cluster) catchUp() {
	c.t.Helper()
	if err := c.b.store.Refresh(c.t.Context()); err != nil {
		c.t.Fatalf("broker %d: %v", c.id, err)
	}
	c.await(func(*queuemapper.Map) bool { return true })
}

// await waits until ok holds of the broker's map, and its table follows it.
func (c *cluster) await(ok func(m *queuemapper.Map) bool) {
	c.t.Helper()
	ctx, cancel := context.WithTimeoutCause(c.t.Context(), enough, errors.New("the map never came to what the test waits for"))
	defer cancel()
	if err := c.b.awaitTable(ctx, ok); err != nil {
		c.t.Fatalf("broker %d: %v", c.id, err)
	}
}

// moveTopic moves all groups that a topic's partitions live in.
func moveTopic(t *testing.T, from, to *cluster, topic string) {
	t.Helper()
	from.catchUp() // whoever made the topic, and moved it here
	m := from.b.store.Map()
	done := map[ident.Group]bool{}
	for _, stays := range m.Topic(topic).Partitions {
		if g := stays[len(stays)-1].Group; !done[g] && from.b.host.OpenIn(m.Group(g)) != nil {
			done[g] = true
			moveAcross(t, from, to, g)
		}
	}
}

// TestRemoteRuns moves partitions between two brokers and reads them from the start at their owner, whose log has the
// end only: the same records, the same bytes, the same answers to searches by time.
func TestRemoteRuns(t *testing.T) {
	const partitions = 4
	cs := startBrokers(t, 2, 1, Config{Static: map[string]string{"num.partitions": strconv.Itoa(partitions)}})
	a, b := cs[0], cs[1]
	h := newHistory("t", partitions)
	h.produce(t, a, 60)
	whole := fetchAll(t, a, "t", 0)
	asked := []int64{-2, -3, time.Now().Add(-time.Hour).UnixMilli(), time.Now().UnixMilli()}
	want := map[int64][]kmsg.ListOffsetsResponseTopicPartition{}
	for _, ts := range asked {
		want[ts] = listed(t, a.client(), "t", partitions, ts)
	}
	moveTopic(t, a, b, "t")
	if got := fetchAll(t, b, "t", 0); !bytes.Equal(got, whole) {
		t.Errorf("read through the other broker: %d bytes, want the same %d as before", len(got), len(whole))
	}
	for _, ts := range asked {
		got := listed(t, b.client(), "t", partitions, ts)
		for p := range got {
			w := want[ts][p]
			if got[p].ErrorCode != 0 || got[p].Offset != w.Offset || got[p].Timestamp != w.Timestamp || got[p].LeaderEpoch != w.LeaderEpoch {
				t.Errorf("partition %d, timestamp %d: %+v, want %+v", p, ts, got[p], w)
			}
		}
	}
	h.produce(t, b, 20)
	h.check(t, b, func(int) int { return 0 })
	moveTopic(t, b, a, "t")
	h.produce(t, a, 20)
	h.check(t, a, func(int) int { return 0 })
	h.check(t, a, func(int) int { return 70 })
}

// TestRemoteRunsAway takes the broker away that has the older run: readers wait there, with the true high watermark,
// everything else goes on, and when it is back they read on.
func TestRemoteRunsAway(t *testing.T) {
	cs := startBrokers(t, 2, 1, Config{Static: map[string]string{"num.partitions": "1"}})
	a, b := cs[0], cs[1]
	h := newHistory("t", 1)
	h.produce(t, a, 50)
	moveTopic(t, a, b, "t")
	h.produce(t, b, 10)
	addr := a.addr
	if err := a.stop(); err != nil {
		t.Fatal(err)
	}
	cl := b.client()
	began := time.Now()
	got := fetched(t, cl, b, "t", 0, 10)
	if got.ErrorCode != 0 || got.HighWatermark != 60 || len(got.RecordBatches) > 0 {
		t.Errorf("fetch of what is away: code %d, high watermark %d, %d bytes; want none, 60, none", got.ErrorCode, got.HighWatermark, len(got.RecordBatches))
	}
	if took := time.Since(began); took < 50*time.Millisecond || took > 15*time.Second { // a connection is waited for longer
		t.Errorf("answered after %v, want max.wait", took)
	}
	if got := fetched(t, cl, b, "t", 0, 50); got.ErrorCode != 0 || len(got.RecordBatches) == 0 {
		t.Errorf("fetch of what is here: code %d, %d bytes", got.ErrorCode, len(got.RecordBatches))
	}
	for ts, want := range map[int64]int64{-2: 0, -1: 60} {
		if got := listed(t, cl, "t", 1, ts)[0]; got.ErrorCode != 0 || got.Offset != want {
			t.Errorf("timestamp %d: code %d, offset %d; want %d", ts, got.ErrorCode, got.Offset, want)
		}
	}
	h.produce(t, b, 5)
	h.check(t, b, func(int) int { return 50 })
	a.startAt(addr)
	h.check(t, b, func(int) int { return 0 })
}

// fetchAll reads a partition from the start to the high watermark, a kilobyte at a time, and returns its bytes.
func fetchAll(t *testing.T, c *cluster, topic string, p int32) []byte {
	t.Helper()
	w := c.dial()
	var all []byte
	patience := time.Now().Add(enough)
	for offset := int64(0); ; {
		req := fetchRequest(12, c.b.topic(topic), offset)
		req.Topics[0].Partitions[0].Partition, req.Topics[0].Partitions[0].PartitionMaxBytes = p, 1024
		got := w.ask(req).(*kmsg.FetchResponse).Topics[0].Partitions[0]
		if got.ErrorCode != 0 {
			t.Fatalf("fetch at %d: code %d", offset, got.ErrorCode)
		}
		if offset == got.HighWatermark {
			return all
		}
		if len(got.RecordBatches) == 0 && time.Now().Before(patience) {
			continue // the other broker did not answer in time: clients ask again
		}
		if len(got.RecordBatches) == 0 {
			t.Fatalf("fetch at %d: nothing, below the high watermark %d", offset, got.HighWatermark)
		}
		for left := got.RecordBatches; len(left) > 0; {
			h, err := record.ParseHeader(left)
			if err != nil {
				t.Fatal(err)
			}
			offset = h.LastOffset() + 1
			all = append(all, left[:h.Size()]...)
			left = left[h.Size():]
		}
	}
}
