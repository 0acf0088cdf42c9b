package sim

import (
	"slices"
	"time"

	"github.com/skeinmq/skein/internal/ident"
	"github.com/skeinmq/skein/queuemapper"
)

// forgotten takes a node's log away, and all that knows where its groups end: its witnesses are restarted, or do not answer for a
// while. An operator gives the log up with the groups open in it, so that they go on at their ceilings (O22). Mostly the disk is
// gone; sometimes it comes back after all, in time or too late; sometimes nobody has ended the owner.
func (w *world) forgotten(n *node, f Fault) {
	owner, l := n.running, w.truth.Map().Log(n.disk.id)
	if w.cfg.Reserve == 0 || owner == nil || !owner.serving() || l == nil || l.State != queuemapper.LogOpen {
		return
	}
	if f.Lot&3 == 0 {
		w.outOfSight(n, f)
	} else {
		w.stop(n, f.Lot>>2&1 == 0)
		back := w.e.between(0, 2*f.For+time.Millisecond)
		if f.Lot>>4&3 != 0 {
			w.plug(n)
		} else {
			w.endLease(n, w.e.between(0, back+time.Millisecond))
		}
		w.e.at(back, func() { w.boot(n) })
	}
	for i, x := range l.Witnesses {
		o, lot := w.nodes[x.Broker-1], f.Lot>>(8+4*i)
		switch {
		case lot&7 == 0: // it tells, and the ends are exact
		case lot&7 == 1 && o.running != nil:
			o.running.proc.asleep = max(o.running.proc.asleep, w.e.now+time.Second+f.For)
		default:
			w.crash(o, w.e.between(0, f.For/4+time.Millisecond), lot)
		}
	}
	if n.running == nil && n.disk.id == l.ID && f.Lot>>6&1 == 0 { // nobody is sure before it is back
		w.suspectAgain(n, 4*time.Second)
	} else {
		w.suspectLog(n, l)
	}
	w.asked[l.ID] = l.Epoch
	w.operators++
	w.e.start(nil, "operator", w.e.between(0, f.For+time.Millisecond), func() {
		for !w.proved(n, owner, l.ID) && !w.finished(l.ID, l.Epoch) {
			w.e.sleep(20 * time.Millisecond)
		}
		w.operators--
		w.operate(l.ID, l.Epoch)
	})
}

// outOfSight lets an owner go on that others take for dead: it sleeps, or reaches nobody but its clients. Its lease ends.
func (w *world) outOfSight(n *node, f Fault) {
	away := 2*time.Second + 2*f.For
	if f.Lot>>2&1 == 0 {
		n.running.proc.asleep = max(n.running.proc.asleep, w.e.now+away)
	} else {
		links := [][2]int{{n.id, etcdEnd}, {etcdEnd, n.id}}
		for o := 1; o <= w.cfg.Brokers; o++ {
			links = append(links, [2]int{n.id, o}, [2]int{o, n.id})
		}
		w.cut(away, links...)
	}
	w.endLease(n, w.e.between(100*time.Millisecond, time.Second))
}

// suspectLog lets controllers give a log up until it is sealed, as the active one does as long as its broker does not have it.
func (w *world) suspectLog(n *node, was *queuemapper.Log) {
	var look func()
	look = func() {
		l := w.truth.Map().Log(was.ID)
		if l == nil || l.Epoch != was.Epoch || l.State != queuemapper.LogOpen {
			return
		}
		given := ident.Broker(0)
		if n.disk.id == was.ID {
			given = was.Host
		}
		if c := w.nodes[w.e.rng.IntN(len(w.nodes))].running; c != nil && c.node != n && c.store != nil && !c.control.dead {
			w.e.start(c.control, "failover", 0, func() { c.failLogs(given, []ident.Log{was.ID}) })
		}
		w.e.at(w.e.between(100*time.Millisecond, 400*time.Millisecond), look)
	}
	w.e.at(w.e.between(0, 200*time.Millisecond), look)
}

// suspectAgain lets a controller take a broker for dead as soon as it is back.
func (w *world) suspectAgain(n *node, limit time.Duration) {
	until := w.e.now + limit
	var look func()
	look = func() {
		switch {
		case w.e.now > until:
		case n.running != nil && n.running.finished && n.running.serving():
			w.suspect(n, w.e.between(0, 20*time.Millisecond), true)
		default:
			w.e.at(5*time.Millisecond, look)
		}
	}
	look()
}

// proved says whether an operator may give a log up that is not in service: its owner is dead, or cannot acknowledge anything any
// more as every member of its set has forgotten it. If neither is so the operator makes it so: the disk is taken away from whoever
// still has it (O22).
func (w *world) proved(n *node, owner *broker, id ident.Log) bool {
	l := w.truth.Map().Log(id)
	switch {
	case n.running != owner || l == nil:
		return true
	case l.State != queuemapper.LogSealed:
		return false
	}
	alone := len(l.Witnesses) == 0 || slices.ContainsFunc(l.Witnesses, func(x queuemapper.Witness) bool {
		b := w.truth.Map().Broker(x.Broker)
		return b == nil || b.Incarnation == x.Incarnation
	})
	if alone && !planted.noFence {
		w.e.logf("the disk of broker %d is detached", n.id)
		n.disk.detached = true
		w.count("disk detached from a running owner", nil)
	}
	return true
}

// attach gives a node a disk whose own was detached: that one again, or an empty one.
func (w *world) attach(n *node) {
	if w.e.chance(500) {
		n.disk.detached = false
	} else {
		w.plug(n)
	}
}
