package witness

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/skeinmq/skein/commitlog"
	"github.com/skeinmq/skein/internal/ident"
)

// world is one log, its owner, the map's record of it and brokers that may be its witnesses; messages are lost,
// doubled and reordered, brokers crash, answers of the map are lost or come late. Everything is drawn from one seed.
type world struct {
	rnd  *rand.Rand
	calm bool // no more faults
	rare int  // one in so many chances of a fault is taken
	now  time.Time
	key  Key

	o       *Owner
	brokers map[ident.Broker]*broker
	racks   map[ident.Broker]string // empty: nobody has one
	arrives ident.Broker            // who comes when the set has formed; 0: nobody
	links   []*wire

	rec      Record
	revision int
	seen     int       // revision that the owner compares with
	late     []lateCAS // swaps whose answer was lost, that may yet land

	// The log.
	blocks    []*block // sequenced, not yet committed
	position  ident.Position
	ends      [parts]ident.Offset
	acked     [parts]ident.Offset
	durable   [parts]ident.Offset
	seqs      [parts]int32
	tables    []tableTaken
	committed ident.Position
	fenced    bool
	lived     *lived

	sealed  *ident.GenerationState // what the first member answered
	sealSet []ID
}

// lived counts what happened in all worlds, so that a sweep in which nothing happens is noticed.
type lived struct{ sealed, unanswered, swaps, settles, conflicts, refused, full, improved int }

const parts = 3

type broker struct {
	id ID
	m  *Member
	up bool
}

type wire struct {
	member  ID
	session uint64
	queue   []Message
	answers []uint64
	end     *Session
	refused error
	closed  bool
	gone    bool
}

type lateCAS struct {
	revision int
	set      []ID
}

type block struct {
	end     ident.Position
	updates [][]byte
	number  uint64 // registered
	ends    [parts]ident.Offset
}

type tableTaken struct {
	ticket uint64
	at     ident.Position
	gens   []ident.GenerationState
}

var worldGen = ident.Generation{Group: 1, Epoch: 2, Frame: ident.Frame{Epoch: 5, Position: 100}}

func partition(p int) ident.Partition {
	return ident.Partition{Topic: ident.Topic{1}, Index: int32(p)}
}

func newWorld(seed uint64, l *lived) *world {
	w := &world{
		rnd: rand.New(rand.NewPCG(seed, 1)), rare: []int{1, 3, 10, 30}[seed%4], now: time.Unix(1000, 0), key: Key{Log: ident.Log{1}, Epoch: 7},
		brokers: map[ident.Broker]*broker{}, lived: l, rec: Record{Open: true, Host: 1, Epoch: 6}, position: 1000, committed: 1000,
	}
	for b := ident.Broker(2); b <= 4; b++ {
		w.start(b, 1)
	}
	for p := range parts { // recovered
		w.append(p)
	}
	w.acked, w.durable = w.ends, w.ends
	w.racks = map[ident.Broker]string{}
	if seed/4%2 == 0 { // whatever the rate of faults
		for b := ident.Broker(1); b <= 4; b++ {
			w.racks[b] = string(rune('a' + w.rnd.IntN(3)))
		}
		w.arrives = ident.Broker(2 + w.rnd.IntN(3)) // it may be the one that is far away
		w.brokers[w.arrives].up = false
	}
	w.o = NewOwner(OwnerConfig{Key: w.key, Self: ID{1, 1}, Rack: w.racks[1], Alone: 100 * time.Millisecond, Better: 30 * time.Millisecond})
	return w
}

func (w *world) start(b ident.Broker, incarnation int64) {
	id := ID{b, incarnation}
	w.brokers[b] = &broker{id: id, m: NewMember(MemberConfig{ID: id}), up: true}
}

func (w *world) append(p int) {
	w.ends[p] += ident.Offset(1 + w.rnd.IntN(3))
	w.seqs[p]++
}

func (w *world) state(p int) ident.PartitionState {
	return ident.PartitionState{Partition: partition(p), End: w.ends[p], Producers: []ident.ProducerState{{
		ID: 9, CoordinatorEpoch: -1, TxnStart: -1, LastTimestamp: int64(w.ends[p]),
		Batches: []ident.ProducerBatch{{FirstSequence: w.seqs[p], LastSequence: w.seqs[p], LastOffset: w.ends[p] - 1, Timestamp: int64(w.ends[p])}},
	}}}
}

func (w *world) table() []ident.GenerationState {
	g := ident.GenerationState{Generation: worldGen}
	for p := range parts {
		g.Partitions = append(g.Partitions, w.state(p))
	}
	return []ident.GenerationState{g}
}

func (w *world) candidates() {
	var list []Candidate
	for b := ident.Broker(2); b <= 4; b++ {
		if w.brokers[b].up {
			list = append(list, Candidate{ID: w.brokers[b].id, Rack: w.racks[b]})
		}
	}
	w.o.Candidates(w.now, list)
	w.do()
}

