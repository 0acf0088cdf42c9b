package commitlog

import (
	"bytes"
	"context"
	"errors"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/skeinmq/skein/internal/ident"
	"github.com/skeinmq/skein/internal/vfs"
)

// testRegistrar keeps what was registered, and answers when it is told to.
type testRegistrar struct {
	mu     sync.Mutex
	active bool
	held   []heldBlock
	ends   []ident.Position
	state  map[ident.Generation]map[ident.Partition]ident.PartitionState
	most   int // blocks under way at once
	auto   bool
	fail   error

	journal []registered // kept while joining
	joining bool
}

type registered struct {
	end     ident.Position
	updates []Update
}

type heldBlock struct {
	end  ident.Position
	done func(error)
}

func newTestRegistrar() *testRegistrar {
	return &testRegistrar{active: true, auto: true, state: map[ident.Generation]map[ident.Partition]ident.PartitionState{}}
}

func (r *testRegistrar) Active() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.active
}

func (r *testRegistrar) Register(end ident.Position, updates []Update, done func(error)) {
	r.mu.Lock()
	r.ends = append(r.ends, end)
	if r.joining { // an update is valid until Register returns
		kept := slices.Clone(updates)
		for i := range kept {
			kept[i].State.Producers = slices.Clone(kept[i].State.Producers)
			for k := range kept[i].State.Producers {
				kept[i].State.Producers[k].Batches = slices.Clone(kept[i].State.Producers[k].Batches)
			}
		}
		r.journal = append(r.journal, registered{end, kept})
	} else {
		for i := range updates {
			r.apply(&updates[i])
		}
	}
	r.held = append(r.held, heldBlock{end, done})
	r.most = max(r.most, len(r.held))
	auto, fail := r.auto, r.fail
	r.mu.Unlock()
	if auto {
		r.answer(fail)
	}
}

// answer answers everything that waits.
func (r *testRegistrar) answer(err error) {
	r.mu.Lock()
	held := r.held
	r.held = nil
	r.mu.Unlock()
	for _, h := range held {
		h.done(err)
	}
}

func (r *testRegistrar) hold(on bool) {
	r.mu.Lock()
	r.auto = !on
	r.mu.Unlock()
	if !on {
		r.answer(nil)
	}
}

// apply is what a witness does, in its simplest form.
func (r *testRegistrar) apply(u *Update) {
	parts := r.state[u.Generation]
	switch {
	case u.Kind == UpdateOpened:
		r.state[u.Generation] = map[ident.Partition]ident.PartitionState{}
	case parts == nil:
	case u.Kind == UpdateForgotten:
		delete(r.state, u.Generation)
	case u.Kind == UpdateDropped:
		delete(parts, u.State.Partition)
	default:
		s := parts[u.State.Partition]
		s.Partition, s.End, s.LogStart = u.State.Partition, u.State.End, u.State.LogStart
		s.Producers = slices.DeleteFunc(slices.Clone(s.Producers), func(p ident.ProducerState) bool {
			return slices.Contains(u.Removed, p.ID) || slices.ContainsFunc(u.State.Producers, func(q ident.ProducerState) bool { return q.ID == p.ID })
		})
		for _, p := range u.State.Producers {
			p.Batches = slices.Clone(p.Batches)
			s.Producers = append(s.Producers, p)
		}
		slices.SortFunc(s.Producers, func(a, b ident.ProducerState) int { return int(a.ID - b.ID) })
		if len(s.Producers) == 0 {
			s.Producers = nil
		}
		parts[u.State.Partition] = s
	}
}

// join takes the table, then what came after it.
func (r *testRegistrar) join(t *testing.T, table Table) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, g := range table.Generations {
		r.state[g.Generation] = map[ident.Partition]ident.PartitionState{}
		for _, s := range g.Partitions {
			r.state[g.Generation][s.Partition] = s
		}
	}
	for _, b := range r.journal {
		if b.end <= table.At {
			continue
		}
		for i := range b.updates {
			if u := &b.updates[i]; u.State.End < r.state[u.Generation][u.State.Partition].End {
				t.Errorf("a block past the table goes back to %d", u.State.End)
			}
			r.apply(&b.updates[i])
		}
	}
	r.joining, r.journal = false, nil
}

// table is what the registrar would answer a seal with.
func (r *testRegistrar) table() []ident.GenerationState {
	r.mu.Lock()
	defer r.mu.Unlock()
	var out []ident.GenerationState
	for gen, parts := range r.state {
		g := ident.GenerationState{Generation: gen}
		for _, s := range parts {
			g.Partitions = append(g.Partitions, s)
		}
		slices.SortFunc(g.Partitions, func(a, b ident.PartitionState) int { return a.Partition.Compare(b.Partition) })
		out = append(out, g)
	}
	slices.SortFunc(out, func(a, b ident.GenerationState) int { return compareGenerations(a.Generation, b.Generation) })
	return out
}

