package broker

import (
	"context"
	"errors"
	"fmt"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/skeinmq/skein/internal/ident"
	"github.com/skeinmq/skein/protocol/record"
	"github.com/skeinmq/skein/queuemapper"
)

func count(c prometheus.Counter) float64 {
	var m dto.Metric
	_ = c.Write(&m)
	return m.GetCounter().GetValue()
}

// redirecting is what switches redirects on, for runs of any size.
func redirecting(more map[string]string) Config {
	static := map[string]string{"num.partitions": "1", "skein.read.redirect": "true", "skein.read.redirect.min.bytes": "0"}
	for k, v := range more {
		static[k] = v
	}
	return Config{Static: static}
}

// TestTold: a client is told once for each stretch, and served when it asks here again.
func TestTold(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var all atomic.Int64
		c := told{all: &all}
		two, three := readAt{2, 7}, readAt{3, 7}
		p, q := ident.Partition{Index: 1}, ident.Partition{Index: 2}
		ask := func(p ident.Partition, host readAt, from ident.Offset) bool {
			now := time.Now()
			if !c.may(p, host, from, now) {
				return false
			}
			c.tell(p, host, from, now)
			return true
		}
		for i, step := range []struct {
			p    ident.Partition
			host readAt
			from ident.Offset
			want bool
			next ident.Offset // it is served up to there
			wait time.Duration
		}{
			{p, two, 100, true, 0, 0},
			{p, two, 100, false, 150, 0}, // it did not go
			{p, two, 150, false, 200, 0},
			{q, two, 150, true, 0, 0},
			{p, two, 200, false, 210, 0},
			{p, two, 110, false, 120, 0},         // what it was served it may read again
			{p, two, 900, true, 0, 0},            // it was there, and comes back
			{p, two, 900, false, 950, toldAgain}, // once more, later
			{p, two, 950, true, 0, 0},
			{p, two, 950, false, 960, toldAgain},
			{p, two, 960, false, 970, 0},       // and never again
			{p, readAt{2, 8}, 970, true, 0, 0}, // it was away, and is back
			{p, three, 970, true, 0, 0},        // another broker has what follows
			{p, three, 5, true, 0, 0},          // a seek
		} {
			if got := ask(step.p, step.host, step.from); got != step.want {
				t.Errorf("step %d: %d at broker %v: told %v, want %v", i, step.from, step.host, got, step.want)
			}
			if step.next > 0 {
				c.served(step.p, step.from, step.next)
			}
			time.Sleep(step.wait)
		}
		if all.Load() != 2 {
			t.Errorf("%d entries, want 2", all.Load())
		}
		c.forget(p)
		c.forget(p)
		all.Add(toldMost - 1)
		if ask(p, two, 0) {
			t.Error("told with no room to remember it")
		}
		if !ask(q, two, 990) {
			t.Error("not told though it is remembered already")
		}
		c.close()
		if all.Load() != toldMost-1 {
			t.Errorf("%d entries after the end, want %d", all.Load(), toldMost-1)
		}
	})
}

// What is answered within atOnce did not wait for max.wait, which is fetchWait.
const fetchWait, atOnce = 40 * time.Second, 20 * time.Second

// fetchAs fetches from a broker as a consumer of that version; max.wait is far away.
func (c *cluster) fetchAs(w *wire, version int16, offset int64, edit ...func(*kmsg.FetchRequest)) (got kmsg.FetchResponseTopicPartition, took time.Duration) {
	c.t.Helper()
	req := fetchRequest(version, c.b.topic("t"), offset)
	req.MaxWaitMillis = int32(fetchWait.Milliseconds())
	for _, f := range edit {
		f(req)
	}
	began := time.Now()
	resp := w.ask(req).(*kmsg.FetchResponse)
	if len(resp.Topics) != 1 {
		c.t.Fatalf("fetch at %d: answer of %d topics, code %d", offset, len(resp.Topics), resp.ErrorCode)
	}
	return resp.Topics[0].Partitions[0], time.Since(began)
}

