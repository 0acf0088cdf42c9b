package broker

import (
	"bytes"
	"errors"
	"io"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/skeinmq/skein/internal/ident"
	"github.com/skeinmq/skein/internal/peer/peerpb"
	"github.com/skeinmq/skein/queuemapper"
)

// fillRemote writes records that do not compress at one broker and moves them behind another; it returns the values.
func fillRemote(t *testing.T, from, to *cluster, topic string, records, size, buffered int) [][]byte {
	t.Helper()
	from.topic(topic, 1, map[string]string{"max.message.bytes": "8000000"})
	cl := from.client(kgo.ProducerBatchMaxBytes(7_000_000), kgo.ProducerBatchCompression(kgo.NoCompression()), kgo.ProducerLinger(0), kgo.MaxBufferedRecords(buffered))
	rng := rand.NewChaCha8([32]byte{1})
	var values [][]byte
	for range records {
		v := make([]byte, size)
		rng.Read(v)
		values = append(values, v)
		cl.Produce(t.Context(), &kgo.Record{Topic: topic, Value: v}, func(_ *kgo.Record, err error) {
			if err != nil {
				t.Errorf("produce: %v", err)
			}
		})
	}
	if err := cl.Flush(t.Context()); err != nil {
		t.Fatal(err)
	}
	to.await(func(m *queuemapper.Map) bool { return m.Topic(topic) != nil })
	moveTopic(t, from, to, topic)
	return values
}

func checkValues(t *testing.T, c *cluster, topic string, want [][]byte) {
	t.Helper()
	for i, r := range consume(t, c.client(kgo.ConsumeTopics(topic), kgo.FetchMaxWait(200*time.Millisecond)), len(want)) {
		if i >= len(want) || r.Offset != int64(i) || !bytes.Equal(r.Value, want[i]) {
			t.Fatalf("record %d: offset %d, %d bytes, want those that were written", i, r.Offset, len(r.Value))
		}
	}
}

// TestRemoteLargeBatches reads batches through the other broker that are larger than a message between brokers.
func TestRemoteLargeBatches(t *testing.T) {
	cs := startBrokers(t, 2, 1, Config{Static: map[string]string{"message.max.bytes": "8000000"}})
	checkValues(t, cs[1], "t", fillRemote(t, cs[0], cs[1], "t", 5, 3_500_000, 2))
}

// TestRemoteHostFails breaks streams off in the middle, again and again: readers get each record once, in order.
func TestRemoteHostFails(t *testing.T) {
	cs := startBrokers(t, 2, 1, Config{Static: map[string]string{"message.max.bytes": "8000000"}})
	want := fillRemote(t, cs[0], cs[1], "t", 60, 200_000, 4)
	sent, broken := 0, 0
	cs[1].peers.mu.Lock()
	cs[1].peers.onSend = func(_ ident.Broker, method string) error { // the test's network calls it one at a time for one stream
		cs[1].peers.mu.Lock()
		defer cs[1].peers.mu.Unlock()
		if sent++; method == "Read" && sent%3 == 2 && broken < 4 {
			broken++
			return status.Error(codes.Unavailable, "planted")
		}
		return nil
	}
	cs[1].peers.mu.Unlock()
	checkValues(t, cs[1], "t", want)
	if broken == 0 {
		t.Error("no stream was broken off")
	}
}

// TestRemoteSlowClients asks for other brokers' records on connections that nobody reads: what they hold is bounded, a
// client that reads is served, and when they are gone nothing is held.
func TestRemoteSlowClients(t *testing.T) {
	cs := startBrokers(t, 2, 1, Config{MemoryBytes: 32 << 20, Static: map[string]string{"message.max.bytes": "8000000"}})
	want := fillRemote(t, cs[0], cs[1], "t", 40, 400_000, 1)
	b := cs[1].b
	var deaf []*wire
	for range 60 {
		w := cs[1].dial()
		for range 4 {
			w.send(fetchRequest(12, b.topic("t"), 0))
		}
		deaf = append(deaf, w)
	}
	checkValues(t, cs[1], "t", want)
	// Each connection may hold one batch beyond the budget.
	if held, most := b.answers.Load(), b.answersLimit+60*401_000; held > most {
		t.Errorf("%d bytes are held, want at most %d", held, most)
	}
	for _, w := range deaf {
		w.nc.Close()
	}
	until(t, "nothing is held when nobody reads", func() bool { return b.answers.Load() == 0 }) // connections end by and by
}

