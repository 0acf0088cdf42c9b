package controller

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/hashicorp/raft"
)

// Why a command may be sent again when its answer was lost (ErrUnknown), over any number of leaders:
//
//   - A claim only ever adds an epoch, and an epoch belongs to whoever heard it in an answer. One that
//     nobody heard belongs to nobody; one that is applied late fences a coordinator that then claims
//     again. No order of claims lets two coordinators hold the same epoch.
//   - A batch counts once: its sequence number is refused (ErrStale) when it was applied before, and
//     its epoch (ErrFenced) when somebody claimed since. Its sender has one batch in flight at a time, so
//     ErrStale says that this batch was applied, not another one.
//   - A block of producer ids that nobody heard of is never used.

// Claim makes the caller the coordinator of partitions, all or none, and returns the epochs
// in the order of claims. Reads of this broker then show everything that earlier coordinators
// wrote. Errors: ErrFenced (an owner's epoch is old), ErrNotLeader, ErrUnknown, ErrClosed, the
// context's cause.
func (c *Controller) Claim(ctx context.Context, claims []Claim) ([]Epoch, error) {
	for _, cl := range claims {
		if cl.Partition < 0 || cl.Partition >= Partitions {
			return nil, fmt.Errorf("claim partition %d: no such coordinator partition", cl.Partition)
		}
	}
	out, err := c.apply(ctx, appendClaims(nil, claims))
	if err == nil {
		err = out.err
	}
	if err != nil {
		return nil, fmt.Errorf("claim: %w", err)
	}
	if len(out.epochs) != len(claims) {
		return nil, fmt.Errorf("claim: %w: %d epochs for %d claims", ErrCorrupt, len(out.epochs), len(claims))
	}
	if err := c.progress.await(ctx, out.index, c.over); err != nil {
		return nil, fmt.Errorf("claim: %w: %w", ErrUnknown, err)
	}
	return out.epochs, nil
}

// Write applies a batch. nil: it is durable, and visible to reads after Confirm. ErrFenced, ErrStale,
// ErrNotLeader, ErrTooLarge, ErrClosed: it had no effect. ErrUnknown: claim again to settle it.
// A caller has one batch of a partition in flight at a time.
func (c *Controller) Write(ctx context.Context, b *Batch) error {
	if b.Partition < 0 || b.Partition >= Partitions {
		return fmt.Errorf("write partition %d: no such coordinator partition", b.Partition)
	}
	for i := range b.Ops {
		if len(b.Ops[i].Value) > MaxValueBytes {
			return fmt.Errorf("write group %q: %d bytes of metadata: %w", b.Ops[i].Group, len(b.Ops[i].Value), ErrTooLarge)
		}
	}
	out, err := c.apply(ctx, appendBatch(nil, b))
	if err == nil {
		err = out.err
	}
	if err != nil {
		return fmt.Errorf("write partition %d: %w", b.Partition, err)
	}
	w := &c.wrote[b.Partition]
	for was := w.Load(); was < out.index && !w.CompareAndSwap(was, out.index); was = w.Load() {
	}
	return nil
}

// ProducerIDs hands out a block of producer ids that nobody else gets, ever: first,
// first+1, … A block that was handed out and not used is lost, as in Kafka.
func (c *Controller) ProducerIDs(ctx context.Context) (first int64, count int, err error) {
	out, err := c.apply(ctx, appendProducerIDs(nil, ProducerIDBlock))
	if err == nil {
		err = out.err
	}
	if err != nil {
		return 0, 0, fmt.Errorf("allocate producer ids: %w", err)
	}
	return out.first, ProducerIDBlock, nil
}

