package sim

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/skeinmq/skein/commitlog"
	"github.com/skeinmq/skein/controller/failover"
	"github.com/skeinmq/skein/internal/ident"
	"github.com/skeinmq/skein/internal/witness"
	"github.com/skeinmq/skein/queuemapper"
)

func idOf(w queuemapper.Witness) witness.ID {
	return witness.ID{Broker: w.Broker, Incarnation: w.Incarnation}
}

func idsOf(set []queuemapper.Witness) []witness.ID {
	out := make([]witness.ID, len(set))
	for i, w := range set {
		out[i] = idOf(w)
	}
	return out
}

func witnessesOf(ids []witness.ID) []queuemapper.Witness {
	out := make([]queuemapper.Witness, len(ids))
	for i, id := range ids {
		out[i] = queuemapper.Witness{Broker: id.Broker, Incarnation: id.Incarnation}
	}
	return out
}

func recordOf(l *queuemapper.Log) witness.Record {
	if l == nil {
		return witness.Record{}
	}
	return witness.Record{Open: l.State == queuemapper.LogOpen, Host: l.Host, Epoch: l.Epoch, Set: idsOf(l.Witnesses)}
}

// members asks other brokers as failover.Members.
type members struct{ b *broker }

// Seal implements failover.Members.
func (m members) Seal(_ context.Context, w queuemapper.Witness, log ident.Log, epoch ident.LogEpoch) (failover.Table, error) {
	return call(&m.b.w.net, m.b.node.id, m.b.w.nodes[w.Broker-1], "seal", 300*time.Millisecond, func(o *broker) (failover.Table, error) {
		if o.member == nil {
			return nil, witness.ErrUnknown
		}
		t, err := o.member.Seal(witness.Key{Log: log, Epoch: epoch}, w.Incarnation)
		if err != nil {
			return nil, err
		}
		if w.Incarnation != o.incarnation {
			o.w.ghost.fail("I13", "broker %d seals log %s at epoch %d as incarnation %d, it is %d", o.node.id, short(log), epoch, w.Incarnation, o.incarnation)
		}
		out := failover.Table{}
		for g, err := range t.Generations() {
			if err != nil {
				return nil, err
			}
			out[g.Generation] = g.Partitions
		}
		return out, nil
	})
}

// owner drives the set machine of the broker's log: what gRPC streams, etcd and timers are in a real one.
type owner struct {
	b       *broker
	l       *simLog
	m       *witness.Owner // nil: the log never had one
	key     witness.Key
	session uint64
	links   map[uint64]*link
	waiting []waitingBlock
	ready   gate
	rec     *queuemapper.Log      // as it was written last, by us
	next    []queuemapper.Witness // the set of the newest swap
	over    bool                  // another machine has taken its place
}

// waitingBlock is a block that waits for its commit.
type waitingBlock struct {
	number uint64
	done   func(error)
}

// link is a session's stream: messages arrive in order or not at all.
type link struct {
	to      *node
	session uint64
	id      witness.ID
	arrives time.Duration // of the newest message
	closed  bool          // here
	broken  bool

	peer *broker // where the hello arrived
	at   *witness.Session
}

func newOwner(b *broker, l *simLog) *owner {
	o := &owner{b: b, l: l}
	o.ready.e = b.w.e
	return o
}

// monotonic is a clock that never jumps.
func (o *owner) monotonic() time.Time { return time.Unix(0, 0).Add(o.b.w.e.now) }

// Active implements commitlog.Registrar.
func (o *owner) Active() bool { return o.m != nil && o.m.Active() }

// Register implements commitlog.Registrar.
func (o *owner) Register(end ident.Position, updates []commitlog.Update, done func(error)) {
	n := o.m.Register(o.monotonic(), end, witness.EncodeUpdates(updates))
	o.waiting = append(o.waiting, waitingBlock{n, done})
	o.drive()
}

// Offer implements host.Witnesses.
func (o *owner) Offer(_ context.Context, log ident.Log, epoch ident.LogEpoch, _ []commitlog.RecoveredGeneration, to []queuemapper.Witness) []queuemapper.Witness {
	o.machine(witness.Key{Log: log, Epoch: epoch})
	o.candidates(witnessesOf(idsOf(to)))
	until := o.b.w.e.now + memberTimeout
	for {
		set, wait := o.m.Ready()
		if !wait || o.b.w.e.now >= until {
			return slices.DeleteFunc(witnessesOf(set), func(x queuemapper.Witness) bool { return !slices.Contains(to, x) })
		}
		o.ready.wait(20 * time.Millisecond)
	}
}

