package sim

import (
	"fmt"
	"iter"
	"runtime/debug"
	"sync"
	"time"
)

// worker is what a coroutine runs on. Workers are used again, by runs at the same time and after one another: a new stack costs
// more than most coroutines do.
type worker struct {
	next  func() (struct{}, bool)
	stop  func()
	yield func(struct{}) bool
	p     *proc
	body  func()
}

var idle struct {
	sync.Mutex
	list []*worker
}

// maxIdle bounds the workers that wait for work.
const maxIdle = 1024

// hire gives a coroutine a worker. It runs when the coroutine is run for the first time.
func hire(p *proc, body func()) *worker {
	idle.Lock()
	var w *worker
	if n := len(idle.list); n > 0 {
		w, idle.list = idle.list[n-1], idle.list[:n-1]
	}
	idle.Unlock()
	if w == nil {
		w = &worker{}
		w.next, w.stop = iter.Pull(w.work)
	}
	w.p, w.body = p, body
	return w
}

// work does one coroutine after the other.
func (w *worker) work(yield func(struct{}) bool) {
	w.yield = yield
	for {
		w.do()
		if !yield(struct{}{}) {
			return
		}
	}
}

func (w *worker) do() {
	p := w.p
	defer func() {
		p.ended = true
		if r := recover(); r != nil {
			if _, ok := r.(killed); !ok && p.e.fail == nil {
				p.e.fail = fmt.Errorf("panic: %v\n%s", r, debug.Stack())
			}
		}
	}()
	p.checkAlive()
	w.body()
}

// run runs a coroutine up to its next park, or its end.
func (p *proc) run() {
	w := p.w
	w.next()
	if !p.ended {
		return
	}
	w.p, w.body, p.w = nil, nil, nil
	idle.Lock()
	if len(idle.list) < maxIdle {
		idle.list, w = append(idle.list, w), nil
	}
	idle.Unlock()
	if w != nil {
		w.stop()
	}
}

// event resumes a coroutine that has not parked again since, or calls a function.
type event struct {
	at     time.Duration
	lot    uint32
	number uint64
	proc   *proc
	ticket uint64
	call   func()
}

func (a *event) before(b *event) bool {
	if a.at != b.at {
		return a.at < b.at
	}
	if a.lot != b.lot {
		return a.lot < b.lot
	}
	return a.number < b.number
}

// eventQueue is a heap.
type eventQueue []event

func (q *eventQueue) push(ev event) {
	*q = append(*q, ev)
	list := *q
	i := len(list) - 1
	for i > 0 {
		up := (i - 1) / 2
		if !ev.before(&list[up]) {
			break
		}
		list[i] = list[up]
		i = up
	}
	list[i] = ev
}

func (q *eventQueue) pop() event {
	list := *q
	first, last := list[0], list[len(list)-1]
	list[len(list)-1] = event{}
	list = list[:len(list)-1]
	*q = list
	if len(list) == 0 {
		return first
	}
	i := 0
	for {
		down := 2*i + 1
		if down >= len(list) {
			break
		}
		if down+1 < len(list) && list[down+1].before(&list[down]) {
			down++
		}
		if !list[down].before(&last) {
			break
		}
		list[i] = list[down]
		i = down
	}
	list[i] = last
	return first
}
