package balance

import (
	"context"
	"fmt"
	"log/slog"
	"maps"
	"math"
	"math/rand/v2"
	"os"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"github.com/skeinmq/skein/internal/ident"
	"github.com/skeinmq/skein/queuemapper"
	"github.com/skeinmq/skein/queuemapper/embedded"
)

var etcd *embedded.Server

func TestMain(m *testing.M) {
	os.Exit(func() int {
		dir, err := os.MkdirTemp("", "balance")
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		defer os.RemoveAll(dir)
		etcd, err = embedded.Start(context.Background(), embedded.Config{Dir: dir, NoFsync: true})
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		defer etcd.Close()
		return m.Run()
	}())
}

var prefixes atomic.Int64

// cluster is a real map whose groups move at a word.
type cluster struct {
	t       *testing.T
	store   *queuemapper.Store
	brokers []Broker
	now     time.Time
}

func logOf(b ident.Broker) ident.Log { return ident.Log{15: byte(b)} }

func newCluster(t *testing.T, brokers, groups, partitions int) *cluster {
	s, err := queuemapper.Open(t.Context(), queuemapper.Config{
		Client: etcd.Client(), Prefix: fmt.Sprintf("/test%d", prefixes.Add(1)), Groups: groups,
		Logger: slog.New(slog.DiscardHandler), MaxOps: embedded.MaxOps, MaxBytes: embedded.MaxBytes,
	}, "")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	t.Cleanup(func() { cancel(); <-done })
	c := &cluster{t: t, store: s, now: time.Unix(1e9, 0)}
	for id := ident.Broker(1); int(id) <= brokers; id++ {
		c.join(id)
	}
	var pubs []queuemapper.Publication
	for g := range s.Map().Groups() {
		l := s.Map().Log(logOf(ident.Broker(int(g.ID)%brokers + 1)))
		pubs = append(pubs, queuemapper.Publication{Group: g, Target: l, Epoch: 1, Frame: ident.Frame{Epoch: l.Epoch, Position: 1}})
	}
	c.publish(pubs)
	if partitions > 0 {
		if _, err := s.CreateTopic(t.Context(), queuemapper.NewTopic{Name: "a", Placements: s.Map().PlaceNew(ident.Topic{}, 0, int32(partitions))}); err != nil {
			t.Fatal(err)
		}
	}
	return c
}

func (c *cluster) publish(pubs []queuemapper.Publication) {
	c.t.Helper()
	for _, err := range c.store.Publish(c.t.Context(), pubs) {
		if err != nil {
			c.t.Fatal(err)
		}
	}
}

func (c *cluster) join(id ident.Broker) {
	c.t.Helper()
	if _, err := c.store.ReopenLog(c.t.Context(), logOf(id), id, 1, 0, nil); err != nil {
		c.t.Fatal(err)
	}
	c.brokers = append(c.brokers, Broker{ID: id})
}

func (c *cluster) input(loads map[ident.Group]Load) Input {
	return Input{Map: c.store.Map(), Brokers: c.brokers, Loads: loads, Now: c.now, Enabled: true}
}

// apply does what a plan says.
func (c *cluster) apply(p *Planner, plan Plan) {
	c.t.Helper()
	m := c.store.Map()
	var pubs []queuemapper.Publication
	for _, mv := range plan.Moves {
		g, to := m.Group(mv.Group), m.Log(mv.To)
		if g.Current().Log != mv.From || mv.From == mv.To {
			c.t.Fatalf("plan: %+v, but the group is on %s", mv, g.Current().Log)
		}
		pubs = append(pubs, queuemapper.Publication{
			Group: g, Source: m.Log(mv.From), Target: to, Epoch: g.Current().Epoch + 1, Frame: ident.Frame{Epoch: to.Epoch, Position: 2},
		})
	}
	c.publish(pubs)
	for _, mv := range plan.Moves {
		p.Moved(mv, c.now)
	}
}

