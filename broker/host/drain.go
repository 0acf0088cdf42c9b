package host

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/skeinmq/skein/internal/ident"
	"github.com/skeinmq/skein/queuemapper"
)

// Owns counts the groups that are open in logs here.
func (h *Host) Owns(m *queuemapper.Map) int {
	n := 0
	for g := range m.Groups() {
		if h.OpenIn(g) != nil {
			n++
		}
	}
	return n
}

// Drain moves all groups that are open here to the other live brokers, evenly, by planned moves, until none is left or ctx
// ends. ErrNoTarget: nobody takes them.
func (h *Host) Drain(ctx context.Context) error {
	passed := make(map[ident.Log]bool) // targets that failed; they are tried again when no other is left
	for wait := 20 * time.Millisecond; ; wait = min(2*wait, time.Second) {
		m := h.store.Map()
		left := h.Owns(m)
		if left == 0 {
			return nil
		}
		targets := h.targets(m, passed)
		if len(targets) == 0 && len(passed) > 0 {
			clear(passed)
			targets = h.targets(m, passed)
		}
		if len(targets) == 0 {
			return fmt.Errorf("move %d groups away: %w", left, ErrNoTarget)
		}
		moved, err := h.drainTo(ctx, m, targets, passed)
		if err != nil {
			return fmt.Errorf("move %d groups away: %w", left, err)
		}
		if moved {
			wait = 20 * time.Millisecond
			continue
		}
		if err := h.cfg.Pause(ctx, wait); err != nil {
			return fmt.Errorf("move %d groups away: %w", left, err)
		}
	}
}

// drainTo makes one round over the groups here and reports whether any moved.
func (h *Host) drainTo(ctx context.Context, m *queuemapper.Map, targets []ident.Log, passed map[ident.Log]bool) (moved bool, err error) {
	plan, err := m.Plan(targets)
	if err != nil {
		return false, err
	}
	byTarget := make(map[ident.Log][]ident.Group)
	for _, p := range plan {
		if h.Hosted(p.From) != nil {
			byTarget[p.To] = append(byTarget[p.To], p.Group)
		}
	}
	for _, to := range targets {
		if err := context.Cause(ctx); err != nil {
			return moved, err
		}
		stay, why := 0, error(nil)
		for _, v := range h.Move(ctx, byTarget[to], to) {
			switch {
			case v.Err == nil:
				moved = true
			case errors.Is(v.Err, ErrBusy): // it is tried again
			case errors.Is(v.Err, ErrElsewhere): // the balancer, which empties this broker as well, was first
				moved = true
			default:
				stay, why = stay+1, v.Err
				passed[to] = true
			}
		}
		if stay > 0 && ctx.Err() == nil {
			h.log.Warn("groups do not move away", "groups", stay, "to", to, "err", why)
		}
		if errors.Is(why, errFreeze) {
			return moved, nil // nor do they to others
		}
	}
	return moved, nil
}

// HasTargets reports whether another broker takes groups.
func (h *Host) HasTargets(m *queuemapper.Map) bool { return len(h.targets(m, nil)) > 0 }

// targets lists the open logs of the live brokers that take groups, those with full disks only if there are no others.
func (h *Host) targets(m *queuemapper.Map, passed map[ident.Log]bool) []ident.Log {
	var open []*queuemapper.Log
	for l := range m.Logs() {
		if l.Host != h.cfg.ID && l.State == queuemapper.LogOpen && m.Broker(l.Host) != nil && !m.Draining(l.Host) && !passed[l.ID] {
			open = append(open, l)
		}
	}
	var out []ident.Log
	for _, l := range m.WithRoom(open) {
		out = append(out, l.ID)
	}
	return out
}
