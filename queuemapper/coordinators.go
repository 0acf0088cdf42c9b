package queuemapper

import "github.com/skeinmq/skein/internal/ident"

// coordinatorPartitions is how many partitions coordinators are spread over; package controller has the same number.
const coordinatorPartitions = 50

// CoordinatorGroup is the placement group that a coordinator partition (one of __consumer_offsets) lives in: who owns the
// group coordinates the partition, and moves and failovers take the coordinator along. It never changes. They lie far
// apart: neighbouring groups are often on one log, as plans go by their numbers where nothing else distinguishes them.
func (m *Map) CoordinatorGroup(partition int32) ident.Group {
	return ident.Group(int(partition) * m.cluster.Groups / coordinatorPartitions)
}

// CoordinatorPartitions is the number of partitions of __consumer_offsets.
const CoordinatorPartitions = 50

// Coordinators is how many coordinator partitions live in a group: they are work for its owner as others are, although
// they have no records in its log.
func (m *Map) Coordinators(group ident.Group) int {
	n, groups := int(group), max(m.cluster.Groups, 1)
	if n < 0 || n >= CoordinatorPartitions {
		return 0
	}
	return (CoordinatorPartitions - n + groups - 1) / groups
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
