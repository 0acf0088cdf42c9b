package balance

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/skeinmq/skein/controller/failover"
	"github.com/skeinmq/skein/internal/ident"
	"github.com/skeinmq/skein/queuemapper"
)

// Owners are the brokers that own groups.
type Owners interface {
	// Move asks an owner to move groups of its to another log by planned moves (O18), and returns what became of each. A
	// group that is not in the answer did not move.
	Move(ctx context.Context, owner ident.Broker, groups []ident.Group, to ident.Log) (map[ident.Group]error, error)
	// Hottest asks an owner which partitions of a group of its make most of what goes into it. It takes about a second.
	Hottest(ctx context.Context, owner ident.Broker, group ident.Group) ([]HotPartition, error)
	// Split asks an owner to give one partition another of its groups (O20).
	Split(ctx context.Context, owner ident.Broker, topic string, partition int32, to ident.Group) error
}

// ConfigEnabled is the broker config that switches the balancer off.
const ConfigEnabled = "skein.balancer.enabled"

// Config configures a Loop.
type Config struct {
	Store    *queuemapper.Store
	Sessions failover.Sessions
	Owners   Owners
	Limits   Limits
	// Enabled reads the switch, ConfigEnabled, in a map; nil: it is on.
	Enabled func(*queuemapper.Map) bool
	// Every is how often a plan is made when nothing happens, default 1 s; Soon is how long after something happened,
	// default 200 ms.
	Every, Soon time.Duration

	Logger     *slog.Logger
	Registerer prometheus.Registerer
}

// Loop plans and asks owners to move, while this broker is the active controller. What it knows of loads lives as
// long as it: the other methods may be called at any time.
type Loop struct {
	cfg     Config
	log     *slog.Logger
	metrics *metrics
	began   *queuemapper.Map

	mu      sync.Mutex
	planner *Planner  // nil: this broker is not the active controller
	before  *Planner  // of the reign before
	ended   time.Time // that reign
	loads   Smoother
	resting map[ident.Group]time.Time // groups whose move failed, and until when they are left alone
	disks   map[ident.Broker]float64  // how full each is
	samples map[ident.Group]sample    // what owners said
	history history
	recent  []Done
}

// Done is a move that was done, or failed. A split is one of the cause CauseSplit, of the group that got the partition.
type Done struct {
	Move
	At    time.Time
	Error string // "": it moved
}

// ErrNotActive: this broker is not the active controller.
var ErrNotActive = errors.New("not the active controller")

// NewLoop makes a loop.
func NewLoop(cfg Config) *Loop {
	if cfg.Every == 0 {
		cfg.Every = time.Second
	}
	if cfg.Soon == 0 {
		cfg.Soon = 200 * time.Millisecond
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.Default()
	}
	return &Loop{
		cfg: cfg, log: cfg.Logger, metrics: newMetrics(cfg.Registerer), resting: make(map[ident.Group]time.Time),
		disks: make(map[ident.Broker]float64), samples: make(map[ident.Group]sample),
		history: newHistory(), began: cfg.Store.Map(),
	}
}

// Observe takes down what an owner reports of one of its groups.
func (l *Loop) Observe(g ident.Group, load Load, now time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.loads.Observe(g, load, now)
}

// ObserveDisk takes down how full the fullest disk of a broker is, 0 to 1.
func (l *Loop) ObserveDisk(b ident.Broker, used float64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.disks[b] = used
}

// Load is a group's smooth load in one number, for who spreads groups otherwise; only ratios mean anything.
func (l *Loop) Load(g ident.Group) float64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.loads.groups[g].load.BytesIn
}

// Run acts until ctx ends.
func (l *Loop) Run(ctx context.Context) {
	l.mu.Lock()
	if l.planner = l.before; l.planner == nil || time.Since(l.ended) > shortAbsence {
		l.planner = NewPlanner(l.cfg.Limits)
	}
	l.planner.remember(l.history)
	l.mu.Unlock()
	asking := make(chan struct{}, 1) // held while an owner is asked
	var beside sync.WaitGroup
	defer func() {
		beside.Wait()
		l.mu.Lock()
		l.before, l.planner, l.ended = l.planner, nil, time.Now()
		l.mu.Unlock()
		l.metrics.held.Set(0)
	}()
	for ctx.Err() == nil {
		if err := l.cfg.Store.UnpinEmpty(ctx); err != nil && ctx.Err() == nil {
			l.log.Info("empty groups stay pinned for now", "error", err)
		}
		changed, m := l.cfg.Sessions.Changed(), l.cfg.Store.Map()
		plan := l.plan()
		l.report(&plan)
		for _, a := range plan.Ask {
			select {
			case asking <- struct{}{}:
				beside.Go(func() { l.sample(ctx, a); <-asking })
			default:
			}
		}
		l.execute(ctx, plan.Moves)
		for _, s := range plan.Splits {
			l.split(ctx, s)
		}
		tick := time.NewTimer(l.cfg.Every)
		select {
		case <-changed:
			wait(ctx, l.cfg.Soon)
		case <-l.cfg.Store.Watch(m):
			wait(ctx, l.cfg.Soon)
		case <-tick.C:
		case <-ctx.Done():
		}
		tick.Stop()
	}
}