// outcome is what a client makes of an answer.
func outcome(p *kmsg.FetchResponseTopicPartition) string {
	switch {
	case p.ErrorCode != 0:
		return kerr.ErrorForCode(p.ErrorCode).(*kerr.Error).Message
	case p.PreferredReadReplica >= 0 && len(p.RecordBatches) > 0:
		return "records and a redirect"
	case p.PreferredReadReplica >= 0:
		return "to " + strconv.Itoa(int(p.PreferredReadReplica))
	case len(p.RecordBatches) == 0:
		return "nothing"
	}
	h, err := record.ParseHeader(p.RecordBatches)
	if err != nil {
		return err.Error()
	}
	return "records from " + strconv.FormatInt(h.BaseOffset, 10)
}

// moved has records 0 to 59 of one partition in broker 1's log and 60 to 79 in that of broker 2, its owner; broker 3 has none.
func moved(t *testing.T, conf Config) (cs []*cluster, h *history) {
	t.Helper()
	cs = startBrokers(t, 3, 1, conf)
	h = newHistory("t", 1)
	h.produce(t, cs[0], 1) // wherever its group is, it goes to broker 1
	for _, c := range cs[1:] {
		if c.b.topic("t").partition(0).open.Load() != nil {
			moveTopic(t, c, cs[0], "t")
		}
	}
	until(t, "broker 1 owns", func() bool { return cs[0].b.topic("t").partition(0).open.Load() != nil })
	h.produce(t, cs[0], 59)
	moveTopic(t, cs[0], cs[1], "t")
	h.produce(t, cs[1], 20)
	for _, c := range cs {
		until(t, "all know the owner", func() bool {
			run, l, ok := c.b.table.view.Load().m.Owner(c.b.topic("t").newest(), 0)
			return ok && l.Host == 2 && run.Start == 60
		})
	}
	return cs, h
}

// TestRedirect asks both sides as clients of several kinds do.
func TestRedirect(t *testing.T) {
	cs, _ := moved(t, redirecting(nil))
	run, _, _ := cs[1].b.store.Map().Owner(cs[1].b.topic("t").newest(), 0)
	epoch := int32(run.Generation.Epoch)
	known := func(e int32) func(*kmsg.FetchRequest) {
		return func(q *kmsg.FetchRequest) { q.Topics[0].Partitions[0].CurrentLeaderEpoch = e }
	}
	replica := func(q *kmsg.FetchRequest) { q.ReplicaID, q.ReplicaState.ID = 3, 3 }
	last := func(q *kmsg.FetchRequest) { q.Topics[0].Partitions[0].LastFetchedEpoch = epoch - 1 }
	for _, c := range []struct {
		name    string
		at      int // broker
		version int16
		offset  int64
		edit    func(*kmsg.FetchRequest)
		want    string
	}{
		{"owner, older run", 2, 11, 0, nil, "to 1"},
		{"owner, newest version", 2, 18, 30, nil, "to 1"},
		{"owner, last of the run", 2, 12, 59, known(epoch), "to 1"},
		{"owner, a client that cannot", 2, 10, 0, nil, "records from 0"},
		{"owner, a follower", 2, 11, 0, replica, "records from 0"},
		{"owner, its own run", 2, 11, 60, nil, "records from 60"},
		{"owner, beyond the end", 2, 11, 81, nil, "OFFSET_OUT_OF_RANGE"},
		{"host, its run", 1, 11, 0, nil, "records from 0"},
		{"host, newest version", 1, 18, 30, known(epoch), "records from 30"},
		{"host, end of its run", 1, 11, 60, nil, "to 2"},
		{"host, beyond its run", 1, 18, 70, known(epoch), "to 2"},
		{"host, beyond all", 1, 11, 1000, nil, "to 2"},
		{"host, below all", 1, 11, -1, nil, "to 2"},
		{"host, a client that looks for the end of its history", 1, 12, 10, last, "to 2"},
		{"host, a client that knows the owner before", 1, 11, 0, known(epoch - 1), "FENCED_LEADER_EPOCH"},
		{"host, a client that knows an owner to come", 1, 11, 0, known(epoch + 1), "UNKNOWN_LEADER_EPOCH"},
		{"host, a client that cannot", 1, 10, 0, nil, "NOT_LEADER_FOR_PARTITION"},
		{"host, a follower", 1, 11, 0, replica, "NOT_LEADER_FOR_PARTITION"},
		{"another broker", 3, 11, 0, nil, "NOT_LEADER_FOR_PARTITION"},
	} {
		at := cs[c.at-1]
		edit := c.edit
		if edit == nil {
			edit = func(*kmsg.FetchRequest) {}
		}
		got, took := at.fetchAs(at.dial(), c.version, c.offset, edit)
		if outcome(&got) != c.want || took > atOnce {
			t.Errorf("%s: at broker %d, v%d from %d: %s after %v, want %s at once", c.name, c.at, c.version, c.offset, outcome(&got), took, c.want)
		}
		if got.ErrorCode == 0 && (got.HighWatermark != 80 || got.LogStartOffset != 0 || got.LastStableOffset != 80) {
			t.Errorf("%s: marks %d, %d, %d, want 0, 80, 80", c.name, got.LogStartOffset, got.LastStableOffset, got.HighWatermark)
		}
		if got.ErrorCode == kerr.NotLeaderForPartition.Code && c.version >= 12 && got.CurrentLeader.LeaderID != 2 {
			t.Errorf("%s: leader %d, want 2", c.name, got.CurrentLeader.LeaderID)
		}
	}
	if n := count(cs[1].b.metrics.redirected); n != 3 {
		t.Errorf("%v redirects counted, want 3", n)
	}
	if n := count(cs[0].b.metrics.sentBack); n != 5 {
		t.Errorf("%v counted as sent back, want 5", n)
	}
}

