package coordinator

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"
	"unicode/utf16"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/skeinmq/skein/broker/group"
	"github.com/skeinmq/skein/controller"
	"github.com/skeinmq/skein/internal/ident"
)

// Errors besides those of package group.
var (
	// ErrLoading: the partition's state is being loaded; try again.
	ErrLoading = errors.New("coordinator is loading")
	// ErrCommitSize: one request commits more than an entry can hold.
	ErrCommitSize = errors.New("too many offsets in one request")
)

// Store is the replicated state as a coordinator uses it; *controller.Controller is one.
type Store interface {
	Claim(ctx context.Context, claims []controller.Claim) ([]controller.Epoch, error)
	Write(ctx context.Context, b *controller.Batch) error
	// Confirm waits until reads show everything acknowledged; controller.ErrFenced: epoch is not that of the newest claim.
	Confirm(ctx context.Context, partition int32, epoch controller.Epoch) error
	// Await waits until reads show what was written here.
	Await(ctx context.Context, partition int32) error
	Groups(partition int32) []controller.Group
	Offsets(partition int32, group string) []controller.PartitionOffset
	Lookup(partition int32, group string, of []ident.Partition, found func(i int, o controller.Offset))
}

// Config configures the coordinators of a broker.
type Config struct {
	// Store; nil: every request is answered with group.ErrCoordinatorNotAvailable.
	Store Store
	Group group.Config
	// Retention is how long offsets are kept; CheckInterval how often that is looked at.
	Retention     time.Duration
	CheckInterval time.Duration
	// TopicName names a topic; false: there is none of that id (any more).
	TopicName func(ident.Topic) (string, bool)

	Logger     *slog.Logger
	Registerer prometheus.Registerer
}

// Coordinator is all shards of this broker.
type Coordinator struct {
	cfg     Config
	log     *slog.Logger
	metrics *metrics
	shards  [controller.Partitions]*shard
	tickets atomic.Uint64
	began   time.Time
	ready   chan struct{} // closed when every shard that was assigned first was loaded once
	done    chan struct{} // closed when Run has ended
}

// uptime is how long the coordinators have been there, in ns: a clock that nobody can set.
func (c *Coordinator) uptime() int64 { return int64(time.Since(c.began)) }

// New prepares the coordinators. Run serves them.
func New(cfg Config) *Coordinator {
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	if cfg.TopicName == nil {
		cfg.TopicName = func(ident.Topic) (string, bool) { return "", true }
	}
	c := &Coordinator{
		cfg: cfg, log: cfg.Logger.With("component", "coordinator"), began: time.Now(),
		ready: make(chan struct{}), done: make(chan struct{}),
	}
	c.metrics = newMetrics(cfg.Registerer, c)
	for i := range c.shards {
		c.shards[i] = newShard(c, int32(i))
	}
	return c
}

// Partition is the partition of __consumer_offsets whose coordinator serves the group:
// Kafka's formula, Java's hash of the name.
func Partition(group string) int32 {
	var h int32
	for _, u := range utf16.Encode([]rune(group)) {
		h = 31*h + int32(u)
	}
	if h < 0 {
		h = -h // Java's least int stays negative, and counts as 0
	}
	return max(h, 0) % controller.Partitions
}

// Ready is closed when every partition that was assigned to this broker at first was loaded once.
func (c *Coordinator) Ready() <-chan struct{} { return c.ready }

// Assign says which partitions this broker coordinates from now on, each with the epoch of the placement group that it
// lives in. Others stop at once: whoever waits there is told group.ErrNotCoordinator. New ones, and ones with another
// epoch, are claimed and loaded. It does not wait.
func (c *Coordinator) Assign(owned map[int32]ident.Epoch) {
	for _, s := range c.shards {
		a := assignment{}
		a.owner, a.owned = owned[s.partition]
		if was := s.assigned.Swap(&a); was == nil || *was != a {
			s.wake()
		}
	}
}

// Run serves the partitions that are assigned until ctx ends. Then everything parked is answered
// with group.ErrNotCoordinator, and what was being written is waited for.
func (c *Coordinator) Run(ctx context.Context) error {
	defer close(c.done)
	if c.cfg.Store == nil {
		<-ctx.Done()
		return nil
	}
	var wg sync.WaitGroup
	defer wg.Wait()
	for _, s := range c.shards {
		wg.Go(func() { s.run(ctx) })
	}
	for _, s := range c.shards {
		select {
		case <-s.settledOnce:
		case <-ctx.Done():
			return nil
		}
	}
	close(c.ready)
	<-ctx.Done()
	return nil
}

// ended says whether nothing is coordinated here any more.
func (c *Coordinator) ended() bool {
	select {
	case <-c.done:
		return true
	default:
		return false
	}
}

func (c *Coordinator) shard(group string) *shard { return c.shards[Partition(group)] }

func (c *Coordinator) ticket() group.Ticket { return group.Ticket(c.tickets.Add(1)) }

// cutOff is the answer to a request whose context ended. What was cancelled, and not by a deadline, was cut off as its broker
// stops serving: another one is the coordinator soon.
func cutOff(ctx context.Context) error {
	if errors.Is(ctx.Err(), context.Canceled) {
		return fmt.Errorf("%w: %w", group.ErrNotCoordinator, context.Cause(ctx))
	}
	return context.Cause(ctx)
}

// do runs fn on the shard's goroutine and waits for its answer, which may come later.
func do[T any](ctx context.Context, c *Coordinator, s *shard, fn func(now time.Time, reply func(T, error))) (T, error) {
	type answer struct {
		v   T
		err error
	}
	var none T
	if c.cfg.Store == nil {
		return none, group.ErrCoordinatorNotAvailable
	}
	answered := make(chan answer, 1)
	reply := func(v T, err error) { answered <- answer{v, err} }
	t := task{
		run:    func(now time.Time) { fn(now, reply) },
		refuse: func(err error) { reply(none, err) },
	}
	select {
	case s.inbox <- t:
	case <-c.done:
		return none, group.ErrNotCoordinator
	case <-ctx.Done():
		return none, cutOff(ctx)
	}
	select {
	case a := <-answered:
		return a.v, a.err
	case <-ctx.Done():
		return none, cutOff(ctx)
	case <-c.done:
		select {
		case a := <-answered:
			return a.v, a.err
		default:
			return none, group.ErrNotCoordinator
		}
	}
}
