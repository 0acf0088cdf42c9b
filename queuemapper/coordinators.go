package queuemapper

import "github.com/skeinmq/skein/internal/ident"

// CoordinatorPartitions is the number of partitions of __consumer_offsets; package controller has the same number.
const CoordinatorPartitions = 50

// CoordinatorGroup is the placement group that a coordinator partition (one of __consumer_offsets) lives in: who owns the
// group coordinates the partition, and moves and failovers take the coordinator along. It never changes. They lie far
// apart: neighbouring groups are often on one log, as plans go by their numbers where nothing else distinguishes them.
func (m *Map) CoordinatorGroup(partition int32) ident.Group {
	return ident.Group(int(partition) * m.cluster.Groups / CoordinatorPartitions)
}

// Coordinators is how many coordinator partitions live in a group: they are work for its owner, although they have
// no records in its log.
func (m *Map) Coordinators(group ident.Group) int {
	groups := m.cluster.Groups
	if int(group) < 0 || int(group) >= groups {
		return 0
	}
	first := func(g int) int { return (g*CoordinatorPartitions + groups - 1) / groups } // of the partitions that live in g or behind it
	return first(int(group)+1) - first(int(group))
}

// Coordinator is the broker that coordinates a coordinator partition: the host of the log of its group's open generation,
// whose epoch is the owner's epoch of its claims. false: nobody does. Until a failover is published it is the dead
// broker, as it is with everything else in the group.
func (m *Map) Coordinator(partition int32) (host ident.Broker, epoch ident.Epoch, ok bool) {
	g := m.Group(m.CoordinatorGroup(partition))
	if g == nil || g.Current() == nil {
		return 0, 0, false
	}
	l := m.Log(g.Current().Log)
	if l == nil {
		return 0, 0, false
	}
	return l.Host, g.Current().Epoch, true
}