func witnessedLog(t *testing.T, reg *testRegistrar) *running {
	cfg := testConfig(vfs.NewMem(), "data")
	cfg.Witness = reg
	return start(t, cfg)
}

// sameTables compares the log's own table with what its updates made.
func sameTables(t *testing.T, l *Log, reg *testRegistrar) {
	t.Helper()
	want, err := l.Table(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	same := func(a, b ident.GenerationState) bool {
		return a.Generation == b.Generation && bytes.Equal(AppendStates(nil, a.Partitions), AppendStates(nil, b.Partitions))
	}
	if got := reg.table(); !slices.EqualFunc(got, want.Generations, same) {
		t.Errorf("witnessed\n%+v\nwant\n%+v", got, want.Generations)
	}
}

// earlyAck appends with a registrar that does not answer, and reports whether anything was acked or visible.
func earlyAck(t *testing.T) (early bool) {
	synctest.Test(t, func(t *testing.T) {
		reg := newTestRegistrar()
		r := witnessedLog(t, reg)
		defer r.stop()
		r.begin()
		q := r.queue(1, 0)
		first := batchOf(q, producerBatch(1, 10, 7, 0, 0))
		reg.hold(true)
		w := r.later(first)
		synctest.Wait()
		dup := r.later(first) // its answer is the first one's: it must wait, too
		synctest.Wait()
		early = len(w) > 0 || len(dup) > 0 || q.HighWatermark() != 0
		reg.hold(false)
		if a := <-w; a.Batches[0].Result.Err != nil {
			t.Error(a.Batches[0].Result.Err)
		}
		if a := <-dup; !errors.Is(a.Batches[0].Result.Err, ErrDuplicate) || a.Batches[0].Result.Base != 0 {
			t.Errorf("duplicate: %+v", a.Batches[0].Result)
		}
		if q.HighWatermark() != 1 {
			t.Errorf("high watermark %d", q.HighWatermark())
		}
	})
	return early
}

func TestAckAfterWitnesses(t *testing.T) {
	if earlyAck(t) {
		t.Error("O4: acked or visible before the witnesses had it")
	}
}

// TestWitnessedInOrder: many blocks are with the witnesses at once, no more than the pipe holds, and in commit order.
func TestWitnessedInOrder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		reg := newTestRegistrar()
		r := witnessedLog(t, reg)
		defer r.stop()
		r.begin()
		q := r.queue(1, 0)
		reg.hold(true)
		var all []chan *Append
		for range 200 {
			all = append(all, r.later(batchOf(q, testBatch(1, 1, 10))))
			synctest.Wait()
		}
		if reg.most < maxPiped/2 || reg.most > maxPiped {
			t.Errorf("%d blocks were under way at once, want up to %d", reg.most, maxPiped)
		}
		reg.hold(false)
		for i, w := range all {
			if a := <-w; a.Batches[0].Result.Err != nil || a.Batches[0].Result.Base != ident.Offset(i) {
				t.Fatalf("append %d: %+v", i, a.Batches[0].Result)
			}
		}
		if !slices.IsSorted(reg.ends) {
			t.Error("registered out of order")
		}
		sameTables(t, r.Log, reg)
	})
}

// TestWitnessRefusals: a log whose witnesses refuse is dead, and says whether its disk is to blame.
func TestWitnessRefusals(t *testing.T) {
	for _, fenced := range []bool{false, true} {
		reg := newTestRegistrar()
		r := witnessedLog(t, reg)
		r.begin()
		q := r.queue(1, 0)
		reg.mu.Lock()
		if reg.fail = errors.New("no witnesses"); fenced {
			reg.fail = ErrFenced
		}
		reg.mu.Unlock()
		a := <-r.later(batchOf(q, testBatch(1, 1, 10)))
		if err := a.Batches[0].Result.Err; !errors.Is(err, ErrPoisoned) || errors.Is(err, ErrFenced) != fenced || q.HighWatermark() != 0 {
			t.Errorf("fenced %v: append %v, high watermark %d", fenced, err, q.HighWatermark())
		}
		if errors.Is(r.Err(), ErrFenced) != fenced {
			t.Errorf("log: %v", r.Err())
		}
		r.cancel()
		<-r.ended
		r.Close()
	}
}

