package sim

import (
	"cmp"
	"slices"
	"time"

	"github.com/skeinmq/skein/controller/balance"
	"github.com/skeinmq/skein/internal/ident"
	"github.com/skeinmq/skein/queuemapper"
)

// loseDisk ends a node and, once its groups are open elsewhere, makes its disk forget what it was given last: it comes back with
// less than the sealed ends. What is lost before that nobody can know of (a disk that lies is outside of what is promised).
func (w *world) loseDisk(n *node, f Fault) {
	if n.running == nil {
		return
	}
	w.endUntilEmptied(n, f, func() {
		if w.hasGap(n.disk.id) { // what it loses of that nobody can know of either
			w.boot(n)
			return
		}
		n.disk.lose(func(frames int) int { return int(f.Lot>>3) % (frames + 1) })
		w.e.logf("the disk of broker %d has lost all but %d frames", n.id, n.disk.durable)
		w.boot(n)
	})
}

// endUntilEmptied ends a node and goes on once no group is open in its log any more. If that takes too long it is started again.
func (w *world) endUntilEmptied(n *node, f Fault, then func()) {
	w.stop(n, true)
	w.suspect(n, 0, true)
	until := w.e.now + f.For + time.Second
	var look func()
	look = func() {
		switch {
		case n.running != nil: // everything was started again
		case w.emptied(n.disk.id):
			then()
		case w.e.now > until || w.calm:
			w.boot(n)
		default:
			w.e.at(10*time.Millisecond, look)
		}
	}
	w.e.at(f.For/8, look)
}

// leaderCheck is how long a broker whose own etcd member has no leader takes to go to another one's.
const leaderCheck = 300 * time.Millisecond

// setApart cuts the way between the active controller and the broker that leads the map's etcd, and nothing else: neither is
// replaced, as each has its majority. The controller reaches the map again through others. It may have to take over one of them.
func (w *world) setApart(leader *node, f Fault) {
	controller := w.nodes[0]
	for reg := range w.truth.Map().Brokers() {
		controller = w.nodes[reg.ID-1]
		break
	}
	if controller == leader || w.net.apart[0] != 0 {
		return
	}
	w.net.apart = [2]int{controller.id, leader.id}
	w.cut(w.e.between(0, leaderCheck), [2]int{controller.id, etcdEnd}, [2]int{etcdEnd, controller.id})
	w.e.at(500*time.Millisecond+2*f.For, func() {
		if !w.calm {
			w.net.apart = [2]int{}
		}
	})
	if victim := w.nodes[f.Other-1]; f.Lot&3 == 0 {
		w.e.at(w.e.between(0, f.For), func() {
			if !w.calm {
				w.crash(victim, f.For, f.Lot>>2)
				if c := controller.running; c != nil && victim != controller {
					c.failOver(ident.Broker(victim.id))
				}
			}
		})
	}
}

// count takes down what came about.
func (w *world) count(what string, err error) {
	if err == nil {
		w.did[what]++
	}
}

// emptied says whether a log is sealed and no group is open in it.
func (w *world) emptied(id ident.Log) bool {
	m := w.truth.Map()
	if l := m.Log(id); l == nil || l.State != queuemapper.LogSealed {
		return false
	}
	for g := range m.Groups() {
		if cur := g.Current(); cur != nil && cur.Log == id {
			return false
		}
	}
	return true
}

// drain marks a broker as drained for a while, as an operator does at any broker.
func (w *world) drain(n *node, f Fault) {
	mark := func(on bool) {
		at := w.nodes[f.Other-1].running
		if at == nil || at.store == nil {
			return
		}
		w.e.start(at.proc, "drain", 0, func() {
			err := at.store.DrainBroker(w.e.within(time.Second), ident.Broker(n.id), on)
			w.e.logf("broker %d drained: %v: %v", n.id, on, err)
		})
	}
	mark(true)
	w.e.at(f.For, func() { mark(false) })
}

// leave is a clean stop: a broker moves everything away, then ends, and comes back later.
func (w *world) leave(n *node, f Fault) {
	b := n.running
	if b == nil || !b.serving() {
		return
	}
	w.e.start(b.proc, "leave", 0, func() {
		err := b.host.Drain(w.e.within(f.For + 100*time.Millisecond))
		w.count("drain of itself", err)
		w.e.logf("drains itself: %v", err)
		w.e.at(0, func() {
			if n.running == b {
				w.crash(n, f.For/2, f.Lot)
			}
		})
		w.e.sleep(time.Hour)
	})
}

