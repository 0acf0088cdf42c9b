package coordinator

import (
	"context"
	"errors"
	"sync/atomic"
	"time"

	"github.com/skeinmq/skein/broker/group"
	"github.com/skeinmq/skein/controller"
)

const (
	// inboxSize requests may wait for a shard; then its callers wait.
	inboxSize = 128
	// batchBytes: a batch that is larger is not added to.
	batchBytes = 1 << 20
	// pendingBytes: with more than this to be written a shard takes no further request.
	pendingBytes = 32 << 20
	// reloadPause is waited before a partition is claimed again after a failure, and a claim
	// is waited for claimTimeout.
	reloadPause  = 200 * time.Millisecond
	claimTimeout = 5 * time.Second
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
	// loadedOnce is closed when the first load is over; loaded says whether reads of
	// committed offsets may be answered, for readers on other goroutines.
	loadedOnce chan struct{}
	loaded     atomic.Bool

	// What follows is owned by run.

	machine *group.Machine // nil while nothing is loaded
	epoch   controller.Epoch
	seq     uint64
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
	retry   *time.Timer // runs while machine is nil
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
		c: c, partition: partition, inbox: make(chan task, inboxSize), loadedOnce: make(chan struct{}),
		joins: make(map[group.Ticket]func(group.JoinReply)), syncs: make(map[group.Ticket]func(group.SyncReply)),
		writer: make(chan *controller.Batch), written: make(chan error, 1),
	}
}

// run serves the shard until ctx ends. The partition has been claimed.
func (s *shard) run(ctx context.Context) {
	s.timer, s.sweep, s.retry = stoppedTimer(), stoppedTimer(), stoppedTimer()
	writes := make(chan struct{})
	go func() { // the writer; it ends when run does, which waits for it
		defer close(writes)
		for b := range s.writer {
			s.written <- s.c.cfg.Store.Write(context.WithoutCancel(ctx), b)
		}
	}()
	defer func() { close(s.writer); <-writes }()
	s.load()
	close(s.loadedOnce)
	s.sweep.Reset(s.c.cfg.CheckInterval)
	for {
		inbox := s.inbox
		if s.bytes > pendingBytes {
			inbox = nil
		}
		select {
		case t := <-inbox:
			s.serve(t)
		case <-s.timer.C:
			s.tick()
		case err := <-s.written:
			s.settle(err)
		case <-s.sweep.C:
			s.expire(time.Now())
			s.sweep.Reset(s.c.cfg.CheckInterval)
		case <-s.retry.C:
			s.reclaim(ctx)
		case <-ctx.Done():
			s.unload(group.ErrNotCoordinator)
			if s.flying != nil {
				s.settle(<-s.written)
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
		t.refuse(ErrLoading)
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
		s.unload(group.ErrNotCoordinator)
		s.retry.Reset(reloadPause)
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
	s.loaded.Store(false)
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

// reclaim tries to become the partition's coordinator again.
func (s *shard) reclaim(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, claimTimeout)
	defer cancel()
	epochs, err := s.c.cfg.Store.Claim(ctx, []controller.Claim{{Partition: s.partition, Owner: s.c.cfg.Owner}})
	if err != nil {
		s.c.log.Warn("coordinator cannot claim its partition", "partition", s.partition, "error", err)
		s.retry.Reset(reloadPause)
		return
	}
	s.epoch = epochs[0]
	s.load()
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
	s.loaded.Store(true)
	s.after()
}
