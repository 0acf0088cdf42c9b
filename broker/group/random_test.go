package group

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"
)

// TestRandom plays random clients against one machine and checks after every step what must
// always hold. It prints the seed; -run 'TestRandom/seed=N' replays one.
func TestRandom(t *testing.T) {
	n := 300
	if testing.Short() {
		n = 30
	}
	for seed := range n {
		t.Run(fmt.Sprintf("seed=%d", seed), func(t *testing.T) {
			r := &random{t: t, rnd: rand.New(rand.NewPCG(uint64(seed), 1)), now: time.UnixMilli(0), open: map[Ticket]string{}, stored: map[string][]byte{}}
			r.cfg = testConfig()
			r.cfg.MaxSize, r.cfg.InitialRebalanceDelay = 3+r.rnd.IntN(4), time.Duration(r.rnd.IntN(2))*time.Second
			r.m = New(r.cfg)
			for range 400 {
				r.step()
				r.check()
			}
			r.settle()
		})
	}
}

type random struct {
	t      *testing.T
	rnd    *rand.Rand
	cfg    Config
	m      *Machine
	now    time.Time
	ids    []string
	ticket Ticket
	open   map[Ticket]string // parked: what was asked
	writes []Write           // not durable yet
	stored map[string][]byte
}

func (r *random) id() string {
	if len(r.ids) == 0 || r.rnd.IntN(5) == 0 {
		return ""
	}
	return r.ids[max(0, len(r.ids)-1-r.rnd.IntN(8))]
}

func (r *random) gen(g string) int32 {
	if grp := r.m.groups[g]; grp != nil && r.rnd.IntN(8) > 0 {
		return grp.generation
	}
	return int32(r.rnd.IntN(5))
}

func (r *random) step() {
	g := []string{"a", "b"}[r.rnd.IntN(2)]
	instance := ""
	if r.rnd.IntN(3) == 0 {
		instance = fmt.Sprint("i", r.rnd.IntN(3))
	}
	member := r.id()
	if grp := r.m.groups[g]; grp != nil && len(grp.members) > 0 && r.rnd.IntN(2) == 0 {
		mem := grp.members[r.rnd.IntN(len(grp.members))]
		member, instance = mem.id, mem.instance
	}
	switch r.rnd.IntN(12) {
	case 0, 1, 2:
		r.ticket++
		r.open[r.ticket] = "join"
		id := fmt.Sprint("m", r.ticket)
		r.ids = append(r.ids, id)
		protos := protocols([]string{"range:t1,sticky:t1", "sticky:t1", "sticky:t2,range:t2"}[r.rnd.IntN(3)])
		r.m.Join(r.now, &JoinRequest{
			Ticket: r.ticket, Group: g, Member: member, Instance: instance, NewID: id, ProtocolType: "consumer", Protocols: protos,
			SessionTimeout: time.Duration(6+r.rnd.IntN(20)) * time.Second, RebalanceTimeout: time.Duration(r.rnd.IntN(30)) * time.Second,
			RequireKnownID: r.rnd.IntN(2) == 0, CanSkipAssignment: r.rnd.IntN(2) == 0,
		})
	case 3, 4, 5:
		r.ticket++
		r.open[r.ticket] = "sync"
		rq := &SyncRequest{Ticket: r.ticket, Group: g, Member: member, Instance: instance, Generation: r.gen(g), Assignments: map[string][]byte{}}
		if grp := r.m.groups[g]; grp != nil {
			for _, mem := range grp.members {
				rq.Assignments[mem.id] = fmt.Appendf(nil, "%s@%d", mem.id, rq.Generation)
			}
		}
		r.m.Sync(r.now, rq)
	case 6:
		r.m.Heartbeat(r.now, g, r.gen(g), member, instance)
	case 7:
		if r.rnd.IntN(3) == 0 {
			r.m.Leave(r.now, g, []Leaver{{member, instance}, {"", "i1"}})
		}
	case 8:
		r.m.CheckCommit(r.now, Commit{Group: g, Generation: r.gen(g) - 1, Member: member, Instance: instance})
	case 9:
		if r.rnd.IntN(10) == 0 {
			r.m.Delete(g)
		}
		if r.rnd.IntN(20) == 0 {
			r.restart()
		}
	case 10:
		r.persist(1 + r.rnd.IntN(4))
	case 11:
		r.now = r.now.Add(time.Duration(r.rnd.IntN(8000)) * time.Millisecond)
		r.m.Tick(r.now)
	}
	r.drain()
}

