package coordinator

import (
	"context"
	"errors"
	"sync/atomic"
	"time"

	"github.com/skeinmq/skein/broker/group"
	"github.com/skeinmq/skein/controller"
	"github.com/skeinmq/skein/internal/ident"
)

const (
	// inboxSize requests may wait for a shard; then its callers wait.
	inboxSize = 128
	// batchBytes: a batch that is larger is not added to.
	batchBytes = 1 << 20
	// pendingBytes: with more than this to be written a shard takes no further request.
	pendingBytes = 32 << 20
	// reloadPause is waited before a partition is claimed again after a failure, and a claim
	// is waited for claimTimeout. A claim that is refused because a newer owner has claimed says that this broker's map is
	// behind: each of those doubles the pause, up to fencedPause, for it costs an entry in everybody's log.
	reloadPause  = 200 * time.Millisecond
	fencedPause  = 5 * time.Second
	claimTimeout = 5 * time.Second
	// holdTime is how long requests wait for a claim that is under way before they are told that it loads: a claim takes
	// milliseconds, or, when the active controller has died as well, an election (a second). librdkafka gives a commit up that
	// is told so thrice within 0.3 s. Each request that waits is its connection's only one, and paid for by its reader.
	holdTime = 1500 * time.Millisecond
)

// task is one request to a shard: run or refuse is called, once, on its goroutine.
type task struct {
	run    func(now time.Time)
	refuse func(error)
}

// shard coordinates the groups of one partition of __consumer_offsets.
type shard struct {
	c         *Coordinator
	partition int32
	inbox     chan task
	// assigned is what Coordinator.Assign said last, nil before it did; doubted is the newest epoch of ours that
	// somebody found fenced. changed has one slot: look at both.
	assigned atomic.Pointer[assignment]
	doubted  atomic.Int64
	changed  chan struct{}
	// settledOnce is closed when the first load is over, or there was nothing to load; serving is the epoch in which
	// reads of committed offsets may be answered, 0: none, for readers on other goroutines.
	settledOnce chan struct{}
	serving     atomic.Int64
	// behind says that the last claim failed: another broker may well be the coordinator. confirmed is when this one was
	// known to be it, in nanoseconds.
	behind    atomic.Bool
	confirmed atomic.Int64

	// What follows is owned by run.

	mine    assignment     // in force
	machine *group.Machine // nil while nothing is loaded
	epoch   controller.Epoch
	seq     uint64
	claimed chan claimed       // the answer of the claim under way
	abandon context.CancelFunc // ends the claim under way; nil: there is none
	settled bool               // settledOnce is closed
	joins   map[group.Ticket]func(group.JoinReply)
	syncs   map[group.Ticket]func(group.SyncReply)
	// units wait to be written, in order; flying is the batch that is being written.
	units   []unit
	bytes   int
	flying  []unit
	writer  chan *controller.Batch
	written chan error
	timer   *time.Timer
	sweep   *time.Timer
	retry   *time.Timer // runs while a claim must wait
	resting bool        // retry runs
	pause   time.Duration
	hold    *time.Timer // runs while requests wait for a claim
	holding bool
}

// assignment says whether this broker coordinates a partition, and the epoch of the placement group that it lives in.
type assignment struct {
	owned bool
	owner ident.Epoch
}

// claimed is the answer to a claim.
type claimed struct {
	of    assignment
	epoch controller.Epoch
	err   error
}

// unit is what one request writes: all of it is in one batch.
type unit struct {
	ops    []controller.Op
	tokens []group.Token
	bytes  int
	done   func(error) // may be nil
}

func newShard(c *Coordinator, partition int32) *shard {
	return &shard{
		c: c, partition: partition, inbox: make(chan task, inboxSize), changed: make(chan struct{}, 1),
		settledOnce: make(chan struct{}), claimed: make(chan claimed, 1), pause: reloadPause,
		joins: make(map[group.Ticket]func(group.JoinReply)), syncs: make(map[group.Ticket]func(group.SyncReply)),
		writer: make(chan *controller.Batch), written: make(chan error, 1),
	}
}

// wake makes run look at what changed.
func (s *shard) wake() {
	select {
	case s.changed <- struct{}{}:
	default:
	}
}

// doubt says that the epoch, ours, was found not to be the newest.
func (s *shard) doubt(epoch controller.Epoch) {
	s.doubted.Store(int64(epoch))
	s.wake()
}

// refusal is the error of a request to a shard that has nothing loaded.
func (s *shard) refusal() error {
	if a := s.assigned.Load(); a != nil && !a.owned || s.behind.Load() {
		return group.ErrNotCoordinator
	}
	return ErrLoading
}

