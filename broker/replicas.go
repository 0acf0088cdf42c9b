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
	hosts  readHosts
}

// readHosts are the brokers whom consumers of a partition may be sent to (skein.read.redirect): those, but for the owner, that
// have the most offsets of its older runs, in this order. No broker is -1. Lists of replicas name them, as clients go to
// replicas only, unless somebody assigned the list; there are two at most, so that no list is longer than its factor, or three.
type readHosts [2]ident.Broker

// noHosts: clients are not sent elsewhere.
var noHosts = readHosts{-1, -1}

// readHosts finds them.
func (d *describer) readHosts(rec *queuemapper.Topic, index int32, owner ident.Broker) readHosts {
	out, most := noHosts, [2]ident.Offset{}
	offsets := make(map[ident.Broker]ident.Offset)
	for _, run := range d.m.Runs(rec, index) {
		if l := d.m.Log(run.Log); !run.Open && l != nil && l.Host != owner {
			offsets[l.Host] += run.End - run.Start
		}
	}
	for id, n := range offsets {
		switch {
		case n > most[0] || n == most[0] && id < out[0]:
			out[0], most[0], out[1], most[1] = id, n, out[0], most[0]
		case n > most[1] || n == most[1] && id < out[1]:
			out[1], most[1] = id, n
		}
	}
	return out
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

// replicas are the lists of a partition of an owner, as far as they do not depend on where clients may read.
func (d *describer) replicas(owner ident.Broker, factor int16, assigned []ident.Broker) replicas {
	return d.replicasWith(owner, factor, assigned, noHosts)
}

// replicasWith are the lists of a partition of an owner.
func (d *describer) replicasWith(owner ident.Broker, factor int16, assigned []ident.Broker, hosts readHosts) replicas {
	if len(assigned) > 0 {
		list := slices.Clone(assigned)
		if !slices.Contains(list, owner) { // a failover took it elsewhere
			list[len(list)-1] = owner
		}
		return d.standing(list, owner)
	}
	key := replicaKey{owner, factor, hosts}
	if out, ok := d.lists[key]; ok {
		return out
	}
	out := d.standing(d.drawn(owner, max(int(factor), 1), hosts), owner)
	if d.lists == nil {
		d.lists = make(map[replicaKey]replicas)
	}
	d.lists[key] = out
	return out
}

// drawn makes up a list: the owner, whom clients may be sent to, and the brokers after the owner by id, round the ring; first
// those that nobody drained.
func (d *describer) drawn(owner ident.Broker, n int, hosts readHosts) []ident.Broker {
	list := []ident.Broker{owner}
	for _, id := range hosts {
		if id >= 0 {
			list = append(list, id)
		}
	}
	if len(list) >= n {
		return list
	}
	if d.members == nil {
		d.members = members(d.m)
	}
	ring := slices.DeleteFunc(slices.Clone(d.members), func(id ident.Broker) bool { return slices.Contains(list, id) })
	slices.SortFunc(ring, func(a, b ident.Broker) int {
		return cmp.Or(cmp.Compare(d.rank(owner, a), d.rank(owner, b)), cmp.Compare(a, b))
	})
	return append(list, ring[:min(n-len(list), len(ring))]...)
}

func (d *describer) rank(owner, id ident.Broker) int {
	rank := 2
	if id > owner {
		rank = 1
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
