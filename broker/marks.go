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
	// marksRecent is how old they may be for a client that has no session, and may come from the owner just now.
	marksRecent = 20 * time.Millisecond
	// marksPatience is how long a fetch waits for them; marksFirst that of a client that is new, which is else sent back.
	marksPatience = 200 * time.Millisecond
	marksFirst    = time.Second
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
	asOf  time.Time // the marks are at least as new
}

// get returns what is known by an owner, or what others have said before.
func (o *ownersMarks) get(p ident.Partition, at ident.Broker) ownerMarks {
	o.mu.Lock()
	defer o.mu.Unlock()
	is := o.known[p]
	if is.at != at {
		is.asked, is.asOf = time.Time{}, time.Time{}
	}
	return is
}

// ask notes that an owner is being asked now.
func (o *ownersMarks) ask(p ident.Partition, at ident.Broker, now time.Time) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if len(o.known) >= marksMost || o.known == nil {
		o.known = make(map[ident.Partition]ownerMarks)
	}
	is := o.known[p]
	if is.at != at {
		is.at, is.asOf = at, time.Time{}
	}
	is.asked = now
	o.known[p] = is
}

// learn takes over what an owner said that was asked at a moment. Marks do not go back.
func (o *ownersMarks) learn(p ident.Partition, at ident.Broker, m runs.Marks, asked time.Time) {
	o.mu.Lock()
	defer o.mu.Unlock()
	is, ok := o.known[p]
	if !ok {
		return
	}
	is.High, is.Stable, is.Start = max(is.High, m.High), max(is.Stable, m.Stable), max(is.Start, m.Start)
	if is.at == at && asked.After(is.asOf) {
		is.asOf = asked
	}
	o.known[p] = is
}

// marksOf returns the marks of a partition that another broker owns, no lower than what its owner may have told the client
// before it sent it here. False: the owner cannot be asked, so that is not known. With those of this partition it asks for
// those of the others that the client reads here.
func (j *fetchJob) marksOf(ctx context.Context, m *queuemapper.Map, f *fetchPart, at ident.Broker, owner queuemapper.Run) (runs.Marks, bool) {
	o, now := &j.b.marks, time.Now()
	if j.hostedAt.IsZero() {
		if j.hostedAt = now; j.session == nil {
			j.hostedAt = now.Add(-marksRecent)
		}
	}
	if f.hosted.IsZero() || f.hostedEpoch != owner.Generation.Epoch {
		f.hosted, f.hostedEpoch = j.hostedAt, owner.Generation.Epoch
	}
	is := o.get(f.p.id(), at)
	if is.asOf.Before(f.hosted) || now.Sub(is.asked) >= marksFor {
		ps := []ident.Partition{f.p.id()}
		o.ask(f.p.id(), at, now)
		for _, other := range j.set.byKey {
			if len(ps) == runs.MarksMost {
				break
			}
			if other == f || other.isInternal() || j.resolve(other) != nil || other.p.open.Load() != nil {
				continue
			}
			_, l, ok := m.Owner(other.p.topic.newest(), other.index)
			is := o.get(other.p.id(), at)
			old := now.Sub(is.asked) >= marksFor || other.hosted.IsZero() && is.asOf.Before(j.hostedAt)
			if ok && l != nil && l.Host == at && old {
				o.ask(other.p.id(), at, now)
				ps = append(ps, other.p.id())
			}
		}
		patience := marksPatience
		if is.asOf.Before(f.hosted) {
			patience = max(marksFirst, j.b.cfg.Patience)
		}
		ctx, cancel := context.WithTimeout(ctx, patience)
		_ = j.b.remote.Marks(ctx, at, ps, func(p ident.Partition, m runs.Marks) { o.learn(p, at, m, now) }) // else they are as they were
		cancel()
		is = o.get(f.p.id(), at)
	}
	is.Stable = max(is.Stable, owner.Start)
	is.High = max(is.High, is.Stable)
	return is.Marks, !is.asOf.Before(f.hosted)
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
