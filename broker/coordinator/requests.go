package coordinator

import (
	"context"
	"errors"
	"slices"
	"strings"
	"time"

	"github.com/skeinmq/skein/broker/group"
	"github.com/skeinmq/skein/controller"
	"github.com/skeinmq/skein/internal/ident"
)

// Join serves a JoinGroup; it returns when the group has decided. rq.Ticket is chosen here.
func (c *Coordinator) Join(ctx context.Context, rq *group.JoinRequest) group.JoinReply {
	if rq.Group == "" {
		return group.JoinReply{Member: rq.Member, Err: group.ErrInvalidGroup, Generation: -1}
	}
	s := c.shard(rq.Group)
	rq.Ticket = c.ticket()
	type answer struct {
		group.JoinReply
		by controller.Epoch
	}
	r, err := do(ctx, c, s, func(now time.Time, reply func(answer, error)) {
		s.joins[rq.Ticket] = func(r group.JoinReply) { reply(answer{r, s.epoch}, nil) }
		s.machine.Join(now, rq)
	})
	if err == nil {
		err = c.sure(ctx, s, r.by, r.Err)
	}
	if err != r.Err {
		return group.JoinReply{Member: rq.Member, Err: err, Generation: -1}
	}
	return r.JoinReply
}

// sure lets a refusal that makes a member join anew pass only if the coordinator that gave it is still the newest one: one
// that slept through its replacement finds that its members' sessions are over, which the new one knows better.
func (c *Coordinator) sure(ctx context.Context, s *shard, by controller.Epoch, refusal error) error {
	switch {
	case errors.Is(refusal, group.ErrUnknownMember), errors.Is(refusal, group.ErrIllegalGeneration),
		errors.Is(refusal, group.ErrFencedInstance), errors.Is(refusal, group.ErrRebalanceInProgress):
	default:
		return refusal
	}
	err := c.cfg.Store.Confirm(ctx, s.partition, by)
	if err == nil {
		return refusal
	}
	if errors.Is(err, controller.ErrFenced) {
		s.doubt(by)
	}
	return group.ErrNotCoordinator
}

// Sync serves a SyncGroup; it returns when the assignment is durable. rq.Ticket is chosen here.
func (c *Coordinator) Sync(ctx context.Context, rq *group.SyncRequest) group.SyncReply {
	if rq.Group == "" {
		return group.SyncReply{Err: group.ErrInvalidGroup}
	}
	s := c.shard(rq.Group)
	rq.Ticket = c.ticket()
	type answer struct {
		group.SyncReply
		by controller.Epoch
	}
	r, err := do(ctx, c, s, func(now time.Time, reply func(answer, error)) {
		s.syncs[rq.Ticket] = func(r group.SyncReply) { reply(answer{r, s.epoch}, nil) }
		s.machine.Sync(now, rq)
	})
	if err == nil {
		err = c.sure(ctx, s, r.by, r.Err)
	}
	if err != r.Err {
		return group.SyncReply{Err: err}
	}
	return r.SyncReply
}

// Heartbeat serves a Heartbeat. While the coordinator loads it is taken for a good one, as
// in Kafka: the member has done nothing wrong.
func (c *Coordinator) Heartbeat(ctx context.Context, name string, generation int32, member, instance string) error {
	if name == "" {
		return group.ErrInvalidGroup
	}
	s := c.shard(name)
	by, err := do(ctx, c, s, func(now time.Time, reply func(controller.Epoch, error)) {
		reply(s.epoch, s.machine.Heartbeat(now, name, generation, member, instance))
	})
	switch {
	case errors.Is(err, ErrLoading):
		return nil
	case err == nil:
		return c.still(ctx, s, by)
	}
	return c.sure(ctx, s, by, err)
}

// confirmEach is for how long a coordinator that only hears heartbeats believes that it is still the newest one, and
// confirmTime how long it may take to find out. Otherwise its members would be kept from the new one, where their sessions end.
const (
	confirmEach = 2 * time.Second
	confirmTime = time.Second
)

// still confirms now and then that the coordinator that heard a heartbeat is the newest one.
func (c *Coordinator) still(ctx context.Context, s *shard, by controller.Epoch) error {
	was, now := s.confirmed.Load(), s.c.uptime()
	if now-was < int64(confirmEach) || !s.confirmed.CompareAndSwap(was, now) {
		return nil // lately, or somebody else is about to
	}
	ctx, cancel := context.WithTimeout(ctx, confirmTime)
	defer cancel()
	err := c.cfg.Store.Confirm(ctx, s.partition, by)
	if err == nil {
		return nil
	}
	if errors.Is(err, controller.ErrFenced) {
		s.doubt(by)
	} else {
		s.confirmed.Store(was)
	}
	return group.ErrNotCoordinator
}

// Leave serves a LeaveGroup: one result per leaver, or one error for all.
func (c *Coordinator) Leave(ctx context.Context, name string, leavers []group.Leaver) ([]error, error) {
	if name == "" {
		return nil, group.ErrInvalidGroup
	}
	s := c.shard(name)
	return do(ctx, c, s, func(now time.Time, reply func([]error, error)) {
		each, err := s.machine.Leave(now, name, leavers)
		if err != nil {
			reply(nil, err)
			return
		}
		if !s.effects(func(err error) { reply(each, err) }) {
			reply(each, nil)
		}
	})
}

