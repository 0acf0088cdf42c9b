package failover

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/skeinmq/skein/internal/ident"
	"github.com/skeinmq/skein/queuemapper"
)

// Session is what the active controller knows about a broker.
type Session struct {
	Standing Standing
	// Incarnation that the standing is about. A registration of a newer one in the map means that the broker is back.
	Incarnation int64
	// Since is when it got this standing.
	Since time.Time
}

// Sessions are the brokers' sessions at the active controller (package session). A new controller knows nothing
// about a broker until it hears from it or gives it up: it must give up hosts of logs in the map that it never hears from.
type Sessions interface {
	Session(ident.Broker) Session
	// Changed is closed when any session differs from what it was when Changed was called.
	Changed() <-chan struct{}
}

// Loop is what the active controller does for logs.
type Loop struct {
	Failover *Failover
	Sessions Sessions
	Self     ident.Broker
	// Retry is how long a log that could not be failed over rests, unless a session changes; default 1 s.
	Retry time.Duration
}

// errDeposed: a newer controller is in the map.
var errDeposed = errors.New("a newer controller is active")

// attempt is one failover under way, or what became of the last one of a log.
type attempt struct {
	running bool
	after   time.Time // not again before
	changed bool      // a session changed since it began
	outcome Outcome
}

// Run acts until ctx ends, which it does when this broker no longer leads, or a controller of a newer term is in the
// map. It returns when no failover is under way any more; only a newer controller is an error.
func (l *Loop) Run(ctx context.Context, term int64) error {
	if l.Retry == 0 {
		l.Retry = time.Second
	}
	f := l.Failover
	f.metrics.active.Set(1)
	defer f.metrics.active.Set(0)
	defer f.metrics.waiting.Set(0)
	ctx, cancel := context.WithCancel(ctx)
	ends := make(chan Report)
	running := 0
	defer func() {
		cancel()
		for ; running > 0; running-- {
			<-ends
		}
	}()
	claimed := make(chan error, 1)
	go func() { claimed <- l.claim(ctx, term) }()
	defer func() {
		cancel()
		if claimed != nil {
			<-claimed
		}
	}()
	attempts := make(map[ident.Log]*attempt)
	tick := time.NewTimer(0)
	defer tick.Stop()
	for {
		changed := l.Sessions.Changed()
		m := f.store.Map()
		if c := m.Controller(); c.Term > term { // O14
			return fmt.Errorf("%w: broker %d in term %d", errDeposed, c.Broker, c.Term)
		}
		if logs := l.due(m, attempts); len(logs) > 0 {
			running++
			go func() {
				r := f.FailOver(ctx, logs...)
				l.retire(ctx, &r)
				ends <- r
			}()
		}
		tick.Reset(l.Retry)
		select {
		case <-changed:
			for _, a := range attempts {
				a.after, a.changed = time.Time{}, true
			}
		case <-f.store.Watch(m):
		case r := <-ends:
			running--
			l.note(&r, attempts)
		case err := <-claimed:
			claimed = nil
			if errors.Is(err, queuemapper.ErrConflict) {
				return fmt.Errorf("%w: %w", errDeposed, err)
			}
		case <-tick.C:
		case <-ctx.Done():
			return nil
		}
	}
}

// claim writes the term down. It is a help for others, and nothing waits for it.
func (l *Loop) claim(ctx context.Context, term int64) error {
	for {
		err := l.Failover.store.ClaimController(ctx, queuemapper.Controller{Term: term, Broker: l.Self})
		if err == nil || errors.Is(err, queuemapper.ErrConflict) || ctx.Err() != nil {
			return err
		}
		if err := l.Failover.cfg.Pause(ctx, time.Second); err != nil {
			return err
		}
	}
}

// due lists the logs that must be failed over now, and marks them as under way: those whose host is given up, and those that
// are sealed and still have groups, whoever left them so.
func (l *Loop) due(m *queuemapper.Map, attempts map[ident.Log]*attempt) []ident.Log {
	now := l.Failover.cfg.Now()
	occupied := make(map[ident.Log]bool)
	for g := range m.Groups() {
		if cur := g.Current(); cur != nil {
			occupied[cur.Log] = true
		}
	}
	var out []ident.Log
	for rec := range m.Logs() {
		a := attempts[rec.ID]
		want := rec.State == queuemapper.LogSealed && occupied[rec.ID] || rec.State == queuemapper.LogOpen && l.givenUp(m, rec)
		switch {
		case a != nil && a.running:
		case !want:
			delete(attempts, rec.ID)
		case a != nil && now.Before(a.after):
		default:
			if a == nil {
				a = &attempt{}
				attempts[rec.ID] = a
			}
			a.running, a.changed = true, false
			out = append(out, rec.ID)
		}
	}
	l.countWaiting(attempts)
	return out
}

// givenUp says whether the host of a log is dead or gives its groups up, and has not come back since: one that has is known
// by its registration, or by the log, which it opens before it registers.
func (l *Loop) givenUp(m *queuemapper.Map, rec *queuemapper.Log) bool {
	s := l.Sessions.Session(rec.Host)
	if s.Standing != Dead && s.Standing != Leaving {
		return false
	}
	b := m.Broker(rec.Host)
	return rec.Incarnation <= s.Incarnation && (b == nil || b.Incarnation <= s.Incarnation)
}

func (l *Loop) countWaiting(attempts map[ident.Log]*attempt) {
	n := 0
	for _, a := range attempts {
		if a.outcome == Waits {
			n++
		}
	}
	l.Failover.metrics.waiting.Set(float64(n))
}

// note takes the results of a failover down.
func (l *Loop) note(r *Report, attempts map[ident.Log]*attempt) {
	now := l.Failover.cfg.Now()
	for _, res := range r.Results {
		a := attempts[res.Log]
		a.running, a.outcome = false, res.Outcome
		if res.Outcome != Done && !a.changed {
			a.after = now.Add(l.Retry)
		}
	}
}

// retire deletes the registrations of dead brokers whose logs are all done.
func (l *Loop) retire(ctx context.Context, r *Report) {
	hosts := make(map[ident.Broker]bool)
	for _, res := range r.Results {
		if res.Outcome == Done {
			hosts[res.Host] = true
		}
	}
	m := l.Failover.store.Map()
	for host := range hosts {
		s := l.Sessions.Session(host)
		b := m.Broker(host)
		if s.Standing != Dead || b == nil || b.Incarnation > s.Incarnation || l.busy(m, host) {
			continue
		}
		if err := l.Failover.store.RemoveBroker(ctx, host, s.Incarnation); err != nil && !errors.Is(err, queuemapper.ErrConflict) {
			l.Failover.log.Warn("remove a dead broker's registration", "broker", host, "error", err)
		}
	}
}

// busy says whether a broker hosts a log that is open.
func (l *Loop) busy(m *queuemapper.Map, host ident.Broker) bool {
	for rec := range m.Logs() {
		if rec.Host == host && rec.State == queuemapper.LogOpen {
			return true
		}
	}
	return false
}