func (c *cluster) counts() map[ident.Broker]int {
	out := make(map[ident.Broker]int)
	for g := range c.store.Map().Groups() {
		out[c.store.Map().Log(g.Current().Log).Host]++
	}
	return out
}

func causes(p Plan) map[Cause]int {
	out := make(map[Cause]int)
	for _, m := range p.Moves {
		out[m.Cause]++
	}
	return out
}

func TestShares(t *testing.T) {
	c := newCluster(t, 3, 64, 200)
	p := NewPlanner(Limits{})
	if plan := p.Plan(c.input(nil)); len(plan.Moves) > 0 || plan.Held != "" {
		t.Errorf("an even cluster: %+v", plan)
	}
	c.join(4)
	plan := p.Plan(c.input(nil))
	if len(plan.Moves) != 16 || causes(plan)[CauseShare] != 16 {
		t.Errorf("scale-out: %v", causes(plan))
	}
	c.apply(p, plan)
	if plan := p.Plan(c.input(nil)); len(plan.Moves) > 0 {
		t.Errorf("not stable: %+v", plan.Moves)
	}
	partitions := 0
	for g := range c.store.Map().Groups() {
		if g.Current().Log == logOf(4) {
			partitions += c.store.Map().Partitions(g.ID)
		}
	}
	if partitions < 45 || partitions > 55 || c.counts()[4] != 16 {
		t.Errorf("the new broker got %d partitions in %d groups, want about 50 in 16", partitions, c.counts()[4])
	}
	off := c.input(nil)
	off.Enabled = false
	c.join(5)
	off.Brokers = c.brokers
	off.Map = c.store.Map()
	if plan := p.Plan(off); len(plan.Moves) > 0 || plan.Held == "" {
		t.Errorf("switched off: %+v", plan)
	}
}

// TestGrowTwice: what was moved when the cluster formed is moved again when it grows a minute later.
func TestGrowTwice(t *testing.T) {
	c := newCluster(t, 1, 64, 200)
	p := NewPlanner(Limits{})
	for id := ident.Broker(2); id <= 5; id++ {
		c.join(id)
		c.now = c.now.Add(time.Minute)
		c.apply(p, p.Plan(c.input(nil)))
		for b, n := range c.counts() {
			if want := 64 / int(id); n < want || n > want+1 {
				t.Errorf("of %d brokers, %d has %d groups", id, b, n)
			}
		}
		for b, n := range c.partitions() {
			if want := 200.0 / float64(id); float64(n) < 0.9*want || float64(n) > 1.1*want {
				t.Errorf("of %d brokers, %d has %d partitions of 200", id, b, n)
			}
		}
		if plan := p.Plan(c.input(nil)); len(plan.Moves) > 0 {
			t.Errorf("it is even, and %+v", plan.Moves)
		}
	}
}

// TestFewPartitions: partitions and coordinators do not stand in for each other. A topic lies where two of three brokers are when a
// fourth comes: it gets its share of both, however few partitions there are.
func TestFewPartitions(t *testing.T) {
	for _, partitions := range []int{1, 3, 40} {
		c := newCluster(t, 3, 1024, 0)
		p := NewPlanner(Limits{})
		hosts := make([]ident.Broker, partitions)
		for i := range hosts {
			hosts[i] = ident.Broker(1 + i%2)
		}
		if _, err := c.store.CreateTopic(t.Context(), queuemapper.NewTopic{Name: "a", Placements: c.store.Map().PlaceAt(ident.Topic{}, 0, hosts)}); err != nil {
			t.Fatal(err)
		}
		c.join(4)
		c.apply(p, p.Plan(c.input(nil)))
		got := c.partitions()
		if n := got[4]; n < partitions/4 || n > partitions/2 || got[1] > (partitions+2)*2/5 || got[2] > (partitions+2)*2/5 {
			t.Errorf("partitions by broker: %v", got)
		}
		m, coordinators := c.store.Map(), make(map[ident.Broker]int)
		for g := range m.Groups() {
			coordinators[m.Log(g.Current().Log).Host] += m.Coordinators(g.ID)
		}
		if n := coordinators[4]; n < 10 || n > 16 {
			t.Errorf("%d partitions: coordinators by broker: %v", partitions, coordinators)
		}
	}
}

