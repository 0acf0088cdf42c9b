package witness

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/skeinmq/skein/internal/ident"
)

// OwnerConfig configures an Owner. The zero value of each optional field means its default.
type OwnerConfig struct {
	Key  Key
	Self ID
	Rack string
	Size int // members wanted; default 2
	// FirstSession is above every session that this process has begun for the log before.
	FirstSession uint64
	// Timeout is how long a member may hold up commits without any progress; default 300 ms.
	Timeout time.Duration
	// Probe is after how long without a commit the members are asked for a sign of life: one that hangs is noticed then, and
	// not by the commit that next has to wait for it. It is given three timeouts as long as no commit waits; default 500 ms.
	Probe time.Duration
	// TableTimeout is how long a joiner may take for the whole table; default 5 s.
	TableTimeout time.Duration
	// Alone is how long an owner whose members have all failed waits before it goes on without any, while the map shows
	// other brokers: who hears nobody is more likely cut off itself, and must not be what keeps the others from its
	// table. It is longer than a broker may be silent before others take over; default 3 s.
	Alone time.Duration
	// A member that failed is not asked again for Backoff, twice as long each time, up to MaxBackoff; default 1 s and 60 s.
	// While there is no other one, Backoff is all that it rests: a slow witness is better than none.
	Backoff, MaxBackoff time.Duration
	// Better is for how long a broker must have stood ready that is farther away than a member, by racks, before it takes that
	// one's place; default 10 s.
	Better time.Duration
	// MaxBacklog bounds the bytes of deltas that a joiner may be behind; default 64 MiB.
	MaxBacklog int64
}

func (c OwnerConfig) withDefaults() OwnerConfig {
	c.Size = cmp.Or(c.Size, 2)
	c.Timeout = cmp.Or(c.Timeout, 300*time.Millisecond)
	c.Probe = cmp.Or(c.Probe, 500*time.Millisecond)
	c.Alone = cmp.Or(c.Alone, 3*time.Second)
	c.TableTimeout = cmp.Or(c.TableTimeout, 5*time.Second)
	c.Backoff = cmp.Or(c.Backoff, time.Second)
	c.MaxBackoff = cmp.Or(c.MaxBackoff, time.Minute)
	c.Better = cmp.Or(c.Better, 10*time.Second)
	c.MaxBacklog = cmp.Or(c.MaxBacklog, 64<<20)
	return c
}

// ActionKind says what an Action asks for.
type ActionKind uint8

// What an owner asks its driver for. The driver does it, and comes back with an event.
const (
	// ActSend: send Message to Member in Session. The first one of a session is its Hello. Messages of a session arrive in
	// order or not at all. Events: Recorded, Failed.
	ActSend ActionKind = iota
	// ActClose: Session of Member is over.
	ActClose
	// ActTable: take the log's table now. Event: TableReady or TableFailed, with the same Ticket.
	ActTable
	// ActSwap: compare-and-swap the set of the log's record to Set. Events: SwapWon, SwapLost, SwapNothing or SwapUnknown.
	ActSwap
	// ActSettle: settle an unknown swap by a write that changes the record's revision, then read it (O8). Events:
	// Settled or SettleFailed.
	ActSettle
	// ActCommit: every delta up to Number is recorded by all who must (O4).
	ActCommit
	// ActFence: the log is somebody else's, by Err. Nothing is ever committed again.
	ActFence
)

// Action is one thing that an Owner wants done.
type Action struct {
	Kind    ActionKind
	Member  ID
	Session uint64
	Message Message
	Ticket  uint64
	Set     []ID
	Number  uint64
	Err     error
}

// Record is what the map says of the log.
type Record struct {
	Open  bool
	Host  ident.Broker
	Epoch ident.LogEpoch
	Set   []ID
}

// Candidate is a live broker that could be a member.
type Candidate struct {
	ID   ID
	Rack string
	// Leaving: it is about to stop, or takes no new work.
	Leaving bool
}

// phase is how far a member has come.
type phase uint8

