package broker

import (
	"context"
	"errors"
	"strconv"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/skeinmq/skein/internal/ident"
	"github.com/skeinmq/skein/protocol/record"
	"github.com/skeinmq/skein/queuemapper"
)

// history is what was acknowledged to one topic, by partition, in order.
type history struct {
	topic string
	acked [][]ackedRecord
}

type ackedRecord struct {
	offset int64
	value  string
}

func newHistory(topic string, partitions int) *history {
	return &history{topic: topic, acked: make([][]ackedRecord, partitions)}
}

// produce writes n records to each partition.
func (h *history) produce(t *testing.T, c *cluster, n int) {
	t.Helper()
	cl := c.client(kgo.RecordPartitioner(kgo.ManualPartitioner()), kgo.ProducerLinger(0), kgo.MaxBufferedRecords(50))
	defer cl.Close()
	for i := range n {
		for p := range h.acked {
			value := strconv.Itoa(len(h.acked[p]) + i)
			cl.Produce(t.Context(), &kgo.Record{Topic: h.topic, Partition: int32(p), Value: []byte(value)}, func(r *kgo.Record, err error) {
				if err != nil {
					t.Errorf("produce to %d: %v", p, err)
					return
				}
				h.acked[p] = append(h.acked[p], ackedRecord{r.Offset, value})
			})
		}
		if err := cl.Flush(t.Context()); err != nil { // the callbacks append in the order of the values
			t.Fatal(err)
		}
	}
}

// check reads partitions from the given place in their histories on: every record at its offset, in order, once.
func (h *history) check(t *testing.T, c *cluster, from func(p int) int) {
	t.Helper()
	offsets := map[int32]kgo.Offset{}
	next := make([]int, len(h.acked))
	left := 0
	for p := range h.acked {
		if next[p] = from(p); next[p] < 0 {
			continue
		}
		at := int64(0)
		if next[p] > 0 {
			at = h.acked[p][next[p]-1].offset + 1
		}
		offsets[int32(p)] = kgo.NewOffset().At(at)
		left += len(h.acked[p]) - next[p]
	}
	cl := c.client(kgo.ConsumePartitions(map[string]map[int32]kgo.Offset{h.topic: offsets}))
	defer cl.Close()
	ctx, cancel := context.WithTimeout(t.Context(), enough)
	defer cancel()
	for left > 0 {
		fs := cl.PollFetches(ctx)
		if err := fs.Err(); err != nil {
			t.Fatalf("%d records left: %v", left, err)
		}
		fs.EachRecord(func(r *kgo.Record) {
			if next[r.Partition] >= len(h.acked[r.Partition]) {
				t.Fatalf("partition %d: offset %d, value %s, after the end", r.Partition, r.Offset, r.Value)
			}
			if want := h.acked[r.Partition][next[r.Partition]]; r.Offset != want.offset || string(r.Value) != want.value {
				t.Fatalf("partition %d: offset %d, value %s; want %+v", r.Partition, r.Offset, r.Value, want)
			}
			next[r.Partition]++
			left--
		})
	}
}

// listed asks for an offset of each partition.
func listed(t *testing.T, cl *kgo.Client, topic string, partitions int, timestamp int64) []kmsg.ListOffsetsResponseTopicPartition {
	t.Helper()
	req := kmsg.NewPtrListOffsetsRequest()
	rt := kmsg.NewListOffsetsRequestTopic()
	rt.Topic = topic
	for p := range partitions {
		rp := kmsg.NewListOffsetsRequestTopicPartition()
		rp.Partition, rp.Timestamp, rp.CurrentLeaderEpoch = int32(p), timestamp, -1
		rt.Partitions = append(rt.Partitions, rp)
	}
	req.Topics = append(req.Topics, rt)
	resp, err := req.RequestWith(t.Context(), cl)
	if err != nil {
		t.Fatal(err)
	}
	return resp.Topics[0].Partitions
}