// TestRedirectCommitted: read_committed clients may be sent away and served by a host, as long as no transaction can be in a
// run. When Produce takes transactions, a host must know those that were aborted in its run, or must send such clients back.
func TestRedirectCommitted(t *testing.T) {
	cs, _ := moved(t, redirecting(nil))
	committed := func(q *kmsg.FetchRequest) { q.IsolationLevel = 1 }
	for at, want := range map[int]string{2: "to 1", 1: "records from 0"} {
		got, _ := cs[at-1].fetchAs(cs[at-1].dial(), 12, 0, committed)
		if outcome(&got) != want {
			t.Errorf("broker %d: %s, want %s", at, outcome(&got), want)
		}
	}
	b := record.Builder{Idempotent: true, Transactional: true, ProducerID: 1}
	b.Append(time.Now().UnixMilli(), nil, []byte("x"))
	if got := cs[1].dial().produceTo(9, cs[1].b.topic("t"), 0, b.AppendBatch(nil)); got.ErrorCode == 0 {
		t.Error("a transactional batch was taken: are aborted transactions known to the hosts of older runs?")
	}
}

// stubborn reads as a client that is told to go elsewhere and does not, and returns how many records it gets in so many requests.
func stubborn(at *cluster, requests int) (records int64, redirects int) {
	w := at.dial()
	offset := int64(0)
	for range requests {
		got, _ := at.fetchAs(w, 12, offset, func(q *kmsg.FetchRequest) { q.Topics[0].Partitions[0].PartitionMaxBytes = 1 })
		if got.PreferredReadReplica >= 0 {
			redirects++
		}
		for left := got.RecordBatches; len(left) > 0; {
			h, err := record.ParseHeader(left)
			if err != nil {
				at.t.Fatal(err)
			}
			offset = h.LastOffset() + 1
			left = left[h.Size():]
		}
	}
	return offset, redirects
}

