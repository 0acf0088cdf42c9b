package broker

import (
	"cmp"
	"context"
	"errors"
	"slices"
	"time"

	"github.com/skeinmq/skein/internal/ident"
	"github.com/skeinmq/skein/queuemapper"
)

// Reassignments are in the map until they are done, each with the broker that works on it. When that one is gone, the live
// broker with the lowest id puts itself in its place. Whoever cancels one takes it out of the map and the partition back; the
// broker that worked on it notices, and makes sure that its last step is undone as well. Who is asked for something else
// replaces it: then the last step of the older order is undone if the newer one is done already, and by that one if not.

// noteTime bounds the writing of reassignments into the map, lookEach how often the map is looked at for them.
const (
	noteTime = 5 * time.Second
	lookEach = 100 * time.Millisecond
)

// noteReassignments writes those into the map that go on and are not in there. What cannot be written is ended, and returned.
func (b *Broker) noteReassignments(list []*reassignment) map[*reassignment]error {
	byTopic := make(map[ident.Topic][]*reassignment)
	b.reassigns.mu.Lock()
	for _, r := range list {
		if b.reassigns.by[r.id] == r && r.noted == 0 {
			byTopic[r.id.Topic] = append(byTopic[r.id.Topic], r)
		}
	}
	b.reassigns.mu.Unlock()
	failed := make(map[*reassignment]error)
	for topic, of := range byTopic {
		ctx, cancel := context.WithTimeout(b.life, noteTime)
		err := b.store.Reassign(ctx, topic, func(there map[int32]queuemapper.Reassignment) {
			for _, r := range of {
				there[r.id.Index] = queuemapper.Reassignment{Replicas: r.list, From: r.from, Worker: b.cfg.ID, Incarnation: b.cfg.Incarnation}
			}
		})
		cancel()
		b.noted(of)
		for _, r := range of {
			if err != nil && !errors.Is(err, queuemapper.ErrNotFound) { // a topic that is gone has nothing to reassign
				failed[r] = err
				b.reassigns.end(r)
			}
		}
	}
	return failed
}

// noted takes down that the map has reassignments from now on.
func (b *Broker) noted(list []*reassignment) {
	revision := b.store.Map().Revision()
	b.reassigns.mu.Lock()
	defer b.reassigns.mu.Unlock()
	for _, r := range list {
		r.noted = revision
	}
	b.reassigns.poke() // one may have ended meanwhile
}

// ongoing lists the reassignments that go on, here and elsewhere, by topic and partition.
func (b *Broker) ongoing(m *queuemapper.Map) []*reassignment {
	out := b.reassigns.list()
	here := make(map[ident.Partition]bool, len(out))
	for _, r := range out {
		here[r.id] = true
	}
	for p, n := range m.Reassignments() {
		if t := m.TopicByID(p.Topic); t != nil && !here[p] {
			out = append(out, reassignmentOf(t.Name, p, n))
		}
	}
	slices.SortFunc(out, func(a, b *reassignment) int {
		return cmp.Or(cmp.Compare(a.topic, b.topic), cmp.Compare(a.id.Index, b.id.Index))
	})
	return out
}

func reassignmentOf(topic string, p ident.Partition, n queuemapper.Reassignment) *reassignment {
	return &reassignment{id: p, topic: topic, to: n.Replicas[0], list: n.Replicas, from: n.From}
}

// keepReassigned follows what the map says of reassignments until ctx ends.
func (b *Broker) keepReassigned(ctx context.Context) error {
	for {
		m := b.store.Map()
		var again <-chan time.Time
		if !b.lookAtReassignments(ctx, m) {
			again = time.After(time.Second)
		}
		select {
		case <-b.store.Watch(m):
		case <-b.reassigns.ended:
		case <-again:
		case <-ctx.Done():
			return nil
		}
		select { // the map changes often, and reassignments hardly ever
		case <-time.After(lookEach):
		case <-ctx.Done():
			return nil
		}
	}
}

