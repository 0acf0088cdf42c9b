package broker

import (
	"errors"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/skeinmq/skein/queuemapper"
)

// TestFailoverRead reads a partition whose older records are in the log of a broker that died: a lagging consumer waits
// for them, unless the topic says that it shall go on behind them; and not before a failover has sealed that log.
func TestFailoverRead(t *testing.T) {
	cs := startBrokers(t, 2, 1, Config{})
	a, b := cs[0], cs[1]
	a.topic("t", 1, nil)
	h := newHistory("t", 1)
	h.produce(t, a, 30)
	moveTopic(t, a, b, "t")
	h.produce(t, b, 10)
	adm := kadm.NewClient(b.client())
	set := func(value string) {
		t.Helper()
		got, err := adm.AlterTopicConfigs(t.Context(), []kadm.AlterConfig{{Op: kadm.SetConfig, Name: "failover.read", Value: &value}}, "t")
		if err = errors.Join(err, got[0].Err); err != nil {
			t.Fatal(err)
		}
		b.await(func(m *queuemapper.Map) bool { return m.Topic("t").Configs["failover.read"] == value })
	}
	// first is the first record that a fetch from an offset is answered with, -1 for none, and the error code.
	first := func(from int64, wait time.Duration) (int64, int16) {
		t.Helper()
		req := fetchRequest(12, b.b.topic("t"), from)
		req.MaxWaitMillis = int32(wait.Milliseconds())
		part := &b.dial().ask(req).(*kmsg.FetchResponse).Topics[0].Partitions[0]
		if part.HighWatermark != 40 && part.ErrorCode == 0 {
			t.Errorf("high watermark %d, want 40", part.HighWatermark)
		}
		fp, _ := kgo.ProcessFetchPartition(kgo.ProcessFetchPartitionOpts{Topic: "t", Offset: from}, part, kgo.DefaultDecompressor(), nil)
		if len(fp.Records) == 0 {
			return -1, part.ErrorCode
		}
		return fp.Records[0].Offset, part.ErrorCode
	}
	expect := func(what string, from, want int64) {
		t.Helper()
		wait := fetchWait // the other broker may be slow
		if want < 0 {
			wait = 50 * time.Millisecond
		}
		if got, code := first(from, wait); got != want || code != 0 {
			t.Errorf("%s: fetch from %d begins at %d, code %d; want %d", what, from, got, code, want)
		}
	}
	id := a.logOf(0)
	set("skip")
	expect("the host is there", 5, 5)
	a.crash()
	expect("nobody has sealed its log", 5, -1)
	set("wait")
	b.seal(id)
	b.await(func(m *queuemapper.Map) bool { return m.Log(id).State == queuemapper.LogSealed })
	expect("wait", 5, -1)
	expect("the newest run", 33, 33)
	set("skip")
	eventually(t, "it goes on behind them", func() bool { got, code := first(5, 50*time.Millisecond); return got == 30 && code == 0 })
	got := consume(t, b.client(kgo.ConsumeTopics("t"), kgo.FetchMaxWait(100*time.Millisecond), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart())), 10)
	if len(got) != 10 || got[0].Offset != 30 {
		t.Errorf("a consumer was given %d records from offset %d", len(got), got[0].Offset)
	}
	a.start()
	eventually(t, "the disk is back", func() bool { got, code := first(5, 50*time.Millisecond); return got == 5 && code == 0 })
}
