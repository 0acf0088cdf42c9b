package broker

import (
	"slices"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/skeinmq/skein/internal/ident"
	"github.com/skeinmq/skein/protocol"
	"github.com/skeinmq/skein/protocol/record"
)

// offsets lists the record offsets in an answer of format 2.
func offsets(t testing.TB, batches []byte) []int64 {
	t.Helper()
	var out []int64
	for r, err := range record.Records(batches, 0) {
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, r.Offset)
	}
	return out
}

func onePartition(t testing.TB, resp kmsg.Response) *kmsg.FetchResponseTopicPartition {
	t.Helper()
	r := resp.(*kmsg.FetchResponse)
	if r.ErrorCode != 0 || len(r.Topics) != 1 || len(r.Topics[0].Partitions) != 1 {
		t.Fatalf("code %d, %d topics", r.ErrorCode, len(r.Topics))
	}
	return &r.Topics[0].Partitions[0]
}

func TestFetchEveryVersion(t *testing.T) {
	c := startCluster(t, 1, Config{})
	topic := c.topic("t", 1, nil)
	w := c.dial()
	for v := int16(3); v <= 13; v++ {
		if got := w.produceTo(v, topic, 0, batch(10, time.Now())); got.ErrorCode != 0 {
			t.Errorf("produce v%d: code %d", v, got.ErrorCode)
		}
	}
	for v := range int16(19) {
		p := onePartition(t, w.ask(fetchRequest(v, topic, 15)))
		if p.ErrorCode != 0 || p.HighWatermark != 110 {
			t.Errorf("v%d: code %d, high watermark %d", v, p.ErrorCode, p.HighWatermark)
		}
		got := offsets(t, p.RecordBatches)
		want := int64(10) // the batch that holds the offset, from its start on
		if v < 4 {
			want = 15 // converted record by record
		}
		if len(got) == 0 || got[0] != want || got[len(got)-1] != 109 {
			t.Errorf("v%d: offsets %v, want %d to 109", v, got, want)
		}
	}
	// and what old producers send
	for v := range int16(3) {
		old, err := record.DownConvert(nil, batch(4, time.Now()), int8(min(v, 1)), 0, 0)
		if err != nil {
			t.Fatal(err)
		}
		if got := w.produceTo(v, topic, 0, old); got.ErrorCode != 0 || got.BaseOffset != 110+4*int64(v) {
			t.Errorf("produce v%d: code %d offset %d", v, got.ErrorCode, got.BaseOffset)
		}
	}
}

func TestFetchLimits(t *testing.T) {
	c := startCluster(t, 1, Config{})
	topic := c.topic("t", 3, nil)
	w := c.dial()
	one := batch(10, time.Now())
	for p := range int32(3) {
		for range 4 {
			w.produceTo(9, topic, p, slices.Clone(one))
		}
	}
	sizes := func(change func(*kmsg.FetchRequest)) (n []int) {
		req := fetchRequest(11, topic, 0, 0, 0)
		change(req)
		for _, p := range w.ask(req).(*kmsg.FetchResponse).Topics[0].Partitions {
			n = append(n, len(p.RecordBatches)/len(one))
		}
		return n
	}
	tests := []struct {
		name   string
		change func(*kmsg.FetchRequest)
		want   []int
	}{
		{"all", func(*kmsg.FetchRequest) {}, []int{4, 4, 4}},
		{"one at least", func(r *kmsg.FetchRequest) { r.MaxBytes = 1 }, []int{1, 0, 0}},
		{"five in all", func(r *kmsg.FetchRequest) { r.MaxBytes = int32(5*len(one) + 1) }, []int{4, 1, 0}},
		{"two of each", func(r *kmsg.FetchRequest) {
			for i := range r.Topics[0].Partitions {
				r.Topics[0].Partitions[i].PartitionMaxBytes = int32(2 * len(one))
			}
		}, []int{2, 2, 2}},
		{"first at its end", func(r *kmsg.FetchRequest) {
			r.Topics[0].Partitions[0].FetchOffset = 40
			r.MaxBytes = 1
		}, []int{0, 1, 0}},
	}
	for _, tt := range tests {
		if got := sizes(tt.change); !slices.Equal(got, tt.want) {
			t.Errorf("%s: batches %v, want %v", tt.name, got, tt.want)
		}
	}
}

