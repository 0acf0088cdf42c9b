package broker

import (
	"context"
	"errors"
	"fmt"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/skeinmq/skein/broker/host"
	"github.com/skeinmq/skein/commitlog"
	"github.com/skeinmq/skein/internal/ident"
	"github.com/skeinmq/skein/queuemapper"
)

// What package host does for the logs here, as the rest of this package sees it.

// Unwitnessed says what becomes of a group whose exact ends only a disk knows that is not there.
type Unwitnessed = host.Unwitnessed

// Values of Unwitnessed.
const (
	UnwitnessedGap  = host.UnwitnessedGap
	UnwitnessedWait = host.UnwitnessedWait
)

// newHost makes the part of the broker that looks after its logs.
func (b *Broker) newHost() *host.Host {
	var targets host.Targets
	if b.cfg.Peers != nil {
		targets = host.Peers{Conns: b.cfg.Peers}
	}
	return host.New(b.life, host.Config{
		ID: b.cfg.ID, Incarnation: b.cfg.Incarnation, Rack: b.cfg.Rack, Store: b.store, Targets: targets, Unwitnessed: b.cfg.Unwitnessed,
		Founders: b.cfg.Founders, Reserve: ident.Offset(b.cfg.ReserveOffsets), Changed: b.changed, Patience: b.cfg.Patience, Logger: b.log,
	})
}

// changed makes the table follow what a procedure of the host did.
func (b *Broker) changed(groups ...ident.Group) {
	if b.taken.Load() { // before that there is no table, and others may ask already
		b.refresh(groups...)
	}
}

// takeLogs takes the broker's logs into service (O15).
func (b *Broker) takeLogs(ctx context.Context) error {
	sources := make([]host.Source, len(b.cfg.Logs))
	for i, l := range b.cfg.Logs {
		sources[i].Log = l
		if i < len(b.cfg.Witnesses) {
			sources[i].Witnesses = b.cfg.Witnesses[i]
		}
	}
	if err := b.host.TakeAll(ctx, sources); err != nil {
		if errors.Is(err, queuemapper.ErrConflict) || errors.Is(err, commitlog.ErrFenced) { // given up on its way in
			err = fmt.Errorf("%w: %w", ErrFenced, err)
		}
		return err
	}
	for _, l := range b.cfg.Logs {
		id := l.Recovered().ID
		b.hosted[id] = &hostedLog{id: id, log: l, epoch: b.host.Hosted(id).Epoch}
	}
	b.taken.Store(true)
	return nil
}

// moveGroups moves groups to another log, here or elsewhere.
func (b *Broker) moveGroups(ctx context.Context, groups []ident.Group, to ident.Log) []MoveView {
	views := make([]MoveView, len(groups))
	for i, v := range b.host.Move(ctx, groups, to) {
		views[i] = viewMove(v)
	}
	return views
}

// moveAnywhere moves groups wherever they are open: their owners do it. The outcomes are in the order of the groups.
func (b *Broker) moveAnywhere(ctx context.Context, groups []ident.Group, to ident.Log) []MoveView {
	m := b.store.Map()
	byOwner := make(map[ident.Broker][]ident.Group)
	var owners []ident.Broker
	from := make(map[ident.Group]ident.Log)
	for _, id := range groups {
		owner := b.cfg.ID // which says what is wrong with it
		if g := m.Group(id); g != nil && g.Current() != nil {
			from[id] = g.Current().Log
			if l := m.Log(g.Current().Log); l != nil && b.cfg.Peers != nil {
				owner = l.Host
			}
		}
		if byOwner[owner] == nil {
			owners = append(owners, owner)
		}
		byOwner[owner] = append(byOwner[owner], id)
	}
	views := make(map[ident.Group]MoveView, len(groups))
	for _, owner := range owners {
		var moved []host.Moved
		if owner == b.cfg.ID {
			moved = b.host.Move(ctx, byOwner[owner], to)
		} else {
			moved = host.Peers{Conns: b.cfg.Peers}.Move(ctx, owner, byOwner[owner], to)
		}
		for _, v := range moved {
			v.From = from[v.Group]
			views[v.Group] = viewMove(v)
		}
	}
	out := make([]MoveView, len(groups))
	for i, id := range groups {
		out[i] = views[id]
	}
	return out
}

