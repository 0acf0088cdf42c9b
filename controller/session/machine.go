package session

import (
	"maps"
	"slices"
	"time"

	"github.com/skeinmq/skein/controller/failover"
	"github.com/skeinmq/skein/internal/ident"
)

// Reason says why a session is what it is.
type Reason string

// The reasons.
const (
	Heard    Reason = "heard"    // a heartbeat came
	Silent   Reason = "silent"   // none came for the timeout
	Refused  Reason = "refused"  // its address refuses connections
	Left     Reason = "left"     // it said so
	Replaced Reason = "replaced" // a newer incarnation is here
)

// Listed is a broker as the map has it.
type Listed struct {
	Broker ident.Broker
	// Incarnation of its registration, 0 if it has none and only hosts logs.
	Incarnation int64
	Address     string // of its internal listener, "" if not known
}

// Beat is one heartbeat.
type Beat struct {
	Broker      ident.Broker
	Incarnation int64
	Leaving     bool
	Draining    bool
}

// Action is what the machine wants done: a knock at a broker's door if Probe is set, telling of a change otherwise.
type Action struct {
	Probe       bool
	Address     string
	Broker      ident.Broker
	Incarnation int64
	Standing    failover.Standing
	Reason      Reason
}

// Machine holds the sessions of one controller in one term. It is pure: now is the time since the term began, by a
// clock that never goes back. Not for concurrent use.
type Machine struct {
	timeout time.Duration
	probe   time.Duration // between two knocks
	self    ident.Broker
	brokers map[ident.Broker]*broker
	ticked  time.Duration
	actions []Action

	former ident.Broker  // led before
	silent time.Duration // how long it was when the term began
}

// broker is one session.
type broker struct {
	id          ident.Broker
	incarnation int64
	address     string
	standing    failover.Standing
	since       time.Duration
	heard       time.Duration // newest sign of life
	streams     map[uint64]bool
	probing     bool
	probed      time.Duration // when the newest knock ended
}

// NewMachine begins a term in which nothing is known. Nobody knocks at self's door.
func NewMachine(self ident.Broker, timeout, probe time.Duration) *Machine {
	return &Machine{self: self, timeout: timeout, probe: probe, brokers: make(map[ident.Broker]*broker)}
}

// Former says who led before, and for how long it had not been heard when the term began: the voters have waited for it
// already. A quarter of the timeout is left to it, as it may only have been deposed.
func (m *Machine) Former(id ident.Broker, silent time.Duration) {
	m.former, m.silent = id, max(0, min(silent, m.timeout-m.timeout/4))
}

// Drain returns what the events since the last Drain ask for.
func (m *Machine) Drain() []Action {
	out := m.actions
	m.actions = nil
	return out
}

// List tells which brokers the map knows: registrations, and hosts of logs.
func (m *Machine) List(now time.Duration, listed []Listed) {
	seen := make(map[ident.Broker]bool, len(listed))
	for _, l := range listed {
		seen[l.Broker] = true
		b := m.brokers[l.Broker]
		switch {
		case b == nil:
			m.add(now, l)
		case l.Incarnation > b.incarnation:
			// It registered anew and was not heard yet: it has the full timeout for that.
			m.renew(now, b, l.Incarnation)
			b.address = l.Address
		case l.Incarnation == b.incarnation && l.Address != "":
			b.address = l.Address
		}
	}
	// Who was given up stays so for the term, or it would come back to life by its next heartbeat.
	maps.DeleteFunc(m.brokers, func(id ident.Broker, b *broker) bool { return !seen[id] && b.standing == failover.Unknown })
}

func (m *Machine) add(now time.Duration, l Listed) *broker {
	b := &broker{id: l.Broker, incarnation: l.Incarnation, address: l.Address, since: now, heard: now, probed: now - m.probe, streams: make(map[uint64]bool)}
	if l.Broker == m.former {
		b.heard = now - m.silent
		m.silent = 0 // once
	}
	m.brokers[l.Broker] = b
	return b
}

