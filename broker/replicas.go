package broker

import (
	"cmp"
	"slices"

	"github.com/skeinmq/skein/internal/ident"
	"github.com/skeinmq/skein/queuemapper"
)

// A partition has one copy, at its owner. Tools and clients that were written for replication factor 3 and
// min.insync.replicas=2 look at lists of replicas, so they are shown lists (ADR 20): of as many brokers as the topic's
// replication factor says, or as somebody assigned, the owner among them. In sync are those that are alive: each of them can
// become the owner, and no acked record is lost by that. A broker that is dead stays in the lists, so partitions are
// under-replicated while it is away: which is what those wait for who restart one broker after the other.

// replicas are the lists of one partition. They may be shared: do not change them.
type replicas struct {
	all, inSync, offline []int32
}

// replicaKey tells apart the lists that nobody assigned.
type replicaKey struct {
	owner  ident.Broker
	factor int16
}

// members lists the brokers of the cluster, dead ones as well, ordered by id.
func members(m *queuemapper.Map) []ident.Broker {
	var out []ident.Broker
	for l := range m.Logs() {
		out = append(out, l.Host)
	}
	for b := range m.Brokers() {
		out = append(out, b.ID)
	}
	slices.Sort(out)
	return slices.Compact(out)
}

// hostsLog reports whether a broker is of the cluster, although it may be away.
func hostsLog(m *queuemapper.Map, id ident.Broker) bool {
	for l := range m.Logs() {
		if l.Host == id {
			return true
		}
	}
	return false
}

// replicas are the lists of a partition of an owner.
func (d *describer) replicas(owner ident.Broker, factor int16, assigned []ident.Broker) replicas {
	if len(assigned) > 0 {
		list := slices.Clone(assigned)
		if !slices.Contains(list, owner) { // a failover took it elsewhere
			list[len(list)-1] = owner
		}
		return d.standing(list, owner)
	}
	key := replicaKey{owner, factor}
	if out, ok := d.lists[key]; ok {
		return out
	}
	out := d.standing(d.drawn(owner, max(int(factor), 1)), owner)
	if d.lists == nil {
		d.lists = make(map[replicaKey]replicas)
	}
	d.lists[key] = out
	return out
}

// drawn makes up a list: the owner, and the brokers after it by id, round the ring; first those that nobody drained.
func (d *describer) drawn(owner ident.Broker, n int) []ident.Broker {
	if n == 1 {
		return []ident.Broker{owner}
	}
	if d.members == nil {
		d.members = members(d.m)
	}
	ring := slices.Clone(d.members)
	if !slices.Contains(ring, owner) {
		ring = append(ring, owner)
	}
	slices.SortFunc(ring, func(a, b ident.Broker) int {
		return cmp.Or(cmp.Compare(d.rank(owner, a), d.rank(owner, b)), cmp.Compare(a, b))
	})
	return ring[:min(n, len(ring))]
}

func (d *describer) rank(owner, id ident.Broker) int {
	rank := 0
	switch {
	case id == owner:
		return rank
	case id > owner:
		rank = 1
	default:
		rank = 2
	}
	if d.m.Drained(id) {
		rank += 2
	}
	return rank
}

// standing splits a list into those that live and those that do not.
func (d *describer) standing(list []ident.Broker, owner ident.Broker) replicas {
	var out replicas
	for _, id := range list {
		out.all = append(out.all, int32(id))
		alive := d.m.Broker(id) != nil || id == d.b.cfg.ID
		if id == owner {
			_, alive = d.b.endpoint(d.m, id)
		}
		if alive {
			out.inSync = append(out.inSync, int32(id))
		} else {
			out.offline = append(out.offline, int32(id))
		}
	}
	return out
}
