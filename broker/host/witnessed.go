package host

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"slices"
	"sync"
	"time"

	"github.com/skeinmq/skein/commitlog"
	"github.com/skeinmq/skein/internal/ident"
	"github.com/skeinmq/skein/internal/witness"
	"github.com/skeinmq/skein/queuemapper"
)

// WitnessedConfig configures a Witnessed.
type WitnessedConfig struct {
	Store *queuemapper.Store
	Rack  string
	// Better is for how long a broker in a better rack must have stood ready before it takes a witness's place; 0: witness.Owner's default.
	Better time.Duration
	// Dial opens a stream to the witness on a broker (peer.Pool.DialWitness).
	Dial    func(context.Context, ident.Broker) (net.Conn, error)
	Metrics *witness.Metrics // shared by all logs of the broker; may be nil
	Logger  *slog.Logger
}

// Witnessed is the witness set of one log: a witness.Registrar that changes the log's record in the map, and knows from
// the map who could be a member.
//
// Order: NewWitnessed → commitlog.Open with Registrar() → Bind → Run in a goroutine → Host.Take, which calls Offer and Serve.
type Witnessed struct {
	cfg   WitnessedConfig
	reg   *witness.Registrar
	log   *commitlog.Log
	self  witness.ID
	bound chan struct{}

	mu  sync.Mutex
	rec *queuemapper.Log // as it was written or read last by the holder of the epoch
}

// NewWitnessed makes the witness set of a log that is not open yet.
func NewWitnessed(cfg WitnessedConfig) *Witnessed {
	w := &Witnessed{cfg: cfg, bound: make(chan struct{})}
	w.reg = witness.NewRegistrar(witness.Config{
		Dial: cfg.Dial, Map: w, Owner: witness.OwnerConfig{Rack: cfg.Rack, Size: WitnessesWanted, Better: cfg.Better}, Metrics: cfg.Metrics, Logger: cfg.Logger,
	})
	return w
}

// Registrar is what the log is opened with.
func (w *Witnessed) Registrar() commitlog.Registrar { return w.reg }

// Bind tells which log this is, and who its broker is in this incarnation. Once, before Run.
func (w *Witnessed) Bind(l *commitlog.Log, self ident.Broker, incarnation int64) {
	w.log, w.self = l, witness.ID{Broker: self, Incarnation: incarnation}
	close(w.bound)
}

// Run keeps the set going until ctx ends. It must outlive the log's Run: what the log still has to commit then waits for
// the witnesses, too.
func (w *Witnessed) Run(ctx context.Context) error {
	var following sync.WaitGroup
	defer following.Wait()
	following.Go(func() { w.follow(ctx) })
	return w.reg.Run(ctx)
}

// follow tells the registrar what the map shows.
func (w *Witnessed) follow(ctx context.Context) {
	id := w.log.Recovered().ID
	for ctx.Err() == nil {
		m := w.cfg.Store.Map()
		var list []witness.Candidate
		for b := range m.Brokers() {
			if b.ID != w.self.Broker && b.Internal != "" {
				list = append(list, witness.Candidate{ID: witness.ID{Broker: b.ID, Incarnation: b.Incarnation}, Rack: b.Rack})
			}
		}
		w.reg.Candidates(list)
		if rec := m.Log(id); rec != nil {
			w.reg.RecordRead(recordOf(rec))
		}
		select {
		case <-w.cfg.Store.Watch(m):
		case <-ctx.Done():
		}
	}
}

// Offer is Witnesses'.
func (w *Witnessed) Offer(ctx context.Context, log ident.Log, epoch ident.LogEpoch, _ []commitlog.RecoveredGeneration, to []queuemapper.Witness) []queuemapper.Witness {
	<-w.bound
	list := make([]witness.Candidate, len(to))
	m := w.cfg.Store.Map()
	for i, x := range to {
		list[i].ID = idOf(x)
		if b := m.Broker(x.Broker); b != nil {
			list[i].Rack = b.Rack
		}
	}
	key := witness.Key{Log: log, Epoch: epoch}
	have, err := w.reg.Offer(ctx, w.log, key, w.self, w.log.RecoveredTable(), list)
	if err != nil && w.cfg.Logger != nil {
		w.cfg.Logger.Warn("witnesses not asked", "log", log.String(), "error", err)
	}
	var out []queuemapper.Witness
	for _, x := range to {
		if slices.Contains(have, idOf(x)) {
			out = append(out, x)
		}
	}
	return out
}

