package sim

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"time"
)

// engine runs coroutines on virtual time. Exactly one of them runs at any moment; it runs until it parks. What comes next is
// the event with the smallest (time, lot, number): the lot is drawn by the seed, so that what happens at one time happens in
// any order.
type engine struct {
	rng   *rand.Rand
	now   time.Duration
	queue eventQueue
	count uint64 // events scheduled
	done  uint64 // events run
	cur   *proc
	world *process // of what no crash ends
	all   []*process
	hash  uint64 // of everything that happened
	trace func(line string)

	check func() // after every event
	fail  error  // ends the run
}

func newEngine(seed uint64) *engine {
	return &engine{
		rng: rand.New(rand.NewPCG(seed, 0x5eed)), hash: 14695981039346656037, world: &process{name: "world"},
	}
}

// proc is a coroutine. Those of a process end with it, wherever they are.
type proc struct {
	e      *engine
	host   *process
	id     uint64
	name   string
	ticket uint64 // of its newest park
	w      *worker
	ended  bool
}

// process is what crashes, and what sleeps, as a whole: a running broker or controller.
type process struct {
	name   string
	known  bool // to the engine
	dead   bool
	asleep time.Duration // it takes no step before this time
	procs  []*proc
}

// killed unwinds a coroutine whose process is dead.
type killed struct{}

// at schedules a call that belongs to no process.
func (e *engine) at(d time.Duration, call func()) {
	e.push(event{at: e.now + d, call: call})
}

func (e *engine) push(ev event) {
	ev.lot, ev.number = e.rng.Uint32(), e.count
	e.count++
	e.queue.push(ev)
}

// start begins a coroutine of a process after d. With no process it is the world's.
func (e *engine) start(host *process, name string, d time.Duration, body func()) *proc {
	if host == nil {
		host = e.world
	}
	p := &proc{e: e, host: host, id: e.count, name: name}
	if host.dead {
		p.ended = true
		return p
	}
	p.w = hire(p, body)
	if !host.known {
		host.known = true
		e.all = append(e.all, host)
	}
	host.procs = append(host.procs, p)
	e.push(event{at: e.now + d, proc: p})
	return p
}

// park gives control back until somebody wakes this park, and returns the ticket that was woken.
func (p *proc) park() {
	p.checkAlive()
	p.w.yield(struct{}{})
	p.checkAlive()
}

func (p *proc) checkAlive() {
	if p.host.dead {
		panic(killed{})
	}
}

// wakeAt lets the coroutine's present or next park end after d.
func (p *proc) wakeAt(d time.Duration, ticket uint64) {
	p.e.push(event{at: p.e.now + d, proc: p, ticket: ticket})
}

// sleep parks the running coroutine for d.
func (e *engine) sleep(d time.Duration) {
	p := e.mine()
	p.ticket++
	p.wakeAt(d, p.ticket)
	p.park()
}

// mine is the coroutine that runs. What blocks must be called by one.
func (e *engine) mine() *proc {
	if e.cur == nil {
		panic("sim: blocking call outside a coroutine")
	}
	e.cur.checkAlive()
	return e.cur
}

// kill ends a process and everything that runs in it.
func (e *engine) kill(h *process) {
	if h.dead {
		return
	}
	h.dead = true
	was := e.cur
	for _, p := range h.procs {
		if p.ended || p == was { // the running one ends at its next park
			continue
		}
		e.cur = p
		p.run() // unwinds
	}
	e.cur = was
	h.procs = nil
}

// errEvents ends runs that never come to rest.
var errEvents = errors.New("too many events")

// run goes on until there is nothing to do, virtual time is over, or something failed.
func (e *engine) run(until time.Duration, maxEvents uint64) error {
	for len(e.queue) > 0 && e.fail == nil {
		if e.queue[0].at > until {
			e.now = until
			return nil
		}
		ev := e.queue.pop()
		e.now = ev.at
		if ev.proc != nil && !e.resume(ev) {
			continue
		}
		if ev.call != nil {
			e.note(ev.number)
			ev.call()
		}
		e.done++
		if e.done > maxEvents {
			return errEvents
		}
		if e.check != nil && e.fail == nil {
			e.check()
		}
	}
	return e.fail
}