func TestFetchRefusals(t *testing.T) {
	c := startCluster(t, 1, Config{})
	known := c.topic("t", 1, nil)
	w := c.dial()
	w.produceTo(9, known, 0, batch(10, time.Now()))
	epoch := int32(known.partition(0).open.Load().gen.Epoch)
	with := func(offset int64, epoch int32) *kmsg.FetchRequest {
		r := fetchRequest(12, known, offset)
		r.Topics[0].Partitions[0].CurrentLeaderEpoch = epoch
		return r
	}
	second := fetchRequest(11, known, 0)
	second.Topics[0].Partitions[0].Partition = 1
	tests := []struct {
		name string
		req  *kmsg.FetchRequest
		want protocol.Code
	}{
		{"fine", with(10, epoch), protocol.CodeNone},
		{"beyond the end", with(11, -1), protocol.CodeOffsetOutOfRange},
		{"negative", with(-1, -1), protocol.CodeOffsetOutOfRange},
		{"newer epoch", with(0, epoch+1), protocol.CodeUnknownLeaderEpoch},
		{"unknown topic", fetchRequest(11, &topic{name: "none"}, 0), protocol.CodeUnknownTopicOrPartition},
		{"unknown partition", second, protocol.CodeUnknownTopicOrPartition},
		{"unknown id", fetchRequest(13, &topic{id: newTopicID()}, 0), protocol.CodeUnknownTopicID},
		{"internal", fetchRequest(11, &topic{name: offsetsTopic}, 0), protocol.CodeNone},
		{"internal by id", fetchRequest(13, &topic{id: offsetsTopicID}, 0), protocol.CodeNone},
		{"internal beyond", fetchRequest(11, &topic{name: offsetsTopic}, 1), protocol.CodeOffsetOutOfRange},
	}
	for _, tt := range tests {
		tt.req.MaxWaitMillis = 0
		if got := onePartition(t, w.ask(tt.req)); got.ErrorCode != int16(tt.want) {
			t.Errorf("%s: code %s, want %s", tt.name, protocol.Code(got.ErrorCode), tt.want)
		}
	}
}

func TestFetchWaitsForData(t *testing.T) {
	c := startCluster(t, 1, Config{})
	topic := c.topic("t", 2, nil)
	w, p := c.dial(), c.dial()
	req := fetchRequest(11, topic, 0, 0)
	req.MaxWaitMillis = 600_000 // nobody waits that long for the answer
	id := w.send(req)
	p.produceTo(9, topic, 1, batch(3, time.Now()))
	resp := w.receive(id, req).(*kmsg.FetchResponse)
	if got := offsets(t, resp.Topics[0].Partitions[1].RecordBatches); len(got) != 3 {
		t.Errorf("woken with offsets %v", got)
	}
	// min_bytes: one batch is not enough, two are
	one := batch(3, time.Now())
	req = fetchRequest(11, topic, 0, 3)
	req.MaxWaitMillis, req.MinBytes = 600_000, int32(2*len(one))
	id = w.send(req)
	p.produceTo(9, topic, 0, slices.Clone(one))
	p.produceTo(9, topic, 1, slices.Clone(one))
	resp = w.receive(id, req).(*kmsg.FetchResponse)
	if n := len(resp.Topics[0].Partitions[0].RecordBatches) + len(resp.Topics[0].Partitions[1].RecordBatches); n < 2*len(one) {
		t.Errorf("%d bytes, want %d", n, 2*len(one))
	}
	// nothing comes: the answer does, in time
	req = fetchRequest(11, topic, 3, 6)
	req.MaxWaitMillis = 50
	start := time.Now()
	resp = w.ask(req).(*kmsg.FetchResponse)
	if took := time.Since(start); took < 50*time.Millisecond || len(resp.Topics[0].Partitions) != 2 {
		t.Errorf("answered after %v with %d partitions", took, len(resp.Topics[0].Partitions))
	}
}