// machine makes the set machine of an epoch.
func (o *owner) machine(key witness.Key) {
	if o.m == nil || o.key != key {
		o.key, o.links, o.rec = key, map[uint64]*link{}, nil
		o.m = witness.NewOwner(witness.OwnerConfig{
			Key: key, Self: witness.ID{Broker: o.b.id(), Incarnation: o.b.incarnation}, FirstSession: o.session, Timeout: memberTimeout,
			TableTimeout: time.Second, Alone: 100 * time.Millisecond, Backoff: 300 * time.Millisecond, MaxBackoff: 2 * time.Second,
		})
		o.b.w.e.start(o.b.proc, "tick", 0, o.tick)
	}
}

// memberTimeout is how long a member may hold up commits.
const memberTimeout = 300 * time.Millisecond

// mapTimeout is how long a swap or its settling may take, at most.
const mapTimeout = time.Second

func (o *owner) candidates(list []queuemapper.Witness) {
	c := make([]witness.Candidate, len(list))
	for i, w := range list {
		c[i] = witness.Candidate{ID: idOf(w)}
	}
	o.m.Candidates(o.monotonic(), c)
	o.drive()
}

// Serve implements host.Witnesses.
func (o *owner) Serve(rec *queuemapper.Log) {
	o.machine(witness.Key{Log: rec.ID, Epoch: rec.Epoch})
	o.rec = rec
	o.m.Opened(o.monotonic(), recordOf(rec))
	o.drive()
}

// mapChanged tells the machine what the watch has brought.
func (o *owner) mapChanged(m *queuemapper.Map) {
	if o.m == nil || o.over {
		return
	}
	if rec := m.Log(o.key.Log); rec != nil {
		o.m.RecordRead(recordOf(rec))
	}
	var live []queuemapper.Witness
	for b := range m.Brokers() {
		if b.ID != o.b.id() {
			live = append(live, queuemapper.Witness{Broker: b.ID, Incarnation: b.Incarnation})
		}
	}
	o.candidates(live)
}

func (o *owner) tick() {
	m := o.m
	for o.m == m && o.l.dead == nil {
		m.Tick(o.monotonic())
		o.drive()
		o.b.w.e.sleep(memberTimeout / 6)
	}
}

// drive does what the machine wants done.
func (o *owner) drive() {
	for list := o.m.Take(); len(list) > 0; list = o.m.Take() {
		for i := range list {
			o.act(&list[i])
		}
	}
	o.session = max(o.session, o.m.Session())
	o.ready.open()
}

func (o *owner) act(a *witness.Action) {
	m, e := o.m, o.b.w.e
	later := func(name string, f func()) {
		e.start(o.b.proc, name, 0, func() {
			f()
			if o.m == m {
				o.drive()
			}
		})
	}
	switch a.Kind {
	case witness.ActSend:
		o.send(a)
	case witness.ActClose:
		if k := o.links[a.Session]; k != nil {
			k.closed = true
			delete(o.links, a.Session)
		}
	case witness.ActTable:
		ticket := a.Ticket
		later("table", func() {
			t, err := o.l.tableNow()
			if err != nil {
				m.TableFailed(o.monotonic(), ticket)
				return
			}
			m.TableReady(o.monotonic(), ticket, t.At, t.Generations)
		})
	case witness.ActSwap:
		set := witnessesOf(a.Set)
		later("swap", func() { o.swap(m, set) })
	case witness.ActSettle:
		later("settle", func() {
			o.b.w.count("settling of a swap", nil)
			rec, err := o.b.store.SettleLog(e.within(mapTimeout), o.key.Log)
			if err != nil {
				m.SettleFailed(o.monotonic())
				return
			}
			o.rec = rec
			m.Settled(o.monotonic(), recordOf(rec))
		})
	case witness.ActCommit:
		for len(o.waiting) > 0 && o.waiting[0].number <= a.Number {
			w := o.waiting[0]
			o.waiting = o.waiting[1:]
			w.done(nil)
		}
	case witness.ActFence:
		o.l.poison(fmt.Errorf("%w: %w", commitlog.ErrFenced, a.Err))
	}
}

// swap changes the record's set, comparing the record that this broker wrote or settled last.
func (o *owner) swap(m *witness.Owner, set []queuemapper.Witness) {
	now := o.b.store.Map().Log(o.key.Log)
	if now == nil || now.Revision < o.rec.Revision {
		now = o.rec
	}
	if now.Epoch != o.key.Epoch || now.State != queuemapper.LogOpen {
		m.SwapLost(o.monotonic(), recordOf(now))
		return
	}
	o.next = set
	rec, err := o.b.store.SwapWitnesses(o.b.w.e.within(o.b.w.e.between(mapTimeout/8, mapTimeout)), now, set)
	o.b.w.e.logf("witnesses of log %s: %v: %v", short(o.key.Log), set, err)
	switch {
	case err == nil:
		o.b.w.count("swap of witnesses", nil)
		o.rec = rec
		m.SwapWon(o.monotonic())
	case errors.Is(err, queuemapper.ErrConflict):
		m.SwapLost(o.monotonic(), recordOf(o.b.store.Map().Log(o.key.Log)))
	case errors.Is(err, queuemapper.ErrUnavailable):
		m.SwapNothing(o.monotonic())
	default:
		m.SwapUnknown(o.monotonic())
	}
}

