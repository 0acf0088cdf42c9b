package commitlog

import (
	"context"
	"sync"
	"sync/atomic"
	"time"

	"github.com/skeinmq/skein/internal/ident"
)

// A consumer that catches up asks for one piece of its partition, gets it, and asks for the next: the disk rests while the answer
// travels. ahead reads the next piece meanwhile, and for a reader that came back for it the one after that as well, so that
// the disk does not rest between two pieces either.
const (
	aheadMax   = 32              // pieces; readers beyond read for themselves
	aheadDepth = 2               // pieces of one reader
	aheadFor   = 2 * time.Second // how long a piece waits for its reader
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

	// Under ahead.mu:
	next  ident.Offset // where it ends, once it is located; 0: not yet, or nothing follows
	depth int          // how many pieces, this one included, its reader is worth
}

// follow reads on behind a read that was answered from the disk in pieces worth it, unless everything up to the end was
// read. came: the reader has come back for a piece before.
func (a *ahead) follow(q *Queue, opt ReadOptions, read *Records, to ident.Offset, came bool) {
	if read.Cold < directRead || read.Cold < read.Bytes || read.Next >= to {
		return // it is about to come to what is in memory
	}
	depth := 1
	if came {
		depth = aheadDepth
	}
	opt.From = read.Next
	a.mu.Lock()
	defer a.mu.Unlock()
	a.extend(q, opt, to, depth)
}

// extend begins the pieces, depth of them from opt.From on, that are not there yet. What lies behind one that is not
// located yet is begun once it is. The caller holds mu.
func (a *ahead) extend(q *Queue, opt ReadOptions, to ident.Offset, depth int) {
	for ; depth > 0; depth-- {
		p := a.find(q, opt.From)
		if p == nil {
			a.begin(q, opt, to, depth)
			return
		}
		if p.depth = max(p.depth, depth); p.next == 0 {
			return
		}
		opt.From = p.next
	}
}

// find returns the piece of q at an offset, or nil. The caller holds mu.
func (a *ahead) find(q *Queue, from ident.Offset) *piece {
	for _, p := range a.pieces {
		if p.q == q && p.opt.From == from {
			return p
		}
	}
	return nil
}

// begin reads a piece in the background. The caller holds mu.
func (a *ahead) begin(q *Queue, opt ReadOptions, to ident.Offset, depth int) {
	if a.closed || len(a.pieces) >= aheadMax {
		return
	}
	p := &piece{q: q, opt: opt, done: make(chan struct{}), depth: depth}
	a.pieces = append(a.pieces, p)
	a.held.Add(1)
	a.reads.Go(func() {
		defer close(p.done)
		if p.err = q.plan(context.Background(), p.opt, to, &p.rec); p.err != nil {
			return
		}
		a.located(p, to)
		p.err = q.fetchPlan(context.Background(), &p.rec)
	})
	p.late = time.AfterFunc(aheadFor, func() { a.drop(p) })
}

// located goes on behind a piece of which it is known now where it ends.
func (a *ahead) located(p *piece, to ident.Offset) {
	n := len(p.rec.plan)
	if n == 0 || p.rec.plan[n-1].end() >= to {
		return
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	p.next = p.rec.plan[n-1].end()
	opt := p.opt
	opt.From = p.next
	a.extend(p.q, opt, to, p.depth-1)
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
