package controller

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/raft"
	wal "github.com/hashicorp/raft-wal"
)

// Controller is one voter. Open, then Run until the end; the other methods may be called
// from any goroutine at any time and wait for Ready themselves.
type Controller struct {
	cfg     Config
	state   *state
	machine *machine
	metrics *metrics
	store   *logStore
	snaps   raft.SnapshotStore

	nudge  chan struct{} // the machine wants a snapshot
	poison chan error    // the log store's first failure
	ready  chan struct{} // closed when this voter first leads and has applied everything
	slots  chan struct{} // one token per command in flight

	// raft is set before ready is closed.
	raft atomic.Pointer[raft.Raft]
	// over is closed when raft has shut down: what it has not answered by then it never will.
	over chan struct{}
	// done is closed when Run has ended.
	done chan struct{}
	// beside counts the goroutines of Run that wait for raft.
	beside sync.WaitGroup
}

// Open opens the directory of a voter. Everything slow, the replay included, is Run's.
func Open(cfg Config) (*Controller, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	cfg = cfg.withDefaults()
	logDir := filepath.Join(cfg.Dir, "log")
	if err := os.MkdirAll(logDir, 0o755); err != nil {
		return nil, fmt.Errorf("open controller: %w", err)
	}
	logger := newLogger(cfg.Logger)
	w, err := wal.Open(logDir, wal.WithLogger(logger), wal.WithSegmentSize(segmentBytes))
	if err != nil {
		return nil, fmt.Errorf("open raft log %s: %w", logDir, err)
	}
	snaps, err := raft.NewFileSnapshotStoreWithLogger(cfg.Dir, 2, logger)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("open snapshots %s: %w", cfg.Dir, err), w.Close())
	}
	c := &Controller{
		cfg: cfg, state: newState(), metrics: newMetrics(cfg.Registerer), snaps: snaps,
		nudge: make(chan struct{}, 1), poison: make(chan error, 1),
		ready: make(chan struct{}), over: make(chan struct{}), done: make(chan struct{}),
		slots: make(chan struct{}, cfg.QueueEntries),
	}
	c.store = &logStore{WAL: w, stuck: cfg.StuckTimeout, poison: c.poison}
	c.machine = &machine{state: c.state, metrics: c.metrics, limit: cfg.SnapshotBytes, nudge: c.nudge}
	c.metrics.queueLimit.Set(float64(cfg.QueueEntries))
	return c, nil
}

// segmentBytes is how much of the raft log one file holds. The file is made at full size,
// which a first start waits for.
const segmentBytes = 16 << 20

// Ready is closed when this voter leads and has applied everything that was committed.
func (c *Controller) Ready() <-chan struct{} { return c.ready }

// Run runs the voter until ctx ends (nil) or its log is poisoned (a *PoisonedError: the
// process must end). It returns when nothing of it runs any more.
func (c *Controller) Run(ctx context.Context) (err error) {
	start := time.Now()
	defer close(c.done)
	r, err := c.start()
	if err != nil {
		return errors.Join(err, c.store.Close())
	}
	c.raft.Store(r)
	defer func() { err = errors.Join(err, c.stop(r)) }()

	caughtUp := make(chan struct{}, 1)
	led := false
	for {
		select {
		case <-ctx.Done():
			return nil
		case cause := <-c.poison:
			return cause
		case <-c.nudge:
			c.takeSnapshot(r)
		case leads := <-r.LeaderCh():
			c.metrics.isLeader.Set(0)
			if !leads {
				continue
			}
			c.metrics.isLeader.Set(1)
			// Everything committed before is applied when the barrier is. An error means
			// deposed again.
			c.beside.Go(func() {
				if c.answer(r.Barrier(0)) != nil {
					return
				}
				select {
				case caughtUp <- struct{}{}:
				default:
				}
			})
		case <-caughtUp:
			if !led {
				led = true
				c.metrics.startedTime.Set(time.Since(start).Seconds())
				close(c.ready)
			}
		}
	}
}

// start starts raft; a directory that never had one is bootstrapped first.
func (c *Controller) start() (*raft.Raft, error) {
	rc := c.cfg.raft()
	trans, voters := c.cfg.Transport, c.cfg.Voters
	if trans == nil {
		addr, loop := raft.NewInmemTransport(raft.ServerAddress(rc.LocalID))
		trans = loop
		voters = []raft.Server{{ID: rc.LocalID, Address: addr}}
	}
	exists, err := raft.HasExistingState(c.store, c.store, c.snaps)
	if err != nil {
		return nil, fmt.Errorf("start controller: %w", err)
	}
	if !exists {
		cluster := raft.Configuration{Servers: voters}
		if err := raft.BootstrapCluster(rc, c.store, c.store, c.snaps, trans, cluster); err != nil {
			return nil, fmt.Errorf("bootstrap controller: %w", err)
		}
	}
	r, err := raft.NewRaft(rc, c.machine, c.store, c.store, c.snaps, trans)
	if err != nil {
		return nil, fmt.Errorf("start controller: %w", err)
	}
	return r, nil
}

