package failover

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/skeinmq/skein/internal/ident"
	"github.com/skeinmq/skein/queuemapper"
)

var (
	// ErrNoTable: no member of the log's witness set knows its table.
	ErrNoTable = errors.New("no member of the witness set has the table")
	// ErrLast: no other log is open on a live broker.
	ErrLast = errors.New("no other log is open on a live broker")
	// ErrNoTarget: no log is left that could take the groups over.
	ErrNoTarget = errors.New("no open log on a live broker takes the groups")

	errReopened = errors.New("reopened by its host")
)

// source is a log that fails over.
type source struct {
	id ident.Log
	// rec is the record as read after the seal, nil as long as it is not sealed.
	rec   *queuemapper.Log
	table Table
	// stuck are groups that cannot be taken over with this table, and why.
	stuck map[ident.Group]error
	err   error

	sealTook, tableTook time.Duration
}

// seal moves the log OPEN(e) → SEALED(e), or finds that it is sealed. together are the logs that fail over in the same call.
func (f *Failover) seal(ctx context.Context, src *source, together []ident.Log) error {
	m := f.store.Map()
	rec := m.Log(src.id)
	if rec == nil {
		return fmt.Errorf("seal log %s: %w", src.id, queuemapper.ErrNotFound)
	}
	epoch := rec.Epoch
	before := rec
	for rec.State == queuemapper.LogOpen {
		other := f.another(m, together)
		if other == nil {
			return ErrLast
		}
		sealed, err := f.store.SealLog(ctx, rec, other) // O9, O19
		if err == nil {
			rec = sealed
			break
		}
		if !errors.Is(err, queuemapper.ErrConflict) {
			return err
		}
		// Its witness set changed, it was reopened, or the other one is not open any more. The map has what won.
		m = f.store.Map()
		if rec = m.Log(src.id); rec == nil {
			return fmt.Errorf("seal log %s: %w", src.id, queuemapper.ErrNotFound)
		}
		if rec.Epoch != epoch {
			return errReopened
		}
	}
	src.rec = rec
	if plants.cachedSet { // O9
		stale := *rec
		stale.Witnesses = before.Witnesses
		src.rec = &stale
	}
	return nil
}

// another finds a log that is not given and is open on a live broker, nil if there is none.
func (f *Failover) another(m *queuemapper.Map, logs []ident.Log) *queuemapper.Log {
	for l := range m.Logs() {
		if l.State != queuemapper.LogOpen || contains(logs, l.ID) {
			continue
		}
		if st := f.cfg.Standing(l.Host); st == Live || st == Draining {
			return l
		}
	}
	return nil
}

func contains(logs []ident.Log, id ident.Log) bool {
	for _, l := range logs {
		if l == id {
			return true
		}
	}
	return false
}

// ask takes the table of a sealed log from the first member that tells (O10). Only members of the record as read after
// the seal are asked (O9), and only if a group needs it.
func (f *Failover) ask(ctx context.Context, src *source) error {
	if openOn(f.store.Map(), src) == 0 {
		return nil
	}
	members := src.rec.Witnesses
	tables := make([]Table, len(members))
	errs := make([]error, len(members))
	i := f.cfg.Fan.First(ctx, len(members), func(ctx context.Context, i int) bool {
		tables[i], errs[i] = f.cfg.Members.Seal(ctx, members[i], src.id, src.rec.Epoch)
		return errs[i] == nil
	})
	if i < 0 && plants.emptyTable { // O6
		src.table = emptyTable(f.store.Map(), src)
		return nil
	}
	if i < 0 && len(members) == 0 {
		return fmt.Errorf("table of log %s at epoch %d: %w: it is empty", src.id, src.rec.Epoch, ErrNoTable)
	}
	if i < 0 {
		return fmt.Errorf("table of log %s at epoch %d: %w %v: %w", src.id, src.rec.Epoch, ErrNoTable, members, errors.Join(errs...))
	}
	src.table = tables[i]
	return nil
}

// emptyTable is the mistake of taking unknown for empty.
func emptyTable(m *queuemapper.Map, src *source) Table {
	t := make(Table)
	for g := range m.Groups() {
		if cur := g.Current(); cur != nil && cur.Log == src.id {
			t[named(g, cur)] = nil
		}
	}
	return t
}

// named is the name of a generation as the map has it (O2).
func named(g *queuemapper.Group, gen *queuemapper.Generation) ident.Generation {
	return ident.Generation{Group: g.ID, Epoch: gen.Epoch, Frame: gen.Frame}
}

// openOn counts the groups that are open on a source.
func openOn(m *queuemapper.Map, src *source) int {
	n := 0
	for g := range m.Groups() {
		if cur := g.Current(); cur != nil && cur.Log == src.id {
			n++
		}
	}
	return n
}

// result is the outcome for a source, after all that was tried. err is what kept the groups of all sources from being opened.
func (src *source) result(m *queuemapper.Map, err error) Result {
	res := Result{Log: src.id, Err: src.err}
	rec := m.Log(src.id)
	if rec == nil {
		res.Outcome, res.Err = Failed, fmt.Errorf("log %s: %w", src.id, queuemapper.ErrNotFound)
		return res
	}
	res.Host, res.Epoch, res.Open = rec.Host, rec.Epoch, openOn(m, src)
	if res.Err == nil && res.Open > 0 {
		res.Err = err
		for _, e := range src.stuck {
			res.Err = errors.Join(res.Err, e)
		}
	}
	switch {
	case src.rec != nil && rec.Epoch > src.rec.Epoch, errors.Is(src.err, errReopened):
		res.Outcome, res.Err = Reopened, nil
	case errors.Is(src.err, ErrLast):
		res.Outcome = Last
	case src.rec == nil:
		res.Outcome = Failed
	case res.Open == 0:
		res.Outcome, res.Err = Done, nil
	case errors.Is(src.err, ErrNoTable), len(src.stuck) == res.Open && err == nil:
		res.Outcome = Waits
	default:
		res.Outcome = Failed
		if res.Err == nil {
			res.Err = fmt.Errorf("log %s: %d groups are still open on it", src.id, res.Open)
		}
	}
	return res
}
