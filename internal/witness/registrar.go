package witness

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/skeinmq/skein/commitlog"
	"github.com/skeinmq/skein/internal/ident"
)

// SwapOutcome is how a compare-and-swap of the log's record ended.
type SwapOutcome uint8

// Outcomes of a swap.
const (
	SwapUnknown SwapOutcome = iota // the answer was lost (O8)
	SwapWon                        // the record has the set
	SwapLost                       // the compare failed; the record as it is now comes along
	SwapNothing                    // the map could not be reached, and nothing was written
)

func (s SwapOutcome) String() string {
	return [...]string{"unknown", "won", "lost", "nothing"}[min(int(s), 3)]
}

// Map is what a Registrar needs of the map. Both calls are made one after the other, never at once.
type Map interface {
	// SwapWitnesses changes the set in the log's record, comparing the revision of the record as this Map has read or
	// written it last (O1), and that it is OPEN at the key's epoch.
	SwapWitnesses(ctx context.Context, key Key, set []ID) (SwapOutcome, Record)
	// SettleLog writes the record unchanged, so that no older swap lands any more, and returns it (O8).
	SettleLog(ctx context.Context, key Key) (Record, error)
}

// Log is what a Registrar needs of the log that it serves.
type Log interface {
	Table(ctx context.Context) (commitlog.Table, error)
	Fence(cause error)
}

// Config configures a Registrar. The zero value of each optional field means its default.
type Config struct {
	// Dial opens a stream to the witness on a broker, for Server.Follow there to serve. Closing it must not wait for the other end.
	Dial func(context.Context, ident.Broker) (net.Conn, error)
	Map  Map
	// Owner has what is the same for each epoch: Rack, Size, timeouts and back-offs.
	Owner OwnerConfig
	// MapTimeout is how long a write of the map may take before its outcome counts as unknown; default 10 s.
	MapTimeout time.Duration
	Metrics    *Metrics
	Logger     *slog.Logger
	Now        func() time.Time // default time.Now
}

// errNoOwner: there is no epoch that could be acked in.
var errNoOwner = errors.New("log has no witness set yet")

// Registrar is commitlog.Registrar around an Owner: it runs the sessions with the members, asks the log for
// tables and the map for swaps.
//
// Order: NewRegistrar → commitlog.Open with it → Run in a goroutine → Offer, as often as needed → the record is written
// → Opened → commitlog's Begin. Candidates and RecordRead follow the map. When the log is reopened, Offer at the next
// epoch begins anew.
type Registrar struct {
	cfg     Config
	log     *slog.Logger
	metrics *Metrics

	active atomic.Bool

	mu        sync.Mutex
	ctx       context.Context // of Run; nil before and after
	over      bool            // Run has ended
	running   chan struct{}   // closed when ctx is set
	owner     *Owner
	term      int // counts owners: answers to an older one are ignored
	target    Log
	recovered *commitlog.Table // what members get before the log is opened
	self      ID
	sessions  uint64
	links     map[uint64]*link // by session
	waiting   []waiting        // registered, in order of number
	changed   chan struct{}    // closed at the next change of the set's progress
	wg        sync.WaitGroup
}

// waiting is a group commit that is not committed yet.
type waiting struct {
	number uint64
	at     time.Time
	done   func(error)
}

