package broker

import (
	"context"
	"sync"
	"time"

	"github.com/skeinmq/skein/broker/host"
	"github.com/skeinmq/skein/internal/ident"
	"github.com/skeinmq/skein/queuemapper"
)

const (
	// peersPatience bounds how long the answer to a change waits for the other brokers to act on it.
	peersPatience = time.Second
	// openPatience bounds how long a request waits for a partition that is this broker's by the map, and not open as
	// yet: an activation takes a millisecond, and the client would be back sooner than it is needed.
	openPatience = 50 * time.Millisecond
)

// awaitPeers waits until the other live brokers act on a map of at least the revision, so that a client that goes on
// with any of them finds what it has just been told. One that cannot be reached is waited for like one that does not answer: a
// connection that is being made, or was lost, says nothing about who reaches that broker. What takes longer than peersPatience
// comes later.
func (b *Broker) awaitPeers(ctx context.Context, revision int64) {
	if b.cfg.Peers == nil || revision == 0 {
		return
	}
	patient, cancel := context.WithTimeout(ctx, max(peersPatience, b.cfg.Patience))
	defer cancel()
	peers := host.Peers{Conns: b.cfg.Peers}
	var calls sync.WaitGroup
	for r := range b.store.Map().Brokers() {
		if r.ID == b.cfg.ID {
			continue
		}
		calls.Go(func() {
			if err := peers.AwaitMap(patient, r.ID, revision); err != nil && ctx.Err() == nil {
				b.log.Warn("await the map at another broker", "broker", r.ID, "revision", revision, "error", err)
			}
		})
	}
	calls.Wait()
}

// ownedHere reports whether the map, or an older one that the table reflects, has this broker as the partition's owner.
func (b *Broker) ownedHere(m *queuemapper.Map, p *partition) bool {
	_, log, ok := m.Owner(p.topic.newest(), p.index)
	return ok && log != nil && log.Host == b.cfg.ID
}

// awaitOpen returns the partition's open run. If there is none though the partition is this broker's by the map, or if
// the client knows a newer epoch than we do, it waits for it until the deadline.
func (b *Broker) awaitOpen(ctx context.Context, p *partition, known ident.Epoch, deadline time.Time) *openRun {
	run := p.open.Load()
	if run != nil && known <= run.gen.Epoch || run == nil && known < 0 && !b.ownedHere(b.store.Map(), p) {
		return run
	}
	left := time.Until(deadline)
	if left <= 0 {
		return run
	}
	timer := time.NewTimer(left)
	defer timer.Stop()
	for {
		next := b.table.view.Load().next
		run = p.open.Load()
		if run != nil && known <= run.gen.Epoch {
			return run
		}
		select {
		case <-next:
		case <-timer.C:
			return p.open.Load()
		case <-ctx.Done():
			return run
		}
	}
}
