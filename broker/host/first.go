package host

import (
	"context"
	"errors"
	"fmt"

	"github.com/skeinmq/skein/commitlog"
	"github.com/skeinmq/skein/internal/ident"
	"github.com/skeinmq/skein/queuemapper"
)

// openNewGroups opens the first generation of every group that has none, spread evenly over the logs: prepared on the
// disk, published in the map, then activated. Brokers that start together may both try; one wins each group.
func (h *Host) openNewGroups(ctx context.Context, logs []*queuemapper.Log) error {
	perLog := make([][]nextGeneration, len(logs))
	n := 0
	for g := range h.store.Map().Groups() {
		if len(g.Generations) == 0 {
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
