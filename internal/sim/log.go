package sim

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/skeinmq/skein/commitlog"
	"github.com/skeinmq/skein/internal/ident"
)

// simLog is one running log: what commitlog.Log promises, on a simulated disk. A block is whatever arrived while the one before
// was being written; it becomes durable, is registered with the witnesses, and is committed, in this order and in that of blocks
// (O4).
type simLog struct {
	e    *engine
	d    *disk
	host *process

	found     commitlog.Recovered
	runs      []*logRun
	epoch     ident.LogEpoch
	begun     bool
	dead      error
	poisoned  chan struct{}
	work      gate
	acts      []func(error) // of the block that is being filled
	entries   []entry
	blocks    []*block // durable or under way, not committed, in order
	committed int      // frames

	lows  []commitlog.LowCeiling
	asked gate // somebody needs a higher ceiling

	low, high time.Duration       // of one write
	slow      *time.Duration      // on top
	witness   commitlog.Registrar // never nil; see Active
	seen      logObserver
}

// logObserver is told what clients of a log can see.
type logObserver interface {
	// committed: the batch can be read, and its producer hears of it.
	committed(l *simLog, q *logPart, f *frame)
	// activated: the generation takes appends, and shows what came before it.
	activated(l *simLog, r *logRun)
	// startMoved: the log start is shown.
	startMoved(l *simLog, q *logPart)
}

// entry is a frame that changes what clients see once it is committed.
type entry struct {
	q     *logPart
	index int
}

// block is one group commit.
type block struct {
	end       int // frames
	entries   []entry
	acts      []func(error)
	updates   []commitlog.Update
	witnessed bool
}

// openLog recovers a log. It serves nothing before Begin.
func openLog(e *engine, d *disk, host *process, seen logObserver) *simLog {
	l := &simLog{e: e, d: d, host: host, poisoned: make(chan struct{}), seen: seen, low: 200 * time.Microsecond, high: 3 * time.Millisecond}
	l.work.e, l.asked.e = e, e
	l.runs, l.epoch = d.recovered()
	l.committed = d.durable
	l.found = commitlog.Recovered{ID: d.id, Epoch: l.epoch, Fresh: l.epoch == 0, End: position(d.durable)}
	for _, r := range l.runs {
		g := commitlog.RecoveredGeneration{Generation: r.gen}
		for _, q := range r.parts {
			if q.hasState() {
				g.Partitions = append(g.Partitions, q.snapshot())
			}
		}
		l.found.Generations = append(l.found.Generations, g)
	}
	e.start(host, "log", 0, l.write)
	return l
}

// position gives a frame its place in the log. What was not durable is written over.
func position(index int) ident.Position { return ident.Position(index+1) * 4096 }

// Recovered is what was found at the start.
func (l *simLog) Recovered() commitlog.Recovered { return l.found }

// Err is why the log is dead.
func (l *simLog) Err() error { return l.dead }

// Poisoned is closed when the log is dead.
func (l *simLog) Poisoned() <-chan struct{} { return l.poisoned }

// Fence ends the log: its epoch has ended.
func (l *simLog) Fence(cause error) { l.poison(cause) }

func (l *simLog) poison(cause error) {
	if l.dead != nil {
		return
	}
	l.e.logf("log %s is poisoned: %v", short(l.d.id), cause)
	l.dead = fmt.Errorf("%w: %w", commitlog.ErrPoisoned, cause)
	close(l.poisoned)
	for _, b := range l.blocks {
		for _, act := range b.acts {
			act(l.dead)
		}
	}
	for _, act := range l.acts {
		act(l.dead)
	}
	l.blocks, l.acts, l.entries = nil, nil, nil
	l.work.open()
	l.asked.open()
}

func (l *simLog) run(gen ident.Generation) *logRun {
	if planted.unnamed {
		for _, r := range slices.Backward(l.runs) {
			if r.gen.Group == gen.Group && r.gen.Epoch == gen.Epoch {
				return r
			}
		}
	}
	for _, r := range l.runs {
		if r.gen == gen {
			return r
		}
	}
	return nil
}

