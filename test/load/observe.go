package load

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/skeinmq/skein/test/history"
)

// names lists the topics of the load.
func (l *Load) names() []string {
	var out []string
	for _, t := range l.Topics {
		out = append(out, t.Name)
	}
	return out
}

// from is every partition at one offset.
func (l *Load) from(o kgo.Offset) map[string]map[int32]kgo.Offset {
	out := make(map[string]map[int32]kgo.Offset)
	for _, t := range l.Topics {
		out[t.Name] = make(map[int32]kgo.Offset)
		for i := range t.Partitions {
			out[t.Name][i] = o
		}
	}
	return out
}

// tail reads all partitions from the start on and then whatever comes, without a jump, through all kills.
func (l *Load) tail(name string) func(context.Context) error {
	return func(ctx context.Context) error {
		cl, err := l.Client(kgo.ConsumePartitions(l.from(kgo.NewOffset().AtStart())),
			kgo.ConsumeResetOffset(kgo.NoResetOffset()), kgo.FetchMaxWait(50*time.Millisecond))
		if err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		defer cl.Close()
		for ctx.Err() == nil {
			l.take(name, cl.PollFetches(ctx))
		}
		return nil
	}
}

// take hands what a consumer was given to the history.
func (l *Load) take(name string, fs kgo.Fetches) {
	fs.EachPartition(func(ft kgo.FetchTopicPartition) {
		p := history.Partition{Topic: ft.Topic, Index: ft.Partition}
		if err := ft.Err; err != nil {
			var lost *kgo.ErrDataLoss
			if errors.As(err, &lost) || errors.Is(err, kerr.OffsetOutOfRange) || errors.Is(err, kerr.CorruptMessage) {
				l.H.Fail(history.Vanished, p, "a consumer was told: %v", err)
			}
			return
		}
		for _, r := range ft.Records {
			rec, err := readContent(r)
			if err != nil {
				l.H.Fail(history.Changed, p, "at offset %d: %v", r.Offset, err)
				continue
			}
			l.H.Saw(name, p, rec, r.Offset)
			if name != "" {
				l.seen.Add(1)
			}
		}
		if name != "" && ft.HighWatermark >= 0 {
			l.H.HighWatermark(name, p, 0, ft.HighWatermark)
			if ft.LogStartOffset >= 0 {
				l.H.LogStart(name, p, 0, ft.LogStartOffset)
			}
		}
	})
}

// rereads reads for a moment from random offsets, again and again: what is there must be what was seen.
func (l *Load) rereads(ctx context.Context) error {
	rng := rand.New(rand.NewPCG(l.Seed, 1<<32))
	for ctx.Err() == nil {
		start := l.from(kgo.NewOffset())
		for topic, parts := range start {
			for i := range parts {
				next := l.H.Acknowledged(history.Partition{Topic: topic, Index: i})
				parts[i] = kgo.NewOffset().At(rng.Int64N(next + 1))
			}
		}
		cl, err := l.Client(kgo.ConsumePartitions(start), kgo.ConsumeResetOffset(kgo.NoResetOffset()), kgo.FetchMaxBytes(1<<20))
		if err != nil {
			return fmt.Errorf("reread: %w", err)
		}
		poll, done := context.WithTimeout(ctx, 300*time.Millisecond)
		for poll.Err() == nil {
			l.take("", cl.PollFetches(poll))
		}
		done()
		cl.Close()
	}
	return nil
}