// fetched asks once for records of one partition.
func fetched(t *testing.T, cl *kgo.Client, c *cluster, topic string, p int32, offset int64) kmsg.FetchResponseTopicPartition {
	t.Helper()
	req := kmsg.NewPtrFetchRequest()
	req.MaxWaitMillis, req.MinBytes, req.MaxBytes = 50, 1, 1<<20
	ft := kmsg.NewFetchRequestTopic()
	ft.Topic, ft.TopicID = topic, c.b.store.Map().Topic(topic).ID
	fp := kmsg.NewFetchRequestTopicPartition()
	fp.Partition, fp.FetchOffset, fp.PartitionMaxBytes = p, offset, 1<<20
	ft.Partitions = append(ft.Partitions, fp)
	req.Topics = append(req.Topics, ft)
	resp, err := req.RequestWith(t.Context(), cl.Broker(int(c.id)))
	if err != nil {
		t.Fatal(err)
	}
	return resp.Topics[0].Partitions[0]
}

// TestAbsentLog takes a log's directory away and gives it back: its records are out of reach meanwhile, everything else is
// served, writes go on beyond a hole, and afterwards every acknowledged record is at its offset, once, in order.
func TestAbsentLog(t *testing.T) {
	const partitions = 8
	c := startCluster(t, 2, Config{
		Static: map[string]string{"num.partitions": strconv.Itoa(partitions)}, Unwitnessed: UnwitnessedGap, ReserveOffsets: 100,
	})
	h := newHistory("t", partitions)
	h.produce(t, c, 80)
	newHistory("idle", partitions).produce(t, c, 5)
	both, away := c.dirs, c.logs[1].Recovered().ID
	wasAway := make([]bool, partitions)
	m := c.b.store.Map()
	for p := range partitions {
		run, _, _ := m.Owner(m.Topic("t"), int32(p))
		wasAway[p] = run.Log == away
	}
	first := len(h.acked[0])

	for round := range 2 {
		restart(t, c, both[:1])
		h.produce(t, c, 40)
		c.checkAway(t, h, wasAway, first)
		if round == 0 {
			restart(t, c, both[:1]) // once more without it
			h.produce(t, c, 5)
		}
		restart(t, c, both)
		if n := c.checkIdleHole(t); n == 0 && round == 0 {
			t.Error("no idle hole")
		}
		h.check(t, c, func(int) int { return 0 })
		if round == 1 {
			break
		}
		plan, err := c.b.planMoves(MoveRequest{Spread: true})
		if err != nil {
			t.Fatal(err)
		}
		back := 0
		for _, step := range plan {
			if v := c.b.moveGroup(t.Context(), step.group, step.to); v.Error != "" {
				t.Fatal(v.Error)
			}
			back++
		}
		if back != 4 {
			t.Errorf("%d groups moved back, want 4", back)
		}
		h.produce(t, c, 20)
		h.check(t, c, func(int) int { return 0 })
		m := c.b.store.Map()
		for p := range partitions {
			run, _, _ := m.Owner(m.Topic("t"), int32(p))
			wasAway[p] = run.Log == away
		}
		first = len(h.acked[0])
	}
	restart(t, c, both)
	h.produce(t, c, 3)
	h.check(t, c, func(int) int { return 0 })
}

func restart(t *testing.T, c *cluster, dirs []string) {
	t.Helper()
	if err := c.stop(); err != nil {
		t.Fatal(err)
	}
	c.dirs = dirs
	c.start()
}

