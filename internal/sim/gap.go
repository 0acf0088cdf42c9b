package sim

import (
	"slices"

	"github.com/skeinmq/skein/internal/ident"
	"github.com/skeinmq/skein/queuemapper"
)

// What clients were told of offsets below the ceiling at which a generation was sealed, as nobody knew where it ends. They are
// contents that nobody has written.
const (
	unknown uint64 = 1 << 62 // its disk has a record there, or none
	nothing uint64 = 1 << 61 // a consumer was sent on behind it
)

// ceilingMost is more than any run's ceilings come to.
const ceilingMost = 1 << 20

// since is where the ghost of a partition's past begins anew: what only a lost log knew is known no more.
type since struct {
	epoch ident.Epoch    // of the newest generation that was sealed at its ceiling; -1: none was
	at    ident.Offset   // that ceiling
	anew  map[int64]bool // producers that the next generations know nothing of
}

// sealedAtCeiling checks ends that nobody knew (O22): an operator has given the log up at this epoch, not before its host took it
// into service once more, and every partition of the group ends at the ceiling, above all that was acked or seen.
func (g *ghost) sealedAtCeiling(group *queuemapper.Group, i int, ceiling ident.Offset) {
	gen := &group.Generations[i]
	named := ident.Generation{Group: group.ID, Epoch: gen.Epoch, Frame: gen.Frame}
	if said, l := g.w.asked[gen.Log], g.w.truth.Map().Log(gen.Log); said == 0 || l == nil || l.Epoch != said {
		g.fail("O22", "generation %s is sealed at its ceiling: log %s was given up at epoch %d, it is %+v", named, short(gen.Log), said, l)
	}
	g.w.count("generation sealed at its ceiling", nil)
	g.ceilinged[named] = g.w.disks[gen.Log].durable
	if ceiling > ceilingMost { // what is skipped is remembered offset by offset
		g.fail("O22", "generation %s has a ceiling of %d", named, ceiling)
		return
	}
	for id, p := range g.w.partitionsOf(group.ID, gen.Epoch) {
		end, ok := gen.Ends[id]
		if !ok {
			end = max(group.Start(id, i), g.cameAt(id, group.ID, gen.Epoch))
		}
		if end != ceiling || int(end) < len(p.history) {
			g.fail("I6", "%s: generation %s is sealed at %d, nobody knows where it ends; its ceiling is %d, offsets up to %d were acked or seen", name(id), named, end, ceiling, len(p.history))
			return
		}
		for len(p.history) < int(end) {
			p.history = append(p.history, unknown)
		}
		p.since = since{gen.Epoch, end, map[int64]bool{}}
		for producer := range p.last { // the order does not matter
			p.since.anew[producer] = true
		}
	}
}

// late is called when an owner commits a batch in a generation that was sealed at its ceiling before. It may have slept since the
// batch was witnessed, and acknowledges it, too late; nothing that became durable afterwards is ever committed.
func (g *ghost) late(l *simLog, q *logPart, f *frame) {
	if durable := g.ceilinged[q.run.gen]; l.committed > durable {
		g.fail("O22", "%s: %s commits offset %d of generation %s, which was sealed at its ceiling before that was durable", name(q.part), l.host.name, f.base, q.run.gen)
		return
	}
	p := g.parts[q.part]
	for i := range f.batch.records {
		content := f.batch.content + uint64(i)
		if o := f.base + ident.Offset(i); p.history[o] == nothing {
			p.history[o] = content // its log was given up: it is lost like what was acknowledged before
		} else {
			p.pin(o, content)
		}
		if producer, sequence := producerOf(content); producer >= 0 {
			p.last[producer] = max(p.last[producer], sequence)
		}
	}
}

// pin notes what an offset holds of which that was not known.
func (p *past) pin(o ident.Offset, content uint64) {
	if int(o) < len(p.history) && p.history[o] == unknown {
		p.history[o] = content
	}
}

// again says whether a record may be stored once more: its producer retried it when the state of deduplication was lost, and it was
// not acknowledged before.
func (p *past) again(content uint64) bool {
	producer, sequence := producerOf(content)
	acked, any := p.acked[producer]
	return producer >= 0 && p.where[content] < p.since.at && (!any || sequence > acked)
}

// keptReadable checks a log that is back before it was given up: what it has of what was acked is not below a log start that no
// client has asked for.
func (g *ghost) keptReadable(id ident.Partition, r queuemapper.Run) {
	p := g.parts[id]
	_, start := p.before(1 << 30)
	for o := max(r.Start, p.deleted); o < min(r.End, start, ident.Offset(len(p.history))); o++ {
		if lost, _ := g.w.lostAt(id, o); !lost && p.history[o] != unknown && p.history[o] != nothing {
			g.fail("I4", "%s offset %d was acked or seen, log %s is back with it, and the log start is %d", name(id), o, short(r.Log), start)
			return
		}
	}
}

// hasGap says whether a log holds a generation that was sealed at its ceiling.
func (w *world) hasGap(id ident.Log) bool {
	for g := range w.truth.Map().Groups() {
		if slices.ContainsFunc(g.Generations, func(gen queuemapper.Generation) bool { return gen.Log == id && gen.Gap }) {
			return true
		}
	}
	return false
}
