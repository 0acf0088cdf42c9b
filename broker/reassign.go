package broker

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/skeinmq/skein/internal/ident"
	"github.com/skeinmq/skein/internal/peer/peerpb"
	"github.com/skeinmq/skein/protocol"
	"github.com/skeinmq/skein/queuemapper"
)

const (
	// reassignFor is how long a reassignment is tried before it is given up.
	reassignFor = 10 * time.Minute
	// reassignStep is how long one partition may keep the others waiting.
	reassignStep = 15 * time.Second
	// reassignPause is how long it waits after a step that failed, at first and at most.
	reassignPause    = 50 * time.Millisecond
	reassignPauseMax = 2 * time.Second
)

// reassignment is a partition on its way to a broker.
type reassignment struct {
	id    ident.Partition
	topic string
	to    ident.Broker
	list  []ident.Broker // the replicas that were asked for; the first is where it goes
	from  ident.Broker   // the owner when it was asked for
	noted int64          // revision of the map from which on it is in there; 0: it is not

	ctx    context.Context // ends when it is cancelled, takes too long, or the broker ends
	cancel context.CancelFunc
}

// reassignments are those that were asked for at this broker and are not done.
type reassignments struct {
	work sync.WaitGroup
	step sync.Mutex // one partition at a time is moved; nothing that was cancelled is touched by whoever has it

	ended chan struct{} // one slot: one has ended, and may be in the map

	mu sync.Mutex
	by map[ident.Partition]*reassignment
}

// list returns the reassignments that go on, ordered by partition.
func (r *reassignments) list() []*reassignment {
	r.mu.Lock()
	defer r.mu.Unlock()
	out := make([]*reassignment, 0, len(r.by))
	for _, e := range r.by {
		out = append(out, e)
	}
	slices.SortFunc(out, func(a, b *reassignment) int {
		return cmp.Or(cmp.Compare(a.topic, b.topic), cmp.Compare(a.id.Index, b.id.Index))
	})
	return out
}

// take ends the reassignment of a partition, nil if there is none.
func (r *reassignments) take(p ident.Partition) *reassignment {
	r.mu.Lock()
	e := r.by[p]
	delete(r.by, p)
	r.mu.Unlock()
	if e != nil {
		e.cancel()
		r.poke()
	}
	return e
}

func (r *reassignments) poke() {
	select {
	case r.ended <- struct{}{}:
	default:
	}
}

// add makes a reassignment known, in the place of an older one of the partition.
func (r *reassignments) add(life context.Context, e *reassignment) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if old := r.by[e.id]; old != nil {
		old.cancel()
	}
	e.ctx, e.cancel = context.WithTimeout(life, reassignFor)
	if r.by == nil {
		r.by = make(map[ident.Partition]*reassignment)
	}
	r.by[e.id] = e
}

func (r *reassignments) end(e *reassignment) {
	e.cancel()
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.by[e.id] == e {
		delete(r.by, e.id)
		r.poke()
	}
}

// reassign begins reassignments, waits a while for them, and leaves the rest to go on: that is in the map, and does not
// depend on this broker. It returns what could not be begun.
func (b *Broker) reassign(ctx context.Context, begun []*reassignment) map[*reassignment]error {
	if len(begun) == 0 {
		return nil
	}
	for _, e := range begun {
		b.reassigns.add(b.life, e)
	}
	failed := b.noteReassignments(begun) // before the first step: whoever works on an older order sees it, or a newer one this
	all := make(chan struct{})
	b.reassigns.work.Go(func() {
		defer close(all)
		b.reassignAll(begun)
	})
	patience := time.NewTimer(max(reassignPatience, b.cfg.Patience))
	defer patience.Stop()
	select {
	case <-all:
	case <-patience.C:
	case <-ctx.Done():
	}
	b.awaitPeers(ctx, b.store.Map().Revision())
	return failed
}

// reassignAll takes partitions to their brokers, round after round: one that cannot go now does not keep the others.
func (b *Broker) reassignAll(left []*reassignment) {
	for pause := reassignPause; ; pause = min(2*pause, reassignPauseMax) {
		left = b.reassignRound(left)
		if len(left) == 0 {
			return
		}
		select {
		case <-time.After(pause):
		case <-b.life.Done():
		}
	}
}

