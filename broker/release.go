package broker

import (
	"context"
	"errors"
	"sync"

	"github.com/skeinmq/skein/broker/runs"
	"github.com/skeinmq/skein/internal/ident"
)

// floorOlder tells the partition's older runs in our logs where the log start is.
func (b *Broker) floorOlder(p *partition, run *openRun) { b.releaseOlder(p, run, nil) }

// releaseOlder tells the partition's older runs where the log start is: those in our logs at once, the others through
// remote, which may be nil. They do not write it down, and are told again by and by.
func (b *Broker) releaseOlder(p *partition, run *openRun, remote func(ident.Broker, runs.Ref)) {
	start := run.queue.LogStart()
	if start == 0 || run.queue.Start() == 0 {
		return // nothing to release, or no older run
	}
	m := b.store.Map()
	for _, r := range m.Runs(p.topic.newest(), p.index) {
		if r.Open || r.Start >= start {
			continue
		}
		if host := b.hosted[r.Log]; host != nil {
			if q, ok := host.log.Sealed(r.Generation, p.id()); ok {
				q.Floor(min(start, r.End))
			}
			continue
		}
		if rec := m.Log(r.Log); rec != nil && rec.Host != b.cfg.ID && remote != nil {
			ref := refOf(p, r)
			ref.Start = min(start, r.End)
			remote(rec.Host, ref)
		}
	}
}

// releaseBatch is how many runs one broker is told of at a time.
const releaseBatch = 2048

// releases tells other brokers, many runs at a time, what of the runs in their logs is wanted no more. A log start is
// told only when it is committed (O4), as the queue shows it.
type releases struct {
	b   *Broker
	ctx context.Context

	mu   sync.Mutex
	refs map[ident.Broker][]runs.Ref
	deaf map[ident.Broker]bool // they did not answer
}

// add is called for each partition of this broker's, on any goroutine.
func (r *releases) add(p *partition, run *openRun) {
	r.b.releaseOlder(p, run, func(at ident.Broker, ref runs.Ref) {
		r.mu.Lock()
		defer r.mu.Unlock()
		if r.deaf[at] {
			return
		}
		if r.refs == nil {
			r.refs = make(map[ident.Broker][]runs.Ref)
		}
		r.refs[at] = append(r.refs[at], ref)
		if len(r.refs[at]) >= releaseBatch {
			r.send(at)
		}
	})
}

// send tells one broker. The caller holds mu, so that what waits stays bounded.
func (r *releases) send(at ident.Broker) {
	refs := r.refs[at]
	r.refs[at] = refs[:0]
	if err := r.b.remote.Release(r.ctx, at, refs); err != nil {
		if r.deaf == nil {
			r.deaf = make(map[ident.Broker]bool)
		}
		r.deaf[at] = true
		if r.ctx.Err() == nil && !errors.Is(err, runs.ErrAway) {
			r.b.log.Warn("release runs in another broker's log", "broker", at, "error", err)
		}
	}
}

// end tells the rest, and returns those that could not be told.
func (r *releases) end() map[ident.Broker]bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	for at, refs := range r.refs {
		if len(refs) > 0 && !r.deaf[at] {
			r.send(at)
		}
	}
	return r.deaf
}
