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
	run, l, ok := m.Owner(m.Topic(topicName), c.part.Index)
	if ok && l != nil && run.Generation.Epoch >= c.epoch {
		c.owner, c.epoch = int(l.Host), run.Generation.Epoch
	}
}

// place is where a batch was put.
type place struct {
	base    ident.Offset
	epoch   ident.Epoch
	content uint64
	owner   bool // it came from somebody who takes himself for the owner
}

// owned is the open run of a partition here, as the broker's map has it; nil: it takes itself for nobody's owner.
func (b *broker) owned(p ident.Partition) *logRun {
	if !b.serving() {
		return nil
	}
	m := b.store.Map()
	run, _, ok := m.Owner(m.Topic(topicName), p.Index)
	if !ok || run.Log != b.log.d.id {
		return nil
	}
	if r := b.log.run(run.Generation); r != nil && r.state == runOpen {
		return r
	}
	return nil
}

// produce is a produce request at a broker.
func (b *broker) produce(p ident.Partition, x batch) (place, error) {
	r := b.owned(p)
	if r == nil {
		return place{}, errNotLeader
	}
	if x.producer < 0 { // every attempt that arrives may be stored
		b.w.loose += 16
		x.content = 1<<63 | b.w.loose
	}
	base, err := b.log.append(r, p, x).wait(0)
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
			return b.produce(c.part, x)
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

	skipTo ident.Offset // nothing is left of what lies below; 0: nothing is skipped
}

// fetch is a fetch request at a broker, which reads other brokers' runs for its clients (O21).
func (b *broker) fetch(p ident.Partition, from ident.Offset) (fetched, error) {
	r := b.owned(p)
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
	m := b.store.Map()
	run, ok := m.Locate(m.Topic(topicName), p.Index, from)
	l := m.Log(run.Log)
	if !ok || run.Open { // the map has gone on meanwhile
		return out, errNotLeader
	}
	next, end := m.Readable(p, run, from)
	if next > from {
		out.skipTo = next // a skip that the map records (I4)
		return out, nil
	}
	if l == nil { // it was given up, and is not marked as yet
		return out, errNotLeader
	}
	run.End = end
	got, err := call(&b.node.w.net, b.node.id, b.node.w.nodes[l.Host-1], "read", time.Second, func(o *broker) (fetched, error) {
		return o.readRun(run, p, from)
	})
	out.list, out.skipTo = got.list, got.skipTo
	if errors.Is(err, commitlog.ErrOutOfRange) { // the host knows more of what it has lost than this map
		err = errNotLeader
	}
	return out, err
}

// fetchMax is how many records one fetch brings at most.
const fetchMax = 8

// readRun serves a sealed run of this broker's log to another broker, and nothing outside it. Behind what one that was sealed at
// its ceiling holds there is nothing: readers go on behind it.
func (b *broker) readRun(run queuemapper.Run, p ident.Partition, from ident.Offset) (out fetched, err error) {
	if !b.serving() || b.log.d.id != run.Log {
		return out, errNotLeader
	}
	d := b.log.d
	switch {
	case run.Gap && from >= d.end(run.Generation, p, run.Start):
		out.skipTo = run.End
		return out, nil
	case d.at(run.Generation, p, from) == 0:
		return out, commitlog.ErrOutOfRange
	}
	for o := from; o < run.End && len(out.list) < fetchMax && d.at(run.Generation, p, o) != 0; o++ {
		out.list = append(out.list, d.at(run.Generation, p, o))
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
			return b.fetch(part, *where)
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
			w.ghost.skipped(part, *where, got.skipTo)
			*where = max(*where+ident.Offset(len(got.list)), got.skipTo)
		}
	}
}

// trimGenerations takes generations of which nothing is left to read out of the map, as a broker does for the groups that it owns.
func (b *broker) trimGenerations() {
	if !b.serving() {
		return
	}
	m := b.store.Map()
	t := m.Topic(topicName)
	oldest := map[ident.Group]ident.Epoch{}
	for i := range t.Partitions {
		start := ident.Offset(0)
		p := b.w.part(i)
		if r := b.owned(p); r != nil {
			start = r.get(p).logStart
		}
		for _, run := range m.Runs(t, int32(i)) {
			g := run.Generation
			if e, ok := oldest[g.Group]; (run.Open || run.End > start) && (!ok || g.Epoch < e) {
				oldest[g.Group] = g.Epoch
			}
		}
	}
	for g := range m.Groups() {
		keep, needed := oldest[g.ID]
		if b.host.OpenIn(g) == nil || b.host.Moving(g.ID) || !needed || g.Generations[0].Epoch >= keep {
			continue
		}
		_, err := b.store.TrimGenerations(background, g, keep)
		b.w.count("trim of generations", err)
		b.w.e.logf("generations of group %d below %d trimmed: %v", g.ID, keep, err)
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
		w.ghost.parts[part].deleted = max(w.ghost.parts[part].deleted, to)
		_, err := call(&w.net, 0, w.nodes[c.owner-1], "trim", time.Second, func(b *broker) (struct{}, error) {
			r := b.owned(part)
			if r == nil {
				return struct{}{}, errNotLeader
			}
			return struct{}{}, b.log.moveStart(r, part, to)
		})
		w.e.logf("%s: log start to %d: %v", name(part), to, err)
		_, _ = call(&w.net, 0, w.nodes[c.owner-1], "trim the map", time.Second, func(b *broker) (struct{}, error) {
			b.trimGenerations()
			return struct{}{}, nil
		})
	}
}