// reassignRound tries each once, and returns those to be tried again.
func (b *Broker) reassignRound(todo []*reassignment) (again []*reassignment) {
	var there []*reassignment
	record := func() {
		again = append(again, b.assign(there)...)
		there = nil
	}
	for _, r := range todo {
		err := b.reassignOne(r)
		switch {
		case errors.Is(err, queuemapper.ErrSuperseded):
			b.conclude(r)
		case err == nil:
			if there = append(there, r); len(there) == assignBatch {
				record()
			}
		case r.ctx.Err() != nil || errors.Is(err, queuemapper.ErrNotFound):
			if !errors.Is(context.Cause(r.ctx), context.Canceled) {
				b.log.Warn("reassign partition", "topic", r.topic, "partition", r.id.Index, "broker", r.to, "error", err)
			}
			b.conclude(r)
		default:
			b.log.Info("reassignment is tried again", "topic", r.topic, "partition", r.id.Index, "broker", r.to, "error", err)
			again = append(again, r)
		}
	}
	record()
	return again
}

// assignBatch is how many replica lists are written at a time.
const assignBatch = 500

// assign records the replica lists of partitions that arrived, for as long as that is what is wanted, and returns those for
// which it failed.
func (b *Broker) assign(there []*reassignment) (again []*reassignment) {
	b.reassigns.step.Lock()
	defer b.reassigns.step.Unlock()
	orders := make(map[ident.Topic][]queuemapper.Order)
	for _, r := range there {
		if r.ctx.Err() == nil {
			orders[r.id.Topic] = append(orders[r.id.Topic], b.order(r))
		}
	}
	failed := make(map[ident.Topic]bool)
	for topic, of := range orders {
		ctx, cancel := context.WithTimeout(b.life, reassignStep)
		err := b.store.Fulfil(ctx, topic, of)
		cancel()
		if err != nil && !errors.Is(err, queuemapper.ErrNotFound) {
			b.log.Info("record replicas", "topic", topic, "partitions", len(of), "error", err)
			failed[topic] = true
		}
	}
	for _, r := range there {
		if failed[r.id.Topic] && r.ctx.Err() == nil {
			again = append(again, r)
		} else {
			b.conclude(r) // or it is done
		}
	}
	return again
}

// order is a reassignment as the map has it, if it is this broker's to work on.
func (b *Broker) order(r *reassignment) queuemapper.Order {
	return queuemapper.Order{
		Partition:    r.id,
		Reassignment: queuemapper.Reassignment{Replicas: r.list, From: r.from, Worker: b.cfg.ID, Incarnation: b.cfg.Incarnation},
	}
}

// conclude ends a reassignment. One that is not done, and is not to be any more, may have had a step too many: that is undone.
func (b *Broker) conclude(r *reassignment) {
	b.reassigns.end(r)
	m := b.store.Map()
	if _, ok := m.Reassignment(r.id); ok || slices.Equal(m.Assignments(r.id.Topic).Of(r.id.Index), r.list) {
		return // somebody brings it where another order says, or it is done
	}
	b.reassigns.work.Go(func() {
		ctx, cancel := context.WithTimeout(b.life, reassignStep)
		defer cancel()
		if err := b.undoReassignment(ctx, r); err != nil {
			b.log.Warn("take a partition back", "topic", r.topic, "partition", r.id.Index, "broker", r.to, "error", err)
		}
	})
}

// reassignOne takes a partition to its broker, by the newest map.
func (b *Broker) reassignOne(r *reassignment) error {
	b.reassigns.step.Lock()
	defer b.reassigns.step.Unlock()
	if r.ctx.Err() != nil {
		return context.Cause(r.ctx)
	}
	ctx, cancel := context.WithTimeout(r.ctx, reassignStep)
	defer cancel()
	return b.bring(ctx, r)
}

// cancelReassignment ends the reassignment of a partition: it stays where it was, or goes back there.
func (b *Broker) cancelReassignment(ctx context.Context, p ident.Partition) error {
	r := b.reassigns.take(p)
	noted, is := b.store.Map().Reassignment(p)
	switch {
	case r == nil && !is:
		return refuseCode(protocol.CodeNoReassignmentInProgress)
	case r == nil: // another broker is at it, and notices
		r = &reassignment{id: p, to: noted.Replicas[0], from: noted.From}
	}
	if is {
		if err := b.store.Reassign(ctx, p.Topic, func(of map[int32]queuemapper.Reassignment) { delete(of, p.Index) }); err != nil {
			return err
		}
	}
	return b.undoReassignment(ctx, r)
}