func (r *random) drain() {
	out := r.m.Drain()
	for _, j := range out.Joins {
		r.answered(j.Ticket, "join")
		if j.Err == nil && (j.Leader == j.Member) != (len(j.Members) > 0) && !j.SkipAssignment {
			// Only the versions before 9 of a static leader's return say otherwise.
			if j.Leader == j.Member || len(j.Members) > 0 {
				r.t.Fatalf("join %+v: members and leader do not fit", j)
			}
		}
	}
	for _, s := range out.Syncs {
		r.answered(s.Ticket, "sync")
	}
	r.writes = append(r.writes, out.Writes...)
}

func (r *random) answered(t Ticket, what string) {
	if r.open[t] != what {
		r.t.Fatalf("answer to %s %d, which waits for %q", what, t, r.open[t])
	}
	delete(r.open, t)
}

func (r *random) persist(n int) {
	for ; n > 0 && len(r.writes) > 0; n-- {
		w := r.writes[0]
		r.writes = r.writes[1:]
		if w.Drop {
			delete(r.stored, w.Group)
			continue
		}
		r.stored[w.Group] = w.Value
		if w.Token != 0 {
			r.m.Persisted(r.now, w.Token)
			r.drain()
		}
	}
}

// restart loses what is not durable; everything parked must be answered.
func (r *random) restart() {
	r.m.Unload()
	r.drain()
	if len(r.open) != 0 {
		r.t.Fatalf("unloaded with %v parked", r.open)
	}
	r.writes = nil
	r.m = New(r.cfg)
	for _, name := range []string{"a", "b"} {
		if v, ok := r.stored[name]; ok {
			if err := r.m.Load(r.now, name, v); err != nil {
				r.t.Fatal(err)
			}
		}
	}
}

// check holds for every reachable state.
func (r *random) check() {
	fail := func(format string, args ...any) { r.t.Helper(); r.t.Fatalf(format, args...) }
	parked := 0
	for name, g := range r.m.groups {
		awaiting, supported := 0, map[string]int{}
		for _, mem := range g.members {
			if g.byID[mem.id] != mem {
				fail("%s: %s is not found by its id", name, mem.id)
			}
			if mem.instance != "" && g.static[mem.instance] != mem {
				fail("%s: %s is not found by its instance", name, mem.id)
			}
			if mem.join != 0 {
				awaiting++
				parked++
			}
			if mem.sync != 0 {
				parked++
				if g.state != CompletingRebalance {
					fail("%s: sync of %s parked in %s", name, mem.id, g.state)
				}
			}
			if mem.session.index == 0 && !mem.heartbeatSatisfied() {
				fail("%s: %s would never expire", name, mem.id)
			}
			for _, p := range mem.protocols {
				supported[p.Name]++
			}
		}
		if awaiting != g.awaiting {
			fail("%s: %d wait, counted %d", name, awaiting, g.awaiting)
		}
		for p, n := range g.supported {
			if supported[p] != n {
				fail("%s: %d speak %s, counted %d", name, supported[p], p, n)
			}
		}
		if len(g.byID) != len(g.members) || len(g.members) > 0 && g.byID[g.leader] == nil || len(g.members) == 0 && g.leader != "" {
			fail("%s: leader %q of %d members", name, g.leader, len(g.members))
		}
		switch g.state {
		case Empty:
			if len(g.members) > 0 {
				fail("%s: empty with members", name)
			}
		case PreparingRebalance:
			if g.joinTimer.index == 0 {
				fail("%s: join phase without an end", name)
			}
		case CompletingRebalance, Stable:
			if g.protocol == "" || len(g.members) == 0 {
				fail("%s: %s with protocol %q and %d members", name, g.state, g.protocol, len(g.members))
			}
			if len(g.pendingSync) > 0 && g.syncTimer.index == 0 {
				fail("%s: sync phase without an end", name)
			}
		}
		for id := range g.pendingSync {
			if g.byID[id] == nil {
				fail("%s: waits for the sync of %s, who left", name, id)
			}
		}
	}
	if parked != len(r.open) {
		fail("%d requests parked, %d not answered", parked, len(r.open))
	}
}

