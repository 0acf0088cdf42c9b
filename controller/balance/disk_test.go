package balance

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/skeinmq/skein/internal/ident"
)

// fill says how full a broker's disk is.
func (c *cluster) fill(id ident.Broker, used float64) {
	i := slices.IndexFunc(c.brokers, func(b Broker) bool { return b.ID == id })
	c.brokers[i].DiskUsed = used
}

// TestFullDisk: a broker whose disk is nearly full gets no groups, for their number or their load, keeps those that it has,
// and gets its share when there is room again.
func TestFullDisk(t *testing.T) {
	c := newCluster(t, 3, 60, 200)
	p := NewPlanner(Limits{})
	c.join(4)
	c.fill(4, 0.91)
	plan := p.Plan(c.input(nil))
	if len(plan.Moves) > 0 || len(plan.Notes) != 1 || !strings.Contains(plan.Notes[0], "broker 4 takes no more groups: its disk is 91 % full") {
		t.Fatalf("a new broker with a full disk: %+v", plan)
	}
	c.fill(4, 0.88)
	if plan := p.Plan(c.input(nil)); len(plan.Moves) > 0 {
		t.Errorf("its disk is at the limit: %d moves", len(plan.Moves))
	}
	c.fill(4, 0.86)
	c.apply(p, p.Plan(c.input(nil)))
	if n := c.counts(); n[4] != 15 {
		t.Errorf("there is room: %v", n)
	}
	c.fill(2, 0.92)
	c.now = c.now.Add(time.Hour)
	if plan := p.Plan(c.input(nil)); len(plan.Moves) > 0 {
		t.Errorf("it keeps what it has: %+v", plan.Moves)
	}

	loads := make(map[ident.Group]Load)
	for g := range c.store.Map().Groups() {
		loads[g.ID] = Load{BytesIn: 1e5}
		if g.Current().Log == logOf(1) {
			loads[g.ID] = Load{BytesIn: 2e6}
		}
	}
	for range 30 {
		plan := p.Plan(c.input(loads))
		for _, m := range plan.Moves {
			if m.ToBroker == 2 {
				t.Errorf("it gets a group: %+v", m)
			}
		}
		c.apply(p, plan)
		c.now = c.now.Add(10 * time.Second)
	}
	if n := c.counts(); n[1] > 15 {
		t.Errorf("the hot broker is still hot: %v", n)
	}

	c.brokers[2].Draining = true // broker 3
	c.apply(p, p.Plan(c.input(loads)))
	if n := c.counts(); n[3] != 0 || n[2] != 15 {
		t.Errorf("groups of a broker that drains go to a full disk: %v", n)
	}
	c.fill(1, 0.99)
	c.fill(4, 0.99)
	c.brokers[0].Draining = true
	c.apply(p, p.Plan(c.input(loads)))
	if n := c.counts(); n[1] != 0 {
		t.Errorf("it drains although all disks are full: %v", n)
	}
}

// TestRelief: groups that are written to leave a disk that is about to be full; nothing comes back before there is room.
func TestRelief(t *testing.T) {
	c := newCluster(t, 3, 60, 200)
	p := NewPlanner(Limits{})
	loads := make(map[ident.Group]Load)
	written := 0
	for g := range c.store.Map().Groups() {
		if g.ID%6 < 3 { // the others are idle
			loads[g.ID] = Load{BytesIn: 1e6, BatchesIn: 100}
			if g.Current().Log == logOf(2) {
				written++
			}
		}
	}
	c.fill(2, 0.96)
	plan := p.Plan(c.input(loads))
	if causes(plan)[CauseDisk] != written || written != 10 || !strings.Contains(plan.Moves[0].Why, "broker 2's disk is 96 % full") {
		t.Fatalf("of %d groups: %+v", written, plan)
	}
	c.apply(p, plan)
	for range 60 {
		c.now = c.now.Add(time.Minute)
		plan := p.Plan(c.input(loads))
		for _, m := range plan.Moves {
			if m.ToBroker == 2 {
				t.Errorf("it gets a group: %+v", m)
			}
		}
		c.apply(p, plan)
	}
	for g := range c.store.Map().Groups() {
		if g.Current().Log == logOf(2) && loads[g.ID].BytesIn > 0 {
			t.Errorf("group %d is still written on the full disk", g.ID)
		}
		if len(g.Generations) > 3 {
			t.Errorf("group %d moved %d times", g.ID, len(g.Generations)-1)
		}
	}
	c.fill(2, 0.80)
	c.apply(p, p.Plan(c.input(loads)))
	if n := c.counts(); n[2] != 20 {
		t.Errorf("there is room again: %v", n)
	}

	all := NewPlanner(Limits{})
	for id := ident.Broker(1); id <= 3; id++ {
		c.fill(id, 0.97)
	}
	if plan := all.Plan(c.input(loads)); len(plan.Moves) > 0 || !strings.Contains(strings.Join(plan.Notes, "\n"), "every other disk is nearly full too") {
		t.Errorf("with every disk full: %+v", plan)
	}
	c.join(4)
	c.fill(4, 0.97)
	c.apply(all, all.Plan(c.input(nil)))
	if n := c.counts(); n[4] != 15 {
		t.Errorf("with every disk full a new broker gets no share: %v", n)
	}
}
