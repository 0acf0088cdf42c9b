package witness

import (
	"cmp"
	"errors"
	"fmt"
	"iter"
	"slices"
	"sync"

	"github.com/skeinmq/skein/commitlog"
	"github.com/skeinmq/skein/internal/ident"
)

// Table is what a member knows of one log at one epoch: generation → partition → state, as of a number. It never goes
// backwards, and once sealed it never changes. Producers are kept encoded: 100,000 partitions with one
// producer each take less than 30 MB.
type Table struct {
	key Key

	mu       sync.Mutex
	owner    ID     // newest session
	session  uint64 // of it
	whole    bool   // a whole table was recorded
	recorded uint64
	sealed   bool
	gens     map[ident.Generation]map[ident.Partition]*entry
	size     size
}

// size is what a table holds.
type size struct {
	partitions int
	bytes      int // about
}

// entry is one partition.
type entry struct {
	end, logStart ident.Offset
	producers     []rawProducer // ordered by id
}

// About what the runtime takes for a partition and for a producer, besides the encoded state.
const (
	entryBytes    = 104
	producerBytes = 40
)

func newTable(key Key) *Table {
	return &Table{key: key, gens: make(map[ident.Generation]map[ident.Partition]*entry)}
}

// NewTable makes a table of states, as if it had been sent by an owner: what a recovered disk tells (O11).
func NewTable(key Key, gens []ident.GenerationState) *Table {
	t := newTable(key)
	for i := range gens {
		t.add(&gens[i])
	}
	t.whole, t.sealed = true, true
	return t
}

// Key names the log and the epoch.
func (t *Table) Key() Key { return t.key }

// Recorded is the number up to which the table has every delta.
func (t *Table) Recorded() uint64 {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.recorded
}

// add takes a part of a whole table.
func (t *Table) add(g *ident.GenerationState) {
	parts := t.gens[g.Generation]
	if parts == nil {
		parts = make(map[ident.Partition]*entry, len(g.Partitions))
		t.gens[g.Generation] = parts
	}
	for i := range g.Partitions {
		s := &g.Partitions[i]
		e := t.entryOf(parts, s.Partition)
		e.end, e.logStart = s.End, s.LogStart
		for k := range s.Producers {
			t.setProducer(e, s.Producers[k].ID, appendProducer(nil, &s.Producers[k]))
		}
	}
}

func (t *Table) entryOf(parts map[ident.Partition]*entry, p ident.Partition) *entry {
	e := parts[p]
	if e == nil {
		e = &entry{}
		parts[p] = e
		t.size.partitions++
		t.size.bytes += entryBytes
	}
	return e
}

// apply takes one delta (O5). Nothing is changed when it returns an error.
func (t *Table) apply(d Delta) error {
	switch {
	case t.sealed && !plants.afterSeal: // O10
		return ErrSealed
	case !t.whole:
		return fmt.Errorf("delta %d before the whole table: %w", d.Number, ErrGap)
	case d.Number <= t.recorded:
		return fmt.Errorf("delta %d, recorded %d: %w", d.Number, t.recorded, ErrOld)
	case d.Number != t.recorded+1 && !plants.gapAccepted:
		return fmt.Errorf("delta %d, recorded %d: %w", d.Number, t.recorded, ErrGap)
	}
	if err := checkUpdates(d.Updates); err != nil {
		return err
	}
	r := decoder{b: d.Updates}
	for r.open(); r.next(); {
		t.update(&r.u)
	}
	t.recorded = d.Number
	return nil
}

// update applies one change. What is said of a generation that the table does not have is of one that ended
// while a block was on its way: nobody will ask for it.
func (t *Table) update(u *rawUpdate) {
	switch parts := t.gens[u.gen]; {
	case u.kind == commitlog.UpdateOpened:
		if parts == nil {
			t.gens[u.gen] = make(map[ident.Partition]*entry)
		}
	case parts == nil:
	case u.kind == commitlog.UpdateForgotten:
		for _, e := range parts {
			t.forget(e)
		}
		delete(t.gens, u.gen)
	case u.kind == commitlog.UpdateDropped:
		if e := parts[u.partition]; e != nil {
			t.forget(e)
			delete(parts, u.partition)
		}
	default:
		e := t.entryOf(parts, u.partition)
		e.end, e.logStart = max(e.end, u.end), max(e.logStart, u.logStart)
		for _, id := range u.removed {
			t.removeProducer(e, id)
		}
		for _, p := range u.producers {
			t.setProducer(e, p.id, p.state)
		}
	}
}