// NewRegistrar makes a registrar that is not active.
func NewRegistrar(cfg Config) *Registrar {
	cfg.MapTimeout = cmp.Or(cfg.MapTimeout, 10*time.Second)
	if cfg.Metrics == nil {
		cfg.Metrics = NewMetrics(nil)
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	return &Registrar{
		cfg: cfg, log: cfg.Logger, metrics: cfg.Metrics,
		running: make(chan struct{}), changed: make(chan struct{}), links: make(map[uint64]*link),
	}
}

// Run is everything that the registrar does in the background, until ctx ends. What is registered then is not committed.
func (r *Registrar) Run(ctx context.Context) error {
	r.mu.Lock()
	if r.ctx != nil || r.over {
		r.mu.Unlock()
		return errors.New("run registrar: it has run already")
	}
	r.ctx = ctx
	close(r.running)
	r.mu.Unlock()
	tick := time.NewTicker(max(r.cfg.Owner.withDefaults().Timeout/6, time.Millisecond))
	defer tick.Stop()
	for ctx.Err() == nil {
		select {
		case <-tick.C:
			r.event(r.currentTerm(), func(o *Owner, now time.Time) { o.Tick(now) })
		case <-ctx.Done():
		}
	}
	r.mu.Lock()
	r.over = true
	failed := r.waiting
	r.waiting, r.owner = nil, nil
	r.active.Store(true) // nothing is ever acked without the set
	for _, l := range r.links {
		l.cancel()
	}
	r.mu.Unlock()
	for _, w := range failed {
		w.done(context.Cause(ctx))
	}
	r.wg.Wait()
	return nil
}

// Active is commitlog.Registrar's.
func (r *Registrar) Active() bool { return r.active.Load() }

// Register is commitlog.Registrar's (O4).
func (r *Registrar) Register(end ident.Position, updates []commitlog.Update, done func(error)) {
	encoded := EncodeUpdates(updates)
	for _, e := range encoded {
		r.metrics.deltaBytes.Add(float64(len(e)))
		r.metrics.deltas.Inc()
	}
	r.mu.Lock()
	o := r.owner
	err := errNoOwner
	if o != nil {
		err = nil
		if o.Fenced() != nil {
			err = fenced(o.Fenced())
		}
	}
	if err != nil {
		r.mu.Unlock()
		done(err)
		return
	}
	now := r.cfg.Now()
	n := o.Register(now, end, encoded)
	r.waiting = append(r.waiting, waiting{number: n, at: now, done: done})
	r.act(now)
}

func fenced(err error) error { return fmt.Errorf("%w: %w", commitlog.ErrFenced, err) }

// Offer sends the recovered table of a log that is about to be opened at an epoch to brokers, and returns which of all
// that it was offered to at this epoch have recorded it: the set to write into the record (O7, O15). It waits for each
// until it has, has failed or was too slow. ErrFenced: the epoch is over already.
func (r *Registrar) Offer(ctx context.Context, log Log, key Key, self ID, table commitlog.Table, to []Candidate) ([]ID, error) {
	select {
	case <-r.running:
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
	term, err := r.begin(log, key, self, &table)
	if err != nil {
		return nil, err
	}
	r.event(term, func(o *Owner, now time.Time) {
		o.Candidates(now, to)
	})
	for {
		r.mu.Lock()
		changed, o := r.changed, r.owner
		if r.term != term || o == nil {
			r.mu.Unlock()
			return nil, errNoOwner
		}
		set, wait := o.Ready()
		err := o.Fenced()
		r.mu.Unlock()
		switch {
		case err != nil:
			return nil, fenced(err)
		case !wait:
			return set, nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return set, context.Cause(ctx)
		}
	}
}

// begin makes the owner for a key, unless it is there. It returns the term.
func (r *Registrar) begin(log Log, key Key, self ID, table *commitlog.Table) (int, error) {
	r.mu.Lock()
	if r.over {
		r.mu.Unlock()
		return 0, errNoOwner
	}
	failed := r.waiting
	if r.owner == nil || r.owner.cfg.Key != key || r.self != self || r.target != log || r.owner.opened {
		for _, l := range r.links {
			l.cancel()
		}
		clear(r.links)
		cfg := r.cfg.Owner
		cfg.Key, cfg.Self, cfg.FirstSession = key, self, r.sessions
		r.owner, r.target, r.self, r.waiting = NewOwner(cfg), log, self, nil
		r.term++
	}
	r.recovered = table
	term := r.term
	r.mu.Unlock()
	for _, w := range failed {
		w.done(errNoOwner)
	}
	return term, nil
}

// Opened tells that the log's record was written, OPEN at the epoch of the last Offer, with this set. From now on the
// set is what a commit needs. The log is begun after it.
func (r *Registrar) Opened(rec Record) {
	r.event(r.currentTerm(), func(o *Owner, now time.Time) {
		r.recovered = nil
		o.Opened(now, rec)
	})
}

// Candidates tells which brokers could be members now, whenever that changes.
func (r *Registrar) Candidates(list []Candidate) {
	r.event(r.currentTerm(), func(o *Owner, now time.Time) { o.Candidates(now, list) })
}

// RecordRead tells what the map shows of the log's record, whenever that changes. A record that is sealed or of another
// epoch fences the log.
func (r *Registrar) RecordRead(rec Record) {
	r.event(r.currentTerm(), func(o *Owner, _ time.Time) { o.RecordRead(rec) })
}

// Members returns the recorded set, as far as it is known.
func (r *Registrar) Members() []ID {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.owner == nil {
		return nil
	}
	return r.owner.Members()
}

func (r *Registrar) currentTerm() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.term
}

// event tells the owner something, if it is still that of the term, and does what it then wants.
func (r *Registrar) event(term int, tell func(o *Owner, now time.Time)) {
	r.mu.Lock()
	if r.owner == nil || r.term != term {
		r.mu.Unlock()
		return
	}
	now := r.cfg.Now()
	tell(r.owner, now)
	r.act(now)
}

// act does what the owner wants. The caller holds mu; act gives it back. Messages enter their links in order, because
// that happens under mu; what may block happens elsewhere.
func (r *Registrar) act(now time.Time) {
	o := r.owner
	var done []waiting
	var fence error
	for _, a := range o.Take() {
		switch a.Kind {
		case ActSend:
			r.linkTo(a.Member, a.Session).put(a.Message)
		case ActClose:
			if l := r.links[a.Session]; l != nil {
				delete(r.links, a.Session)
				l.cancel()
			}
			r.notify()
		case ActTable:
			r.takeTable(a.Ticket)
		case ActSwap:
			r.swap(a.Set)
		case ActSettle:
			r.settle()
		case ActCommit:
			n := slices.IndexFunc(r.waiting, func(w waiting) bool { return w.number > a.Number })
			if n < 0 {
				n = len(r.waiting)
			}
			done = append(done, r.waiting[:n]...)
			clear(r.waiting[:n])
			r.waiting = r.waiting[n:]
		case ActFence:
			fence = fenced(a.Err)
			r.notify()
		}
	}
	r.sessions = o.Session()
	r.active.Store(o.Active())
	var failed []waiting
	if fence != nil {
		failed, r.waiting = r.waiting, nil
	}
	target := r.target
	r.mu.Unlock()
	for _, w := range done {
		r.metrics.registered(now.Sub(w.at))
		w.done(nil)
	}
	if fence != nil {
		r.log.Warn("log fenced", "component", "witness", "error", fence)
		for _, w := range failed {
			w.done(fence)
		}
		target.Fence(fence)
	}
}

// notify wakes Offer. The caller holds mu.
func (r *Registrar) notify() {
	close(r.changed)
	r.changed = make(chan struct{})
}

// takeTable gets the log's table. The caller holds mu.
func (r *Registrar) takeTable(ticket uint64) {
	term, log, recovered := r.term, r.target, r.recovered
	r.goOn(func(ctx context.Context) {
		if recovered != nil {
			r.event(term, func(o *Owner, now time.Time) { o.TableReady(now, ticket, recovered.At, recovered.Generations) })
			return
		}
		ctx, cancel := context.WithTimeout(ctx, r.cfg.Owner.withDefaults().TableTimeout)
		defer cancel()
		table, err := log.Table(ctx)
		if err != nil {
			r.log.Warn("no table for a joining witness", "component", "witness", "error", err)
			r.event(term, func(o *Owner, now time.Time) { o.TableFailed(now, ticket) })
			return
		}
		r.event(term, func(o *Owner, now time.Time) { o.TableReady(now, ticket, table.At, table.Generations) })
	})
}

// swap changes the set in the map. The caller holds mu.
func (r *Registrar) swap(set []ID) {
	term, key := r.term, r.owner.cfg.Key
	r.goOn(func(ctx context.Context) {
		ctx, cancel := context.WithTimeout(ctx, r.cfg.MapTimeout)
		defer cancel()
		outcome, rec := r.cfg.Map.SwapWitnesses(ctx, key, set)
		r.metrics.swaps.WithLabelValues(outcome.String()).Inc()
		r.log.Info("witness set swapped", "component", "witness", "table", key.String(), "set", fmt.Sprint(set), "outcome", outcome.String())
		r.event(term, func(o *Owner, now time.Time) {
			switch outcome {
			case SwapWon:
				o.SwapWon(now)
				r.metrics.members.WithLabelValues(key.Log.String()).Set(float64(len(set)))
			case SwapLost:
				o.SwapLost(now, rec)
			case SwapNothing:
				o.SwapNothing(now)
			default:
				o.SwapUnknown(now)
			}
		})
	})
}

// settle writes the record, so that an unknown swap is known. The caller holds mu.
func (r *Registrar) settle() {
	term, key := r.term, r.owner.cfg.Key
	r.goOn(func(ctx context.Context) {
		ctx, cancel := context.WithTimeout(ctx, r.cfg.MapTimeout)
		defer cancel()
		rec, err := r.cfg.Map.SettleLog(ctx, key)
		r.event(term, func(o *Owner, now time.Time) {
			if err != nil {
				o.SettleFailed(now)
				return
			}
			o.Settled(now, rec)
		})
	})
}

// goOn runs f beside, for Run to wait for. The caller holds mu.
func (r *Registrar) goOn(f func(ctx context.Context)) {
	if r.over {
		return
	}
	ctx := r.ctx
	r.wg.Go(func() { f(ctx) })
}
