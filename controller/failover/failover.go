package failover

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/skeinmq/skein/internal/ident"
	"github.com/skeinmq/skein/queuemapper"
)

// Table is what a witness knows about one (log, log epoch): the state of every generation that is open or prepared
// there. A generation that is absent is one that the witness does not know; a partition that is absent in one has no
// state at all (O5).
type Table map[ident.Generation][]ident.PartitionState

// Members are the brokers that witness a log.
type Members interface {
	// Seal makes a member refuse every later update of (log, epoch) and returns its table (O10). The member must be
	// in the incarnation that the record names (O6). Any error means that it does not tell; how long that may take is up to
	// the implementation.
	Seal(ctx context.Context, member queuemapper.Witness, log ident.Log, epoch ident.LogEpoch) (Table, error)
}

// Opening asks for the opening frame of a group's next generation. Its state is shared and must not be changed.
type Opening struct {
	Group   ident.Group
	Epoch   ident.Epoch
	State   []ident.PartitionState
	Ceiling ident.Offset
}

// Targets are the brokers that take groups over.
type Targets interface {
	// Prepare has a broker write opening frames into a log that is open there at that epoch, durable and witnessed
	// (O12), and returns their names in order. Once it fails, the target is not asked again in this failover.
	Prepare(ctx context.Context, broker ident.Broker, log ident.Log, epoch ident.LogEpoch, openings []Opening) ([]ident.Frame, error)
}

// Standing is what the active controller thinks of a broker.
type Standing int8

const (
	// Unknown: the controller has not made up its mind (it was just elected). Neither asked for anything nor given up.
	Unknown Standing = iota
	// Live brokers take groups over.
	Live
	// Draining brokers live, but shall take groups only when there is no other.
	Draining
	// Leaving brokers live and give their groups up: their logs are sealed.
	Leaving
	// Dead brokers are given up.
	Dead
)

// Fan runs things at the same time, or one after the other.
type Fan interface {
	// Each calls f with 0 to n-1 and returns when all calls have.
	Each(ctx context.Context, n int, f func(ctx context.Context, i int))
	// First calls f with 0 to n-1 until one returns true; the context of the others ends then. It returns which it
	// was, -1 for none, when all calls have returned.
	First(ctx context.Context, n int, f func(ctx context.Context, i int) bool) int
}

// Config configures a Failover.
type Config struct {
	Store   *queuemapper.Store
	Members Members
	Targets Targets
	// Standing is asked again and again while a failover goes on.
	Standing func(ident.Broker) Standing
	// Load weighs a group, in any unit; nil or all 0: groups are spread by partitions alone.
	Load func(ident.Group) float64
	// Reserve is how many offsets are reserved above a group's highest end (ADR 10); default queuemapper.ReserveDefault.
	Reserve ident.Offset

	Fan   Fan                                              // default Goroutines
	Now   func() time.Time                                 // default time.Now
	Pause func(ctx context.Context, d time.Duration) error // default a timer

	Logger     *slog.Logger
	Registerer prometheus.Registerer
}