func TestPeerThatGoesAwayEndsItsFetch(t *testing.T) {
	c := startCluster(t, 1, Config{})
	topic := c.topic("t", 1, nil)
	w := c.dial()
	req := fetchRequest(11, topic, 0)
	req.MaxWaitMillis = 600_000
	w.send(req)
	until(t, "the connection is there", func() bool { return c.b.server.len() == 1 })
	w.nc.Close()
	until(t, "the connection is gone", func() bool { return c.b.server.len() == 0 })
}

func TestDrainAnswersWaitingFetch(t *testing.T) {
	c := startCluster(t, 1, Config{})
	topic := c.topic("t", 1, nil)
	w := c.dial()
	req := fetchRequest(7, topic, 0)
	req.MaxWaitMillis, req.SessionEpoch = 600_000, 0
	id := w.send(req)
	until(t, "the fetch waits", func() bool { n, _ := c.b.sessions.size(); return n == 1 })
	stopped := make(chan error, 1)
	go func() { stopped <- c.stop() }()
	w.receive(id, req)
	w.closed()
	if err := <-stopped; err != nil {
		t.Error(err)
	}
}

func TestFetchSession(t *testing.T) {
	c := startCluster(t, 1, Config{})
	topic := c.topic("t", 3, nil)
	w := c.dial()
	w.produceTo(9, topic, 1, batch(5, time.Now()))

	full := fetchRequest(13, topic, 0, 0, 0)
	full.SessionEpoch = 0
	resp := w.ask(full).(*kmsg.FetchResponse)
	if resp.SessionID == 0 || len(resp.Topics[0].Partitions) != 3 {
		t.Fatalf("full: session %d, %d partitions", resp.SessionID, len(resp.Topics[0].Partitions))
	}
	session := resp.SessionID
	next := func(epoch int32, req *kmsg.FetchRequest) *kmsg.FetchResponse {
		req.SessionID, req.SessionEpoch = session, epoch
		return w.ask(req).(*kmsg.FetchResponse)
	}
	named := func(r *kmsg.FetchResponse) (out []int32) {
		for _, t := range r.Topics {
			for _, p := range t.Partitions {
				out = append(out, p.Partition)
			}
		}
		return out
	}
	advance := fetchRequest(13, topic, 0, 5)
	advance.Topics[0].Partitions = advance.Topics[0].Partitions[1:]
	if r := next(1, advance); r.ErrorCode != 0 || r.SessionID != session || len(named(r)) != 0 {
		t.Errorf("nothing new: code %d session %d partitions %v", r.ErrorCode, r.SessionID, named(r))
	}
	w.produceTo(9, topic, 2, batch(2, time.Now()))
	if r := next(2, fetchRequest(13, topic)); !slices.Equal(named(r), []int32{2}) {
		t.Errorf("after a commit: partitions %v, want 2", named(r))
	}
	// not asked for again and not advanced: it is told again
	if r := next(3, fetchRequest(13, topic)); !slices.Equal(named(r), []int32{2}) {
		t.Errorf("not advanced: partitions %v, want 2", named(r))
	}
	forget := fetchRequest(13, topic)
	ft := kmsg.NewFetchRequestForgottenTopic()
	ft.TopicID, ft.Partitions = topic.id, []int32{2}
	forget.ForgottenTopics = append(forget.ForgottenTopics, ft)
	if r := next(4, forget); len(named(r)) != 0 {
		t.Errorf("forgotten: partitions %v", named(r))
	}
	if r := next(4, fetchRequest(13, topic)); r.ErrorCode != int16(protocol.CodeInvalidFetchSessionEpoch) {
		t.Errorf("old epoch: code %d", r.ErrorCode)
	}
	if r := next(5, fetchRequest(12, topic)); r.ErrorCode != int16(protocol.CodeFetchSessionTopicIDError) {
		t.Errorf("names in a session of ids: code %d", r.ErrorCode)
	}
	if _, n := c.b.sessions.size(); n != 2 {
		t.Errorf("%d partitions in sessions, want 2", n)
	}
	last := fetchRequest(13, topic)
	if r := next(-1, last); r.ErrorCode != 0 || r.SessionID != 0 {
		t.Errorf("final: code %d session %d", r.ErrorCode, r.SessionID)
	}
	if r := next(5, fetchRequest(13, topic)); r.ErrorCode != int16(protocol.CodeFetchSessionIDNotFound) {
		t.Errorf("ended session: code %d", r.ErrorCode)
	}
	if n, parts := c.b.sessions.size(); n != 0 || parts != 0 {
		t.Errorf("%d sessions of %d partitions are left", n, parts)
	}
}