// checkAway checks what clients see while a log is away. The first records of partitions whose newest log it was are
// in it, partly or all.
func (c *cluster) checkAway(t *testing.T, h *history, wasAway []bool, first int) {
	t.Helper()
	n := 0
	for _, a := range wasAway {
		if a {
			n++
		}
	}
	if n == 0 || n == len(wasAway) {
		t.Fatalf("%d partitions live in the log", n)
	}
	if logs, runs := c.b.unavailable(); logs != 1 || runs < n {
		t.Errorf("%d logs and %d runs are unavailable, want 1 and %d", logs, runs, n)
	}
	cl := c.client()
	early, late := listed(t, cl, h.topic, len(h.acked), timeEarliest), listed(t, cl, h.topic, len(h.acked), timeLatest)
	for p, acked := range h.acked {
		end := acked[len(acked)-1].offset + 1
		if early[p].ErrorCode != 0 || early[p].Offset != 0 || late[p].ErrorCode != 0 || late[p].Offset != end {
			t.Errorf("partition %d: earliest %+v, latest %+v, want 0 and %d", p, early[p], late[p], end)
		}
		if !wasAway[p] {
			continue
		}
		if acked[first].offset <= acked[first-1].offset+1 {
			t.Errorf("partition %d goes on at %d after %d: no hole", p, acked[first].offset, acked[first-1].offset)
		}
		for _, at := range []int64{acked[first-1].offset, acked[first-1].offset + 1, acked[first].offset - 1} {
			got := fetched(t, cl, c, h.topic, int32(p), at)
			if err := kerr.ErrorForCode(got.ErrorCode); !errors.Is(err, kerr.KafkaStorageError) || got.HighWatermark != end || len(got.RecordBatches) > 0 {
				t.Errorf("partition %d: fetch at %d: %v, high watermark %d, want %d", p, at, err, got.HighWatermark, end)
			}
		}
		view := c.b.viewPartition(c.b.store.Map(), c.b.store.Map().Topic(h.topic), int32(p))
		if k := len(view.Runs); k < 2 || view.Runs[k-2].State != "unavailable" || view.Runs[k-1].State != "open" {
			t.Errorf("partition %d: runs %+v", p, view.Runs)
		}
	}
	h.check(t, c, func(p int) int { // what is there is served
		for _, run := range c.b.store.Map().Runs(c.b.store.Map().Topic(h.topic), int32(p)) {
			if c.b.hosted[run.Log] == nil {
				return -1
			}
		}
		return 0
	})
	later := newHistory(h.topic, len(h.acked))
	for p := range h.acked {
		later.acked[p] = h.acked[p][first:]
	}
	offsets := map[int32]kgo.Offset{}
	left := 0
	for p, acked := range later.acked {
		offsets[int32(p)] = kgo.NewOffset().At(acked[0].offset)
		left += len(acked)
	}
	tail := c.client(kgo.ConsumePartitions(map[string]map[int32]kgo.Offset{h.topic: offsets}))
	defer tail.Close()
	for left > 0 {
		fs := tail.PollFetches(t.Context())
		if err := fs.Err(); err != nil {
			t.Fatal(err)
		}
		left -= fs.NumRecords()
	}
}

// checkIdleHole reads where a hole is followed by nothing yet: an empty batch brings the reader to the high watermark.
// The topic was written once and then left alone.
func (c *cluster) checkIdleHole(t *testing.T) (checked int) {
	t.Helper()
	m := c.b.store.Map()
	cl := c.client()
	for p := range m.Topic("idle").Partitions {
		runs := m.Runs(m.Topic("idle"), int32(p))
		last := runs[len(runs)-1]
		if len(runs) < 2 || !runs[len(runs)-2].Gap {
			continue
		}
		checked++
		for _, at := range []int64{5, int64(last.Start) - 1} { // 5 records were written
			got := fetched(t, cl, c, "idle", int32(p), at)
			h, err := record.ParseHeader(got.RecordBatches)
			if err != nil || h.CRC != record.Checksum(got.RecordBatches[:h.Size()]) || h.Count != 0 || h.BaseOffset != at || h.LastOffset()+1 != got.HighWatermark || got.HighWatermark != int64(last.Start) {
				t.Errorf("partition %d: fetch at %d: code %d, %+v, %v; high watermark %d", p, at, got.ErrorCode, h, err, got.HighWatermark)
			}
		}
	}
	return checked
}