// near is how near to each other the owner and a set are: members in the owner's rack first, then members that share one.
func (w *world) near(set []ID) (n int) {
	for i, id := range set {
		switch rack := w.racks[id.Broker]; {
		case rack == "" || rack == w.racks[1]:
			n += 10
		case slices.ContainsFunc(set[:i], func(o ID) bool { return w.racks[o.Broker] == rack }):
			n++
		}
	}
	return n
}

// spread says whether no set that the brokers could form is less near than the recorded one.
func (w *world) spread() bool {
	for b := ident.Broker(2); b <= 4; b++ {
		for c := ident.Broker(2); c < b; c++ {
			if w.near([]ID{{Broker: b}, {Broker: c}}) < w.near(w.rec.Set) {
				return false
			}
		}
	}
	return true
}

// do carries the owner's actions out, as far as that is a matter of starting them.
func (w *world) do() {
	for _, a := range w.o.Take() {
		switch a.Kind {
		case ActSend:
			l := w.link(a.Member, a.Session)
			l.queue = append(l.queue, a.Message)
		case ActClose:
			w.link(a.Member, a.Session).closed = true
		case ActTable:
			w.tables = append(w.tables, tableTaken{ticket: a.Ticket, at: w.position, gens: w.table()})
		case ActSwap:
			w.swap(a.Set)
		case ActSettle:
			w.settle()
		case ActCommit:
			for _, b := range w.blocks {
				if b.number != 0 && b.number <= a.Number {
					b.number = 0
					b.updates = nil
				}
			}
		case ActFence:
			w.fenced = true
		}
	}
	w.commit()
}

// commit acks blocks in order: those that no witness must have, or has not any more.
func (w *world) commit() {
	for len(w.blocks) > 0 && !w.fenced {
		b := w.blocks[0]
		if b.updates != nil || w.durableBelow(b) {
			return
		}
		w.acked, w.committed = b.ends, b.end
		w.blocks = w.blocks[1:]
	}
}

func (w *world) durableBelow(b *block) bool {
	for p := range parts {
		if w.durable[p] < b.ends[p] {
			return true
		}
	}
	return false
}

func (w *world) link(id ID, session uint64) *wire {
	for _, l := range w.links {
		if l.member == id && l.session == session {
			return l
		}
	}
	l := &wire{member: id, session: session}
	w.links = append(w.links, l)
	return l
}

// swap is the map's side of ActSwap.
func (w *world) swap(set []ID) {
	apply := func(revision int) bool {
		if revision != w.revision {
			return false
		}
		if len(set) == len(w.rec.Set) && w.near(set) < w.near(w.rec.Set) {
			w.lived.improved++
		}
		w.rec.Set = slices.Clone(set)
		w.revision++
		return true
	}
	lost := !w.calm && w.rnd.IntN(3) == 0
	switch {
	case lost && w.rnd.IntN(2) == 0: // it lands later, or never
		w.late = append(w.late, lateCAS{w.seen, slices.Clone(set)})
		w.later(func() { w.o.SwapUnknown(w.now) })
	case lost:
		apply(w.seen)
		w.later(func() { w.o.SwapUnknown(w.now) })
	case !w.calm && w.rnd.IntN(8) == 0:
		w.later(func() { w.o.SwapNothing(w.now) })
	case apply(w.seen):
		w.lived.swaps++
		w.seen = w.revision
		w.later(func() { w.o.SwapWon(w.now) })
	default:
		w.lived.conflicts++
		rec := w.read()
		w.later(func() { w.o.SwapLost(w.now, rec) })
	}
}

func (w *world) read() Record {
	w.seen = w.revision
	r := w.rec
	r.Set = slices.Clone(r.Set)
	return r
}

func (w *world) settle() {
	if !w.calm && w.rnd.IntN(4) == 0 {
		w.later(func() { w.o.SettleFailed(w.now) })
		return
	}
	w.lived.settles++
	w.revision++
	rec := w.read()
	w.later(func() { w.o.Settled(w.now, rec) })
}

// later answers at once, or a little later: messages move between.
func (w *world) later(answer func()) {
	for range w.rnd.IntN(6) {
		w.move()
	}
	answer()
	w.do()
}

// move lets one message, answer, write or table arrive.
func (w *world) move() {
	switch w.rnd.IntN(6) {
	case 0, 1, 2:
		w.deliver()
	case 3:
		w.answer()
	case 4: // a write of the disk ends
		for _, b := range w.blocks {
			if w.durableBelow(b) {
				w.durable = b.ends
				if b.updates != nil {
					b.number = w.o.Register(w.now, b.end, b.updates)
				}
				break
			}
		}
		w.do()
	case 5:
		if len(w.tables) > 0 && w.tables[0].at <= w.committed {
			t := w.tables[0]
			w.tables = w.tables[1:]
			w.o.TableReady(w.now, t.ticket, t.at, t.gens)
			w.do()
		}
	}
}

