package queuemapper

import (
	"maps"
	"slices"
	"sort"

	"github.com/skeinmq/skein/internal/ident"
)

// index finds a partition's runs in a group without walking its generations. It is built when
// a record is decoded and never changes; records that follow one another share the base, and
// the few generations since are walked. So a new generation costs its own ends, not all of them.
type index struct {
	base    map[ident.Partition][]cut
	covered int // generations that base knows, counted from the first
}

// cut says that a partition moved on to end in the generation with that index. A partition's
// cuts increase in both.
type cut struct {
	gen int
	end ident.Offset
}

// tailMax is how many generations may follow the base before it is built anew.
const tailMax = 8

// reindex gives g its index. prev is the record before it, nil if there is none.
func (g *Group) reindex(prev *Group) {
	sealed := len(g.Generations)
	if g.Current() != nil {
		sealed--
	}
	if prev != nil && sealed-prev.index.covered <= tailMax && prev.index.covered <= sealed && g.extends(prev) {
		g.index = prev.index
		return
	}
	base := make(map[ident.Partition][]cut)
	for i := range sealed {
		for p, end := range g.Generations[i].Ends {
			base[p] = append(base[p], cut{i, end})
		}
	}
	g.index = index{base: base, covered: sealed}
}

// extends reports whether the generations that prev's base covers are g's as well.
func (g *Group) extends(prev *Group) bool {
	n := prev.index.covered
	if n == 0 {
		return true
	}
	return g.Generations[0].Epoch == prev.Generations[0].Epoch &&
		g.Generations[n-1].Epoch == prev.Generations[n-1].Epoch
}

// seek finds the first generation that p left at an offset beyond o, in the order of the
// record. before is p's end ahead of it. Not ok: p never got beyond o in a sealed
// generation, and before is its last end.
func (g *Group) seek(p ident.Partition, o ident.Offset) (gen int, before, end ident.Offset, ok bool) {
	before = g.Starts[p]
	if cuts := g.index.base[p]; len(cuts) > 0 {
		i := sort.Search(len(cuts), func(i int) bool { return cuts[i].end > o })
		if i > 0 {
			before = cuts[i-1].end
		}
		if i < len(cuts) {
			return cuts[i].gen, before, cuts[i].end, true
		}
	}
	for i := g.index.covered; i < len(g.Generations); i++ {
		e, has := g.Generations[i].Ends[p]
		if has && e > o {
			return i, before, e, true
		}
		if has {
			before = e
		}
	}
	return 0, before, 0, false
}

// endAt is p's end in the sealed generation with index i: where the newest one up to it left it.
func (g *Group) endAt(p ident.Partition, i int) ident.Offset {
	for ; i >= g.index.covered; i-- {
		if e, has := g.Generations[i].Ends[p]; has {
			return e
		}
	}
	cuts := g.index.base[p]
	if k := sort.Search(len(cuts), func(k int) bool { return cuts[k].gen > i }); k > 0 {
		return cuts[k-1].end
	}
	return g.Starts[p]
}

// at finds the generation with the greatest epoch <= e, -1 if there is none.
func (g *Group) at(e ident.Epoch) int {
	return sort.Search(len(g.Generations), func(i int) bool { return g.Generations[i].Epoch > e }) - 1
}

// ends folds all sealed generations up to index i, inclusive, into one table.
func (g *Group) ends(i int) map[ident.Partition]ident.Offset {
	out := maps.Clone(g.Starts)
	if out == nil {
		out = make(map[ident.Partition]ident.Offset)
	}
	for k := range i + 1 {
		maps.Copy(out, g.Generations[k].Ends)
	}
	return out
}

// End is where the sealed generations of the group leave a partition: the start of its run
// in the open generation, unless it moved in from another group at a later offset.
func (g *Group) End(p ident.Partition) ident.Offset { return g.endAt(p, len(g.Generations)-1) }

// Start is where a partition's run in the generation with index i begins, unless it moved in from another group at a
// later offset.
func (g *Group) Start(p ident.Partition, i int) ident.Offset { return g.endAt(p, i-1) }

// Lost is what the disk of the generation at an epoch no longer has of a partition.
func (g *Group) Lost(e ident.Epoch, p ident.Partition) []Range {
	if i := g.at(e); i >= 0 && g.Generations[i].Epoch == e {
		return g.Generations[i].Lost[p]
	}
	return nil
}

// clone copies what a change of the record touches.
func (g *Group) clone() *Group {
	c := *g
	c.Generations = slices.Clone(g.Generations)
	c.raw = slices.Clone(g.raw)
	return &c
}
