package balance

import (
	"fmt"
	"maps"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/skeinmq/skein/internal/ident"
	"github.com/skeinmq/skein/queuemapper"
)

// hotIn makes partitions of the topic "a" hot.
func hotIn(shares ...float64) (out []HotPartition) {
	for i, s := range shares {
		out = append(out, HotPartition{Topic: "a", Partition: ident.Partition{Topic: ident.Topic{1}, Index: int32(i)}, Share: s})
	}
	return out
}

func TestSplit(t *testing.T) {
	const mb = 1e6
	tests := []struct {
		name  string
		loads map[ident.Group]float64 // MB/s; groups 0, 3, 6, … are on broker 1, the next ones on 2 and 3
		hot   []HotPartition          // of group 0
		want  string                  // partition that is split off; "": none
		moves bool                    // and something moves after it
	}{
		{"two hot partitions", map[ident.Group]float64{0: 40}, hotIn(0.5, 0.5), "a:0", true},
		{"a hot one that fits elsewhere", map[ident.Group]float64{0: 40, 1: 10, 2: 10}, hotIn(0.2, 0.6), "a:1", true},
		{"one hot partition alone", map[ident.Group]float64{0: 40}, hotIn(1), "", false},
		{"one hot partition, the rest is noise", map[ident.Group]float64{0: 40}, hotIn(0.99, 0.01), "", false},
		{"many even ones", map[ident.Group]float64{0: 40, 1: 4, 2: 4}, hotIn(0.25, 0.25, 0.25, 0.25), "a:0", true},
		{"others are as full", map[ident.Group]float64{0: 20, 1: 15, 2: 15}, hotIn(0.5, 0.5), "", false},
		{"no answer", map[ident.Group]float64{0: 40}, nil, "", false},
		{"nothing was appended", map[ident.Group]float64{0: 40}, []HotPartition{}, "", false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			c := newCluster(t, 3, 12, 36)
			p := NewPlanner(Limits{})
			loads := make(map[ident.Group]Load)
			for g, l := range tt.loads {
				loads[g] = Load{BytesIn: l * mb, BatchesIn: l * 100}
			}
			var plan Plan
			asked := 0
			for range 12 {
				in := c.input(loads)
				if asked > 0 {
					in.Hot = map[ident.Group][]HotPartition{0: tt.hot}
				}
				plan = p.Plan(in)
				asked += len(plan.Ask)
				if len(plan.Splits) > 0 || len(plan.Moves) > 0 && len(plan.Ask) > 0 {
					break
				}
				c.apply(p, plan)
				c.now = c.now.Add(10 * time.Second)
			}
			if asked != 1 && tt.name != "others are as full" {
				t.Fatalf("owners were asked %d times", asked)
			}
			if tt.want == "" {
				if len(plan.Splits) > 0 {
					t.Fatalf("splits: %+v", plan.Splits)
				}
				return
			}
			if len(plan.Splits) != 1 {
				t.Fatalf("no split: %+v", plan)
			}
			s := plan.Splits[0]
			if got := fmt.Sprintf("%s:%d", s.Topic, s.Partition); got != tt.want || s.From != 0 || s.To%3 != 0 || s.To == 0 || s.Broker != 1 || !strings.Contains(s.Why, "can go to broker") {
				t.Fatalf("split: %+v, want %s", s, tt.want)
			}
			p.SplitDone(s, true, c.now)
			hot := loads[0]
			loads[s.To] = Load{BytesIn: loads[s.To].BytesIn + s.share*hot.BytesIn, BatchesIn: loads[s.To].BatchesIn + s.share*hot.BatchesIn}
			loads[0] = Load{BytesIn: (1 - s.share) * hot.BytesIn, BatchesIn: (1 - s.share) * hot.BatchesIn}
			in := c.input(loads)
			in.Hot = map[ident.Group][]HotPartition{}
			plan = p.Plan(in)
			if tt.moves != (causes(plan)[CauseLoad] > 0) {
				t.Errorf("after the split: %+v", plan)
			}
			if len(plan.Splits)+len(plan.Ask) > 0 {
				t.Errorf("another split at once: %+v", plan)
			}
		})
	}
}

