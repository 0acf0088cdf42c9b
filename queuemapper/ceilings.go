package queuemapper

import "github.com/skeinmq/skein/internal/ident"

// ReserveDefault is how many offsets a generation is given above the highest end in its group (ADR 10).
const ReserveDefault ident.Offset = 1 << 24

// Top is the highest end in a group's state.
func Top(state []ident.PartitionState) ident.Offset {
	top := ident.Offset(0)
	for i := range state {
		top = max(top, state[i].End)
	}
	return top
}

// NextCeiling is the ceiling of the generation that follows g with this state (nil g: the first one), with so many
// offsets reserved. It is at least what g had in hand: an owner that had reserved more because it writes fast finds that
// again. A g without a ceiling, written before there were any, is followed by one with a ceiling.
func NextCeiling(g *Generation, state []ident.PartitionState, reserve ident.Offset) ident.Offset {
	ceiling := Top(state) + reserve
	if g != nil {
		ceiling = max(ceiling, g.Ceiling)
	}
	return ceiling
}

// EndsOf is a state's ends as a publication names them.
func EndsOf(state []ident.PartitionState) map[ident.Partition]ident.Offset {
	ends := make(map[ident.Partition]ident.Offset, len(state))
	for i := range state {
		ends[state[i].Partition] = state[i].End
	}
	return ends
}
