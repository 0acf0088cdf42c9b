package broker

import (
	"context"
	"errors"
	"fmt"

	"github.com/skeinmq/skein/commitlog"
	"github.com/skeinmq/skein/internal/ident"
	"github.com/skeinmq/skein/queuemapper"
)

// takeLogs takes the broker's logs into service: each is reopened in the map and begun with what the map names (O15).
// Then groups that never had a generation get their first one.
func (b *Broker) takeLogs(ctx context.Context) error {
	records := make([]*queuemapper.Log, len(b.cfg.Logs))
	for i, l := range b.cfg.Logs {
		rec, err := b.takeLog(ctx, l)
		if err != nil {
			return err
		}
		records[i] = rec
	}
	if err := b.passAbsent(ctx, records); err != nil {
		return err
	}
	return b.openNewGroups(ctx, records)
}

// takeLog reopens one log.
func (b *Broker) takeLog(ctx context.Context, l *commitlog.Log) (*queuemapper.Log, error) {
	found := l.Recovered()
	rec, err := b.store.ReopenLog(ctx, found.ID, b.cfg.ID, found.Epoch, nil)
	if err != nil {
		return nil, fmt.Errorf("take log %s into service: %w", found.ID, err)
	}
	// The map is read after the reopening: from here on no one else can seal or open a generation in this log.
	if err := l.Begin(ctx, rec.Epoch, namedGenerations(b.store.Map(), found.ID)); err != nil {
		return nil, fmt.Errorf("take log %s into service: %w", found.ID, err)
	}
	if rec, err = b.store.BeganLog(ctx, rec); err != nil {
		return nil, fmt.Errorf("take log %s into service: %w", found.ID, err)
	}
	b.hosted[found.ID] = &hostedLog{id: found.ID, log: l, epoch: rec.Epoch}
	return rec, nil
}

// namedGenerations lists the generations that the map names for a log.
func namedGenerations(m *queuemapper.Map, id ident.Log) []commitlog.MapGeneration {
	var named []commitlog.MapGeneration
	for g := range m.Groups() {
		for i := range g.Generations {
			gen := &g.Generations[i]
			if gen.Log != id {
				continue
			}
			named = append(named, commitlog.MapGeneration{
				Generation: ident.Generation{Group: g.ID, Epoch: gen.Epoch, Frame: gen.Frame},
				Open:       !gen.Sealed,
				Ceiling:    gen.Ceiling,
				Ends:       gen.Ends,
				Gap:        gen.Gap,
			})
		}
	}
	return named
}

// openNewGroups opens the first generation of every group that has none, spread evenly over the logs: prepared on the
// disk, published in the map, then activated. Brokers that start together may both try; one wins each group.
func (b *Broker) openNewGroups(ctx context.Context, logs []*queuemapper.Log) error {
	perLog := make([][]nextGeneration, len(logs))
	n := 0
	for g := range b.store.Map().Groups() {
		if len(g.Generations) == 0 {
			ceiling := b.reserves.ceiling(g.ID, 0)
			perLog[n%len(logs)] = append(perLog[n%len(logs)], nextGeneration{
				opening: commitlog.Opening{Group: g.ID, Ceiling: ceiling},
				pub:     queuemapper.Publication{Group: g, Ceiling: ceiling},
			})
			n++
		}
	}
	for i, list := range perLog {
		if err := b.openNext(ctx, logs[i], list); err != nil {
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

// openNext opens generations on one log: prepared on the disk, published in the map, then activated.
func (b *Broker) openNext(ctx context.Context, target *queuemapper.Log, list []nextGeneration) error {
	if len(list) == 0 {
		return nil
	}
	l := b.hosted[target.ID].log
	openings := make([]commitlog.Opening, len(list))
	for i := range list {
		openings[i] = list[i].opening
	}
	frames, err := l.Prepare(ctx, openings)
	if err != nil {
		return err
	}
	pubs := make([]queuemapper.Publication, len(list))
	for i := range list {
		pubs[i] = list[i].pub
		pubs[i].Target, pubs[i].Epoch, pubs[i].Frame = target, openings[i].Epoch, frames[i]
	}
	var named []ident.Generation
	for i, err := range b.store.Publish(ctx, pubs) {
		g, err := b.published(ctx, openings[i].Group, err)
		if err != nil {
			return err
		}
		if gen := g.Current(); gen != nil && gen.Log == target.ID && gen.Frame == frames[i] {
			named = append(named, ident.Generation{Group: g.ID, Epoch: gen.Epoch, Frame: gen.Frame})
		}
	}
	return l.Activate(named)
}

// published settles one publication and returns the group as it is now. A lost answer is settled by a write (O18).
func (b *Broker) published(ctx context.Context, id ident.Group, err error) (*queuemapper.Group, error) {
	switch {
	case err == nil, errors.Is(err, queuemapper.ErrConflict):
		return b.store.Map().Group(id), nil
	case errors.Is(err, queuemapper.ErrUnknown):
		return b.store.Touch(ctx, id)
	default:
		return nil, err
	}
}
