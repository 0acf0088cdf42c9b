package host

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/skeinmq/skein/commitlog"
	"github.com/skeinmq/skein/internal/ident"
	"github.com/skeinmq/skein/queuemapper"
)

// Split gives one partition another group from its end on (O20). Both groups are frozen and go on to a next generation
// in one transaction, so that an append to the old one is refused wherever it comes from. Both must be open in logs of
// this broker: a group that is elsewhere is moved here first.
func (h *Host) Split(ctx context.Context, topic string, index int32, to ident.Group) (Moved, error) {
	m := h.store.Map()
	t := m.Topic(topic)
	if t == nil || index < 0 || int(index) >= len(t.Partitions) {
		return Moved{}, fmt.Errorf("split %s:%d: no such partition", topic, index)
	}
	stays := t.Partitions[index]
	source, target := m.Group(stays[len(stays)-1].Group), m.Group(to)
	fromLog, toLog := h.OpenIn(source), h.OpenIn(target)
	switch {
	case target == nil:
		return Moved{}, fmt.Errorf("split %s:%d: there are groups 0 to %d", topic, index, m.Cluster().Groups-1)
	case source.ID == to:
		return Moved{}, fmt.Errorf("split %s:%d: it lives in group %d already", topic, index, to)
	case fromLog == nil || toLog == nil:
		return Moved{}, fmt.Errorf("split %s:%d: groups %d and %d must both be open in logs of this broker: move one here first", topic, index, source.ID, to)
	}
	mine := h.claim(source.ID, to)
	defer h.cfg.Changed(source.ID, to)
	defer h.release(mine...)
	if len(mine) < 2 {
		return Moved{}, fmt.Errorf("split %s:%d: %w", topic, index, ErrBusy)
	}
	v := Moved{Group: source.ID, From: fromLog.ID, To: toLog.ID}
	held := h.cfg.Now()
	err := h.splitFrozen(ctx, split{topic: t, index: index, source: source, target: target}, &v)
	v.Pause = h.cfg.Now().Sub(held)
	h.log.Info("partition split off", "topic", topic, "partition", index, "from", source.ID, "to", to, "epoch", v.Epoch,
		"pause_ms", float64(v.Pause)/float64(time.Millisecond), "err", err)
	return v, err
}

// split is what a Split is about.
type split struct {
	topic          *queuemapper.Topic
	index          int32
	source, target *queuemapper.Group
}

// splitFrozen does the split: the source group goes on without the partition, the target group with it, both in the
// logs where they are.
func (h *Host) splitFrozen(ctx context.Context, sp split, v *Moved) error {
	m := h.store.Map()
	src, err := h.freezeInPlace(ctx, m, m.Group(sp.source.ID))
	if err != nil {
		return err
	}
	dst, err := h.freezeInPlace(ctx, m, m.Group(sp.target.ID))
	if err != nil {
		return errors.Join(err, src.thaw())
	}
	v.Epoch = max(src.epoch(), dst.epoch()) + 1
	id := ident.Partition{Topic: sp.topic.ID, Index: sp.index}
	isIt := func(p ident.PartitionState) bool { return p.Partition == id }
	going := slices.DeleteFunc(slices.Clone(src.state), func(p ident.PartitionState) bool { return !isIt(p) })
	staying := slices.DeleteFunc(slices.Clone(src.state), isIt)
	err = errors.Join(src.prepare(ctx, h, src.epoch()+1, staying), dst.prepare(ctx, h, v.Epoch, append(slices.Clone(dst.state), going...)))
	if err == nil {
		err = h.store.SplitPartition(ctx, queuemapper.Split{Topic: sp.topic, Index: sp.index, Source: src.pub, Target: dst.pub})
		if errors.Is(err, queuemapper.ErrUnknown) {
			err = h.settle(&dst.pub, err)
		}
	}
	if err != nil {
		return errors.Join(err, h.unfreeze(ctx, &src, err), h.unfreeze(ctx, &dst, err))
	}
	h.cfg.Changed(sp.source.ID, sp.target.ID)
	return errors.Join(src.seal(ctx, h), dst.seal(ctx, h))
}

// frozenGroup is a group that takes nothing while its next generation is being made in the same log.
type frozenGroup struct {
	log   *Hosted
	old   ident.Generation
	state []ident.PartitionState
	pub   queuemapper.Publication
}

func (h *Host) freezeInPlace(ctx context.Context, m *queuemapper.Map, g *queuemapper.Group) (frozenGroup, error) {
	log := h.OpenIn(g)
	if log == nil {
		return frozenGroup{}, fmt.Errorf("group %d: %w", g.ID, ErrNotHosted)
	}
	f := frozenGroup{log: log, old: generationOf(g.ID, g.Current())}
	states, err := log.freeze(ctx, h.cfg.Patience, g.ID)
	if err != nil {
		return f, errors.Join(err, f.thaw())
	}
	f.state = states[g.ID]
	rec := m.Log(log.ID)
	f.pub = queuemapper.Publication{Group: g, Source: rec, Target: rec, Ends: queuemapper.EndsOf(f.state)}
	return f, nil
}

func (f *frozenGroup) epoch() ident.Epoch { return f.old.Epoch }

func (f *frozenGroup) thaw() error { return f.log.Log.Thaw(f.old.Group) }

func (f *frozenGroup) seal(ctx context.Context, h *Host) error {
	return h.cut(ctx, f.log, commitlog.MapGeneration{Generation: f.old, Ends: f.pub.Ends})
}

// prepare writes the opening frame of the next generation.
func (f *frozenGroup) prepare(ctx context.Context, h *Host, epoch ident.Epoch, state []ident.PartitionState) error {
	sortState(state)
	f.pub.Ceiling = h.reserves.ceiling(f.old.Group, f.pub.Group.Current(), state)
	frames, err := f.log.Log.Prepare(ctx, []commitlog.Opening{{Group: f.old.Group, Epoch: epoch, State: state, Ceiling: f.pub.Ceiling}})
	if err != nil {
		return fmt.Errorf("prepare: %w", err)
	}
	f.pub.Epoch, f.pub.Frame = epoch, frames[0]
	return nil
}

// unfreeze ends the freeze of a group that was not split: it goes on where the map says that it does.
func (h *Host) unfreeze(ctx context.Context, f *frozenGroup, cause error) error {
	if errors.Is(cause, errUnsettled) {
		return nil
	}
	ends, over := h.over(f.old, f.pub.Ends)
	if !over {
		return f.thaw()
	}
	f.pub.Ends = ends
	return f.seal(ctx, h)
}