// TestUnevenPartitions: each broker has its share of groups, but a topic was made from a map of a moment before. At rest groups are
// exchanged until nobody has few partitions; then nothing moves, nor where there is load, nor what has moved for its load.
func TestUnevenPartitions(t *testing.T) {
	for _, hosts := range [][]ident.Broker{{1, 3, 5}, {2}, {1, 1, 1, 1, 2, 3, 4, 5}, {1, 1, 2, 3, 4, 5}, {1, 2, 3, 4}} {
		for _, partitions := range []int{10, 40, 3000} {
			c := newCluster(t, 5, 1024, 0)
			p := NewPlanner(Limits{})
			at := make([]ident.Broker, partitions)
			for i := range at {
				at[i] = hosts[i%len(hosts)]
			}
			if _, err := c.store.CreateTopic(t.Context(), queuemapper.NewTopic{Name: "a", Placements: c.store.Map().PlaceAt(ident.Topic{}, 0, at)}); err != nil {
				t.Fatal(err)
			}
			before, counts := c.partitions(), c.counts()
			busy := map[ident.Group]Load{}
			for g := range c.store.Map().Groups() {
				busy[g.ID] = Load{BytesIn: 1e5}
			}
			if plan := p.Plan(c.input(busy)); len(plan.Moves) > 0 {
				t.Errorf("%v: the load is even, and %d groups move for their partitions", before, len(plan.Moves))
			}
			plan := p.Plan(c.input(nil))
			c.apply(p, plan)
			after := c.partitions()
			t.Logf("%v: %d moves: %v", before, len(plan.Moves), after)
			if !maps.Equal(counts, c.counts()) {
				t.Errorf("groups by broker: %v, now %v", counts, c.counts())
			}
			for id := ident.Broker(1); id <= 5; id++ {
				if n, share := float64(after[id]), float64(partitions)/5; len(hosts) != 6 && math.Abs(n-share) > share/50 || n < share/2 || n > share*1.5 {
					t.Errorf("%v: broker %d has %v of %d", before, id, n, partitions)
				}
			}
			if again := p.Plan(c.input(nil)); len(again.Moves) > 0 {
				t.Errorf("it is even, and %d groups move", len(again.Moves))
			}
		}
	}
}

// TestUnevenForLoad: what has moved for its load does not come back at rest, however few partitions are where it was.
func TestUnevenForLoad(t *testing.T) {
	for cause, want := range map[Cause]int{CauseLoad: 5, CauseShare: 20} {
		c := newCluster(t, 2, 1024, 0)
		p := NewPlanner(Limits{})
		if _, err := c.store.CreateTopic(t.Context(), queuemapper.NewTopic{Name: "a", Placements: c.store.Map().PlaceAt(ident.Topic{}, 0, slices.Repeat([]ident.Broker{1}, 40))}); err != nil {
			t.Fatal(err)
		}
		var there, back []Move
		for g := range c.store.Map().Groups() {
			switch full := c.store.Map().Partitions(g.ID) > 0; {
			case full && len(there) < 35:
				there = append(there, Move{Group: g.ID, From: logOf(1), To: logOf(2), Cause: cause})
			case !full && g.Current().Log == logOf(2) && len(back) < 35:
				back = append(back, Move{Group: g.ID, From: logOf(2), To: logOf(1), Cause: cause})
			}
		}
		c.apply(p, Plan{Moves: slices.Concat(there, back)})
		for range 24 {
			c.now = c.now.Add(time.Hour)
			c.apply(p, p.Plan(c.input(nil)))
		}
		if n := c.partitions()[1]; n != want {
			t.Errorf("35 of 40 partitions moved for %s; after a day broker 1 has %d, want %d", cause, n, want)
		}
	}
}

