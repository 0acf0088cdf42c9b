package main

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/skeinmq/skein/test/conformance/record"
)

const (
	seedBatch   = 20  // records in each batch of the seed topic
	seedCount   = 100 // records in it: one batch a codec
	codecCount  = 50
	idemCount   = 200
	groupParts  = 4
	groupRounds = 10 // records a partition holds at the end of the group case
	commitFirst = 37 // records that the first member of the commit case reads
	trimBefore  = 7
)

var codecs = []string{"none", "gzip", "snappy", "lz4", "zstd"}

// facts are what a case is run with: the parameters for the client, and what
// the driver asks the broker afterwards, by a connection of its own.
type facts struct {
	params map[string]string
	verify func(ctx context.Context) error
}

// stage prepares cases on the broker and checks their effects.
type stage struct {
	cl    *kgo.Client
	adm   *kadm.Client
	addr  string // the broker, where the driver connects
	run   string // begins every topic and group name of this run
	base  int64  // time base of all records of this run, in ms
	limit time.Duration
	// factor is the replication factor of topics.
	factor int16
	faults bool // brokers are killed

	// The self-test puts a proxy before the clients and changes these between its rounds.
	clients string            // where clients connect
	round   string            // part of topic and group names
	configs map[string]string // of the topics created for cases
	proxies map[string]*proxy // by client, when a run is traced
}

func newStage(addr string, limit time.Duration) (*stage, error) {
	cl, err := kgo.NewClient(kgo.SeedBrokers(addr), kgo.MetadataMinAge(50*time.Millisecond), kgo.RecordPartitioner(kgo.ManualPartitioner()),
		kgo.ProducerLinger(100*time.Millisecond))
	if err != nil {
		return nil, fmt.Errorf("open control connection: %w", err)
	}
	now := time.Now()
	return &stage{cl: cl, adm: kadm.NewClient(cl), addr: addr, clients: addr, run: "cf" + strconv.FormatInt(now.UnixMilli()%1e9, 36),
		base: now.Add(-time.Hour).UnixMilli(), limit: limit}, nil
}

// awaitBrokers returns how many brokers there are, once all that were started are listed: one learns of another a moment after that
// one is ready.
func (s *stage) awaitBrokers(ctx context.Context, o options) (int, error) {
	ctx, cancel := context.WithTimeout(ctx, s.limit)
	defer cancel()
	for {
		list, err := s.adm.ListBrokers(ctx)
		if err != nil {
			return 0, fmt.Errorf("list brokers: %w", err)
		}
		if o.bootstrap != "" || len(list) >= o.brokers {
			return len(list), nil
		}
		select {
		case <-time.After(50 * time.Millisecond):
		case <-ctx.Done():
			return 0, fmt.Errorf("list brokers: %d of %d after %v", len(list), o.brokers, s.limit)
		}
	}
}

// clientAddr is where a client connects: the broker, or the proxy before it.
func (s *stage) clientAddr(c client) string {
	if p := s.proxies[c.name]; p != nil {
		return p.addr()
	}
	return s.clients
}

func (s *stage) close() { s.cl.Close() }

func (s *stage) set(salt string, loose bool) record.Set {
	return record.Set{Salt: salt, TimeBase: s.base, Loose: loose}
}

func (s *stage) seedTopic() string { return s.run + "-seed" }

// seed writes the topic that all clients consume: 20 records a batch, one batch a codec.
func (s *stage) seed(ctx context.Context) error {
	if err := s.createTopic(ctx, s.seedTopic(), 1); err != nil {
		return err
	}
	for i, codec := range codecs {
		if err := s.produceBatch(ctx, s.seedTopic(), codec, i*seedBatch, seedBatch); err != nil {
			return fmt.Errorf("write seed topic: %w", err)
		}
	}
	got, err := s.batches(ctx, s.seedTopic(), seedCount)
	if err != nil {
		return fmt.Errorf("read seed topic: %w", err)
	}
	for i, b := range got {
		if len(got) != len(codecs) || b.first != int64(i*seedBatch) || b.records != seedBatch || b.codec != codecs[i] {
			return fmt.Errorf("read seed topic: batches %+v, want one of %d records for each of %v", got, seedBatch, codecs)
		}
	}
	return nil
}

func (s *stage) createTopic(ctx context.Context, topic string, partitions int32) error {
	configs := map[string]*string{}
	for k, v := range s.configs {
		configs[k] = &v
	}
	if _, err := s.adm.CreateTopic(ctx, partitions, s.factor, configs, topic); err != nil && !(s.faults && errors.Is(err, kerr.TopicAlreadyExists)) {
		return fmt.Errorf("create topic %s: %w", topic, err)
	}
	return nil
}

