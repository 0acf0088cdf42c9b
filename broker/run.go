package broker

import (
	"context"
	"errors"
	"fmt"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/skeinmq/skein/broker/host"
	"github.com/skeinmq/skein/queuemapper"
)

// Run takes the broker's logs into service (O15), registers it, serves until ctx ends, then goes in order: it moves its
// groups to other brokers, if there are any, while it still answers; takes its registration away; stops taking
// connections and requests, lets what is in flight commit, and returns. ErrFenced: see there. Another error is final:
// the controller was told, if it could be, that the groups are to be opened elsewhere.
func (b *Broker) Run(ctx context.Context) error {
	defer b.reassigns.work.Wait()
	defer b.given.Wait()
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
	b.full.Store(fullNow(false, b.DiskUsed()))
	if err := b.register(ctx); err != nil {
		return fmt.Errorf("run broker: %w", err)
	}
	if b.full.Load() {
		b.sayFull(b.DiskUsed())
	}
	serve, stopServing := context.WithCancel(context.WithoutCancel(ctx))
	defer stopServing()
	g, gctx := errgroup.WithContext(serve)
	// The background work outlives the connections: requests that drain may need it.
	work, stop := context.WithCancel(context.WithoutCancel(ctx))
	defer stop()
	for _, loop := range []func(context.Context) error{b.followMap, b.keepRetention, b.dropDeleted, b.keepDrained, b.keepFull, b.keepReassigned} {
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
	g.Go(func() error {
		select {
		case <-ctx.Done():
			b.leave(gctx)
			stopServing()
		case <-gctx.Done():
		}
		return nil
	})
	close(b.ready)
	err := g.Wait()
	if err == nil || errors.Is(err, context.Canceled) {
		return nil
	}
	if !errors.Is(err, ErrFenced) {
		b.giveUp()
	}
	return fmt.Errorf("run broker: %w", err)
}

// register writes what the map says of this broker. It is called by one goroutine at a time.
func (b *Broker) register(ctx context.Context) error {
	roles := []string{"broker", "controller"}
	if b.full.Load() {
		roles = append(roles, queuemapper.RoleFull)
	}
	if b.leaving.Load() {
		roles = append(roles, queuemapper.RoleDraining)
	}
	return b.store.RegisterBroker(ctx, queuemapper.Broker{
		ID: b.cfg.ID, Incarnation: b.cfg.Incarnation, Host: b.cfg.Host, Port: b.cfg.Port, Internal: b.cfg.Internal, Rack: b.cfg.Rack, Roles: roles,
	})
}

const (
	// leaveTime bounds how long a broker that ends moves its groups away; what is left then is failed over.
	leaveTime = 30 * time.Second
	// signTime bounds a write of the map that only makes an end smoother.
	signTime = 2 * time.Second
	// togetherTime is how long a broker that ends looks whether the others end as well: what would move then comes back.
	togetherTime = 100 * time.Millisecond
	// quorumTime is how long the map may be silent, which is asked every askEvery, before a broker that ends leaves its groups
	// behind. An election takes a second or two.
	askEvery   = 500 * time.Millisecond
	quorumTime = 2500 * time.Millisecond
)

// leave moves everything away before this broker ends, as long as there is somebody else.
func (b *Broker) leave(ctx context.Context) {
	b.leaving.Store(true)
	b.changedReport()
	if !b.host.HasTargets(b.store.Map()) {
		return
	}
	sign, cancel := context.WithTimeout(ctx, signTime)
	defer cancel()
	b.signing.Lock()
	err := b.register(sign)
	b.signing.Unlock()
	if err != nil {
		b.log.Warn("tell others that this broker ends", "err", err)
		return // nor could a move be published
	}
	select {
	case <-time.After(togetherTime):
	case <-ctx.Done():
	}
	if !b.host.HasTargets(b.store.Map()) {
		b.log.Info("all brokers end: groups stay where they are")
		return
	}
	begun := time.Now()
	dctx, cancel := context.WithTimeout(ctx, leaveTime)
	defer cancel()
	owned := b.host.Owns(b.store.Map())
	switch err := b.drain(dctx); {
	case err == nil:
		b.log.Info("groups moved away", "groups", owned, "took", time.Since(begun))
	case errors.Is(err, queuemapper.ErrUnavailable):
		b.log.Warn("groups are left behind", "err", err)
		return // nor could anybody take them over, or see that the registration is gone
	case !errors.Is(err, host.ErrNoTarget) && ctx.Err() == nil:
		b.log.Warn("groups are left behind", "err", err)
		b.giveUp()
	}
	sign, cancel = context.WithTimeout(ctx, signTime)
	defer cancel()
	if err := b.store.UnregisterBroker(sign); err != nil {
		b.log.Warn("take the registration away", "err", err)
	}
}

// drain moves all groups away, until ctx ends, or until the map has no quorum: nothing can be moved then, and a move whose
// answer was lost may wait for it as long as this broker lives.
func (b *Broker) drain(ctx context.Context) error {
	done := make(chan error, 1)
	b.given.Go(func() { done <- b.host.Drain(ctx) })
	ask := time.NewTicker(askEvery)
	defer ask.Stop()
	for {
		select {
		case err := <-done:
			return err
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-ask.C:
			sign, cancel := context.WithTimeout(ctx, quorumTime)
			err := b.store.Ping(sign)
			cancel()
			if err != nil && ctx.Err() == nil {
				return err
			}
		}
	}
}

// giveUp tells the controller that this broker's groups are to be opened elsewhere at once (O19: a poisoned log cannot
// be drained).
func (b *Broker) giveUp() {
	if b.cfg.GiveUp == nil {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), signTime)
	defer cancel()
	if err := b.cfg.GiveUp(ctx); err != nil {
		b.log.Warn("tell the controller that this broker gives up", "err", err)
	}
}

// keepDrained moves the groups away while an operator's mark says so, until ctx ends.
func (b *Broker) keepDrained(ctx context.Context) error {
	for {
		m := b.store.Map()
		var again <-chan time.Time
		if m.Drained(b.cfg.ID) && b.host.Owns(m) > 0 && !b.leaving.Load() {
			err := b.host.Drain(ctx)
			if ctx.Err() != nil {
				return nil
			}
			if err != nil {
				b.log.Warn("this broker is drained, but groups are left on it", "err", err)
				again = time.After(time.Second)
			}
			m = b.store.Map()
		}
		next := b.store.Watch(m)
		if again != nil {
			next = nil // not at every change of the map
		}
		select {
		case <-next:
		case <-again:
		case <-ctx.Done():
			return nil
		}
	}
}

// Draining reports whether this broker wants no groups: it ends, or an operator drained it.
func (b *Broker) Draining() bool {
	return b.leaving.Load() || b.store.Map().Drained(b.cfg.ID)
}

// changedReport says that what this broker tells the controller about itself has changed.
func (b *Broker) changedReport() {
	if b.cfg.ReportChanged != nil {
		b.cfg.ReportChanged()
	}
}
