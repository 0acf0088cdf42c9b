package broker

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/skeinmq/skein/internal/ident"
	"github.com/skeinmq/skein/queuemapper"
)

// loseIn notes in the map that the first run of topic t has lost a range.
func loseIn(t *testing.T, cs []*cluster, r queuemapper.Range) {
	t.Helper()
	by := cs[len(cs)-1]
	by.catchUp() // others have moved the group
	store, topic := by.b.store, by.b.topic("t").newest()
	p := ident.Partition{Topic: topic.ID}
	var g *queuemapper.Group
	err := queuemapper.ErrConflict
	for errors.Is(err, queuemapper.ErrConflict) { // its owner writes the record too
		run := store.Map().Runs(topic, 0)[0]
		g, err = store.MarkLost(t.Context(), store.Map().Group(run.Generation.Group), run.Generation.Epoch, map[ident.Partition][]queuemapper.Range{p: {r}})
	}
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range cs {
		c.await(func(m *queuemapper.Map) bool { return m.Group(g.ID).Revision >= g.Revision })
	}
}

// TestLostRead: readers go on behind what is lost, whether the log is another broker's or the owner's own; and behind a run that
// is lost as a whole, whether or not its log is there.
func TestLostRead(t *testing.T) {
	cs, _ := moved(t, redirecting(nil))
	loseIn(t, cs, queuemapper.Range{From: 40, To: 60})
	ask := func(what string, c *cluster, version int16, from int64, want string) {
		t.Helper()
		got, took := c.fetchAs(c.dial(), version, from)
		if is := outcome(&got); is != want || took > atOnce {
			t.Errorf("%s: fetch from %d is answered with %s after %v, want %s", what, from, is, took, want)
		}
		fp, _ := kgo.ProcessFetchPartition(kgo.ProcessFetchPartitionOpts{Topic: "t", Offset: from}, &got, kgo.DefaultDecompressor(), nil)
		for _, r := range fp.Records {
			if r.Offset >= 40 && r.Offset < 60 {
				t.Errorf("%s: fetch from %d brings offset %d, which is lost", what, from, r.Offset)
			}
		}
	}
	ask("the owner reads elsewhere", cs[1], 10, 30, "records from 30")
	ask("the owner reads elsewhere", cs[1], 10, 40, "records from 60")
	ask("a client that could be sent on", cs[1], 11, 30, "to 1")
	ask("a client that could be sent on", cs[1], 11, 50, "records from 60")
	ask("a client at the host of the log", cs[0], 11, 30, "records from 30")
	ask("a client at the host of the log", cs[0], 11, 40, "to 2")
	expectTime := func(c *cluster, offset int64) {
		t.Helper()
		if got := listed(t, c.client(), "t", 1, time.Now().Add(-time.Hour).UnixMilli())[0]; got.Offset != offset || got.ErrorCode != 0 {
			t.Errorf("the first record by time is at %d, code %d; want %d", got.Offset, got.ErrorCode, offset)
		}
	}
	expectTime(cs[1], 0)
	moveTopic(t, cs[1], cs[0], "t")
	ask("the log is the owner's", cs[0], 10, 30, "records from 30")
	ask("the log is the owner's", cs[0], 10, 59, "records from 60")
	moveTopic(t, cs[0], cs[1], "t")

	loseIn(t, cs, queuemapper.Range{From: 0, To: 40})
	ask("all is lost", cs[1], 18, 0, "records from 60")
	expectTime(cs[1], 60)
	cs[0].crash()
	ask("its log is away", cs[1], 18, 0, "records from 60")
	expectTime(cs[1], 60)
	got := consume(t, cs[1].client(kgo.ConsumeTopics("t"), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart())), 20)
	if len(got) != 20 || got[0].Offset != 60 || got[19].Offset != 79 {
		t.Errorf("a consumer is given %d records", len(got))
	}
	if n := count(cs[1].b.metrics.lost); n < 4 {
		t.Errorf("%v reads are counted", n)
	}
	cs[0].start()
}

// TestLostRetained: what is lost expires with what is before it, and holds up nothing that follows.
func TestLostRetained(t *testing.T) {
	cs, _ := moved(t, Config{Static: map[string]string{"num.partitions": "1"}})
	p := cs[1].b.topic("t").partition(0)
	judge := func() ident.Offset {
		t.Helper()
		conf := *p.topic.conf.Load()
		conf.Delete, conf.RetentionMs = true, 1
		to, err := cs[1].b.retainFrom(t.Context(), p, p.open.Load(), &conf, time.Now().Add(time.Hour).UnixMilli())
		if err != nil && !strings.Contains(err.Error(), "not available") {
			t.Fatal(err)
		}
		return to
	}
	cs[0].crash()
	if to := judge(); to != 0 {
		t.Errorf("the oldest run is away, not lost: the log start would go to %d", to)
	}
	loseIn(t, cs[1:], queuemapper.Range{From: 0, To: 60})
	if to := cs[1].b.behindLost(p, 30); to != 60 {
		t.Errorf("what is lost expires up to %d, want 60", to)
	}
	if to := judge(); to != 80 {
		t.Errorf("the oldest run is lost: the log start would go to %d, want 80", to)
	}
	cs[0].start()
}
