package controller

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/raft"
	wal "github.com/hashicorp/raft-wal"

	"github.com/skeinmq/skein/internal/ident"
)

// Controller is one member. Open, then Run until the end; the other methods may be called
// from any goroutine at any time and wait for Ready themselves.
type Controller struct {
	cfg       Config
	transport raft.Transport // nil: alone for good
	state     *state
	machine   *machine
	metrics   *metrics
	store     *logStore
	snaps     raft.SnapshotStore

	nudge   chan struct{} // the machine wants a snapshot
	poison  chan error    // the log store's first failure
	ready   chan struct{}
	atReady sync.Once
	started time.Time     // set by Run
	crowned chan *reign   // reigns that begin
	slots   chan struct{} // one token per command in flight here

	// raft is set before ready is closed.
	raft atomic.Pointer[raft.Raft]
	// reign is set while this broker leads and shows everything; leaders fires when it, or the leader, changes.
	reign   atomic.Pointer[reign]
	leaders signal
	former  atomic.Pointer[ident.Broker] // the newest leader but this broker
	// progress is how far state is, wrote the index of the newest batch of this broker in each partition.
	progress *progress
	wrote    [Partitions]atomic.Uint64
	reads    indexReads

	// over is closed when raft has shut down: what it has not answered by then it never will.
	over chan struct{}
	// done is closed when Run has ended.
	done chan struct{}
	// beside counts the goroutines that wait for raft. Under life none begins after ended is set.
	life   sync.Mutex
	ended  bool
	beside sync.WaitGroup
}

// spawn runs fn on a goroutine that stop waits for; false: it is too late for that.
func (c *Controller) spawn(fn func()) bool {
	c.life.Lock()
	defer c.life.Unlock()
	if !c.ended {
		c.beside.Go(fn)
	}
	return !c.ended
}

// Open opens the directory of a member. Everything slow, the replay included, is Run's.
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
		cfg: cfg, transport: cfg.Transport, state: newState(), progress: &progress{}, metrics: newMetrics(cfg.Registerer), snaps: snaps,
		nudge: make(chan struct{}, 1), poison: make(chan error, 1),
		ready: make(chan struct{}), over: make(chan struct{}), done: make(chan struct{}),
		slots: make(chan struct{}, cfg.QueueEntries), crowned: make(chan *reign),
	}
	c.store = &logStore{WAL: w, stuck: cfg.StuckTimeout, poison: c.poison}
	c.machine = &machine{state: c.state, progress: c.progress, metrics: c.metrics, limit: cfg.SnapshotBytes, nudge: c.nudge}
	c.metrics.queueLimit.Set(float64(cfg.QueueEntries))
	return c, nil
}

// segmentBytes is how much of the raft log one file holds. The file is made at full size,
// which a first start waits for.
const segmentBytes = 16 << 20

// Ready is closed when this broker shows everything that was committed when it first heard from the
// active controller, which it may be itself.
func (c *Controller) Ready() <-chan struct{} { return c.ready }

// Run runs the member until ctx ends (nil) or its log is poisoned (a *PoisonedError: the
// process must end). It returns when nothing of it runs any more.
func (c *Controller) Run(ctx context.Context) (err error) {
	c.started = time.Now()
	defer close(c.done)
	r, err := c.start()
	if err != nil {
		return errors.Join(err, c.store.Close())
	}
	c.store.running.Store(true)
	c.raft.Store(r)
	defer func() { err = errors.Join(err, c.stop(r)) }()
	observed := c.observe(r)
	if c.transport != nil {
		c.hasten(r)
		c.spawn(func() { c.catchUp(ctx) })
		c.spawn(func() { c.attend(ctx, r) })
	}
	var coming *reign // the newest one, crowned or not
	defer func() { c.depose(coming) }()
	for {
		select {
		case <-ctx.Done():
			c.abdicate(r)
			return nil
		case cause := <-c.poison:
			return cause
		case <-c.nudge:
			c.takeSnapshot(r)
		case <-observed:
			if id, _, ok := c.Leader(); ok && id != c.cfg.ID {
				c.former.Store(&id)
			}
			c.leaders.fire()
		case leads := <-r.LeaderCh():
			c.depose(coming)
			coming = nil
			if !leads {
				continue
			}
			l := &reign{term: r.CurrentTerm()}
			l.ctx, l.end = context.WithCancelCause(context.Background())
			coming = l
			// Everything committed before is applied when the barrier is.
			c.spawn(func() { c.crown(r, l) })
		case l := <-c.crowned:
			if l != coming {
				continue
			}
			c.reign.Store(l)
			c.metrics.isLeader.Set(1)
			c.leaders.fire()
			c.becomeReady()
		}
	}
}

// observe tells of changes of the leader, of which the newest may stand for many.
func (c *Controller) observe(r *raft.Raft) <-chan raft.Observation {
	seen := make(chan raft.Observation, 1)
	r.RegisterObserver(raft.NewObserver(seen, false, func(o *raft.Observation) bool {
		_, leader := o.Data.(raft.LeaderObservation)
		return leader
	}))
	return seen
}

// catchUp waits until this broker shows what was committed when it first heard from the leader.
func (c *Controller) catchUp(ctx context.Context) {
	for ctx.Err() == nil {
		index, err := c.leaderIndex(ctx)
		if err == nil && c.progress.await(ctx, index, c.over) == nil {
			c.becomeReady()
			return
		}
	}
}

func (c *Controller) becomeReady() {
	c.atReady.Do(func() {
		c.metrics.startedTime.Set(time.Since(c.started).Seconds())
		close(c.ready)
	})
}

// hasten lets a voter that is alone elect itself at once: nobody can be ahead of it.
func (c *Controller) hasten(r *raft.Raft) {
	members := c.configuration(r).Servers
	if len(members) == 0 || c.voters(r) != 1 || !slices.ContainsFunc(members, func(s raft.Server) bool {
		return s.ID == serverID(c.cfg.ID) && s.Suffrage == raft.Voter
	}) {
		return
	}
	c.look(r)
}

// start starts raft; a fresh directory of a first voter is bootstrapped before.
func (c *Controller) start() (*raft.Raft, error) {
	rc := c.cfg.raft()
	trans := c.transport
	var voters []raft.Server
	for _, v := range c.cfg.Voters {
		voters = append(voters, raft.Server{ID: serverID(v.Broker), Address: raft.ServerAddress(v.Address)})
	}
	if trans == nil {
		addr, loop := raft.NewInmemTransport(raft.ServerAddress(rc.LocalID))
		trans = loop
		voters = []raft.Server{{ID: rc.LocalID, Address: addr}}
	}
	first := slices.ContainsFunc(voters, func(s raft.Server) bool { return s.ID == rc.LocalID })
	exists, err := raft.HasExistingState(c.store, c.store, c.snaps)
	if err != nil {
		return nil, fmt.Errorf("start controller: %w", err)
	}
	if !exists && first {
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
	c.spawn(func() {
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
	c.life.Lock()
	c.ended = true
	c.life.Unlock()
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
