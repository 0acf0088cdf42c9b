// Package host is what a broker does with the logs that it hosts: it takes them into service, writes opening frames for
// others, opens what the map opens in them, moves their groups away, and ends them when they are somebody else's.
//
// Its procedures are sequential, call the log, the map and other brokers through interfaces, and know no clock but the
// one they are given, so that the simulation runs the same code. It promises that a group takes appends here only while
// the map says so, and that whatever happens to a move, exactly one generation goes on. It refuses to know Kafka's API.
package host

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/skeinmq/skein/commitlog"
	"github.com/skeinmq/skein/internal/ident"
	"github.com/skeinmq/skein/queuemapper"
)

// Errors that callers branch on.
var (
	// ErrNotHosted: the log is not open here at the epoch that the caller means (O12, O13).
	ErrNotHosted = errors.New("log not open here at that epoch")
	// ErrBusy: another procedure is changing the group.
	ErrBusy = errors.New("group is being changed")
	// ErrElsewhere: the group is not open in a log here, or not any more.
	ErrElsewhere = errors.New("its open generation is not in a log of this broker")
	// ErrNoTarget: there is no other broker with an open log.
	ErrNoTarget = errors.New("no other broker takes groups")
)

// Log is the part of a commitlog.Log that is used here.
type Log interface {
	Recovered() commitlog.Recovered
	Begin(ctx context.Context, epoch ident.LogEpoch, named []commitlog.MapGeneration) error
	Prepare(ctx context.Context, openings []commitlog.Opening) ([]ident.Frame, error)
	Activate(gens []ident.Generation) error
	Freeze(ctx context.Context, groups ...ident.Group) (map[ident.Group][]ident.PartitionState, error)
	Thaw(groups ...ident.Group) error
	Seal(ctx context.Context, gens ...commitlog.MapGeneration) error
	RaiseCeiling(gen ident.Generation, to ident.Offset) error
	TakeLowCeilings() []commitlog.LowCeiling
	Sealed(gen ident.Generation, p ident.Partition) (*commitlog.Queue, bool)
	// Fence ends the log: nothing that waits in it is acknowledged any more.
	Fence(cause error)
}

// Queue is the part of a commitlog.Queue that is used here.
type Queue interface {
	LogStart() ident.Offset
	Segments() iter.Seq2[commitlog.Segment, error]
}

// Witnesses is the owner's side of one log's witness set.
type Witnesses interface {
	// Offer sends the whole table of the log at an epoch to brokers and returns those that have recorded it (O7, O15). It
	// gives up on one that does not answer soon. They get every update of that epoch from there on.
	Offer(ctx context.Context, log ident.Log, epoch ident.LogEpoch, table []commitlog.RecoveredGeneration, to []queuemapper.Witness) []queuemapper.Witness
	// Serve tells that the record was written as rec, whose set is one that Offer returned: from now on that set is
	// enough for a commit. The log is begun after it.
	Serve(rec *queuemapper.Log)
}

// Targets reaches the logs of other brokers.
type Targets interface {
	// Prepare writes opening frames into a log of another broker, which must be open at the record's epoch (O12). The
	// answer belongs to this request only (O2).
	Prepare(ctx context.Context, target *queuemapper.Log, openings []commitlog.Opening) ([]ident.Frame, error)
	// AwaitMap returns when a broker acts on a map of at least the revision.
	AwaitMap(ctx context.Context, id ident.Broker, revision int64) error
}

// Config configures a Host.
type Config struct {
	ID          ident.Broker
	Incarnation int64 // that opens logs
	Rack        string
	Store       *queuemapper.Store
	// Targets reaches other brokers; nil: there are none.
	Targets Targets
	// Unwitnessed says what becomes of groups whose log is in none of the directories.
	Unwitnessed Unwitnessed
	// Reserve is how many offsets are reserved at a time above a group's highest end (ADR 10).
	Reserve ident.Offset
	// Queue finds the queue of a sealed run in a log here; default Log.Sealed.
	Queue func(l Log, gen ident.Generation, p ident.Partition) (Queue, bool)
	// MoveBatch is how many groups are moved together; default 32.
	MoveBatch int

	// Founders are the brokers that form the cluster together, this one among them, ordered; none: whoever
	// comes first opens every group.
	Founders []ident.Broker
	// FoundTime is how long a founder waits for the others to open their part of the groups, default 5 s. Who comes later
	// gets a share by planned moves.
	FoundTime time.Duration
	// Changed is told which groups are other than the map alone says: frozen, opened, sealed or thawed. It makes this
	// broker act on the newest snapshot before it returns.
	Changed func(groups ...ident.Group)

	// Patience is how long a planned move waits at least for each of its steps, before it is given up: 0 outside of tests.
	Patience time.Duration

	Now func() time.Time // default time.Now
	// Pause waits, or returns context.Cause(ctx) when that ends first; default a timer.
	Pause  func(ctx context.Context, d time.Duration) error
	Logger *slog.Logger
}

