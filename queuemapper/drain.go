package queuemapper

import (
	"context"
	"fmt"
	"slices"
	"strconv"

	"github.com/skeinmq/skein/internal/ident"
)

// RoleDraining is a role of a broker's registration: it is about to end, and wants no groups.
const RoleDraining = "draining"

// kindDrain is the kind of the dynamic configs that mark brokers which shall own nothing; the name is the broker's id.
const kindDrain = "drain"

// Draining reports whether a broker shall be given no groups: an operator drained it, or it is about to end.
func (m *Map) Draining(id ident.Broker) bool {
	if m.Drained(id) {
		return true
	}
	b := m.Broker(id)
	return b != nil && slices.Contains(b.Roles, RoleDraining)
}

// Drained reports whether an operator drained a broker: it moves its groups away and gets none, until undrained.
func (m *Map) Drained(id ident.Broker) bool {
	return m.Dynamic(kindDrain, strconv.Itoa(int(id))) != nil
}

// DrainBroker marks a broker as drained, or takes the mark away.
func (s *Store) DrainBroker(ctx context.Context, id ident.Broker, on bool) error {
	err := s.SetDynamic(ctx, kindDrain, strconv.Itoa(int(id)), func(map[string]string) (map[string]string, error) {
		if !on {
			return nil, nil
		}
		return map[string]string{"drained": "true"}, nil
	})
	if err != nil {
		return fmt.Errorf("drain broker %d: %w", id, err)
	}
	return nil
}

// UnregisterBroker ends this store's registration at once: nobody waits for the end of its lease.
func (s *Store) UnregisterBroker(ctx context.Context) error {
	b, lease := s.registration.get()
	if b == nil {
		return nil
	}
	s.registration.set(nil, 0)
	rctx, cancel := context.WithTimeout(ctx, s.cfg.Timeout)
	defer cancel()
	if _, err := s.client.Revoke(rctx, lease); err != nil { // it ends by itself
		return fmt.Errorf("unregister broker %d: %w: %w", b.ID, ErrUnknown, err)
	}
	return nil
}

// RemoveLog deletes the record of a log in which no generation with records lives any more, for good: from then on its disk is refused.
// The log is sealed first, so that nothing can be opened in it meanwhile (O13). ErrInvalid: something lives there, or it
// is the only open log (O19).
func (s *Store) RemoveLog(ctx context.Context, l *Log) error {
	fail := func(err error) error { return fmt.Errorf("remove log %s: %w", l.ID, err) }
	if l.State == LogOpen {
		var other *Log
		for o := range s.Map().Logs() {
			if o.ID != l.ID && o.State == LogOpen {
				other = o
			}
		}
		if other == nil {
			return fail(fmt.Errorf("%w: no other log is open", ErrInvalid))
		}
		if used := s.Map().livesIn(l.ID); used != nil {
			return fail(used)
		}
		sealed, err := s.SealLog(ctx, l, other)
		if err != nil {
			return fail(err)
		}
		l = sealed
	}
	if err := s.Refresh(ctx); err != nil {
		return fail(err)
	}
	if used := s.Map().livesIn(l.ID); used != nil {
		return fail(used)
	}
	if err := s.deleteLog(ctx, l); err != nil {
		return fail(err)
	}
	return nil
}

// livesIn names a group with a generation in a log, nil if there is none. One in which no partition got anything is nobody's.
func (m *Map) livesIn(id ident.Log) error {
	for _, g := range m.groups {
		if slices.ContainsFunc(g.Generations, func(gen Generation) bool { return gen.Log == id && (!gen.Sealed || len(gen.Ends) > 0) }) {
			return fmt.Errorf("%w: generations of group %d live in it", ErrInvalid, g.ID)
		}
	}
	return nil
}