// TestRedirectIgnored: who does not go where it is told is told once, and then gets its records here.
func TestRedirectIgnored(t *testing.T) {
	cs, _ := moved(t, redirecting(nil))
	if records, redirects := stubborn(cs[1], 6); redirects != 1 || records < 5 {
		t.Errorf("%d redirects and %d records, want 1 and at least 5", redirects, records)
	}
	until(t, "what connections were told is forgotten", func() bool {
		cs[1].b.server.mu.Lock()
		for c := range cs[1].b.server.conns {
			c.nc.Close()
		}
		cs[1].b.server.mu.Unlock()
		return cs[1].b.told.Load() == 0
	})
}

// TestRedirectWhen: only with the switch on at both ends, to a broker that lives and that Metadata names, and for enough bytes.
func TestRedirectWhen(t *testing.T) {
	cs, _ := moved(t, redirecting(nil))
	a, b := cs[0], cs[1]
	adm := kadm.NewClient(b.client())
	set := func(broker, name, value string) {
		t.Helper()
		alter := []kadm.AlterConfig{{Op: kadm.SetConfig, Name: name, Value: &value}}
		var err error
		if broker == "" {
			_, err = adm.AlterBrokerConfigs(t.Context(), alter)
		} else {
			_, err = kadm.NewClient(a.client()).AlterBrokerConfigs(t.Context(), alter, 1)
		}
		if err != nil {
			t.Fatal(err)
		}
		for _, c := range cs[:2] {
			c.await(func(*queuemapper.Map) bool { return true })
		}
	}
	ask := func(at *cluster, want string) {
		t.Helper()
		until(t, fmt.Sprintf("broker %d: %s", at.id, want), func() bool {
			got, _ := at.fetchAs(at.dial(), 12, 0)
			return outcome(&got) == want
		})
	}
	replicas := func(want ...int32) {
		t.Helper()
		until(t, fmt.Sprintf("replicas are %v", want), func() bool {
			p := describedPartition(t, b, "t")
			return slices.Equal(p.Replicas, want) && slices.Equal(p.ISR, want)
		})
	}
	replicas(2, 1)
	ask(b, "to 1")
	set("", "skein.read.redirect.min.bytes", "1000000")
	ask(b, "records from 0")
	set("", "skein.read.redirect.min.bytes", "1000") // of about 4000
	ask(b, "to 1")
	for value, want := range map[string]string{"skip": "records from 0", "wait": "to 1"} {
		if _, err := adm.AlterTopicConfigs(t.Context(), []kadm.AlterConfig{{Op: kadm.SetConfig, Name: "failover.read", Value: &value}}, "t"); err != nil {
			t.Fatal(err)
		}
		ask(b, want)
	}
	if _, err := adm.AlterTopicConfigs(t.Context(), []kadm.AlterConfig{{Op: kadm.DeleteConfig, Name: "failover.read"}}, "t"); err != nil {
		t.Fatal(err)
	}
	ask(b, "to 1")
	set("1", "skein.read.redirect", "false")
	ask(a, "NOT_LEADER_FOR_PARTITION")
	set("", "skein.read.redirect", "false") // which broker 1 has by its own value, the others by their files
	ask(b, "records from 0")
	replicas(2)
	set("", "skein.read.redirect", "true")
	ask(b, "to 1")
	if err := a.stop(); err != nil {
		t.Fatal(err)
	}
	b.await(func(m *queuemapper.Map) bool { return m.Broker(1) == nil })
	got, _ := b.fetchAs(b.dial(), 12, 0, func(q *kmsg.FetchRequest) { q.MaxWaitMillis = 100 })
	if outcome(&got) != "nothing" || got.HighWatermark != 80 {
		t.Errorf("the host is gone: %s, high watermark %d; want nothing, 80", outcome(&got), got.HighWatermark)
	}
	p := describedPartition(t, b, "t")
	if !slices.Equal(p.Replicas, []int32{2, 1}) || !slices.Equal(p.ISR, []int32{2}) || !slices.Equal(p.OfflineReplicas, []int32{1}) {
		t.Errorf("replicas %v, in sync %v, offline %v", p.Replicas, p.ISR, p.OfflineReplicas)
	}
}