const (
	awaitsTable phase = iota // a session is begun; deltas are kept for it
	loading                  // the table was sent
	following                // the table is recorded, and the member needed for every commit
)

// member is a broker that the owner has a session with.
type member struct {
	id       ID
	rack     string
	session  uint64
	phase    phase
	recorded uint64
	next     uint64    // number of the first delta after its table
	since    time.Time // of the last progress
	replaces ID        // of a joiner: the member whose place it is to take; zero: a free one
}

// pending is a delta that is not yet recorded by everybody.
type pending struct {
	at    time.Time
	probe bool // nobody waits for it
	end   ident.Position
	bytes int64  // of updates of this one and all before
	delta *Delta // kept while a joiner awaits its table
}

// Owner is the set machine of one log at one epoch. It is deaf and blind: events are method calls that carry the
// time, what is to be done is in Take. It is for one goroutine at a time.
//
// Life: Opening (tables go to the first members) → Ready → Opened with the record as it was written → Register and the
// rest, until it is fenced or thrown away.
type Owner struct {
	cfg     OwnerConfig
	actions []Action

	candidates []Candidate
	health     map[ident.Broker]*health
	session    uint64
	members    []*member // ordered by broker
	ticket     uint64    // of the table being taken; 0: none
	tickets    uint64
	tableFor   []uint64 // sessions that the table being taken is for
	tableAgain time.Time

	opened   bool
	fenced   error
	settled  []ID // the set that is known to be recorded
	swap     swapState
	target   []ID
	swapNext time.Time // not before
	pause    time.Duration
	alone    time.Time // since when no member works; zero: one does, or none is recorded
	better   ID        // who could take a member's place, by racks; zero: nobody
	stands   time.Time // since when

	pending   []pending // from number first on
	first     uint64
	last      uint64
	total     int64 // bytes ever
	committed uint64
	end       ident.Position // of the newest
	sent      time.Time      // the newest
}

// swapState is where the change of the recorded set stands.
type swapState uint8

const (
	swapNone   swapState = iota
	swapSent             // ActSwap is out
	swapDoubt            // its answer was lost: nobody knows which set is recorded (O8)
	settleSent           // ActSettle is out
)

// health is what is remembered of one incarnation of a broker, so that the set does not flap. A newer one is as good as
// any: what made the last one fail ended with it.
type health struct {
	incarnation int64
	failures    int
	failed      time.Time // the last time
	notBefore   time.Time
	followed    time.Time // since when it has worked
}

// NewOwner makes the machine for a log that is about to be opened at cfg.Key.Epoch.
func NewOwner(cfg OwnerConfig) *Owner {
	return &Owner{cfg: cfg.withDefaults(), session: cfg.FirstSession, health: make(map[ident.Broker]*health), first: 1}
}

// Take returns what is to be done, in order, and forgets it.
func (o *Owner) Take() []Action {
	out := o.actions
	o.actions = nil
	return out
}

func (o *Owner) act(a Action) { o.actions = append(o.actions, a) }

// Active reports whether updates are wanted: somebody is, or may be, in the set, or on the way into it.
func (o *Owner) Active() bool {
	return o.fenced != nil || len(o.members) > 0 || len(o.settled) > 0 || o.swap != swapNone || o.committed < o.last
}

// Fenced is why the owner can never commit again, nil while it can.
func (o *Owner) Fenced() error { return o.fenced }

// Members returns the recorded set as far as it is known.
func (o *Owner) Members() []ID { return slices.Clone(o.settled) }

// Session is the last session that was begun.
func (o *Owner) Session() uint64 { return o.session }

// Committed is the number up to which ActCommit was asked for, and Last the newest that was registered.
func (o *Owner) Committed() uint64 { return o.committed }

// Last is the newest number that was registered.
func (o *Owner) Last() uint64 { return o.last }

// Candidates tells who could be a member now.
func (o *Owner) Candidates(now time.Time, list []Candidate) {
	o.candidates = slices.Clone(list)
	for _, c := range list {
		switch m := o.attachedBroker(c.ID.Broker); {
		case m == nil:
		case m.id.Incarnation < c.ID.Incarnation: // the one we talk to is gone
			o.fail(now, m)
		case m.id == c.ID:
			m.rack = c.Rack
		}
	}
	o.step(now)
}

