package commitlog

import (
	"fmt"
	"time"
)

// While a planned move has a group frozen (O18), appends to it wait here: for the milliseconds of a move nobody is
// refused. When the move failed they enter the log in the order in which they came; when the generation was sealed they
// are refused, and their clients go to the next owner.

const (
	// maxHeld is how many batches of a log wait at most; holdTime how long one does. Beyond either they are refused,
	// and so is all that follows until the freeze ends: a later batch must not overtake a refused one.
	maxHeld  = 8192
	holdTime = time.Second
)

// heldBatch is a batch that waits, and the append that it belongs to.
type heldBatch struct {
	a *Append
	b *Batch
}

// hold is what waits for the end of one freeze of a run. The sequencer owns it.
type hold struct {
	list     []heldBatch
	refusing bool
}

// holdBack takes a batch to a frozen run and reports whether it did.
func (s *sequencer) holdBack(a *Append, b *Batch) bool {
	r := b.Queue.run
	if !r.frozen || !r.is(runOpen) || r.hold == nil || r.hold.refusing || s.stopping {
		return false
	}
	if s.held >= maxHeld {
		r.hold.refusing = true
		return false
	}
	if len(r.hold.list) == 0 {
		s.expectRelease(r, r.hold)
	}
	r.hold.list = append(r.hold.list, heldBatch{a, b})
	b.Result = Result{Base: -1, Timestamp: -1}
	a.held++
	s.held++
	return true
}

// expectRelease refuses what waits for a freeze when that takes too long.
func (s *sequencer) expectRelease(r *run, h *hold) {
	if s.holding == nil {
		s.holding = make(map[*run]bool)
	}
	s.holding[r] = true
	l := s.l
	time.AfterFunc(holdTime, func() {
		_ = l.inbox.put(submission{ // a closed inbox has refused them already
			step: func(s *sequencer) bool {
				if r.hold == h {
					h.refusing = true
					s.refuseHeld(r, fmt.Errorf("append to %s: %w", r.gen, ErrFrozen))
				}
				return true
			},
			fail: func(error) {},
		})
	})
}

// admitHeld lets what waited for the run into the log. It returns false when there is no room at the moment: then it is
// called again, and nothing that came later goes ahead of it.
func (s *sequencer) admitHeld(r *run) bool {
	if r.hold == nil {
		return true
	}
	for len(r.hold.list) > 0 {
		h := r.hold.list[0]
		if !s.admit(h.b) {
			return false
		}
		r.hold.list = r.hold.list[1:]
		s.let(h)
	}
	r.hold = nil
	delete(s.holding, r)
	return true
}

// refuseHeld answers what waits for the run with err.
func (s *sequencer) refuseHeld(r *run, err error) {
	if r.hold == nil {
		return
	}
	for _, h := range r.hold.list {
		h.b.Result.Err = err
		s.let(h)
	}
	r.hold.list = nil
	delete(s.holding, r)
}

// let says that a held batch has its outcome, or that its place in the log is known; the append is answered with the
// current block when it was the last one.
func (s *sequencer) let(h heldBatch) {
	s.held--
	if h.a.held--; h.a.held == 0 {
		s.cur.dones = append(s.cur.dones, h.a)
	}
}

// refuseAllHeld ends every wait: the log is being closed, or dead.
func (s *sequencer) refuseAllHeld(err error) {
	for r := range s.holding {
		r.hold.refusing = true
		s.refuseHeld(r, err)
	}
}
