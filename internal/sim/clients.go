package sim

import (
	"errors"
	"time"

	"github.com/skeinmq/skein/commitlog"
	"github.com/skeinmq/skein/internal/ident"
	"github.com/skeinmq/skein/queuemapper"
)

// errNotLeader is what a broker says that does not own a partition, as far as it knows.
var errNotLeader = errors.New("sim: not the leader")

// belief is what a client thinks of one partition: who owns it, and the newest leader epoch that it has heard of. It never goes
// back to an older one, as clients do not.
type belief struct {
	w     *world
	part  ident.Partition
	owner int
	epoch ident.Epoch
}

// ask takes what a random broker knows.
func (c *belief) ask() {
	n := c.w.nodes[c.w.e.rng.IntN(len(c.w.nodes))]
	if n.running == nil || n.running.store == nil {
		return
	}
	m := n.running.store.Map()
	g := m.Group(c.w.groupOf(c.part))
	if g == nil || g.Current() == nil || g.Current().Epoch < c.epoch {
		return
	}
	if l := m.Log(g.Current().Log); l != nil {
		c.owner, c.epoch = int(l.Host), g.Current().Epoch
	}
}

// place is where a batch was put.
type place struct {
	base    ident.Offset
	epoch   ident.Epoch
	content uint64
	owner   bool // it came from somebody who takes himself for the owner
}

// produce is a produce request at a broker.
func (b *broker) produce(g ident.Group, p ident.Partition, x batch) (place, error) {
	if !b.serving() {
		return place{}, errNotLeader
	}
	r := b.log.openOf(g)
	if r == nil {
		return place{}, errNotLeader
	}
	if x.producer < 0 { // every attempt that arrives may be stored
		b.w.loose += 16
		x.content = 1<<63 | b.w.loose
	}
	base, err := b.log.append(g, p, x).wait(0)
	return place{base, r.gen.Epoch, x.content, true}, err
}

// producer sends batches to one partition, one at a time, each until it is acked.
func (w *world) producer(id int64, part ident.Partition, think time.Duration) {
	c := belief{w: w, part: part}
	next := int32(0)
	for !w.stopped {
		w.e.sleep(w.e.between(think/2, 2*think))
		x := batch{producer: id, sequence: next, records: 1 + int32(w.e.rng.IntN(3)), content: contentOf(id, next)}
		if !w.deliver(&c, x) {
			return
		}
		next += x.records
	}
}

// deliver sends one batch until it is acked; false: the run is over.
func (w *world) deliver(c *belief, x batch) bool {
	for !w.stopped {
		if c.owner == 0 {
			c.ask()
		}
		if c.owner == 0 {
			w.e.sleep(w.e.between(10*time.Millisecond, 100*time.Millisecond))
			continue
		}
		n := w.nodes[c.owner-1]
		at, err := call(&w.net, 0, n, "produce", 2*time.Second, func(b *broker) (place, error) {
			return b.produce(w.groupOf(c.part), c.part, x)
		})
		switch {
		case err == nil:
			w.e.logf("%s: %s acked at %d by broker %d", name(c.part), say(at.content), at.base, n.id)
			c.epoch, x.content = max(c.epoch, at.epoch), at.content
			w.ghost.acknowledged(c.part, at.base, &x)
			return true
		case errors.Is(err, commitlog.ErrSequence) && at.owner && at.epoch >= c.epoch:
			w.ghost.fail("I8", "%s: broker %d refuses %s in epoch %d: %v", name(c.part), n.id, say(x.content), at.epoch, err)
			return false
		}
		c.owner = 0
		w.e.sleep(w.e.between(5*time.Millisecond, 50*time.Millisecond))
	}
	return false
}

// fetched is what a fetch brings.
type fetched struct {
	list  []uint64
	high  ident.Offset
	start ident.Offset
	epoch ident.Epoch
	owner bool
}