// undoReassignment takes a partition back to where it was, if it has left: or where a later order has brought it and pinned it.
func (b *Broker) undoReassignment(ctx context.Context, r *reassignment) error {
	b.reassigns.step.Lock() // its step has ended
	defer b.reassigns.step.Unlock()
	p := r.id
	m := b.store.Map()
	run, log, ok := m.Owner(m.TopicByID(p.Topic), p.Index)
	if !ok || log == nil || log.Host != r.to || r.from == r.to {
		return nil
	}
	home := r.from
	pin, pinned := m.Pin(run.Generation.Group)
	if pinned && pin.Broker != r.to {
		home = pin.Broker
	}
	back, ok := openLogOf(m, home)
	if !ok {
		return refuse(protocol.CodeUnknownServerError, "The partition has arrived, and broker %d takes none back.", home)
	}
	if pinned && pin.Broker == r.to {
		if err := b.store.UnpinGroup(ctx, run.Generation.Group); err != nil {
			return err
		}
	}
	return b.askMove(ctx, m, run.Generation.Group, back)
}

// bring moves one partition to a broker. The partition moves with its group when the group has no other, or all of it
// goes there. Otherwise it gets a group of its own first: an empty one, which is brought to the owner if need be. When no
// group is empty, the emptiest of the target's comes to the owner, takes the partition, and goes back.
func (b *Broker) bring(ctx context.Context, r *reassignment) error {
	m := b.store.Map()
	t := m.TopicByID(r.id.Topic)
	run, log, ok := m.Owner(t, r.id.Index)
	switch {
	case t == nil:
		return fmt.Errorf("find topic %s: %w", r.topic, queuemapper.ErrNotFound)
	case r.noted > 0 && !m.InForce(b.order(r)):
		return queuemapper.ErrSuperseded
	case !ok || log == nil:
		return errors.New("the partition has no owner")
	case log.Host == r.to:
		return b.pin(ctx, run.Generation.Group, r)
	}
	target, ok := openLogOf(m, r.to)
	if !ok {
		return fmt.Errorf("broker %d has no open log", r.to)
	}
	group := run.Generation.Group
	if m.Partitions(group) > 1 && !b.wholeGroup(m, group, r.to) {
		into, err := b.groupFor(ctx, m, log, r.to)
		if err != nil {
			return err
		}
		if err := b.askSplit(ctx, log.Host, r, into); err != nil {
			return err
		}
		group, m = into, b.store.Map()
	}
	if err := b.askMove(ctx, m, group, target); err != nil {
		return err
	}
	return b.pin(ctx, group, r)
}

// pin keeps a group where somebody wants it. An election is no order: it brings a partition where the last one said.
func (b *Broker) pin(ctx context.Context, group ident.Group, r *reassignment) error {
	want := queuemapper.Pin{Broker: r.to}
	if pin, ok := b.store.Map().Pin(group); ok && pin == want {
		return nil
	}
	if r.noted == 0 {
		return b.store.PinGroup(ctx, group, want)
	}
	return b.store.PinFor(ctx, group, b.order(r))
}

// wholeGroup reports whether all partitions of a group are on their way to a broker.
func (b *Broker) wholeGroup(m *queuemapper.Map, group ident.Group, to ident.Broker) bool {
	b.reassigns.mu.Lock()
	defer b.reassigns.mu.Unlock()
	n := 0
	for id, r := range b.reassigns.by {
		t := m.TopicByID(id.Topic)
		if t == nil || r.to != to || int(id.Index) >= len(t.Partitions) {
			continue
		}
		if stays := t.Partitions[id.Index]; stays[len(stays)-1].Group == group {
			n++
		}
	}
	return n == m.Partitions(group)
}

// groupFor finds a group that a partition in an owner's log can be split off to, and sees to it that it is open there.
func (b *Broker) groupFor(ctx context.Context, m *queuemapper.Map, owner *queuemapper.Log, to ident.Broker) (ident.Group, error) {
	best, rank := ident.Group(-1), [3]int{}
	for g := range m.Groups() {
		cur := g.Current()
		if cur == nil {
			continue
		}
		l := m.Log(cur.Log)
		if l == nil || l.State != queuemapper.LogOpen {
			continue
		}
		n := m.Partitions(g.ID)
		if n > 0 && l.Host != to {
			continue
		}
		where := 1
		if l.Host == owner.Host {
			where = 0
		}
		if r := [3]int{n, where, int(g.ID)}; best < 0 || slices.Compare(r[:], rank[:]) < 0 {
			best, rank = g.ID, r
		}
	}
	if best < 0 {
		return best, errors.New("no group is free for the partition")
	}
	if rank[1] == 1 {
		if err := b.askMove(ctx, m, best, owner.ID); err != nil {
			return best, fmt.Errorf("bring group %d to the partition's owner: %w", best, err)
		}
	}
	return best, nil
}

