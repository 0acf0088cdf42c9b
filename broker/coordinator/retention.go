package coordinator

import (
	"context"
	"errors"
	"time"

	"github.com/skeinmq/skein/broker/group"
	"github.com/skeinmq/skein/controller"
	"github.com/skeinmq/skein/internal/ident"
)

// goneAfter: offsets of a topic that the map does not know are dropped when they are older
// than this; a younger one may be of a topic that this broker has not heard of yet.
const goneAfter = 10 * time.Minute

// awaitTime bounds how long a shard waits until the store shows what it has written.
const awaitTime = time.Second

// shows waits until the store shows what this shard has written. The wait is short, and false: not now.
func (s *shard) shows(ctx context.Context) bool {
	ctx, cancel := context.WithTimeout(ctx, awaitTime)
	defer cancel()
	return s.c.cfg.Store.Await(ctx, s.partition) == nil
}

// expire drops offsets whose time is over, and groups that have none left.
func (s *shard) expire(ctx context.Context, now time.Time) {
	if s.machine == nil || !s.shows(ctx) {
		return
	}
	for _, g := range s.machine.List() {
		s.expireGroup(now, g.Name)
	}
	s.after()
}

func (s *shard) expireGroup(now time.Time, name string) {
	if s.writesOffsets(name) {
		return // the store does not show what is on its way: next time
	}
	offsets := s.c.cfg.Store.Offsets(s.partition, name)
	op := controller.Op{Kind: controller.DropOffsets, Group: name}
	for _, o := range offsets {
		if s.expired(now, name, o) {
			op.Offsets = append(op.Offsets, controller.PartitionOffset{Partition: o.Partition})
		}
	}
	s.c.metrics.expired.Add(float64(len(op.Offsets)))
	if len(op.Offsets) == len(offsets) && s.machine.Idle(name) {
		if s.machine.Delete(name) == nil {
			s.effects(nil)
		}
		return
	}
	if len(op.Offsets) > 0 {
		s.enqueue(unit{ops: []controller.Op{op}, bytes: opBytes + len(name) + offsetBytes*len(op.Offsets)})
	}
}

// expired applies Kafka's rules to one offset.
func (s *shard) expired(now time.Time, name string, o controller.PartitionOffset) bool {
	ms := now.UnixMilli()
	topic, exists := s.c.cfg.TopicName(o.Partition.Topic)
	if !exists {
		return ms-o.CommitTime >= goneAfter.Milliseconds()
	}
	r := s.machine.Retention(name)
	if !r.Expires || s.machine.Subscribed(name, topic) {
		return false
	}
	if o.ExpireTime >= 0 {
		return ms >= o.ExpireTime
	}
	since := o.CommitTime
	if r.Since >= 0 {
		since = r.Since
	}
	return ms-since >= s.c.cfg.Retention.Milliseconds()
}

// writesOffsets says whether offsets of the group are on their way.
func (s *shard) writesOffsets(name string) bool {
	for _, units := range [][]unit{s.flying, s.units} {
		for _, u := range units {
			for _, op := range u.ops {
				if op.Kind == controller.PutOffsets && op.Group == name {
					return true
				}
			}
		}
	}
	return false
}

// DropTopics drops the committed offsets of topics that were deleted, in the partitions of this broker.
func (c *Coordinator) DropTopics(ctx context.Context, topics map[ident.Topic]bool) error {
	if c.cfg.Store == nil {
		return nil
	}
	for _, s := range c.shards {
		_, err := do(ctx, c, s, func(_ time.Time, reply func(struct{}, error)) {
			if s.shows(ctx) { // what is missed is found by expire
				s.dropTopics(topics)
			}
			// Answered when what was queued is durable.
			s.enqueue(unit{done: func(err error) { reply(struct{}{}, err) }})
		})
		if err != nil && (!errors.Is(err, group.ErrNotCoordinator) || c.ended()) {
			return err
		}
	}
	return nil
}

func (s *shard) dropTopics(topics map[ident.Topic]bool) {
	for _, g := range s.c.cfg.Store.Groups(s.partition) {
		if g.Offsets == 0 {
			continue
		}
		op := controller.Op{Kind: controller.DropOffsets, Group: g.Name}
		for _, o := range s.c.cfg.Store.Offsets(s.partition, g.Name) {
			if topics[o.Partition.Topic] {
				op.Offsets = append(op.Offsets, controller.PartitionOffset{Partition: o.Partition})
			}
		}
		if len(op.Offsets) > 0 {
			s.enqueue(unit{ops: []controller.Op{op}, bytes: opBytes + len(g.Name) + offsetBytes*len(op.Offsets)})
		}
	}
}
