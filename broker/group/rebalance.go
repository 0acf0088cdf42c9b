package group

import (
	"slices"
	"time"
)

// rebalanceOrComplete begins a rebalance, or looks whether the one that is on can go on.
func (m *Machine) rebalanceOrComplete(now time.Time, g *Group) {
	if g.state == PreparingRebalance {
		m.maybeCompleteJoin(now, g)
		return
	}
	m.prepareRebalance(now, g)
}

// prepareRebalance begins the join phase.
func (m *Machine) prepareRebalance(now time.Time, g *Group) {
	if g.state == CompletingRebalance {
		m.resetAssignments(now, g, ErrRebalanceInProgress)
	}
	clear(g.pendingSync)
	m.timers.cancel(&g.syncTimer)

	if g.state == Empty {
		// The group is new: give more members the time to come.
		g.joinTimer.kind = timerInitialJoin
		g.newMember = false
		g.delay = m.cfg.InitialRebalanceDelay
		g.delayRemains = max(g.rebalanceTimeout()-g.delay, 0)
		m.timers.set(&g.joinTimer, now.Add(g.delay))
		g.become(now, PreparingRebalance)
		return
	}
	g.become(now, PreparingRebalance)
	if g.allJoined() {
		m.completeJoin(now, g)
		return
	}
	m.waitForJoins(now, g, 0)
}

func (m *Machine) waitForJoins(now time.Time, g *Group, atLeast time.Duration) {
	g.joinTimer.kind = timerJoin
	m.timers.set(&g.joinTimer, now.Add(max(g.rebalanceTimeout(), atLeast)))
}

// initialDelayOver extends the delay while members keep coming, as far as the rebalance
// timeout allows.
func (m *Machine) initialDelayOver(now time.Time, g *Group) {
	if !g.newMember || g.delayRemains == 0 {
		m.completeJoin(now, g)
		return
	}
	g.newMember = false
	last := g.delay
	g.delay = min(m.cfg.InitialRebalanceDelay, g.delayRemains)
	g.delayRemains = max(g.delayRemains-last, 0)
	g.joinTimer.kind = timerInitialJoin
	m.timers.set(&g.joinTimer, now.Add(g.delay))
}

// maybeCompleteJoin ends the join phase if everybody is there. An initial rebalance waits
// for its delay.
func (m *Machine) maybeCompleteJoin(now time.Time, g *Group) {
	if g.state == PreparingRebalance && g.previous != Empty && g.allJoined() {
		m.completeJoin(now, g)
	}
}

// completeJoin ends the join phase: who did not come is out, and a generation begins.
func (m *Machine) completeJoin(now time.Time, g *Group) {
	m.timers.cancel(&g.joinTimer)
	if g.state != PreparingRebalance {
		return
	}
	for _, mem := range slices.Clone(g.members) {
		if mem.join == 0 && mem.instance == "" {
			m.timers.cancel(&mem.session)
			g.remove(mem)
		}
	}
	if len(g.members) > 0 && !g.electJoined() {
		// Only static members that have not come back: wait until they do, or expire.
		// A rebalance timeout of nothing must not make this a loop without time.
		m.waitForJoins(now, g, time.Second)
		return
	}
	g.nextGeneration(now)
	if g.state == Empty {
		// If this write is lost the generation before comes back, without members that live.
		_ = m.persist(g, nil, nil)
		return
	}
	for _, mem := range g.members {
		m.answerJoin(g, mem, g.joinReply(mem))
		m.timers.set(&mem.session, now.Add(mem.sessionTimeout))
		mem.isNew = false
		g.pendingSync[mem.id] = true
	}
	m.timers.set(&g.syncTimer, now.Add(g.rebalanceTimeout()))
}

// syncExpired takes out who joined but did not sync in time.
func (m *Machine) syncExpired(now time.Time, g *Group) {
	if g.state != CompletingRebalance && g.state != Stable || len(g.pendingSync) == 0 {
		return
	}
	for _, mem := range slices.Clone(g.members) {
		if g.pendingSync[mem.id] {
			m.timers.cancel(&mem.session)
			m.answerJoin(g, mem, JoinReply{Err: ErrUnknownMember})
			g.remove(mem)
		}
	}
	m.prepareRebalance(now, g)
}

// sessionExpired takes out a member that was silent for its session timeout.
func (m *Machine) sessionExpired(now time.Time, g *Group, mem *member) {
	if g.byID[mem.id] != mem || mem.heartbeatSatisfied() {
		return
	}
	m.answerJoin(g, mem, JoinReply{Err: ErrUnknownMember})
	g.remove(mem)
	switch {
	case g.state == Stable || g.state == CompletingRebalance:
		m.rebalanceOrComplete(now, g)
	case g.state == PreparingRebalance && g.allJoined():
		m.completeJoin(now, g)
	}
}

// pendingExpired takes back a member id that nobody used.
func (m *Machine) pendingExpired(now time.Time, g *Group, memberID string) {
	delete(g.pendingJoin, memberID)
	if g.state == PreparingRebalance && g.allJoined() {
		m.completeJoin(now, g)
	}
}

// resetAssignments takes the assignments back and tells those who wait for one why.
func (m *Machine) resetAssignments(now time.Time, g *Group, err error) {
	for _, mem := range g.members {
		mem.assignment = nil
		if mem.sync != 0 {
			m.answerSync(mem, SyncReply{Err: err})
			m.timers.set(&mem.session, now.Add(mem.sessionTimeout))
		}
	}
}
