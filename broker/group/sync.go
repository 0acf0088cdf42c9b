package group

import (
	"time"
)

// SyncRequest is a SyncGroup. The assignments become the machine's.
type SyncRequest struct {
	Ticket       Ticket
	Group        string
	Generation   int32
	Member       string
	Instance     string
	ProtocolType *string // nil: the client's version does not say
	Protocol     *string // likewise
	Assignments  map[string][]byte
}

// SyncReply answers a SyncGroup.
type SyncReply struct {
	Ticket       Ticket
	Err          error
	ProtocolType string
	Protocol     string
	Assignment   []byte
}

// Sync handles a SyncGroup; the reply comes with the effects, now or later.
func (m *Machine) Sync(now time.Time, rq *SyncRequest) {
	refuse := func(err error) {
		m.out.Syncs = append(m.out.Syncs, SyncReply{Ticket: rq.Ticket, Err: err})
	}
	if rq.Group == "" {
		refuse(ErrInvalidGroup)
		return
	}
	g := m.groups[rq.Group]
	if g == nil || g.state == Empty {
		refuse(ErrUnknownMember)
		return
	}
	if err := g.validateSync(rq); err != nil {
		refuse(err)
		return
	}
	mem := g.byID[rq.Member]
	switch g.state {
	case PreparingRebalance:
		refuse(ErrRebalanceInProgress)
	case CompletingRebalance:
		if mem.sync != 0 { // it has sent another one meanwhile
			m.answerSync(mem, SyncReply{Err: ErrRebalanceInProgress})
		}
		mem.sync = rq.Ticket
		m.synced(g, mem)
		if g.leader == mem.id {
			m.storeAssignment(now, g, rq)
		}
	default:
		m.synced(g, mem)
		m.out.Syncs = append(m.out.Syncs, SyncReply{
			Ticket: rq.Ticket, ProtocolType: g.protocolType, Protocol: g.protocol, Assignment: mem.assignment,
		})
	}
}

func (g *Group) validateSync(rq *SyncRequest) error {
	if err := g.validate(rq.Member, rq.Instance); err != nil {
		return err
	}
	differs := func(said *string, is string) bool { return said != nil && is != "" && *said != is }
	switch {
	case rq.Generation != g.generation:
		return ErrIllegalGeneration
	case differs(rq.ProtocolType, g.protocolType), differs(rq.Protocol, g.protocol):
		return ErrInconsistentProtocol
	}
	return nil
}

// synced notes that a member of this generation has sent its SyncGroup.
func (m *Machine) synced(g *Group, mem *member) {
	delete(g.pendingSync, mem.id)
	if len(g.pendingSync) == 0 {
		m.timers.cancel(&g.syncTimer)
	}
}

// storeAssignment persists what the leader decided; the members hear of it afterwards.
func (m *Machine) storeAssignment(now time.Time, g *Group, rq *SyncRequest) {
	assignments := make(map[string][]byte, len(g.members))
	for _, mem := range g.members {
		assignments[mem.id] = rq.Assignments[mem.id]
	}
	err := m.persist(g, assignments, &pendingWrite{
		group: g.name, sync: true, generation: g.generation, assignments: assignments,
	})
	if err != nil {
		m.resetAssignments(now, g, err)
		m.rebalanceOrComplete(now, g)
	}
}

// assignmentStored propagates an assignment, unless another generation has begun.
func (m *Machine) assignmentStored(now time.Time, g *Group, p *pendingWrite) {
	if g.state != CompletingRebalance || g.generation != p.generation {
		return
	}
	for _, mem := range g.members {
		mem.assignment = p.assignments[mem.id]
		if mem.sync != 0 {
			m.answerSync(mem, SyncReply{ProtocolType: g.protocolType, Protocol: g.protocol, Assignment: mem.assignment})
			// Its session may have run out while it waited, and was let be.
			m.timers.set(&mem.session, now.Add(mem.sessionTimeout))
		}
	}
	g.become(now, Stable)
}

// answerSync answers a member's parked sync, if there is one.
func (m *Machine) answerSync(mem *member, r SyncReply) {
	if mem.sync == 0 {
		return
	}
	r.Ticket = mem.sync
	mem.sync = 0
	m.out.Syncs = append(m.out.Syncs, r)
}