// shortAbsence is how long another broker may have been the active controller without this one watching loads anew.
const shortAbsence = 30 * time.Second

func wait(ctx context.Context, d time.Duration) {
	select {
	case <-time.After(d):
	case <-ctx.Done():
	}
}

// input is what there is to plan from now.
func (l *Loop) input(now time.Time) Input {
	m := l.cfg.Store.Map()
	in := Input{Map: m, Now: now, Loads: l.loads.Loads(now), Enabled: l.cfg.Enabled == nil || l.cfg.Enabled(m)}
	in.Hot = make(map[ident.Group][]HotPartition, len(l.samples))
	for g, s := range l.samples {
		if now.Before(s.until) {
			in.Hot[g] = s.parts
		}
	}
	seen := make(map[ident.Broker]bool)
	for rec := range m.Logs() {
		if seen[rec.Host] {
			continue
		}
		seen[rec.Host] = true
		b := Broker{ID: rec.Host, DiskUsed: l.disks[rec.Host]}
		if reg := m.Broker(rec.Host); reg != nil {
			b.Rack = reg.Rack
		}
		standing := l.cfg.Sessions.Session(rec.Host).Standing
		if standing != failover.Live && standing != failover.Draining {
			continue
		}
		b.Draining = standing == failover.Draining || m.Draining(rec.Host)
		in.Brokers = append(in.Brokers, b)
	}
	return in
}

// plan is the next plan without groups that are left alone for now.
func (l *Loop) plan() Plan {
	l.mu.Lock()
	defer l.mu.Unlock()
	now := time.Now()
	plan := l.planner.Plan(l.input(now))
	kept := plan.Moves[:0]
	for _, mv := range plan.Moves {
		if !now.Before(l.resting[mv.Group]) {
			kept = append(kept, mv)
		}
	}
	plan.Moves = kept
	return plan
}

// errand is what one owner is asked in one call.
type errand struct {
	owner ident.Broker
	to    ident.Log
}

// batch is how many groups one call moves, so that the plan can change in between.
const batch = 128

// execute asks the owners, each for one thing at a time, and returns when all have answered.
func (l *Loop) execute(ctx context.Context, moves []Move) {
	byOwner := make(map[ident.Broker]map[errand][]Move)
	for _, mv := range moves {
		if byOwner[mv.FromBroker] == nil {
			byOwner[mv.FromBroker] = make(map[errand][]Move)
		}
		e := errand{mv.FromBroker, mv.To}
		byOwner[mv.FromBroker][e] = append(byOwner[mv.FromBroker][e], mv)
	}
	var wg sync.WaitGroup
	defer wg.Wait()
	for _, errands := range byOwner {
		wg.Go(func() {
			for e, moves := range errands {
				l.ask(ctx, e, moves[:min(batch, len(moves))])
			}
		})
	}
}

// ask has one owner move some groups to one log.
func (l *Loop) ask(ctx context.Context, e errand, moves []Move) {
	groups := make([]ident.Group, len(moves))
	for i, mv := range moves {
		groups[i] = mv.Group
	}
	begun := time.Now()
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	results, err := l.cfg.Owners.Move(ctx, e.owner, groups, e.to)
	if ctx.Err() != nil && err != nil {
		return // it is not known, and the next plan sees
	}
	now := time.Now()
	l.mu.Lock()
	defer l.mu.Unlock()
	failed := 0
	var last error
	for _, mv := range moves {
		merr, known := results[mv.Group]
		if !known && merr == nil {
			merr = errors.Join(err, errors.New("the owner did not say"))
		}
		done := Done{Move: mv, At: now}
		if merr != nil {
			failed++
			last = merr
			done.Error = merr.Error()
			l.resting[mv.Group] = now.Add(2 * time.Second)
			l.metrics.failures.Inc()
		} else {
			delete(l.resting, mv.Group)
			if l.planner != nil {
				l.planner.Moved(mv, now)
			}
			l.metrics.moves.WithLabelValues(string(mv.Cause)).Inc()
		}
		l.note(done)
	}
	l.log.Info("groups moved", "from", e.owner, "to", e.to, "cause", string(moves[0].Cause), "groups", len(moves)-failed, "failed", failed,
		"ms", float64(now.Sub(begun).Microseconds())/1000, "error", last)
}

// recentMoves are shown to operators.
const recentMoves = 50

func (l *Loop) note(d Done) {
	l.recent = append(l.recent, d)
	l.recent = l.recent[max(0, len(l.recent)-recentMoves):]
}

func (l *Loop) report(p *Plan) {
	held := 0.0
	if p.Held != "" {
		held = 1
	}
	l.metrics.held.Set(held)
	l.metrics.splits.Set(float64(len(p.Splits)))
	worst := 0.0
	for _, s := range p.Logs {
		worst = max(worst, s.Load)
	}
	l.metrics.worst.Set(worst)
	full := make(map[ident.Broker]bool)
	for _, sh := range p.Logs {
		if sh.Full {
			full[sh.Broker] = true
		}
	}
	l.metrics.full.Set(float64(len(full)))
}
