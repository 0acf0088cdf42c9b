package commitlog

import (
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/skeinmq/skein/internal/ident"
)

// complete is the body of the completing goroutine: it takes blocks in the order in
// which they were dispatched and, once each is durable, commits it, or registers it with the
// witnesses and leaves it to commitWitnessed. It returns when order is closed and empty.
func (l *Log) complete() {
	var committer sync.WaitGroup
	if l.cfg.Witness != nil {
		committer.Go(l.commitWitnessed)
		defer committer.Wait()
		defer close(l.witnessed)
	}
	for b := range l.order {
		err := l.awaitWrite(b)
		if err != nil {
			l.setPoison(err)
		} else if b.n > 0 {
			l.durable.Store(int64(b.end()))
		}
		wants := err == nil && len(b.updates) > 0
		if !wants && l.handed.Load() == 0 { // nothing before it waits for witnesses
			l.finish(b, err)
			continue
		}
		l.handed.Add(1)
		if wants && !plants.ackEarly {
			l.cfg.Witness.Register(b.end(), b.updates, func(err error) { b.witness <- err })
		} else {
			b.witness <- err
		}
		l.witnessed <- b
	}
}

// awaitWrite waits for the block's write, but not beyond the log's end: a stuck
// write never comes back.
func (l *Log) awaitWrite(b *block) error {
	if err := l.poison(); err != nil {
		return err
	}
	select {
	case err := <-b.written:
		if err != nil && !errors.Is(err, ErrPoisoned) {
			return fmt.Errorf("write block at %d: %w", b.pos, err)
		}
		return err
	case <-l.poisoned:
		return l.poison()
	}
}

// commitWitnessed is the second half of complete: it commits, in order, blocks that wait for witnesses, and
// those behind them.
func (l *Log) commitWitnessed() {
	for b := range l.witnessed {
		var err error
		select {
		case err = <-b.witness:
		case <-l.poisoned:
			err = l.poison()
		}
		if err != nil {
			l.setPoison(fmt.Errorf("register with witnesses: %w", err))
		}
		l.finish(b, err)
		l.handed.Add(-1)
	}
}

// finish commits a block, or fails it when the log is poisoned.
func (l *Log) finish(b *block, err error) {
	if err == nil {
		err = l.poison()
	}
	if err != nil {
		l.failBlock(b, l.poison())
		return // a write may still be using the buffer: the block is not used again
	}
	l.commit(b)
	if b.chunk != nil {
		b.chunk.unpin()
	}
	b.reset()
	l.giveBlock(b)
	if l.piped.Add(-1) == maxPiped-1 {
		l.inbox.wake.poke()
	}
}

// commit makes everything in a block visible, then tells who waits.
func (l *Log) commit(b *block) {
	if b.rollFrom != nil {
		l.sealer.queue(b.rollFrom)
	}
	var bytes int64
	touched := l.touched[:0]
	for i := range b.entries {
		e := &b.entries[i]
		q := e.q
		q.addPlace(b.file, e.p)
		q.lso.Store(int64(e.lso)) // before hw: LastStable is clamped to it
		q.hw.Store(int64(e.p.end()))
		bytes += int64(e.p.size)
		if q.mark != b.seq {
			q.mark = b.seq
			touched = append(touched, q)
		}
	}
	if b.n > 0 {
		l.committed.Store(int64(b.end()))
		l.metrics.committed(b, bytes)
	}
	for _, act := range b.acts {
		act(nil)
	}
	for _, q := range touched {
		q.notify()
	}
	clear(touched)
	l.touched = touched
	for _, a := range b.dones {
		for i := range a.Batches {
			a.Batches[i].Result.LogStart = a.Batches[i].Queue.LogStart()
		}
		a.Done(a)
	}
}

// failBlock answers everybody who waits for a block that will never be committed.
func (l *Log) failBlock(b *block, err error) {
	for _, act := range b.acts {
		act(err)
	}
	for _, a := range b.dones {
		failAppend(a, err)
	}
	l.piped.Add(-1)
}

// failAppend answers with err for every batch that had no answer of its own.
func failAppend(a *Append, err error) {
	for i := range a.Batches {
		r := &a.Batches[i].Result
		if r.Err == nil || errors.Is(r.Err, ErrDuplicate) {
			*r = Result{Err: err, Base: -1, Timestamp: -1}
		}
	}
	a.Done(a)
}

// poison returns why the log is dead, or nil.
func (l *Log) poison() error {
	if p := l.poisonErr.Load(); p != nil {
		return *p
	}
	return nil
}

// setPoison ends the log. The first reason stays.
func (l *Log) setPoison(err error) {
	if !errors.Is(err, ErrPoisoned) {
		err = fmt.Errorf("%w: %w", ErrPoisoned, err)
	}
	if !l.poisonErr.CompareAndSwap(nil, &err) {
		return
	}
	close(l.poisoned)
	if errors.Is(err, ErrFenced) {
		l.log.Warn("log fenced", "log", l.id, "error", err)
	} else {
		l.log.Error("log poisoned", "log", l.id, "error", err)
	}
	l.inbox.wake.poke()
}

// stuckTicks is in how many parts the time is measured after which a write is stuck.
const stuckTicks = 8

// watchWrites poisons the log when a write takes too long. It returns when stop is closed. Time is counted in ticks: one
// that a stopped process sleeps through, or that a clock jumps over, is no time that the disk had.
func (l *Log) watchWrites(stop <-chan struct{}) {
	tick := time.NewTicker(max(l.cfg.StuckWrite/stuckTicks, time.Millisecond))
	defer tick.Stop()
	type seen struct {
		at    int64 // when the write began: which one it is
		ticks int
	}
	writes := make(map[*block]seen)
	for {
		select {
		case <-stop:
			return
		case now := <-tick.C:
			for _, b := range l.blocks.all() {
				w := writes[b]
				if at := b.started.Load(); at != w.at {
					w = seen{at: at}
				}
				w.ticks++
				writes[b] = w
				if w.at != 0 && w.ticks > stuckTicks {
					l.setPoison(fmt.Errorf("write of block is stuck since %v", now.Sub(time.Unix(0, w.at))))
					return
				}
			}
		}
	}
}

// blockPool keeps blocks for reuse and knows all of them.
type blockPool struct {
	mu   sync.Mutex
	free []*block
	made []*block
}

func (p *blockPool) get() *block {
	p.mu.Lock()
	defer p.mu.Unlock()
	if n := len(p.free); n > 0 {
		b := p.free[n-1]
		p.free = p.free[:n-1]
		return b
	}
	b := newBlock()
	p.made = append(p.made, b)
	return b
}

func (p *blockPool) put(b *block) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.free = append(p.free, b)
}

func (p *blockPool) all() []*block {
	p.mu.Lock()
	defer p.mu.Unlock()
	return append([]*block(nil), p.made...)
}

func (l *Log) spareBlock() *block { return l.blocks.get() }
func (l *Log) giveBlock(b *block) { l.blocks.put(b) }

// notify tells the queue's watchers that something moved.
func (q *Queue) notify() {
	if ws := q.watchers.Load(); ws != nil {
		for _, w := range *ws {
			w.Notify(q)
		}
	}
}

// expiredBefore is the time, in ms, before which a silent producer is forgotten.
func (l *Log) expiredBefore(nowMs int64) int64 { return nowMs - l.cfg.ProducerExpiry.Milliseconds() }

// end of log for Recovered and Stats.
func (l *Log) end() ident.Position { return ident.Position(l.committed.Load()) }
