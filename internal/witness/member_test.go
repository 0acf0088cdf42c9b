package witness

import (
	"bytes"
	"encoding/hex"
	"errors"
	"math"
	"os"
	"path/filepath"
	"reflect"
	"runtime"
	"slices"
	"strings"
	"testing"

	"github.com/skeinmq/skein/commitlog"
	"github.com/skeinmq/skein/internal/ident"
)

var (
	testKey = Key{Log: ident.Log{1}, Epoch: 7}
	testGen = ident.Generation{Group: 3, Epoch: 4, Frame: ident.Frame{Epoch: 6, Position: 8192}}
)

func testHello(session uint64) Hello {
	return Hello{Key: testKey, Owner: ID{1, 50}, Session: session, Member: ID{2, 60}}
}

func testUpdates(end ident.Offset) []byte {
	return AppendUpdates(nil, []commitlog.Update{{Generation: testGen, State: ident.PartitionState{Partition: partition(1), End: end}}})
}

func testTable(next uint64, end ident.Offset) Message {
	return Message{Table: &TablePart{Done: true, Next: next, Generations: []ident.GenerationState{
		{Generation: testGen, Partitions: []ident.PartitionState{{Partition: partition(1), End: end}}},
	}}}
}

func testDelta(n uint64, end ident.Offset) Message {
	return Message{Delta: &Delta{Number: n, Updates: testUpdates(end)}}
}

// TestSessions: what a session may say, and what it may not (O5, O6, O10).
func TestSessions(t *testing.T) {
	seal := func(m *Member) { _, _ = m.Seal(testKey, 60) }
	for _, c := range []struct {
		name   string
		before []Message // all taken
		meddle func(m *Member)
		msg    Message
		want   error
		end    ident.Offset // in the table afterwards
	}{
		{name: "table", msg: testTable(5, 10), end: 10},
		{name: "delta", before: []Message{testTable(5, 10)}, msg: testDelta(5, 11), end: 11},
		{name: "delta that is behind", before: []Message{testTable(5, 10)}, msg: testDelta(5, 9), end: 10},
		{name: "delta before the table", msg: testDelta(1, 10), want: ErrGap},
		{name: "gap", before: []Message{testTable(5, 10)}, msg: testDelta(6, 11), want: ErrGap, end: 10},
		{name: "old number", before: []Message{testTable(5, 10), testDelta(5, 11)}, msg: testDelta(5, 12), want: ErrOld, end: 11},
		{name: "second table", before: []Message{testTable(5, 10)}, msg: testTable(5, 20), want: ErrOld, end: 10},
		{name: "garbage", before: []Message{testTable(5, 10)}, msg: Message{Delta: &Delta{Number: 5, Updates: []byte{1, 0, 9}}}, want: ErrMalformed, end: 10},
		{name: "half garbage", before: []Message{testTable(5, 10)}, msg: Message{Delta: &Delta{Number: 5, Updates: append(testUpdates(99), 77)}}, want: ErrMalformed, end: 10},
		{name: "newer version", before: []Message{testTable(5, 10)}, msg: Message{Delta: &Delta{Number: 5, Updates: []byte{2}}}, want: ErrMalformed, end: 10},
		{name: "delta after the seal", before: []Message{testTable(5, 10)}, meddle: seal, msg: testDelta(5, 11), want: ErrSealed, end: 10},
		{name: "newer session", before: []Message{testTable(5, 10)}, meddle: func(m *Member) {
			if _, err := m.Hello(testHello(2)); err != nil {
				t.Error(err)
			}
		}, msg: testDelta(5, 11), want: ErrOld, end: 10},
		{name: "empty message", msg: Message{}, want: ErrMalformed},
	} {
		m := NewMember(MemberConfig{ID: ID{2, 60}})
		s, err := m.Hello(testHello(1))
		if err != nil {
			t.Fatal(err)
		}
		for _, msg := range c.before {
			if _, _, err := s.Handle(msg); err != nil {
				t.Fatalf("%s: %v", c.name, err)
			}
		}
		if c.meddle != nil {
			c.meddle(m)
		}
		if _, tell, err := s.Handle(c.msg); !errors.Is(err, c.want) || tell != (c.want == nil) {
			t.Errorf("%s: told %v, %v, want %v", c.name, tell, err, c.want)
		}
		table, err := m.Seal(testKey, 60)
		if c.end == 0 {
			if !errors.Is(err, ErrUnknown) { // never an empty table
				t.Errorf("%s: seal: %v", c.name, err)
			}
			continue
		}
		g, ok, err := table.Generation(testGen)
		if err != nil || !ok || len(g.Partitions) != 1 || g.Partitions[0].End != c.end {
			t.Errorf("%s: table %+v, %v", c.name, g, err)
		}
	}
}

