package group

import (
	"slices"
	"time"
)

// JoinRequest is a JoinGroup. Byte slices and strings become the machine's.
type JoinRequest struct {
	Ticket         Ticket
	Group          string
	Member         string // "": not known yet
	Instance       string // group.instance.id, "" if none
	ClientID, Host string
	// NewID is the member id to give if Member is "": client or instance id, "-", a UUID.
	NewID            string
	SessionTimeout   time.Duration
	RebalanceTimeout time.Duration
	ProtocolType     string
	Protocols        []Protocol
	// RequireKnownID: the client's version (4 and up) can be told to join again with an id.
	RequireKnownID bool
	// CanSkipAssignment: the client's version (9 and up) knows skipAssignment.
	CanSkipAssignment bool
}

// JoinMember is one member as the leader sees it.
type JoinMember struct {
	ID, Instance string
	Metadata     []byte
}

// JoinReply answers a JoinGroup.
type JoinReply struct {
	Ticket         Ticket
	Err            error
	Generation     int32 // -1 with most errors
	ProtocolType   string
	Protocol       string
	Leader         string
	Member         string
	SkipAssignment bool
	Members        []JoinMember // the leader's only
}

func (m *Machine) refuseJoin(rq *JoinRequest, member string, err error) {
	m.out.Joins = append(m.out.Joins, JoinReply{Ticket: rq.Ticket, Member: member, Err: err, Generation: -1})
}

// Join handles a JoinGroup; the reply comes with the effects, now or later.
func (m *Machine) Join(now time.Time, rq *JoinRequest) {
	if rq.Group == "" {
		m.refuseJoin(rq, rq.Member, ErrInvalidGroup)
		return
	}
	if rq.SessionTimeout < m.cfg.MinSessionTimeout || rq.SessionTimeout > m.cfg.MaxSessionTimeout {
		m.refuseJoin(rq, rq.Member, ErrInvalidSessionTimeout)
		return
	}
	rq.Protocols = distinct(rq.Protocols)
	g := m.groups[rq.Group]
	created := false
	if g == nil {
		if rq.Member != "" {
			m.refuseJoin(rq, rq.Member, ErrUnknownMember)
			return
		}
		var err error
		if g, err = m.create(now, rq.Group); err != nil {
			m.refuseJoin(rq, "", err)
			return
		}
		created = true
	}
	writes := len(m.out.Writes)
	switch {
	case !m.accepts(g, rq.Member):
		m.forgetID(g, rq.Member)
		m.refuseJoin(rq, "", ErrMaxSize)
		m.maybeCompleteJoin(now, g) // it may have been the last one missing
	case rq.Member == "":
		m.joinNew(now, g, rq)
	default:
		m.joinKnown(now, g, rq)
	}
	if created && len(m.out.Writes) == writes {
		// The group exists from now on, whatever became of its first join. It is small:
		// it has no stored members.
		_ = m.persist(g, nil, nil)
	}
}

// distinct keeps the first of protocols with one name: they are counted by name.
func distinct(protocols []Protocol) []Protocol {
	seen := make(map[string]bool, len(protocols))
	return slices.DeleteFunc(protocols, func(p Protocol) bool {
		again := seen[p.Name]
		seen[p.Name] = true
		return again
	})
}

// accepts applies group.max.size.
func (m *Machine) accepts(g *Group, memberID string) bool {
	mem := g.byID[memberID]
	switch g.state {
	case PreparingRebalance:
		// Those who wait count, not the members: the size may be above a limit that was
		// lowered, and the last to rejoin are the ones to go.
		return (mem != nil && mem.join != 0) || g.awaiting < m.cfg.MaxSize
	case CompletingRebalance, Stable:
		return mem != nil || len(g.members) < m.cfg.MaxSize
	default:
		return true
	}
}

// forgetID removes whatever is known under a member id that was refused.
func (m *Machine) forgetID(g *Group, memberID string) {
	if t := g.pendingJoin[memberID]; t != nil {
		m.timers.cancel(t)
		delete(g.pendingJoin, memberID)
	}
	if mem := g.byID[memberID]; mem != nil {
		m.timers.cancel(&mem.session)
		m.answerSync(mem, SyncReply{Err: ErrUnknownMember})
		g.remove(mem)
	}
}

