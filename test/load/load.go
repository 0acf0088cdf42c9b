package load

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/skeinmq/skein/test/history"
)

// Topic is a topic of the load.
type Topic struct {
	Name       string
	Partitions int32
}

// Group is the consumer group of the load.
const Group = "load-group"

// Load runs clients against brokers that come and go. Its exported fields are set before Create.
type Load struct {
	Seeds  []string // brokers to ask first
	Topics []Topic  // default: one of 1, 4 and 12 partitions
	// Replication is the topics' factor; 0: the broker's default.
	Replication int16
	Seed        uint64
	H           *history.History
	// Patience is how long clients may take to finish once the brokers stay up; default 30 s.
	Patience time.Duration
	// Slower leaves that many milliseconds more between two bursts of a producer.
	Slower int
	// Foreign are clients that are not franz-go, beside it.
	Foreign []Foreign

	acked   atomic.Int64
	commits atomic.Int64
	seen    atomic.Int64
	cancel  context.CancelFunc // ends consumers and observers
	stop    context.CancelFunc // ends producers
	produce sync.WaitGroup
	observe sync.WaitGroup

	revoked atomic.Int64 // partitions taken from members of the group

	mu       sync.Mutex
	fresh    map[history.Partition]time.Time // by partition: when the newest record was sent that has been acked
	foreign  []*worker
	problems []error // of the clients' set-up: the load did not run as it should
}

// producerKind is one producer of the load.
type producerKind struct {
	idempotent bool
	burst      int // records at a time, at most
	size       int // bytes of a value, at most
	opts       []kgo.Opt
}

func producerKinds() []producerKind {
	return []producerKind{
		{idempotent: true, burst: 20, size: 300},
		{idempotent: true, burst: 60, size: 2000, opts: []kgo.Opt{
			kgo.ProducerLinger(4 * time.Millisecond), kgo.ProducerBatchMaxBytes(16 << 10), kgo.ProducerBatchCompression(kgo.Lz4Compression())}},
		{idempotent: true, burst: 3, size: 60_000, opts: []kgo.Opt{kgo.ProducerBatchCompression(kgo.NoCompression())}},
		{burst: 20, size: 500, opts: []kgo.Opt{kgo.ProducerBatchCompression(kgo.NoCompression())}},
		{burst: 40, size: 1000, opts: []kgo.Opt{
			kgo.ProducerLinger(2 * time.Millisecond), kgo.ProducerBatchCompression(kgo.ZstdCompression())}},
	}
}

// Client is a client that comes back fast: brokers are away for a fraction of a second.
func (l *Load) Client(opts ...kgo.Opt) (*kgo.Client, error) {
	base := []kgo.Opt{
		kgo.SeedBrokers(l.Seeds...),
		kgo.RetryBackoffFn(func(tries int) time.Duration { return time.Duration(min(tries, 5)) * 8 * time.Millisecond }),
		kgo.MetadataMinAge(20 * time.Millisecond),
		kgo.MetadataMaxAge(2 * time.Second),
		kgo.DialTimeout(2 * time.Second),
		kgo.AlwaysRetryEOF(), // a kill before the first answer is no sign of TLS
		kgo.RequestTimeoutOverhead(5 * time.Second),
	}
	return kgo.NewClient(append(base, opts...)...)
}

// Create makes the topics; the brokers must be up.
func (l *Load) Create(ctx context.Context) error {
	if l.Topics == nil {
		l.Topics = []Topic{{"load-one", 1}, {"load-few", 4}, {"load-many", 12}}
	}
	if l.Patience == 0 {
		l.Patience = 30 * time.Second
	}
	if l.Replication == 0 {
		l.Replication = -1
	}
	l.fresh = make(map[history.Partition]time.Time)
	cl, err := l.Client()
	if err != nil {
		return err
	}
	defer cl.Close()
	for _, t := range l.Topics {
		rs, err := kadm.NewClient(cl).CreateTopic(ctx, t.Partitions, l.Replication, nil, t.Name)
		for kerr.IsRetriable(errors.Join(err, rs.Err)) && ctx.Err() == nil { // the cluster is slow, or has no controller for a moment
			rs, err = kadm.NewClient(cl).CreateTopic(ctx, t.Partitions, l.Replication, nil, t.Name)
		}
		if err = errors.Join(err, rs.Err); err != nil && !errors.Is(err, kerr.TopicAlreadyExists) { // by a try whose answer was lost
			return fmt.Errorf("create %s: %w", t.Name, err)
		}
	}
	return nil
}

