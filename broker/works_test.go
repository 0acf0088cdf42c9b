package broker

import (
	"bytes"
	"fmt"
	"maps"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
	"github.com/twmb/franz-go/pkg/kversion"
)

// TestConfigsWork changes configs that docs/configs.md says work and looks for the difference that a client sees. Those
// that are not here have tests of their own: grep for their names.
func TestConfigsWork(t *testing.T) {
	for _, c := range []struct {
		name, value    string
		beside         string // NAME=VALUE that is set in both cases
		see            func(*testing.T, *cluster) string
		normally, then string
	}{
		{"fetch.max.bytes", "1024", "", seeFetchedBatches, "3", "1"},
		{"log.message.timestamp.after.max.ms", "1000", "", seeTimestamp(10 * time.Minute), "", "INVALID_TIMESTAMP"},
		{"log.message.timestamp.before.max.ms", "1000", "", seeTimestamp(-10 * time.Minute), "", "INVALID_TIMESTAMP"},
		{"offset.metadata.max.bytes", "10", "", seeMetadata, "", "OFFSET_METADATA_TOO_LARGE"},
		{"max.request.partition.size.limit", "2", "", seeDescribed, "4", "2"},
		{"max.incremental.fetch.session.cache.slots", "1", "", seeSessions, "2", "1"},
		{"log.retention.bytes", "1", "log.retention.check.interval.ms=10", seeLogStart(40, 900_000, "log.retention.bytes"), "0", "moved"},
		{"log.retention.check.interval.ms", "10", "log.retention.ms=1", seeLogStart(3, 100, "log.retention.ms"), "0", "moved"},
		{"queued.max.request.bytes", "1048576", "socket.request.max.bytes=65536", seeBudget, "", "524288 524288"},
	} {
		t.Run(c.name, func(t *testing.T) {
			static := map[string]string{}
			if name, value, ok := strings.Cut(c.beside, "="); ok {
				static[name] = value
			}
			before := c.see(t, startCluster(t, 1, Config{Static: maps.Clone(static)}))
			if c.normally != "" && before != c.normally {
				t.Errorf("without it: %q, want %q", before, c.normally)
			}
			static[c.name] = c.value
			after := c.see(t, startCluster(t, 1, Config{Static: static}))
			if after != c.then || after == before {
				t.Errorf("with %s: %q, want %q; without it: %q", c.value, after, c.then, before)
			}
		})
	}
}

// put makes batches of one record each.
func put(t *testing.T, cl *kgo.Client, topic string, n, size int) {
	t.Helper()
	for range n {
		if err := cl.ProduceSync(t.Context(), &kgo.Record{Topic: topic, Value: bytes.Repeat([]byte("x"), size)}).FirstErr(); err != nil {
			t.Fatal(err)
		}
	}
}

func fetchFor(topic *topic, epoch int32) *kmsg.FetchRequest {
	rq := kmsg.NewPtrFetchRequest()
	rq.MaxWaitMillis, rq.MinBytes, rq.MaxBytes, rq.SessionEpoch = 100, 1, 1<<20, epoch
	rt := kmsg.NewFetchRequestTopic()
	rt.Topic, rt.TopicID = topic.name, topic.id
	rp := kmsg.NewFetchRequestTopicPartition()
	rp.PartitionMaxBytes = 1 << 20
	rt.Partitions = append(rt.Partitions, rp)
	rq.Topics = append(rq.Topics, rt)
	return rq
}

func seeFetchedBatches(t *testing.T, c *cluster) string {
	topic, cl := c.topic("t", 1, nil), c.client(kgo.ProducerBatchCompression(kgo.NoCompression()))
	put(t, cl, "t", 3, 2000)
	rs, err := fetchFor(topic, -1).RequestWith(t.Context(), cl)
	if err != nil {
		t.Fatal(err)
	}
	return fmt.Sprint(len(rs.Topics[0].Partitions[0].RecordBatches) / 2000)
}

func seeTimestamp(shift time.Duration) func(*testing.T, *cluster) string {
	return func(t *testing.T, c *cluster) string {
		c.topic("t", 1, nil)
		err := c.client().ProduceSync(t.Context(), &kgo.Record{Topic: "t", Timestamp: time.Now().Add(shift)}).FirstErr()
		return message(err)
	}
}