// TestSplitRests: a partition that was split off is not split off again soon, nor another one right after it.
func TestSplitRests(t *testing.T) {
	c := newCluster(t, 3, 12, 36)
	p := NewPlanner(Limits{})
	loads := map[ident.Group]Load{0: {BytesIn: 40e6}}
	splits := func(d time.Duration, hot ...HotPartition) []Split {
		c.now = c.now.Add(d)
		in := c.input(loads)
		in.Hot = map[ident.Group][]HotPartition{0: hot}
		return p.Plan(in).Splits
	}
	hot := hotIn(0.4, 0.3, 0.3)
	splits(0, hot...)
	splits(2*time.Minute, hot...)
	first := splits(time.Minute, hot...)
	if len(first) != 1 {
		t.Fatalf("no split: %+v", first)
	}
	p.SplitDone(first[0], true, c.now)
	if s := splits(time.Minute, hot...); len(s) > 0 {
		t.Errorf("a minute later: %+v", s)
	}
	for range 18 { // whatever its owner says, and whoever moved it back
		s := splits(3*time.Minute, hot...)
		for _, s := range s {
			if s.id == first[0].id {
				t.Errorf("split off again: %+v", s)
			}
			p.SplitDone(s, false, c.now) // it failed
		}
	}
	if s := splits(time.Hour, hot...); len(s) != 1 {
		t.Errorf("an hour later: %+v", s)
	}
}

// TestHotBesideHot: two groups that are each hotter than the mean do not stay on one broker.
func TestHotBesideHot(t *testing.T) {
	c := newCluster(t, 3, 12, 36)
	p := NewPlanner(Limits{})
	for range 20 {
		in := c.input(map[ident.Group]Load{0: {BytesIn: 20e6}, 3: {BytesIn: 20e6}})
		in.Hot = map[ident.Group][]HotPartition{0: hotIn(1), 3: hotIn(1)}
		c.apply(p, p.Plan(in))
		c.now = c.now.Add(10 * time.Second)
	}
	m := c.store.Map()
	if m.Group(0).Current().Log == m.Group(3).Current().Log {
		t.Error("both are still on one broker")
	}
	for g := range m.Groups() {
		if len(g.Generations) > 2 {
			t.Errorf("group %d moved %d times", g.ID, len(g.Generations)-1)
		}
	}
}

// TestHotAfterGrowth: groups that came for their number a moment ago do not keep a hot group from being exchanged for one of them.
func TestHotAfterGrowth(t *testing.T) {
	c := newCluster(t, 1, 60, 180)
	p := NewPlanner(Limits{})
	c.join(2)
	c.join(3)
	c.apply(p, p.Plan(c.input(nil)))
	loads := make(map[ident.Group]Load)
	for g := range c.store.Map().Groups() {
		if g.Current().Log == logOf(1) && len(loads) < 12 {
			loads[g.ID] = Load{BytesIn: 2e6}
		}
	}
	for range 20 {
		c.apply(p, p.Plan(c.input(loads)))
		c.now = c.now.Add(15 * time.Second)
	}
	on := make(map[ident.Log]int)
	for g := range loads {
		on[c.store.Map().Group(g).Current().Log]++
	}
	if on[logOf(1)] > 5 || on[logOf(2)] > 5 || on[logOf(3)] > 5 {
		t.Errorf("hot groups: %v", on)
	}
	for b, n := range c.counts() {
		if n < 19 || n > 21 {
			t.Errorf("broker %d has %d groups", b, n)
		}
	}
}