func (w *world) deliver() {
	var with []*wire
	for _, l := range w.links {
		if len(l.queue) > 0 && l.refused == nil {
			with = append(with, l)
		}
	}
	if len(with) == 0 {
		return
	}
	l := with[w.rnd.IntN(len(with))]
	b := w.brokers[l.member.Broker]
	if !b.up || l.end != nil && b.id != l.member { // nobody reads
		l.queue, l.refused = nil, errors.New("connection reset")
		return
	}
	msg := l.queue[0]
	switch f := w.rnd.IntN(40 * w.rare); {
	case w.calm || f > 4:
		l.queue = l.queue[1:]
	case f == 0 && len(l.queue) > 1: // it overtakes
		k := 1 + w.rnd.IntN(len(l.queue)-1)
		msg = l.queue[k]
		l.queue = slices.Delete(l.queue, k, k+1)
	case f == 1: // lost
		l.queue = l.queue[1:]
		return
	case f == 2: // doubled
	default:
		l.queue = l.queue[1:]
	}
	if l.end == nil {
		if msg.Hello == nil {
			l.refused = errors.New("no hello")
			return
		}
		l.end, l.refused = b.m.Hello(*msg.Hello)
		return
	}
	n, tell, err := l.end.Handle(msg)
	if err != nil {
		w.lived.refused++
		l.refused = err
	} else if tell {
		l.answers = append(l.answers, n)
	}
}

func (w *world) answer() {
	var with []*wire
	for _, l := range w.links {
		if !l.gone && (len(l.answers) > 0 || l.refused != nil) {
			with = append(with, l)
		}
	}
	if len(with) == 0 {
		return
	}
	l := with[w.rnd.IntN(len(with))]
	if len(l.answers) > 0 {
		k := 0
		if !w.calm {
			k = w.rnd.IntN(len(l.answers))
		}
		w.o.Recorded(w.now, l.member, l.session, l.answers[k])
		l.answers = slices.Delete(l.answers, k, k+1)
	} else {
		l.gone = true
		w.o.Failed(w.now, l.member, l.session, l.refused)
	}
	w.do()
}

// sequence makes a block.
func (w *world) sequence() {
	if len(w.blocks) > 10 || w.fenced {
		return
	}
	var updates []commitlog.Update
	for range 1 + w.rnd.IntN(3) {
		p := w.rnd.IntN(parts)
		w.append(p)
		updates = append(updates, commitlog.Update{Generation: worldGen, State: w.state(p)})
	}
	w.position += 100
	b := &block{end: w.position, ends: w.ends}
	if w.o.Active() {
		b.updates = EncodeUpdates(updates)
		if w.rnd.IntN(4) == 0 && len(updates) > 1 {
			b.updates = [][]byte{AppendUpdates(nil, updates[:1]), AppendUpdates(nil, updates[1:])}
		}
	}
	w.blocks = append(w.blocks, b)
}

// fault does harm.
func (w *world) fault() {
	switch w.rnd.IntN(5) {
	case 4: // the host writes something else into the record
		w.revision++
	case 0: // a broker crashes, or comes back as another incarnation
		b := w.brokers[ident.Broker(2+w.rnd.IntN(3))]
		if b.up {
			b.up = false
			if w.rnd.IntN(2) == 0 {
				w.candidates()
			}
		} else {
			w.start(b.id.Broker, b.id.Incarnation+1)
			w.candidates()
		}
	case 1: // a connection breaks
		if len(w.links) > 0 {
			l := w.links[w.rnd.IntN(len(w.links))]
			if l.refused == nil && !l.closed {
				l.refused = errors.New("connection reset")
			}
		}
	case 2: // a swap lands late
		if len(w.late) > 0 {
			k := w.rnd.IntN(len(w.late))
			if c := w.late[k]; c.revision == w.revision {
				w.rec.Set = c.set
				w.revision++
			}
			w.late = slices.Delete(w.late, k, k+1)
		}
	case 3:
		w.now = w.now.Add(time.Duration(w.rnd.IntN(1500)) * time.Millisecond)
		w.o.Tick(w.now)
		w.do()
	}
}

