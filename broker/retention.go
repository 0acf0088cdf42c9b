package broker

import (
	"context"
	"errors"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/skeinmq/skein/broker/runs"
	"github.com/skeinmq/skein/commitlog"
	"github.com/skeinmq/skein/internal/ident"
	"github.com/skeinmq/skein/protocol"
	"github.com/skeinmq/skein/queuemapper"
)

// keepRetention moves log starts as the topics' retention asks, every log.retention.check.interval.ms, until ctx ends.
func (b *Broker) keepRetention(ctx context.Context) error {
	for {
		timer := time.NewTimer(b.conf().RetentionCheckInterval)
		select {
		case <-timer.C:
			deaf := b.retain(ctx, time.Now().UnixMilli())
			b.trimGenerations(ctx, deaf)
		case <-ctx.Done():
			timer.Stop()
			return nil
		}
	}
}

// retainAtOnce is how many partitions move their log starts at the same time: the log writes them down together.
const retainAtOnce = 64

// retain goes over all partitions once. It returns the brokers that could not be told what of the runs in their logs is
// wanted no more.
func (b *Broker) retain(ctx context.Context, now int64) (deaf map[ident.Broker]bool) {
	told := releases{b: b, ctx: ctx}
	var moves errgroup.Group
	moves.SetLimit(retainAtOnce)
	for t := range b.topics() {
		conf := t.conf.Load()
		for _, p := range t.partitions() {
			run := p.open.Load()
			if run == nil || ctx.Err() != nil {
				continue
			}
			if !conf.Delete {
				told.add(p, run)
				continue
			}
			to, err := b.retainFrom(ctx, p, run, conf, now)
			if err != nil {
				b.log.Warn("judge retention", "topic", t.name, "partition", p.index, "error", err)
			}
			if to <= run.queue.LogStart() {
				told.add(p, run)
				continue
			}
			moves.Go(func() error {
				defer told.add(p, run)
				if _, err := b.moveLogStart(ctx, p, run, to); err != nil && ctx.Err() == nil {
					b.log.Warn("apply retention", "topic", t.name, "partition", p.index, "error", err)
				}
				b.metrics.retained.Inc()
				return nil
			})
		}
	}
	moves.Wait() // the functions return no errors
	return told.end()
}

// retainFrom returns the offset before which the partition's records have expired: by segments, as Kafka counts them,
// from the oldest on, first by age, then by size. The newest segment stays until it is sealed, unless all of it is too old.
func (b *Broker) retainFrom(ctx context.Context, p *partition, run *openRun, conf *topicConfig, now int64) (ident.Offset, error) {
	start := run.queue.LogStart()
	if conf.RetentionMs < 0 && conf.RetentionBytes < 0 {
		return start, nil
	}
	var segments []commitlog.Segment
	var total int64
	for r, err := range b.runsFrom(p, run, start) {
		var list []commitlog.Segment
		if err == nil {
			list, err = r.Segments(ctx)
		}
		if errors.Is(err, runs.ErrAway) {
			return start, nil // a run is out of reach: what it holds cannot be judged, nor what follows it
		}
		if err != nil {
			return start, err
		}
		for _, s := range list {
			if s.End <= start {
				continue // released since it was listed
			}
			segments = append(segments, s)
			total += s.Bytes
		}
	}
	to := b.behindLost(p, start) // with what was before it
	for _, s := range segments {
		old := conf.RetentionMs >= 0 && s.MaxTimestamp >= 0 && now-s.MaxTimestamp > conf.RetentionMs
		big := conf.RetentionBytes >= 0 && total-s.Bytes >= conf.RetentionBytes && !s.Unsealed
		if !old && !big {
			break
		}
		to = max(to, s.End)
		total -= s.Bytes
	}
	return to, nil
}

// behindLost is the first offset from o on that is not lost.
func (b *Broker) behindLost(p *partition, o ident.Offset) ident.Offset {
	m := b.store.Map()
	for {
		run, ok := m.Locate(p.topic.newest(), p.index, o)
		if !ok {
			return o
		}
		next, _ := m.Readable(p.id(), run, o)
		if next == o {
			return o
		}
		o = next
	}
}

// moveLogStart moves a partition's log start, durably, and says to older runs in our logs what nobody will read again;
// the others are told when retention comes by. It returns the log start in force.
func (b *Broker) moveLogStart(ctx context.Context, p *partition, run *openRun, to ident.Offset) (ident.Offset, error) {
	if err := run.queue.SetLogStart(ctx, to); err != nil {
		return run.queue.LogStart(), err
	}
	b.floorOlder(p, run)
	return run.queue.LogStart(), nil
}

// deleteRecords is DeleteRecords for one partition: it moves the log start to the offset, -1 for the high watermark,
// and returns it.
func (b *Broker) deleteRecords(ctx context.Context, p *partition, to int64) (ident.Offset, error) {
	run := p.open.Load()
	if run == nil {
		return -1, commitlog.ErrNotOpen
	}
	high := run.queue.HighWatermark()
	offset := ident.Offset(to)
	if to == -1 {
		offset = high
	}
	if offset < 0 || offset > high {
		return -1, refuse(protocol.CodeOffsetOutOfRange, "offset %d is not between 0 and the high watermark %d", to, high)
	}
	return b.moveLogStart(ctx, p, run, offset)
}

// dropDeleted has the logs forget partitions of topics that the map no longer has: those deleted while we look, and,
// once at the start, those that went while we were away.
func (b *Broker) dropDeleted(ctx context.Context) error {
	pending := b.strayPartitions()
	for {
		if err := b.dropPartitions(ctx, pending); err != nil && ctx.Err() == nil {
			b.log.Warn("drop deleted partitions", "partitions", len(pending), "error", err)
		}
		select {
		case <-b.gone.wake:
			pending = b.gone.take()
		case <-ctx.Done():
			return nil
		}
	}
}

// dropPartitions drops partitions from every log.
func (b *Broker) dropPartitions(ctx context.Context, ps []ident.Partition) error {
	if len(ps) == 0 {
		return nil
	}
	for _, host := range b.hosted {
		if err := host.log.Drop(ctx, ps); err != nil {
			return err
		}
	}
	topics := make(map[ident.Topic]bool)
	for _, p := range ps {
		if _, exists := topicNameOf(b.store.Map(), p.Topic); !exists {
			topics[p.Topic] = true
		}
	}
	// What this misses the coordinators' own search finds later; nobody sees it meanwhile.
	return b.groups.DropTopics(ctx, topics)
}

// strayPartitions lists partitions that the disks have state of and the map does not know.
func (b *Broker) strayPartitions() []ident.Partition {
	m := b.store.Map()
	seen := make(map[ident.Partition]bool)
	var strays []ident.Partition
	for _, host := range b.hosted {
		for _, g := range host.log.Recovered().Generations {
			for i := range g.Partitions {
				p := g.Partitions[i].Partition
				if !seen[p] && !hasPartition(m, p) {
					seen[p] = true
					strays = append(strays, p)
				}
			}
		}
	}
	return strays
}

func hasPartition(m *queuemapper.Map, p ident.Partition) bool {
	t := m.TopicByID(p.Topic)
	return t != nil && int(p.Index) < len(t.Partitions)
}
