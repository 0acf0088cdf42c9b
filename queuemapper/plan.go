package queuemapper

import (
	"cmp"
	"fmt"
	"slices"

	"github.com/skeinmq/skein/internal/ident"
)

// Move is one planned move: a group goes from one log to another. From is zero for a group
// that has no open generation yet.
type Move struct {
	Group    ident.Group
	From, To ident.Log
}

// Plan spreads the groups evenly over the given logs with as few moves as possible: every
// log ends up with the same number of groups, give or take one, and only groups that are on
// another log, or on one that has too many, move. Of those that could go, the ones with the
// fewest partitions do. Groups on logs that are not given move off them. The same map and
// logs, in any order, give the same plan, ordered by group. ErrInvalid: no log, or one that
// is unknown or not open.
func (m *Map) Plan(logs []ident.Log) ([]Move, error) {
	logs = slices.Compact(slices.SortedFunc(slices.Values(logs), compareLogs))
	if len(logs) == 0 {
		return nil, fmt.Errorf("plan moves: %w: no log", ErrInvalid)
	}
	at := make(map[ident.Log][]candidate, len(logs))
	for _, id := range logs {
		if l := m.Log(id); l == nil || l.State != LogOpen {
			return nil, fmt.Errorf("plan moves: %w: log %s is not open", ErrInvalid, id)
		}
		at[id] = nil
	}
	var homeless []candidate
	for _, g := range m.groups {
		c := candidate{g.ID, m.counts[g.ID], int32(m.Coordinators(g.ID))}
		if cur := g.Current(); cur != nil {
			if _, ok := at[cur.Log]; ok {
				at[cur.Log] = append(at[cur.Log], c)
				continue
			}
		}
		homeless = append(homeless, c)
	}
	quota := quotas(logs, at, len(m.groups))
	for _, id := range logs {
		groups := at[id]
		slices.SortFunc(groups, func(a, b candidate) int { // the fullest stay
			return cmp.Or(b.fuller(a), cmp.Compare(a.id, b.id))
		})
		if over := len(groups) - quota[id]; over > 0 {
			homeless = append(homeless, groups[len(groups)-over:]...)
			at[id] = groups[:len(groups)-over]
		}
	}
	return m.house(logs, at, quota, homeless), nil
}

// quotas says how many groups each log shall have. The logs that have most now get the one
// more that does not divide evenly: that saves moves.
func quotas(logs []ident.Log, at map[ident.Log][]candidate, groups int) map[ident.Log]int {
	byLoad := slices.Clone(logs)
	slices.SortStableFunc(byLoad, func(a, b ident.Log) int { return cmp.Compare(len(at[b]), len(at[a])) })
	out := make(map[ident.Log]int, len(logs))
	for i, id := range byLoad {
		out[id] = groups / len(logs)
		if i < groups%len(logs) {
			out[id]++
		}
	}
	return out
}

// house gives each homeless group a log with room: the fullest group first, each to the log
// with the fewest partitions, then coordinators, then groups.
func (m *Map) house(logs []ident.Log, at map[ident.Log][]candidate, quota map[ident.Log]int, homeless []candidate) []Move {
	on := make(map[ident.Log]candidate, len(logs)) // the sums
	put := func(id ident.Log, g candidate) {
		sum := on[id]
		sum.count += g.count
		sum.coordinators += g.coordinators
		on[id] = sum
	}
	for id, groups := range at {
		for _, g := range groups {
			put(id, g)
		}
	}
	slices.SortFunc(homeless, func(a, b candidate) int {
		return cmp.Or(b.fuller(a), cmp.Compare(a.id, b.id))
	})
	moves := make([]Move, 0, len(homeless))
	for _, g := range homeless {
		var to *ident.Log
		for i, id := range logs { // few logs; the first of equals
			if len(at[id]) < quota[id] && (to == nil || cmp.Or(
				on[id].fuller(on[*to]), cmp.Compare(len(at[id]), len(at[*to]))) < 0) {
				to = &logs[i]
			}
		}
		at[*to] = append(at[*to], g)
		put(*to, g)
		move := Move{Group: g.id, To: *to}
		if cur := m.groups[g.id].Current(); cur != nil {
			move.From = cur.Log
		}
		moves = append(moves, move)
	}
	slices.SortFunc(moves, func(a, b Move) int { return cmp.Compare(a.Group, b.Group) })
	return moves
}
