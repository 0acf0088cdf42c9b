package witness

import (
	"cmp"
	"encoding/binary"
	"hash/fnv"
	"slices"
	"time"

	"github.com/skeinmq/skein/internal/ident"
)

func sortIDs(ids []ID) {
	slices.SortFunc(ids, func(a, b ID) int {
		return cmp.Or(cmp.Compare(a.Broker, b.Broker), cmp.Compare(a.Incarnation, b.Incarnation))
	})
}

// advanceSwap begins the next change of the recorded set, if one is wanted and none is under way.
func (o *Owner) advanceSwap(now time.Time) {
	if !o.opened || now.Before(o.swapNext) {
		return
	}
	switch o.swap {
	case swapDoubt:
		o.swap = settleSent
		o.act(Action{Kind: ActSettle})
	case swapNone:
		target := o.wanted()
		if slices.Equal(target, o.settled) {
			o.alone = time.Time{}
			return
		}
		if len(target) == 0 && o.lingers(now) {
			return
		}
		o.alone = time.Time{}
		o.swap, o.target = swapSent, target
		o.act(Action{Kind: ActSwap, Set: slices.Clone(target)})
	}
}

// lingers says whether it is too early to go on without any witness.
func (o *Owner) lingers(now time.Time) bool {
	others := slices.ContainsFunc(o.candidates, func(c Candidate) bool { return c.ID.Broker != o.cfg.Self.Broker && !c.Leaving })
	if !others {
		return false
	}
	if o.alone.IsZero() {
		o.alone = now
	}
	return now.Sub(o.alone) < o.cfg.Alone
}

// wanted is the set that should be recorded: the members of the recorded one that work, and joiners that have
// everything that was ever committed (O7), be it for a free place or for that of a member. Joiners for which there is no room,
// and members whose places were taken, are let go.
func (o *Owner) wanted() []ID {
	var out []ID
	for _, id := range o.settled {
		if m := o.attachedID(id); m != nil && m.phase == following {
			out = append(out, id)
		}
	}
	for _, m := range slices.Clone(o.members) {
		if m.phase != following || slices.Contains(o.settled, m.id) {
			continue
		}
		place := slices.Index(out, m.replaces)
		switch {
		case len(out) >= o.cfg.Size && place < 0:
			o.detach(m)
		case m.recorded < o.committed && !plants.joinerNotAwaited:
		case len(out) >= o.cfg.Size:
			out[place] = m.id
		default:
			out = append(out, m.id)
		}
	}
	sortIDs(out)
	return out
}

// SwapWon tells that the record has the set that ActSwap asked for.
func (o *Owner) SwapWon(now time.Time) {
	if o.swap != swapSent {
		return
	}
	o.swap, o.settled, o.pause = swapNone, o.target, 0
	o.step(now)
}

// SwapLost tells that the compare failed: rec is what the record says, read after that.
func (o *Owner) SwapLost(now time.Time, rec Record) {
	if o.swap != swapSent {
		return
	}
	o.take(now, rec)
	o.later(now)
	o.step(now)
}

// SwapNothing tells that the map could not be reached, and that nothing was written.
func (o *Owner) SwapNothing(now time.Time) {
	if o.swap != swapSent {
		return
	}
	o.swap = swapNone
	o.later(now)
	o.step(now)
}

// SwapUnknown tells that the answer was lost: the swap may have happened, or may yet happen (O8).
func (o *Owner) SwapUnknown(now time.Time) {
	if o.swap != swapSent {
		return
	}
	o.swap = swapDoubt
	if plants.settleByRead {
		o.swap = swapNone
		o.later(now)
	}
	o.step(now)
}

// Settled brings the record as it is after a write that no older swap survives (O8).
func (o *Owner) Settled(now time.Time, rec Record) {
	if o.swap != settleSent {
		return
	}
	o.take(now, rec)
	o.step(now)
}

// SettleFailed tells that the settling write had no answer either.
func (o *Owner) SettleFailed(now time.Time) {
	if o.swap != settleSent {
		return
	}
	o.swap = swapDoubt
	o.later(now)
	o.step(now)
}

// RecordRead brings what the map's watch shows of the record, at any time. It can only end the owner: a set that
// was read settles nothing.
func (o *Owner) RecordRead(rec Record) {
	if o.opened && (rec.Epoch > o.cfg.Key.Epoch || rec.Epoch == o.cfg.Key.Epoch && !rec.Open) {
		o.take(time.Time{}, rec)
	}
}

// Pauses between tries to write the record.
const (
	shortestPause = 5 * time.Millisecond
	longestPause  = time.Second
)

func (o *Owner) later(now time.Time) {
	o.pause = min(max(2*o.pause, shortestPause), longestPause)
	o.swapNext = now.Add(o.pause)
}

// replenish begins sessions until enough members are there or on their way.
func (o *Owner) replenish(now time.Time) {
	for len(o.members) < o.cfg.Size {
		c := o.choose(now, nil)
		if c == nil {
			return
		}
		o.attach(now, c)
	}
}