// lookAtReassignments acts on the map; false: something is to be tried again.
func (b *Broker) lookAtReassignments(ctx context.Context, m *queuemapper.Map) bool {
	if b.leaving.Load() || b.life.Err() != nil {
		return true // others go on with what is there
	}
	over, orphans := make(map[ident.Topic][]int32), make(map[ident.Topic][]*reassignment)
	heir := b.heir(m)
	b.reassigns.mu.Lock()
	for p, n := range m.Reassignments() {
		r, t := b.reassigns.by[p], m.TopicByID(p.Topic)
		mine := n.Worker == b.cfg.ID && n.Incarnation == b.cfg.Incarnation
		switch {
		case t == nil:
		case mine && r == nil:
			over[p.Topic] = append(over[p.Topic], p.Index)
		case !mine && r != nil && r.noted > 0 && r.noted <= m.Revision(): // somebody asked another broker for something else
			delete(b.reassigns.by, p)
			r.cancel()
		case !mine && r == nil && heir && orphaned(m, n):
			orphans[p.Topic] = append(orphans[p.Topic], reassignmentOf(t.Name, p, n))
		}
	}
	var cancelled []*reassignment
	for p, r := range b.reassigns.by {
		if _, is := m.Reassignment(p); !is && r.noted > 0 && r.noted <= m.Revision() {
			delete(b.reassigns.by, p)
			r.cancel()
			cancelled = append(cancelled, r)
		}
	}
	b.reassigns.mu.Unlock()
	for _, r := range cancelled {
		b.conclude(r)
	}
	done := b.forgetReassignments(ctx, over)
	return b.adopt(ctx, orphans) && done
}

// heir says whether this broker goes on with what the dead have left.
func (b *Broker) heir(m *queuemapper.Map) bool {
	for r := range m.Brokers() {
		if !m.Draining(r.ID) {
			return r.ID == b.cfg.ID
		}
	}
	return false
}

// orphaned says whether nobody works on a reassignment any more.
func orphaned(m *queuemapper.Map, n queuemapper.Reassignment) bool {
	r := m.Broker(n.Worker)
	return r == nil || r.Incarnation != n.Incarnation
}

// forgetReassignments takes those out of the map that this broker is done with.
func (b *Broker) forgetReassignments(ctx context.Context, over map[ident.Topic][]int32) bool {
	for topic, indexes := range over {
		ctx, cancel := context.WithTimeout(ctx, noteTime)
		err := b.store.Reassign(ctx, topic, func(there map[int32]queuemapper.Reassignment) {
			for _, index := range indexes {
				if n := there[index]; n.Worker == b.cfg.ID && n.Incarnation == b.cfg.Incarnation && !b.reassigns.has(ident.Partition{Topic: topic, Index: index}) {
					delete(there, index)
				}
			}
		})
		cancel()
		if err != nil && !errors.Is(err, queuemapper.ErrNotFound) {
			return false
		}
	}
	return true
}

// adopt goes on with reassignments of brokers that are gone.
func (b *Broker) adopt(ctx context.Context, orphans map[ident.Topic][]*reassignment) bool {
	for topic, list := range orphans {
		var mine []*reassignment
		ctx, cancel := context.WithTimeout(ctx, noteTime)
		err := b.store.Reassign(ctx, topic, func(there map[int32]queuemapper.Reassignment) {
			mine = mine[:0]
			for _, r := range list {
				n, is := there[r.id.Index]
				if is && orphaned(b.store.Map(), n) && slices.Equal(n.Replicas, r.list) {
					n.Worker, n.Incarnation = b.cfg.ID, b.cfg.Incarnation
					there[r.id.Index] = n
					mine = append(mine, r)
				}
			}
		})
		cancel()
		if err != nil {
			return errors.Is(err, queuemapper.ErrNotFound)
		}
		if len(mine) == 0 {
			continue
		}
		b.log.Info("reassignments go on at this broker", "topic", mine[0].topic, "partitions", len(mine))
		for _, r := range mine {
			b.reassigns.add(b.life, r)
		}
		b.noted(mine)
		b.reassigns.work.Go(func() { b.reassignAll(mine) })
	}
	return true
}

// has reports whether this broker works on a partition.
func (r *reassignments) has(p ident.Partition) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.by[p] != nil
}