// Ready reports which members have the table before the log is opened, and whether it is any use to wait for more.
func (o *Owner) Ready() (set []ID, wait bool) {
	for _, m := range o.members {
		if m.phase == following {
			set = append(set, m.id)
		} else {
			wait = true
		}
	}
	return set, wait
}

// Opened tells that the record is OPEN at this epoch, written with rec.Set, and that no other write of that set is under way.
func (o *Owner) Opened(now time.Time, rec Record) {
	o.opened = true
	o.take(now, rec)
	o.step(now)
}

// take makes a record as it was read the truth. Nothing of ours may be under way.
func (o *Owner) take(now time.Time, rec Record) {
	o.swap = swapNone
	if !rec.Open || rec.Epoch != o.cfg.Key.Epoch || rec.Host != o.cfg.Self.Broker {
		state := "sealed"
		if rec.Open {
			state = fmt.Sprintf("open by broker %d", rec.Host)
		}
		o.fence(fmt.Errorf("log %s is %s at epoch %d", o.cfg.Key.Log, state, rec.Epoch))
		return
	}
	o.settled = slices.Clone(rec.Set)
	sortIDs(o.settled)
}

// fence ends everything. The first reason stays.
func (o *Owner) fence(err error) {
	if o.fenced != nil {
		return
	}
	o.fenced = err
	for _, m := range o.members {
		o.act(Action{Kind: ActClose, Member: m.id, Session: m.session})
	}
	o.members = nil
	o.act(Action{Kind: ActFence, Err: err})
}

// Register takes the deltas of one durable group commit (O4) and returns the number of the last one. end is the block's.
func (o *Owner) Register(now time.Time, end ident.Position, updates [][]byte) uint64 {
	return o.register(now, end, updates, false)
}

func (o *Owner) register(now time.Time, end ident.Position, updates [][]byte, probe bool) uint64 {
	o.end, o.sent = end, now
	waiting := slices.ContainsFunc(o.members, func(m *member) bool { return m.phase == awaitsTable })
	for _, u := range updates {
		o.last++
		o.total += int64(len(u))
		d := &Delta{Number: o.last, Updates: u}
		p := pending{at: now, end: end, bytes: o.total, probe: probe}
		if waiting {
			p.delta = d
		}
		o.pending = append(o.pending, p)
		for _, m := range o.members {
			if m.phase == awaitsTable {
				continue
			}
			o.act(Action{Kind: ActSend, Member: m.id, Session: m.session, Message: Message{Delta: d}})
		}
	}
	for _, m := range slices.Clone(o.members) {
		if m.phase != following && o.backlog(m) > o.cfg.MaxBacklog {
			o.fail(now, m)
		}
	}
	o.commit()
	return o.last
}

// backlog is about how many bytes of deltas the member has not recorded.
func (o *Owner) backlog(m *member) int64 {
	from := max(m.recorded+1, o.first)
	if from > o.last {
		return 0
	}
	return o.total - o.pending[from-o.first].bytes
}

// Recorded tells that a member has everything up to n.
func (o *Owner) Recorded(now time.Time, id ID, session, n uint64) {
	m := o.attached(id, session)
	if m == nil || m.phase == awaitsTable || n > o.last || m.phase == following && n <= m.recorded {
		return
	}
	if m.phase == loading {
		if n < m.next-1 {
			return
		}
		m.phase = following // O7: from now on every commit needs it
		o.healthOf(id).followed = now
	}
	m.recorded, m.since = n, now
	o.step(now)
}

// Failed tells that a session is over: it broke, or the member refused with err.
func (o *Owner) Failed(now time.Time, id ID, session uint64, err error) {
	m := o.attached(id, session)
	if m == nil {
		return
	}
	if errors.Is(err, ErrSealed) { // O10: it will never record anything again, and it is, or was, in the set
		o.fence(fmt.Errorf("witness %s: %w", id, err))
		return
	}
	o.fail(now, m)
	o.step(now)
}