func viewMove(v host.Moved) MoveView {
	out := MoveView{Group: v.Group, To: v.To.String(), Epoch: v.Epoch, PauseMillis: float64(v.Pause) / float64(time.Millisecond)}
	if v.From != (ident.Log{}) {
		out.From = v.From.String()
	}
	if v.Err != nil {
		out.Error = v.Err.Error()
	}
	return out
}

// splitPartition gives one partition another group from its end on (O20).
func (b *Broker) splitPartition(ctx context.Context, topic string, index int32, to ident.Group) (MoveView, error) {
	v, err := b.host.Split(ctx, topic, index, to)
	return viewMove(v), err
}

// keepCeilings raises the ceilings of the generations in one log before they are reached, until ctx ends.
func (b *Broker) keepCeilings(ctx context.Context, h *hostedLog) error {
	for {
		select {
		case <-h.log.LowCeilings():
			b.host.RaiseLow(ctx, b.host.Hosted(h.id))
		case <-ctx.Done():
			return nil
		}
	}
}

// watchLog returns when a log is dead: with ErrFenced when it was only sealed by others.
func (b *Broker) watchLog(ctx context.Context, h *hostedLog) error {
	select {
	case <-h.log.Poisoned():
	case <-ctx.Done():
		return nil
	}
	if err := h.log.Err(); errors.Is(err, commitlog.ErrFenced) { // its disk is sound: reopening it mends it (O15)
		b.log.Warn("a log of this broker was sealed by others: it stops serving", "log", h.id, "err", err)
		return fmt.Errorf("%w: %w", ErrFenced, err)
	}
	return h.log.Err()
}

// learnStarts moves log starts that a log which was absent knows better than the generation that followed without it.
func (b *Broker) learnStarts(ctx context.Context) error {
	var g errgroup.Group
	g.SetLimit(64) // they wait for one group commit together
	m := b.store.Map()
	for _, r := range b.host.GapRuns() {
		part := b.partitionOf(m, r.Partition)
		if part == nil || r.Queue.LogStart() == 0 {
			continue
		}
		run := part.open.Load()
		if run == nil || run.queue.LogStart() >= r.Queue.LogStart() {
			continue
		}
		g.Go(func() error {
			_, err := b.moveLogStart(ctx, part, run, r.Queue.LogStart())
			return err
		})
	}
	return g.Wait()
}

// partitionOf is the table's partition behind a name of the map's, nil if there is none.
func (b *Broker) partitionOf(m *queuemapper.Map, p ident.Partition) *partition {
	rec := m.TopicByID(p.Topic)
	if rec == nil {
		return nil
	}
	t := b.topic(rec.Name)
	if t == nil {
		return nil
	}
	return t.partition(p.Index)
}

// lostOffsets counts what the map marks as lost in logs of this broker.
func (b *Broker) lostOffsets() (n int64) {
	for g := range b.store.Map().Groups() {
		for i := range g.Generations {
			if gen := &g.Generations[i]; b.host.Hosted(gen.Log) != nil {
				for _, ranges := range gen.Lost {
					for _, r := range ranges {
						n += int64(r.To - r.From)
					}
				}
			}
		}
	}
	return n
}

// unavailable counts what is out of reach because a log of this broker is not in any of its directories.
func (b *Broker) unavailable() (logs, runs int) {
	m := b.store.Map()
	absent := make(map[ident.Log]bool)
	for _, l := range b.host.Absent(m) {
		absent[l.ID] = true
	}
	if len(absent) == 0 {
		return 0, 0
	}
	for g := range m.Groups() {
		for i := range g.Generations {
			gen := &g.Generations[i]
			switch {
			case !absent[gen.Log]:
			case gen.Sealed:
				runs += len(gen.Ends)
			default:
				runs += m.Partitions(g.ID)
			}
		}
	}
	return len(absent), runs
}
