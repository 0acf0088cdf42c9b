package broker

import (
	"sync"
	"time"

	"github.com/skeinmq/skein/internal/ident"
	"github.com/skeinmq/skein/protocol"
	"github.com/skeinmq/skein/queuemapper"
)

// endpointFor is how long a broker that is gone from the map is still named where its groups have not gone elsewhere:
// a failover takes less than a second, a restart a few.
const endpointFor = 2 * time.Minute

// endpoints remembers how the brokers were reached that are gone from the map: while a failover runs, the dead owner
// stays the leader, and clients must be told a leader that they can make sense of.
type endpoints struct {
	mu   sync.Mutex
	seen map[ident.Broker]seenBroker
}

// seenBroker is how a broker is, or was, reached.
type seenBroker struct {
	node protocol.NodeEndpoint
	gone time.Time // zero: it is in the map
}

// learn takes over what a snapshot says.
func (e *endpoints) learn(m *queuemapper.Map, now time.Time) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.seen == nil {
		e.seen = make(map[ident.Broker]seenBroker)
	}
	for r := range m.Brokers() {
		e.seen[r.ID] = seenBroker{node: nodeOf(r)}
	}
	for id, s := range e.seen {
		switch {
		case m.Broker(id) != nil:
		case s.gone.IsZero():
			s.gone = now
			e.seen[id] = s
		case now.Sub(s.gone) > endpointFor:
			delete(e.seen, id)
		}
	}
}

// last returns how a broker was reached that went away a short while ago.
func (e *endpoints) last(id ident.Broker, now time.Time) (protocol.NodeEndpoint, bool) {
	e.mu.Lock()
	defer e.mu.Unlock()
	s, ok := e.seen[id]
	return s.node, ok && (s.gone.IsZero() || now.Sub(s.gone) <= endpointFor)
}

func nodeOf(r *queuemapper.Broker) protocol.NodeEndpoint {
	return protocol.NodeEndpoint{NodeID: int32(r.ID), Host: r.Host, Port: r.Port, Rack: r.Rack}
}

// endpoint returns how a broker is reached: a live one, or one that went away a short while ago.
func (b *Broker) endpoint(m *queuemapper.Map, id ident.Broker) (protocol.NodeEndpoint, bool) {
	if r := m.Broker(id); r != nil {
		return nodeOf(r), true
	}
	if id == b.cfg.ID {
		return protocol.NodeEndpoint{NodeID: int32(id), Host: b.cfg.Host, Port: b.cfg.Port, Rack: b.cfg.Rack}, true
	}
	return b.endpoints.last(id, time.Now())
}

// liveBrokers lists how the live brokers are reached, ordered by id; this one is always among them.
func (b *Broker) liveBrokers(m *queuemapper.Map) []protocol.NodeEndpoint {
	var out []protocol.NodeEndpoint
	for r := range m.Brokers() {
		out = append(out, nodeOf(r))
	}
	if m.Broker(b.cfg.ID) == nil {
		self, _ := b.endpoint(m, b.cfg.ID)
		out = append(out, self)
	}
	return out
}

// leavers lists brokers that went away a short while ago and still own a group: answers that name them as leaders say
// how they were reached, or clients would take the partition for one without a leader.
func (b *Broker) leavers(m *queuemapper.Map) []protocol.NodeEndpoint {
	var out []protocol.NodeEndpoint
	seen := make(map[ident.Broker]bool)
	for g := range m.Groups() {
		cur := g.Current()
		if cur == nil {
			continue
		}
		l := m.Log(cur.Log)
		if l == nil || seen[l.Host] || l.Host == b.cfg.ID {
			continue
		}
		seen[l.Host] = true
		if m.Broker(l.Host) != nil {
			continue
		}
		if node, ok := b.endpoints.last(l.Host, time.Now()); ok {
			out = append(out, node)
		}
	}
	return out
}

// controllerID is the active controller, if it is alive; every broker serves every administrative request, so it may
// as well be this one. Without a majority of voters the map goes on naming the last one, which may be dead.
func (b *Broker) controllerID(m *queuemapper.Map) int32 {
	if c := m.Controller(); c.Term > 0 && m.Broker(c.Broker) != nil && !b.leaderless() {
		return int32(c.Broker)
	}
	return int32(b.cfg.ID)
}

// leaderless reports that no active controller is known: the map may name brokers as live that are not.
func (b *Broker) leaderless() bool { return b.cfg.Leaderless != nil && b.cfg.Leaderless() }

// coordinatorNode is the broker that coordinates one partition of __consumer_offsets, and the epoch in which it does.
func (b *Broker) coordinatorNode(m *queuemapper.Map, index int32) (protocol.NodeEndpoint, ident.Epoch, bool) {
	host, epoch, ok := m.Coordinator(index)
	if !ok {
		return protocol.NodeEndpoint{}, 0, false
	}
	node, ok := b.endpoint(m, host)
	return node, epoch, ok
}
