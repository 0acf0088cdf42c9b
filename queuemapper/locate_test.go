package queuemapper

import (
	"fmt"
	"math/rand/v2"
	"os"
	"reflect"
	"strconv"
	"testing"

	"github.com/skeinmq/skein/internal/ident"
)

// period is one generation as one partition saw it, empty or not. The last one is open.
type period struct {
	group      ident.Group
	epoch      ident.Epoch
	log        ident.Log
	start, end ident.Offset
	open       bool
}

// world is a map together with a model of it that knows nothing of records: for every
// partition the plain list of its periods.
type world struct {
	t        *testing.T
	rng      *rand.Rand
	m        *Map
	values   map[string][]byte // as etcd would have them
	revs     map[string]int64
	rev      int64
	logs     []*Log
	periods  map[ident.Partition][]period
	position ident.Position
}

func newWorld(t *testing.T, seed uint64) *world {
	w := &world{
		t: t, rng: rand.New(rand.NewPCG(seed, 1)), m: newMap(), values: map[string][]byte{},
		revs: map[string]int64{}, periods: map[ident.Partition][]period{},
	}
	w.write(keyCluster, encodeCluster(Cluster{ID: "c", Format: 1, Groups: 1 + w.rng.IntN(4)}))
	for i := range 3 {
		w.write(keyLog(logID(byte(i+1))), encodeLog(&Log{Epoch: 1}, [8]byte{}))
		w.logs = append(w.logs, w.m.Log(logID(byte(i+1))))
	}
	for g := range w.m.Groups() {
		w.publish(g, nil)
	}
	return w
}

func (w *world) write(keyValues ...any) {
	w.rev++
	e := w.m.edit()
	for i := 0; i < len(keyValues); i += 2 {
		key, value := keyValues[i].(string), keyValues[i+1].([]byte)
		w.values[key], w.revs[key] = value, w.rev
		if err := e.put(key, value, w.rev); err != nil {
			w.t.Fatal(err)
		}
	}
	w.m = e.done(w.rev)
}

// in lists the partitions that live in a group now.
func (w *world) in(g ident.Group) (out []ident.Partition) {
	for t := range w.m.Topics() {
		for i, pl := range t.Partitions {
			if pl[len(pl)-1].Group == g {
				out = append(out, ident.Partition{Topic: t.ID, Index: int32(i)})
			}
		}
	}
	return out
}

// publication of the next generation of g, and what it does to the model.
func (w *world) publication(g *Group, above ident.Epoch) Publication {
	w.position += 4096
	log := w.logs[w.rng.IntN(len(w.logs))]
	pub := Publication{Group: g, Target: log, Epoch: above + 1 + ident.Epoch(w.rng.IntN(3)), Frame: ident.Frame{Epoch: 1, Position: w.position}}
	if cur := g.Current(); cur != nil {
		pub.Source = w.m.Log(cur.Log)
		pub.Ends = map[ident.Partition]ident.Offset{}
	}
	for _, p := range w.in(g.ID) {
		last := w.last(p)
		if last.end += ident.Offset(w.rng.IntN(3) * w.rng.IntN(20)); last.end > last.start || w.rng.IntN(2) == 0 {
			pub.Ends[p] = last.end
		}
		last.open = false
		w.periods[p] = append(w.periods[p], period{g.ID, pub.Epoch, log.ID, last.end, last.end, true})
	}
	return pub
}

func (w *world) last(p ident.Partition) *period { return &w.periods[p][len(w.periods[p])-1] }

func epochOf(g *Group) ident.Epoch {
	if cur := g.Current(); cur != nil {
		return cur.Epoch
	}
	return -1
}

func (w *world) publish(g *Group, _ any) {
	pub := w.publication(g, epochOf(g))
	p, err := pub.prepare()
	if err != nil {
		w.t.Fatal(err)
	}
	w.write(keyGroup(g.ID), p.value)
}

func (w *world) create(n int) {
	// An id is never used again, not even when the topic is gone: groups still hold its ends. The revision makes it so.
	t := &Topic{ID: ident.Topic{0: byte(n), 1: byte(w.rev >> 16), 2: byte(w.rev >> 8), 3: byte(w.rev), 15: byte(w.rng.IntN(256))}}
	for i := range 1 + w.rng.IntN(4) {
		g := w.m.groups[w.rng.IntN(len(w.m.groups))]
		t.Partitions = append(t.Partitions, Placement{{Group: g.ID}})
		p := ident.Partition{Topic: t.ID, Index: int32(i)}
		for _, gen := range g.Generations {
			w.periods[p] = append(w.periods[p], period{g.ID, gen.Epoch, gen.Log, 0, 0, !gen.Sealed})
		}
	}
	w.write(keyTopic(fmt.Sprint("t", n)), encodeTopic(t))
}