func (m *Machine) joinNew(now time.Time, g *Group, rq *JoinRequest) {
	if !g.supports(rq.ProtocolType, rq.Protocols) {
		m.refuseJoin(rq, "", ErrInconsistentProtocol)
		return
	}
	switch {
	case rq.Instance != "":
		if old := g.static[rq.Instance]; old != nil {
			m.replaceStatic(now, g, old, rq)
			return
		}
		m.addMember(now, g, rq.NewID, rq)
	case rq.RequireKnownID && len(g.pendingJoin) >= maxPendingJoin:
		m.refuseJoin(rq, "", ErrCoordinatorNotAvailable)
	case rq.RequireKnownID:
		t := &timer{group: g, kind: timerPendingSession, memberID: rq.NewID}
		g.pendingJoin[rq.NewID] = t
		m.timers.set(t, now.Add(rq.SessionTimeout))
		m.refuseJoin(rq, rq.NewID, ErrMemberIDRequired)
	default:
		m.addMember(now, g, rq.NewID, rq)
	}
}

func (m *Machine) joinKnown(now time.Time, g *Group, rq *JoinRequest) {
	if !g.supports(rq.ProtocolType, rq.Protocols) {
		m.refuseJoin(rq, rq.Member, ErrInconsistentProtocol)
		return
	}
	if t := g.pendingJoin[rq.Member]; t != nil {
		if rq.Instance != "" {
			// An id that was given to a dynamic member. Kafka has no answer for this.
			m.refuseJoin(rq, rq.Member, ErrUnknownMember)
			return
		}
		m.timers.cancel(t)
		delete(g.pendingJoin, rq.Member)
		m.addMember(now, g, rq.Member, rq)
		return
	}
	if err := g.validate(rq.Member, rq.Instance); err != nil {
		m.refuseJoin(rq, rq.Member, err)
		return
	}
	mem := g.byID[rq.Member]
	switch {
	case g.state == PreparingRebalance,
		g.state == Stable && g.leader == mem.id, // the leader may have seen what we cannot, such as new partitions
		g.state != Empty && !mem.matches(rq.Protocols):
		m.updateMember(now, g, mem, rq)
	case g.state == CompletingRebalance, g.state == Stable:
		// It missed the answer: this is it again.
		reply := g.joinReply(mem)
		reply.Ticket = rq.Ticket
		m.out.Joins = append(m.out.Joins, reply)
	default:
		m.refuseJoin(rq, rq.Member, ErrUnknownMember)
	}
}

// joinReply is the answer of the current generation.
func (g *Group) joinReply(mem *member) JoinReply {
	r := JoinReply{
		Generation: g.generation, ProtocolType: g.protocolType, Protocol: g.protocol,
		Leader: g.leader, Member: mem.id,
	}
	if g.leader == mem.id {
		r.Members = g.joinMembers()
	}
	return r
}

func (g *Group) joinMembers() []JoinMember {
	out := make([]JoinMember, 0, len(g.members))
	for _, mem := range g.members {
		out = append(out, JoinMember{ID: mem.id, Instance: mem.instance, Metadata: mem.metadata(g.protocol)})
	}
	return out
}

func (m *Machine) addMember(now time.Time, g *Group, id string, rq *JoinRequest) {
	mem := &member{
		id: id, instance: rq.Instance, clientID: rq.ClientID, host: rq.Host,
		rebalanceTimeout: rq.RebalanceTimeout, sessionTimeout: rq.SessionTimeout,
		protocols: rq.Protocols, join: rq.Ticket, isNew: true,
	}
	if g.state == PreparingRebalance && g.previous == Empty {
		g.newMember = true // more may come: the initial delay is extended
	}
	if len(g.members) == 0 {
		g.protocolType = rq.ProtocolType
	}
	g.add(mem)
	m.timers.set(&mem.session, now.Add(newMemberJoinTimeout))
	m.rebalanceOrComplete(now, g)
}

func (m *Machine) updateMember(now time.Time, g *Group, mem *member, rq *JoinRequest) {
	m.supersede(mem)
	g.update(mem, rq)
	m.rebalanceOrComplete(now, g)
}

// supersede answers a join whose member has sent another one meanwhile. (Kafka leaves it
// without an answer; nobody can be waiting for it but a client that would wait for ever.)
func (m *Machine) supersede(mem *member) {
	if mem.join != 0 {
		m.out.Joins = append(m.out.Joins, JoinReply{Ticket: mem.join, Member: mem.id, Err: ErrRebalanceInProgress, Generation: -1})
	}
}

// answerJoin answers a member's parked join, if there is one.
func (m *Machine) answerJoin(g *Group, mem *member, r JoinReply) {
	if mem.join == 0 {
		return
	}
	r.Ticket = mem.join
	if r.Err != nil {
		r.Generation = -1
	}
	mem.join = 0
	g.awaiting--
	m.out.Joins = append(m.out.Joins, r)
}