// describedPartition is a topic's first partition in Metadata.
func describedPartition(t *testing.T, c *cluster, topic string) kmsg.MetadataResponseTopicPartition {
	t.Helper()
	req := kmsg.NewPtrMetadataRequest()
	req.SetVersion(9)
	rt := kmsg.NewMetadataRequestTopic()
	rt.Topic = &topic
	req.Topics = append(req.Topics, rt)
	resp := c.dial().ask(req).(*kmsg.MetadataResponse)
	return resp.Topics[0].Partitions[0]
}

// TestRedirectLogStart: what was deleted a host does not serve; its owner says what became of it.
func TestRedirectLogStart(t *testing.T) {
	cs, _ := moved(t, redirecting(nil))
	a, b := cs[0], cs[1]
	if got, _ := a.fetchAs(a.dial(), 12, 10); outcome(&got) != "records from 10" {
		t.Fatalf("before: %s", outcome(&got))
	}
	offsets := kadm.Offsets{}
	offsets.Add(kadm.Offset{Topic: "t", Partition: 0, At: 40})
	if r, err := kadm.NewClient(b.client()).DeleteRecords(t.Context(), offsets); err != nil || r.Error() != nil {
		t.Fatal(err, r.Error())
	}
	until(t, "the host knows the log start", func() bool {
		got, _ := a.fetchAs(a.dial(), 12, 10)
		return outcome(&got) == "to 2" && got.LogStartOffset == 40
	})
	if got, _ := b.fetchAs(b.dial(), 12, 10); outcome(&got) != "OFFSET_OUT_OF_RANGE" || got.LogStartOffset != -1 {
		t.Errorf("owner: %s", outcome(&got))
	}
	if got, _ := a.fetchAs(a.dial(), 12, 40); outcome(&got) != "records from 40" {
		t.Errorf("after: %s", outcome(&got))
	}
}

// TestRedirectMarks: a client that comes to a host is told no high watermark below what the owner told it; and when the owner
// cannot be asked, a new client is sent back, and one that reads there already goes on.
func TestRedirectMarks(t *testing.T) {
	cs, h := moved(t, redirecting(nil))
	a, b := cs[0], cs[1]
	at := b.dial()
	session := func(w *wire, id, epoch int32) *kmsg.FetchResponse {
		req := fetchRequest(12, a.b.topic("t"), 0)
		req.MaxWaitMillis, req.SessionID, req.SessionEpoch = 10_000, id, epoch
		return w.ask(req).(*kmsg.FetchResponse)
	}
	for range 20 {
		h.produce(t, b, 1)
		told, _ := b.fetchAs(at, 12, 60)
		got := session(a.dial(), 0, 0).Topics[0].Partitions[0]
		if got.HighWatermark < told.HighWatermark || outcome(&got) != "records from 0" {
			t.Fatalf("%s, high watermark %d, and the owner told %d", outcome(&got), got.HighWatermark, told.HighWatermark)
		}
	}
	w := a.dial()
	first := session(w, 0, 0)
	a.peers.refuse(2)
	for epoch := range int32(2) { // while the marks are new, and when they are old
		got := session(w, first.SessionID, epoch+1).Topics
		if len(got) != 1 || outcome(&got[0].Partitions[0]) != "records from 0" || got[0].Partitions[0].HighWatermark != 100 {
			t.Errorf("the owner is out of reach, a client that was here before: %+v", got)
		}
		time.Sleep(marksFor)
	}
	got := session(a.dial(), 0, 0).Topics[0].Partitions[0]
	if outcome(&got) != "to 2" || got.HighWatermark != -1 {
		t.Errorf("the owner is out of reach, a new client: %s, high watermark %d", outcome(&got), got.HighWatermark)
	}
}