// TestHello: who may begin a session.
func TestHello(t *testing.T) {
	other := func(change func(h *Hello)) Hello {
		h := testHello(3)
		change(&h)
		return h
	}
	for name, c := range map[string]struct {
		hello Hello
		want  error
	}{
		"the same again":      {testHello(3), ErrOld},
		"an older session":    {testHello(2), ErrOld},
		"a newer session":     {testHello(4), nil},
		"an older owner":      {other(func(h *Hello) { h.Owner.Incarnation, h.Session = 49, 9 }), ErrOld},
		"a newer owner":       {other(func(h *Hello) { h.Owner.Incarnation, h.Session = 51, 1 }), nil},
		"another incarnation": {other(func(h *Hello) { h.Member.Incarnation = 61 }), ErrIncarnation},
		"another broker":      {other(func(h *Hello) { h.Member.Broker = 9 }), ErrIncarnation},
		"another epoch":       {other(func(h *Hello) { h.Key.Epoch++ }), nil},
	} {
		m := NewMember(MemberConfig{ID: ID{2, 60}})
		if _, err := m.Hello(testHello(3)); err != nil {
			t.Fatal(err)
		}
		if _, err := m.Hello(c.hello); !errors.Is(err, c.want) {
			t.Errorf("%s: %v, want %v", name, err, c.want)
		}
	}
}

// TestLateTable: a table that a newer session sends must not go back, and a sealed one stays.
func TestLateTable(t *testing.T) {
	m := NewMember(MemberConfig{ID: ID{2, 60}})
	send := func(session uint64, msgs ...Message) error {
		s, err := m.Hello(testHello(session))
		for _, msg := range msgs {
			if err == nil {
				_, _, err = s.Handle(msg)
			}
		}
		return err
	}
	if err := send(1, testTable(5, 10), testDelta(5, 12)); err != nil {
		t.Fatal(err)
	}
	if err := send(2, testTable(5, 11)); !errors.Is(err, ErrOld) {
		t.Errorf("table of before: %v", err)
	}
	if err := send(3, testTable(9, 20), testDelta(9, 21)); err != nil {
		t.Error(err)
	}
	first, err := m.Seal(testKey, 60)
	if err != nil {
		t.Fatal(err)
	}
	if err := send(4, testTable(10, 30)); !errors.Is(err, ErrSealed) {
		t.Errorf("table after the seal: %v", err)
	}
	if again, err := m.Seal(testKey, 60); err != nil || again != first || again.Recorded() != 9 {
		t.Errorf("second seal: %v", err)
	}
	if _, err := m.Seal(testKey, 61); !errors.Is(err, ErrUnknown) { // O6
		t.Errorf("seal of another incarnation: %v", err)
	}
	if _, err := m.Seal(Key{Log: ident.Log{1}, Epoch: 8}, 60); !errors.Is(err, ErrUnknown) {
		t.Errorf("seal of another epoch: %v", err)
	}
	m.Forget(testKey.Log, testKey.Epoch) // the record is at this epoch: it may yet be asked for
	if _, err := m.Seal(testKey, 60); err != nil {
		t.Error(err)
	}
	m.Forget(testKey.Log, testKey.Epoch+1)
	if _, err := m.Seal(testKey, 60); !errors.Is(err, ErrUnknown) || len(m.Keys()) != 0 {
		t.Errorf("seal of what was forgotten: %v", err)
	}
}

