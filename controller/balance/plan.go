package balance

import (
	"cmp"
	"fmt"
	"slices"
	"time"

	"github.com/skeinmq/skein/controller/failover"
	"github.com/skeinmq/skein/internal/ident"
	"github.com/skeinmq/skein/queuemapper"
)

// Limits of the planner; the zero value means the defaults.
type Limits struct {
	// Over is how far a broker's load must be above the mean to be too much, as a share; default 0.25. Moves stop when it
	// is below Good, default 0.10.
	Over, Good float64
	// For is how long it must have been too much; default 30 s.
	For time.Duration
	// Rest is how long a group that was moved for its load or a full disk stays where it is, unless its broker drains or dies;
	// default 10 min. Return is how long it does not go back to the log that it left; default 1 h.
	Rest, Return time.Duration
	// PerMinute bounds the moves for load; default 4, and one of 64 groups where there are more. DiskPerMinute bounds those off full
	// disks; default 20, and one of 16 groups.
	PerMinute, DiskPerMinute int
	// SplitEvery is the time between two splits; default 2 min.
	SplitEvery time.Duration
	// DiskFull is the share of a disk in use from which its broker takes no more groups, default queuemapper.DiskFull; DiskRelieve
	// that from which groups that are written to leave it, default 0.95. Both end queuemapper.DiskBack below.
	DiskFull, DiskRelieve float64
	// Warmup is how long a new controller watches loads before it acts on them; default 1 min.
	Warmup time.Duration
	// Vanish is the time within which more than a third of the brokers must vanish for the planner to stop itself; default 1 min.
	Vanish time.Duration
}

func (l Limits) withDefaults() Limits {
	l.Over = cmp.Or(l.Over, 0.25)
	l.Good = cmp.Or(l.Good, 0.10)
	l.For = cmp.Or(l.For, 30*time.Second)
	l.Rest = cmp.Or(l.Rest, 10*time.Minute)
	l.Return = cmp.Or(l.Return, time.Hour)
	l.SplitEvery = cmp.Or(l.SplitEvery, 2*time.Minute)
	l.DiskFull = cmp.Or(l.DiskFull, queuemapper.DiskFull)
	l.DiskRelieve = cmp.Or(l.DiskRelieve, 0.95)
	l.Warmup = cmp.Or(l.Warmup, time.Minute)
	l.Vanish = cmp.Or(l.Vanish, time.Minute)
	return l
}

// Broker is a broker that lives.
type Broker struct {
	ID       ident.Broker
	Rack     string
	Draining bool    // it shall have no groups
	DiskUsed float64 // share of its fullest disk, 0 to 1; 0: not known
}

// Input is what a plan is made from.
type Input struct {
	Map     *queuemapper.Map
	Brokers []Broker // that live, in any order; others count as gone
	// Loads are smooth; a group that is absent has none.
	Loads map[ident.Group]Load
	Now   time.Time
	// Enabled is the operator's switch. Without it only draining brokers are emptied and pins are followed.
	Enabled bool
	// Hot has the hottest partitions of groups whose owners were asked; a group that is absent: it is not known.
	Hot map[ident.Group][]HotPartition
}

// Cause is why a group moves.
type Cause string

// The causes, in the order in which they are looked at.
const (
	CauseDrain Cause = "drain" // its broker drains
	CausePin   Cause = "pin"   // it is pinned to another broker
	CauseDisk  Cause = "disk"  // its broker's disk is nearly full
	CauseShare Cause = "share" // its log has more groups, or partitions, than its share
	CauseLoad  Cause = "load"  // its broker has too much load
	CauseSplit Cause = "split" // it got a partition that was split off; it does not move
)

// Move is one move that the planner wants.
type Move struct {
	Group      ident.Group
	From, To   ident.Log
	FromBroker ident.Broker
	ToBroker   ident.Broker
	Cause      Cause
	Why        string // for operators
}