// TestRedirectMarksAtOnce: the owner is asked for all partitions that a client reads at once.
func TestRedirectMarksAtOnce(t *testing.T) {
	cs := startBrokers(t, 2, 1, redirecting(map[string]string{"num.partitions": "6"}))
	a, b := cs[0], cs[1]
	h := newHistory("t", 6)
	h.produce(t, a, 1)
	moveTopic(t, b, a, "t")
	h.produce(t, a, 10)
	moveTopic(t, a, b, "t")
	a.await(func(m *queuemapper.Map) bool {
		for p := range int32(6) {
			if _, l, ok := m.Owner(m.Topic("t"), p); !ok || l.Host != 2 {
				return false
			}
		}
		return true
	})
	req := fetchRequest(12, a.b.topic("t"), 5, 5, 5, 5, 5, 5)
	for _, p := range a.dial().ask(req).(*kmsg.FetchResponse).Topics[0].Partitions {
		if outcome(&p) != "records from 5" || p.HighWatermark != 11 {
			t.Errorf("partition %d: %s, high watermark %d", p.Partition, outcome(&p), p.HighWatermark)
		}
	}
	if n := len(a.peers.asked(2, "Marks")); n != 1 {
		t.Errorf("the owner was asked %d times, want once", n)
	}
}

// TestRedirectSession: the answers of both sides in incremental fetch sessions, which name only what is new.
func TestRedirectSession(t *testing.T) {
	cs, _ := moved(t, redirecting(nil))
	for _, c := range []struct {
		at   *cluster
		want []string
	}{
		{cs[1], []string{"to 1", "records from 0", "records from 0"}}, // it stays, and does not say where it is
		{cs[0], []string{"records from 0", "records from 0", "records from 0"}},
	} {
		w := c.at.dial()
		req := fetchRequest(12, c.at.b.topic("t"), 0)
		req.MaxWaitMillis, req.SessionEpoch = 10_000, 0
		for i, want := range c.want {
			resp := w.ask(req).(*kmsg.FetchResponse)
			if resp.ErrorCode != 0 || resp.SessionID == 0 || len(resp.Topics) != 1 {
				t.Fatalf("broker %d, request %d: code %d, session %d, %d topics", c.at.id, i, resp.ErrorCode, resp.SessionID, len(resp.Topics))
			}
			if got := outcome(&resp.Topics[0].Partitions[0]); got != want {
				t.Errorf("broker %d, request %d: %s, want %s", c.at.id, i, got, want)
			}
			req.SessionID, req.SessionEpoch, req.Topics = resp.SessionID, int32(i+1), nil
		}
		end := fetchRequest(12, c.at.b.topic("t"), 60)
		end.MaxWaitMillis, end.SessionID, end.SessionEpoch = 10_000, req.SessionID, req.SessionEpoch
		resp := w.ask(end).(*kmsg.FetchResponse)
		want := "records from 60"
		if c.at == cs[0] {
			want = "to 2"
		}
		if got := outcome(&resp.Topics[0].Partitions[0]); got != want {
			t.Errorf("broker %d at 60: %s, want %s", c.at.id, got, want)
		}
	}
}

// consumeRedirected reads everything with a real client, a little at a time, calls between when it has so many, and judges
// that it is every record once and in order.
func consumeRedirected(t *testing.T, c *cluster, h *history, patience time.Duration, at int, between func()) error {
	t.Helper()
	cl := c.client(kgo.ConsumePartitions(map[string]map[int32]kgo.Offset{"t": {0: kgo.NewOffset().At(0)}}),
		kgo.FetchMaxBytes(300), kgo.FetchMaxPartitionBytes(300), kgo.MaxConcurrentFetches(1), kgo.Rack("r"))
	defer cl.Close()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	next := 0
	for next < len(h.acked[0]) {
		fs := cl.PollRecords(ctx, 3)
		if err := fs.Err0(); err != nil {
			return fmt.Errorf("after %d of %d: %w", next, len(h.acked[0]), err)
		}
		var wrong error
		fs.EachRecord(func(r *kgo.Record) {
			if next >= len(h.acked[0]) || r.Offset != h.acked[0][next].offset || string(r.Value) != h.acked[0][next].value {
				wrong = errors.Join(wrong, fmt.Errorf("offset %d, value %s, as number %d", r.Offset, r.Value, next))
			}
			if next++; next == at && between != nil {
				between()
			}
		})
		if wrong != nil {
			return wrong
		}
	}
	return nil
}

