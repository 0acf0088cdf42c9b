package controller

import (
	"slices"
	"sync"

	"github.com/skeinmq/skein/internal/ident"
)

// state is the replicated state machine: commands in, results out. No clock, no I/O, no
// randomness, and no map order reaches a result or a snapshot's meaning.
//
// Commands are applied by one goroutine (raft's). Readers take the lock of the partition
// they read. A snapshot freezes the state in constant time: what is frozen is copied when it
// is next written, one partition's directory and one group at a time.
type state struct {
	// mu guards the fields below it; it is never held together with a partition's.
	mu             sync.Mutex
	nextProducerID int64

	// applied is the index of the newest command, gen the current copy-on-write generation. Owned by
	// the applying goroutine.
	applied uint64
	gen     uint64
	parts   [Partitions]partition
}

// partition is one coordinator partition.
type partition struct {
	mu    sync.RWMutex
	owner ident.Epoch // newest epoch of the placement group that claimed
	epoch Epoch       // of the newest claim; 0: never claimed
	seq   uint64      // of the newest batch in this epoch
	// groups is shared with a snapshot if gen is not the state's; so is each group.
	gen    uint64
	groups map[string]*groupState
}

// groupState is everything kept of one group.
type groupState struct {
	gen     uint64
	value   []byte // immutable; nil: the group has offsets only
	offsets map[ident.Partition]Offset
}

func newState() *state {
	s := &state{gen: 1}
	for i := range s.parts {
		s.parts[i].gen = s.gen
		s.parts[i].groups = make(map[string]*groupState)
	}
	return s
}

// result is what applying a command yields.
type result struct {
	err    error
	index  uint64  // of the command; set by whoever waited for it
	epochs []Epoch // of a claim, in its order
	first  int64   // of a producer id block
}

func (s *state) apply(c *command) result {
	switch c.kind {
	case kindClaim:
		return s.applyClaims(c.claims)
	case kindBatch:
		return result{err: s.applyBatch(&c.batch)}
	default:
		s.mu.Lock()
		defer s.mu.Unlock()
		first := s.nextProducerID
		s.nextProducerID += int64(c.producerIDs)
		return result{first: first}
	}
}

// applyClaims takes all partitions or none.
func (s *state) applyClaims(claims []Claim) result {
	for _, c := range claims {
		if c.Owner < s.parts[c.Partition].owner {
			return result{err: ErrFenced}
		}
	}
	out := result{epochs: make([]Epoch, 0, len(claims))}
	for _, c := range claims {
		p := &s.parts[c.Partition]
		p.mu.Lock()
		p.owner, p.seq = c.Owner, 0
		p.epoch++
		out.epochs = append(out.epochs, p.epoch)
		p.mu.Unlock()
	}
	return out
}

func (s *state) applyBatch(b *Batch) error {
	p := &s.parts[b.Partition]
	p.mu.Lock()
	defer p.mu.Unlock()
	// The two lines that keep a deposed or delayed coordinator from being believed.
	if b.Epoch != p.epoch {
		return ErrFenced
	}
	if b.Seq <= p.seq {
		return ErrStale
	}
	p.seq = b.Seq
	for i := range b.Ops {
		p.applyOp(&b.Ops[i], s.gen)
	}
	return nil
}

// applyOp runs under p.mu.
func (p *partition) applyOp(op *Op, gen uint64) {
	p.thaw(gen)
	switch op.Kind {
	case PutGroup:
		p.group(op.Group, gen).value = op.Value
	case DropGroup:
		delete(p.groups, op.Group)
	case PutOffsets:
		g := p.group(op.Group, gen)
		for _, o := range op.Offsets {
			g.offsets[o.Partition] = o.Offset
		}
	case DropOffsets:
		if p.groups[op.Group] == nil {
			return
		}
		g := p.group(op.Group, gen)
		for _, o := range op.Offsets {
			delete(g.offsets, o.Partition)
		}
		if g.value == nil && len(g.offsets) == 0 {
			delete(p.groups, op.Group)
		}
	}
}

// thaw makes the directory writable if a snapshot shares it.
func (p *partition) thaw(gen uint64) {
	if p.gen == gen {
		return
	}
	groups := make(map[string]*groupState, len(p.groups)+1)
	for name, g := range p.groups {
		groups[name] = g
	}
	p.groups, p.gen = groups, gen
}

// group returns the writable state of a group, made if it is not there.
func (p *partition) group(name string, gen uint64) *groupState {
	g := p.groups[name]
	switch {
	case g == nil:
		g = &groupState{gen: gen, offsets: make(map[ident.Partition]Offset)}
	case g.gen != gen:
		shared := g
		g = &groupState{gen: gen, value: shared.value, offsets: make(map[ident.Partition]Offset, len(shared.offsets)+1)}
		for k, v := range shared.offsets {
			g.offsets[k] = v
		}
	default:
		return g
	}
	p.groups[name] = g
	return g
}

// frozen is the state at one index. Nothing in it changes any more.
type frozen struct {
	applied        uint64
	nextProducerID int64
	parts          [Partitions]frozenPartition
}

type frozenPartition struct {
	owner  ident.Epoch
	epoch  Epoch
	seq    uint64
	groups map[string]*groupState
}

// freeze runs on the applying goroutine.
func (s *state) freeze() *frozen {
	f := &frozen{applied: s.applied, nextProducerID: s.nextProducerID}
	for i := range s.parts {
		p := &s.parts[i]
		f.parts[i] = frozenPartition{owner: p.owner, epoch: p.epoch, seq: p.seq, groups: p.groups}
	}
	s.gen++
	return f
}

// thawAll replaces the state by what a snapshot held. Readers see either.
func (s *state) thawAll(f *frozen) {
	s.mu.Lock()
	s.nextProducerID = f.nextProducerID
	s.mu.Unlock()
	s.applied = f.applied
	for i := range s.parts {
		p, from := &s.parts[i], &f.parts[i]
		p.mu.Lock()
		p.owner, p.epoch, p.seq, p.groups, p.gen = from.owner, from.epoch, from.seq, from.groups, s.gen
		for _, g := range p.groups {
			g.gen = s.gen
		}
		p.mu.Unlock()
	}
}

// sortedOffsets lists a group's offsets by topic and index.
func (g *groupState) sortedOffsets() []PartitionOffset {
	out := make([]PartitionOffset, 0, len(g.offsets))
	for p, o := range g.offsets {
		out = append(out, PartitionOffset{Partition: p, Offset: o})
	}
	slices.SortFunc(out, func(a, b PartitionOffset) int { return a.Partition.Compare(b.Partition) })
	return out
}
