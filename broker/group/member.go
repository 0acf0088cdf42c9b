package group

import (
	"time"
)

// Heartbeat handles a Heartbeat; nil is the good answer.
func (m *Machine) Heartbeat(now time.Time, group string, generation int32, memberID, instance string) error {
	if group == "" {
		return ErrInvalidGroup
	}
	g := m.groups[group]
	if g == nil {
		return ErrUnknownMember
	}
	if err := g.validate(memberID, instance); err != nil {
		return err
	}
	if generation != g.generation {
		return ErrIllegalGeneration
	}
	switch g.state {
	case PreparingRebalance:
		m.heard(now, g.byID[memberID])
		return ErrRebalanceInProgress
	case CompletingRebalance, Stable:
		m.heard(now, g.byID[memberID])
		return nil
	default:
		return ErrUnknownMember
	}
}

func (m *Machine) heard(now time.Time, mem *member) {
	m.timers.set(&mem.session, now.Add(mem.sessionTimeout))
}

// Leaver names a member that leaves: by its id, or a static one by its instance alone.
type Leaver struct {
	Member   string
	Instance string
}

// Leave handles a LeaveGroup: one result per leaver, or one error for all. If it asks for
// a write the answer waits for that.
func (m *Machine) Leave(now time.Time, group string, leavers []Leaver) ([]error, error) {
	if group == "" {
		return nil, ErrInvalidGroup
	}
	g := m.groups[group]
	out := make([]error, len(leavers))
	if g == nil {
		for i := range out {
			out[i] = ErrUnknownMember
		}
		return out, nil
	}
	left := false
	for i, l := range leavers {
		out[i] = m.leave(g, l)
		left = left || out[i] == nil
	}
	if left {
		switch g.state {
		case Stable, CompletingRebalance:
			m.rebalanceOrComplete(now, g)
		case PreparingRebalance:
			m.maybeCompleteJoin(now, g)
		}
		if g.state == PreparingRebalance && g.previous != Empty {
			// A coordinator that takes over must not wait for who left until its session ends.
			_ = m.persist(g, nil, nil)
		}
	}
	return out, nil
}

func (m *Machine) leave(g *Group, l Leaver) error {
	mem := g.byID[l.Member]
	switch {
	case l.Member == "":
		// An administrator removes a static member without knowing its id.
		if mem = g.static[l.Instance]; l.Instance == "" || mem == nil {
			return ErrUnknownMember
		}
	case g.pendingJoin[l.Member] != nil:
		m.timers.cancel(g.pendingJoin[l.Member])
		delete(g.pendingJoin, l.Member)
		return nil
	default:
		if err := g.validate(l.Member, l.Instance); err != nil {
			return err
		}
	}
	m.timers.cancel(&mem.session)
	m.answerJoin(g, mem, JoinReply{Err: ErrUnknownMember})
	m.answerSync(mem, SyncReply{Err: ErrUnknownMember})
	g.remove(mem)
	return nil
}