func (c *Controller) awaitReady(ctx context.Context) error {
	select {
	case <-c.ready:
		return nil
	default:
	}
	select {
	case <-c.ready:
		return nil
	case <-c.done:
		return ErrClosed
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// between two attempts of a command there is a pause, unless the leader changes.
const (
	firstPause   = 5 * time.Millisecond
	longestPause = 100 * time.Millisecond
)

// apply submits one encoded command to the leader, wherever that is, and waits until it is applied
// there. A lost answer is settled by sending it again: see above. The error of the state machine is in the
// result.
func (c *Controller) apply(ctx context.Context, cmd []byte) (result, error) {
	if len(cmd) > MaxEntryBytes {
		return result{}, fmt.Errorf("%d bytes: %w", len(cmd), ErrTooLarge)
	}
	ctx, cancel := context.WithTimeoutCause(ctx, c.cfg.CommandTimeout, errNoLeader)
	defer cancel()
	if err := c.awaitReady(ctx); err != nil {
		if errors.Is(err, errNoLeader) {
			return result{}, fmt.Errorf("%w: %w", ErrNotLeader, err)
		}
		return result{}, err
	}
	unsure := false // an earlier attempt may have had an effect
	for pause := firstPause; ; pause = min(2*pause, longestPause) {
		changed := c.leaders.next()
		out, err := c.attempt(ctx, changed, cmd)
		again := errors.Is(err, ErrNotLeader) || errors.Is(err, ErrUnknown)
		if c.transport == nil || err == nil && !unsure || err != nil && !again {
			return out, err
		}
		if err == nil {
			return settled(out), nil
		}
		unsure = unsure || errors.Is(err, ErrUnknown)
		c.metrics.retries.Inc()
		select {
		case <-changed:
		case <-time.After(pause):
		case <-c.over:
			return result{}, given(unsure, ErrClosed)
		case <-ctx.Done():
			return result{}, given(unsure, fmt.Errorf("%w: %w", err, context.Cause(ctx)))
		}
	}
}

var errNoLeader = errors.New("no active controller in time")

// settled reads the answer to a command that was sent before.
func settled(out result) result {
	switch {
	case errors.Is(out.err, ErrStale):
		out.err = nil // that was the earlier attempt
	case errors.Is(out.err, ErrFenced):
		out.err = fmt.Errorf("%w: %w", ErrUnknown, out.err) // the earlier attempt may have come before the fence
	}
	return out
}

func given(unsure bool, err error) error {
	if unsure && !errors.Is(err, ErrUnknown) {
		return fmt.Errorf("%w: %w", ErrUnknown, err)
	}
	return err
}

// attempt hands a command to the leader of the moment, once.
func (c *Controller) attempt(ctx context.Context, changed <-chan struct{}, cmd []byte) (result, error) {
	if c.transport == nil || c.raft.Load().State() == raft.Leader {
		return c.submit(ctx, cmd)
	}
	leader, _, known := c.Leader()
	if !known || leader == c.cfg.ID {
		return result{}, fmt.Errorf("%w: none is known", ErrNotLeader)
	}
	return c.forward(ctx, leader, changed, cmd)
}

// submit applies a command as the leader; it does not wait for another one.
func (c *Controller) submit(ctx context.Context, cmd []byte) (result, error) {
	select {
	case c.slots <- struct{}{}:
	case <-c.done:
		return result{}, ErrClosed
	case <-ctx.Done():
		return result{}, context.Cause(ctx)
	}
	start := time.Now()
	c.metrics.queueDepth.Inc()
	c.metrics.entryBytes.Add(float64(len(cmd)))
	future := c.raft.Load().Apply(cmd, 0)

	type answer struct {
		out result
		err error
	}
	answered := make(chan answer, 1)
	go func() { // ends with its slot, and stop waits for the slots
		defer func() {
			<-c.slots
			c.metrics.queueDepth.Dec()
			c.metrics.applyTime.Observe(time.Since(start).Seconds())
		}()
		if err := c.answer(future); err != nil {
			answered <- answer{err: applyError(err)}
			return
		}
		out := future.Response().(result)
		out.index = future.Index()
		answered <- answer{out: out}
	}()
	select {
	case a := <-answered:
		return a.out, a.err
	case <-ctx.Done():
		return result{}, fmt.Errorf("%w: %w", ErrUnknown, context.Cause(ctx))
	case <-c.done:
		return result{}, fmt.Errorf("%w: %w", ErrUnknown, ErrClosed)
	}
}

// applyError says what raft's errors mean for the command.
func applyError(err error) error {
	switch {
	case errors.Is(err, raft.ErrNotLeader), errors.Is(err, raft.ErrLeadershipTransferInProgress):
		return fmt.Errorf("%w: %w", ErrNotLeader, err)
	default:
		// ErrRaftShutdown, ErrLeadershipLost, a failed write: the entry may be in somebody's log.
		return fmt.Errorf("%w: %w", ErrUnknown, err)
	}
}

// Confirm waits until reads of the partition show everything that was acknowledged before the call, by
// whichever coordinator, and says whether epoch is still that of the newest claim: ErrFenced otherwise.
// It asks the active controller, many callers at once with one question.
func (c *Controller) Confirm(ctx context.Context, partition int32, epoch Epoch) error {
	if c.transport != nil { // a voter that is alone for good shows everything at once
		index, err := c.reads.index(ctx, c)
		if err == nil {
			err = c.progress.await(ctx, max(index, c.wrote[partition].Load()), c.over)
		}
		if err != nil {
			return fmt.Errorf("confirm partition %d: %w", partition, err)
		}
	}
	p := &c.state.parts[partition]
	p.mu.RLock()
	defer p.mu.RUnlock()
	if p.epoch != epoch {
		return fmt.Errorf("confirm partition %d: %w: epoch %d, now %d", partition, ErrFenced, epoch, p.epoch)
	}
	return nil
}

// Await waits until reads of the partition show what this broker has written to it.
func (c *Controller) Await(ctx context.Context, partition int32) error {
	if err := c.progress.await(ctx, c.wrote[partition].Load(), c.over); err != nil {
		return fmt.Errorf("await partition %d: %w", partition, err)
	}
	return nil
}

// leaderIndex asks the active controller for an index such that a copy that shows it shows everything
// acknowledged before the call.
func (c *Controller) leaderIndex(ctx context.Context) (uint64, error) {
	for pause := firstPause; ; pause = min(2*pause, longestPause) {
		changed := c.leaders.next()
		index, err := c.confirmOnce(ctx, changed)
		if err == nil {
			return index, nil
		}
		select {
		case <-changed:
		case <-time.After(pause):
		case <-c.over:
			return 0, ErrClosed
		case <-ctx.Done():
			return 0, fmt.Errorf("%w: %w", ErrNotLeader, err)
		}
	}
}

func (c *Controller) confirmOnce(ctx context.Context, changed <-chan struct{}) (uint64, error) {
	if _, leads := c.Leads(); leads {
		return c.confirmed()
	}
	leader, _, known := c.Leader()
	if !known || leader == c.cfg.ID {
		return 0, fmt.Errorf("%w: none is known", ErrNotLeader)
	}
	return c.askIndex(ctx, leader, changed)
}

// confirmed is this broker's own index, once a majority has said that it still leads.
func (c *Controller) confirmed() (uint64, error) {
	l := c.reign.Load()
	if l == nil {
		return 0, ErrNotLeader
	}
	// Read before the question: what is acknowledged before the call has been applied here by now.
	index := c.progress.at()
	if err := c.answer(c.raft.Load().VerifyLeader()); err != nil {
		return 0, fmt.Errorf("%w: %w", ErrNotLeader, err)
	}
	return index, nil
}

// Snapshot writes a snapshot and cuts the log behind it, now.
func (c *Controller) Snapshot(ctx context.Context) error {
	if err := c.awaitReady(ctx); err != nil {
		return err
	}
	if err := c.answer(c.raft.Load().Snapshot()); err != nil && !errors.Is(err, raft.ErrNothingNewToSnapshot) {
		return fmt.Errorf("snapshot: %w", err)
	}
	return nil
}
