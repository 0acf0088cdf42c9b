package broker

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/skeinmq/skein/commitlog"
	"github.com/skeinmq/skein/internal/ident"
	"github.com/skeinmq/skein/queuemapper"
)

// moves serializes what changes the ownership of groups on this broker: planned moves and splits.
type moves struct {
	mu sync.Mutex
}

// moveGroup moves one group to another log of this broker (O18): freeze, drain, exact state, prepare at the target,
// publish. No byte is copied: the old run stays where it is. Whatever happens, afterwards exactly the generation that the
// map names takes appends.
func (b *Broker) moveGroup(ctx context.Context, group ident.Group, to ident.Log) MoveView {
	b.moves.mu.Lock()
	defer b.moves.mu.Unlock()
	v := MoveView{Group: group, To: to.String()}
	m := b.store.Map()
	g := m.Group(group)
	from := b.openLog(g)
	target := b.hosted[to]
	switch {
	case from == nil:
		v.Error = "its open generation is not in a log of this broker"
		return v
	case target == nil:
		v.Error = fmt.Sprintf("log %s is not mounted here", to)
		return v
	case from == target:
		v.Error = "it is there already"
		return v
	}
	v.From = from.id.String()
	last := *g.Current() // there is one, or from were nil

	held := time.Now()
	states, err := from.log.Freeze(ctx, group)
	state := states[group]
	if err != nil {
		// A freeze that was given up may still have stopped the group.
		v.Error = errors.Join(err, from.log.Thaw(group)).Error()
		return v
	}
	pub := queuemapper.Publication{
		Group: g, Source: m.Log(from.id), Target: m.Log(to), Epoch: last.Epoch + 1, Ends: endsOf(state),
	}
	pub.Ceiling = b.reserves.ceiling(group, topOf(state))
	frames, err := target.log.Prepare(ctx, []commitlog.Opening{{Group: group, Epoch: pub.Epoch, State: state, Ceiling: pub.Ceiling}})
	if err != nil {
		v.Error = errors.Join(fmt.Errorf("prepare: %w", err), from.log.Thaw(group)).Error()
		return v
	}
	pub.Frame = frames[0]
	published, err := b.publish(ctx, pub)
	if err == nil && published {
		err = b.handOver(ctx, from, target, generationOf(group, last), pub)
	} else {
		err = errors.Join(err, from.log.Thaw(group))
	}
	v.Epoch, v.PauseMillis = pub.Epoch, float64(time.Since(held))/float64(time.Millisecond)
	if err != nil {
		v.Error = err.Error()
	}
	b.refresh(group)
	b.log.Info("group moved", "group", group, "from", v.From, "to", v.To, "epoch", v.Epoch, "pause_ms", v.PauseMillis, "err", v.Error)
	return v
}

// publish writes a planned move into the map and finds out whether it is there. A lost answer is settled by a write
// (O18): the touch makes the publication that may still be under way fail, so what the record says after it is final.
// Until then nobody appends, so there is no giving up but with the broker itself.
func (b *Broker) publish(ctx context.Context, pub queuemapper.Publication) (published bool, err error) {
	err = b.store.Publish(ctx, []queuemapper.Publication{pub})[0]
	if !errors.Is(err, queuemapper.ErrUnknown) {
		return err == nil, err
	}
	return b.settle(pub, err)
}

// settle answers whether a publication whose answer was lost has landed, by writes only.
func (b *Broker) settle(pub queuemapper.Publication, cause error) (bool, error) {
	for delay := 10 * time.Millisecond; ; delay = min(2*delay, time.Second) {
		g, err := b.store.Touch(b.life, pub.Group.ID)
		if err == nil {
			last := g.Generations[len(g.Generations)-1]
			if last.Epoch == pub.Epoch && last.Frame == pub.Frame && last.Log == pub.Target.ID {
				return true, nil
			}
			return false, fmt.Errorf("publish group %d: not applied: %w", pub.Group.ID, cause)
		}
		b.log.Warn("settle a move", "group", pub.Group.ID, "err", err)
		select {
		case <-time.After(delay):
		case <-b.life.Done():
			return false, context.Cause(b.life)
		}
	}
}

// handOver makes the logs follow a publication: the new generation takes appends, the old one is cut at its ends.
func (b *Broker) handOver(ctx context.Context, from, target *hostedLog, old ident.Generation, pub queuemapper.Publication) error {
	gen := ident.Generation{Group: pub.Group.ID, Epoch: pub.Epoch, Frame: pub.Frame}
	if err := target.log.Activate([]ident.Generation{gen}); err != nil {
		return fmt.Errorf("activate: %w", err)
	}
	b.refresh(gen.Group)
	if err := from.log.Seal(ctx, commitlog.MapGeneration{Generation: old, Ends: pub.Ends}); err != nil {
		return fmt.Errorf("write the cut down: %w", err)
	}
	return nil
}