// takeSnapshot runs beside the loop's other work only through raft's own goroutines; a
// failure costs a longer log, nothing else.
func (c *Controller) takeSnapshot(r *raft.Raft) {
	c.beside.Go(func() {
		if err := c.answer(r.Snapshot()); err != nil && !errors.Is(err, raft.ErrRaftShutdown) && !errors.Is(err, raft.ErrNothingNewToSnapshot) {
			c.cfg.Logger.Warn("snapshot not taken", "component", "controller", "error", err)
		}
	})
}

// answer waits for a future's answer or for the end of raft. A shutdown of raft 1.8 drops what lies between its loop and
// that of the state machine, and nobody answers it: without the second way out, stop would wait for ever.
func (c *Controller) answer(f raft.Future) error {
	answered := make(chan error, 1)
	go func() { answered <- f.Error() }() // left behind if the future was dropped
	select {
	case err := <-answered:
		return err
	case <-c.over:
		select {
		case err := <-answered:
			return err
		default:
			return raft.ErrRaftShutdown
		}
	}
}

func (c *Controller) stop(r *raft.Raft) error {
	shutdown := r.Shutdown().Error
	if c.store.poisoned() != nil {
		// A hung write may never come back: raft cannot be waited for. The process ends.
		go shutdown()
		return nil
	}
	err := shutdown()
	close(c.over)
	c.beside.Wait()
	// Whoever holds a slot has been answered by the shutdown; holding all of them is the proof,
	// and lets nobody in any more.
	for range cap(c.slots) {
		c.slots <- struct{}{}
	}
	if cerr := c.store.Close(); err == nil {
		err = cerr
	}
	if err != nil {
		return fmt.Errorf("stop controller: %w", err)
	}
	return nil
}

// Claim makes the caller the coordinator of partitions, all or none, and returns the epochs
// in the order of claims. Errors: ErrFenced (an owner's epoch is old), ErrNotLeader,
// ErrUnknown, ErrClosed, the context's cause.
func (c *Controller) Claim(ctx context.Context, claims []Claim) ([]Epoch, error) {
	for _, cl := range claims {
		if cl.Partition < 0 || cl.Partition >= Partitions {
			return nil, fmt.Errorf("claim partition %d: no such coordinator partition", cl.Partition)
		}
	}
	out, err := c.apply(ctx, appendClaims(nil, claims))
	if err != nil {
		return nil, fmt.Errorf("claim: %w", err)
	}
	return out.epochs, nil
}

// Write applies a batch. nil: it is durable and visible. ErrFenced, ErrStale, ErrNotLeader,
// ErrTooLarge, ErrClosed: it had no effect. ErrUnknown: claim again to settle it.
func (c *Controller) Write(ctx context.Context, b *Batch) error {
	if b.Partition < 0 || b.Partition >= Partitions {
		return fmt.Errorf("write partition %d: no such coordinator partition", b.Partition)
	}
	for i := range b.Ops {
		if len(b.Ops[i].Value) > MaxValueBytes {
			return fmt.Errorf("write group %q: %d bytes of metadata: %w", b.Ops[i].Group, len(b.Ops[i].Value), ErrTooLarge)
		}
	}
	if _, err := c.apply(ctx, appendBatch(nil, b)); err != nil {
		return fmt.Errorf("write partition %d: %w", b.Partition, err)
	}
	return nil
}

// ProducerIDs hands out a block of producer ids that nobody else gets, ever: first,
// first+1, … A block that was handed out and not used is lost, as in Kafka.
func (c *Controller) ProducerIDs(ctx context.Context) (first int64, count int, err error) {
	out, err := c.apply(ctx, appendProducerIDs(nil, ProducerIDBlock))
	if err != nil {
		return 0, 0, fmt.Errorf("allocate producer ids: %w", err)
	}
	return out.first, ProducerIDBlock, nil
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

// apply submits one encoded command and waits until it is applied.
func (c *Controller) apply(ctx context.Context, cmd []byte) (result, error) {
	if len(cmd) > MaxEntryBytes {
		return result{}, fmt.Errorf("%d bytes: %w", len(cmd), ErrTooLarge)
	}
	if err := c.awaitReady(ctx); err != nil {
		return result{}, err
	}
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
		answered <- answer{out: out, err: out.err}
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
	case errors.Is(err, raft.ErrRaftShutdown):
		return fmt.Errorf("%w: %w", ErrUnknown, err)
	default:
		// ErrLeadershipLost, a failed write: the entry may be in somebody's log.
		return fmt.Errorf("%w: %w", ErrUnknown, err)
	}
}