func (c *cluster) partitions() map[ident.Broker]int {
	out := make(map[ident.Broker]int)
	m := c.store.Map()
	for g := range m.Groups() {
		out[m.Log(g.Current().Log).Host] += m.Partitions(g.ID)
	}
	return out
}

func TestDrain(t *testing.T) {
	c := newCluster(t, 3, 64, 200)
	p := NewPlanner(Limits{})
	c.brokers[1].Draining = true
	if err := c.store.PinGroup(t.Context(), 4, queuemapper.Pin{Broker: 3}); err != nil { // it is on 2
		t.Fatal(err)
	}
	in := c.input(nil)
	in.Enabled = false // an operator's word is not the balancer's
	plan := p.Plan(in)
	c.apply(p, plan)
	if n := c.counts(); n[2] != 0 || n[1] < 31 || n[1] > 33 {
		t.Errorf("after the drain: %v", n)
	}
	if g := c.store.Map().Group(4).Current(); g.Log != logOf(3) {
		t.Errorf("a pinned group went to %s", g.Log)
	}
	c.brokers = c.brokers[:0]
	if plan := p.Plan(c.input(nil)); len(plan.Moves) > 0 {
		t.Errorf("with nobody left: %+v", plan)
	}
}

func TestPinned(t *testing.T) {
	c := newCluster(t, 3, 30, 60)
	p := NewPlanner(Limits{})
	for g := range ident.Group(4) {
		if err := c.store.PinGroup(t.Context(), g, queuemapper.Pin{Broker: 1, Until: c.now.Add(time.Hour)}); err != nil {
			t.Fatal(err)
		}
	}
	if err := c.store.PinGroup(t.Context(), 5, queuemapper.Pin{Broker: 9}); err != nil { // it is nowhere
		t.Fatal(err)
	}
	for range 3 {
		c.apply(p, p.Plan(c.input(nil)))
		c.now = c.now.Add(time.Minute)
	}
	for g := range ident.Group(4) {
		if on := c.store.Map().Group(g).Current().Log; on != logOf(1) {
			t.Errorf("group %d is on %s, it is pinned", g, on)
		}
	}
	if n := c.counts(); n[1] > 12 {
		t.Errorf("the others do not make room: %v", n)
	}
	if plan := p.Plan(c.input(nil)); len(plan.Moves) > 0 {
		t.Errorf("not stable: %+v", plan.Moves)
	}
}

func TestVanish(t *testing.T) {
	c := newCluster(t, 4, 32, 0)
	p := NewPlanner(Limits{})
	all := c.brokers
	step := func(d time.Duration, live int, stopped bool, what string) {
		t.Helper()
		c.now = c.now.Add(d)
		c.brokers = all[:live]
		if plan := p.Plan(c.input(nil)); p.watch.stopped != stopped || stopped && (plan.Held == "" || len(plan.Moves) > 0) {
			t.Errorf("%s: stopped %v, held %q, %d moves", what, p.watch.stopped, plan.Held, len(plan.Moves))
		}
	}
	step(0, 4, false, "all")
	step(time.Second, 3, false, "one of four vanished")
	step(30*time.Second, 2, true, "two of four vanished within a minute")
	step(time.Hour, 2, true, "nobody is back for an hour")
	step(time.Second, 3, false, "one is back")
	step(time.Second, 1, true, "two more")
	p.Resume()
	step(time.Second, 1, false, "the operator's word")
}