// produceBatch writes n records as one batch, by a client of its own for the codec.
func (s *stage) produceBatch(ctx context.Context, topic, codec string, from, n int) error {
	compress := map[string]kgo.CompressionCodec{"none": kgo.NoCompression(), "gzip": kgo.GzipCompression(), "snappy": kgo.SnappyCompression(),
		"lz4": kgo.Lz4Compression(), "zstd": kgo.ZstdCompression()}[codec]
	cl, err := kgo.NewClient(kgo.SeedBrokers(s.addr), kgo.RecordPartitioner(kgo.ManualPartitioner()), kgo.ProducerBatchCompression(compress),
		kgo.ProducerLinger(200*time.Millisecond))
	if err != nil {
		return err
	}
	defer cl.Close()
	var recs []*kgo.Record
	for _, r := range s.set(topic, false).Range(0, int64(from), n) {
		k := &kgo.Record{Topic: topic, Key: r.Key, Value: r.Value, Timestamp: time.UnixMilli(r.Timestamp)}
		for _, h := range r.Headers {
			k.Headers = append(k.Headers, kgo.RecordHeader{Key: h.Key, Value: h.Value})
		}
		recs = append(recs, k)
	}
	return cl.ProduceSync(ctx, recs...).FirstErr()
}

// prepare makes what a case needs on the broker and returns its facts.
func (s *stage) prepare(ctx context.Context, c client, name string) (facts, error) {
	topic := s.run + "-" + s.round + c.name + "-" + name
	f := facts{params: map[string]string{
		"case": name, "bootstrap": s.clientAddr(c), "topic": topic, "group": topic, "salt": topic, "loose": strconv.FormatBool(c.loose),
		"timebase": strconv.FormatInt(s.base, 10), "seconds": strconv.Itoa(int(s.limit.Seconds()) - 5),
		"faults": strconv.FormatBool(s.faults),
	}}
	set := func(kv ...string) {
		for i := 0; i < len(kv); i += 2 {
			f.params[kv[i]] = kv[i+1]
		}
	}
	switch name {
	case "none", "gzip", "snappy", "lz4", "zstd":
		set("case", "produce", "codec", name, "count", strconv.Itoa(codecCount))
		f.verify = func(ctx context.Context) error { return s.verifyCodec(ctx, topic, name, c.loose) }
		return f, s.createTopic(ctx, topic, 1)
	case "idempotent":
		set("codec", "none", "count", strconv.Itoa(idemCount), "parts", "5")
		f.verify = func(ctx context.Context) error { return s.verifyIdempotent(ctx, topic) }
		return f, s.createTopic(ctx, topic, 1)
	case "start", "timestamp", "midbatch":
		set("topic", s.seedTopic(), "salt", s.seedTopic(), "count", strconv.Itoa(seedCount), "loose", "false")
		// One offset in the middle of each batch, so of each codec: the fifth record and others.
		set("offsets", map[string]string{"start": "0", "timestamp": "4,33,57,60,91", "midbatch": "4,24,53,64,97"}[name])
		return f, nil
	case "group":
		set("partitions", strconv.Itoa(groupParts))
		f.verify = func(ctx context.Context) error {
			return s.verifyGroup(ctx, topic, topic, groupParts, groupRounds)
		}
		return f, s.createTopic(ctx, topic, groupParts)
	case "commit":
		set("topic", s.seedTopic(), "salt", s.seedTopic(), "count", strconv.Itoa(seedCount), "first", strconv.Itoa(commitFirst), "loose", "false")
		f.verify = func(ctx context.Context) error { return s.verifyGroup(ctx, topic, s.seedTopic(), 1, seedCount) }
		return f, nil
	case "admin":
		set("trim", topic+"-trim", "before", strconv.Itoa(trimBefore))
		f.verify = func(ctx context.Context) error { return s.verifyAdmin(ctx, topic, c.lacks) }
		return f, s.prepareAdmin(ctx, topic)
	}
	return f, fmt.Errorf("prepare case: unknown case %q", name)
}

// prepareAdmin makes an empty group with a committed offset and a topic to trim.
func (s *stage) prepareAdmin(ctx context.Context, topic string) error {
	trim := topic + "-trim"
	if err := s.createTopic(ctx, trim, 1); err != nil {
		return err
	}
	if err := s.produceBatch(ctx, trim, "none", 0, seedBatch); err != nil {
		return fmt.Errorf("write topic to trim: %w", err)
	}
	offsets := kadm.Offsets{}
	offsets.Add(kadm.Offset{Topic: trim, At: 3, LeaderEpoch: -1})
	resp, err := s.adm.CommitOffsets(ctx, topic, offsets)
	if err == nil {
		err = resp.Error()
	}
	if err != nil {
		return fmt.Errorf("make group: %w", err)
	}
	return nil
}

