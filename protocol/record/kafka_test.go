package record

import (
	"bufio"
	"errors"
	"flag"
	"fmt"
	"net"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/skeinmq/skein/protocol"
)

var kafka = flag.String("kafka", "", "ask this Apache Kafka broker, HOST:PORT, for the outcomes and rewrite the golden file")

const outcomesFile = "testdata/golden/kafka-4.3-outcomes.txt"

// asked is a batch whose fate Apache Kafka has decided.
type asked struct {
	name    string
	version int16
	records []byte
	config  map[string]string
	rules   Rules
}

func askedCases() []asked {
	now := time.Now().UnixMilli()
	at := func(c Codec, n int, timestamps ...int64) []byte {
		b := Builder{Codec: c}
		for i := range n {
			b.Append(now+timestamps[i%len(timestamps)], []byte("k"), []byte("value"))
		}
		return b.AppendBatch(nil)
	}
	fix := func(b []byte, f func(*Header)) []byte {
		h := header(b)
		f(&h)
		h.put(b)
		h.CRC = Checksum(b)
		h.put(b)
		return b
	}
	raw := func(codec Codec, records []byte, count int32) []byte {
		h := Header{Attributes: Attributes(codec), BaseTimestamp: now, MaxTimestamp: now, ProducerID: -1, ProducerEpoch: -1, BaseSequence: -1, Count: count, LastOffsetDelta: count - 1}
		return appendBatch(nil, &h, 0, records)
	}
	plain := at(None, 2, 0)[HeaderSize:]
	flipped := at(None, 2, 0)
	flipped[len(flipped)-1] ^= 1
	noKey := func(c Codec) []byte {
		b := Builder{Codec: c}
		b.Append(now, []byte("k"), nil)
		b.Append(now, nil, []byte("v"))
		return b.AppendBatch(nil)
	}
	gaps := func(c Codec) []byte {
		b := Builder{Codec: c}
		for i := range int32(3) {
			b.appendElement(&element{value: []byte{byte(i)}}, now, 2*i)
		}
		return fix(b.AppendBatch(nil), func(h *Header) { h.LastOffsetDelta = 2 })
	}
	base := Rules{MaxBytes: 1048588, AllowZstd: true, Now: now, AfterMax: 3_600_000}
	var out []asked
	add := func(name string, records []byte, change func(*asked)) {
		a := asked{name: name, version: 9, records: records, rules: base, config: map[string]string{}}
		if change != nil {
			change(&a)
		}
		out = append(out, a)
	}
	compact := func(a *asked) { a.config["cleanup.policy"], a.rules.RequireKeys = "compact", true }
	stamped := func(a *asked) { a.config["message.timestamp.type"], a.rules.LogAppendTime = "LogAppendTime", true }
	strict := func(a *asked) {
		a.config["message.timestamp.before.max.ms"], a.rules.BeforeMax = "100000", 100_000
		a.config["message.timestamp.after.max.ms"], a.rules.AfterMax = "100000", 100_000
	}
	// Null records are no case: Kafka 4.3 stumbles over them and never answers.
	add("empty records", []byte{}, nil)
	add("garbage of 10 bytes", make([]byte, 10), nil)
	add("garbage of 100 bytes", make([]byte, 100), nil)
	add("batch cut", at(None, 2, 0)[:80], nil)
	add("magic 3", fix(at(None, 1, 0), func(h *Header) { h.Magic = 3 }), nil)
	add("magic 1", fix(at(None, 1, 0), func(h *Header) { h.Magic = 1 }), nil)
	add("length 40", fix(at(None, 1, 0), func(h *Header) { h.Length = 40 }), nil)
	add("two batches", append(at(None, 1, 0), at(None, 1, 0)...), nil)
	add("short tail", append(at(None, 1, 0), 1, 2, 3), nil)
	add("tail of zeroes", append(at(None, 1, 0), make([]byte, 20)...), nil)
	add("cut batch behind", append(at(None, 1, 0), at(None, 1, 0)[:60]...), nil)
	add("bad crc", flipped, nil)
	add("zstd v6", at(Zstd, 2, 0), func(a *asked) { a.version, a.rules.AllowZstd = 6, false })
	add("base offset 5", fix(at(None, 2, 0), func(h *Header) { h.BaseOffset = 5 }), nil)
	add("too large", at(None, 10, 0), func(a *asked) { a.config["max.message.bytes"], a.rules.MaxBytes = "100", 100 })
	add("too large and bad crc", flipped, func(a *asked) { a.config["max.message.bytes"], a.rules.MaxBytes = "70", 70 })
	add("count 0", fix(at(None, 1, 0), func(h *Header) { h.Count = 0 }), nil)
	add("count -1", fix(at(None, 1, 0), func(h *Header) { h.Count = -1 }), nil)
	add("count disagrees", fix(at(None, 2, 0), func(h *Header) { h.Count = 3 }), nil)
	add("negative delta", fix(at(None, 1, 0), func(h *Header) { h.LastOffsetDelta = -1 }), nil)
	add("count and delta disagree with records", fix(at(None, 2, 0), func(h *Header) { h.Count, h.LastOffsetDelta = 3, 2 }), nil)
	add("one record unaccounted for", fix(at(None, 2, 0), func(h *Header) { h.Count, h.LastOffsetDelta = 1, 0 }), nil)
	add("control", fix(at(None, 1, 0), func(h *Header) { h.Attributes |= attrControl }), nil)
	add("producer without sequence", fix(at(None, 1, 0), func(h *Header) { h.ProducerID, h.ProducerEpoch = 5, 0 }), nil)
	add("sequence without producer", fix(at(None, 1, 0), func(h *Header) { h.BaseSequence = 3 }), nil)
	add("log append time by client to such a topic", fix(at(None, 1, 0), func(h *Header) { h.Attributes |= attrLogAppendTime }), stamped)
	add("delete horizon by client", fix(at(None, 1, 0), func(h *Header) { h.Attributes |= attrDeleteHorizon }), nil)
	add("unknown attribute", fix(at(None, 1, 0), func(h *Header) { h.Attributes |= 1 << 9 }), nil)
	add("record cut", raw(None, plain[:len(plain)-1], 2), nil)
	add("bytes behind records", raw(None, append(slices.Clone(plain), 0), 2), nil)
	add("negative header count", raw(None, []byte{14, 0, 0, 0, 1, 1, 1, 0}, 1), nil)
	add("record length off", raw(None, []byte{16, 0, 0, 0, 1, 1, 0, 0, 0}, 1), nil)
	for _, c := range codecs {
		name := c.String() + ": "
		add(name+"valid", at(c, 3, 0, 5, 2), nil)
		for _, to := range codecs {
			add(name+"recompressed to "+to.String(), at(c, 3, 0, 5, 2), func(a *asked) {
				a.config["compression.type"], a.rules.Recompress, a.rules.Codec = strings.Replace(to.String(), "none", "uncompressed", 1), true, to
			})
		}
		add(name+"stamped", at(c, 3, 0), stamped)
		add(name+"wrong max timestamp", fix(at(c, 3, 0), func(h *Header) { h.MaxTimestamp += 77 }), nil)
		add(name+"no key on compacted topic", noKey(c), compact)
		add(name+"far future", at(c, 3, 0, 7_200_000), nil)
		add(name+"past on strict topic", at(c, 3, 0, -200_000), strict)
		add(name+"future and no key", append([]byte(nil), at(c, 1, 7_200_000)...), compact)
		add(name+"gaps in offsets", gaps(c), nil)
		add(name+"log append time by client", fix(at(c, 1, 0), func(h *Header) { h.Attributes |= attrLogAppendTime }), nil)
		add(name+"no timestamp", at(c, 2, -now-1), strict)
	}
	for _, c := range codecs[1:] {
		add(c.String()+": not compressed at all", fix(raw(None, plain, 2), func(h *Header) { h.Attributes |= Attributes(c) }), nil)
		add(c.String()+": one record unaccounted for", fix(at(c, 2, 0), func(h *Header) { h.Count, h.LastOffsetDelta = 1, 0 }), nil)
		add(c.String()+": count too high", fix(at(c, 2, 0), func(h *Header) { h.Count, h.LastOffsetDelta = 3, 2 }), nil)
		cut := at(c, 50, 0)
		add(c.String()+": stream cut", raw(c, nil, 1)[:HeaderSize:HeaderSize], func(a *asked) {
			h := header(cut)
			h.Length = int32(len(cut) - 4 - overhead)
			b := slices.Clone(cut[:len(cut)-4])
			h.put(b)
			h.CRC = Checksum(b)
			h.put(b)
			a.records = b
		})
	}
	return out
}