func (l *simLog) openOf(g ident.Group) *logRun {
	for _, r := range l.runs {
		if r.gen.Group == g && r.state == runOpen {
			return r
		}
	}
	return nil
}

// put adds a frame to the block that is being filled.
func (l *simLog) put(f frame) int {
	f.epoch = l.epoch
	l.d.frames = append(l.d.frames, f)
	l.work.open()
	return len(l.d.frames) - 1
}

// then calls act once all that was put so far is committed, or failed.
func (l *simLog) then(act func(error)) {
	l.acts = append(l.acts, act)
	l.work.open()
}

// drain parks until all that was put so far is committed.
func (l *simLog) drain() error {
	if l.dead != nil {
		return l.dead
	}
	f := newFuture[struct{}](l.e)
	l.then(func(err error) { f.resolve(struct{}{}, err) })
	_, err := f.wait(0)
	return err
}

// write is the coroutine that makes blocks durable.
func (l *simLog) write() {
	for l.dead == nil {
		if len(l.acts) == 0 && len(l.d.frames) == l.d.writing {
			l.work.wait(0)
			continue
		}
		b := &block{end: len(l.d.frames), acts: l.acts, entries: l.entries}
		b.updates = l.updates(l.d.writing, b.end)
		l.acts, l.entries = nil, nil
		l.blocks = append(l.blocks, b)
		if b.end > l.d.writing {
			l.d.writing = b.end
			l.e.sleep(l.e.between(l.low, l.high) + *l.slow)
			for l.d.detached && l.dead == nil {
				l.e.sleep(20 * time.Millisecond)
			}
			if l.dead != nil {
				return
			}
			l.d.makeDurable(b.end)
		}
		l.register(b)
	}
}

// register is what follows durability (O4).
func (l *simLog) register(b *block) {
	if len(b.updates) == 0 || l.witness == nil || !l.witness.Active() || planted.ackFirst {
		b.witnessed = true
		l.commit()
		if !planted.ackFirst || len(b.updates) == 0 || l.witness == nil || !l.witness.Active() {
			return
		}
	}
	l.witness.Register(position(b.end), b.updates, func(err error) {
		if err != nil {
			l.poison(fmt.Errorf("register with witnesses: %w", err))
			return
		}
		b.witnessed = true
		l.commit()
	})
}

// commit makes visible what is durable and witnessed, in order.
func (l *simLog) commit() {
	for l.dead == nil && len(l.blocks) > 0 && l.blocks[0].witnessed {
		b := l.blocks[0]
		l.blocks = l.blocks[1:]
		l.committed = b.end
		for _, en := range b.entries {
			f := &l.d.frames[en.index]
			switch f.kind {
			case frameData:
				en.q.high = f.base + ident.Offset(f.batch.records)
				l.seen.committed(l, en.q, f)
			case frameStart:
				en.q.logStart = max(en.q.logStart, f.base)
				l.seen.startMoved(l, en.q)
			}
		}
		for _, act := range b.acts {
			act(nil)
		}
	}
}

// updates is what frames [from, to) mean to witnesses: absolute states, as of the end of the block.
func (l *simLog) updates(from, to int) []commitlog.Update {
	if l.witness == nil || !l.witness.Active() {
		return nil
	}
	var out []commitlog.Update
	for i := from; i < to; i++ {
		f := &l.d.frames[i]
		switch f.kind {
		case frameOpened:
			out = append(out, commitlog.Update{Kind: commitlog.UpdateOpened, Generation: f.gen})
			for j := range f.states {
				out = append(out, commitlog.Update{Generation: f.gen, State: f.states[j]})
			}
		case frameCut, frameForgot:
			out = append(out, commitlog.Update{Kind: commitlog.UpdateForgotten, Generation: f.gen})
		case frameData, frameStart:
			r := l.run(f.gen)
			if r == nil || r.state == runSealed {
				continue
			}
			u := commitlog.Update{Generation: f.gen, State: r.get(f.part).snapshot()}
			k := slices.IndexFunc(out, func(o commitlog.Update) bool {
				return o.Kind == commitlog.UpdateState && o.Generation == u.Generation && o.State.Partition == f.part
			})
			if k < 0 {
				out = append(out, u)
			} else {
				out[k] = u
			}
		}
	}
	return out
}