func message(err error) string {
	if e, ok := err.(*kerr.Error); ok {
		return e.Message
	}
	if err != nil {
		return err.Error()
	}
	return ""
}

func seeMetadata(t *testing.T, c *cluster) string {
	c.topic("t", 1, nil)
	rq := kmsg.NewPtrOffsetCommitRequest() // by topic's name, as versions before 10 do
	rq.Group, rq.Generation = "g", -1
	rt := kmsg.NewOffsetCommitRequestTopic()
	rt.Topic = "t"
	rp := kmsg.NewOffsetCommitRequestTopicPartition()
	text := strings.Repeat("m", 100)
	rp.Metadata = &text
	rt.Partitions = append(rt.Partitions, rp)
	rq.Topics = append(rq.Topics, rt)
	rs, err := rq.RequestWith(t.Context(), c.client(kgo.MaxVersions(kversion.V3_0_0())))
	if err != nil {
		t.Fatal(err)
	}
	return message(kerr.ErrorForCode(rs.Topics[0].Partitions[0].ErrorCode))
}

func seeDescribed(t *testing.T, c *cluster) string {
	c.topic("t", 4, nil)
	rq := kmsg.NewPtrDescribeTopicPartitionsRequest()
	rq.ResponsePartitionLimit = 100
	rt := kmsg.NewDescribeTopicPartitionsRequestTopic()
	rt.Topic = "t"
	rq.Topics = append(rq.Topics, rt)
	rs, err := rq.RequestWith(t.Context(), c.client())
	if err != nil {
		t.Fatal(err)
	}
	return fmt.Sprint(len(rs.Topics[0].Partitions))
}

func seeSessions(t *testing.T, c *cluster) string {
	topic, cl := c.topic("t", 1, nil), c.client()
	ids := map[int32]bool{}
	for range 2 {
		rs, err := fetchFor(topic, 0).RequestWith(t.Context(), cl)
		if err != nil {
			t.Fatal(err)
		}
		if rs.SessionID != 0 {
			ids[rs.SessionID] = true
		}
	}
	return fmt.Sprint(len(ids))
}

// seeLogStart puts so many records into a partition, more than a file of the log if they are large, and waits until its
// log start has moved, or a second, if the limit or how often to look is not set: it does not move then.
func seeLogStart(n, size int, limit string) func(*testing.T, *cluster) string {
	return func(t *testing.T, c *cluster) string {
		c.topic("t", 1, nil)
		put(t, c.client(kgo.ProducerBatchCompression(kgo.NoCompression())), "t", n, size)
		admin, wait := c.admin(), time.Second
		if c.conf.Static[limit] != "" && c.conf.Static["log.retention.check.interval.ms"] != "" {
			wait = enough // which only a failure reaches
		}
		for end := time.Now().Add(wait); time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
			starts, err := admin.ListStartOffsets(t.Context(), "t")
			if err != nil {
				t.Fatal(err)
			}
			if o, _ := starts.Lookup("t", 0); o.Offset != 0 {
				return "moved"
			}
		}
		return "0"
	}
}

// seeBudget is how the budget is split between requests and answers.
func seeBudget(_ *testing.T, c *cluster) string {
	return fmt.Sprint(c.b.memory.limit, " ", c.b.answersLimit)
}

// TestBudgetSplit: half of the memory budget is for requests, half for answers, and every request that is allowed fits.
func TestBudgetSplit(t *testing.T) {
	for _, c := range []struct {
		largest, queued   string
		memory            int64
		requests, answers int64
	}{
		{"1000000", "-1", 8 << 20, 4 << 20, 4 << 20},
		{"1000000", "0", 8 << 20, 4 << 20, 4 << 20},
		{"1000000", "4194304", 8 << 20, 2 << 20, 2 << 20},
		{"3000000", "4194304", 8 << 20, 3000000, 2 << 20},
	} {
		b := startCluster(t, 1, Config{MemoryBytes: c.memory, Static: map[string]string{"socket.request.max.bytes": c.largest, "queued.max.request.bytes": c.queued}}).b
		if b.memory.limit != c.requests || b.answersLimit != c.answers {
			t.Errorf("%+v: %d for requests, %d for answers", c, b.memory.limit, b.answersLimit)
		}
	}
}
