package controller

import (
	"maps"
	"slices"

	"github.com/skeinmq/skein/internal/ident"
)

// The reads below answer from this broker's copy, which may be behind: after Claim it shows what earlier
// coordinators wrote, after Await what this broker wrote, after Confirm everything.

// Group is one group as it is stored.
type Group struct {
	Name string
	// Value is the metadata, nil if the group has only committed offsets. Not to be changed.
	Value []byte
	// Offsets is how many committed offsets there are.
	Offsets int
}

// Groups lists the groups of a coordinator partition by name.
func (c *Controller) Groups(partition int32) []Group {
	p := &c.state.parts[partition]
	p.mu.RLock()
	defer p.mu.RUnlock()
	out := make([]Group, 0, len(p.groups))
	for _, name := range slices.Sorted(maps.Keys(p.groups)) {
		g := p.groups[name]
		out = append(out, Group{Name: name, Value: g.value, Offsets: len(g.offsets)})
	}
	return out
}

// Offsets lists the committed offsets of a group by topic and index.
func (c *Controller) Offsets(partition int32, group string) []PartitionOffset {
	p := &c.state.parts[partition]
	p.mu.RLock()
	defer p.mu.RUnlock()
	g := p.groups[group]
	if g == nil {
		return nil
	}
	return g.sortedOffsets()
}

// Lookup calls found for each of the given partitions that has a committed offset. found
// must not call back into the controller.
func (c *Controller) Lookup(partition int32, group string, of []ident.Partition, found func(i int, o Offset)) {
	p := &c.state.parts[partition]
	p.mu.RLock()
	defer p.mu.RUnlock()
	g := p.groups[group]
	if g == nil {
		return
	}
	for i, tp := range of {
		if o, ok := g.offsets[tp]; ok {
			found(i, o)
		}
	}
}