// TestReadsBounds asks a host for what a run does not hold: nothing outside the bounds is served (O21).
func TestReadsBounds(t *testing.T) {
	cs := startBrokers(t, 2, 1, Config{})
	a, b := cs[0], cs[1]
	a.topic("t", 1, nil)
	h := newHistory("t", 1)
	h.produce(t, a, 20)
	moveTopic(t, a, b, "t")
	h.produce(t, b, 20)
	moveTopic(t, b, a, "t")
	h.produce(t, a, 20)
	m := b.b.store.Map()
	run := m.Runs(m.Topic("t"), 0)[1] // of the three, the one at b
	p := b.b.topic("t").partition(0)
	conn, err := a.peers.Conn(2)
	if err != nil {
		t.Fatal(err)
	}
	rpc := peerpb.NewReadsClient(conn)
	ref := func(change func(*peerpb.RunRef)) *peerpb.RunRef {
		r := refOf(p, run)
		m := r.Message()
		if change != nil {
			change(m)
		}
		return m
	}
	tests := map[string]struct {
		rq   *peerpb.ReadRequest
		code codes.Code
		next int64
	}{
		"all":                 {&peerpb.ReadRequest{Run: ref(nil), From: 20, End: 40, MaxBytes: 1 << 20}, codes.OK, 40},
		"a part":              {&peerpb.ReadRequest{Run: ref(nil), From: 20, End: 30, MaxBytes: 1 << 20}, codes.OK, 30},
		"beyond the end":      {&peerpb.ReadRequest{Run: ref(nil), From: 20, End: 60, MaxBytes: 1 << 20}, codes.OK, 40},
		"before the start":    {&peerpb.ReadRequest{Run: ref(nil), From: 10, End: 40, MaxBytes: 1 << 20}, codes.InvalidArgument, 0},
		"at the end":          {&peerpb.ReadRequest{Run: ref(nil), From: 40, End: 50, MaxBytes: 1 << 20}, codes.InvalidArgument, 0},
		"another generation":  {&peerpb.ReadRequest{Run: ref(func(r *peerpb.RunRef) { r.Generation.Epoch++ }), From: 20, End: 40, MaxBytes: 1 << 20}, codes.NotFound, 0},
		"another frame":       {&peerpb.ReadRequest{Run: ref(func(r *peerpb.RunRef) { r.Generation.FramePosition++ }), From: 20, End: 40, MaxBytes: 1 << 20}, codes.NotFound, 0},
		"another partition":   {&peerpb.ReadRequest{Run: ref(func(r *peerpb.RunRef) { r.Index = 7 }), From: 20, End: 40, MaxBytes: 1 << 20}, codes.NotFound, 0},
		"another log":         {&peerpb.ReadRequest{Run: ref(func(r *peerpb.RunRef) { r.Log = make([]byte, 16) }), From: 20, End: 40, MaxBytes: 1 << 20}, codes.Unavailable, 0},
		"an end that is late": {&peerpb.ReadRequest{Run: ref(func(r *peerpb.RunRef) { r.End = 60 }), From: 40, End: 60, MaxBytes: 1 << 20}, codes.Unavailable, 0},
		"no run":              {&peerpb.ReadRequest{From: 20, End: 40, MaxBytes: 1 << 20}, codes.InvalidArgument, 0},
		"no log":              {&peerpb.ReadRequest{Run: ref(func(r *peerpb.RunRef) { r.Log = nil }), From: 20, End: 40}, codes.InvalidArgument, 0},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			stream, err := rpc.Read(t.Context(), tt.rq)
			if err != nil {
				t.Fatal(err)
			}
			next := int64(0)
			for err == nil {
				var reply *peerpb.ReadReply
				if reply, err = stream.Recv(); err == nil {
					next = reply.Next
				}
			}
			if errors.Is(err, io.EOF) {
				err = nil
			}
			if status.Code(err) != tt.code || next != tt.next {
				t.Errorf("%v, up to %d; want %v, %d", err, next, tt.code, tt.next)
			}
		})
	}
	found, err := rpc.Lookup(t.Context(), &peerpb.LookupRequest{Run: ref(nil), From: 0, MaxTimestamp: true})
	if err != nil || !found.Found || found.Offset < 20 || found.Offset >= 40 {
		t.Errorf("look-up: %v, %v", found, err)
	}
	seg, err := rpc.Segments(t.Context(), &peerpb.SegmentsRequest{Run: ref(nil)})
	if err != nil || !seg.Complete || len(seg.Segments) == 0 || seg.Segments[0].First != 20 || seg.Segments[len(seg.Segments)-1].End != 40 {
		t.Errorf("segments: %v, %v", seg, err)
	}
}