func (s *stage) verifyAdmin(ctx context.Context, topic string, lacks map[string]string) error {
	list, err := s.adm.ListTopics(ctx, topic)
	if err != nil {
		return fmt.Errorf("list topics: %w", err)
	}
	if err := list[topic].Err; !errors.Is(err, kerr.UnknownTopicOrPartition) {
		return fmt.Errorf("deleted topic: metadata says %v, want unknown topic", err)
	}
	wantStart := int64(trimBefore)
	if lacks["delete-records"] != "" {
		wantStart = 0
	}
	starts, err := s.adm.ListStartOffsets(ctx, topic+"-trim")
	if err != nil {
		return fmt.Errorf("list offsets: %w", err)
	}
	if o, _ := starts.Lookup(topic+"-trim", 0); o.Offset != wantStart {
		return fmt.Errorf("trimmed topic starts at %d, want %d", o.Offset, wantStart)
	}
	groups, err := s.adm.ListGroups(ctx)
	if err != nil {
		return fmt.Errorf("list groups: %w", err)
	}
	if _, ok := groups[topic]; ok && lacks["delete-group"] == "" {
		return errors.New("deleted group is still listed")
	}
	return nil
}

// verifyCodec looks at the batches as they are in the log: their codec, and the
// same records seen by another client.
func (s *stage) verifyCodec(ctx context.Context, topic, codec string, loose bool) error {
	got, err := s.batches(ctx, topic, codecCount)
	if err != nil {
		return err
	}
	compressed := 0
	for _, b := range got {
		// Clients leave a batch alone that compression would not make smaller.
		if b.records >= 10 && b.codec != codec {
			return fmt.Errorf("log: batch at %d of %d records has codec %s, want %s", b.first, b.records, b.codec, codec)
		}
		if b.codec == codec {
			compressed++
		}
	}
	if compressed == 0 {
		return fmt.Errorf("log: no batch has codec %s: %+v", codec, got)
	}
	recs, err := s.read(ctx, topic, codecCount)
	if err != nil {
		return err
	}
	return s.set(topic, loose).CheckRun(recs, 0, 0, codecCount)
}

// verifyIdempotent checks that the log holds each record once, in order, and
// that every batch carries a producer id and the sequence numbers of its place.
func (s *stage) verifyIdempotent(ctx context.Context, topic string) error {
	got, err := s.batches(ctx, topic, idemCount)
	if err != nil {
		return err
	}
	next := map[int64]int32{}
	for _, b := range got {
		if b.producer < 0 || b.sequence != next[b.producer] {
			return fmt.Errorf("log: batch at %d has producer %d and sequence %d, want an id and sequence %d", b.first, b.producer, b.sequence, next[b.producer])
		}
		next[b.producer] += b.records
	}
	ends, err := s.adm.ListEndOffsets(ctx, topic)
	if err != nil {
		return fmt.Errorf("list offsets: %w", err)
	}
	if o, _ := ends.Lookup(topic, 0); o.Offset != idemCount {
		return fmt.Errorf("log ends at %d, want %d", o.Offset, idemCount)
	}
	return nil
}

// verifyGroup checks committed offsets, and that nobody is left in the group.
func (s *stage) verifyGroup(ctx context.Context, group, topic string, partitions int32, want int64) error {
	resp, err := s.adm.FetchOffsets(ctx, group)
	if err != nil {
		return fmt.Errorf("fetch committed offsets: %w", err)
	}
	var wrong []string
	for p := range partitions {
		if o, ok := resp.Lookup(topic, p); !ok || o.At != want {
			wrong = append(wrong, fmt.Sprintf("%d:%d", p, o.At))
		}
	}
	if wrong != nil {
		return fmt.Errorf("committed offsets by partition %s, want %d", strings.Join(wrong, " "), want)
	}
	var state string
	for range 30 {
		groups, err := s.adm.DescribeGroups(ctx, group)
		if err != nil {
			return fmt.Errorf("describe group: %w", err)
		}
		if state = groups[group].State; state == "Empty" {
			return nil
		}
		select {
		case <-time.After(100 * time.Millisecond):
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
	return fmt.Errorf("group is %s three seconds after its members left, want Empty", state)
}