// TestTableSteps: every kind of update, and that the sizes come back to nothing.
func TestTableSteps(t *testing.T) {
	m := NewMember(MemberConfig{ID: ID{2, 60}})
	s, err := m.Hello(testHello(1))
	if err != nil {
		t.Fatal(err)
	}
	n := uint64(0)
	send := func(updates ...commitlog.Update) {
		t.Helper()
		n++
		if _, _, err := s.Handle(Message{Delta: &Delta{Number: n, Updates: AppendUpdates(nil, updates)}}); err != nil {
			t.Fatal(err)
		}
	}
	if _, _, err := s.Handle(Message{Table: &TablePart{Done: true, Next: 1}}); err != nil {
		t.Fatal(err)
	}
	state := func(p int, end ident.Offset, ids ...int64) ident.PartitionState {
		st := ident.PartitionState{Partition: partition(p), End: end}
		for _, id := range ids {
			st.Producers = append(st.Producers, ident.ProducerState{
				ID: id, CoordinatorEpoch: -1, TxnStart: end - 1, LastTimestamp: int64(end), Batches: []ident.ProducerBatch{{LastOffset: end - 1}},
			})
		}
		return st
	}
	next := testGen
	next.Epoch++
	send(commitlog.Update{Kind: commitlog.UpdateOpened, Generation: testGen}, commitlog.Update{Kind: commitlog.UpdateOpened, Generation: next})
	send(commitlog.Update{Generation: testGen, State: state(2, 5, 9, 4)}, commitlog.Update{Generation: testGen, State: state(1, 7)})
	send(commitlog.Update{Generation: testGen, State: state(2, 8, 4), Removed: []int64{9, 4}})
	send(commitlog.Update{Generation: testGen, State: state(2, 9, 7)}, commitlog.Update{Kind: commitlog.UpdateDropped, Generation: testGen, State: state(1, 0)})
	send(commitlog.Update{Generation: ident.Generation{Group: 77}, State: state(1, 5)}) // ended before: nobody asks
	table, err := m.Seal(testKey, 60)
	if err != nil {
		t.Fatal(err)
	}
	var got []ident.GenerationState
	for g, err := range table.Generations() {
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, g)
	}
	st := state(2, 9, 4, 7)
	st.Producers[0] = state(2, 8, 4).Producers[0]
	want := []ident.GenerationState{{Generation: testGen, Partitions: []ident.PartitionState{st}}, {Generation: next, Partitions: []ident.PartitionState{}}}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("table\n%+v, want\n%+v", got, want)
	}

	m = NewMember(MemberConfig{ID: ID{2, 60}})
	if s, err = m.Hello(testHello(1)); err != nil {
		t.Fatal(err)
	}
	if _, _, err := s.Handle(Message{Table: &TablePart{Done: true, Next: 1, Generations: got}}); err != nil {
		t.Fatal(err)
	}
	if st := m.Stats(); st.Partitions != 1 || st.Bytes < entryBytes+2*producerBytes {
		t.Errorf("stats %+v", st)
	}
	n = 0
	send(commitlog.Update{Kind: commitlog.UpdateForgotten, Generation: testGen}, commitlog.Update{Kind: commitlog.UpdateForgotten, Generation: next})
	if st := m.Stats(); st.Partitions != 0 || st.Bytes != 0 {
		t.Errorf("stats %+v after everything ended", st)
	}
}

// TestBounds: a member refuses what would pass its bounds.
func TestBounds(t *testing.T) {
	m := NewMember(MemberConfig{ID: ID{2, 60}, MaxPartitions: 10})
	s, err := m.Hello(testHello(1))
	if err != nil {
		t.Fatal(err)
	}
	g := ident.GenerationState{Generation: testGen}
	for p := range 11 {
		g.Partitions = append(g.Partitions, ident.PartitionState{Partition: partition(p), End: 1})
	}
	if _, _, err := s.Handle(Message{Table: &TablePart{Next: 1, Generations: []ident.GenerationState{g}}}); !errors.Is(err, ErrFull) {
		t.Errorf("%v", err)
	}
}

// manyStates is partitions with as many producers with five batches each.
func manyStates(n, producers int) []ident.GenerationState {
	gens := make([]ident.GenerationState, 1024)
	for g := range gens {
		gens[g].Generation = ident.Generation{Group: ident.Group(g), Epoch: 5, Frame: ident.Frame{Epoch: 3, Position: ident.Position(g) << 20}}
	}
	for i := range n {
		s := ident.PartitionState{Partition: ident.Partition{Topic: ident.Topic{byte(i >> 10), byte(i >> 18)}, Index: int32(i & 1023)}, End: 1e9 + 50}
		for k := range producers {
			s.Producers = append(s.Producers, manyProducer(int64(i*producers+k)))
		}
		gens[i%len(gens)].Partitions = append(gens[i%len(gens)].Partitions, s)
	}
	return gens
}