// day plays a day of load on four brokers: each group has its own size and its own morning, bursts come and go, and every
// report is noise on top. It returns what must not happen.
func day(t *testing.T, p *Planner, smoothOver time.Duration) (complaints []string) {
	const groups, brokers, step = 120, 4, 10 * time.Second
	c := newCluster(t, brokers, groups, 3*groups)
	rng := rand.New(rand.NewPCG(1, 2))
	size, phase := make([]float64, groups), make([]float64, groups)
	burst := make([]time.Time, groups)
	for i := range size {
		size[i] = 1e6 * math.Pow(float64(rng.IntN(groups)+1), -0.7) * 10
		phase[i] = float64(i%brokers)*math.Pi/3 + rng.Float64() // brokers begin with groups of the same hours
	}
	sm := &Smoother{Over: smoothOver}
	type where struct {
		at   time.Time
		from ident.Log
	}
	last := make(map[ident.Group]where)
	moves, uneven, steps := 0, 0, 0
	begun := c.now
	for ; c.now.Sub(begun) < 24*time.Hour; c.now = c.now.Add(step) {
		hours := c.now.Sub(begun).Hours()
		truth := make(map[ident.Group]float64, groups)
		for i := range size {
			l := size[i] * (1.2 + math.Sin(hours*2*math.Pi/24+phase[i]))
			if rng.IntN(20000) == 0 {
				burst[i] = c.now.Add(time.Duration(rng.IntN(90)) * time.Second)
			}
			if c.now.Before(burst[i]) {
				l *= 5
			}
			truth[ident.Group(i)] = l
			noisy := l * (0.5 + rng.Float64())
			sm.Observe(ident.Group(i), Load{BytesIn: noisy, BatchesIn: noisy / 1e4}, c.now)
		}
		plan := p.Plan(c.input(sm.Loads(c.now)))
		for _, m := range plan.Moves {
			was, ok := last[m.Group]
			if ok && c.now.Sub(was.at) < 10*time.Minute {
				complaints = append(complaints, fmt.Sprintf("hour %.1f: group %d moves again after %v", hours, m.Group, c.now.Sub(was.at)))
			}
			if ok && was.from == m.To && c.now.Sub(was.at) < time.Hour {
				complaints = append(complaints, fmt.Sprintf("hour %.1f: group %d goes back after %v", hours, m.Group, c.now.Sub(was.at)))
			}
			last[m.Group] = where{c.now, m.From}
			moves++
		}
		if len(complaints) > 20 {
			return complaints
		}
		c.apply(p, plan)
		perBroker, sum := make(map[ident.Log]float64), 0.0
		for g := range c.store.Map().Groups() {
			perBroker[g.Current().Log] += truth[g.ID]
			sum += truth[g.ID]
		}
		for _, l := range perBroker {
			if l > 1.45*sum/brokers {
				uneven++
			}
		}
		steps++
	}
	t.Logf("%d moves in a day; a broker had more than 145 %% of the mean in %.2f %% of the time", moves, 100*float64(uneven)/float64(steps))
	if moves > 200 {
		complaints = append(complaints, fmt.Sprintf("%d moves in a day", moves))
	}
	if float64(uneven) > 0.05*float64(steps) {
		complaints = append(complaints, fmt.Sprintf("uneven in %d of %d steps", uneven, steps))
	}
	return complaints
}

// TestDay: no group goes back and forth on a day of load, and the load stays even. Without hysteresis, or
// without moves, the same day shows that this test can fail.
func TestDay(t *testing.T) {
	for _, c := range day(t, NewPlanner(Limits{}), time.Minute) {
		t.Error(c)
	}
	for what, over := range map[string]time.Duration{"without hysteresis": time.Minute, "without hysteresis and smoothing": time.Nanosecond} {
		planted := NewPlanner(Limits{})
		planted.nothing = true
		if c := day(t, planted, over); len(c) == 0 {
			t.Errorf("%s: the day passed", what)
		} else {
			t.Logf("%s: %s", what, c[0])
		}
	}
	idle := NewPlanner(Limits{Over: 100})
	if c := day(t, idle, time.Minute); len(c) == 0 {
		t.Error("a planner that moves nothing passed")
	} else {
		t.Log("moving nothing:", c[0])
	}
}