// attach begins a session with a broker.
func (o *Owner) attach(now time.Time, c *Candidate) *member {
	o.session++
	m := &member{id: c.ID, rack: c.Rack, session: o.session, since: now}
	i, _ := slices.BinarySearchFunc(o.members, c.ID.Broker, func(m *member, b ident.Broker) int { return cmp.Compare(m.id.Broker, b) })
	o.members = slices.Insert(o.members, i, m)
	h := &Hello{Key: o.cfg.Key, Owner: o.cfg.Self, Session: m.session, Member: m.id}
	o.act(Action{Kind: ActSend, Member: m.id, Session: m.session, Message: Message{Hello: h}})
	return m
}

// improve lets a broker join in the place of a member when the set is whole, at rest, and that broker has been farther away by
// racks for a while. It is a joiner like any other (O7): the member is needed until the swap that puts one for the other is
// settled. Each such swap leaves fewer members in the owner's rack, or as many and fewer that share one: it comes to an end.
func (o *Owner) improve(now time.Time) {
	worst, c := o.improvement(now)
	switch {
	case c == nil:
		o.better = ID{}
	case o.better != c.ID:
		o.better, o.stands = c.ID, now
	case now.Sub(o.stands) >= o.cfg.Better:
		o.better = ID{}
		o.attach(now, c).replaces = worst.id
	}
}

// improvement is the member that is worst by racks and who would be strictly better in its place; nil, nil: nobody.
func (o *Owner) improvement(now time.Time) (worst *member, c *Candidate) {
	if !o.opened || o.fenced != nil || o.swap != swapNone || len(o.settled) != o.cfg.Size || len(o.members) != o.cfg.Size {
		return nil, nil
	}
	most := -1
	for _, m := range o.members {
		if m.phase != following || !slices.Contains(o.settled, m.id) {
			return nil, nil
		}
		if n := o.closeness(m.rack, m); n > most {
			worst, most = m, n
		}
	}
	c = o.choose(now, worst)
	if c == nil || o.closeness(c.Rack, worst) >= most {
		return nil, nil
	}
	return worst, c
}

// choose returns the best broker that could join now: in another rack than everybody but one, or at least than the owner; and
// the logs of a cluster spread over its brokers.
func (o *Owner) choose(now time.Time, but *member) *Candidate {
	var best *Candidate
	better := func(a, b *Candidate) bool {
		return cmp.Or(cmp.Compare(o.closeness(a.Rack, but), o.closeness(b.Rack, but)), cmp.Compare(o.lot(a.ID.Broker), o.lot(b.ID.Broker)),
			cmp.Compare(a.ID.Broker, b.ID.Broker)) < 0
	}
	for i := range o.candidates {
		c := &o.candidates[i]
		h := o.health[c.ID.Broker]
		switch {
		case c.ID.Broker == o.cfg.Self.Broker, c.Leaving, o.attachedBroker(c.ID.Broker) != nil:
		case slices.Contains(o.settled, c.ID): // it failed, and is still to be removed
		case o.swap != swapNone && slices.Contains(o.target, c.ID): // likewise
		case h != nil && h.incarnation >= c.ID.Incarnation && o.resting(now, h):
		case best == nil || better(c, best):
			best = c
		}
	}
	return best
}

// resting says whether a broker that failed is left alone for now.
func (o *Owner) resting(now time.Time, h *health) bool {
	if len(o.members) == 0 {
		return now.Sub(h.failed) < o.cfg.Backoff
	}
	return now.Before(h.notBefore)
}

// closeness is 0 for a rack of its own, 1 for another rack than the owner's that a member is in, too, 2 for the owner's or an unknown
// one. One member does not count.
func (o *Owner) closeness(rack string, but *member) int {
	if rack == "" || rack == o.cfg.Rack {
		return 2
	}
	if slices.ContainsFunc(o.members, func(m *member) bool { return m != but && m.rack == rack }) {
		return 1
	}
	return 0
}

// isReplaced says whether a joiner that has the table is to take the place of a member.
func (o *Owner) isReplaced(id ID) bool {
	return slices.ContainsFunc(o.members, func(m *member) bool { return m.phase == following && m.replaces == id })
}

// lot spreads: each log draws another order of brokers.
func (o *Owner) lot(b ident.Broker) uint64 {
	h := fnv.New64a()
	var n [4]byte
	binary.LittleEndian.PutUint32(n[:], uint32(b))
	_, _ = h.Write(n[:]) // a hash takes everything
	_, _ = h.Write(o.cfg.Key.Log[:])
	x := h.Sum64() // its high bits hardly depend on the first bytes
	x ^= x >> 33
	x *= 0xff51afd7ed558ccd
	return x ^ x>>33
}

// fail lets a member go that did not do what it should, and remembers that.
func (o *Owner) fail(now time.Time, m *member) {
	h := o.healthOf(m.id)
	if m.phase == following && now.Sub(h.followed) > o.cfg.MaxBackoff {
		h.failures = 0
	}
	h.failures++
	h.failed = now
	wait := o.cfg.Backoff << min(h.failures-1, 16)
	h.notBefore = now.Add(min(wait, o.cfg.MaxBackoff))
	o.detach(m)
}

func (o *Owner) detach(m *member) {
	o.members = slices.DeleteFunc(o.members, func(x *member) bool { return x == m })
	o.act(Action{Kind: ActClose, Member: m.id, Session: m.session})
}

func (o *Owner) healthOf(id ID) *health {
	h := o.health[id.Broker]
	if h == nil || h.incarnation < id.Incarnation {
		h = &health{incarnation: id.Incarnation}
		o.health[id.Broker] = h
	}
	return h
}