// describe tells what was stored, times relative to now.
func describe(b []byte, now int64, stamped bool) string {
	if len(b) == 0 {
		return "nothing"
	}
	h := header(b)
	max := fmt.Sprint(h.MaxTimestamp - now)
	if h.MaxTimestamp == NoTimestamp {
		max = "none"
	}
	if stamped {
		max = "stamp"
	}
	deltas := ""
	for r, err := range Records(b, 0) {
		if err != nil {
			return "unreadable"
		}
		deltas += fmt.Sprintf(" %d", r.Offset-h.BaseOffset)
	}
	return fmt.Sprintf("attributes %d, count %d, delta %d, max timestamp %s, offsets%s", h.Attributes, h.Count, h.LastOffsetDelta, max, deltas)
}

// ours returns what Validate makes of it, as a Kafka code.
func (a *asked) ours() string {
	got, err := Validate(slices.Clone(a.records), &a.rules)
	code := protocol.CodeNone
	for kind, c := range map[error]protocol.Code{ErrCorrupt: protocol.CodeCorruptMessage, ErrInvalid: protocol.CodeInvalidRecord, ErrTimestamp: protocol.CodeInvalidTimestamp,
		ErrTooLarge: protocol.CodeMessageTooLarge, ErrCodec: protocol.CodeUnsupportedCompressionType} {
		if errors.Is(err, kind) {
			code = c
		}
	}
	var e *Error
	n := 0
	if errors.As(err, &e) && a.version >= 8 { // older answers do not carry them
		n = len(e.Records)
	}
	return fmt.Sprintf("%s, %d record errors, %s", code, n, describe(got.Bytes, a.rules.Now, a.rules.LogAppendTime))
}