// openLogOf is the open log of a live broker that has the fewest groups.
func openLogOf(m *queuemapper.Map, id ident.Broker) (best ident.Log, ok bool) {
	if m.Broker(id) == nil {
		return best, false
	}
	groups := make(map[ident.Log]int)
	for g := range m.Groups() {
		if cur := g.Current(); cur != nil {
			groups[cur.Log]++
		}
	}
	for l := range m.Logs() {
		if l.Host == id && l.State == queuemapper.LogOpen && (!ok || groups[l.ID] < groups[best]) {
			best, ok = l.ID, true
		}
	}
	return best, ok
}

// askMove has the owner of a group move it to a log as the map has it, and returns when this broker knows. What reaches the owner
// late, after other orders, changes nothing: the group's epoch is another one by then.
func (b *Broker) askMove(ctx context.Context, m *queuemapper.Map, group ident.Group, to ident.Log) error {
	g := m.Group(group)
	if g == nil || g.Current() == nil {
		return fmt.Errorf("group %d is not open", group)
	}
	log := m.Log(g.Current().Log)
	switch {
	case log == nil:
		return fmt.Errorf("group %d is in no log", group)
	case log.ID == to:
		return nil
	case log.Host == b.cfg.ID:
		return b.host.MoveAt(ctx, []ident.Group{group}, []ident.Epoch{g.Current().Epoch}, to)[0].Err
	}
	rpc, err := b.owner(log.Host)
	if err != nil {
		return err
	}
	reply, err := rpc.Move(ctx, &peerpb.MoveRequest{Groups: []int32{int32(group)}, Epochs: []int32{int32(g.Current().Epoch)}, To: to[:]})
	if err != nil {
		return fmt.Errorf("ask broker %d to move group %d: %w", log.Host, group, err)
	}
	for _, g := range reply.GetGroups() {
		if g.GetError() != "" {
			return fmt.Errorf("broker %d does not move group %d: %s", log.Host, group, g.GetError())
		}
	}
	return b.awaitGroup(ctx, group, func(g *queuemapper.Group) bool { return g.Current() != nil && g.Current().Log == to })
}

// askSplit has the owner of a partition split it off to another of its groups.
func (b *Broker) askSplit(ctx context.Context, at ident.Broker, r *reassignment, into ident.Group) error {
	if at == b.cfg.ID {
		_, err := b.host.Split(ctx, r.topic, r.id.Index, into)
		return err
	}
	rpc, err := b.owner(at)
	if err != nil {
		return err
	}
	reply, err := rpc.Split(ctx, &peerpb.SplitRequest{Topic: r.topic, Partition: r.id.Index, Group: int32(into)})
	if err != nil {
		return fmt.Errorf("ask broker %d to split %s:%d off: %w", at, r.topic, r.id.Index, err)
	}
	if reply.GetError() != "" {
		return fmt.Errorf("broker %d does not split %s:%d off: %s", at, r.topic, r.id.Index, reply.GetError())
	}
	return b.awaitGroup(ctx, into, func(g *queuemapper.Group) bool { return int32(g.Current().Epoch) >= reply.GetEpoch() })
}

func (b *Broker) owner(id ident.Broker) (peerpb.OwnerClient, error) {
	if b.cfg.Peers == nil {
		return nil, fmt.Errorf("reach broker %d: there are no other brokers", id)
	}
	conn, err := b.cfg.Peers.Conn(id)
	if err != nil {
		return nil, err
	}
	return peerpb.NewOwnerClient(conn), nil
}

// awaitGroup waits until this broker's map shows what another one has done.
func (b *Broker) awaitGroup(ctx context.Context, id ident.Group, ok func(*queuemapper.Group) bool) error {
	return b.awaitTable(ctx, func(m *queuemapper.Map) bool {
		g := m.Group(id)
		return g != nil && g.Current() != nil && ok(g)
	})
}