// seal is the controller's: it seals the record and asks one of its members (O9, O10).
func (w *world) seal() error {
	w.rec.Open = false
	w.revision++
	set := slices.Clone(w.rec.Set)
	w.rnd.Shuffle(len(set), func(i, k int) { set[i], set[k] = set[k], set[i] })
	for _, id := range set {
		b := w.brokers[id.Broker]
		if !b.up {
			continue
		}
		t, err := b.m.Seal(w.key, id.Incarnation)
		if err == nil && b.id != id {
			return fmt.Errorf("I13: %s answered for %s", b.id, id)
		}
		if err == nil {
			w.lived.sealed++
			w.sealSet = set
			w.sealed = &ident.GenerationState{}
			for g, err := range t.Generations() {
				if err != nil {
					return err
				}
				if g.Generation == worldGen {
					*w.sealed = g
				}
			}
			return nil
		}
		if !errors.Is(err, ErrUnknown) {
			return err
		}
		if b.id == id {
			return fmt.Errorf("O6: %s is in the recorded set and knows nothing: %w", id, err)
		}
	}
	w.lived.unanswered++
	return nil
}

// check compares what was acked and what is on the disk with the seal's table (I6).
func (w *world) check() error {
	if w.sealed == nil {
		return nil
	}
	for p := range parts {
		var s ident.PartitionState
		for _, x := range w.sealed.Partitions {
			if x.Partition == partition(p) {
				s = x
			}
		}
		if s.End < w.acked[p] || s.End > w.durable[p] {
			return fmt.Errorf("I6: partition %d sealed at %d, acked %d, durable %d; set %v", p, s.End, w.acked[p], w.durable[p], w.sealSet)
		}
		if len(s.Producers) != 1 || s.Producers[0].LastTimestamp != int64(s.End) {
			return fmt.Errorf("I8: partition %d sealed at %d with producers %+v", p, s.End, s.Producers)
		}
	}
	return nil
}

// run lives through one seed.
func (w *world) run() error {
	w.candidates()
	for range 60 {
		w.move()
	}
	set, _ := w.o.Ready()
	w.rec.Epoch, w.rec.Set = w.key.Epoch, set // the reopening
	w.revision++
	w.o.Opened(w.now, w.read())
	w.do()
	sealAt := 100 + w.rnd.IntN(500)
	for i := range 700 {
		if i == 60 && w.arrives != 0 && !w.brokers[w.arrives].up {
			w.start(w.arrives, w.brokers[w.arrives].id.Incarnation)
			w.candidates()
		}
		switch n := w.rnd.IntN(20); {
		case n < 3:
			w.sequence()
		case n == 3 && w.rnd.IntN(w.rare) == 0:
			w.fault()
		case n == 4:
			w.now = w.now.Add(time.Millisecond * time.Duration(w.rnd.IntN(20)))
			w.o.Tick(w.now)
			w.do()
		default:
			w.move()
		}
		if i == sealAt && w.rnd.IntN(8) > 0 {
			if err := w.seal(); err != nil {
				return err
			}
		}
		if w.acked != w.ackedBelow(w.durable) {
			return errors.New("O4: acked before it was durable")
		}
	}
	if err := w.check(); err != nil || !w.rec.Open {
		return err
	}
	return w.end()
}

func (w *world) ackedBelow(d [parts]ident.Offset) [parts]ident.Offset {
	out := w.acked
	for p := range out {
		out[p] = min(out[p], d[p])
	}
	return out
}

// end heals everything: then all must be committed, with as many members as there are (I14), in the best racks.
func (w *world) end() error {
	w.calm = true
	for b := ident.Broker(2); b <= 4; b++ {
		if !w.brokers[b].up {
			w.start(b, w.brokers[b].id.Incarnation+1)
		}
	}
	w.candidates()
	for i := range 30_000 {
		w.move()
		if i%100 == 0 {
			w.now = w.now.Add(100 * time.Millisecond)
			w.o.Tick(w.now)
			w.do()
		}
		if len(w.blocks) == 0 && len(w.rec.Set) == 2 && !w.fenced && w.spread() {
			w.lived.full++
			return nil
		}
	}
	return fmt.Errorf("I14: %d blocks not committed, fenced %v, set %v, swap %d", len(w.blocks), w.fenced, w.rec.Set, w.o.swap)
}

func sweepWorlds(t *testing.T, seeds uint64) (uint64, error) {
	t.Helper()
	var l lived
	for seed := range seeds {
		if err := newWorld(seed, &l).run(); err != nil {
			return seed, err
		}
	}
	n := int(seeds)
	if l.sealed < n/2 || l.unanswered < n/100 || l.swaps < n || l.settles < n/2 || l.conflicts < n/4 || l.refused < n/2 || l.full < n/20 || l.improved < n/20 {
		t.Errorf("%d seeds saw too little: %+v", n, l)
	}
	t.Logf("%d seeds: %+v", n, l)
	return 0, nil
}

func TestWorlds(t *testing.T) {
	seeds := uint64(5000)
	if testing.Short() {
		seeds = 500
	}
	if seed, err := sweepWorlds(t, seeds); err != nil {
		t.Fatalf("seed %d: %v", seed, err)
	}
}