// onPurpose are the cases in which we answer otherwise than Kafka, and why.
var onPurpose = func() map[string]string {
	m := map[string]string{"none: gaps in offsets": "Kafka stores offsets that overlap those of the next batch; we close the gaps"}
	for _, c := range codecs[1:] {
		m[c.String()+": gaps in offsets"] = "Kafka fails to rewrite such a batch"
		m[c.String()+": stream cut"] = "Kafka has no better code; INVALID_RECORD tells what is wrong"
		m[c.String()+": not compressed at all"] = "the same"
	}
	return m
}()

func TestOutcomesAreKafkas(t *testing.T) {
	cases := askedCases()
	if *kafka != "" {
		var out strings.Builder
		conn, err := net.Dial("tcp", *kafka)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		for i := range cases {
			fmt.Fprintf(&out, "%s | %s\n", cases[i].name, cases[i].theirs(t, conn, fmt.Sprintf("case-%d-%d", cases[i].rules.Now, i)))
		}
		if err := os.WriteFile(outcomesFile, []byte(out.String()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	golden, err := os.Open(outcomesFile)
	if err != nil {
		t.Fatal(err)
	}
	defer golden.Close()
	s := bufio.NewScanner(golden)
	for i := range cases {
		if !s.Scan() {
			t.Fatal("golden file is too short: run with -kafka")
		}
		name, want, _ := strings.Cut(s.Text(), " | ")
		if name != cases[i].name {
			t.Fatalf("golden file has %q in place of %q: run with -kafka", name, cases[i].name)
		}
		got := cases[i].ours()
		if reason := onPurpose[name]; (got != want) != (reason != "") {
			t.Errorf("%s (on purpose: %q):\n  ours %s\n kafka %s", name, reason, got, want)
		}
	}
}

// theirs asks the broker: makes a topic, produces, fetches what was stored.
func (a *asked) theirs(t *testing.T, conn net.Conn, topic string) string {
	create := kmsg.NewPtrCreateTopicsRequest()
	create.TimeoutMillis = 10_000
	ct := kmsg.NewCreateTopicsRequestTopic()
	ct.Topic, ct.NumPartitions, ct.ReplicationFactor = topic, 1, 1
	for k, v := range a.config {
		c := kmsg.NewCreateTopicsRequestTopicConfig()
		c.Name, c.Value = k, &v
		ct.Configs = append(ct.Configs, c)
	}
	create.Topics = append(create.Topics, ct)
	if code := ask(t, conn, create, 5).(*kmsg.CreateTopicsResponse).Topics[0].ErrorCode; code != 0 {
		t.Fatalf("create topic: %v", protocol.Code(code))
	}
	var pp *kmsg.ProduceResponseTopicPartition
	for try := 0; ; try++ {
		produce := kmsg.NewPtrProduceRequest()
		produce.Acks, produce.TimeoutMillis = -1, 10_000
		pt, p := kmsg.NewProduceRequestTopic(), kmsg.NewProduceRequestTopicPartition()
		pt.Topic, p.Records = topic, a.records
		pt.Partitions = append(pt.Partitions, p)
		produce.Topics = append(produce.Topics, pt)
		pp = &ask(t, conn, produce, a.version).(*kmsg.ProduceResponse).Topics[0].Partitions[0]
		// The broker learns of a topic a moment after it was made.
		if c := protocol.Code(pp.ErrorCode); c != protocol.CodeUnknownTopicOrPartition && c != protocol.CodeNotLeaderOrFollower || try > 2000 {
			break
		}
	}
	fetch := kmsg.NewPtrFetchRequest()
	fetch.MaxBytes = 1 << 20
	ft, fp := kmsg.NewFetchRequestTopic(), kmsg.NewFetchRequestTopicPartition()
	ft.Topic, fp.PartitionMaxBytes = topic, 1<<20
	ft.Partitions = append(ft.Partitions, fp)
	fetch.Topics = append(fetch.Topics, ft)
	stored := ask(t, conn, fetch, 11).(*kmsg.FetchResponse).Topics[0].Partitions[0].RecordBatches
	return fmt.Sprintf("%s, %d record errors, %s", protocol.Code(pp.ErrorCode), len(pp.ErrorRecords), describe(stored, a.rules.Now, a.rules.LogAppendTime))
}

// ask sends one request and reads its answer.
func ask(t *testing.T, conn net.Conn, req kmsg.Request, version int16) kmsg.Response {
	t.Helper()
	req.SetVersion(version)
	h := protocol.RequestHeader{Key: protocol.APIKey(req.Key()), Version: version, ClientID: "record-test"}
	frame := req.AppendTo(h.AppendTo(protocol.AppendFrameSize(nil)))
	protocol.EndFrame(frame, 0)
	if _, err := conn.Write(frame); err != nil {
		t.Fatal(err)
	}
	r := bufio.NewReader(conn)
	size, err := protocol.ReadFrameSize(r, 1<<24)
	if err != nil {
		t.Fatal(err)
	}
	body := make([]byte, size)
	if err := protocol.ReadFrame(r, body); err != nil {
		t.Fatal(err)
	}
	resp := req.ResponseKind()
	resp.SetVersion(version)
	body = body[len(protocol.AppendResponseHeader(nil, h.Key, version, 0)):]
	if err := resp.ReadFrom(body); err != nil {
		t.Fatal(err)
	}
	return resp
}
