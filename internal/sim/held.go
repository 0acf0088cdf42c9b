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
		w.withWriter(n, f)
		logs := logsIn(r)
		if len(logs) > 0 && f.Lot>>4&3 != 0 {
			victim := w.nodes[logs[int(f.Lot>>6)%len(logs)]-1]
			w.e.at(w.e.between(0, f.For/4+time.Millisecond), func() {
				w.crash(victim, w.e.between(0, f.For/2+time.Millisecond), f.Lot>>8&^1)
				w.suspect(victim, 0, true)
			})
		}
	}}
}

// holdSwap holds up the next write of a log's record by a node.
func (w *world) holdSwap(n *node, f Fault) {
	n.hold = &held{prefix: "/skein/logs/", by: 50*time.Millisecond + f.For, then: func(r *etcdserverpb.TxnRequest) {
		if w.calm {
			return
		}
		if f.Lot>>2&3 == 0 {
			w.withWriter(n, f)
		}
		// Its writer dies after it has landed; a witness dies or sleeps meanwhile.
		w.e.at(f.For+w.e.between(40*time.Millisecond, 120*time.Millisecond), func() {
			if !w.calm {
				w.crash(n, f.For, f.Lot&^1)
				w.suspect(n, 0, true)
			}
		})
		for _, o := range w.nodes {
			if o != n && w.e.chance(300) {
				w.e.at(w.e.between(0, f.For), func() {
					if o.running != nil && !w.calm {
						o.running.proc.asleep = max(o.running.proc.asleep, w.e.now+w.e.between(0, f.For))
					}
				})
			}
		}
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
	case 2, 3:
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