// run serves the shard until ctx ends.
func (s *shard) run(ctx context.Context) {
	s.timer, s.sweep, s.retry, s.hold = stoppedTimer(), stoppedTimer(), stoppedTimer(), stoppedTimer()
	writes := make(chan struct{})
	go func() { // the writer; it ends when run does, which waits for it
		defer close(writes)
		for b := range s.writer {
			s.written <- s.c.cfg.Store.Write(context.WithoutCancel(ctx), b)
		}
	}()
	defer func() { close(s.writer); <-writes }()
	s.follow(ctx)
	s.sweep.Reset(s.c.cfg.CheckInterval)
	for {
		inbox := s.inbox
		if s.bytes > pendingBytes || s.holding {
			inbox = nil
		}
		select {
		case t := <-inbox:
			s.serve(t)
		case <-s.timer.C:
			s.tick()
		case err := <-s.written:
			s.settle(err)
			s.claim(ctx)
		case <-s.sweep.C:
			s.expire(ctx, time.Now())
			s.sweep.Reset(s.c.cfg.CheckInterval)
		case <-s.changed:
			s.follow(ctx)
		case a := <-s.claimed:
			s.take(&a)
			s.claim(ctx)
		case <-s.hold.C:
			s.holding = false
		case <-s.retry.C:
			s.resting = false
			s.claim(ctx)
		case <-ctx.Done():
			s.unload(group.ErrNotCoordinator)
			if s.flying != nil {
				s.settle(<-s.written)
			}
			if s.abandon != nil {
				s.abandon()
				<-s.claimed
			}
			return
		}
	}
}

func stoppedTimer() *time.Timer {
	t := time.NewTimer(time.Hour)
	t.Stop()
	return t
}

func (s *shard) serve(t task) {
	if s.machine == nil {
		t.refuse(s.refusal())
		return
	}
	t.run(time.Now())
	s.after()
}

// tick lets the machine do what is due.
func (s *shard) tick() {
	if s.machine != nil {
		s.machine.Tick(time.Now())
		s.after()
	}
}

// after does what the machine wants done since the last time, and sets its next deadline.
func (s *shard) after() {
	s.effects(nil)
	s.flush()
	s.timer.Stop()
	if s.machine == nil {
		return
	}
	if at, ok := s.machine.Next(); ok {
		s.timer.Reset(max(time.Until(at), 0))
	}
}

// effects delivers answers and queues writes; done, if not nil, hears when the writes are
// durable, at once if there are none. It returns whether there were any.
func (s *shard) effects(done func(error)) bool {
	out := s.machine.Drain()
	for _, r := range out.Joins {
		if deliver := s.joins[r.Ticket]; deliver != nil {
			delete(s.joins, r.Ticket)
			deliver(r)
		}
	}
	for _, r := range out.Syncs {
		if deliver := s.syncs[r.Ticket]; deliver != nil {
			delete(s.syncs, r.Ticket)
			deliver(r)
		}
	}
	if len(out.Writes) == 0 {
		return false
	}
	u := unit{done: done}
	for _, w := range out.Writes {
		op := controller.Op{Kind: controller.PutGroup, Group: w.Group, Value: w.Value}
		if w.Drop {
			op = controller.Op{Kind: controller.DropGroup, Group: w.Group}
		}
		u.ops = append(u.ops, op)
		u.bytes += len(w.Group) + len(w.Value) + opBytes
		if w.Token != 0 {
			u.tokens = append(u.tokens, w.Token)
		}
	}
	s.enqueue(u)
	return true
}

// opBytes is what an operation takes besides its contents, offsetBytes an offset besides
// its metadata; both rounded up.
const (
	opBytes     = 16
	offsetBytes = 64
)

func (s *shard) enqueue(u unit) {
	s.units = append(s.units, u)
	s.bytes += u.bytes
}

// flush begins the next batch if none is being written. Units without operations only wait
// for what is before them.
func (s *shard) flush() {
	if s.flying != nil {
		return
	}
	n, size := 0, 0
	batch := &controller.Batch{Partition: s.partition, Epoch: s.epoch}
	for n < len(s.units) && (n == 0 || size+s.units[n].bytes <= batchBytes) {
		size += s.units[n].bytes
		batch.Ops = append(batch.Ops, s.units[n].ops...)
		n++
	}
	if n == 0 {
		return
	}
	s.flying, s.units = s.units[:n:n], s.units[n:]
	s.bytes -= size
	if len(batch.Ops) == 0 {
		s.settle(nil)
		return
	}
	s.seq++
	batch.Seq = s.seq
	s.c.metrics.batches.Inc()
	s.c.metrics.batchOps.Add(float64(len(batch.Ops)))
	s.writer <- batch // the writer is idle: nothing was flying
}

