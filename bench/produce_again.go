package bench

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
)

// resender gets acknowledged what a load's connections cannot: what a broker has refused for now, and what another broker leads since.
// The connections' own requests go past it. A request keeps its slot until it is acknowledged, so what waits here is bounded.
type resender struct {
	ctx      context.Context
	fail     context.CancelCauseFunc // ends the load
	patience time.Duration
	batch    []byte
	router   *router // nil without patience
	wg       sync.WaitGroup
	refused  atomic.Int64
}

func (a *resender) init(ctx context.Context, fail context.CancelCauseFunc, addr string, load ProduceLoad, batch []byte) {
	a.ctx, a.fail, a.patience, a.batch = ctx, fail, load.Patience, batch
	if a.patience > 0 {
		a.router = newRouter([]string{addr}, load.Topics)
	}
}

func (a *resender) close() {
	if a.router != nil {
		a.router.close()
	}
}

// passing are refusals that end by themselves. A topic that the load's own broker does not know is not among them: it is not there.
var passing = []RefusedError{
	RefusedError(kerr.LeaderNotAvailable.Code), RefusedError(kerr.NotLeaderForPartition.Code), RefusedError(kerr.RequestTimedOut.Code),
	RefusedError(kerr.NotEnoughReplicas.Code), RefusedError(kerr.NotEnoughReplicasAfterAppend.Code), RefusedError(kerr.KafkaStorageError.Code),
}

// may reports whether what got a refusal is sent again.
func (a *resender) may(code RefusedError) bool {
	return a.router != nil && slices.Contains(passing, code)
}

// send gets a request acknowledged by those of its partitions that are listed, wherever they are led, and then frees its slot.
func (a *resender) send(r *produceRun, s sent, list []int, c *conn, slots chan<- struct{}) {
	a.wg.Go(func() {
		ctx, cancel := context.WithTimeout(a.ctx, a.patience)
		defer cancel()
		refused, err := a.router.write(ctx, list, a.batch)
		if err != nil {
			err = fmt.Errorf("not acknowledged by a leader within %v: %w", a.patience, err)
			if s.refused != 0 {
				err = fmt.Errorf("%w, then %w", s.refused, err)
			}
			a.fail(err)
			return
		}
		if s.refused != 0 || refused > 0 {
			a.refused.Add(1)
		}
		s.pt.away.Store(!a.router.leadsAll(c.RemoteAddr().String(), s.pt.list))
		r.mu.Lock()
		r.acked(s, r.hist)
		r.mu.Unlock()
		slots <- struct{}{}
	})
}

// leadsAll reports whether the broker at the other end of a connection leads all the listed partitions. It is known by its address on the
// network: names of one broker differ.
func (r *router) leadsAll(remote string, list []int) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	at := map[string]bool{}
	for lane, l := range r.links {
		if l.c.RemoteAddr().String() == remote {
			at[lane.addr] = true
		}
	}
	return !slices.ContainsFunc(list, func(i int) bool { return !at[r.leaders[i]] })
}
