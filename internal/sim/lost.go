package sim

import (
	"errors"
	"fmt"
	"slices"
	"time"

	"go.etcd.io/etcd/api/v3/etcdserverpb"

	"github.com/skeinmq/skein/internal/ident"
	"github.com/skeinmq/skein/queuemapper"
)

// logOn names the log on a node's n-th disk.
func logOn(node, n int) ident.Log { return ident.Log{14: byte(n), 15: byte(node)} }

// plug puts an empty disk into a node: a new log.
func (w *world) plug(n *node) {
	n.disks++
	n.disk = newDisk(logOn(n.id, n.disks))
	n.disk.changed = func(gen ident.Generation) { w.ghost.toVerify[gen.Group] = true }
	w.disks[n.disk.id] = n.disk
}

// gone ends a node whose disk does not come back, as it seems. Once its groups are open elsewhere an operator gives the log up,
// before or after the node is there again: with an empty disk, or with the old one after all, in time or too late. What
// becomes of groups whose ends nobody knows (O22) is in forgotten.go.
func (w *world) gone(n *node, f Fault) {
	if n.running == nil || !n.running.serving() {
		return
	}
	w.endUntilEmptied(n, f, func() { w.emptiedIsGone(n, f) })
}

// emptiedIsGone goes on with gone.
func (w *world) emptiedIsGone(n *node, f Fault) {
	id, back := n.disk.id, w.e.between(0, f.For/2+time.Millisecond)
	word := w.e.between(0, f.For/2+time.Millisecond)
	if f.Lot>>4&3 != 0 {
		w.plug(n)
		if f.Lot>>7&3 == 0 {
			w.holdNew(n, f)
		}
	} else if f.Lot>>6&1 == 0 { // a close race
		word = max(0, back+w.e.between(-20*time.Millisecond, 20*time.Millisecond))
	}
	w.e.at(back, func() { w.boot(n) })
	epoch := w.truth.Map().Log(id).Epoch
	w.asked[id] = epoch
	w.e.start(nil, "operator", word, func() { w.operate(id, epoch) })
}

// holdNew holds up the registration of a node's new log. Meanwhile it is sent again, and the new disk is gone as well.
func (w *world) holdNew(n *node, f Fault) {
	by := 900*time.Millisecond + f.For/2
	next := f
	next.For, next.Lot = f.For/8, f.Lot|3<<4&^(3<<7)|1<<7
	n.hold = &held{prefix: "/skein/logs/", by: by, then: func(*etcdserverpb.TxnRequest) {
		until := w.e.now + by
		var look func()
		look = func() {
			switch {
			case w.calm || w.e.now > until:
			case n.running != nil && n.running.serving():
				w.e.logf("FAULT %v", next)
				w.gone(n, next)
			default:
				w.e.at(5*time.Millisecond, look)
			}
		}
		look()
	}}
}

// operate is an operator who gives a log up, at one broker after the other, until it is done or the log is back at a higher epoch.
func (w *world) operate(id ident.Log, epoch ident.LogEpoch) {
	w.operators++
	for !w.finished(id, epoch) {
		if b := w.nodes[w.e.rng.IntN(len(w.nodes))].running; b != nil && b.serving() {
			answer := newFuture[struct{}](w.e)
			w.e.start(b.proc, "lost", 0, func() { answer.resolve(struct{}{}, b.giveUp(id, epoch)) })
			_, err := answer.wait(5 * time.Second)
			w.e.logf("log %s given up at broker %d: %v", short(id), b.node.id, err)
			w.count("log given up", err)
			if err == nil {
				w.ghost.gaveUp(id)
			}
		}
		w.e.sleep(w.e.between(5*time.Millisecond, 50*time.Millisecond))
	}
	w.operators--
}

// finished says whether a log needs no operator: what lay there is marked, or its disk came back and its host has reopened it since
// it was sealed at an epoch.
func (w *world) finished(id ident.Log, epoch ident.LogEpoch) bool {
	rec := w.truth.Map().Log(id)
	if rec == nil {
		return w.ghost.unmarkedIn(id) == ""
	}
	if rec.Epoch > epoch {
		w.count("disk back in time", nil)
	}
	return rec.Epoch > epoch
}

var errNotLost = errors.New("sim: the log is not lost, or not yet")