// Commit stores committed offsets: all of them, or none and an error.
func (c *Coordinator) Commit(ctx context.Context, who group.Commit, offsets []controller.PartitionOffset) error {
	u := unit{bytes: opBytes + len(who.Group)}
	for i := range offsets {
		u.bytes += offsetBytes + len(offsets[i].Metadata)
	}
	if u.bytes > controller.MaxEntryBytes/2 {
		return ErrCommitSize
	}
	s := c.shard(who.Group)
	by, err := do(ctx, c, s, func(now time.Time, reply func(controller.Epoch, error)) {
		if err := s.machine.CheckCommit(now, who); err != nil {
			reply(s.epoch, err)
			return
		}
		if len(offsets) == 0 {
			reply(s.epoch, nil)
			return
		}
		u.done = func(err error) { reply(s.epoch, err) }
		u.ops = []controller.Op{{Kind: controller.PutOffsets, Group: who.Group, Offsets: offsets}}
		s.enqueue(u)
	})
	if err == nil {
		c.metrics.commits.Add(float64(len(offsets)))
	}
	return c.sure(ctx, s, by, err)
}

// readable waits until reads of the group's committed offsets can be answered: everything that any coordinator has
// acknowledged is shown, and no other one has taken over; with stable, every commit that is under way is decided.
func (c *Coordinator) readable(ctx context.Context, name string, stable bool) (*shard, error) {
	s := c.shard(name)
	if c.cfg.Store == nil {
		return nil, group.ErrCoordinatorNotAvailable
	}
	if stable || s.serving.Load() == 0 {
		_, err := do(ctx, c, s, func(_ time.Time, reply func(struct{}, error)) {
			if stable {
				s.enqueue(unit{done: func(err error) { reply(struct{}{}, err) }})
				return
			}
			reply(struct{}{}, nil)
		})
		if err != nil {
			return nil, err
		}
	}
	epoch := controller.Epoch(s.serving.Load())
	if epoch == 0 {
		return nil, s.refusal()
	}
	err := c.cfg.Store.Confirm(ctx, s.partition, epoch)
	if errors.Is(err, controller.ErrFenced) {
		s.doubt(epoch)
		return nil, group.ErrNotCoordinator
	}
	return s, err
}

// Lookup calls found for each of the partitions of which the group has a committed offset.
func (c *Coordinator) Lookup(ctx context.Context, name string, stable bool, of []ident.Partition, found func(i int, o controller.Offset)) error {
	s, err := c.readable(ctx, name, stable)
	if err == nil {
		c.cfg.Store.Lookup(s.partition, name, of, found)
	}
	return err
}

// Offsets lists all committed offsets of the group by topic id and index.
func (c *Coordinator) Offsets(ctx context.Context, name string, stable bool) ([]controller.PartitionOffset, error) {
	s, err := c.readable(ctx, name, stable)
	if err != nil {
		return nil, err
	}
	return c.cfg.Store.Offsets(s.partition, name), nil
}

// Describe describes a group; one that does not exist is Dead, and the error says so.
func (c *Coordinator) Describe(ctx context.Context, name string) (group.Description, error) {
	s := c.shard(name)
	return do(ctx, c, s, func(_ time.Time, reply func(group.Description, error)) {
		d, ok := s.machine.Describe(name)
		if !ok {
			reply(d, group.ErrGroupNotFound)
			return
		}
		reply(d, nil)
	})
}

// List lists the groups of the partitions of this broker by name.
func (c *Coordinator) List(ctx context.Context) ([]group.Listed, error) {
	var out []group.Listed
	for _, s := range c.shards {
		part, err := do(ctx, c, s, func(_ time.Time, reply func([]group.Listed, error)) {
			reply(s.machine.List(), nil)
		})
		if errors.Is(err, group.ErrNotCoordinator) && !c.ended() {
			if a := s.assigned.Load(); a != nil && a.owned {
				return nil, ErrLoading // a part of the list is not the list
			}
			continue // another broker's
		}
		if err != nil {
			return nil, err
		}
		out = append(out, part...)
	}
	slices.SortFunc(out, func(a, b group.Listed) int { return strings.Compare(a.Name, b.Name) })
	return out, nil
}

// Delete removes a group that has no members, and its offsets.
func (c *Coordinator) Delete(ctx context.Context, name string) error {
	s := c.shard(name)
	_, err := do(ctx, c, s, func(_ time.Time, reply func(struct{}, error)) {
		err := s.machine.Delete(name)
		if err != nil || !s.effects(func(err error) { reply(struct{}{}, err) }) {
			reply(struct{}{}, err)
		}
	})
	return err
}

// DeleteOffsets removes the committed offsets of partitions, except of topics that the group
// is subscribed to: results in the order of partitions, or one error for all.
func (c *Coordinator) DeleteOffsets(ctx context.Context, name string, of []ident.Partition) ([]error, error) {
	if name == "" {
		return nil, group.ErrInvalidGroup
	}
	s := c.shard(name)
	return do(ctx, c, s, func(_ time.Time, reply func([]error, error)) {
		if err := s.machine.CheckOffsetDelete(name); err != nil {
			reply(nil, err)
			return
		}
		each := make([]error, len(of))
		op := controller.Op{Kind: controller.DropOffsets, Group: name}
		for i, p := range of {
			if topic, _ := c.cfg.TopicName(p.Topic); s.machine.Subscribed(name, topic) {
				each[i] = group.ErrSubscribed
				continue
			}
			op.Offsets = append(op.Offsets, controller.PartitionOffset{Partition: p})
		}
		if len(op.Offsets) == 0 {
			reply(each, nil)
			return
		}
		s.enqueue(unit{
			ops: []controller.Op{op}, bytes: opBytes + len(name) + offsetBytes*len(op.Offsets),
			done: func(err error) { reply(each, err) },
		})
	})
}