func (w *world) split() {
	var topics []*Topic
	for t := range w.m.Topics() {
		topics = append(topics, t)
	}
	if len(topics) == 0 || len(w.m.groups) < 2 {
		return
	}
	t := topics[w.rng.IntN(len(topics))]
	i := int32(w.rng.IntN(len(t.Partitions)))
	pl := t.Partitions[i]
	source := w.m.Group(pl[len(pl)-1].Group)
	target := w.m.groups[w.rng.IntN(len(w.m.groups))]
	if target == source {
		return
	}
	p := ident.Partition{Topic: t.ID, Index: i}
	above := max(epochOf(source), epochOf(target))
	sp := Split{Topic: t, Index: i, Source: w.publication(source, epochOf(source)), Target: w.publication(target, above)}
	// In the source's new generation the partition does not live: it goes on in the target's.
	w.periods[p] = w.periods[p][:len(w.periods[p])-1]
	from := w.last(p).end
	w.periods[p] = append(w.periods[p], period{target.ID, sp.Target.Epoch, sp.Target.Target.ID, from, from, true})
	groups, topic, err := sp.prepare()
	if err != nil {
		w.t.Fatal(err)
	}
	w.write(keyTopic(topic.Name), encodeTopic(topic), keyGroup(source.ID), groups[0].value, keyGroup(target.ID), groups[1].value)
}

func (w *world) trim() {
	g := w.m.groups[w.rng.IntN(len(w.m.groups))]
	keep := g.Generations[w.rng.IntN(len(g.Generations))].Epoch
	fresh := g.trimmed(keep, w.m)
	if fresh == nil {
		return
	}
	for p, list := range w.periods {
		var kept []period
		for _, x := range list {
			if x.group != g.ID || x.epoch >= keep {
				kept = append(kept, x)
			}
		}
		w.periods[p] = kept
	}
	w.write(keyGroup(g.ID), encodeGroup(fresh))
}

// check compares every answer of a map with the model's.
func (w *world) check(m *Map) {
	w.t.Helper()
	for t := range m.Topics() {
		for i := range t.Partitions {
			w.checkPartition(m, t, int32(i))
		}
	}
	for g := range m.Groups() {
		for i := 1; i < len(g.Generations); i++ {
			if g.Generations[i].Epoch <= g.Generations[i-1].Epoch {
				w.t.Fatalf("group %d: epochs do not increase", g.ID)
			}
		}
		if n := len(w.in(g.ID)); n != m.Partitions(g.ID) {
			w.t.Fatalf("group %d has %d partitions, counted %d", g.ID, n, m.Partitions(g.ID))
		}
	}
}

func (w *world) checkPartition(m *Map, t *Topic, index int32) {
	w.t.Helper()
	p := ident.Partition{Topic: t.ID, Index: index}
	var want []period
	for _, x := range w.periods[p] {
		if x.open || x.end > x.start {
			want = append(want, x)
		}
	}
	got := m.Runs(t, index)
	if len(got) != len(want) {
		w.t.Fatalf("%s: %d runs, want %d\n%+v\n%+v", p, len(got), len(want), got, want)
	}
	for i, x := range want {
		r := got[i]
		if r.Generation.Group != x.group || r.Generation.Epoch != x.epoch || r.Log != x.log || r.Start != x.start ||
			r.Open != x.open || !r.Open && r.End != x.end {
			w.t.Fatalf("%s run %d: %+v, want %+v", p, i, r, x)
		}
		for _, o := range []ident.Offset{x.start, (x.start + x.end) / 2, x.end - 1} {
			if o < x.start {
				continue
			}
			if l, ok := m.Locate(t, index, o); !ok || l != r {
				w.t.Fatalf("%s locate %d: %+v %v, want %+v", p, o, l, ok, r)
			}
		}
	}
	last := want[len(want)-1]
	if r, _, ok := m.Owner(t, index); !ok || r != got[len(got)-1] {
		w.t.Fatalf("%s owner: %+v %v, want %+v", p, r, ok, last)
	}
	if r, ok := m.Locate(t, index, last.start+1e12); !ok || !r.Open {
		w.t.Fatalf("%s locate far: %+v %v", p, r, ok)
	}
	if o := want[0].start - 1; true {
		if r, ok := m.Locate(t, index, o); ok {
			w.t.Fatalf("%s locate %d, below the first run: %+v", p, o, r)
		}
	}
	w.checkEpochs(m, t, p)
}

