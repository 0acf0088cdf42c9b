package failover

import (
	"context"
	"fmt"

	"github.com/skeinmq/skein/internal/ident"
	"github.com/skeinmq/skein/queuemapper"
)

// Watchful gives up what it asks of a broker as soon as the broker is given up: two brokers that die together cost no
// timeout. It is for the real network; a simulation ends calls itself.
type Watchful struct {
	Members  Members
	Targets  Targets
	Sessions Sessions
}

// Seal implements failover's Members.
func (w Watchful) Seal(ctx context.Context, member queuemapper.Witness, log ident.Log, epoch ident.LogEpoch) (Table, error) {
	ctx, stop := w.watch(ctx, member.Broker)
	defer stop()
	return w.Members.Seal(ctx, member, log, epoch)
}

// Prepare implements failover's Targets.
func (w Watchful) Prepare(ctx context.Context, broker ident.Broker, log ident.Log, epoch ident.LogEpoch, openings []Opening) ([]ident.Frame, error) {
	ctx, stop := w.watch(ctx, broker)
	defer stop()
	return w.Targets.Prepare(ctx, broker, log, epoch, openings)
}

// watch returns a context that ends when the broker is dead.
func (w Watchful) watch(ctx context.Context, b ident.Broker) (context.Context, func()) {
	ctx, cancel := context.WithCancelCause(ctx)
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			changed := w.Sessions.Changed()
			if w.Sessions.Session(b).Standing == Dead {
				cancel(fmt.Errorf("broker %d is dead", b))
				return
			}
			select {
			case <-changed:
			case <-ctx.Done():
				return
			}
		}
	}()
	return ctx, func() { cancel(nil); <-done }
}