func manyProducer(id int64) ident.ProducerState {
	p := ident.ProducerState{ID: 1e6 + id, Epoch: 3, CoordinatorEpoch: -1, TxnStart: -1, LastTimestamp: 1_800_000_000_000}
	for b := range int32(5) {
		p.Batches = append(p.Batches, ident.ProducerBatch{
			FirstSequence: 1e6 + 10*b, LastSequence: 1e6 + 10*b + 9, LastOffset: 1e9 + ident.Offset(10*b) + 9, OffsetDelta: 9, Timestamp: 1_799_999_999_000 + int64(b)*250,
		})
	}
	return p
}

// TestTableMemory measures 100,000 partitions (the bar is 200 MB) and compares it with what the table thinks: as a whole
// table brings them, and as they grow, producer by producer, with the deltas of a log.
func TestTableMemory(t *testing.T) {
	const partitions = 100_000
	heap := func() int64 { // what earlier tests leave goes bit by bit: until it falls no more
		var s runtime.MemStats
		least := int64(math.MaxInt64)
		for still := 0; still < 2; still++ {
			runtime.GC()
			runtime.ReadMemStats(&s)
			if now := int64(s.HeapAlloc); now < least-1<<17 {
				least, still = now, -1
			}
		}
		return least
	}
	for _, c := range []struct {
		name             string
		producers, later int // in the whole table; by deltas
		most             int64
	}{
		{"one-producer", 1, 0, 40e6},
		{"three-producers", 3, 0, 80e6},
		{"five-producers", 5, 0, 120e6},
		{"five-by-deltas", 0, 5, 140e6},
	} {
		t.Run(c.name, func(t *testing.T) {
			m := NewMember(MemberConfig{ID: ID{2, 60}})
			s, err := m.Hello(testHello(1))
			if err != nil {
				t.Fatal(err)
			}
			handle := func(msg Message) {
				if _, _, err := s.Handle(msg); err != nil {
					t.Fatal(err)
				}
			}
			before := heap()
			func() {
				gens := manyStates(partitions, c.producers)
				parts := tableParts(gens)
				for i, part := range parts {
					handle(Message{Table: &TablePart{Generations: part, Done: i == len(parts)-1, Next: 1}})
				}
				n, id := uint64(0), int64(0)
				for range c.later {
					for _, g := range gens {
						var updates []commitlog.Update
						for _, p := range g.Partitions {
							p.Producers = []ident.ProducerState{manyProducer(id)}
							updates = append(updates, commitlog.Update{Generation: g.Generation, State: p})
							id++
						}
						for _, data := range EncodeUpdates(updates) {
							n++
							handle(Message{Delta: &Delta{Number: n, Updates: data}})
						}
					}
				}
			}()
			took, says := heap()-before, int64(m.Stats().Bytes)
			t.Logf("100,000 partitions with %d producers with five batches each: %.1f MB, the table says %.1f MB", c.producers+c.later, float64(took)/1e6, float64(says)/1e6)
			if took > c.most || says < took*2/3 || says > took*3/2 {
				t.Errorf("%d bytes, the table says %d: want less than %d, and to know it", took, says, c.most)
			}
			runtime.KeepAlive(m)
		})
	}
}

func goldenUpdates() []commitlog.Update {
	topic := ident.Topic{0xaa, 15: 0xbb}
	return []commitlog.Update{
		{Kind: commitlog.UpdateOpened, Generation: testGen},
		{Generation: testGen, Removed: []int64{-1, 300}, State: ident.PartitionState{
			Partition: ident.Partition{Topic: topic, Index: 5}, End: 1000, LogStart: 900,
			Producers: []ident.ProducerState{{
				ID: 9, Epoch: 2, CoordinatorEpoch: -1, TxnStart: 990, LastTimestamp: 1_700_000_000_000,
				Batches: []ident.ProducerBatch{
					{FirstSequence: math.MaxInt32 - 1, LastSequence: 2, LastOffset: 994, OffsetDelta: 4, Timestamp: 1_699_999_999_990},
					{FirstSequence: 3, LastSequence: 7, LastOffset: 999, OffsetDelta: 4, Timestamp: 1_700_000_000_000},
				},
			}},
		}},
		{Kind: commitlog.UpdateDropped, Generation: testGen, State: ident.PartitionState{Partition: ident.Partition{Topic: topic, Index: 6}}},
		{Kind: commitlog.UpdateForgotten, Generation: ident.Generation{Group: 1023, Epoch: 1 << 20, Frame: ident.Frame{Epoch: 1, Position: 1 << 40}}},
	}
}

