package sim

import (
	"errors"
	"time"
)

// netFaults are what can happen to a message between two brokers.
type netFaults struct {
	low, high time.Duration // of one way
	lost      int           // of 1000 messages never arrive
	twice     int           // of 1000 arrive twice
	late      int           // of 1000 take up to lateBy longer, and are overtaken
	lateBy    time.Duration
}

// network is who can reach whom. Endpoint 0 is the world: clients.
type network struct {
	e      *engine
	faults netFaults
	broken map[[2]int]int // one way: how many faults break it now
	apart  [2]int         // two brokers that do not reach each other, whatever else is whole; 0: none
}

// cut says whether nothing comes through, one way.
func (n *network) cut(from, to int) bool {
	if n.broken[[2]int{from, to}] > 0 || n.apart[0] != 0 && (n.apart == [2]int{from, to} || n.apart == [2]int{to, from}) {
		return true
	}
	return planted.ownMember && n.apart[0] != 0 && (from == n.apart[0] && to == etcdEnd || from == etcdEnd && to == n.apart[0])
}

var errRefused = errors.New("sim: connection refused")

// send carries a message one way; it may arrive never, late, or twice.
func (n *network) send(from, to int, arrive func()) {
	if n.cut(from, to) || n.e.chance(n.faults.lost) {
		return
	}
	times := 1
	if n.e.chance(n.faults.twice) {
		times = 2
	}
	for range times {
		d := n.e.between(n.faults.low, n.faults.high)
		if n.e.chance(n.faults.late) {
			d += n.e.between(0, n.faults.lateBy)
		}
		n.e.at(d, func() {
			if !n.cut(from, to) {
				arrive()
			}
		})
	}
}

// call is a request from an endpoint to a broker and the answer. handle runs as a coroutine of the broker, whoever it
// is by then; a message that arrives twice is handled twice. No answer in time is errTimeout: the request may have had its effect, or
// may have it later.
func call[T any](n *network, from int, to *node, label string, timeout time.Duration, handle func(b *broker) (T, error)) (T, error) {
	f := newFuture[T](n.e)
	n.send(from, to.id, func() {
		b := to.running
		if b == nil {
			n.send(to.id, from, func() { var none T; f.resolve(none, errRefused) })
			return
		}
		n.e.start(b.proc, label, 0, func() {
			v, err := handle(b)
			n.send(to.id, from, func() { f.resolve(v, err) })
		})
	})
	return f.wait(timeout)
}