// TestUpdatesTellAll: what the updates make of everything that a log does is the log's own table (O5).
func TestUpdatesTellAll(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx := context.Background()
		reg := newTestRegistrar()
		cfg := testConfig(vfs.NewMem(), "data")
		cfg.Witness, cfg.ProducerExpiry = reg, time.Hour
		r := start(t, cfg)
		defer r.stop()
		r.begin()
		r.openGroup(2, 1, []ident.PartitionState{{Partition: ident.Partition{Topic: ident.Topic{5}}, End: 9, LogStart: 2, Producers: []ident.ProducerState{{ID: 3, TxnStart: 4, CoordinatorEpoch: -1}}}})
		q, other := r.queue(1, 0), r.queue(1, 1)
		for i := range int32(7) {
			r.append(batchOf(q, producerBatch(1, 10, 7, 0, i)), batchOf(q, producerBatch(1, 10, 8, 0, i)), batchOf(other, testBatch(2, 1, 10)))
		}
		sameTables(t, r.Log, reg)
		if err := q.SetLogStart(ctx, 3); err != nil {
			t.Fatal(err)
		}
		sameTables(t, r.Log, reg)
		time.Sleep(2 * time.Hour) // both producers are silent for longer than they are remembered
		r.append(batchOf(q, producerBatch(1, 10, 8, 0, 7)))
		for range 200 {
			r.append(batchOf(other, testBatch(1, 1, 10)))
		}
		if got := reg.table(); len(got[0].Partitions[0].Producers) != 1 {
			t.Errorf("producers %+v, want the one that came back", got[0].Partitions[0].Producers)
		}
		sameTables(t, r.Log, reg)
		if err := r.Drop(ctx, []ident.Partition{other.Partition()}); err != nil {
			t.Fatal(err)
		}
		sameTables(t, r.Log, reg)
		states := r.freezeNow(1)
		r.openGroup(1, 2, states)
		if err := r.Seal(ctx, MapGeneration{Generation: q.Generation(), Ends: map[ident.Partition]ident.Offset{q.Partition(): states[0].End}}); err != nil {
			t.Fatal(err)
		}
		if got := reg.table(); len(got) != 2 {
			t.Errorf("%d generations, want the open ones only", len(got))
		}
		sameTables(t, r.Log, reg)
	})
}

// TestJoinerTable: a registrar that becomes active in the middle of appends has, with the table and the updates of blocks
// past its position, what one has that saw everything.
func TestJoinerTable(t *testing.T) {
	reg := newTestRegistrar()
	reg.active = false
	r := witnessedLog(t, reg)
	defer r.stop()
	r.begin()
	queues := []*Queue{r.queue(1, 0), r.queue(1, 1), r.queue(1, 2)}
	stop := make(chan struct{})
	var writers sync.WaitGroup
	for p, q := range queues {
		writers.Go(func() {
			for i := int32(0); ; i++ {
				select {
				case <-stop:
					return
				default:
					<-r.later(batchOf(q, producerBatch(1, 10, int64(p), 0, i)))
				}
			}
		})
	}
	for round := range 20 {
		time.Sleep(time.Millisecond) // appends go on
		reg.mu.Lock()
		reg.active, reg.joining, reg.journal = true, true, nil
		reg.state = map[ident.Generation]map[ident.Partition]ident.PartitionState{}
		reg.mu.Unlock()
		table, err := r.Table(context.Background())
		if err != nil {
			t.Fatal(err)
		}
		r.append(batchOf(queues[0], testBatch(1, 1, 1)))
		reg.join(t, table)
		if round%4 == 3 { // it leaves: blocks go without updates until the next one joins
			reg.mu.Lock()
			reg.active = false
			reg.mu.Unlock()
			r.append(batchOf(queues[0], testBatch(1, 1, 1)))
		}
	}
	reg.mu.Lock()
	reg.active, reg.joining, reg.journal = true, true, nil
	reg.state = map[ident.Generation]map[ident.Partition]ident.PartitionState{}
	reg.mu.Unlock()
	table, err := r.Table(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	reg.join(t, table)
	close(stop)
	writers.Wait()
	for _, q := range queues {
		r.append(batchOf(q, testBatch(1, 1, 1)))
	}
	sameTables(t, r.Log, reg)
}

// BenchmarkWitnessed compares a log without registrar, with one that is not active, and with one that answers at once.
func BenchmarkWitnessed(b *testing.B) {
	for _, kind := range []string{"none", "inactive", "active"} {
		b.Run(kind, func(b *testing.B) {
			cfg := Config{}
			if kind != "none" {
				cfg.Witness = benchRegistrar(kind == "active")
			}
			l, stop := benchLog(b, cfg)
			defer stop()
			benchAppend(b, l, benchQueues(b, l, 1000), 1<<10)
		})
	}
}

type benchRegistrar bool

func (r benchRegistrar) Active() bool                                          { return bool(r) }
func (benchRegistrar) Register(_ ident.Position, _ []Update, done func(error)) { done(nil) }
