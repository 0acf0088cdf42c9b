package broker

import (
	"context"
	"errors"
	"fmt"

	"golang.org/x/sync/errgroup"

	"github.com/skeinmq/skein/queuemapper"
)

// Run takes the broker's logs into service (O15), registers it, serves until ctx ends, then drains: stops
// taking connections and requests, lets what is in flight commit, and returns.
func (b *Broker) Run(ctx context.Context) error {
	defer b.endLife()
	defer b.remote.Close()
	defer b.cfg.Listener.Close()
	if err := b.takeLogs(ctx); err != nil {
		return err
	}
	b.refresh()
	if err := b.learnStarts(ctx); err != nil {
		return fmt.Errorf("move log starts to where a log that is back has them: %w", err)
	}
	err := b.store.RegisterBroker(ctx, queuemapper.Broker{
		ID: b.cfg.ID, Incarnation: b.cfg.Incarnation, Host: b.cfg.Host, Port: b.cfg.Port, Internal: b.cfg.Internal, Rack: b.cfg.Rack,
		Roles: []string{"broker", "controller"},
	})
	if err != nil {
		return fmt.Errorf("run broker: %w", err)
	}
	g, gctx := errgroup.WithContext(ctx)
	// The background work outlives the connections: requests that drain may need it.
	work, stop := context.WithCancel(context.WithoutCancel(ctx))
	defer stop()
	for _, loop := range []func(context.Context) error{b.followMap, b.keepRetention, b.dropDeleted} {
		g.Go(func() error { return loop(work) })
	}
	for _, h := range b.hosted {
		g.Go(func() error { return b.keepCeilings(work, h) })
		g.Go(func() error { return b.watchLog(work, h) })
	}
	// Parked requests are answered as soon as the broker ends, or they would hold up its draining.
	g.Go(func() error { return b.groups.Run(gctx) })
	g.Go(func() error {
		defer stop()
		return b.server.serve(gctx)
	})
	close(b.ready)
	if err := g.Wait(); err != nil && !errors.Is(err, context.Canceled) {
		return fmt.Errorf("run broker: %w", err)
	}
	return nil
}
