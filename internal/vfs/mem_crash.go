package vfs

import (
	"maps"
	"math/rand/v2"
	"slices"
)

// Crash returns the disk as a power cut at this moment may leave it; the seed
// picks one of the possible outcomes, always the same for the same history.
// Durable data and names are there. Of the rest any part may be: each unsynced
// sector holds its durable content or any later one, each unsynced name change
// happened or not (keeping the order of changes to one name or file), each
// file has its durable size or a later one. All that is left is durable, and
// nobody holds a lock. The Mem itself goes on as if nothing had happened: many
// outcomes can be taken of one moment. Halt stops it.
func (m *Mem) Crash(seed uint64) *Mem {
	m.mu.Lock()
	defer m.mu.Unlock()
	rng := rand.New(rand.NewPCG(seed, 0x5bd1e995))
	odds := []float64{0, 1, 0.5, 0.1, 0.9}[rng.IntN(5)] // that a change is on the disk

	// Which unsynced name changes happened: each only with those it depends on.
	kept := make([]bool, len(m.ops))
	names := map[*memNode]map[string]*memNode{}
	for i, op := range m.ops {
		kept[i] = rng.Float64() < odds
		for j := range i {
			kept[i] = kept[i] && (kept[j] || !op.dependsOn(m.ops[j]))
		}
		if !kept[i] {
			continue
		}
		for _, c := range op.changes {
			if names[c.dir] == nil {
				names[c.dir] = maps.Clone(c.dir.durable)
			}
			c.apply(names[c.dir])
		}
	}

	out := NewMem()
	out.direct, out.capacity = m.direct, m.capacity
	var copyDir func(from, to *memNode)
	copyDir = func(from, to *memNode) {
		entries := from.durable
		if changed := names[from]; changed != nil {
			entries = changed
		}
		for _, name := range slices.Sorted(maps.Keys(entries)) {
			child := entries[name]
			if child.file == nil {
				dir := newMemDir()
				to.entries[name], to.durable[name] = dir, dir
				copyDir(child, dir)
				continue
			}
			n := &memNode{file: child.file.crash(rng, odds)}
			to.entries[name], to.durable[name] = n, n
			out.used += n.file.pagesBytes()
		}
	}
	copyDir(m.root, out.root)
	return out
}

// CrashProcess returns the disk as the end of the process leaves it: all that
// was written or renamed is there, but what was not durable still is not, so a
// power cut that follows may take it. Nobody holds a lock. The Mem itself goes
// on; see Halt.
func (m *Mem) CrashProcess() *Mem {
	m.mu.Lock()
	defer m.mu.Unlock()
	out := NewMem()
	out.direct, out.capacity, out.used = m.direct, m.capacity, m.used
	seen := map[*memNode]*memNode{}
	var copyNode func(n *memNode) *memNode
	copyEntries := func(entries map[string]*memNode) map[string]*memNode {
		c := make(map[string]*memNode, len(entries))
		for name, child := range entries {
			c[name] = copyNode(child)
		}
		return c
	}
	copyNode = func(n *memNode) *memNode {
		if n == nil || seen[n] != nil {
			return seen[n]
		}
		c := &memNode{}
		seen[n] = c
		if n.file != nil {
			c.file = n.file.clone()
			return c
		}
		c.entries, c.durable = copyEntries(n.entries), copyEntries(n.durable)
		return c
	}
	out.root = copyNode(m.root)
	for _, op := range m.ops {
		c := memOp{changes: slices.Clone(op.changes)}
		for i := range c.changes {
			ch := &c.changes[i]
			ch.dir, ch.from, ch.to = copyNode(ch.dir), copyNode(ch.from), copyNode(ch.to)
		}
		out.ops = append(out.ops, c)
	}
	return out
}

func (d *memData) clone() *memData {
	out := newMemData()
	out.size, out.sizes = d.size, slices.Clone(d.sizes)
	for i, p := range d.pages {
		c := *p
		out.pages[i] = &c
	}
	for s, st := range d.dirty { // contents are never changed in place
		out.dirty[s] = &dirtySector{durable: st.durable, versions: slices.Clone(st.versions)}
	}
	return out
}

// crash returns what is left of a file. Changes of size happened up to some
// one of them, in order, as file systems journal them; sectors are independent.
func (d *memData) crash(rng *rand.Rand, odds float64) *memData {
	out := d.clone()
	epoch := 0
	switch {
	case odds == 1:
		epoch = len(d.sizes) - 1
	case odds > 0:
		epoch = rng.IntN(len(d.sizes))
	}
	size := d.sizes[epoch]
	for _, s := range slices.Sorted(maps.Keys(d.dirty)) {
		data := d.dirty[s].pick(rng, odds, epoch)
		if data == nil && out.sector(s) == nil {
			continue
		}
		out.page(s / pageSectors)
		sector := out.sector(s)
		clear(sector)
		copy(sector, data)
	}
	out.size = d.size
	clear(out.dirty)
	out.truncate(size)
	// The pages of a cut that did not happen came back; the tail past the end
	// of the file is zero, as file systems show it when the file grows again.
	for i, p := range out.pages {
		if i*memPage >= size {
			delete(out.pages, i)
		} else if (i+1)*memPage > size {
			clear(p[size-i*memPage:])
		}
	}
	out.size = size
	out.sync()
	return out
}

// pick chooses the content of a sector, given the last size change that happened.
func (st *dirtySector) pick(rng *rand.Rand, odds float64, epoch int) []byte {
	candidates := [][]byte{st.durable}
	for _, v := range st.versions {
		if v.epoch > epoch && v.cut {
			break
		}
		if v.cut {
			candidates = candidates[:0]
		}
		candidates = append(candidates, v.data)
	}
	last := len(candidates) - 1
	switch {
	case odds == 1:
		return candidates[last]
	case rng.Float64() >= odds:
		return candidates[0]
	default:
		return candidates[rng.IntN(last+1)]
	}
}