// TestAbsentLogWait: with failover.unwitnessed=wait the groups have no owner until the log is back; then they go on where
// they were, without a hole. New partitions are not placed on it meanwhile.
func TestAbsentLogWait(t *testing.T) {
	const partitions = 4
	c := startCluster(t, 2, Config{Static: map[string]string{"num.partitions": strconv.Itoa(partitions)}})
	h := newHistory("t", partitions)
	h.produce(t, c, 10)
	both := c.dirs
	restart(t, c, both[:1])
	m, missing := c.b.store.Map(), 0
	for p := range partitions {
		if c.b.topic("t").partition(int32(p)).open.Load() == nil {
			missing++
		}
	}
	if missing != partitions/2 {
		t.Errorf("%d partitions have no owner, want %d", missing, partitions/2)
	}
	for _, l := range c.b.host.Absent(m) {
		if l.State != queuemapper.LogSealed {
			t.Errorf("log %s is %s", l.ID, l.State)
		}
	}
	newHistory("new", partitions).produce(t, c, 3)
	restart(t, c, both)
	h.produce(t, c, 10)
	h.check(t, c, func(int) int { return 0 })
	for p, acked := range h.acked {
		if last := acked[len(acked)-1].offset; last != 19 {
			t.Errorf("partition %d ends at %d, want 19", p, last)
		}
	}
}

// TestFreshDirectoryForAbsent: an empty directory in the place of an absent log becomes a log of its own.
func TestFreshDirectoryForAbsent(t *testing.T) {
	c := startCluster(t, 2, Config{Static: map[string]string{"num.partitions": "4"}, Unwitnessed: UnwitnessedGap})
	h := newHistory("t", 4)
	h.produce(t, c, 10)
	both := c.dirs
	restart(t, c, []string{both[0], t.TempDir()})
	h.produce(t, c, 10)
	if logs, _ := c.b.unavailable(); logs != 1 || len(c.b.hosted) != 2 {
		t.Errorf("%d logs are absent, %d are here", logs, len(c.b.hosted))
	}
	third := c.dirs[1]
	restart(t, c, []string{both[0], both[1], third})
	h.check(t, c, func(int) int { return 0 })
}

// TestCeilingsUnderLoad: ceilings are raised ahead of need, and no offset is ever given beyond what the map promises.
func TestCeilingsUnderLoad(t *testing.T) {
	c := startCluster(t, 1, Config{Static: map[string]string{"num.partitions": "2"}, ReserveOffsets: 20})
	load := startLoad(t, c, "c", 2)
	if err := c.b.awaitTopic(t.Context(), "c"); err != nil {
		t.Fatal(err)
	}
	top := func() (end ident.Offset) {
		for p := range int32(2) {
			run := c.b.topic("c").partition(p).open.Load()
			end = run.queue.HighWatermark() // before the map is looked at
			if g := c.b.store.Map().Group(run.gen.Group); end > g.Current().Ceiling {
				t.Errorf("partition %d is at %d, beyond the ceiling %d", p, end, g.Current().Ceiling)
			}
		}
		return end
	}
	for deadline := time.Now().Add(enough); top() < 2000; {
		if time.Now().After(deadline) {
			t.Fatal("the load does not get on")
		}
	}
	load.end(t)
	top()
	load.check(t, c, "c")
	restart(t, c, c.dirs)
	top()
	after := startLoad(t, c, "d", 1)
	after.end(t)
}

// TestAbsentLogStart: a log start that only the absent log knows is known again when it is back.
func TestAbsentLogStart(t *testing.T) {
	c := startCluster(t, 2, Config{Static: map[string]string{"num.partitions": "4"}, Unwitnessed: UnwitnessedGap})
	h := newHistory("t", 4)
	h.produce(t, c, 10)
	for p := range int32(4) {
		if _, err := c.b.deleteRecords(t.Context(), c.b.topic("t").partition(p), 7); err != nil {
			t.Fatal(err)
		}
	}
	both := c.dirs
	restart(t, c, both[:1])
	restart(t, c, both)
	for p, got := range listed(t, c.client(), "t", 4, timeEarliest) {
		if got.ErrorCode != 0 || got.Offset != 7 {
			t.Errorf("partition %d: earliest is %+v, want 7", p, got)
		}
	}
	h.check(t, c, func(int) int { return 7 })
}