func (c Config) withDefaults() Config {
	if c.Reserve == 0 {
		c.Reserve = ReserveDefault
	}
	if c.MoveBatch == 0 {
		c.MoveBatch = 32
	}
	if c.Queue == nil {
		c.Queue = func(l Log, gen ident.Generation, p ident.Partition) (Queue, bool) { return l.Sealed(gen, p) }
	}
	if c.FoundTime == 0 {
		c.FoundTime = 5 * time.Second
	}
	if c.Unwitnessed == "" {
		c.Unwitnessed = UnwitnessedWait
	}
	if c.Changed == nil {
		c.Changed = func(...ident.Group) {}
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	if c.Pause == nil {
		c.Pause = pause
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	return c
}

func pause(ctx context.Context, d time.Duration) error {
	select {
	case <-time.After(d):
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// Host is the logs of one broker. Its methods may be called by any goroutine, unless they say otherwise.
type Host struct {
	cfg   Config
	log   *slog.Logger
	store *queuemapper.Store
	// life bounds what must outlive the request that began it: settling a lost answer.
	life context.Context

	logs     atomic.Pointer[map[ident.Log]*Hosted] // grows by Take; a Hosted never changes
	reserves reserves

	mu   sync.Mutex
	busy map[ident.Group]bool // groups that a procedure is changing

	followed *queuemapper.Map // owned by Follow
}

// Hosted is a log in service here.
type Hosted struct {
	ID    ident.Log
	Log   Log
	Epoch ident.LogEpoch // at which it was begun
}

// New makes a Host without logs. It works until life ends.
func New(life context.Context, cfg Config) *Host {
	cfg = cfg.withDefaults()
	h := &Host{cfg: cfg, log: cfg.Logger, store: cfg.Store, life: life, busy: make(map[ident.Group]bool)}
	h.reserves = reserves{first: cfg.Reserve, by: make(map[ident.Group]reserve)}
	h.logs.Store(&map[ident.Log]*Hosted{})
	return h
}

// Hosted returns a log that is in service here, nil if it is not.
func (h *Host) Hosted(id ident.Log) *Hosted { return (*h.logs.Load())[id] }

// Logs returns all logs in service. Do not change the map.
func (h *Host) Logs() map[ident.Log]*Hosted { return *h.logs.Load() }

// OpenIn is the log here in which the group's open generation lives, nil if it lives elsewhere.
func (h *Host) OpenIn(g *queuemapper.Group) *Hosted {
	if g == nil || g.Current() == nil {
		return nil
	}
	return h.Hosted(g.Current().Log)
}

// Moving reports whether a procedure is changing the group: until it ends, the group's appends wait in the log.
func (h *Host) Moving(id ident.Group) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.busy[id]
}

// claim makes this procedure the only one that changes the groups; it returns those that no other one is changing.
func (h *Host) claim(ids ...ident.Group) (mine []ident.Group) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, id := range ids {
		if !h.busy[id] {
			h.busy[id] = true
			mine = append(mine, id)
		}
	}
	return mine
}

func (h *Host) release(ids ...ident.Group) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, id := range ids {
		delete(h.busy, id)
	}
}

// Prepare writes opening frames into a log here (O12). ErrNotHosted: it is not open here at that epoch, so what the
// caller is about to publish would fail (O13).
func (h *Host) Prepare(ctx context.Context, log ident.Log, epoch ident.LogEpoch, openings []commitlog.Opening) ([]ident.Frame, error) {
	hosted := h.Hosted(log)
	if hosted == nil || hosted.Epoch != epoch {
		return nil, fmt.Errorf("prepare in log %s at epoch %d: %w", log, epoch, ErrNotHosted)
	}
	return hosted.Log.Prepare(ctx, openings)
}

// prepareAt is Prepare wherever the log is.
func (h *Host) prepareAt(ctx context.Context, target *queuemapper.Log, openings []commitlog.Opening) ([]ident.Frame, error) {
	if !h.elsewhere(target) {
		return h.Prepare(ctx, target.ID, target.Epoch, openings)
	}
	return h.cfg.Targets.Prepare(ctx, target, openings)
}

// AwaitMap returns when this broker acts on a map of at least the revision.
func (h *Host) AwaitMap(ctx context.Context, revision int64) error {
	for {
		m := h.store.Map()
		if m.Revision() >= revision {
			h.cfg.Changed() // returns when it acts on m
			return nil
		}
		select {
		case <-h.store.Watch(m):
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}
