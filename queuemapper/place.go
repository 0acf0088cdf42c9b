package queuemapper

import (
	"cmp"
	"container/heap"

	"github.com/skeinmq/skein/internal/ident"
)

// candidate is a group that may take new partitions, or move.
type candidate struct {
	id           ident.Group
	count        int32 // partitions
	coordinators int32 // where groups move
}

// fuller orders candidates by what lives in them, the emptiest first.
func (c candidate) fuller(o candidate) int {
	return cmp.Or(cmp.Compare(c.count, o.count), cmp.Compare(c.coordinators, o.coordinators))
}

// shelf is a log with the groups that are open on it, the emptiest first.
type shelf struct {
	id     ident.Log
	mine   int // partitions of the topic
	total  int // partitions of all topics
	groups groupHeap
}

type groupHeap []candidate

func (h groupHeap) Len() int { return len(h) }
func (h groupHeap) Less(i, j int) bool {
	return cmp.Or(cmp.Compare(h[i].count, h[j].count), cmp.Compare(h[i].id, h[j].id)) < 0
}
func (h groupHeap) Swap(i, j int) { h[i], h[j] = h[j], h[i] }
func (h *groupHeap) Push(x any)   { *h = append(*h, x.(candidate)) }
func (h *groupHeap) Pop() any     { panic("queuemapper: groups are only moved in the heap") }

type shelfHeap []*shelf

func (h shelfHeap) Len() int { return len(h) }
func (h shelfHeap) Less(i, j int) bool {
	a, b := h[i], h[j]
	return cmp.Or(cmp.Compare(a.mine, b.mine), cmp.Compare(a.total, b.total), compareLogs(a.id, b.id)) < 0
}
func (h shelfHeap) Swap(i, j int) { h[i], h[j] = h[j], h[i] }
func (h *shelfHeap) Push(x any)   { *h = append(*h, x.(*shelf)) }
func (h *shelfHeap) Pop() any     { panic("queuemapper: logs are only moved in the heap") }

// PlaceNew chooses groups for n new partitions of a topic, the first of which has the index
// first: spread over the open logs, those on disks that are nearly full only if all are, then over the groups with the
// fewest partitions. The same map and arguments give the same answer. Before any group is open, all groups count as
// being on one log.
func (m *Map) PlaceNew(topic ident.Topic, first, n int32) []ident.Group {
	shelves := m.withRoom(m.shelves())
	if len(shelves) == 0 || n <= 0 {
		return nil
	}
	if t := m.TopicByID(topic); t != nil && first > 0 {
		byLog := make(map[ident.Log]*shelf, len(shelves))
		for _, sh := range shelves {
			byLog[sh.id] = sh
		}
		for _, pl := range t.Partitions[:min(int(first), len(t.Partitions))] {
			if g := m.Group(pl[len(pl)-1].Group); g != nil && g.Current() != nil {
				if sh := byLog[g.Current().Log]; sh != nil {
					sh.mine++
				}
			}
		}
	}
	for _, sh := range shelves {
		heap.Init(&sh.groups)
	}
	heap.Init(&shelves)
	out := make([]ident.Group, n)
	for i := range out {
		sh := shelves[0]
		g := &sh.groups[0]
		out[i] = g.id
		g.count++
		heap.Fix(&sh.groups, 0)
		sh.mine++
		sh.total++
		heap.Fix(&shelves, 0)
	}
	return out
}

// PlaceAt chooses a group for each new partition of a topic, open on a log of the broker that stands at its place in the
// list; where that broker has none, as PlaceNew does.
func (m *Map) PlaceAt(topic ident.Topic, first int32, hosts []ident.Broker) []ident.Group {
	out := m.PlaceNew(topic, first, int32(len(hosts)))
	byHost := make(map[ident.Broker]*groupHeap)
	for _, sh := range m.shelves() {
		l := m.Log(sh.id)
		if l == nil {
			return out // no group is open yet
		}
		if byHost[l.Host] == nil {
			byHost[l.Host] = new(groupHeap)
		}
		*byHost[l.Host] = append(*byHost[l.Host], sh.groups...)
	}
	for _, groups := range byHost {
		heap.Init(groups)
	}
	for i := range out {
		if groups := byHost[hosts[i]]; groups != nil {
			g := &(*groups)[0]
			out[i] = g.id
			g.count++
			heap.Fix(groups, 0)
		}
	}
	return out
}

// shelves returns the open logs with the groups that are open on them.
func (m *Map) shelves() shelfHeap {
	byLog := make(map[ident.Log]*shelf)
	var out shelfHeap
	add := func(id ident.Log, g *Group) {
		sh := byLog[id]
		if sh == nil {
			sh = &shelf{id: id}
			byLog[id] = sh
			out = append(out, sh)
		}
		count := m.counts[g.ID]
		sh.total += int(count)
		sh.groups = append(sh.groups, candidate{id: g.ID, count: count})
	}
	for _, g := range m.groups {
		if cur := g.Current(); cur != nil {
			if l := m.Log(cur.Log); l != nil && l.State == LogOpen {
				add(cur.Log, g)
			}
		}
	}
	if len(out) == 0 {
		for _, g := range m.groups {
			add(ident.Log{}, g)
		}
	}
	return out
}
