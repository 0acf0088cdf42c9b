package queuemapper

import (
	"iter"

	"github.com/skeinmq/skein/internal/ident"
)

// Changes is what differs between two snapshots. What both share is skipped in whole chunks,
// so that comparing neighbours costs what changed, not what there is.
type Changes struct {
	// Topics that were written or removed, by name. One that was deleted and created again
	// under its name is one entry with two ids.
	Topics []Change[Topic]
	Groups []Change[Group]
	Logs   []Change[Log]
}

// Change is one record before and after, nil where there is none.
type Change[R any] struct{ Old, New *R }

// Changes compares m with an older snapshot; nil counts as empty. Ordered as the map iterates.
func (m *Map) Changes(old *Map) Changes {
	if old == nil {
		old = newMap()
	}
	var c Changes
	for change := range differences(old.topics, m.topics) {
		c.Topics = append(c.Topics, Change[Topic]{change[0], change[1]})
	}
	for change := range differences(old.logs, m.logs) {
		c.Logs = append(c.Logs, Change[Log]{change[0], change[1]})
	}
	for i, g := range m.groups {
		if was := old.Group(ident.Group(i)); was != g {
			c.Groups = append(c.Groups, Change[Group]{was, g})
		}
	}
	return c
}

// cursor walks an ordered map, whole chunks at a time where asked to.
type cursor[K, V any] struct {
	chunks [][]entry[K, V]
	at     int // in chunks[0]
}

func (c *cursor[K, V]) next() {
	if c.at++; c.at == len(c.chunks[0]) {
		c.chunks, c.at = c.chunks[1:], 0
	}
}

// differences yields old and new values of the keys whose values are not the same pointer.
func differences[K, R any](old, fresh ordered[K, *R]) iter.Seq[[2]*R] {
	return func(yield func([2]*R) bool) {
		a, b := cursor[K, *R]{chunks: old.chunks}, cursor[K, *R]{chunks: fresh.chunks}
		for len(a.chunks) > 0 || len(b.chunks) > 0 {
			var pair [2]*R
			order := 0
			switch {
			case len(a.chunks) == 0:
				order = 1
			case len(b.chunks) == 0:
				order = -1
			case a.at == 0 && b.at == 0 && &a.chunks[0][0] == &b.chunks[0][0] && len(a.chunks[0]) == len(b.chunks[0]):
				a.chunks, b.chunks = a.chunks[1:], b.chunks[1:]
				continue
			default:
				order = fresh.compare(a.chunks[0][a.at].key, b.chunks[0][b.at].key)
			}
			if order <= 0 {
				pair[0] = a.chunks[0][a.at].val
				a.next()
			}
			if order >= 0 {
				pair[1] = b.chunks[0][b.at].val
				b.next()
			}
			if pair[0] != pair[1] && !yield(pair) {
				return
			}
		}
	}
}