// split gives a partition another group, which is moved to its owner first if it must be.
func (w *world) split(f Fault) {
	part := w.part(int(f.Lot) % w.cfg.Partitions)
	m := w.truth.Map()
	run, l, ok := m.Owner(m.Topic(topicName), part.Index)
	to := ident.Group(int(f.Lot>>8) % w.cfg.Groups)
	if !ok || l == nil || run.Generation.Group == to {
		return
	}
	b := w.nodes[l.Host-1].running
	if b == nil || !b.serving() {
		return
	}
	w.e.start(b.proc, "split", 0, func() {
		if cur := b.store.Map().Group(to).Current(); cur != nil && cur.Log != b.log.d.id {
			w.moveAt(b, int(cur.Log[15]), []ident.Group{to}, b.log.d.id)
		}
		if !b.serving() {
			return
		}
		v, err := b.host.Split(background, topicName, part.Index, to)
		w.count("split", err)
		w.e.logf("%s split off into group %d at epoch %d: %v", name(part), to, v.Epoch, err)
	})
}

// moveAt has a broker ask another one to move groups of its, and says whether all moved.
func (w *world) moveAt(b *broker, owner int, groups []ident.Group, to ident.Log) bool {
	done, err := call(&w.net, b.node.id, w.nodes[owner-1], "move", 2*time.Second, func(o *broker) (int, error) {
		if !o.serving() {
			return 0, errNotLeader
		}
		n := 0
		for _, m := range o.host.Move(background, groups, to) {
			w.e.logf("group %d moved to log %s: %v", m.Group, short(m.To), m.Err)
			w.count("move asked for by others", m.Err)
			if m.Err == nil {
				n++
			}
		}
		return n, nil
	})
	return err == nil && done == len(groups)
}

// balanceLimits are a day's in a second.
var balanceLimits = balance.Limits{
	For: 60 * time.Millisecond, Rest: 200 * time.Millisecond, Return: 400 * time.Millisecond, PerMinute: 60,
	Warmup: 50 * time.Millisecond, Vanish: 300 * time.Millisecond,
}

// balance is the active controller's balancer: the real planner over this broker's map, and owners that it asks. Every broker
// that takes itself for the controller has one, and a clock that may be wrong.
func (b *broker) balance() {
	p := balance.NewPlanner(balanceLimits)
	for {
		b.w.e.sleep(b.w.e.between(20*time.Millisecond, 200*time.Millisecond))
		if !b.leads() {
			p = balance.NewPlanner(balanceLimits)
			continue
		}
		if p.Resume(); b.w.calm {
			return
		}
		plan := p.Plan(b.balanceInput())
		for _, mv := range plan.Moves {
			b.w.e.logf("balance: group %d from broker %d to %d: %s", mv.Group, mv.FromBroker, mv.ToBroker, mv.Why)
			if b.w.moveAt(b, int(mv.FromBroker), []ident.Group{mv.Group}, mv.To) {
				b.w.count("balance for "+string(mv.Cause), nil)
				p.Moved(mv, b.now())
			}
		}
	}
}

// leads says whether this broker takes itself for the controller: the first one of those that it thinks live. Two may.
func (b *broker) leads() bool {
	for reg := range b.store.Map().Brokers() {
		return reg.ID == b.id()
	}
	return false
}

func (b *broker) balanceInput() balance.Input {
	m := b.store.Map()
	in := balance.Input{Map: m, Now: b.now(), Enabled: true, Loads: map[ident.Group]balance.Load{}}
	for reg := range m.Brokers() {
		in.Brokers = append(in.Brokers, balance.Broker{ID: reg.ID, Draining: m.Draining(reg.ID)})
	}
	slices.SortFunc(in.Brokers, func(x, y balance.Broker) int { return cmp.Compare(x.ID, y.ID) })
	for g := range m.Groups() { // loads that change by the second
		hot := (uint64(b.w.e.now/time.Second)+uint64(g.ID))%uint64(b.w.cfg.Groups) == 0
		in.Loads[g.ID] = balance.Load{BytesIn: 4 << 20}
		if hot {
			in.Loads[g.ID] = balance.Load{BytesIn: 64 << 20}
		}
	}
	return in
}
