package controller

import (
	"context"
	"sync"
)

// progress is how far this broker's copy of the state is: the index of the newest command that it
// shows. Entries that are no commands do not count, so the same index means the same state everywhere.
type progress struct {
	mu      sync.Mutex
	index   uint64
	waiting map[*waiter]struct{}
}

type waiter struct {
	index uint64
	there chan struct{}
}

// at returns the index.
func (p *progress) at() uint64 {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.index
}

// advance moves the index to a command that was applied, or that a restored snapshot shows.
func (p *progress) advance(index uint64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.index = max(p.index, index)
	for w := range p.waiting {
		if w.index <= p.index {
			delete(p.waiting, w)
			close(w.there)
		}
	}
}

// await waits until the copy shows the command at index. Errors: ErrClosed, the context's cause.
func (p *progress) await(ctx context.Context, index uint64, over <-chan struct{}) error {
	p.mu.Lock()
	if p.index >= index {
		p.mu.Unlock()
		return nil
	}
	w := &waiter{index: index, there: make(chan struct{})}
	if p.waiting == nil {
		p.waiting = make(map[*waiter]struct{})
	}
	p.waiting[w] = struct{}{}
	p.mu.Unlock()
	select {
	case <-w.there:
		return nil
	case <-over:
		return ErrClosed
	case <-ctx.Done():
		p.mu.Lock()
		delete(p.waiting, w)
		p.mu.Unlock()
		return context.Cause(ctx)
	}
}

// signal wakes whoever waits for something to change.
type signal struct {
	mu sync.Mutex
	ch chan struct{}
}

// next returns a channel that the next fire closes: take it before looking at what may change.
func (s *signal) next() <-chan struct{} {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ch == nil {
		s.ch = make(chan struct{})
	}
	return s.ch
}

func (s *signal) fire() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ch != nil {
		close(s.ch)
		s.ch = nil
	}
}