func TestFetchSessionSeesLogStartAndDeletion(t *testing.T) {
	c := startCluster(t, 1, Config{})
	topic := c.topic("t", 1, nil)
	w := c.dial()
	w.produceTo(9, topic, 0, batch(5, time.Now()))
	full := fetchRequest(12, topic, 5)
	full.SessionEpoch = 0
	session := w.ask(full).(*kmsg.FetchResponse).SessionID
	next := func(epoch int32) *kmsg.FetchResponse {
		req := fetchRequest(12, topic)
		req.SessionID, req.SessionEpoch = session, epoch
		return w.ask(req).(*kmsg.FetchResponse)
	}
	if r := next(1); len(r.Topics) != 0 {
		t.Errorf("nothing new, yet %d topics", len(r.Topics))
	}
	if to, err := c.b.deleteRecords(t.Context(), topic.partition(0), 3); err != nil || to != 3 {
		t.Fatal(to, err)
	}
	if p := onePartition(t, next(2)); p.LogStartOffset != 3 {
		t.Errorf("log start %d, want 3", p.LogStartOffset)
	}
	if err := c.b.store.DeleteTopic(t.Context(), "t", topic.id); err != nil {
		t.Fatal(err)
	}
	until(t, "the topic is gone", func() bool { return c.b.topic("t") == nil })
	req := fetchRequest(12, topic)
	req.SessionID, req.SessionEpoch, req.MaxWaitMillis = session, 3, 20_000
	if p := onePartition(t, w.ask(req)); p.ErrorCode != int16(protocol.CodeUnknownTopicOrPartition) {
		t.Errorf("deleted: code %d", p.ErrorCode)
	}
}

