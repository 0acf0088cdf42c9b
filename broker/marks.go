package broker

import (
	"context"
	"sync"
	"time"

	"github.com/skeinmq/skein/broker/runs"
	"github.com/skeinmq/skein/internal/ident"
	"github.com/skeinmq/skein/queuemapper"
)

const (
	// marksFor is how long the marks of another broker's partition are told to clients before its owner is asked again: its
	// log start, below which nothing is served, and its high watermark, by which clients judge how far behind they are.
	marksFor = 500 * time.Millisecond
	// marksPatience is how long a fetch waits for them; it then goes on with those that are known.
	marksPatience = 200 * time.Millisecond
	// marksMost bounds the partitions whose marks are kept.
	marksMost = 1 << 16
)

// ownersMarks are the marks of partitions that clients read here and other brokers own.
type ownersMarks struct {
	mu    sync.Mutex
	known map[ident.Partition]ownerMarks
}

type ownerMarks struct {
	runs.Marks
	at    ident.Broker
	asked time.Time
}

// get returns what is known, and whether its owner was asked a short while ago.
func (o *ownersMarks) get(p ident.Partition, at ident.Broker, now time.Time) (runs.Marks, bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	is := o.known[p]
	return is.Marks, is.at == at && now.Sub(is.asked) < marksFor
}

// ask notes that the owner is being asked now, so that others do not.
func (o *ownersMarks) ask(p ident.Partition, at ident.Broker, now time.Time) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if len(o.known) >= marksMost || o.known == nil {
		o.known = make(map[ident.Partition]ownerMarks)
	}
	is := o.known[p]
	is.at, is.asked = at, now
	o.known[p] = is
}

// learn takes over what an owner said. Marks do not go back.
func (o *ownersMarks) learn(p ident.Partition, m runs.Marks) {
	o.mu.Lock()
	defer o.mu.Unlock()
	is, ok := o.known[p]
	if !ok || m.Epoch < is.Epoch {
		return
	}
	is.Epoch = m.Epoch
	is.High, is.Stable, is.Start = max(is.High, m.High), max(is.Stable, m.Stable), max(is.Start, m.Start)
	o.known[p] = is
}

// marksOf returns the marks of a partition that another broker owns, no lower than the map has them. With those of this one it
// asks for those of the others that the client reads here.
func (j *fetchJob) marksOf(ctx context.Context, m *queuemapper.Map, f *fetchPart, at ident.Broker, owner queuemapper.Run) runs.Marks {
	o, now := &j.b.marks, time.Now()
	known, fresh := o.get(f.p.id(), at, now)
	if !fresh {
		ps := []ident.Partition{f.p.id()}
		o.ask(f.p.id(), at, now)
		for _, other := range j.set.byKey {
			if len(ps) == runs.MarksMost {
				break
			}
			if other == f || other.p == nil || other.p.open.Load() != nil {
				continue
			}
			_, l, ok := m.Owner(other.p.topic.newest(), other.index)
			if _, fresh := o.get(other.p.id(), at, now); ok && !fresh && l != nil && l.Host == at {
				o.ask(other.p.id(), at, now)
				ps = append(ps, other.p.id())
			}
		}
		ctx, cancel := context.WithTimeout(ctx, marksPatience)
		_ = j.b.remote.Marks(ctx, at, ps, o.learn) // else they are as they were
		cancel()
		known, _ = o.get(f.p.id(), at, now)
	}
	known.Stable = max(known.Stable, owner.Start)
	known.High = max(known.High, known.Stable)
	return known
}

// ownMarks are the marks of a partition that is open here, for brokers that serve older runs of it.
func (b *Broker) ownMarks(p ident.Partition) (runs.Marks, bool) {
	t := b.topicByID(p.Topic)
	if t == nil {
		return runs.Marks{}, false
	}
	part := t.partition(p.Index)
	if part == nil {
		return runs.Marks{}, false
	}
	run := part.open.Load()
	if run == nil {
		return runs.Marks{}, false
	}
	q := run.queue // the log start first and the high watermark last, so that they never seem to cross
	m := runs.Marks{Epoch: run.gen.Epoch, Start: q.LogStart()}
	m.Stable = q.LastStable()
	m.High = max(q.HighWatermark(), m.Stable)
	m.Start = min(m.Start, m.Stable)
	return m, true
}