// renew begins the session of a newer incarnation.
func (m *Machine) renew(now time.Duration, b *broker, incarnation int64) {
	if b.standing != failover.Unknown && b.standing != failover.Dead {
		m.become(now, b, failover.Dead, Replaced)
	}
	b.incarnation, b.heard, b.probing, b.probed = incarnation, now, false, now-m.probe
	b.streams = make(map[uint64]bool)
	b.standing, b.since = failover.Unknown, now
}

func (m *Machine) become(now time.Duration, b *broker, s failover.Standing, why Reason) {
	if b.standing == s {
		return
	}
	b.standing, b.since = s, now
	m.actions = append(m.actions, Action{Broker: b.id, Incarnation: b.incarnation, Standing: s, Reason: why})
}

// Beat is a heartbeat on a stream; streams have numbers that are never used twice. It returns whether that incarnation
// was given up or replaced: it has to hear of it.
func (m *Machine) Beat(now time.Duration, stream uint64, hb Beat) (dead bool) {
	b := m.brokers[hb.Broker]
	if b == nil {
		b = m.add(now, Listed{Broker: hb.Broker, Incarnation: hb.Incarnation})
	}
	if hb.Incarnation < b.incarnation {
		return true
	}
	if hb.Incarnation > b.incarnation {
		m.renew(now, b, hb.Incarnation)
	}
	if b.standing == failover.Dead {
		return true
	}
	b.heard = now
	b.streams[stream] = true
	switch {
	case hb.Leaving || b.standing == failover.Leaving:
		m.become(now, b, failover.Leaving, Left)
	case hb.Draining:
		m.become(now, b, failover.Draining, Heard)
	default:
		m.become(now, b, failover.Live, Heard)
	}
	return false
}

// Closed says that a stream has ended.
func (m *Machine) Closed(now time.Duration, stream uint64) {
	for _, b := range m.brokers {
		if b.streams[stream] {
			delete(b.streams, stream)
			b.probed = now - m.probe // knock at once
		}
	}
}

// Probed says how a knock at the door of an incarnation ended.
func (m *Machine) Probed(now time.Duration, id ident.Broker, incarnation int64, refused bool) {
	b := m.brokers[id]
	if b == nil || b.incarnation != incarnation {
		return
	}
	b.probing, b.probed = false, now
	if refused && len(b.streams) == 0 && b.standing != failover.Dead {
		m.become(now, b, failover.Dead, Refused)
	}
}

// Tick lets happen what is due. It is called a few times in each timeout.
func (m *Machine) Tick(now time.Duration) {
	if stood := now - m.ticked; stood > m.timeout/4 {
		// This process stood still, and what others sent meanwhile may not have been read yet.
		for _, b := range m.brokers {
			b.heard += stood
		}
	}
	m.ticked = now
	for _, id := range slices.Sorted(maps.Keys(m.brokers)) {
		b := m.brokers[id]
		switch {
		case b.standing == failover.Dead:
		case now-b.heard >= m.timeout:
			m.become(now, b, failover.Dead, Silent)
		case len(b.streams) == 0 && id != m.self && b.address != "" && !b.probing && now-b.probed >= m.probe:
			b.probing = true
			m.actions = append(m.actions, Action{Probe: true, Broker: id, Incarnation: b.incarnation, Address: b.address})
		}
	}
}

// Session returns what is known about a broker, and since when.
func (m *Machine) Session(id ident.Broker) (s failover.Standing, incarnation int64, since time.Duration) {
	b := m.brokers[id]
	if b == nil {
		return failover.Unknown, 0, 0
	}
	return b.standing, b.incarnation, b.since
}

// Count counts the brokers of each standing.
func (m *Machine) Count() map[failover.Standing]int {
	out := make(map[failover.Standing]int)
	for _, b := range m.brokers {
		out[b.standing]++
	}
	return out
}

func standingName(s failover.Standing) string {
	switch s {
	case failover.Live:
		return "live"
	case failover.Draining:
		return "draining"
	case failover.Leaving:
		return "leaving"
	case failover.Dead:
		return "dead"
	default:
		return "unknown"
	}
}