// Begin starts producers, consumers and observers.
func (l *Load) Begin() error {
	observing, cancel := context.WithCancel(context.Background())
	producing, stop := context.WithCancel(observing)
	l.cancel, l.stop = cancel, stop
	for i, kind := range producerKinds() {
		id := int32(i)
		l.H.Producer(id, kind.idempotent)
		opts := append([]kgo.Opt{
			kgo.RecordPartitioner(kgo.ManualPartitioner()), kgo.RequiredAcks(kgo.AllISRAcks()), kgo.UnknownTopicRetries(-1),
			kgo.StopProducerOnDataLossDetected(), kgo.MaxBufferedRecords(500),
		}, kind.opts...)
		if !kind.idempotent {
			opts = append(opts, kgo.DisableIdempotentWrite())
		}
		cl, err := l.Client(opts...)
		if err != nil {
			return fmt.Errorf("producer %d: %w", id, err)
		}
		l.produce.Go(func() { l.runProducer(producing, cl, id, kind) })
	}
	for _, run := range []func(context.Context) error{
		l.tail("tail 1"), l.tail("tail 2"), l.rereads, l.member, l.member, l.marks,
	} {
		l.observe.Go(func() {
			if err := run(observing); err != nil {
				l.problem(err)
			}
		})
	}
	return l.beginForeign(producing, observing)
}

// Finish ends the load; the broker must be up. Producers flush first, consumers stop last.
func (l *Load) Finish() error {
	l.stop()
	l.produce.Wait()
	l.cancel()
	l.observe.Wait()
	l.mu.Lock()
	defer l.mu.Unlock()
	return errors.Join(l.problems...)
}

// Probe tells what a fresh producer sees of each partition; its records carry no content and would be found by the
// history, so that it is for a run that has failed already.
func (l *Load) Probe(ctx context.Context) error {
	var trace strings.Builder
	cl, err := l.Client(kgo.RecordPartitioner(kgo.ManualPartitioner()), kgo.DisableIdempotentWrite(), kgo.RecordRetries(20),
		kgo.WithLogger(kgo.BasicLogger(&trace, kgo.LogLevelInfo, nil)))
	if err != nil {
		return err
	}
	defer cl.Close()
	var errs []error
	for _, t := range l.Topics {
		for i := range t.Partitions {
			if err := cl.ProduceSync(ctx, &kgo.Record{Topic: t.Name, Partition: i, Value: []byte("probe")}).FirstErr(); err != nil {
				errs = append(errs, fmt.Errorf("%s-%d: %w", t.Name, i, err))
			}
		}
	}
	errs = append(errs, errors.New(trace.String()))
	return errors.Join(errs...)
}

func (l *Load) problem(err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.problems = append(l.problems, err)
}

// Acked is the number of records that have been acked so far.
func (l *Load) Acked() int64 { return l.acked.Load() }

// Revoked is the number of partitions that were taken from members of the group so far.
func (l *Load) Revoked() int64 { return l.revoked.Load() }

// Stale is how many partitions have no acked record that was sent at the moment or later.
func (l *Load) Stale(moment time.Time) (n int, example history.Partition) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, t := range l.Topics {
		for i := range t.Partitions {
			if p := (history.Partition{Topic: t.Name, Index: i}); l.fresh[p].Before(moment) {
				n, example = n+1, p
			}
		}
	}
	return n, example
}

// Seen is the number of records that consumers have been given so far.
func (l *Load) Seen() int64 { return l.seen.Load() }

// Commits is the number of offset commits that have been acked so far.
func (l *Load) Commits() int64 { return l.commits.Load() }

func (l *Load) runProducer(ctx context.Context, cl *kgo.Client, id int32, kind producerKind) {
	defer cl.Close()
	rng := rand.New(rand.NewPCG(l.Seed, uint64(id)))
	beat := time.NewTicker(time.Duration(5+l.Slower) * time.Millisecond)
	defer beat.Stop()
	for {
		select {
		case <-ctx.Done():
			flush, done := context.WithTimeout(context.Background(), l.Patience)
			defer done()
			if err := cl.Flush(flush); err != nil {
				l.problem(fmt.Errorf("producer %d: %d records not acked %v after the last kill", id, cl.BufferedProduceRecords(), l.Patience))
			}
			return
		case <-beat.C:
		}
		t := l.Topics[rng.IntN(len(l.Topics))]
		p := history.Partition{Topic: t.Name, Index: rng.Int32N(t.Partitions)}
		for range 1 + rng.IntN(kind.burst) {
			l.send(cl, rng, p, id, kind)
		}
	}
}

// send hands one record to the client; it blocks while too many are on their way.
func (l *Load) send(cl *kgo.Client, rng *rand.Rand, p history.Partition, id int32, kind producerKind) {
	r := newContent(rng, id, l.H.Sent(p, id), 20+rng.IntN(kind.size))
	r.Topic, r.Partition = p.Topic, p.Index
	rec, _ := readContent(r)
	called := time.Now()
	cl.Produce(context.Background(), r, func(r *kgo.Record, err error) {
		if err != nil {
			l.H.Fail(history.Refused, p, "%v: %v", rec, err)
			return
		}
		l.H.Acked(p, rec, r.Offset)
		l.H.Trace(history.Op{Name: "produce", Client: fmt.Sprintf("producer %d", id), Partition: p, Seq: rec.Seq, Value: r.Offset, Called: called})
		l.acked.Add(1)
		l.mu.Lock()
		if called.After(l.fresh[p]) {
			l.fresh[p] = called
		}
		l.mu.Unlock()
	})
}
