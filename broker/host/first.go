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

// openNewGroups opens the first generation of every group that has none, spread evenly over the logs: prepared on the
// disk, published in the map, then activated. Of brokers that form a cluster each opens its part, and what the others have
// not opened a while later; they may both try, one wins each group.
func (h *Host) openNewGroups(ctx context.Context, logs []*queuemapper.Log) error {
	if i := slices.Index(h.cfg.Founders, h.cfg.ID); i >= 0 && len(h.cfg.Founders) > 1 {
		turn := turns(h.store.Map(), len(h.cfg.Founders))
		part := func(g ident.Group) bool { return turn[g] == i }
		if err := h.openNew(ctx, logs, part); err != nil {
			return err
		}
		if err := h.awaitOpened(ctx); err != nil {
			return err
		}
	}
	return h.openNew(ctx, logs, func(ident.Group) bool { return true })
}

// turns says, by group, which of n founders opens its first generation. They take turns, at the groups that coordinators live in
// and at the others, so that coordinator partitions that follow one another have different brokers: consumer groups whose names
// differ in the last digit hash to such partitions.
func turns(m *queuemapper.Map, n int) []int {
	out := make([]int, m.Cluster().Groups)
	coordinators, others := 0, 0
	for g := range out {
		if m.Coordinators(ident.Group(g)) > 0 {
			out[g] = coordinators % n
			coordinators++
		} else {
			out[g] = n - 1 - others%n // the other way round: who has one more of those has one less of these
			others++
		}
	}
	return out
}

// awaitOpened waits until every group has a generation, but no longer than Config.FoundTime.
func (h *Host) awaitOpened(ctx context.Context) error {
	late := time.After(h.cfg.FoundTime)
	for m := h.store.Map(); ; m = h.store.Map() {
		opened := 0
		for g := range m.Groups() {
			if len(g.Generations) > 0 {
				opened++
			}
		}
		if opened == m.Cluster().Groups {
			return nil
		}
		select {
		case <-h.store.Watch(m):
		case <-late:
			return nil
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// openNew opens groups that have no generation.
func (h *Host) openNew(ctx context.Context, logs []*queuemapper.Log, part func(ident.Group) bool) error {
	perLog := make([][]nextGeneration, len(logs))
	n := 0
	for g := range h.store.Map().Groups() {
		if len(g.Generations) == 0 && part(g.ID) {
			ceiling := h.reserves.ceiling(g.ID, nil, nil)
			perLog[n%len(logs)] = append(perLog[n%len(logs)], nextGeneration{
				opening: commitlog.Opening{Group: g.ID, Ceiling: ceiling},
				pub:     queuemapper.Publication{Group: g, Ceiling: ceiling},
			})
			n++
		}
	}
	for i, list := range perLog {
		if err := h.openNext(ctx, logs[i], list); err != nil {
			return fmt.Errorf("open new groups on log %s: %w", logs[i].ID, err)
		}
	}
	return nil
}

// nextGeneration is a generation to be opened: its opening frame, and its publication but for target, epoch and frame.
type nextGeneration struct {
	opening commitlog.Opening
	pub     queuemapper.Publication
}

// openNext opens generations on one log here: prepared on the disk, published in the map, then activated.
func (h *Host) openNext(ctx context.Context, target *queuemapper.Log, list []nextGeneration) error {
	if len(list) == 0 {
		return nil
	}
	openings := make([]commitlog.Opening, len(list))
	for i := range list {
		openings[i] = list[i].opening
	}
	frames, err := h.Prepare(ctx, target.ID, target.Epoch, openings)
	if err != nil {
		return err
	}
	pubs := make([]queuemapper.Publication, len(list))
	for i := range list {
		pubs[i] = list[i].pub
		pubs[i].Target, pubs[i].Epoch, pubs[i].Frame = target, openings[i].Epoch, frames[i]
	}
	var named []ident.Generation
	for i, err := range h.store.Publish(ctx, pubs) {
		g, err := h.published(ctx, openings[i].Group, err)
		if err != nil {
			return err
		}
		if gen := g.Current(); gen != nil && gen.Log == target.ID && gen.Frame == frames[i] {
			named = append(named, generationOf(g.ID, gen))
		}
	}
	return h.Hosted(target.ID).Log.Activate(named)
}

// published settles one publication and returns the group as it is now. A lost answer is settled by a write (O18).
func (h *Host) published(ctx context.Context, id ident.Group, err error) (*queuemapper.Group, error) {
	switch {
	case err == nil, errors.Is(err, queuemapper.ErrConflict):
		return h.store.Map().Group(id), nil
	case errors.Is(err, queuemapper.ErrUnknown):
		return h.store.Touch(ctx, id)
	default:
		return nil, err
	}
}
