package group

import (
	"container/heap"
	"time"
)

type timerKind uint8

const (
	timerSession        timerKind = iota // a member's heartbeat is overdue
	timerPendingSession                  // a member id that was given out was not used
	timerInitialJoin                     // the initial rebalance delay is over
	timerJoin                            // the join phase is over
	timerSync                            // the sync phase is over
)

// timer is one deadline of a group; set again it moves.
type timer struct {
	at       time.Time
	seq      uint64 // order of setting decides between equal times
	index    int    // in the heap, plus one; 0: not set
	kind     timerKind
	group    *Group
	member   *member
	memberID string
}

// timers is a heap of deadlines.
type timers struct {
	heap timerHeap
	seq  uint64
}

func (t *timers) set(tm *timer, at time.Time) {
	t.seq++
	tm.at, tm.seq = at, t.seq
	if tm.index != 0 {
		heap.Fix(&t.heap, tm.index-1)
		return
	}
	heap.Push(&t.heap, tm)
}

func (t *timers) cancel(tm *timer) {
	if tm.index != 0 {
		heap.Remove(&t.heap, tm.index-1)
	}
}

func (t *timers) next() (time.Time, bool) {
	if len(t.heap) == 0 {
		return time.Time{}, false
	}
	return t.heap[0].at, true
}

// pop takes out the next timer that is due at now, nil if none is.
func (t *timers) pop(now time.Time) *timer {
	if len(t.heap) == 0 || t.heap[0].at.After(now) {
		return nil
	}
	return heap.Pop(&t.heap).(*timer)
}

type timerHeap []*timer

func (h timerHeap) Len() int { return len(h) }

func (h timerHeap) Less(i, j int) bool {
	if !h[i].at.Equal(h[j].at) {
		return h[i].at.Before(h[j].at)
	}
	return h[i].seq < h[j].seq
}

func (h timerHeap) Swap(i, j int) {
	h[i], h[j] = h[j], h[i]
	h[i].index, h[j].index = i+1, j+1
}

// Push implements heap.Interface.
func (h *timerHeap) Push(x any) {
	tm := x.(*timer)
	*h = append(*h, tm)
	tm.index = len(*h)
}

// Pop implements heap.Interface.
func (h *timerHeap) Pop() any {
	old := *h
	tm := old[len(old)-1]
	old[len(old)-1] = nil
	*h = old[:len(old)-1]
	tm.index = 0
	return tm
}
