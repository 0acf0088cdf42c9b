package host

import (
	"context"
	"maps"

	"github.com/skeinmq/skein/commitlog"
	"github.com/skeinmq/skein/internal/ident"
	"github.com/skeinmq/skein/queuemapper"
)

// What follows is wrong on purpose and runs only when a plant is on; see plant_on.go.

// serveFirst takes a log into service at whatever its record was last seen to be.
func (h *Host) serveFirst(ctx context.Context, s Source, rec *queuemapper.Log) (*queuemapper.Log, error) {
	found := s.Log.Recovered()
	if err := s.Log.Begin(ctx, found.Epoch+1, namedGenerations(h.store.Map(), found.ID)); err != nil {
		return nil, err
	}
	logs := maps.Clone(h.Logs())
	logs[found.ID] = &Hosted{ID: found.ID, Log: s.Log, Epoch: rec.Epoch}
	h.logs.Store(&logs)
	return rec, nil
}

// keepEnds makes sealed runs end where the disk ends.
func keepEnds(named []commitlog.MapGeneration, found commitlog.Recovered) {
	for i := range named {
		if named[i].Open {
			continue
		}
		for _, g := range found.Generations {
			if g.Generation != named[i].Generation {
				continue
			}
			ends := make(map[ident.Partition]ident.Offset, len(g.Partitions))
			for _, p := range g.Partitions {
				ends[p.Partition] = p.End
			}
			named[i].Ends = ends
		}
	}
}