// states is the state of every generation that is not sealed.
func (l *simLog) states() []ident.GenerationState {
	var out []ident.GenerationState
	for _, r := range l.runs {
		if r.state == runSealed {
			continue
		}
		g := ident.GenerationState{Generation: r.gen}
		for _, q := range r.parts {
			if q.hasState() {
				g.Partitions = append(g.Partitions, q.snapshot())
			}
		}
		out = append(out, g)
	}
	slices.SortFunc(out, func(a, b ident.GenerationState) int {
		return cmp.Or(cmp.Compare(a.Generation.Group, b.Generation.Group), cmp.Compare(a.Generation.Epoch, b.Generation.Epoch),
			cmp.Compare(a.Generation.Frame.Epoch, b.Generation.Frame.Epoch), cmp.Compare(a.Generation.Frame.Position, b.Generation.Frame.Position))
	})
	return out
}

// RecoveredTable is the table of a log that was not begun.
func (l *simLog) RecoveredTable() commitlog.Table {
	return commitlog.Table{At: l.found.End, Generations: l.states()}
}

// Table is the state as of a position; it returns once that is committed.
func (l *simLog) Table(context.Context) (commitlog.Table, error) {
	if l.dead != nil {
		return commitlog.Table{}, l.dead
	}
	t := commitlog.Table{At: position(len(l.d.frames)), Generations: l.states()}
	return t, l.drain()
}

// tableNow is the table for a joiner, before Begin and after.
func (l *simLog) tableNow() (commitlog.Table, error) {
	if !l.begun && l.d.writing == l.d.durable && len(l.d.frames) == l.d.durable {
		return l.RecoveredTable(), l.dead
	}
	return l.Table(background)
}

// RaiseCeiling lets a generation give offsets up to a ceiling that the map has already.
func (l *simLog) RaiseCeiling(gen ident.Generation, to ident.Offset) error {
	r := l.run(gen)
	if l.dead != nil || r == nil || r.state == runSealed {
		return fmt.Errorf("raise ceiling of %s: %w", gen, errors.Join(commitlog.ErrNotOpen, l.dead))
	}
	if to > r.limit {
		r.bound(to)
	}
	return nil
}

// TakeLowCeilings returns the generations that need their ceilings raised.
func (l *simLog) TakeLowCeilings() []commitlog.LowCeiling {
	out := l.lows
	l.lows = nil
	return out
}

// pass says whether a batch that ends at end may be taken, and asks for more once.
func (l *simLog) pass(r *logRun, end ident.Offset) bool {
	if r.limit == 0 || end <= r.soft {
		return true
	}
	if r.soft < r.limit || end > r.limit {
		if i := slices.IndexFunc(l.lows, func(low commitlog.LowCeiling) bool { return low.Generation == r.gen }); i >= 0 {
			l.lows[i].End = max(l.lows[i].End, end)
		} else {
			l.lows = append(l.lows, commitlog.LowCeiling{Generation: r.gen, End: end})
		}
		r.soft = r.limit
		l.asked.open()
	}
	return end <= r.limit || planted.noCeiling
}

// Sealed is of host.Log; see queue.
func (l *simLog) Sealed(ident.Generation, ident.Partition) (*commitlog.Queue, bool) {
	return nil, false
}