// decodeAll turns encoded updates back.
func decodeAll(b []byte) ([]commitlog.Update, error) {
	var out []commitlog.Update
	r := decoder{b: b}
	for r.open(); r.next(); {
		u := commitlog.Update{Kind: r.u.kind, Generation: r.u.gen, Removed: slices.Clone(r.u.removed)}
		if u.Kind == commitlog.UpdateState || u.Kind == commitlog.UpdateDropped {
			u.State.Partition = r.u.partition
		}
		if u.Kind == commitlog.UpdateState {
			u.State.End, u.State.LogStart = r.u.end, r.u.logStart
			for _, raw := range r.u.producers {
				p, err := decodeProducer(raw.id, raw.state)
				if err != nil {
					return nil, err
				}
				u.State.Producers = append(u.State.Producers, p)
			}
		}
		if len(u.Removed) == 0 {
			u.Removed = nil
		}
		out = append(out, u)
	}
	return out, r.err
}

// TestGoldenUpdates: a change here is a change of what brokers of different versions say to each other.
func TestGoldenUpdates(t *testing.T) {
	b := AppendUpdates(nil, goldenUpdates())
	path := filepath.Join("testdata", "golden", "updates.hex")
	if os.Getenv("GOLDEN") == "rewrite" {
		if err := os.WriteFile(path, []byte(hex.EncodeToString(b)+"\n"), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if hex.EncodeToString(b) != strings.TrimSpace(string(want)) {
		t.Errorf("updates:\n got %x\nwant %s", b, want)
	}
	if got, err := decodeAll(b); err != nil || !reflect.DeepEqual(got, goldenUpdates()) {
		t.Errorf("decoded\n%+v, %v, want\n%+v", got, err, goldenUpdates())
	}
	for n := range b { // a cut is an error, unless it is between two updates
		if err := checkUpdates(b[:n]); err == nil {
			if got, _ := decodeAll(b[:n]); n == 0 || len(got) >= len(goldenUpdates()) {
				t.Errorf("%d of %d bytes are taken", n, len(b))
			}
		}
	}
	// Many names, and more than one delta.
	var many []commitlog.Update
	for i := range 20_000 {
		many = append(many, commitlog.Update{Generation: ident.Generation{Group: ident.Group(i % 100)}, State: ident.PartitionState{
			Partition: ident.Partition{Topic: ident.Topic{byte(i), byte(i >> 8)}, Index: int32(i)}, End: ident.Offset(i),
		}})
	}
	var got []commitlog.Update
	pieces := EncodeUpdates(many)
	for _, p := range pieces {
		if len(p) > maxDelta+1000 {
			t.Errorf("a delta of %d bytes", len(p))
		}
		us, err := decodeAll(p)
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, us...)
	}
	if len(pieces) < 2 && len(AppendUpdates(nil, many)) > maxDelta || !reflect.DeepEqual(got, many) {
		t.Errorf("%d updates in %d deltas came back as %d", len(many), len(pieces), len(got))
	}
	one := AppendUpdates(nil, []commitlog.Update{{Generation: testGen, State: manyStates(1, 1)[0].Partitions[0]}})
	t.Logf("one partition with a producer with five batches: %d bytes", len(one))
	if len(one) > 96 {
		t.Errorf("%d bytes for one touched partition", len(one))
	}
}

func FuzzUpdates(f *testing.F) {
	f.Add(AppendUpdates(nil, goldenUpdates()))
	f.Add([]byte{1, 0, 0})
	f.Fuzz(func(t *testing.T, b []byte) {
		valid := checkUpdates(b) == nil
		table := newTable(testKey)
		table.whole = true
		if err := table.apply(Delta{Number: 1, Updates: b}); (err == nil) != valid {
			t.Fatalf("checked %v, applied %v", valid, err)
		}
		if !valid {
			return
		}
		us, err := decodeAll(b)
		if err != nil {
			t.Fatal(err)
		}
		again := AppendUpdates(nil, us)
		if err := checkUpdates(again); err != nil {
			t.Fatal(err)
		}
		back, err := decodeAll(again)
		if err != nil || !reflect.DeepEqual(us, back) {
			t.Fatalf("%+v came back as %+v, %v", us, back, err)
		}
		if !bytes.Equal(again, AppendUpdates(nil, back)) {
			t.Fatal("not canonical")
		}
	})
}