// resume runs one coroutine up to its next park; false: there was nothing to run.
func (e *engine) resume(ev event) bool {
	p := ev.proc
	if p.ended || ev.ticket != p.ticket {
		return false
	}
	if p.host.dead {
		return false
	}
	if p.host.asleep > e.now {
		ev.at = p.host.asleep
		e.push(ev)
		return false
	}
	e.note(p.id)
	p.ticket++
	e.cur = p
	p.run()
	e.cur = nil
	if p.ended && !p.host.dead {
		p.host.forget(p)
	}
	return true
}

// close ends what is left.
func (e *engine) close() {
	for _, h := range e.all {
		e.kill(h)
	}
	e.queue = nil
}

func (h *process) forget(p *proc) {
	for i, q := range h.procs {
		if q == p {
			h.procs = append(h.procs[:i], h.procs[i+1:]...)
			return
		}
	}
}

// note takes a number into the hash of the run.
func (e *engine) note(n uint64) {
	e.hash = (e.hash ^ uint64(e.now)) * 1099511628211
	e.hash = (e.hash ^ n) * 1099511628211
}

// logf adds a line to the trace. Arguments are not rendered when nobody reads it.
func (e *engine) logf(format string, args ...any) {
	if e.trace == nil {
		return
	}
	who := "world"
	if e.cur != nil {
		who = e.cur.name
		who = e.cur.host.name + "/" + who
	}
	e.trace(fmt.Sprintf("%10.3fms %-24s %s", float64(e.now)/float64(time.Millisecond), who, fmt.Sprintf(format, args...)))
}

// between draws a duration, most of them short.
func (e *engine) between(low, high time.Duration) time.Duration {
	if high <= low {
		return low
	}
	return low + time.Duration(e.rng.Int64N(int64(high-low)))
}

// chance is true in about n of 1000 cases.
func (e *engine) chance(n int) bool { return n > 0 && e.rng.IntN(1000) < n }

// future is a value that comes later. Many may wait.
type future[T any] struct {
	e       *engine
	set     bool
	value   T
	err     error
	waiters []waiter
}

type waiter struct {
	p      *proc
	ticket uint64
}

func newFuture[T any](e *engine) *future[T] { return &future[T]{e: e} }

// resolve sets the value; the first one counts.
func (f *future[T]) resolve(v T, err error) {
	if f.set {
		return
	}
	f.set, f.value, f.err = true, v, err
	for _, w := range f.waiters {
		w.p.wakeAt(0, w.ticket)
	}
	f.waiters = nil
}

// wait parks the running coroutine until the value is there, or for at most d (0: for ever).
func (f *future[T]) wait(d time.Duration) (T, error) {
	if !f.set {
		p := f.e.mine()
		p.ticket++
		f.waiters = append(f.waiters, waiter{p, p.ticket})
		if d > 0 {
			p.wakeAt(d, p.ticket)
		}
		p.park()
	}
	if !f.set {
		var none T
		return none, errTimeout
	}
	return f.value, f.err
}

// gate lets coroutines wait for something to change.
type gate struct {
	e       *engine
	waiters []waiter
}

// open wakes everybody who waits.
func (g *gate) open() {
	for _, w := range g.waiters {
		w.p.wakeAt(0, w.ticket)
	}
	g.waiters = g.waiters[:0]
}

// wait parks until the gate is opened, or for at most d (0: for ever).
func (g *gate) wait(d time.Duration) {
	p := g.e.mine()
	p.ticket++
	g.waiters = append(g.waiters, waiter{p, p.ticket})
	if d > 0 {
		p.wakeAt(d, p.ticket)
	}
	p.park()
}

var errTimeout = errors.New("no answer in time")

// lots is the run's randomness as a reader.
type lots struct{ e *engine }

func (l lots) Read(p []byte) (int, error) {
	for i := range p {
		p[i] = byte(l.e.rng.Uint32())
	}
	return len(p), nil
}