// Begin opens the log at an epoch with exactly what the map names.
func (l *simLog) Begin(_ context.Context, epoch ident.LogEpoch, named []commitlog.MapGeneration) error {
	switch {
	case l.dead != nil:
		return l.dead
	case l.begun:
		return errors.New("begin log: already begun")
	case epoch <= l.found.Epoch:
		return fmt.Errorf("begin log: epoch %d is not above the disk's %d", epoch, l.found.Epoch)
	}
	known := map[ident.Generation]bool{}
	for i := range named {
		m := &named[i]
		known[m.Generation] = true
		r := l.run(m.Generation)
		switch {
		case r == nil && m.Open:
			return fmt.Errorf("begin log: the disk does not have generation %s", m.Generation)
		case r != nil && m.Open && r.state == runSealed:
			return fmt.Errorf("begin log: generation %s was sealed on this disk", m.Generation)
		}
	}
	l.epoch = epoch
	l.put(frame{kind: frameEpoch})
	for _, r := range l.runs {
		if !known[r.gen] {
			l.put(frame{kind: frameForgot, gen: r.gen})
		}
	}
	for _, m := range named {
		if r := l.run(m.Generation); r != nil && !m.Open {
			l.put(frame{kind: frameCut, gen: m.Generation, ends: m.Ends, partial: m.Gap})
		}
	}
	if err := l.drain(); err != nil {
		return fmt.Errorf("begin log: %w", err)
	}
	l.runs = slices.DeleteFunc(l.runs, func(r *logRun) bool { return !known[r.gen] })
	l.begun = true
	for _, m := range named {
		r := l.run(m.Generation)
		switch {
		case r == nil:
		case m.Open:
			r.bound(m.Ceiling)
			l.open(r)
		default:
			r.seal(m.Ends)
		}
	}
	return nil
}

// open makes a run take appends.
func (l *simLog) open(r *logRun) {
	r.state = runOpen
	l.seen.activated(l, r)
}

// Prepare writes opening frames; it returns once they are durable and witnessed (O12).
func (l *simLog) Prepare(_ context.Context, openings []commitlog.Opening) ([]ident.Frame, error) {
	if l.dead != nil {
		return nil, l.dead
	}
	if !l.begun {
		return nil, fmt.Errorf("prepare: %w: log not begun", commitlog.ErrNotOpen)
	}
	out := make([]ident.Frame, len(openings))
	for i, o := range openings {
		gen := ident.Generation{Group: o.Group, Epoch: o.Epoch, Frame: ident.Frame{Epoch: l.epoch, Position: position(len(l.d.frames))}}
		states := slices.Clone(o.State)
		l.put(frame{kind: frameOpened, gen: gen, states: states})
		out[i] = gen.Frame
		r := &logRun{gen: gen}
		for j := range states {
			r.get(states[j].Partition).set(&states[j])
		}
		r.bound(o.Ceiling)
		l.runs = append(l.runs, r)
	}
	if err := l.drain(); err != nil {
		return nil, fmt.Errorf("prepare: %w", err)
	}
	return out, nil
}

// Activate opens prepared generations: the map names them.
func (l *simLog) Activate(gens []ident.Generation) error {
	if l.dead != nil {
		return l.dead
	}
	var errs []error
	for _, gen := range gens {
		r := l.run(gen)
		switch {
		case r == nil || r.state == runSealed:
			errs = append(errs, fmt.Errorf("activate %s: %w", gen, commitlog.ErrNotOpen))
		case r.state == runPrepared:
			l.open(r)
		}
	}
	return errors.Join(errs...)
}

