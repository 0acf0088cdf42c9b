package sim

import (
	"strings"
	"time"

	"go.etcd.io/etcd/api/v3/etcdserverpb"

	"github.com/skeinmq/skein/internal/ident"
)

// holdPublish holds up the next publication of a node. What makes it dangerous comes with it: its writer cannot settle it, and
// a log that it names is not what it was when it lands.
func (w *world) holdPublish(n *node, f Fault) {
	n.hold = &held{prefix: "/skein/pg/", by: 50*time.Millisecond + f.For, then: func(r *etcdserverpb.TxnRequest) {
		if w.calm {
			return
		}
		logs := logsIn(r)
		// The target is not taken from what is compared: a mistake may be that it is not.
		if target := w.moveTarget(f.Lot); len(logs) > 0 && logs[0] == n.id && target != n && f.Lot>>20&1 == 0 {
			// A move whose target comes back before it lands, and whose owner cannot settle it.
			w.cut(50*time.Millisecond+2*f.For, [2]int{n.id, etcdEnd})
			w.e.at(w.e.between(0, f.For/8+time.Millisecond), func() { w.crash(target, f.For/8, f.Lot&^1) })
			return
		}
		w.withWriter(n, f)
		if len(logs) > 0 && f.Lot>>4&3 != 0 {
			victim := w.nodes[logs[len(logs)-1]-1] // the target is compared last
			if f.Lot>>6&3 == 0 {
				victim = w.nodes[logs[0]-1]
			}
			w.e.at(w.e.between(0, f.For/4+time.Millisecond), func() {
				w.crash(victim, w.e.between(0, f.For/2+time.Millisecond), f.Lot>>8&^1)
				w.suspect(victim, 0, true)
			})
		}
	}}
}

// losePublish lets a publication of a node land whose answer it does not get. Before it can settle that, the target is given
// up, and others go on.
func (w *world) losePublish(n *node, f Fault) {
	n.hold = &held{prefix: "/skein/pg/", by: time.Millisecond, deaf: true, then: func(r *etcdserverpb.TxnRequest) {
		if w.calm {
			return
		}
		w.cut(500*time.Millisecond+f.For, [2]int{n.id, etcdEnd})
		for _, id := range logsIn(r) {
			if victim := w.nodes[id-1]; victim != n {
				w.e.at(w.e.between(2*time.Millisecond, 50*time.Millisecond), func() {
					if !w.calm {
						w.crash(victim, f.For, f.Lot)
						w.suspect(victim, 0, true)
					}
				})
			}
		}
	}}
}

// holdSwap holds up the next change of a log's witness set by its owner. Meanwhile the one who joins is cut off from the owner,
// who dies after it has landed; the other members are slow to answer then.
func (w *world) holdSwap(n *node, f Fault) {
	by := 150*time.Millisecond + time.Duration(f.Lot>>16%1000)*time.Millisecond // about as long as an owner waits
	grows := func() bool {                                                      // a set that only grows has no reason to be changed again when the swap counts as lost
		b := n.running
		if b == nil || b.owner == nil || b.owner.rec == nil || f.Lot>>9&1 == 0 {
			return true
		}
		joiners, others := b.owner.joiners()
		return len(joiners) > 0 && len(others) == len(b.owner.rec.Witnesses)
	}
	n.hold = &held{prefix: "/skein/logs/", by: by, when: grows, then: func(*etcdserverpb.TxnRequest) {
		b := n.running
		if w.calm || b == nil || b.owner == nil || b.owner.rec == nil {
			return
		}
		if f.Lot>>2&3 == 0 {
			w.withWriter(n, f)
		}
		joiners, others := b.owner.joiners()
		for _, id := range joiners {
			w.cut(by+500*time.Millisecond+f.For, [2]int{n.id, int(id)})
		}
		w.e.at(by+w.e.between(40*time.Millisecond, 400*time.Millisecond), func() {
			if w.calm {
				return
			}
			w.crash(n, f.For, f.Lot&^1)
			w.suspect(n, 0, true)
			for _, id := range others {
				if o := w.nodes[id-1].running; o != nil && f.Lot>>5&1 == 0 {
					o.proc.asleep = max(o.proc.asleep, w.e.now+f.For)
				}
			}
		})
	}}
}

// withWriter is what becomes of a node whose write is held.
func (w *world) withWriter(n *node, f Fault) {
	if n.running == nil {
		return
	}
	switch f.Lot >> 12 & 7 {
	case 0, 1:
		n.running.endControllers()
	case 2, 3, 6, 7:
		w.cut(f.For*2, [2]int{n.id, etcdEnd})
	case 4:
		w.crash(n, f.For, f.Lot)
	case 5:
		n.running.proc.asleep = max(n.running.proc.asleep, w.e.now+f.For*2)
		w.suspect(n, 0, true)
	}
}

// logsIn lists the hosts of the logs that a transaction compares.
func logsIn(r *etcdserverpb.TxnRequest) []int {
	var out []int
	for _, c := range r.Compare {
		name, ok := strings.CutPrefix(string(c.Key), "/skein/logs/")
		if !ok {
			continue
		}
		if id, err := ident.ParseLog(name); err == nil {
			out = append(out, int(id[15]))
		}
	}
	return out
}