func (w *world) checkEpochs(m *Map, t *Topic, p ident.Partition) {
	w.t.Helper()
	list := w.periods[p]
	for e := list[0].epoch - 1; e <= list[len(list)-1].epoch+1; e++ {
		var want *period
		for i := range list {
			if list[i].epoch <= e {
				want = &list[i]
			}
		}
		epoch, end, open, ok := m.EpochEnd(t, p.Index, e)
		if want == nil {
			if ok || epoch != e {
				w.t.Fatalf("%s epoch %d: %d %d %v %v, want none", p, e, epoch, end, open, ok)
			}
			continue
		}
		if !ok || epoch != want.epoch || open != want.open || end != want.end {
			w.t.Fatalf("%s epoch %d: %d %d %v %v, want %+v", p, e, epoch, end, open, ok, *want)
		}
	}
}

// reread decodes everything anew, without anything shared.
func (w *world) reread() *Map {
	e := newMap().edit()
	if err := e.put(keyCluster, w.values[keyCluster], 1); err != nil {
		w.t.Fatal(err)
	}
	for key, v := range w.values {
		if err := e.put(key, v, w.revs[key]); err != nil {
			w.t.Fatal(err)
		}
	}
	return e.done(w.rev)
}

func seeds(t *testing.T, n int) []uint64 {
	if s := os.Getenv("SKEIN_SEED"); s != "" {
		v, err := strconv.ParseUint(s, 10, 64)
		if err != nil {
			t.Fatal(err)
		}
		return []uint64{v}
	}
	out := make([]uint64, n)
	for i := range out {
		out[i] = rand.Uint64()
	}
	return out
}

// TestAgainstModel drives random moves, splits, trims and topics and compares every answer of
// the map with a list of periods. I5: no gap, no overlap, sealed ends do not change.
func TestAgainstModel(t *testing.T) {
	for _, seed := range seeds(t, 60) {
		ok := t.Run("", func(t *testing.T) {
			t.Logf("SKEIN_SEED=%d go test ./queuemapper -run TestAgainstModel", seed)
			w := newWorld(t, seed)
			for step := range 60 {
				switch k := w.rng.IntN(20); {
				case k < 3 && step < 40:
					w.create(step)
				case k < 15:
					w.publish(w.m.groups[w.rng.IntN(len(w.m.groups))], nil)
				case k < 19:
					w.split()
				default:
					w.trim()
				}
				old := w.m
				w.check(old)
				if step%10 == 0 {
					w.check(w.reread())
				}
			}
		})
		if !ok {
			return
		}
	}
}

// TestSnapshotsAreImmutable: what a snapshot says does not change when newer ones are made.
func TestSnapshotsAreImmutable(t *testing.T) {
	seed := seeds(t, 1)[0]
	t.Logf("SKEIN_SEED=%d go test ./queuemapper -run TestSnapshotsAreImmutable", seed)
	w := newWorld(t, seed)
	for i := range 5 {
		w.create(i)
	}
	old := w.m
	var before [][]Run
	runs := func() (out [][]Run) {
		for topic := range old.Topics() {
			for i := range topic.Partitions {
				out = append(out, old.Runs(topic, int32(i)))
			}
		}
		return out
	}
	before = runs()
	for range 30 {
		w.publish(w.m.groups[w.rng.IntN(len(w.m.groups))], nil)
		w.split()
		w.trim()
		e := w.m.edit()
		if err := e.del(keyTopic("t1")); err != nil {
			t.Fatal(err)
		}
		e.done(w.rev + 1)
	}
	if after := runs(); !reflect.DeepEqual(before, after) {
		t.Errorf("an old snapshot changed:\n%v\n%v", before, after)
	}
}

func TestOrdered(t *testing.T) {
	seed := seeds(t, 1)[0]
	t.Logf("SKEIN_SEED=%d go test ./queuemapper -run TestOrdered", seed)
	rng := rand.New(rand.NewPCG(seed, 2))
	o := ordered[int, int]{compare: func(a, b int) int { return a - b }}
	model := map[int]int{}
	for i := range 20000 {
		k := rng.IntN(1500)
		if rng.IntN(5) < 2+i/5000%2 {
			o = o.without(k)
			delete(model, k)
		} else {
			o = o.with(k, i)
			model[k] = i
		}
	}
	if o.n != len(model) {
		t.Fatalf("%d entries, want %d", o.n, len(model))
	}
	last, seen := -1, 0
	for k, v := range o.all() {
		if k <= last || model[k] != v {
			t.Fatalf("entry %d=%d after %d, want %d", k, v, last, model[k])
		}
		if got, ok := o.get(k); !ok || got != v {
			t.Fatalf("get %d: %d %v", k, got, ok)
		}
		last, seen = k, seen+1
	}
	if seen != len(model) {
		t.Errorf("iterated %d of %d", seen, len(model))
	}
}