// send puts a message on its session's stream.
func (o *owner) send(a *witness.Action) {
	w := o.b.w
	k := o.links[a.Session]
	if a.Message.Hello != nil {
		k = &link{to: w.nodes[a.Member.Broker-1], session: a.Session, id: a.Member}
		o.links[a.Session] = k
	}
	if k == nil || k.broken {
		return
	}
	delay := w.e.between(w.net.faults.low, w.net.faults.high)
	if w.e.chance(w.net.faults.late) {
		delay += w.e.between(0, w.net.faults.lateBy)
	}
	// A stream keeps its order, or breaks. The rules do not lean on that (O5): what is lost, doubled or overtaken is refused.
	at := max(k.arrives, w.e.now+delay)
	times := 1
	switch lot := w.e.rng.IntN(1000); {
	case lot < w.net.faults.lost:
		o.breakLink(k)
		return
	case lot < 2*w.net.faults.lost:
		return
	case lot < 2*w.net.faults.lost+w.net.faults.twice/4:
		times = 2
	case lot < 2*w.net.faults.lost+w.net.faults.twice/2:
		at = w.e.now + delay
	}
	k.arrives = max(k.arrives, at)
	for range times {
		o.carry(k, a.Message, at-w.e.now)
	}
}

// carry brings a message to the member.
func (o *owner) carry(k *link, msg witness.Message, after time.Duration) {
	w, m := o.b.w, o.m
	from, to := o.b.node.id, k.to.id
	w.e.at(after, func() {
		if w.net.cut(from, to) || k.to.running == nil || k.peer != nil && k.to.running != k.peer {
			o.breakLink(k)
		}
		if k.broken {
			return
		}
		p := k.to.running
		w.e.start(p.proc, "witness", 0, func() { o.arrive(m, k, p, msg) })
	})
}

// arrive is a message at the member.
func (o *owner) arrive(m *witness.Owner, k *link, p *broker, msg witness.Message) {
	w := o.b.w
	answer := func(f func()) {
		d := w.e.between(w.net.faults.low, w.net.faults.high)
		if w.e.chance(w.net.faults.late) {
			d += w.e.between(0, w.net.faults.lateBy)
		}
		w.e.at(d, func() {
			if w.net.cut(k.to.id, o.b.node.id) || o.b.proc.dead {
				o.breakLink(k)
				return
			}
			w.e.start(o.b.proc, "answer", 0, func() {
				if o.m == m && !k.closed {
					f()
					o.drive()
				}
			})
		})
	}
	fail := func(err error) {
		k.broken = true
		answer(func() { m.Failed(o.monotonic(), k.id, k.session, err) })
	}
	if p.member == nil || k.broken {
		fail(errRefused)
		return
	}
	if msg.Hello != nil {
		s, err := p.member.Hello(*msg.Hello)
		if err != nil {
			fail(err)
			return
		}
		k.peer, k.at = p, s
		return
	}
	if k.at == nil {
		fail(errRefused)
		return
	}
	recorded, tell, err := k.at.Handle(msg)
	switch {
	case err != nil:
		w.e.logf("refuses log %s at epoch %d: %v", short(o.key.Log), o.key.Epoch, err)
		fail(err)
	case tell:
		answer(func() { m.Recorded(o.monotonic(), k.id, k.session, recorded) })
	}
}

// joiners tells the members of the newest swap that the record does not have, and those that it has.
func (o *owner) joiners() (joiners, others []ident.Broker) {
	for _, x := range o.next {
		if slices.Contains(o.rec.Witnesses, x) {
			others = append(others, x.Broker)
		} else {
			joiners = append(joiners, x.Broker)
		}
	}
	return joiners, others
}

// breakLink ends a stream; the owner hears of it, sooner or later.
func (o *owner) breakLink(k *link) {
	if k.broken {
		return
	}
	k.broken = true
	m, w := o.m, o.b.w
	w.e.at(w.e.between(0, memberTimeout/2), func() {
		w.e.start(o.b.proc, "broken", 0, func() {
			if o.m == m && !k.closed {
				m.Failed(o.monotonic(), k.id, k.session, errRefused)
				o.drive()
			}
		})
	})
}

// changeWitnesses lets one member's stream break: the owner goes on with another one.
func (b *broker) changeWitnesses(lot uint32) {
	if b.owner == nil || len(b.owner.links) == 0 {
		return
	}
	var sessions []uint64
	for s := range b.owner.links {
		sessions = append(sessions, s)
	}
	slices.Sort(sessions)
	b.owner.breakLink(b.owner.links[sessions[int(lot)%len(sessions)]])
}
