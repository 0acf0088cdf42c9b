package queuemapper

import (
	"slices"

	"github.com/skeinmq/skein/internal/ident"
)

// RoleFull is a role of a broker's registration: its disk is nearly full. New partitions, and groups that must go somewhere,
// go to other brokers, as long as there is one that has room.
const RoleFull = "full"

const (
	// DiskFull is the share of a disk in use from which its broker counts as full.
	DiskFull = 0.90
	// DiskBack is how far below a limit a disk must be that was above it: what retention deletes comes back in a moment.
	DiskBack = 0.03
)

// Full reports whether a broker said that its disk is nearly full.
func (m *Map) Full(id ident.Broker) bool {
	b := m.Broker(id)
	return b != nil && slices.Contains(b.Roles, RoleFull)
}

// WithRoom returns those of the logs whose brokers' disks are not nearly full; all of them if there is none.
func (m *Map) WithRoom(logs []*Log) []*Log {
	var out []*Log
	for _, l := range logs {
		if !m.Full(l.Host) {
			out = append(out, l)
		}
	}
	if len(out) == 0 {
		return logs
	}
	return out
}

// withRoom does the same for shelves.
func (m *Map) withRoom(shelves shelfHeap) shelfHeap {
	var out shelfHeap
	for _, sh := range shelves {
		if l := m.Log(sh.id); l == nil || !m.Full(l.Host) {
			out = append(out, sh)
		}
	}
	if len(out) == 0 {
		return shelves
	}
	return out
}
