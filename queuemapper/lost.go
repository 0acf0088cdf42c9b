package queuemapper

import (
	"context"
	"errors"
	"fmt"
	"maps"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/skeinmq/skein/internal/ident"
)

// InService reports whether a live broker has a log, as far as a map knows: its host is registered, and not in a newer
// incarnation than the one that opened the log. A broker opens its logs before it registers: one that is registered since has
// come without it.
func (m *Map) InService(l *Log) bool {
	b := m.Broker(l.Host)
	return b != nil && b.Incarnation <= l.Incarnation
}

// Absent reports whether the host of a log is live and does not have it.
func (m *Map) Absent(l *Log) bool { return m.Broker(l.Host) != nil && !m.InService(l) }

// Holds counts what a log, whether or not there is a record of it, is named for: groups that are open in it, and offsets of
// sealed runs that are not noted as lost.
func (m *Map) Holds(id ident.Log) (open int, runs int, offsets int64) {
	for _, g := range m.groups {
		for i := range g.Generations {
			gen := &g.Generations[i]
			switch {
			case gen.Log != id:
			case !gen.Sealed:
				open++
			default:
				for _, r := range m.unmarked(g, i) {
					for _, part := range r {
						runs++
						offsets += int64(part.To - part.From)
					}
				}
			}
		}
	}
	return open, runs, offsets
}

// Unmarked counts the runs of a group's sealed generation with index i of which anything is not noted as lost.
func (m *Map) Unmarked(g *Group, i int) int { return len(m.unmarked(g, i)) }

// unmarked is what of the runs of a sealed generation is not noted as lost. What was trimmed, and what is of deleted topics, is nobody's.
func (m *Map) unmarked(g *Group, i int) map[ident.Partition][]Range {
	gen := &g.Generations[i]
	name := ident.Generation{Group: g.ID, Epoch: gen.Epoch, Frame: gen.Frame}
	out := make(map[ident.Partition][]Range)
	for p := range gen.Ends {
		for _, run := range m.Runs(m.TopicByID(p.Topic), p.Index) {
			if run.Generation != name {
				continue
			}
			for o := run.Start; o < run.End; {
				from, to := m.Readable(p, run, o)
				if from < to {
					out[p] = append(out[p], Range{from, to})
				}
				o = to
			}
		}
	}
	return out
}

// GiveUpLog is LoseLog of a log, if it has a record l still, then MarkLogLost of every group. Whatever it is interrupted by, it may
// be asked again.
func (s *Store) GiveUpLog(ctx context.Context, id ident.Log, l *Log) error {
	if l != nil {
		if err := s.LoseLog(ctx, l); err != nil {
			return err
		}
	}
	for g := range s.Map().Groups() {
		if err := s.MarkLogLost(ctx, g.ID, id); err != nil {
			return err
		}
	}
	return nil
}

// LoseLog deletes the record of a log whose disk is gone for good: from then on that disk is refused, wherever it comes from,
// and what lay on it may be noted as lost (MarkLogLost). l is SEALED, no group is open in it, and nobody has it in service;
// what others did to the record since it was read is ErrConflict (O1): its host has reopened it, for example.
func (s *Store) LoseLog(ctx context.Context, l *Log) error {
	fail := func(err error) error { return fmt.Errorf("lose log %s: %w", l.ID, err) }
	if l.State != LogSealed {
		return fail(fmt.Errorf("%w: it is not sealed", ErrInvalid))
	}
	if err := s.Refresh(ctx); err != nil { // O9: nothing can be opened in a sealed log, so a map that is newer has all that is
		return fail(err)
	}
	m := s.Map()
	if m.InService(l) {
		return fail(fmt.Errorf("%w: broker %d is live and has it", ErrInvalid, l.Host))
	}
	if open, _, _ := m.Holds(l.ID); open > 0 && !plants.lostOpen {
		return fail(fmt.Errorf("%w: %d groups are open in it", ErrInvalid, open))
	}
	if err := s.deleteLog(ctx, l); err != nil {
		return fail(err)
	}
	return nil
}

// deleteLog deletes a log's record, comparing its revision. It writes down a start of its host, which nobody has made: so the
// record does not come back by a registration that was sent long ago (ReopenLog).
func (s *Store) deleteLog(ctx context.Context, l *Log) error {
	key := keyLog(l.ID)
	same := []clientv3.Cmp{s.unchanged(key, l.Revision)}
	if plants.loseOpened {
		same = []clientv3.Cmp{clientv3.Compare(clientv3.CreateRevision(s.key(key)), ">", 0)}
	}
	resp, _, err := s.settle(ctx, "remove_log", same,
		[]clientv3.Op{clientv3.OpDelete(s.key(key)), s.put(keyIncarnation(l.Host), encodeIncarnation())}, []clientv3.Op{clientv3.OpGet(s.key(key))})
	switch {
	case err != nil:
		return err
	case resp.Succeeded:
		return s.caughtUp(ctx, resp.Header.Revision)
	case len(resp.Responses[0].GetResponseRange().GetKvs()) == 0: // an earlier try, of whoever
		return s.Refresh(ctx)
	}
	return s.conflict(ctx, resp, "remove log "+l.ID.String())
}

// MarkLogLost notes everything that a group has in a log as lost, for good. The transaction demands that the log has no record:
// LoseLog was there before, and a log that anybody serves, or ever can, loses nothing. It compares the group's revision, as
// every change of its record, and tries again when that has changed.
func (s *Store) MarkLogLost(ctx context.Context, id ident.Group, log ident.Log) error {
	for {
		m := s.Map()
		g := m.Group(id)
		if g == nil {
			return fmt.Errorf("mark what group %d has in log %s: %w", id, log, ErrNotFound)
		}
		if l := m.Log(log); l != nil {
			return fmt.Errorf("mark what group %d has in log %s: %w: the log is %v at epoch %d", id, log, ErrInvalid, l.State, l.Epoch)
		}
		fresh, changed := g.clone(), false
		for i := range fresh.Generations {
			gen := &fresh.Generations[i]
			if gen.Log != log && !plants.loseOthers || !gen.Sealed {
				continue
			}
			lost := m.unmarked(g, i)
			if len(lost) == 0 {
				continue
			}
			changed = true
			gen.Lost = maps.Clone(gen.Lost)
			if gen.Lost == nil {
				gen.Lost = make(map[ident.Partition][]Range)
			}
			for p, ranges := range lost {
				gen.Lost[p] = joinRanges(append(ranges, gen.Lost[p]...))
			}
			if i < len(fresh.raw) {
				fresh.raw[i] = nil
			}
		}
		if !changed {
			return nil
		}
		_, err := s.swapGroup(ctx, "mark", fresh, guard{log: log, gone: true})
		if !errors.Is(err, ErrConflict) {
			return err
		}
	}
}