// Plan is what the planner wants now. Moves are ordered by cause and by group.
type Plan struct {
	Moves  []Move
	Splits []Split // at most one
	Ask    []Ask   // what must be known to go on
	// Held says why less is planned than could be, "" if nothing holds it.
	Held string
	// Notes are for operators: what else keeps groups where they are.
	Notes []string
	// Logs says how things stand, ordered by broker.
	Logs []LogState
}

// LogState is one open log of a live broker.
type LogState struct {
	Log        ident.Log
	Broker     ident.Broker
	Draining   bool
	Groups     int
	Partitions int
	Load       float64 // 1 is the mean of the logs over which load is spread
	DiskUsed   float64 // of its broker
	Full       bool    // it takes no more groups
}

// Planner remembers what keeps it from moving groups back and forth.
type Planner struct {
	limits Limits

	began     time.Time
	moved     map[ident.Group]moved
	hot       map[ident.Log]time.Time       // since when a log has too much load
	spent     []time.Time                   // moves for load in the last minute
	relieved  []time.Time                   // moves off full disks in the last minute
	full      map[ident.Broker]bool         // takes no more groups
	brim      map[ident.Broker]bool         // gives those that are written to
	splitAt   time.Time                     // of the last split, or try
	parted    map[ident.Partition]time.Time // when each was split off
	watch     vanished
	unsettled time.Time // since when there are groups without a home
	nothing   bool      // planted: no hysteresis

	perMinute, diskPerMinute int
}

// moved is the last move of a group.
type moved struct {
	at    time.Time
	from  ident.Log
	cause Cause
}

// NewPlanner makes a planner that has seen nothing.
func NewPlanner(l Limits) *Planner {
	return &Planner{
		limits: l.withDefaults(), moved: make(map[ident.Group]moved), hot: make(map[ident.Log]time.Time),
		full: make(map[ident.Broker]bool), brim: make(map[ident.Broker]bool), parted: make(map[ident.Partition]time.Time),
	}
}

// shelf is one open log of a live broker while a plan is made.
type shelf struct {
	log        *queuemapper.Log
	broker     Broker
	groups     []*item
	want       int // groups that it shall have
	cost       failover.Cost
	load       float64
	partitions int
	full       bool // it takes no more groups for its disk
	brim       bool // and gives those that are written to
}

// item is one group while a plan is made.
type item struct {
	group      ident.Group
	at         *shelf
	cost       failover.Cost
	load       float64 // share of the cluster's load
	partitions int
	pinned     bool // and its broker can have it
	planned    bool // it moves already
}

// board is the state that a plan is made on: it has the effect of the moves so far.
type board struct {
	in      Input
	shelves []*shelf // ordered by broker and log
	takers  []*shelf // those that may get groups
	items   []*item  // by group; only those on a shelf
	plan    Plan
	loaded  bool // there is load worth balancing
	allFull bool // every log that takes groups is on a disk that is nearly full
	weigher *weigher

	homeless int // groups that are on no shelf
}

// Plan says what to move now. Doing nothing about it is fine; what is done must be reported with Moved.
func (p *Planner) Plan(in Input) Plan {
	groups := in.Map.Cluster().Groups
	p.perMinute = cmp.Or(p.limits.PerMinute, max(4, groups/64))
	p.diskPerMinute = cmp.Or(p.limits.DiskPerMinute, max(20, groups/16))
	if p.began.IsZero() {
		p.began = in.Now
	}
	b := newBoard(in)
	p.watch.see(in, p.limits.Vanish)
	p.disks(b)
	p.stand(b)
	p.drain(b)
	switch {
	case len(b.takers) == 0:
		b.plan.Held = "no live broker takes groups"
	case p.watch.stopped:
		b.plan.Held = p.watch.why
	case p.homeless(b):
		b.plan.Held = "groups are failing over"
	default:
		p.pins(b)
		n := len(b.plan.Moves)
		p.relieve(b)
		p.shares(b)
		p.partitions(b)
		p.loads(b)
		if !in.Enabled { // it goes on watching how long what has been too much
			b.plan.Held = "the balancer is switched off"
			b.plan.Moves, b.plan.Splits, b.plan.Ask = b.plan.Moves[:n], nil, nil
		}
	}
	order := map[Cause]int{CauseDrain: 0, CausePin: 1, CauseDisk: 2, CauseShare: 3, CauseLoad: 4}
	slices.SortStableFunc(b.plan.Moves, func(x, y Move) int {
		return cmp.Or(cmp.Compare(order[x.Cause], order[y.Cause]), cmp.Compare(x.Group, y.Group))
	})
	return b.plan
}