// Serve is Witnesses'.
func (w *Witnessed) Serve(rec *queuemapper.Log) {
	w.mu.Lock()
	w.rec = rec
	w.mu.Unlock()
	w.reg.Opened(recordOf(rec))
}

// Members is the recorded set, as far as it is known.
func (w *Witnessed) Members() []witness.ID { return w.reg.Members() }

// newest returns the newest record of the log that is known here.
func (w *Witnessed) newest(id ident.Log) *queuemapper.Log {
	seen := w.cfg.Store.Map().Log(id)
	w.mu.Lock()
	defer w.mu.Unlock()
	if seen != nil && (w.rec == nil || seen.Revision > w.rec.Revision) {
		w.rec = seen
	}
	return w.rec
}

// SwapWitnesses is witness.Map's.
func (w *Witnessed) SwapWitnesses(ctx context.Context, key witness.Key, set []witness.ID) (witness.SwapOutcome, witness.Record) {
	rec := w.newest(key.Log)
	if rec == nil || rec.State != queuemapper.LogOpen || rec.Epoch != key.Epoch || rec.Host != w.self.Broker {
		return witness.SwapLost, recordOf(rec)
	}
	members := make([]queuemapper.Witness, len(set))
	for i, id := range set {
		members[i] = queuemapper.Witness{Broker: id.Broker, Incarnation: id.Incarnation}
	}
	written, err := w.cfg.Store.SwapWitnesses(ctx, rec, members)
	switch {
	case err == nil:
		w.mu.Lock()
		w.rec = written
		w.mu.Unlock()
		return witness.SwapWon, recordOf(written)
	case errors.Is(err, queuemapper.ErrConflict):
		return witness.SwapLost, recordOf(w.newest(key.Log))
	case errors.Is(err, queuemapper.ErrUnavailable) && !errors.Is(err, queuemapper.ErrUnknown):
		return witness.SwapNothing, witness.Record{}
	}
	return witness.SwapUnknown, witness.Record{}
}

// SettleLog is witness.Map's (O8).
func (w *Witnessed) SettleLog(ctx context.Context, key witness.Key) (witness.Record, error) {
	rec, err := w.cfg.Store.SettleLog(ctx, key.Log)
	if err != nil {
		return witness.Record{}, err
	}
	w.mu.Lock()
	w.rec = rec
	w.mu.Unlock()
	return recordOf(rec), nil
}

// recordOf is a record as package witness sees it; of none it is one that fences.
func recordOf(l *queuemapper.Log) witness.Record {
	if l == nil {
		return witness.Record{}
	}
	r := witness.Record{Open: l.State == queuemapper.LogOpen, Host: l.Host, Epoch: l.Epoch}
	for _, x := range l.Witnesses {
		r.Set = append(r.Set, idOf(x))
	}
	return r
}

func idOf(x queuemapper.Witness) witness.ID {
	return witness.ID{Broker: x.Broker, Incarnation: x.Incarnation}
}

// ForgetEnded drops, until ctx ends, the tables of a member that nobody can ask for any more: the map shows their logs at
// later epochs (O6). A log that the map does not have may be about to be registered.
func ForgetEnded(ctx context.Context, store *queuemapper.Store, member *witness.Member) {
	for ctx.Err() == nil {
		m := store.Map()
		for _, key := range member.Keys() {
			if rec := m.Log(key.Log); rec != nil && rec.Epoch > key.Epoch {
				member.Forget(key.Log, rec.Epoch)
			}
		}
		select {
		case <-store.Watch(m):
		case <-ctx.Done():
		}
	}
}
