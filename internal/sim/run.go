package sim

import (
	"errors"
	"fmt"
	"time"

	"github.com/skeinmq/skein/internal/ident"
)

// Result is what came of a run.
type Result struct {
	Config    Config
	Err       error // a *Violation, or what else went wrong
	Hash      uint64
	Events    uint64
	Took      time.Duration  // of virtual time
	Acked     int            // records
	Published int            // generations that were sealed
	Back      time.Duration  // of virtual time from the end of the trouble until every partition took a write
	Did       map[string]int // what came about: splits, moves, marked losses and so on
	Trace     []string
}

// backWithin is how long after the trouble everything must be writable.
const backWithin = 20 * time.Second

// maxEvents ends a run that does not come to rest.
const maxEvents = 400_000

// Run runs one cluster. trace keeps what happened, line by line.
func Run(cfg Config, trace bool) Result {
	w := newWorld(cfg)
	out := Result{Config: cfg}
	if trace {
		w.e.trace = func(line string) { out.Trace = append(out.Trace, line) }
	}
	w.e.start(nil, "story", 0, w.story)
	err := w.e.run(time.Hour, maxEvents)
	w.e.close()
	if err == nil {
		err = errors.New("the run came to rest before its end")
	}
	if errors.Is(err, errOver) {
		err = nil
	}
	out.Err, out.Hash, out.Events, out.Took = err, w.e.hash, w.e.done, w.e.now
	out.Did, out.Back = w.did, w.back
	out.Acked, out.Published = w.ghost.acked, w.ghost.published
	return out
}

var errOver = errors.New("over")

// story is a whole run: form, trouble, calm, end.
func (w *world) story() {
	if err := w.form(); err != nil {
		w.e.fail = err
		return
	}
	for _, n := range w.nodes {
		w.boot(n)
	}
	quietNet, quietEtcd, late := w.net.faults, w.cfg.Etcd, w.cfg.LateWatch
	quietNet.lost, quietNet.twice, quietNet.late = 0, 0, 0
	quietEtcd.lostAsk, quietEtcd.lostAnswer, quietEtcd.late = 0, 0, 0
	loudNet, loudEtcd := w.net.faults, w.cfg.Etcd
	w.net.faults, w.cfg.Etcd, w.cfg.LateWatch = quietNet, quietEtcd, 0
	w.await("form", 10*time.Second, w.settled)
	for _, n := range w.nodes { // groups are everywhere
		w.askMove(n, w.e.rng.Uint32())
		w.e.sleep(20 * time.Millisecond)
	}
	w.await("spread", 10*time.Second, w.settled)
	w.startClients()
	w.net.faults, w.cfg.Etcd, w.cfg.LateWatch = loudNet, loudEtcd, late
	w.inject()
	w.e.sleep(w.cfg.Trouble)

	// From here on nothing goes wrong any more: everything must come back (I14), also when two brokers stay apart.
	w.e.logf("CALM")
	w.calm = true
	w.net.faults, w.cfg.Etcd, w.cfg.LateWatch = quietNet, quietEtcd, 0
	w.etcd.down = false
	clear(w.net.broken)
	for _, n := range w.nodes {
		n.slow, n.trip, n.hold = 0, nil, nil
		w.boot(n)
	}
	began := w.e.now
	if !w.await("I14", backWithin, w.settled) || !w.probe() {
		return
	}
	w.back = w.e.now - began
	if w.net.apart[0] != 0 {
		w.count("return while two are apart", nil)
		w.net.apart = [2]int{} // what one of them has the other one must read
	}
	w.stopped = true
	w.await("I4", 60*time.Second, func() bool {
		for i := range w.reads {
			if int(w.reads[i]) < len(w.ghost.parts[w.part(i)].history) {
				return false
			}
		}
		return w.operators == 0
	})
	for _, n := range w.nodes {
		for disk := range n.disks {
			if id := logOn(n.id, disk+1); w.disks[id].given {
				w.ghost.gaveUp(id)
			}
		}
	}
	for g := range w.cfg.Groups {
		w.ghost.verify(ident.Group(g))
	}
	if w.e.fail == nil {
		w.e.fail = errOver
	}
}

// await waits for something that must happen.
func (w *world) await(rule string, limit time.Duration, there func() bool) bool {
	for until := w.e.now + limit; !there(); w.e.sleep(5 * time.Millisecond) {
		if w.e.now > until {
			w.ghost.fail(rule, "not within %v: %s", limit, w.describe())
			return false
		}
	}
	return true
}

// settled says that every group is open in a log that its broker serves, and every broker in service.
func (w *world) settled() bool {
	m := w.truth.Map()
	for _, n := range w.nodes {
		if n.running == nil || !n.running.serving() {
			return false
		}
	}
	for g := range m.Groups() {
		cur := g.Current()
		if cur == nil {
			return false
		}
		n := w.nodes[cur.Log[15]-1]
		r := n.running.log.openOf(g.ID)
		if n.running.log.d.id != cur.Log || r == nil || r.frozen || r.gen.Frame != cur.Frame {
			return false
		}
	}
	return true
}

// describe says how the cluster stands.
func (w *world) describe() string {
	m := w.truth.Map()
	out := ""
	for l := range m.Logs() {
		out += fmt.Sprintf("log %s epoch %d state %d witnesses %v; ", short(l.ID), l.Epoch, l.State, l.Witnesses)
	}
	for g := range m.Groups() {
		if cur := g.Current(); cur != nil {
			out += fmt.Sprintf("group %d epoch %d on log %s; ", g.ID, cur.Epoch, short(cur.Log))
		}
	}
	for _, n := range w.nodes {
		if b := n.running; b != nil {
			out += fmt.Sprintf("%s incarnation %d serving %v; ", b.proc.name, b.incarnation, b.serving())
		}
	}
	for i := range w.reads {
		out += fmt.Sprintf("p%d read to %d of %d; ", i, w.reads[i], len(w.ghost.parts[w.part(i)].history))
	}
	return out
}

func (w *world) part(i int) ident.Partition { return ident.Partition{Topic: w.topic, Index: int32(i)} }

// startClients starts one producer that deduplicates, sometimes another one that does not, and one consumer for each partition.
func (w *world) startClients() {
	w.reads = make([]ident.Offset, w.cfg.Partitions)
	for i := range w.cfg.Partitions {
		p := w.part(i)
		w.e.start(nil, fmt.Sprintf("producer%d", i), 0, func() { w.producer(int64(i), p, w.cfg.Think) })
		if i%2 == 1 {
			w.e.start(nil, fmt.Sprintf("loose%d", i), 0, func() { w.producer(-1, p, 2*w.cfg.Think) })
		}
		w.e.start(nil, fmt.Sprintf("consumer%d", i), 0, func() { w.consumer(p, &w.reads[i]) })
		if w.cfg.Trim && i == 0 {
			w.e.start(nil, "trimmer", 0, func() { w.trimmer(p) })
		}
	}
}

// probe writes to every partition: all of them must take it (I14).
func (w *world) probe() bool {
	left := w.cfg.Partitions
	for i := range w.cfg.Partitions {
		w.e.start(nil, "probe", 0, func() {
			c := belief{w: w, part: w.part(i)}
			if w.deliver(&c, batch{producer: -1, records: 1}) {
				left--
			}
		})
	}
	return w.await("I14", backWithin, func() bool { return left == 0 })
}