// settle hears how the batch that was being written went.
func (s *shard) settle(err error) {
	units := s.flying
	s.flying = nil
	if errors.Is(err, controller.ErrStale) {
		err = nil // it was applied before: an answer was lost on the way and the entry sent again
	}
	if err != nil {
		s.c.metrics.failures.Inc()
		s.c.log.Warn("coordinator gives its partition up", "partition", s.partition, "error", err)
		for _, u := range units {
			u.answer(group.ErrNotCoordinator)
		}
		if s.machine != nil { // else it was given up already, and a new claim need not wait
			s.unload(group.ErrNotCoordinator)
			s.rest()
		}
		return
	}
	now := time.Now()
	for _, u := range units {
		u.answer(nil)
		if s.machine == nil {
			continue
		}
		for _, t := range u.tokens {
			s.machine.Persisted(now, t)
		}
	}
	if s.machine != nil {
		s.after()
	}
}

func (u unit) answer(err error) {
	if u.done != nil {
		u.done(err)
	}
}

// unload stops believing what is in memory, and tells everybody who waits.
func (s *shard) unload(err error) {
	s.serving.Store(0)
	if s.machine == nil {
		return
	}
	s.machine.Unload()
	out := s.machine.Drain()
	s.machine = nil
	for _, r := range out.Joins {
		if deliver := s.joins[r.Ticket]; deliver != nil {
			deliver(r)
		}
	}
	for _, r := range out.Syncs {
		if deliver := s.syncs[r.Ticket]; deliver != nil {
			deliver(r)
		}
	}
	clear(s.joins)
	clear(s.syncs)
	for _, u := range s.units {
		u.answer(err)
	}
	s.units, s.bytes = nil, 0
}

// follow does what the newest assignment asks for.
func (s *shard) follow(ctx context.Context) {
	a := s.assigned.Load()
	if a == nil {
		return
	}
	if *a != s.mine {
		s.mine, s.pause, s.resting = *a, reloadPause, false
		s.behind.Store(false)
		s.retry.Stop()
		s.unload(group.ErrNotCoordinator)
		if s.abandon != nil {
			s.abandon() // its answer comes all the same
		}
	}
	if s.machine != nil && controller.Epoch(s.doubted.Load()) == s.epoch {
		s.c.log.Warn("coordinator is not the newest of its partition", "partition", s.partition, "epoch", s.epoch)
		s.unload(group.ErrNotCoordinator)
	}
	s.claim(ctx)
	if !s.mine.owned {
		s.settleOnce()
	}
}

func (s *shard) settleOnce() {
	if !s.settled {
		s.settled = true
		close(s.settledOnce)
	}
}

// rest keeps the next claim waiting for a while.
func (s *shard) rest() {
	s.resting = true
	s.retry.Reset(s.pause)
}

// claim begins to claim the partition if it is this broker's and nothing is loaded. A batch that is being written is
// waited for first: it belongs to the claim before.
func (s *shard) claim(ctx context.Context) {
	if !s.mine.owned || s.machine != nil || s.abandon != nil || s.flying != nil || s.resting {
		return
	}
	ctx, s.abandon = context.WithTimeout(ctx, claimTimeout)
	s.holding = true
	s.hold.Reset(holdTime)
	of := s.mine
	go func() { // its answer is waited for
		epochs, err := s.c.cfg.Store.Claim(ctx, []controller.Claim{{Partition: s.partition, Owner: of.owner}})
		a := claimed{of: of, err: err}
		if err == nil {
			a.epoch = epochs[0]
		}
		s.claimed <- a
	}()
}

// take hears how a claim ended.
func (s *shard) take(a *claimed) {
	s.abandon()
	s.abandon = nil
	s.holding = false
	s.hold.Stop()
	switch {
	case a.of != s.mine: // it is not wanted any more
	case a.err != nil:
		s.c.log.Warn("coordinator cannot claim its partition", "partition", s.partition, "error", a.err)
		s.behind.Store(true)
		s.rest()
		if errors.Is(a.err, controller.ErrFenced) {
			s.pause = min(2*s.pause, fencedPause)
		}
	default:
		s.epoch, s.pause = a.epoch, reloadPause
		s.behind.Store(false)
		s.confirmed.Store(s.c.uptime())
		s.load()
		s.settleOnce()
	}
}

// load makes a machine of what is stored. The partition is claimed: nobody else writes.
func (s *shard) load() {
	m := group.New(s.c.cfg.Group)
	now := time.Now()
	for _, g := range s.c.cfg.Store.Groups(s.partition) {
		if err := m.Load(now, g.Name, g.Value); err != nil {
			// Its offsets can still be read; members join it anew, which writes over it.
			s.c.log.Error("stored group is not readable", "partition", s.partition, "group", g.Name, "error", err)
		}
	}
	s.seq, s.machine = 0, m
	s.serving.Store(int64(s.epoch))
	s.after()
}
