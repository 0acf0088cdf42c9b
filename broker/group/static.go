package group

import (
	"time"
)

// replaceStatic handles the join of a static member that comes back without its member id:
// it gets a new one, whoever holds the old one is fenced, and if nothing else changes a
// stable group goes on without a rebalance (KIP-345).
func (m *Machine) replaceStatic(now time.Time, g *Group, old *member, rq *JoinRequest) {
	leaderBefore := g.leader
	mem := m.swapStatic(g, old, rq.NewID)
	g.update(mem, rq)
	// Kafka sets this deadline with the session timeout that the old member had.
	m.timers.set(&mem.session, now.Add(old.sessionTimeout))

	switch g.state {
	case Stable:
		if g.selectProtocol() != g.protocol {
			m.rebalanceOrComplete(now, g)
			return
		}
		err := m.persist(g, nil, &pendingWrite{
			group: g.name, member: mem.id, skipAssignment: rq.CanSkipAssignment, leaderBefore: leaderBefore,
		})
		if err != nil {
			m.rebalanceOrComplete(now, g)
		}
	case CompletingRebalance:
		// The leader may be assigning to the old id right now; the new one would get nothing.
		m.prepareRebalance(now, g)
	default:
		m.maybeCompleteJoin(now, g)
	}
}

// swapStatic gives the member a new id in the old one's place.
func (m *Machine) swapStatic(g *Group, old *member, id string) *member {
	m.answerJoin(g, old, JoinReply{Member: old.id, Err: ErrFencedInstance})
	m.answerSync(old, SyncReply{Err: ErrFencedInstance})
	m.timers.cancel(&old.session)

	mem := &member{
		id: id, instance: old.instance, clientID: old.clientID, host: old.host,
		rebalanceTimeout: old.rebalanceTimeout, sessionTimeout: old.sessionTimeout,
		protocols: old.protocols, assignment: old.assignment,
	}
	mem.session = timer{group: g, kind: timerSession, member: mem}
	for i := range g.members {
		if g.members[i] == old {
			g.members[i] = mem
		}
	}
	delete(g.byID, old.id)
	m.synced(g, old) // nobody waits for a sync of the old id
	g.byID[id] = mem
	g.static[mem.instance] = mem
	if g.leader == old.id {
		g.leader = id
	}
	return mem
}

// staticMemberStored answers a static member whose return needed no rebalance.
func (m *Machine) staticMemberStored(now time.Time, g *Group, p *pendingWrite) {
	mem := g.byID[p.member]
	if mem == nil || mem.join == 0 {
		return
	}
	if g.state == PreparingRebalance {
		return // a rebalance began meanwhile: the join waits for it
	}
	r := JoinReply{
		Member: mem.id, Generation: g.generation, ProtocolType: g.protocolType, Protocol: g.protocol,
		Leader: p.leaderBefore,
	}
	if p.skipAssignment {
		// Versions that know skipAssignment hear who leads; older ones hear of the leader
		// before, so that a leader that came back does not assign again.
		r.Leader = g.leader
		if g.leader == mem.id {
			r.Members, r.SkipAssignment = g.joinMembers(), true
		}
	}
	m.answerJoin(g, mem, r)
	m.timers.set(&mem.session, now.Add(mem.sessionTimeout))
}
