package group

import (
	"slices"
	"time"
)

// State is a group's state, named as Kafka names it.
type State uint8

// The states. A group that does not exist is Dead.
const (
	Empty State = iota
	PreparingRebalance
	CompletingRebalance
	Stable
	Dead
)

func (s State) String() string {
	return [...]string{"Empty", "PreparingRebalance", "CompletingRebalance", "Stable", "Dead"}[s]
}

// Group is one consumer group.
type Group struct {
	name  string
	state State
	// previous is the state before this one: an initial rebalance is one that came from Empty.
	previous State
	// since is when state was entered, in ms since 1970; offset retention counts from it.
	since int64

	generation   int32
	protocolType string // "": none was ever set (offsets only)
	protocol     string // selected; "": none
	leader       string // member id; "": none

	// due says, of a group that was just decoded, that it was about to rebalance.
	due bool

	// members in the order in which they joined.
	members []*member
	byID    map[string]*member
	static  map[string]*member // by group.instance.id
	// pendingJoin are the ids that were given out with ErrMemberIDRequired, each with the
	// timer that takes it back.
	pendingJoin map[string]*timer
	// pendingSync are the members of this generation that have not sent SyncGroup.
	pendingSync map[string]bool
	awaiting    int // members whose join is parked

	// supported counts, for each protocol name, the members that speak it.
	supported map[string]int
	// topics the members subscribe to; known only of protocol type "consumer" with
	// metadata that parses.
	topics      map[string]bool
	topicsKnown bool

	// joinTimer ends the join phase, syncTimer the sync phase.
	joinTimer, syncTimer timer
	// Of the initial rebalance: whether a member came since its timer was set, the delay
	// it was set to, and what is left of the rebalance timeout.
	newMember           bool
	delay, delayRemains time.Duration
}

func newGroup(name string, now time.Time) *Group {
	g := &Group{
		name: name, since: now.UnixMilli(),
		byID: make(map[string]*member), static: make(map[string]*member),
		pendingJoin: make(map[string]*timer), pendingSync: make(map[string]bool),
		supported: make(map[string]int),
	}
	g.joinTimer = timer{group: g, kind: timerJoin}
	g.syncTimer = timer{group: g, kind: timerSync}
	return g
}

// Protocol is one that a member can speak, with its metadata.
type Protocol struct {
	Name     string
	Metadata []byte
}

// member is one member of one group.
type member struct {
	id, instance     string // instance "": dynamic
	clientID, host   string
	rebalanceTimeout time.Duration
	sessionTimeout   time.Duration
	protocols        []Protocol // in the member's order of preference
	assignment       []byte

	join, sync Ticket // parked requests, 0 if none
	// isNew: its first join is parked, so it can expire although it waits.
	isNew   bool
	session timer
}

func (g *Group) become(now time.Time, s State) {
	g.previous, g.state, g.since = g.state, s, now.UnixMilli()
}

// add puts a member into the group. Its id, instance and protocols have been checked.
func (g *Group) add(mem *member) {
	mem.session = timer{group: g, kind: timerSession, member: mem}
	if len(g.members) == 0 {
		g.supported = make(map[string]int)
	}
	if mem.instance != "" {
		g.static[mem.instance] = mem
	}
	if g.leader == "" {
		g.leader = mem.id
	}
	g.members = append(g.members, mem)
	g.byID[mem.id] = mem
	g.count(mem, 1)
	if mem.join != 0 {
		g.awaiting++
	}
}

// remove takes a member out. Its parked requests have been answered.
func (g *Group) remove(mem *member) {
	i := slices.Index(g.members, mem)
	g.members = slices.Delete(g.members, i, i+1)
	delete(g.byID, mem.id)
	g.count(mem, -1)
	if mem.join != 0 {
		g.awaiting--
	}
	if mem.instance != "" {
		delete(g.static, mem.instance)
	}
	if g.leader == mem.id {
		g.leader = ""
		if len(g.members) > 0 {
			g.leader = g.members[0].id
		}
	}
	delete(g.pendingSync, mem.id)
}