// splitPartition gives one partition another group from its end on (O20). Both groups are frozen and go on to a next
// generation in one transaction, so that an append to the old one is refused wherever it comes from.
func (b *Broker) splitPartition(ctx context.Context, topic string, index int32, to ident.Group) (MoveView, error) {
	b.moves.mu.Lock()
	defer b.moves.mu.Unlock()
	m := b.store.Map()
	t := m.Topic(topic)
	if t == nil || index < 0 || int(index) >= len(t.Partitions) {
		return MoveView{}, fmt.Errorf("split %s:%d: no such partition", topic, index)
	}
	stays := t.Partitions[index]
	source, target := m.Group(stays[len(stays)-1].Group), m.Group(to)
	fromLog, toLog := b.openLog(source), b.openLog(target)
	switch {
	case target == nil:
		return MoveView{}, fmt.Errorf("split %s:%d: there are groups 0 to %d", topic, index, m.Cluster().Groups-1)
	case source.ID == to:
		return MoveView{}, fmt.Errorf("split %s:%d: it lives in group %d already", topic, index, to)
	case fromLog == nil || toLog == nil:
		return MoveView{}, fmt.Errorf("split %s:%d: both groups must be open in logs of this broker", topic, index)
	}
	v := MoveView{Group: source.ID, From: fromLog.id.String(), To: toLog.id.String()}
	held := time.Now()
	err := b.splitFrozen(ctx, m, t, index, source, target, &v)
	v.PauseMillis = float64(time.Since(held)) / float64(time.Millisecond)
	b.refresh(source.ID, to)
	b.log.Info("partition split off", "topic", topic, "partition", index, "from", source.ID, "to", to, "epoch", v.Epoch, "pause_ms", v.PauseMillis, "err", err)
	return v, err
}

// splitFrozen does the split: the source group goes on without the partition, the target group with it, both in the
// logs where they are.
func (b *Broker) splitFrozen(ctx context.Context, m *queuemapper.Map, t *queuemapper.Topic, index int32, source, target *queuemapper.Group, v *MoveView) error {
	src, err := b.freezeInPlace(ctx, m, source)
	if err != nil {
		return err
	}
	dst, err := b.freezeInPlace(ctx, m, target)
	if err != nil {
		return errors.Join(err, src.thaw())
	}
	v.Epoch = max(src.epoch(), dst.epoch()) + 1
	id := ident.Partition{Topic: t.ID, Index: index}
	isIt := func(p ident.PartitionState) bool { return p.Partition == id }
	going := slices.DeleteFunc(slices.Clone(src.state), func(p ident.PartitionState) bool { return !isIt(p) })
	staying := slices.DeleteFunc(slices.Clone(src.state), isIt)
	err = errors.Join(src.prepare(ctx, b, src.epoch()+1, staying), dst.prepare(ctx, b, v.Epoch, append(slices.Clone(dst.state), going...)))
	published := false
	if err == nil {
		err = b.store.SplitPartition(ctx, queuemapper.Split{Topic: t, Index: index, Source: src.pub, Target: dst.pub})
		published = err == nil
		if errors.Is(err, queuemapper.ErrUnknown) {
			published, err = b.settle(dst.pub, err)
		}
	}
	if !published {
		return errors.Join(err, src.thaw(), dst.thaw())
	}
	return errors.Join(b.handOver(ctx, src.log, src.log, src.old, src.pub), b.handOver(ctx, dst.log, dst.log, dst.old, dst.pub))
}

// frozenGroup is a group that takes nothing while its next generation is being made in the same log.
type frozenGroup struct {
	log   *hostedLog
	old   ident.Generation
	state []ident.PartitionState
	pub   queuemapper.Publication
}

func (b *Broker) freezeInPlace(ctx context.Context, m *queuemapper.Map, g *queuemapper.Group) (frozenGroup, error) {
	f := frozenGroup{log: b.openLog(g), old: generationOf(g.ID, *g.Current())}
	states, err := f.log.log.Freeze(ctx, g.ID)
	if err != nil {
		return f, errors.Join(err, f.thaw())
	}
	f.state = states[g.ID]
	rec := m.Log(f.log.id)
	f.pub = queuemapper.Publication{Group: g, Source: rec, Target: rec, Ends: endsOf(f.state)}
	return f, nil
}

func (f *frozenGroup) epoch() ident.Epoch { return f.old.Epoch }

func (f *frozenGroup) thaw() error { return f.log.log.Thaw(f.old.Group) }

// prepare writes the opening frame of the next generation.
func (f *frozenGroup) prepare(ctx context.Context, b *Broker, epoch ident.Epoch, state []ident.PartitionState) error {
	sortState(state)
	f.pub.Ceiling = b.reserves.ceiling(f.old.Group, topOf(state))
	frames, err := f.log.log.Prepare(ctx, []commitlog.Opening{{Group: f.old.Group, Epoch: epoch, State: state, Ceiling: f.pub.Ceiling}})
	if err != nil {
		return fmt.Errorf("prepare: %w", err)
	}
	f.pub.Epoch, f.pub.Frame = epoch, frames[0]
	return nil
}

// openLog is the log of this broker in which the group's open generation lives, nil if it lives elsewhere.
func (b *Broker) openLog(g *queuemapper.Group) *hostedLog {
	if g == nil || g.Current() == nil {
		return nil
	}
	return b.hosted[g.Current().Log]
}

// endsOf is the part of a frozen group's state that seals its generation.
func endsOf(state []ident.PartitionState) map[ident.Partition]ident.Offset {
	ends := make(map[ident.Partition]ident.Offset, len(state))
	for _, p := range state {
		if p.End > 0 {
			ends[p.Partition] = p.End
		}
	}
	return ends
}

// generationOf names a generation record of the map.
func generationOf(group ident.Group, g queuemapper.Generation) ident.Generation {
	return ident.Generation{Group: group, Epoch: g.Epoch, Frame: g.Frame}
}
