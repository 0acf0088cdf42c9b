package broker

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/skeinmq/skein/broker/host"
	"github.com/skeinmq/skein/internal/ident"
	"github.com/skeinmq/skein/internal/peer/peerpb"
)

const (
	// lookFor is how long a group's partitions are counted for one answer.
	lookFor = time.Second
	// lookMost bounds the partitions that are counted: in a group with more that are written at once none makes most of its load.
	lookMost = 4096
	// hottestMost bounds an answer.
	hottestMost = 8
)

// look counts what is appended to each partition of one group, for a while. Partitions are not counted otherwise: there may be
// 100,000, and nobody asks.
type look struct {
	group ident.Group

	mu    sync.Mutex
	bytes map[ident.Partition]int64
	all   int64
}

func (l *look) appended(p ident.Partition, bytes int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.all += int64(bytes)
	if _, known := l.bytes[p]; known || len(l.bytes) < lookMost {
		l.bytes[p] += int64(bytes)
	}
}

// hottest is the partitions with most of what was counted, hottest first.
func (l *look) hottest() (parts []ident.Partition, bytes []int64, all int64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for p := range l.bytes {
		parts = append(parts, p)
	}
	slices.SortFunc(parts, func(x, y ident.Partition) int {
		return cmp.Or(cmp.Compare(l.bytes[y], l.bytes[x]), slices.Compare(x.Topic[:], y.Topic[:]), cmp.Compare(x.Index, y.Index))
	})
	parts = parts[:min(len(parts), hottestMost)]
	for _, p := range parts {
		bytes = append(bytes, l.bytes[p])
	}
	return parts, bytes, l.all
}

// lookAt counts what is appended to a group's partitions until ctx ends or the time is over.
func (l *loads) lookAt(ctx context.Context, g ident.Group, d time.Duration) (*look, error) {
	l.looks.Lock() // one at a time; each takes d
	defer l.looks.Unlock()
	if ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	k := &look{group: g, bytes: make(map[ident.Partition]int64)}
	l.look.Store(k)
	defer l.look.Store(nil)
	select {
	case <-time.After(d):
		return k, nil
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
}

// owner is peerpb's Owner: what the host of the logs does, and what only the broker can count.
type owner struct {
	*host.Service
	b *Broker
}

// Hottest is of peerpb.OwnerServer.
func (o owner) Hottest(ctx context.Context, rq *peerpb.HottestRequest) (*peerpb.HottestReply, error) {
	g := ident.Group(rq.GetGroup())
	if o.b.host.OpenIn(o.b.store.Map().Group(g)) == nil {
		return nil, status.Errorf(codes.FailedPrecondition, "group %d: %v", g, host.ErrNotHosted)
	}
	begun := time.Now()
	k, err := o.b.loads.lookAt(ctx, g, lookFor)
	if err != nil {
		return nil, status.FromContextError(fmt.Errorf("look at group %d: %w", g, err)).Err()
	}
	parts, bytes, all := k.hottest()
	reply := &peerpb.HottestReply{Bytes: float64(all) / time.Since(begun).Seconds()}
	m := o.b.store.Map()
	for i, p := range parts {
		if t := m.TopicByID(p.Topic); t != nil {
			reply.Partitions = append(reply.Partitions, &peerpb.PartitionLoad{
				Topic: t.Name, TopicId: p.Topic[:], Partition: p.Index, Share: float64(bytes[i]) / float64(all),
			})
		}
	}
	return reply, nil
}