// homeless says whether groups are on logs that fail over, or on brokers that were not heard of yet: what is even will
// show when they are settled. What takes longer than a while waits for its disk, and holds nothing up.
func (p *Planner) homeless(b *board) bool {
	if b.homeless == 0 {
		p.unsettled = time.Time{}
		return false
	}
	if p.unsettled.IsZero() {
		p.unsettled = b.in.Now
	}
	return b.in.Now.Sub(p.unsettled) < 10*time.Second
}

// Moved tells the planner of a move that was done, so that the group rests.
func (p *Planner) Moved(m Move, now time.Time) {
	p.moved[m.Group] = moved{at: now, from: m.From, cause: m.Cause}
	switch m.Cause {
	case CauseLoad:
		p.spent = append(p.spent, now)
	case CauseDisk:
		p.relieved = append(p.relieved, now)
	}
}

// Resume is the operator's word that brokers which vanished will not come back.
func (p *Planner) Resume() { p.watch.resume() }

// free says whether a move of this cause is no reason to leave the group alone: the number of groups is made even again when
// brokers come and go, and loads are looked at after that. What another active controller did may have been for load.
func (c Cause) free() bool { return c == CauseShare || c == CauseDrain || c == CausePin }

// rests says whether a group was moved so recently that it stays where it is, whatever the loads.
func (p *Planner) rests(g ident.Group, now time.Time) bool {
	m, ok := p.moved[g]
	return ok && !m.cause.free() && now.Sub(m.at) < p.limits.Rest && !p.nothing
}

// settles says whether a group was moved for its load, or off a full disk, so recently that it is not moved for the number of
// groups. What was moved for that may move again: another broker has come or gone since.
func (p *Planner) settles(g ident.Group, now time.Time) bool {
	return p.rests(g, now) && (p.moved[g].cause == CauseLoad || p.moved[g].cause == CauseDisk)
}

func newBoard(in Input) *board {
	b := &board{in: in}
	live := make(map[ident.Broker]Broker, len(in.Brokers))
	for _, br := range in.Brokers {
		live[br.ID] = br
	}
	byLog := make(map[ident.Log]*shelf)
	for l := range in.Map.Logs() {
		if br, ok := live[l.Host]; ok && l.State == queuemapper.LogOpen {
			sh := &shelf{log: l, broker: br}
			b.shelves = append(b.shelves, sh)
			byLog[l.ID] = sh
		}
	}
	slices.SortStableFunc(b.shelves, func(x, y *shelf) int { return cmp.Compare(x.broker.ID, y.broker.ID) })
	for _, sh := range b.shelves {
		if !sh.broker.Draining {
			b.takers = append(b.takers, sh)
		}
	}
	w := weigh(in)
	b.loaded, b.weigher = w.loaded, w
	costOf := failover.Costs(in.Map, w.load)
	for g := range in.Map.Groups() {
		cur := g.Current()
		if cur == nil {
			continue
		}
		sh := byLog[cur.Log]
		if sh == nil {
			b.homeless++ // it is failing over, or waits
			continue
		}
		it := &item{group: g.ID, at: sh, cost: costOf(g.ID), load: w.load(g.ID), partitions: in.Map.Partitions(g.ID)}
		if pin, ok := pinned(in, g.ID); ok {
			it.pinned = b.takes(pin.Broker)
		}
		b.items = append(b.items, it)
		sh.put(it)
	}
	return b
}

// stand says how things stand before anything moves.
func (p *Planner) stand(b *board) {
	_, mean := evenly(b.takers, loadOf)
	if mean == 0 {
		mean = 1
	}
	for _, sh := range b.shelves {
		b.plan.Logs = append(b.plan.Logs, LogState{
			Log: sh.log.ID, Broker: sh.broker.ID, Draining: sh.broker.Draining, Groups: len(sh.groups), Partitions: sh.partitions,
			Load: sh.load / mean, DiskUsed: sh.broker.DiskUsed, Full: p.full[sh.broker.ID],
		})
	}
}

