package group

import (
	"maps"
	"slices"
	"time"
)

// Config holds the broker's group settings; each field names its Kafka config.
type Config struct {
	MinSessionTimeout     time.Duration // group.min.session.timeout.ms
	MaxSessionTimeout     time.Duration // group.max.session.timeout.ms
	InitialRebalanceDelay time.Duration // group.initial.rebalance.delay.ms
	MaxSize               int           // group.max.size
	// MaxMetadataBytes bounds the stored metadata of one group.
	MaxMetadataBytes int
	// MaxGroups bounds the groups of one machine: a new one beyond it is refused with
	// ErrCoordinatorNotAvailable.
	MaxGroups int
}

// newMemberJoinTimeout: a member that joins for the first time cannot send heartbeats while
// it waits, so a join that nobody waits for any more is dropped after this (Kafka's value).
const newMemberJoinTimeout = 5 * time.Minute

// maxPendingJoin bounds the member ids of one group that were given out and not used yet.
const maxPendingJoin = 10_000

// Ticket names a parked request. The driver chooses it, never 0, and hears of it once.
type Ticket uint64

// Token names a write of which the machine wants to hear; 0 means it does not.
type Token uint64

// Write is metadata to persist. Writes of one machine must become durable in the order in
// which they came. If one cannot be, the machine is no longer believed: drop it (Unload) and
// load another from what is stored.
type Write struct {
	Group string
	Drop  bool   // remove the group and its offsets
	Value []byte // its metadata otherwise
	Token Token
}

// Effects is what the machine wants done.
type Effects struct {
	Joins  []JoinReply
	Syncs  []SyncReply
	Writes []Write
}

// Machine coordinates the groups of one coordinator partition. Not for concurrent use.
type Machine struct {
	cfg     Config
	groups  map[string]*Group
	timers  timers
	pending map[Token]pendingWrite
	token   Token
	out     Effects
}

// New returns a machine without groups.
func New(cfg Config) *Machine {
	return &Machine{cfg: cfg, groups: make(map[string]*Group), pending: make(map[Token]pendingWrite)}
}

// Drain returns what the inputs since the last Drain asked for.
func (m *Machine) Drain() Effects {
	out := m.out
	m.out = Effects{}
	return out
}

// Next is the time at which Tick has to be called, if any.
func (m *Machine) Next() (time.Time, bool) { return m.timers.next() }

// Tick lets everything happen that is due at now.
func (m *Machine) Tick(now time.Time) {
	for t := m.timers.pop(now); t != nil; t = m.timers.pop(now) {
		g := t.group
		switch t.kind {
		case timerSession:
			m.sessionExpired(now, g, t.member)
		case timerPendingSession:
			m.pendingExpired(now, g, t.memberID)
		case timerInitialJoin:
			m.initialDelayOver(now, g)
		case timerJoin:
			m.completeJoin(now, g)
		case timerSync:
			m.syncExpired(now, g)
		}
	}
}

// Load puts a stored group into the machine: an empty value is one that has offsets only.
func (m *Machine) Load(now time.Time, name string, value []byte) error {
	if value == nil {
		m.groups[name] = newGroup(name, now)
		return nil
	}
	g, err := decodeGroup(name, value)
	if err != nil {
		return err
	}
	m.groups[name] = g
	for _, mem := range g.members {
		m.timers.set(&mem.session, now.Add(mem.sessionTimeout))
	}
	if g.due || len(g.members) > m.cfg.MaxSize {
		// Somebody left, or the limit was lowered: let the members join again, as many as fit.
		g.due = false
		m.prepareRebalance(now, g)
	}
	return nil
}

// Unload answers every parked request with ErrNotCoordinator. The machine is done with.
func (m *Machine) Unload() {
	for _, name := range slices.Sorted(maps.Keys(m.groups)) {
		g := m.groups[name]
		for _, mem := range g.members {
			m.answerJoin(g, mem, JoinReply{Member: mem.id, Err: ErrNotCoordinator})
			m.answerSync(mem, SyncReply{Err: ErrNotCoordinator})
		}
	}
	m.groups = nil
}

// Len is the number of groups.
func (m *Machine) Len() int { return len(m.groups) }

// Count adds this machine's groups by state to counts.
func (m *Machine) Count(counts map[State]int) {
	for _, g := range m.groups {
		counts[g.state]++
	}
}

// create makes an empty group.
func (m *Machine) create(now time.Time, name string) (*Group, error) {
	if len(m.groups) >= m.cfg.MaxGroups {
		return nil, ErrCoordinatorNotAvailable
	}
	g := newGroup(name, now)
	m.groups[name] = g
	return g, nil
}

// drop forgets a group and its timers.
func (m *Machine) drop(g *Group) {
	for _, mem := range g.members {
		m.timers.cancel(&mem.session)
	}
	for _, t := range g.pendingJoin {
		m.timers.cancel(t)
	}
	m.timers.cancel(&g.joinTimer)
	m.timers.cancel(&g.syncTimer)
	delete(m.groups, g.name)
}

// persist asks for the group's metadata to be stored, with the given assignments in place
// of the members' own if there are any.
func (m *Machine) persist(g *Group, assignments map[string][]byte, p *pendingWrite) error {
	value := appendGroup(nil, g, assignments)
	if len(value) > m.cfg.MaxMetadataBytes {
		return ErrMetadataTooLarge
	}
	w := Write{Group: g.name, Value: value}
	if p != nil {
		m.token++
		w.Token = m.token
		m.pending[w.Token] = *p
	}
	m.out.Writes = append(m.out.Writes, w)
	return nil
}

// pendingWrite is what to do once a write is durable.
type pendingWrite struct {
	group string
	// sync: propagate these assignments of this generation.
	sync        bool
	generation  int32
	assignments map[string][]byte
	// otherwise: answer this static member's join.
	member         string
	skipAssignment bool
	leaderBefore   string
}

// Persisted says that the write with this token is durable.
func (m *Machine) Persisted(now time.Time, token Token) {
	p, ok := m.pending[token]
	delete(m.pending, token)
	g := m.groups[p.group]
	switch {
	case !ok || g == nil:
	case p.sync:
		m.assignmentStored(now, g, &p)
	default:
		m.staticMemberStored(now, g, &p)
	}
}