// member is one member of the group: it reads and commits.
func (l *Load) member(ctx context.Context) error {
	cl, err := l.Client(kgo.ConsumerGroup(Group), kgo.ConsumeTopics(l.names()...), kgo.DisableAutoCommit(),
		kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()), kgo.FetchMaxWait(50*time.Millisecond),
		kgo.OnPartitionsRevoked(l.lose), kgo.OnPartitionsLost(l.lose), kgo.BlockRebalanceOnPoll(), kgo.HeartbeatInterval(200*time.Millisecond), kgo.RebalanceTimeout(10*time.Second))
	if err != nil {
		return fmt.Errorf("group member: %w", err)
	}
	defer cl.CloseAllowingRebalance()
	for ctx.Err() == nil {
		poll, done := context.WithTimeout(ctx, 100*time.Millisecond)
		fs := cl.PollFetches(poll)
		done()
		l.take("", fs)
		if fs.NumRecords() > 0 {
			l.commit(ctx, cl, fs)
		}
		cl.AllowRebalance()
	}
	return nil
}

// lose counts what a rebalance takes away.
func (l *Load) lose(_ context.Context, _ *kgo.Client, parts map[string][]int32) {
	for _, list := range parts {
		l.revoked.Add(int64(len(list)))
	}
}

// commit commits what was polled and notes it if the broker says so.
func (l *Load) commit(ctx context.Context, cl *kgo.Client, fs kgo.Fetches) {
	limit, done := context.WithTimeout(ctx, 2*time.Second)
	defer done()
	called := time.Now()
	if cl.CommitRecords(limit, fs.Records()...) != nil {
		return // unknown
	}
	fs.EachPartition(func(ft kgo.FetchTopicPartition) {
		if n := len(ft.Records); n > 0 {
			p, offset := history.Partition{Topic: ft.Topic, Index: ft.Partition}, ft.Records[n-1].Offset+1
			l.commits.Add(1)
			l.H.Committed(Group, p, offset)
			l.H.Trace(history.Op{Name: "commit", Client: Group, Partition: p, Value: offset, Called: called})
		}
	})
}

// marks asks for log starts, high watermarks and committed offsets.
func (l *Load) marks(ctx context.Context) error {
	cl, err := l.Client(kgo.RetryTimeout(time.Second))
	if err != nil {
		return fmt.Errorf("marks: %w", err)
	}
	defer cl.Close()
	adm, known := kadm.NewClient(cl), make(leaders)
	beat := time.NewTicker(40 * time.Millisecond)
	defer beat.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-beat.C:
		}
		ask, done := context.WithTimeout(ctx, 2*time.Second)
		l.askMarks(ask, adm, known)
		done()
	}
}

// leaders are the newest leader epochs that a client has heard of. The Java client does not go back to a leader of an older
// one, whatever a broker that is cut off tells it (KIP-320); franz-go does, so what such a leader answers is left out.
type leaders map[history.Partition]int32

func (k leaders) older(p history.Partition, epoch int32) bool {
	if epoch < 0 {
		return false
	}
	older := epoch < k[p]
	k[p] = max(k[p], epoch)
	return older
}

func (l *Load) askMarks(ctx context.Context, adm *kadm.Client, known leaders) {
	asked, called := l.H.Now(), time.Now()
	if ends, err := adm.ListEndOffsets(ctx, l.names()...); err == nil {
		ends.Each(func(o kadm.ListedOffset) {
			p := history.Partition{Topic: o.Topic, Index: o.Partition}
			if o.Err == nil && o.Offset >= 0 && !known.older(p, o.LeaderEpoch) {
				l.H.HighWatermark("marks", p, asked, o.Offset)
				l.H.Trace(history.Op{Name: "end", Client: "marks", Partition: p, Value: o.Offset, Called: called})
			}
		})
	}
	asked = l.H.Now()
	if stable, err := adm.ListCommittedOffsets(ctx, l.names()...); err == nil {
		stable.Each(func(o kadm.ListedOffset) {
			p := history.Partition{Topic: o.Topic, Index: o.Partition}
			if o.Err == nil && o.Offset >= 0 && !known.older(p, o.LeaderEpoch) {
				l.H.LastStable("marks", p, asked, o.Offset)
			}
		})
	}
	asked = l.H.Now()
	if starts, err := adm.ListStartOffsets(ctx, l.names()...); err == nil {
		starts.Each(func(o kadm.ListedOffset) {
			if o.Err == nil && o.Offset >= 0 {
				l.H.LogStart("marks", history.Partition{Topic: o.Topic, Index: o.Partition}, asked, o.Offset)
			}
		})
	}
	l.askCommitted(ctx, adm, Group)
	if len(l.Foreign) > 0 {
		l.askCommitted(ctx, adm, ForeignGroup)
	}
}