// TestRedirectedConsumer follows a real client to the host and back, also when the partition moves meanwhile, and when the host
// ends.
func TestRedirectedConsumer(t *testing.T) {
	t.Run("undisturbed", func(t *testing.T) {
		cs, h := moved(t, redirecting(nil))
		if err := consumeRedirected(t, cs[1], h, enough, 0, nil); err != nil {
			t.Fatal(err)
		}
		if n := count(cs[1].b.metrics.redirected); n != 1 {
			t.Errorf("%v redirects, want 1", n)
		}
		if hosted := count(cs[0].b.metrics.hostedBytes); hosted < 60*60 {
			t.Errorf("the host served %v bytes of about %d", hosted, 60*70)
		}
	})
	t.Run("moved on", func(t *testing.T) {
		cs, h := moved(t, redirecting(nil))
		err := consumeRedirected(t, cs[1], h, enough, 30, func() {
			moveTopic(t, cs[1], cs[2], "t")
			h.produce(t, cs[2], 20)
		})
		if err != nil {
			t.Fatal(err)
		}
		if hosted := count(cs[1].b.metrics.hostedBytes); hosted == 0 {
			t.Error("the second host served nothing")
		}
	})
	t.Run("moved to the host", func(t *testing.T) {
		cs, h := moved(t, redirecting(nil))
		err := consumeRedirected(t, cs[1], h, enough, 30, func() {
			moveTopic(t, cs[1], cs[0], "t")
			h.produce(t, cs[0], 20)
		})
		if err != nil {
			t.Fatal(err)
		}
	})
	t.Run("host restarts", func(t *testing.T) {
		cs, h := moved(t, redirecting(nil))
		back := make(chan struct{})
		err := consumeRedirected(t, cs[1], h, enough, 30, func() {
			if err := cs[0].stop(); err != nil {
				t.Error(err)
			}
			go func() {
				defer close(back)
				time.Sleep(300 * time.Millisecond) // the client meets a broker that is away
				cs[0].startAt(cs[0].addr)
			}()
		})
		<-back
		if err != nil {
			t.Fatal(err)
		}
	})
}

// kcatReads reads with librdkafka, as it comes but for the place where it starts again when it is told that its offset does not
// exist, and judges the same. It is skipped without kcat.
func kcatReads(t *testing.T, c *cluster, h *history) error {
	t.Helper()
	kcat, err := exec.LookPath("kcat")
	if err != nil {
		t.Skip("there is no kcat")
	}
	n := len(h.acked[0])
	ctx, cancel := context.WithTimeout(t.Context(), enough)
	defer cancel()
	out, err := exec.CommandContext(ctx, kcat, "-C", "-b", c.addr, "-t", "t", "-p", "0", "-o", "0", "-c", strconv.Itoa(n), "-q", "-u", "-f", "%o %s\n",
		"-X", "auto.offset.reset=earliest", "-X", "fetch.message.max.bytes=300", "-X", "topic.metadata.refresh.interval.ms=1000").Output()
	lines := strings.Split(strings.TrimSpace(string(out)), "\n")
	for i, line := range lines {
		if want := fmt.Sprintf("%d %s", h.acked[0][i].offset, h.acked[0][i].value); line != want {
			return fmt.Errorf("record %d is %q, want %q", i, line, want)
		}
	}
	if err != nil || len(lines) != n {
		return fmt.Errorf("%d records of %d: %v", len(lines), n, err)
	}
	return nil
}

// TestRedirectedKcat: librdkafka has its own ideas of offsets that do not exist, so that a wrong word from a host shows.
func TestRedirectedKcat(t *testing.T) {
	cs, h := moved(t, redirecting(nil))
	if err := kcatReads(t, cs[1], h); err != nil {
		t.Fatal(err)
	}
	if hosted := count(cs[0].b.metrics.hostedBytes); hosted < 60*60 {
		t.Errorf("the host served %v bytes of about %d", hosted, 60*70)
	}
}