// TableReady brings the table that ActTable asked for, as of a position that is committed.
func (o *Owner) TableReady(now time.Time, ticket uint64, at ident.Position, gens []ident.GenerationState) {
	if ticket != o.ticket {
		return
	}
	o.ticket = 0
	parts := tableParts(gens)
	for _, m := range slices.Clone(o.members) {
		if m.phase != awaitsTable || !slices.Contains(o.tableFor, m.session) {
			continue
		}
		// Every block up to at was registered before it was committed: what ends beyond is not in the table.
		m.next = o.last + 1
		for i := range o.pending {
			if o.pending[i].end > at {
				m.next = o.first + uint64(i)
				break
			}
		}
		if !o.sendTable(m, parts) {
			o.fail(now, m)
			continue
		}
		m.phase, m.since, m.recorded = loading, now, m.next-1
	}
	o.step(now)
}

// sendTable sends the table and what came after it. False: a delta was not kept.
func (o *Owner) sendTable(m *member, parts [][]ident.GenerationState) bool {
	for i, gens := range parts {
		part := &TablePart{Generations: gens, Done: i == len(parts)-1, Next: m.next}
		o.act(Action{Kind: ActSend, Member: m.id, Session: m.session, Message: Message{Table: part}})
	}
	for n := m.next; n <= o.last; n++ {
		if n < o.first || o.pending[n-o.first].delta == nil {
			return false
		}
		o.act(Action{Kind: ActSend, Member: m.id, Session: m.session, Message: Message{Delta: o.pending[n-o.first].delta}})
	}
	return true
}

// partSize is how many partitions a part of a table has at most.
const partSize = 2048

// tableParts cuts a table into parts of moderate size; at least one.
func tableParts(gens []ident.GenerationState) [][]ident.GenerationState {
	var out [][]ident.GenerationState
	var part []ident.GenerationState
	room := partSize
	for _, g := range gens {
		for {
			n := min(room, len(g.Partitions))
			part = append(part, ident.GenerationState{Generation: g.Generation, Partitions: g.Partitions[:n]})
			g.Partitions = g.Partitions[n:]
			if room -= n + 1; room <= 0 {
				out, part, room = append(out, part), nil, partSize
			}
			if len(g.Partitions) == 0 {
				break
			}
		}
	}
	if len(part) > 0 || len(out) == 0 {
		out = append(out, part)
	}
	return out
}

// TableFailed tells that there is no table to be had at the moment.
func (o *Owner) TableFailed(now time.Time, ticket uint64) {
	if ticket == o.ticket {
		o.ticket = 0
		o.tableAgain = now.Add(o.cfg.Timeout)
	}
}

// Tick lets time pass: timeouts, back-offs, repetitions. Once in Timeout/6 is often enough.
func (o *Owner) Tick(now time.Time) {
	for _, m := range slices.Clone(o.members) {
		limit := o.cfg.TableTimeout
		if !o.opened { // the log serves nobody meanwhile
			limit /= 2
		}
		from := m.since
		if m.phase == following {
			if m.recorded >= o.last {
				continue
			}
			limit, from = o.cfg.Timeout, o.waits(m)
			if o.onlyProbes() {
				limit *= 3
			}
		}
		if now.Sub(from) > limit {
			o.fail(now, m)
		}
	}
	o.probe(now)
	o.improve(now)
	o.step(now)
}

// waits is since when a member has owed its next record.
func (o *Owner) waits(m *member) time.Time {
	if n := m.recorded + 1; n >= o.first && o.pending[n-o.first].at.After(m.since) {
		return o.pending[n-o.first].at
	}
	return m.since
}

// onlyProbes says whether nothing that is not committed is more than a probe.
func (o *Owner) onlyProbes() bool {
	for n := max(o.committed+1, o.first); n <= o.last; n++ {
		if !o.pending[n-o.first].probe {
			return false
		}
	}
	return true
}

