package controller

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/skeinmq/skein/internal/ident"
	"github.com/skeinmq/skein/internal/peer/peerpb"
)

// Conns leads to other brokers' internal listeners; *peer.Pool is one.
type Conns interface {
	Conn(ident.Broker) (grpc.ClientConnInterface, error)
}

// forward hands a command to the leader, once. It gives up when there is another one.
func (c *Controller) forward(ctx context.Context, leader ident.Broker, changed <-chan struct{}, cmd []byte) (result, error) {
	conn, err := c.cfg.Conns.Conn(leader)
	if err != nil {
		return result{}, fmt.Errorf("%w: %w", ErrNotLeader, err)
	}
	ctx, cancel := c.until(ctx, changed)
	defer cancel()
	c.metrics.forwarded.Inc()
	reply, err := peerpb.NewControllerClient(conn).Apply(ctx, &peerpb.ApplyRequest{Command: cmd})
	if err != nil {
		return result{}, callError(err)
	}
	out, err := decodeResult(reply.GetResult())
	if err != nil {
		return result{}, fmt.Errorf("%w: %w", ErrUnknown, err)
	}
	out.index, out.err = reply.GetIndex(), errorOf(reply.GetError())
	return out, nil
}

// askIndex is confirmed at the leader.
func (c *Controller) askIndex(ctx context.Context, leader ident.Broker, changed <-chan struct{}) (uint64, error) {
	conn, err := c.cfg.Conns.Conn(leader)
	if err != nil {
		return 0, fmt.Errorf("%w: %w", ErrNotLeader, err)
	}
	ctx, cancel := c.until(ctx, changed)
	defer cancel()
	reply, err := peerpb.NewControllerClient(conn).Leader(ctx, &peerpb.LeaderRequest{Confirm: true})
	if err != nil {
		return 0, callError(err)
	}
	return reply.GetApplied(), nil
}

// until ends a context when the leader changes or the controller stops.
func (c *Controller) until(ctx context.Context, changed <-chan struct{}) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancelCause(ctx)
	go func() { // ends with the context
		select {
		case <-changed:
			cancel(errNewLeader)
		case <-c.over:
			cancel(ErrClosed)
		case <-ctx.Done():
		}
	}()
	return ctx, func() { cancel(nil) }
}

// callError says what a failed call means for the command that it carried.
func callError(err error) error {
	if status.Code(err) == codes.FailedPrecondition {
		return fmt.Errorf("%w: %w", ErrNotLeader, err)
	}
	return fmt.Errorf("%w: %w", ErrUnknown, err)
}

// The numbers of ApplyReply.error.
const (
	replyFenced  = 1
	replyStale   = 2
	replyVersion = 3
	replyCorrupt = 4
)

func replyOf(err error) int32 {
	switch {
	case err == nil:
		return 0
	case errors.Is(err, ErrFenced):
		return replyFenced
	case errors.Is(err, ErrStale):
		return replyStale
	case errors.Is(err, ErrVersion):
		return replyVersion
	default:
		return replyCorrupt
	}
}

func errorOf(n int32) error {
	switch n {
	case 0:
		return nil
	case replyFenced:
		return ErrFenced
	case replyStale:
		return ErrStale
	case replyVersion:
		return ErrVersion
	default:
		return ErrCorrupt
	}
}

// indexReads asks the leader for its index on behalf of many: whoever comes while a question is under
// way shares the next one, which is asked after they came.
type indexReads struct {
	mu      sync.Mutex
	asking  bool
	waiting *indexRead
}

type indexRead struct {
	answered chan struct{}
	index    uint64
	err      error
}

func (q *indexReads) index(ctx context.Context, c *Controller) (uint64, error) {
	q.mu.Lock()
	if q.waiting == nil {
		q.waiting = &indexRead{answered: make(chan struct{})}
	}
	mine := q.waiting
	if !q.asking {
		q.asking = c.spawn(func() { q.ask(c) })
	}
	q.mu.Unlock()
	select {
	case <-mine.answered:
		return mine.index, mine.err
	case <-c.over:
		return 0, ErrClosed
	case <-ctx.Done():
		return 0, context.Cause(ctx)
	}
}

// ask asks until nobody waits.
func (q *indexReads) ask(c *Controller) {
	for {
		q.mu.Lock()
		r := q.waiting
		q.waiting = nil
		q.asking = r != nil
		q.mu.Unlock()
		if r == nil {
			return
		}
		ctx, cancel := context.WithTimeoutCause(context.Background(), c.cfg.CommandTimeout, errNoLeader)
		r.index, r.err = c.leaderIndex(ctx)
		cancel()
		close(r.answered)
	}
}