// count adds by to the counts of the member's protocols.
func (g *Group) count(mem *member, by int) {
	for _, p := range mem.protocols {
		g.supported[p.Name] += by
	}
}

// update replaces what a member's join brought.
func (g *Group) update(mem *member, rq *JoinRequest) {
	g.count(mem, -1)
	mem.protocols = rq.Protocols
	g.count(mem, 1)
	mem.rebalanceTimeout, mem.sessionTimeout = rq.RebalanceTimeout, rq.SessionTimeout
	if mem.join == 0 {
		g.awaiting++
	}
	mem.join = rq.Ticket
}

// validate checks that a request comes from a member as the group knows it.
func (g *Group) validate(memberID, instance string) error {
	if instance != "" {
		switch mem := g.static[instance]; {
		case mem == nil:
			return ErrUnknownMember
		case mem.id != memberID:
			return ErrFencedInstance
		}
	}
	if g.byID[memberID] == nil {
		return ErrUnknownMember
	}
	return nil
}

func (g *Group) allJoined() bool {
	return len(g.members) == g.awaiting && len(g.pendingJoin) == 0
}

// rebalanceTimeout is the longest of the members'.
func (g *Group) rebalanceTimeout() time.Duration {
	var longest time.Duration
	for _, mem := range g.members {
		longest = max(longest, mem.rebalanceTimeout)
	}
	return longest
}

// supports says whether a member with these protocols can be in the group.
func (g *Group) supports(protocolType string, protocols []Protocol) bool {
	if g.state == Empty {
		return protocolType != "" && len(protocols) > 0
	}
	if g.protocolType == "" || g.protocolType != protocolType {
		return false
	}
	return slices.ContainsFunc(protocols, func(p Protocol) bool {
		return g.supported[p.Name] == len(g.members)
	})
}

// selectProtocol takes the vote: each member names the first of its protocols that all
// speak; most votes win, and of equals the one that was named first.
func (g *Group) selectProtocol() string {
	votes := make(map[string]int)
	best := ""
	for _, mem := range g.members {
		for _, p := range mem.protocols {
			if g.supported[p.Name] == len(g.members) {
				votes[p.Name]++
				break
			}
		}
	}
	for _, mem := range g.members { // the order of members decides between equals
		for _, p := range mem.protocols {
			if votes[p.Name] > votes[best] {
				best = p.Name
			}
		}
	}
	return best
}

// electJoined makes sure that the leader is a member that has joined. false: nobody has.
func (g *Group) electJoined() bool {
	leader := g.byID[g.leader]
	if leader == nil {
		return false
	}
	if leader.join != 0 {
		return true
	}
	for _, mem := range g.members {
		if mem.join != 0 {
			g.leader = mem.id
			return true
		}
	}
	return false
}

// nextGeneration begins one, with the protocol that the members chose.
func (g *Group) nextGeneration(now time.Time) {
	g.generation++
	if len(g.members) == 0 {
		g.protocol = ""
		g.become(now, Empty)
	} else {
		g.protocol = g.selectProtocol()
		g.become(now, CompletingRebalance)
	}
	g.subscribe()
	clear(g.pendingSync)
}

// metadata is what a member said about the given protocol, nil if it does not speak it.
func (mem *member) metadata(protocol string) []byte {
	for _, p := range mem.protocols {
		if p.Name == protocol {
			return p.Metadata
		}
	}
	return nil
}

// matches says whether a join brings nothing new.
func (mem *member) matches(protocols []Protocol) bool {
	return slices.EqualFunc(mem.protocols, protocols, func(a, b Protocol) bool {
		return a.Name == b.Name && string(a.Metadata) == string(b.Metadata)
	})
}

// heartbeatSatisfied: a member that waits for us needs no heartbeat, unless it is a new one.
func (mem *member) heartbeatSatisfied() bool {
	return !mem.isNew && (mem.join != 0 || mem.sync != 0)
}