// pinned returns a pin that is in force. A group in which nothing lives is about to lose its pin.
func pinned(in Input, g ident.Group) (queuemapper.Pin, bool) {
	pin, ok := in.Map.Pin(g)
	return pin, ok && in.Map.Partitions(g) > 0 && (pin.Until.IsZero() || in.Now.Before(pin.Until))
}

// shareOf is the load of a part of what goes into a group.
func (b *board) shareOf(g ident.Group, share float64) float64 {
	l := b.in.Loads[g]
	return b.weigher.weight(Load{BytesIn: share * l.BytesIn, BatchesIn: share * l.BatchesIn})
}

func (b *board) note(format string, args ...any) {
	b.plan.Notes = append(b.plan.Notes, fmt.Sprintf(format, args...))
}

func (b *board) takes(id ident.Broker) bool {
	return slices.ContainsFunc(b.takers, func(sh *shelf) bool { return sh.broker.ID == id })
}

func (sh *shelf) put(it *item) {
	it.at = sh
	sh.groups = append(sh.groups, it)
	sh.cost = sh.cost.Plus(1, it.cost)
	sh.load += it.load
	sh.partitions += it.partitions
}

func (sh *shelf) take(it *item) {
	sh.groups = slices.DeleteFunc(sh.groups, func(x *item) bool { return x == it })
	sh.cost = sh.cost.Plus(-1, it.cost)
	sh.load -= it.load
	sh.partitions -= it.partitions
}

// move plans one move and gives the board its effect.
func (b *board) move(it *item, to *shelf, cause Cause, format string, args ...any) {
	from := it.at
	b.plan.Moves = append(b.plan.Moves, Move{
		Group: it.group, From: from.log.ID, To: to.log.ID, FromBroker: from.broker.ID, ToBroker: to.broker.ID,
		Cause: cause, Why: fmt.Sprintf(format, args...),
	})
	from.take(it)
	to.put(it)
	it.planned = true
}

// place is the shelf that a group fits best on, of those that satisfy ok; nil if none does.
func place(it *item, shelves []*shelf, ok func(*shelf) bool) *shelf {
	var best *shelf
	for _, sh := range shelves {
		if ok(sh) && (best == nil || sh.cost.Adding(it.cost) < best.cost.Adding(it.cost)) {
			best = sh
		}
	}
	return best
}

// drain empties brokers that shall have no groups.
func (p *Planner) drain(b *board) {
	if len(b.takers) == 0 {
		return
	}
	for _, sh := range b.shelves {
		if !sh.broker.Draining {
			continue
		}
		for _, it := range heaviestFirst(sh.groups) {
			to := place(it, b.takers, func(t *shelf) bool { return !t.full })
			if to == nil {
				to = place(it, b.takers, func(*shelf) bool { return true })
			}
			if pin, ok := pinned(b.in, it.group); ok && it.pinned {
				to = place(it, b.takers, func(t *shelf) bool { return t.broker.ID == pin.Broker })
			}
			b.move(it, to, CauseDrain, "broker %d drains", sh.broker.ID)
		}
	}
}

// pins brings groups to the brokers that they are pinned to.
func (p *Planner) pins(b *board) {
	for _, it := range b.items {
		if !it.pinned || it.planned {
			continue
		}
		pin, _ := pinned(b.in, it.group)
		if it.at.broker.ID != pin.Broker {
			to := place(it, b.takers, func(t *shelf) bool { return t.broker.ID == pin.Broker })
			b.move(it, to, CausePin, "it is pinned to broker %d", pin.Broker)
		}
	}
}

func heaviestFirst(items []*item) []*item {
	out := slices.Clone(items)
	slices.SortStableFunc(out, func(x, y *item) int { return cmp.Or(y.cost.Compare(x.cost), cmp.Compare(x.group, y.group)) })
	return out
}