// probe asks the members for a sign of life when they have not been asked for anything for a while: by a delta without updates.
func (o *Owner) probe(now time.Time) {
	following := slices.ContainsFunc(o.members, func(m *member) bool { return m.phase == following })
	if o.opened && o.fenced == nil && following && o.committed >= o.last && now.Sub(o.sent) >= o.cfg.Probe {
		o.register(now, o.end, EncodeUpdates(nil), true)
	}
}

// step does everything that the state asks for.
func (o *Owner) step(now time.Time) {
	if o.fenced != nil {
		return
	}
	o.replenish(now)
	o.askTable(now)
	o.advanceSwap(now)
	o.commit()
}

func (o *Owner) askTable(now time.Time) {
	if o.ticket != 0 || now.Before(o.tableAgain) {
		return
	}
	o.tableFor = o.tableFor[:0]
	for _, m := range o.members {
		if m.phase == awaitsTable {
			o.tableFor = append(o.tableFor, m.session)
		}
	}
	if len(o.tableFor) > 0 {
		o.tickets++
		o.ticket = o.tickets
		o.act(Action{Kind: ActTable, Ticket: o.ticket})
	}
}

// commit asks for the commit of what all who must have recorded (O4).
func (o *Owner) commit() {
	if !o.opened || o.fenced != nil {
		return
	}
	n := o.last
	for _, id := range o.required() {
		if plants.replacedNotAwaited && o.isReplaced(id) {
			continue
		}
		m := o.attachedID(id)
		if m == nil || m.phase != following {
			return // it may be in the recorded set, and will never record anything: only a swap helps
		}
		n = min(n, m.recorded)
	}
	if plants.ackEarly {
		n = o.firstRecorded()
	}
	if n > o.committed {
		o.committed = n
		o.act(Action{Kind: ActCommit, Number: n})
	}
	o.trim()
}

// firstRecorded is what any one member has recorded.
func (o *Owner) firstRecorded() (n uint64) {
	for _, m := range o.members {
		if m.phase == following {
			n = max(n, m.recorded)
		}
	}
	if len(o.settled) == 0 {
		return o.last
	}
	return n
}

// required is who must have recorded a delta before it is committed: whoever is, or may be, in the record, and joiners
// from when they have the table (O7).
func (o *Owner) required() []ID {
	out := slices.Clone(o.settled)
	if plants.joinerNotAwaited {
		return out
	}
	if o.swap != swapNone {
		out = append(out, o.target...)
	}
	for _, m := range o.members {
		if m.phase == following {
			out = append(out, m.id)
		}
	}
	return out
}

// trim forgets deltas that everybody has.
func (o *Owner) trim() {
	keep := o.committed
	for _, m := range o.members {
		if m.phase != awaitsTable {
			keep = min(keep, m.recorded)
		}
	}
	waiting := slices.ContainsFunc(o.members, func(m *member) bool { return m.phase == awaitsTable })
	if waiting { // its table may be of any position from the one on at which it was asked for
		if i := slices.IndexFunc(o.pending, func(p pending) bool { return p.delta != nil }); i >= 0 {
			keep = min(keep, o.first+uint64(i)-1)
		}
	}
	if n := int(keep+1) - int(o.first); n > 0 {
		clear(o.pending[:n])
		o.pending = o.pending[n:]
		o.first = keep + 1
	}
	if !waiting {
		for i := len(o.pending) - 1; i >= 0 && o.pending[i].delta != nil; i-- {
			o.pending[i].delta = nil
		}
	}
}

func (o *Owner) attached(id ID, session uint64) *member {
	if m := o.attachedID(id); m != nil && m.session == session && o.fenced == nil {
		return m
	}
	return nil
}

func (o *Owner) attachedID(id ID) *member {
	if m := o.attachedBroker(id.Broker); m != nil && m.id == id {
		return m
	}
	return nil
}

func (o *Owner) attachedBroker(b ident.Broker) *member {
	for _, m := range o.members {
		if m.id.Broker == b {
			return m
		}
	}
	return nil
}