func (c Config) withDefaults() Config {
	if c.Fan == nil {
		c.Fan = Goroutines{}
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	if c.Pause == nil {
		c.Pause = pause
	}
	if c.Load == nil {
		c.Load = func(ident.Group) float64 { return 0 }
	}
	if c.Reserve == 0 {
		c.Reserve = queuemapper.ReserveDefault
	}
	if c.Logger == nil {
		c.Logger = slog.Default()
	}
	return c
}

// Validate names everything that is missing.
func (c Config) Validate() error {
	var errs []error
	if c.Store == nil {
		errs = append(errs, errors.New("failover: no map store"))
	}
	if c.Members == nil || c.Targets == nil {
		errs = append(errs, errors.New("failover: no members or no targets"))
	}
	if c.Standing == nil {
		errs = append(errs, errors.New("failover: nobody knows the brokers' standing"))
	}
	return errors.Join(errs...)
}

// Failover fails logs over. Its methods may be called by any goroutine, also for the same log at the same time.
type Failover struct {
	cfg     Config
	store   *queuemapper.Store
	log     *slog.Logger
	metrics *metrics

	mu   sync.Mutex
	said map[ident.Log]said // what operators were told last
}

// said is an outcome, since when it is so, and when it was reported: the zero time if it was not.
type said struct {
	outcome Outcome
	since   time.Time
	told    time.Time
}

// sayAgain is how often operators hear of a log that waits or fails.
const sayAgain = 30 * time.Second

// lastTime is for how long there must be no other log before operators hear of it: a new controller has not heard of the
// other brokers yet when it tries for the first time.
const lastTime = 3 * time.Second

// New makes a Failover.
func New(cfg Config) (*Failover, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	cfg = cfg.withDefaults()
	return &Failover{cfg: cfg, store: cfg.Store, log: cfg.Logger, metrics: newMetrics(cfg.Registerer), said: make(map[ident.Log]said)}, nil
}

// Outcome is what became of one log.
type Outcome string

const (
	// Done: the log is sealed and none of its groups is open on it any more.
	Done Outcome = "done"
	// Reopened: its host has taken it into service at a higher epoch. Nothing is left to do.
	Reopened Outcome = "reopened"
	// Waits: no member knows its table. Its groups wait for the host, which reopens it by itself (O15), for a
	// member, or for an operator's word (O22).
	Waits Outcome = "waits"
	// Last: it was not sealed, as no other log is open on a live broker (O19).
	Last Outcome = "last"
	// Failed: it must be tried again.
	Failed Outcome = "failed"
)

// Result is the outcome for one log.
type Result struct {
	Log     ident.Log
	Host    ident.Broker
	Epoch   ident.LogEpoch
	Outcome Outcome
	// Err says why the outcome is not Done; nil for Done and Reopened.
	Err error
	// Open counts the groups that are still open on the log.
	Open int
}

// Report is what one failover did and how long that took.
type Report struct {
	Results            []Result
	Groups, Partitions int // that were published
	Rounds             int // of plans; more than one when a target failed or the map changed meanwhile
	// Seal and Table are the longest of all logs, Prepare and Publish of all targets.
	Seal, Table, Prepare, Publish, Total time.Duration
}

// Outcome is the worst of all results: what must be tried again counts more than what must wait.
func (r *Report) Outcome() Outcome {
	rank := map[Outcome]int{Done: 0, Reopened: 1, Last: 2, Waits: 3, Failed: 4}
	worst := Done
	for _, res := range r.Results {
		if rank[res.Outcome] > rank[worst] {
			worst = res.Outcome
		}
	}
	return worst
}

// FailOver makes the groups of some logs writable on others. Logs that fail together are best given in one call: their
// groups are spread, prepared and published together. What the report says of a log is only as old as the call.
func (f *Failover) FailOver(ctx context.Context, logs ...ident.Log) Report {
	return f.run(ctx, logs, f.ask)
}

// run is FailOver with a choice of where the tables come from.
func (f *Failover) run(ctx context.Context, logs []ident.Log, table func(context.Context, *source) error) Report {
	begun := f.cfg.Now()
	sources := make([]*source, len(logs))
	for i, id := range logs {
		sources[i] = &source{id: id}
	}
	f.cfg.Fan.Each(ctx, len(sources), func(ctx context.Context, i int) {
		src := sources[i]
		start := f.cfg.Now()
		src.err = f.seal(ctx, src, logs)
		src.sealTook = f.cfg.Now().Sub(start)
		if src.err == nil && src.rec != nil {
			start = f.cfg.Now()
			src.err = table(ctx, src)
			src.tableTook = f.cfg.Now().Sub(start)
		}
	})
	var r Report
	err := f.open(ctx, sources, &r)
	m := f.store.Map()
	for _, src := range sources {
		r.Seal, r.Table = max(r.Seal, src.sealTook), max(r.Table, src.tableTook)
		r.Results = append(r.Results, src.result(m, err))
	}
	r.Total = f.cfg.Now().Sub(begun)
	f.report(&r)
	return r
}

// news says whether operators shall hear of a report: not again and again of one that changes nothing.
func (f *Failover) news(r *Report) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	now := f.cfg.Now()
	news := r.Groups > 0
	for _, res := range r.Results {
		s := f.said[res.Log]
		if s.outcome != res.Outcome {
			s = said{outcome: res.Outcome, since: now}
			f.said[res.Log] = s
		}
		early := res.Outcome == Last && now.Sub(s.since) < lastTime
		news = news || !early && (s.told.IsZero() || now.Sub(s.told) >= sayAgain)
	}
	if news {
		for _, res := range r.Results {
			f.said[res.Log] = said{res.Outcome, f.said[res.Log].since, now}
		}
	}
	return news
}

// report tells operators, in one line.
func (f *Failover) report(r *Report) {
	f.metrics.report(r)
	if !f.news(r) {
		return
	}
	var logs []string
	var err error
	for _, res := range r.Results {
		logs = append(logs, res.Log.String()+"="+string(res.Outcome))
		err = errors.Join(err, res.Err)
	}
	ms := func(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }
	f.log.Log(context.Background(), r.level(), "failover", "logs", logs, "groups", r.Groups, "partitions", r.Partitions, "rounds", r.Rounds,
		"seal_ms", ms(r.Seal), "table_ms", ms(r.Table), "prepare_ms", ms(r.Prepare), "publish_ms", ms(r.Publish), "total_ms", ms(r.Total), "error", err)
}

// level is how loud a report is. Groups that changed hands as their broker was dead are worth a line beside the one that says why it
// is; a log in which nothing was left is not.
func (r *Report) level() slog.Level {
	switch r.Outcome() {
	case Waits, Failed:
		return slog.LevelError
	case Last:
		return slog.LevelWarn
	}
	if r.Groups > 0 {
		return slog.LevelWarn
	}
	return slog.LevelInfo
}