// dayOfPartitions plays a day on which a handful of partitions make most of the load, first these and then those, on a map
// whose partitions really move. It returns what must not happen.
func dayOfPartitions(t *testing.T, p *Planner, smoothOver time.Duration) (complaints []string) {
	const groups, brokers, partitions, step = 16, 3, 64, 20 * time.Second
	c := newCluster(t, brokers, groups, partitions)
	rng := rand.New(rand.NewPCG(3, 4))
	topic := c.store.Map().Topic("a")
	groupOf := make([]ident.Group, partitions)
	for i, st := range topic.Partitions {
		groupOf[i] = st[0].Group
	}
	// All that are ever hot begin in two groups of broker 1.
	phase := make(map[int]float64)
	for i, g := range groupOf {
		if g == 0 || g == 3 {
			phase[i] = rng.Float64() * 24
		}
	}
	sm := &Smoother{Over: smoothOver}
	split, moved := make(map[ident.Partition]time.Time), make(map[ident.Group]time.Time)
	splits, moves, uneven, steps := 0, 0, 0, 0
	for begun := c.now; c.now.Sub(begun) < 24*time.Hour; c.now = c.now.Add(step) {
		hours := c.now.Sub(begun).Hours()
		truth := make([]float64, partitions)
		in := make(map[ident.Group]float64)
		for i := range truth {
			truth[i] = 0.2e6
			if at, hot := phase[i]; hot {
				truth[i] += 8e6 * (1 + 0.8*math.Sin((hours-at)*math.Pi/12))
			}
			in[groupOf[i]] += truth[i]
		}
		for g := range ident.Group(groups) {
			noisy := in[g] * (0.5 + rng.Float64())
			sm.Observe(g, Load{BytesIn: noisy, BatchesIn: noisy / 1e4}, c.now)
		}
		input := c.input(sm.Loads(c.now))
		input.Hot = make(map[ident.Group][]HotPartition)
		plan := p.Plan(input)
		for _, a := range plan.Ask {
			for i := range truth {
				if groupOf[i] == a.Group && truth[i] > 1e6 {
					input.Hot[a.Group] = append(input.Hot[a.Group], HotPartition{Topic: "a", Partition: ident.Partition{Topic: topic.ID, Index: int32(i)}, Share: truth[i] / in[a.Group]})
				}
			}
			plan = p.Plan(input)
		}
		for _, m := range plan.Moves {
			if at, ok := moved[m.Group]; ok && c.now.Sub(at) < 10*time.Minute {
				complaints = append(complaints, fmt.Sprintf("hour %.1f: group %d moves again after %v", hours, m.Group, c.now.Sub(at)))
			}
			moved[m.Group] = c.now
			moves++
		}
		c.apply(p, plan)
		for _, s := range plan.Splits {
			if at, ok := split[s.id]; ok && c.now.Sub(at) < time.Hour {
				complaints = append(complaints, fmt.Sprintf("hour %.1f: %s:%d is split off again after %v", hours, s.Topic, s.Partition, c.now.Sub(at)))
			}
			split[s.id] = c.now
			c.split(s)
			groupOf[s.Partition] = s.To
			sm.Shift(s.From, s.To, s.share, c.now)
			p.SplitDone(s, true, c.now)
			splits++
		}
		perBroker := make(map[ident.Log]float64)
		for i, l := range truth {
			perBroker[c.store.Map().Group(groupOf[i]).Current().Log] += l
		}
		if hours > 0.5 && slices.Max(slices.Collect(maps.Values(perBroker))) > 1.45*packed(truth, brokers) {
			uneven++
		}
		steps++
		if len(complaints) > 20 {
			return complaints
		}
	}
	t.Logf("%d splits and %d moves in a day; a broker had more than 145 %% of what must be in %.2f %% of the time", splits, moves, 100*float64(uneven)/float64(steps))
	if splits == 0 || splits > 20 || moves > 150 {
		complaints = append(complaints, fmt.Sprintf("%d splits and %d moves in a day", splits, moves))
	}
	if float64(uneven) > 0.05*float64(steps) {
		complaints = append(complaints, fmt.Sprintf("uneven in %d of %d steps", uneven, steps))
	}
	return complaints
}

// packed is the load of the fullest of some brokers when partitions are dealt out anew, the heaviest first.
func packed(loads []float64, brokers int) float64 {
	on := make([]float64, brokers)
	for _, l := range slices.Backward(slices.Sorted(slices.Values(loads))) {
		on[slices.Index(on, slices.Min(on))] += l
	}
	return slices.Max(on)
}

// split does what an owner does.
func (c *cluster) split(s Split) {
	c.t.Helper()
	m := c.store.Map()
	pub := func(id ident.Group, epoch ident.Epoch) queuemapper.Publication {
		g := m.Group(id)
		l := m.Log(g.Current().Log)
		return queuemapper.Publication{Group: g, Source: l, Target: l, Epoch: epoch, Frame: ident.Frame{Epoch: l.Epoch, Position: 3}}
	}
	from, to := m.Group(s.From).Current().Epoch, m.Group(s.To).Current().Epoch
	sp := queuemapper.Split{Topic: m.Topic(s.Topic), Index: s.Partition, Source: pub(s.From, from+1), Target: pub(s.To, max(from, to)+1)}
	if err := c.store.SplitPartition(c.t.Context(), sp); err != nil {
		c.t.Fatal(err)
	}
}

func TestDayOfPartitions(t *testing.T) {
	for _, c := range dayOfPartitions(t, NewPlanner(Limits{}), time.Minute) {
		t.Error(c)
	}
	planted := NewPlanner(Limits{SplitEvery: time.Nanosecond, Return: time.Nanosecond, Rest: time.Nanosecond, For: time.Nanosecond, PerMinute: 1000})
	if c := dayOfPartitions(t, planted, time.Nanosecond); len(c) == 0 {
		t.Error("a planner that forgets passed")
	} else {
		t.Log("without rest:", c[0])
	}
}