// settle lets time pass without any client: every group must end empty, nobody waiting.
func (r *random) settle() {
	for range 10_000 {
		r.persist(len(r.writes))
		at, ok := r.m.Next()
		if !ok {
			break
		}
		if at.After(r.now) {
			r.now = at
		}
		r.m.Tick(r.now)
		r.drain()
		r.check()
	}
	for name, g := range r.m.groups {
		if g.state != Empty || len(r.open) != 0 {
			r.t.Fatalf("%s never settles: %s, %d members, parked %v", name, g.state, len(g.members), r.open)
		}
	}
}

func FuzzDecodeGroup(f *testing.F) {
	m := New(testConfig())
	m.cfg.InitialRebalanceDelay = 0
	now := time.UnixMilli(0)
	m.Join(now, &JoinRequest{Ticket: 1, Group: "g", NewID: "m", SessionTimeout: 10 * time.Second, ProtocolType: "consumer", Protocols: protocols("range:t1")})
	m.Tick(now)
	m.Sync(now, &SyncRequest{Ticket: 2, Group: "g", Generation: 1, Member: "m", Assignments: map[string][]byte{"m": []byte("x")}})
	for _, w := range m.Drain().Writes {
		f.Add(w.Value)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		g, err := decodeGroup("g", b)
		if err != nil {
			return
		}
		again, err := decodeGroup("g", appendGroup(nil, g, nil))
		if err != nil || len(again.members) != len(g.members) {
			t.Fatalf("%v: %d members of %d", err, len(again.members), len(g.members))
		}
	})
}

// TestGolden: a change here is a change of the format.
func TestGolden(t *testing.T) {
	g := newGroup("g", time.UnixMilli(5))
	g.generation, g.protocolType, g.protocol, g.leader, g.state = 3, "consumer", "range", "m", Stable
	g.add(&member{id: "m", instance: "i", clientID: "c", host: "/h", rebalanceTimeout: time.Minute, sessionTimeout: 10 * time.Second,
		protocols: []Protocol{{Name: "range", Metadata: []byte{7}}}, assignment: []byte{8, 9}})
	const want = "0101" + "06" + "0a" + "08636f6e73756d6572" + "0572616e6765" + "016d" + "01" +
		"016d" + "0169" + "0163" + "022f68" + "c0a907" + "a09c01" + "0107" + "020809"
	if got := fmt.Sprintf("%x", appendGroup(nil, g, nil)); got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
	back, err := decodeGroup("g", appendGroup(nil, g, nil))
	if err != nil {
		t.Fatal(err)
	}
	if mem := back.byID["m"]; mem == nil || mem.instance != "i" || string(mem.assignment) != "\x08\x09" || !slices.Equal(mem.metadata("range"), []byte{7}) || back.since != 5 || back.state != Stable {
		t.Errorf("decoded %+v", back)
	}
	for n := range len(want) / 2 {
		if _, err := decodeGroup("g", appendGroup(nil, g, nil)[:n]); err == nil {
			t.Errorf("cut at %d accepted", n)
		}
	}
}
