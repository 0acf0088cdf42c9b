package commitlog

import (
	"context"
	"sync"
	"sync/atomic"
	"time"

	"github.com/skeinmq/skein/internal/ident"
)

// A consumer that catches up asks for one piece of its partition, gets it, and asks for the next: the disk rests while the answer
// travels. ahead reads the next piece meanwhile.
const (
	aheadMax = 16              // pieces; readers beyond read for themselves
	aheadFor = 2 * time.Second // how long a piece waits for its reader
)

// ahead holds what was read from the disk before anybody asked.
type ahead struct {
	held atomic.Int32 // len(pieces), for readers that need not lock

	mu     sync.Mutex
	pieces []*piece
	closed bool
	reads  sync.WaitGroup
}

// piece is what a read of q from an offset on, with the same options, will return.
type piece struct {
	q    *Queue
	opt  ReadOptions
	done chan struct{}
	rec  Records // valid once done is closed
	err  error
	late *time.Timer
}

// follow reads on behind a read that was answered from the disk in pieces worth it, unless everything up to the end was read.
func (a *ahead) follow(q *Queue, opt ReadOptions, read *Records, to ident.Offset) {
	if read.Cold < directRead || read.Cold < read.Bytes || read.Next >= to {
		return // it is about to come to what is in memory
	}
	opt.From = read.Next
	p := &piece{q: q, opt: opt, done: make(chan struct{})}
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.closed || len(a.pieces) >= aheadMax {
		return
	}
	for _, other := range a.pieces {
		if other.q == q && other.opt.From == opt.From {
			return
		}
	}
	a.pieces = append(a.pieces, p)
	a.held.Add(1)
	a.reads.Go(func() {
		p.err = q.fresh(context.Background(), p.opt, to, &p.rec)
		close(p.done)
	})
	p.late = time.AfterFunc(aheadFor, func() { a.drop(p) })
}

// take moves the piece for a read into dst and reports whether there was one that fits.
func (a *ahead) take(q *Queue, opt ReadOptions, to ident.Offset, dst *Records) bool {
	if a.held.Load() == 0 {
		return false
	}
	p := a.remove(func(p *piece) bool { return p.q == q && p.opt.From == opt.From })
	if p == nil {
		return false
	}
	p.late.Stop()
	<-p.done
	if p.err != nil || p.rec.Bytes == 0 || p.rec.Next > to || p.rec.Bytes > opt.MaxBytes && !(opt.AtLeastOne && len(p.rec.Slices) == 1) {
		p.rec.release()
		return false
	}
	dst.Slices = append(dst.Slices, p.rec.Slices...)
	dst.pins = append(dst.pins, p.rec.pins...)
	dst.Bytes, dst.Cold, dst.Next = p.rec.Bytes, p.rec.Cold, p.rec.Next
	return true
}

// remove takes a piece out, nil if there is none.
func (a *ahead) remove(is func(*piece) bool) *piece {
	a.mu.Lock()
	defer a.mu.Unlock()
	for i, p := range a.pieces {
		if is(p) {
			last := len(a.pieces) - 1
			a.pieces[i] = a.pieces[last]
			a.pieces[last] = nil
			a.pieces = a.pieces[:last]
			a.held.Add(-1)
			return p
		}
	}
	return nil
}

// drop gives a piece up whose reader did not come.
func (a *ahead) drop(p *piece) {
	if a.remove(func(other *piece) bool { return other == p }) != nil {
		p.q.run.log.metrics.aheadWasted.Inc()
		p.forget()
	}
}

// forget waits for a piece and lets go of its memory.
func (p *piece) forget() {
	<-p.done
	p.rec.release()
}

// close gives everything up, and waits for reads that are under way.
func (a *ahead) close() {
	a.mu.Lock()
	pieces := a.pieces
	a.pieces, a.closed = nil, true
	a.held.Store(0)
	a.mu.Unlock()
	for _, p := range pieces {
		p.late.Stop()
		p.forget()
	}
	a.reads.Wait()
}