// askCommitted compares the committed offsets of a group with what its members were told before.
func (l *Load) askCommitted(ctx context.Context, adm *kadm.Client, group string) {
	floors := make(map[history.Partition]int64)
	for topic, parts := range l.from(kgo.NewOffset()) {
		for i := range parts {
			p := history.Partition{Topic: topic, Index: i}
			floors[p] = l.H.CommittedFloor(group, p)
		}
	}
	offsets, err := adm.FetchOffsets(ctx, group)
	if err != nil {
		return
	}
	for p, floor := range floors {
		value := int64(-1)
		if o, ok := offsets.Lookup(p.Topic, p.Index); ok {
			if o.Err != nil {
				continue
			}
			value = o.At
		}
		l.H.CommittedAfter(group, p, floor, value)
		l.H.Committed(group, p, value)
	}
}

// listed asks until every partition is answered: a broker that was given up may be coming back just now, and the client does not
// ask again where a connection is refused.
func (l *Load) listed(ctx context.Context, list func(context.Context, ...string) (kadm.ListedOffsets, error)) (kadm.ListedOffsets, error) {
	for {
		found, err := list(ctx, l.names()...)
		if err = errors.Join(err, found.Error()); err == nil {
			return found, nil
		}
		select {
		case <-time.After(100 * time.Millisecond):
		case <-ctx.Done():
			return nil, err
		}
	}
}

// ReadAll reads every partition from its log start to its high watermark and hands it to the history.
func (l *Load) ReadAll(ctx context.Context) error {
	cl, err := l.Client(kgo.ConsumePartitions(l.from(kgo.NewOffset().AtStart())), kgo.ConsumeResetOffset(kgo.NoResetOffset()))
	if err != nil {
		return err
	}
	defer cl.Close()
	adm := kadm.NewClient(cl)
	starts, err := l.listed(ctx, adm.ListStartOffsets)
	if err != nil {
		return fmt.Errorf("list log starts: %w", err)
	}
	ends, err := l.listed(ctx, adm.ListEndOffsets)
	if err != nil {
		return fmt.Errorf("list high watermarks: %w", err)
	}
	at := make(map[history.Partition]int64)
	left := make(map[history.Partition]int64)
	ends.Each(func(o kadm.ListedOffset) {
		p := history.Partition{Topic: o.Topic, Index: o.Partition}
		start, _ := starts.Lookup(o.Topic, o.Partition)
		l.H.Ended(p, start.Offset, o.Offset)
		if at[p] = start.Offset; start.Offset < o.Offset {
			left[p] = o.Offset
		}
	})
	for len(left) > 0 {
		fs := cl.PollFetches(ctx)
		if ctx.Err() != nil {
			return fmt.Errorf("read everything: stuck at %v, ends are %v: %w", at, left, ctx.Err())
		}
		fs.EachPartition(func(ft kgo.FetchTopicPartition) {
			p := history.Partition{Topic: ft.Topic, Index: ft.Partition}
			if ft.Err != nil {
				l.H.Fail(history.Lost, p, "read everything: %v", ft.Err)
				delete(left, p)
				return
			}
			for _, r := range ft.Records {
				rec, err := readContent(r)
				if err != nil {
					l.H.Fail(history.Changed, p, "at offset %d: %v", r.Offset, err)
				}
				l.H.Read(p, rec, r.Offset)
				if at[p] = r.Offset + 1; at[p] >= left[p] {
					delete(left, p)
				}
			}
		})
	}
	return nil
}