func TestListOffsets(t *testing.T) {
	c := startCluster(t, 1, Config{})
	topic := c.topic("t", 2, nil)
	w := c.dial()
	base := time.UnixMilli(1_700_000_000_000)
	for i := range 3 {
		w.produceTo(9, topic, 0, batch(10, base.Add(time.Duration(i)*time.Second)))
	}
	if _, err := c.b.deleteRecords(t.Context(), topic.partition(0), 5); err != nil {
		t.Fatal(err)
	}
	ms := base.UnixMilli()
	tests := []struct {
		name      string
		partition int32
		at        int64
		offset    int64
		stamp     int64
		code      protocol.Code
	}{
		{"latest", 0, timeLatest, 30, -1, 0},
		{"earliest", 0, timeEarliest, 5, -1, 0},
		{"earliest local", 0, timeEarliestLocal, 5, -1, 0},
		{"latest tiered", 0, timeLatestTiered, -1, -1, 0},
		{"earliest to upload", 0, timeEarliestUpload, -1, -1, 0},
		{"max timestamp", 0, timeMax, 29, ms + 2009, 0},
		{"before all", 0, 0, 5, ms + 5, 0},
		{"within a batch", 0, ms + 1003, 13, ms + 1003, 0},
		{"between batches", 0, ms + 1500, 20, ms + 2000, 0},
		{"after all", 0, ms + 5000, -1, -1, 0},
		{"empty latest", 1, timeLatest, 0, -1, 0},
		{"empty max", 1, timeMax, -1, -1, 0},
		{"empty time", 1, ms, -1, -1, 0},
		{"unknown special", 0, -9, -1, -1, protocol.CodeUnsupportedVersion},
		{"unknown partition", 7, timeLatest, -1, -1, protocol.CodeUnknownTopicOrPartition},
	}
	for _, tt := range tests {
		req := kmsg.NewPtrListOffsetsRequest()
		req.SetVersion(11)
		req.ReplicaID = -1
		rt := kmsg.NewListOffsetsRequestTopic()
		rt.Topic = "t"
		rp := kmsg.NewListOffsetsRequestTopicPartition()
		rp.Partition, rp.Timestamp, rp.CurrentLeaderEpoch = tt.partition, tt.at, -1
		rt.Partitions = append(rt.Partitions, rp)
		req.Topics = append(req.Topics, rt)
		p := w.ask(req).(*kmsg.ListOffsetsResponse).Topics[0].Partitions[0]
		if p.Offset != tt.offset || p.Timestamp != tt.stamp || p.ErrorCode != int16(tt.code) {
			t.Errorf("%s: offset %d at %d code %d, want %d at %d code %d", tt.name, p.Offset, p.Timestamp, p.ErrorCode, tt.offset, tt.stamp, tt.code)
		}
	}
}

func TestOffsetForLeaderEpoch(t *testing.T) {
	c := startCluster(t, 1, Config{})
	topic := c.topic("t", 1, nil)
	w := c.dial()
	w.produceTo(9, topic, 0, batch(10, time.Now()))
	epoch := int32(topic.partition(0).open.Load().gen.Epoch)
	for _, tt := range []struct {
		current, asked int32
		epoch          int32
		end            int64
		code           protocol.Code
	}{
		{-1, epoch, epoch, 10, 0}, {epoch, epoch, epoch, 10, 0}, {epoch, epoch + 1, -1, -1, 0},
		{epoch + 1, epoch, -1, -1, protocol.CodeUnknownLeaderEpoch},
	} {
		req := kmsg.NewPtrOffsetForLeaderEpochRequest()
		req.SetVersion(4)
		rt := kmsg.NewOffsetForLeaderEpochRequestTopic()
		rt.Topic = "t"
		rp := kmsg.NewOffsetForLeaderEpochRequestTopicPartition()
		rp.CurrentLeaderEpoch, rp.LeaderEpoch = tt.current, tt.asked
		rt.Partitions = append(rt.Partitions, rp)
		req.Topics = append(req.Topics, rt)
		p := w.ask(req).(*kmsg.OffsetForLeaderEpochResponse).Topics[0].Partitions[0]
		if p.LeaderEpoch != tt.epoch || p.EndOffset != tt.end || p.ErrorCode != int16(tt.code) {
			t.Errorf("%+v: %+v", tt, p)
		}
	}
}

func TestRetention(t *testing.T) {
	c := startCluster(t, 1, Config{})
	old := c.topic("old", 1, map[string]string{"retention.ms": "1000"})
	kept := c.topic("kept", 1, nil)
	w := c.dial()
	w.produceTo(9, old, 0, batch(10, time.Now().Add(-time.Hour)))
	w.produceTo(9, kept, 0, batch(10, time.Now().Add(-time.Hour)))
	c.b.retain(t.Context(), time.Now().UnixMilli())
	for _, tt := range []struct {
		topic *topic
		want  ident.Offset
	}{{old, 10}, {kept, 0}} {
		if got := tt.topic.partition(0).open.Load().queue.LogStart(); got != tt.want {
			t.Errorf("%s: log start %d, want %d", tt.topic.name, got, tt.want)
		}
	}
}