func (t *Table) forget(e *entry) {
	t.size.partitions--
	t.size.bytes -= entryBytes
	for _, p := range e.producers {
		t.size.bytes -= producerBytes + cap(p.state)
	}
}

func (e *entry) find(id int64) (int, bool) {
	return slices.BinarySearchFunc(e.producers, id, func(p rawProducer, id int64) int { return cmp.Compare(p.id, id) })
}

// setProducer keeps a copy of the encoded state.
func (t *Table) setProducer(e *entry, id int64, state []byte) {
	i, ok := e.find(id)
	if !ok {
		e.producers = slices.Insert(e.producers, i, rawProducer{id: id})
		t.size.bytes += producerBytes
	}
	p := &e.producers[i]
	if cap(p.state) < len(state) {
		t.size.bytes -= cap(p.state)
		p.state = make([]byte, 0, (len(state)+15)&^15)
		t.size.bytes += cap(p.state)
	}
	p.state = append(p.state[:0], state...)
}

func (t *Table) removeProducer(e *entry, id int64) {
	if i, ok := e.find(id); ok {
		t.size.bytes -= producerBytes + cap(e.producers[i].state)
		e.producers = slices.Delete(e.producers, i, i+1)
	}
}

// errNotSealed: a table that still changes is nobody's answer.
var errNotSealed = errors.New("table is not sealed")

// Generations iterates a sealed table, ordered by group, epoch and opening frame, partitions in order. Generations
// without state are there too: they are known to be empty.
func (t *Table) Generations() iter.Seq2[ident.GenerationState, error] {
	return func(yield func(ident.GenerationState, error) bool) {
		t.mu.Lock()
		sealed := t.sealed
		t.mu.Unlock()
		if !sealed {
			yield(ident.GenerationState{}, errNotSealed)
			return
		}
		for _, gen := range t.sorted() {
			g, err := t.state(gen)
			if !yield(g, err) || err != nil {
				return
			}
		}
	}
}

// Generation returns what a sealed table has of one generation; false when it has nothing, which says that the
// generation was never opened in this log, or has ended there.
func (t *Table) Generation(gen ident.Generation) (ident.GenerationState, bool, error) {
	t.mu.Lock()
	sealed := t.sealed
	t.mu.Unlock()
	if !sealed {
		return ident.GenerationState{}, false, errNotSealed
	}
	if t.gens[gen] == nil {
		return ident.GenerationState{}, false, nil
	}
	g, err := t.state(gen)
	return g, true, err
}

func (t *Table) sorted() []ident.Generation {
	out := make([]ident.Generation, 0, len(t.gens))
	for gen := range t.gens {
		out = append(out, gen)
	}
	slices.SortFunc(out, func(a, b ident.Generation) int {
		return cmp.Or(cmp.Compare(a.Group, b.Group), cmp.Compare(a.Epoch, b.Epoch),
			cmp.Compare(a.Frame.Epoch, b.Frame.Epoch), cmp.Compare(a.Frame.Position, b.Frame.Position))
	})
	return out
}

// state decodes one generation.
func (t *Table) state(gen ident.Generation) (ident.GenerationState, error) {
	parts := t.gens[gen]
	g := ident.GenerationState{Generation: gen, Partitions: make([]ident.PartitionState, 0, len(parts))}
	for p, e := range parts {
		s := ident.PartitionState{Partition: p, End: e.end, LogStart: e.logStart}
		for _, raw := range e.producers {
			ps, err := decodeProducer(raw.id, raw.state)
			if err != nil {
				return g, err
			}
			s.Producers = append(s.Producers, ps)
		}
		g.Partitions = append(g.Partitions, s)
	}
	slices.SortFunc(g.Partitions, func(a, b ident.PartitionState) int { return a.Partition.Compare(b.Partition) })
	return g, nil
}
