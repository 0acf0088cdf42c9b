package queuemapper

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"slices"

	"github.com/skeinmq/skein/internal/ident"
)

// TrimGenerations drops leading generations of a group of which nothing is left to read: the
// caller (the owner) says from which epoch on generations are kept. It compares the revision.
// The newest generation always stays.
func (s *Store) TrimGenerations(ctx context.Context, g *Group, keep ident.Epoch) (*Group, error) {
	if err := s.caughtUp(ctx, g.Revision); err != nil {
		return nil, fmt.Errorf("trim group %d: %w", g.ID, err)
	}
	fresh := g.trimmed(keep, s.Map())
	if fresh == nil {
		return g, nil
	}
	return s.swapGroup(ctx, "trim", fresh)
}

// swapGroup writes a record that was made from another one, comparing that one's revision, and what guards demand of logs.
func (s *Store) swapGroup(ctx context.Context, verb string, fresh *Group, guards ...guard) (*Group, error) {
	written, err := s.swap(ctx, verb+"_group", keyGroup(fresh.ID), fresh.Revision, encodeGroup(fresh), nil, guards...)
	if err != nil {
		return nil, fmt.Errorf("%s group %d: %w", verb, fresh.ID, err)
	}
	if seen := s.Map().Group(fresh.ID); seen.Revision == written {
		return seen, nil
	}
	fresh.Revision = written
	fresh.reindex(nil)
	return fresh, nil
}

// trimmed returns the record without the generations before keep, nil if there are none. m
// has every topic that the record can name.
func (g *Group) trimmed(keep ident.Epoch, m *Map) *Group {
	n := 0
	for n < len(g.Generations)-1 && g.Generations[n].Epoch < keep {
		n++
	}
	if n == 0 {
		return nil
	}
	fresh := g.clone()
	fresh.Starts = g.ends(n - 1)
	for p := range fresh.Starts { // what is left of deleted topics
		if m.TopicByID(p.Topic) == nil {
			delete(fresh.Starts, p)
		}
	}
	fresh.Generations = fresh.Generations[n:]
	fresh.raw = fresh.raw[min(n, len(fresh.raw)):]
	return fresh
}

// RaiseCeiling moves the ceiling of the open generation up, comparing the group's revision: from when it
// returns on, offsets below it may be given. It never comes down.
func (s *Store) RaiseCeiling(ctx context.Context, g *Group, to ident.Offset) (*Group, error) {
	if cur := g.Current(); cur == nil || cur.Ceiling == 0 || to <= cur.Ceiling {
		return nil, fmt.Errorf("raise ceiling of group %d to %d: %w: it is open and bounded below that only", g.ID, to, ErrInvalid)
	}
	fresh := g.clone()
	last := len(fresh.Generations) - 1
	fresh.Generations[last].Ceiling = to
	if last < len(fresh.raw) {
		fresh.raw[last] = nil
	}
	return s.swapGroup(ctx, "raise", fresh)
}

// MarkLost notes ranges of a sealed generation that its disk no longer has, for good. It adds
// to what is noted already, and compares the group's revision. Ranges are half open and lie
// below the generation's ends.
func (s *Store) MarkLost(ctx context.Context, g *Group, epoch ident.Epoch, lost map[ident.Partition][]Range) (*Group, error) {
	i := g.at(epoch)
	if i < 0 || g.Generations[i].Epoch != epoch || !g.Generations[i].Sealed {
		return nil, fmt.Errorf("mark lost in group %d: %w: generation %d is not a sealed one", g.ID, ErrInvalid, epoch)
	}
	all := maps.Clone(g.Generations[i].Lost)
	if all == nil {
		all = make(map[ident.Partition][]Range)
	}
	for p, ranges := range lost {
		for _, r := range ranges {
			if r.From < 0 || r.From >= r.To || r.To > g.endAt(p, i) {
				return nil, fmt.Errorf("mark lost in group %d: %w: %s has no range [%d, %d)", g.ID, ErrInvalid, p, r.From, r.To)
			}
		}
		all[p] = joinRanges(slices.Concat(all[p], ranges))
	}
	fresh := g.clone()
	fresh.Generations[i].Lost = all
	if i < len(fresh.raw) {
		fresh.raw[i] = nil
	}
	return s.swapGroup(ctx, "mark", fresh)
}

// joinRanges sorts ranges and joins those that touch.
func joinRanges(rs []Range) []Range {
	slices.SortFunc(rs, func(a, b Range) int { return cmp.Compare(a.From, b.From) })
	out := rs[:0]
	for _, r := range rs {
		if n := len(out); n > 0 && r.From <= out[n-1].To {
			out[n-1].To = max(out[n-1].To, r.To)
			continue
		}
		out = append(out, r)
	}
	return out
}