// fetch is a fetch request at a broker, which reads other brokers' runs for its clients (O21).
func (b *broker) fetch(g ident.Group, p ident.Partition, from ident.Offset) (fetched, error) {
	if !b.serving() {
		return fetched{}, errNotLeader
	}
	r := b.log.openOf(g)
	if r == nil {
		return fetched{}, errNotLeader
	}
	q := r.get(p)
	out := fetched{high: q.high, start: q.logStart, epoch: r.gen.Epoch, owner: true}
	if from < q.logStart || from > q.high {
		return out, commitlog.ErrOutOfRange
	}
	if from >= q.start {
		for o := from; o < q.high && len(out.list) < fetchMax; o++ {
			out.list = append(out.list, b.log.d.at(r.gen, p, o))
		}
		return out, nil
	}
	run, ok := locate(b.store.Map(), g, p, from)
	if !ok {
		return out, errNotLeader
	}
	l := b.store.Map().Log(run.Log)
	if l == nil {
		return out, errNotLeader
	}
	var err error
	out.list, err = call(&b.node.w.net, b.node.id, b.node.w.nodes[l.Host-1], "read", time.Second, func(o *broker) ([]uint64, error) {
		return o.readRun(run, p, from)
	})
	return out, err
}

// fetchMax is how many records one fetch brings at most.
const fetchMax = 8

// locate finds the run of an offset in a map.
func locate(m *queuemapper.Map, g ident.Group, p ident.Partition, from ident.Offset) (queuemapper.Run, bool) {
	group := m.Group(g)
	start := group.Starts[p]
	for i := range group.Generations {
		gen := &group.Generations[i]
		end, moved := gen.Ends[p]
		if !moved {
			end = start
		}
		if gen.Sealed && from < end {
			return queuemapper.Run{
				Generation: ident.Generation{Group: g, Epoch: gen.Epoch, Frame: gen.Frame}, Log: gen.Log, Start: start, End: end,
			}, true
		}
		start = end
	}
	return queuemapper.Run{}, false
}

// readRun serves a sealed run of this broker's log to another broker, and nothing outside it.
func (b *broker) readRun(run queuemapper.Run, p ident.Partition, from ident.Offset) ([]uint64, error) {
	if !b.serving() || b.log.d.id != run.Log {
		return nil, errNotLeader
	}
	var out []uint64
	for o := from; o < run.End && len(out) < fetchMax; o++ {
		c := b.log.d.at(run.Generation, p, o)
		if c == 0 {
			return nil, commitlog.ErrOutOfRange
		}
		out = append(out, c)
	}
	return out, nil
}

// consumer reads one partition from the beginning; where says how far it is.
func (w *world) consumer(part ident.Partition, where *ident.Offset) {
	c := belief{w: w, part: part}
	for {
		w.e.sleep(w.e.between(20*time.Millisecond, 200*time.Millisecond))
		c.ask()
		if c.owner == 0 {
			continue
		}
		n := w.nodes[c.owner-1]
		got, err := call(&w.net, 0, n, "fetch", 2*time.Second, func(b *broker) (fetched, error) {
			return b.fetch(w.groupOf(part), part, *where)
		})
		switch {
		case errors.Is(err, commitlog.ErrOutOfRange) && got.owner && got.epoch >= c.epoch:
			if *where > got.high {
				w.ghost.fail("I7", "%s: a consumer at %d is out of range at broker %d in epoch %d: high watermark %d", name(part), *where, n.id, got.epoch, got.high)
			}
			*where = max(*where, got.start)
		case err == nil && got.epoch >= c.epoch:
			c.epoch = got.epoch
			w.ghost.read(part, *where, got.list)
			*where += ident.Offset(len(got.list))
		}
	}
}

// trimmer deletes records now and then.
func (w *world) trimmer(part ident.Partition) {
	c := belief{w: w, part: part}
	for !w.stopped {
		w.e.sleep(w.e.between(200*time.Millisecond, 2*time.Second))
		c.ask()
		if c.owner == 0 {
			continue
		}
		to := ident.Offset(w.e.rng.IntN(len(w.ghost.parts[part].history) + 1))
		_, err := call(&w.net, 0, w.nodes[c.owner-1], "trim", time.Second, func(b *broker) (struct{}, error) {
			if !b.serving() {
				return struct{}{}, errNotLeader
			}
			return struct{}{}, b.log.moveStart(w.groupOf(part), part, to)
		})
		w.e.logf("%s: log start to %d: %v", name(part), to, err)
	}
}