// giveUp is what a broker does for `skein map lost`. The operator has looked there, just before, whether the log was reopened since it
// was lost.
func (b *broker) giveUp(id ident.Log, epoch ident.LogEpoch) error {
	m := b.store.Map()
	open, runs, _ := m.Holds(id)
	if l := m.Log(id); l == nil && open+runs == 0 || l != nil && (m.InService(l) || l.Epoch != epoch) || b.host.Hosted(id) != nil {
		return errNotLost
	}
	return b.host.GiveUp(b.w.e.within(4*time.Second), id, time.Second)
}

// refused is a broker whose disk the map does not know any more: it gets another one.
func (b *broker) refused(err error) {
	var wrong *queuemapper.LogEpochError
	if !errors.As(err, &wrong) {
		return
	}
	w, n := b.w, b.node
	if wrong.Record != 0 || !n.disk.given {
		w.ghost.fail("I14", "a disk is refused that nobody gave up: %v", err)
	}
	w.count("disk refused", nil)
	w.e.at(0, func() {
		if n.running == b {
			w.stop(n, true)
			w.plug(n)
			w.boot(n)
		}
	})
	w.e.sleep(time.Hour)
}

// deletedLog checks that a log's record goes only when an operator said so, at the same epoch, nobody has it and no group is open in
// it.
func (g *ghost) deletedLog(old *queuemapper.Log) {
	if g.w.asked[old.ID] != old.Epoch || old.State != queuemapper.LogSealed {
		g.fail("I5", "the record of log %s is deleted: asked for at epoch %d, epoch %d state %d", short(old.ID), g.w.asked[old.ID], old.Epoch, old.State)
	}
	for group := range g.w.truth.Map().Groups() {
		if cur := group.Current(); cur != nil && cur.Log == old.ID {
			g.fail("I5", "the record of log %s is deleted, group %d is open in it", short(old.ID), group.ID)
		}
	}
	g.w.disks[old.ID].given = true
}

// marked checks one write of what is lost of a generation: it stays lost, and what is new was on a disk that was given up, or made
// to lose it (I4).
func (g *ghost) marked(group ident.Group, was, is *queuemapper.Generation) {
	if len(was.Lost)+len(is.Lost) == 0 {
		return
	}
	d, name := g.w.disks[is.Log], ident.Generation{Group: group, Epoch: is.Epoch, Frame: is.Frame}
	for i := range g.w.cfg.Partitions {
		id := g.w.part(i)
		for _, r := range was.Lost[id] {
			for o := r.From; o < r.To; o++ {
				if !contains(is.Lost[id], o) {
					g.fail("I4", "p%d offset %d of generation %s was lost, and is not any more", i, o, name)
					return
				}
			}
		}
		for _, r := range is.Lost[id] {
			for o := r.From; o < r.To; o++ {
				if !d.given && !contains(was.Lost[id], o) && !d.hasLost(name, id, o) {
					g.fail("I4", "p%d offset %d of generation %s is marked as lost, log %s has it", i, o, name, short(is.Log))
					return
				}
			}
		}
	}
}

func contains(ranges []queuemapper.Range, o ident.Offset) bool {
	return slices.ContainsFunc(ranges, func(r queuemapper.Range) bool { return r.From <= o && o < r.To })
}

// lostAt says whether the map marks an offset as lost; known is false when no run has it any more.
func (w *world) lostAt(id ident.Partition, o ident.Offset) (lost, known bool) {
	for _, r := range w.runs(id) {
		if o >= r.Start && (r.Open || o < r.End) {
			return contains(w.truth.Map().Group(r.Generation.Group).Lost(r.Generation.Epoch, id), o), true
		}
	}
	return false, false
}

// unmarkedIn names an offset that lay in a log and is not marked as lost; "": there is none.
func (g *ghost) unmarkedIn(log ident.Log) string {
	for i := range g.w.cfg.Partitions {
		id := g.w.part(i)
		for _, r := range g.w.runs(id) {
			for o := r.Start; r.Log == log && o < r.End; o++ {
				if lost, _ := g.w.lostAt(id, o); !lost {
					return fmt.Sprintf("p%d offset %d of generation %s", i, o, r.Generation)
				}
			}
		}
	}
	return ""
}

// gaveUp checks what an operator was told: nobody has the log, and all that lay there is marked as lost.
func (g *ghost) gaveUp(id ident.Log) {
	if d := g.w.disks[id]; !d.given {
		g.fail("I4", "log %s is said to be given up, the map has its record", short(id))
	}
	if what := g.unmarkedIn(id); what != "" {
		g.fail("I4", "log %s was given up, %s is not marked as lost", short(id), what)
	}
}
