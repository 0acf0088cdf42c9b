package sim

import (
	"iter"

	"github.com/skeinmq/skein/broker/host"
	"github.com/skeinmq/skein/commitlog"
	"github.com/skeinmq/skein/internal/ident"
)

// queue is the queue of a sealed run.
type queue struct {
	start ident.Offset
	run   commitlog.Segment
}

// queueOf is host.Config's Queue.
func queueOf(l host.Log, gen ident.Generation, p ident.Partition) (host.Queue, bool) {
	r := l.(*simLog).run(gen)
	if r == nil || r.state != runSealed {
		return nil, false
	}
	i, ok := r.find(p)
	if !ok {
		return nil, false
	}
	q := r.parts[i]
	return queue{q.logStart, commitlog.Segment{First: q.start, End: q.high}}, true
}

// LogStart implements host.Queue.
func (q queue) LogStart() ident.Offset { return q.start }

// Segments implements host.Queue: all of it is one, if anything is left.
func (q queue) Segments() iter.Seq2[commitlog.Segment, error] {
	return func(yield func(commitlog.Segment, error) bool) {
		if first := max(q.run.First, q.start); first < q.run.End {
			yield(commitlog.Segment{First: first, End: q.run.End}, nil)
		}
	}
}