// Freeze stops every kind of frame of the groups, drains, and returns their exact states (O18).
func (l *simLog) Freeze(_ context.Context, groups ...ident.Group) (map[ident.Group][]ident.PartitionState, error) {
	if l.dead != nil {
		return nil, l.dead
	}
	var runs []*logRun
	for _, g := range groups {
		r := l.openOf(g)
		if r == nil {
			return nil, fmt.Errorf("freeze group %d: %w", g, commitlog.ErrNotOpen)
		}
		r.frozen = true
		runs = append(runs, r)
	}
	if err := l.drain(); err != nil {
		return nil, err
	}
	out := map[ident.Group][]ident.PartitionState{}
	for _, r := range runs {
		states := []ident.PartitionState{}
		for _, q := range r.parts {
			if q.hasState() {
				states = append(states, q.snapshot())
			}
		}
		out[r.gen.Group] = states
	}
	return out, nil
}

// Thaw ends a freeze that did not lead to a move.
func (l *simLog) Thaw(groups ...ident.Group) error {
	if l.dead != nil {
		return l.dead
	}
	var errs []error
	for _, g := range groups {
		if r := l.openOf(g); r != nil {
			r.frozen = false
		} else {
			errs = append(errs, fmt.Errorf("thaw group %d: %w", g, commitlog.ErrNotOpen))
		}
	}
	return errors.Join(errs...)
}

// Seal ends generations here at the ends that the map published, and writes that down.
func (l *simLog) Seal(_ context.Context, gens ...commitlog.MapGeneration) error {
	if l.dead != nil {
		return l.dead
	}
	for _, m := range gens {
		r := l.run(m.Generation)
		if r == nil {
			return fmt.Errorf("seal %s: %w", m.Generation, commitlog.ErrNotOpen)
		}
		r.state = runSealed
	}
	if err := l.drain(); err != nil {
		return err
	}
	for _, m := range gens {
		r := l.run(m.Generation)
		for _, q := range r.parts {
			end, ok := m.Ends[q.part]
			if !ok {
				end = q.start
			}
			if end < q.high {
				return fmt.Errorf("seal %s: end %d of %s is below what was visible, %d", m.Generation, end, q.part, q.high)
			}
		}
		r.seal(m.Ends)
		l.put(frame{kind: frameCut, gen: m.Generation, ends: m.Ends})
	}
	return l.drain()
}

// append gives a batch its place. The future has the first offset once it is committed.
func (l *simLog) append(r *logRun, p ident.Partition, b batch) *future[ident.Offset] {
	out := newFuture[ident.Offset](l.e)
	fail := func(err error) *future[ident.Offset] { out.resolve(-1, err); return out }
	if l.dead != nil {
		return fail(l.dead)
	}
	switch {
	case r.state != runOpen || !l.begun:
		return fail(commitlog.ErrNotOpen)
	case r.frozen:
		return fail(commitlog.ErrFrozen)
	}
	q := r.get(p)
	first, duplicate, err := q.deduplicate(&b)
	if err != nil {
		return fail(err)
	}
	if !duplicate {
		if first = q.next; !l.pass(r, first+ident.Offset(b.records)) {
			return fail(commitlog.ErrFrozen)
		}
		l.entries = append(l.entries, entry{q, l.put(frame{kind: frameData, gen: r.gen, part: p, base: first, batch: b})})
		q.apply(&b, first)
	}
	l.then(func(err error) { out.resolve(first, err) }) // a duplicate waits for the commit of the first one
	return out
}

// moveStart moves a log start; it parks until that is committed.
func (l *simLog) moveStart(r *logRun, p ident.Partition, to ident.Offset) error {
	if l.dead != nil {
		return l.dead
	}
	switch {
	case r.state != runOpen || !l.begun:
		return commitlog.ErrNotOpen
	case r.frozen:
		return commitlog.ErrFrozen
	}
	q := r.get(p)
	if to > q.high {
		return commitlog.ErrOutOfRange
	}
	if to > q.started {
		l.entries = append(l.entries, entry{q, l.put(frame{kind: frameStart, gen: r.gen, part: p, base: to})})
		q.started = to
	}
	return l.drain()
}

// short is a log's name in the trace: its broker, and which of its disks it is.
func short(id ident.Log) string { return fmt.Sprintf("%d.%d", id[15], id[14]) }
