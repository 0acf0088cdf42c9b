package sim

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/skeinmq/skein/internal/ident"
)

// FaultKind is what goes wrong.
type FaultKind int8

// Kinds of faults.
const (
	FaultCrash       FaultKind = iota // power cut or kill -9 of a broker, and its return
	FaultPause                        // a broker takes no step, then goes on
	FaultCut                          // one way of one connection
	FaultIsolate                      // a broker reaches nobody, or nobody reaches it, etcd included
	FaultEtcd                         // etcd answers nobody
	FaultNoEtcd                       // one broker cannot reach etcd, or does not hear it, or both; it hears all others
	FaultSlowDisk                     // writes of one broker take long
	FaultSuspect                      // a controller takes a live broker for dead
	FaultController                   // the controllers of one broker end in the middle of what they do
	FaultMove                         // an owner is asked to move groups; no fault, but trouble
	FaultWitnesses                    // an owner is asked to change its witness set
	FaultClock                        // the wall clock of a broker jumps
	FaultCrashAll                     // all brokers at once
	FaultLossy                        // writes of one broker to etcd are often late or without an answer
	FaultAtWrite                      // something goes wrong right when the next write of one broker to etcd is applied
	FaultHeldPublish                  // a publication sits on its way while its writer, its source or its target goes wrong
	FaultLostPublish                  // a publication lands, its writer does not hear of it, and others go on
	FaultHeldSwap                     // a write of a log's record sits on its way while its writer or a witness goes wrong
	FaultDisk                         // a broker comes back with less than the sealed ends on its disk
	FaultDrain                        // an operator drains a broker, for a while; no fault
	FaultLeave                        // a broker ends as on SIGTERM; no fault
	FaultSplit                        // a partition gets another group; no fault
	FaultGone                         // a disk is gone for good, as it seems, and an operator gives its log up
	FaultApart                        // the active controller and the broker that leads the map's etcd do not reach each other; all others hear both
	FaultForgotten                    // a log is away, and so is all that knows where its groups end; an operator gives it up with groups open in it
	faultKinds
)

var faultNames = [faultKinds]string{
	"crash", "pause", "cut", "isolate", "etcd away", "no etcd", "slow disk", "suspect", "controllers end", "move", "new witnesses", "clock jumps", "crash all", "etcd lossy", "at a write", "publication held", "publication unheard", "swap held", "disk lost", "drain", "leave", "split", "disk gone", "apart", "ends forgotten",
}

func (k FaultKind) String() string { return faultNames[k] }

// Fault is one thing that goes wrong.
type Fault struct {
	Kind   FaultKind
	At     time.Duration
	Broker int // 1 to n; what it means depends on the kind
	Other  int
	For    time.Duration
	Lot    uint32
}

func (f Fault) String() string {
	return fmt.Sprintf("%v at %v of %d (%d) for %v", f.Kind, f.At.Round(time.Millisecond), f.Broker, f.Other, f.For.Round(time.Millisecond))
}

// theme is what a run's faults are like: how often each kind comes. What is rare in one is common in another.
type theme struct {
	name    string
	share   int
	weights [faultKinds]int
	company []FaultKind
}

// themes are the kinds of runs.
var themes = []theme{
	{"everything", 8, [faultKinds]int{
		FaultCrash: 24, FaultPause: 14, FaultCut: 8, FaultIsolate: 6, FaultEtcd: 3, FaultNoEtcd: 6, FaultSlowDisk: 3,
		FaultSuspect: 14, FaultController: 5, FaultMove: 18, FaultWitnesses: 10, FaultClock: 2, FaultCrashAll: 2, FaultLossy: 10, FaultAtWrite: 14,
		FaultHeldPublish: 4, FaultLostPublish: 4, FaultHeldSwap: 4,
		FaultDisk: 6, FaultDrain: 6, FaultLeave: 4, FaultSplit: 6, FaultGone: 6, FaultApart: 8, FaultForgotten: 6,
	}, []FaultKind{FaultCrash, FaultPause, FaultSuspect, FaultMove, FaultController, FaultNoEtcd, FaultWitnesses, FaultLossy, FaultAtWrite}},
	{"splits and returns", 3, [faultKinds]int{
		FaultSplit: 30, FaultMove: 10, FaultDisk: 14, FaultDrain: 20, FaultLeave: 10, FaultCrash: 14, FaultSuspect: 10, FaultLossy: 6, FaultAtWrite: 10,
		FaultHeldPublish: 6, FaultLostPublish: 6, FaultCrashAll: 4,
	}, []FaultKind{FaultSplit, FaultMove, FaultCrash, FaultSuspect, FaultDisk, FaultLossy, FaultHeldPublish}},
	{"late publications", 2, [faultKinds]int{
		FaultHeldPublish: 20, FaultLostPublish: 20, FaultMove: 20, FaultSuspect: 14, FaultCrash: 14, FaultLossy: 6, FaultPause: 4,
	}, []FaultKind{FaultHeldPublish, FaultLostPublish, FaultMove, FaultSuspect}},
	{"late swaps", 2, [faultKinds]int{
		FaultHeldSwap: 30, FaultWitnesses: 20, FaultSuspect: 10, FaultCrash: 14, FaultPause: 14, FaultLossy: 6, FaultCut: 6,
	}, []FaultKind{FaultWitnesses, FaultCrash, FaultSuspect, FaultHeldSwap}},
	{"disks gone", 2, [faultKinds]int{
		FaultGone: 30, FaultMove: 14, FaultSplit: 8, FaultDisk: 6, FaultCrash: 10, FaultPause: 6, FaultSuspect: 10, FaultLossy: 10, FaultNoEtcd: 4, FaultHeldPublish: 4, FaultApart: 4,
	}, []FaultKind{FaultGone, FaultMove, FaultCrash, FaultSuspect, FaultLossy}},
	{"ends forgotten", 2, [faultKinds]int{
		FaultForgotten: 30, FaultMove: 14, FaultCrash: 10, FaultSuspect: 10, FaultPause: 6, FaultLossy: 10, FaultNoEtcd: 4, FaultSplit: 6, FaultGone: 6, FaultDisk: 4, FaultWitnesses: 6,
	}, []FaultKind{FaultForgotten, FaultMove, FaultCrash, FaultSuspect, FaultLossy}},
}

func (t *theme) draw(r *rand.Rand) FaultKind {
	total := 0
	for _, w := range t.weights {
		total += w
	}
	lot := r.IntN(total)
	kind := FaultKind(0)
	for lot >= t.weights[kind] {
		lot -= t.weights[kind]
		kind++
	}
	return kind
}

// drawTheme chooses a run's theme.
func drawTheme(r *rand.Rand) *theme {
	total := 0
	for i := range themes {
		total += themes[i].share
	}
	lot := r.IntN(total)
	i := 0
	for lot >= themes[i].share {
		lot -= themes[i].share
		i++
	}
	return &themes[i]
}

// Draw makes the run of a seed.
func Draw(seed uint64) Config {
	r := rand.New(rand.NewPCG(seed, 0xd4a3))
	c := Config{
		Seed: seed, Brokers: 3, Groups: 1 + r.IntN(3), Think: 40 * time.Millisecond,
		Trouble: time.Duration(1+r.IntN(3)) * time.Second,
		Trim:    r.IntN(3) == 0,
		Etcd:    etcdFaults{low: 300 * time.Microsecond, high: 3 * time.Millisecond},
		Net:     netFaults{low: 50 * time.Microsecond, high: time.Millisecond},
	}
	c.Balance = r.IntN(2) == 0
	if r.IntN(3) == 0 {
		c.Reserve = ident.Offset(4 + r.IntN(40))
	}
	if r.IntN(4) == 0 {
		c.Brokers = 4 + r.IntN(2)
	}
	c.Partitions = c.Groups + r.IntN(2)
	if r.IntN(2) == 0 {
		c.Etcd.lostAsk, c.Etcd.lostAnswer, c.Etcd.late, c.Etcd.lateBy = r.IntN(60), r.IntN(100), r.IntN(100), 2*time.Second
	}
	if r.IntN(2) == 0 {
		c.LateWatch = r.IntN(100)
		c.Net.lost, c.Net.twice, c.Net.late, c.Net.lateBy = r.IntN(30), r.IntN(60), r.IntN(100), time.Second
	}
	th := drawTheme(r)
	c.Theme = th.name
	for range 1 + r.IntN(8) {
		kind := th.draw(r)
		f := Fault{
			Kind: kind, At: time.Duration(r.Int64N(int64(c.Trouble))), Broker: 1 + r.IntN(c.Brokers), Other: 1 + r.IntN(c.Brokers),
			For: time.Duration(r.Int64N(int64(1500 * time.Millisecond))), Lot: r.Uint32(),
		}
		c.Faults = append(c.Faults, f)
		// Faults come in company: what is rare is one in the middle of what another one began.
		for n := r.IntN(6); n >= 4; n-- {
			next := f
			next.At += time.Duration(r.Int64N(int64(40 * time.Millisecond)))
			next.Broker, next.Other, next.Lot = 1+r.IntN(c.Brokers), 1+r.IntN(c.Brokers), r.Uint32()
			next.Kind = th.company[r.IntN(len(th.company))]
			c.Faults = append(c.Faults, next)
		}
	}
	if c.Reserve == 0 && slices.ContainsFunc(c.Faults, func(f Fault) bool { return f.Kind == FaultForgotten }) {
		c.Reserve = ident.Offset(4 + r.IntN(40)) // what is skipped up to a ceiling is remembered offset by offset
	}
	return c
}

// inject schedules a run's faults.
func (w *world) inject() {
	for _, f := range w.cfg.Faults {
		w.e.at(f.At, func() {
			if !w.calm {
				w.e.logf("FAULT %v", f)
				w.fault(f)
			}
		})
	}
}

// fault lets one thing go wrong.
func (w *world) fault(f Fault) {
	n := w.nodes[f.Broker-1]
	switch f.Kind {
	case FaultCrash:
		w.crash(n, f.For, f.Lot)
	case FaultCrashAll:
		for i, n := range w.nodes {
			w.crash(n, f.For+time.Duration(i)*f.For/8, f.Lot+uint32(i))
		}
	case FaultPause:
		if n.running != nil {
			n.running.proc.asleep = max(n.running.proc.asleep, w.e.now+f.For)
			w.suspect(n, detection(f.Lot), f.For > 100*time.Millisecond && f.Lot%4 != 0)
		}
	case FaultCut:
		w.cut(f.For, [2]int{f.Broker, f.Other})
	case FaultIsolate:
		var links [][2]int
		for o := -1; o <= w.cfg.Brokers; o++ {
			if f.Lot&1 != 0 || f.Lot&2 == 0 {
				links = append(links, [2]int{f.Broker, o})
			}
			if f.Lot&1 != 0 || f.Lot&2 != 0 {
				links = append(links, [2]int{o, f.Broker})
			}
		}
		w.cut(f.For, links...)
		w.suspect(n, detection(f.Lot), f.Lot%4 != 0)
	case FaultEtcd:
		w.etcd.down = true
		w.e.at(f.For, func() { w.etcd.down = false })
	case FaultNoEtcd:
		links := [][2]int{{f.Broker, etcdEnd}, {etcdEnd, f.Broker}}
		switch f.Lot >> 2 & 3 {
		case 0:
			links = links[:1]
		case 1:
			links = links[1:]
		}
		w.cut(f.For, links...)
	case FaultSlowDisk:
		n.slow = f.For / 4
		w.e.at(f.For, func() { n.slow = 0 })
	case FaultSuspect:
		w.suspect(n, 0, true)
	case FaultController:
		if n.running != nil {
			n.running.endControllers()
		}
	default:
		w.trouble(n, f)
	}
}

// trouble is what goes wrong between a broker and etcd, and what is no fault but asks for one.
func (w *world) trouble(n *node, f Fault) {
	switch f.Kind {
	case FaultMove:
		w.askMove(n, f.Lot)
	case FaultWitnesses:
		if n.running != nil {
			n.running.changeWitnesses(f.Lot)
		}
	case FaultLossy:
		n.lossy++
		w.e.at(f.For, func() { n.lossy-- })
	case FaultAtWrite:
		next := f
		next.Kind = []FaultKind{FaultCrash, FaultPause, FaultSuspect, FaultNoEtcd, FaultController, FaultIsolate}[f.Lot>>20%6]
		n.trip = func() {
			if !w.calm {
				w.e.logf("FAULT %v", next)
				w.fault(next)
			}
		}
	case FaultHeldPublish:
		w.holdPublish(n, f)
		w.askMove(n, f.Lot)
	case FaultLostPublish:
		w.losePublish(n, f)
		w.askMove(n, f.Lot)
	case FaultHeldSwap:
		w.holdSwap(n, f)
		if o := w.nodes[f.Other-1]; f.Lot>>9&1 == 0 && n.running != nil {
			n.running.changeWitnesses(f.Lot >> 3)
		} else if o != n {
			w.crash(o, f.For/8, f.Lot)
		}
	case FaultDisk:
		w.loseDisk(n, f)
	case FaultGone:
		w.gone(n, f)
	case FaultForgotten:
		w.forgotten(n, f)
	case FaultApart:
		w.setApart(n, f)
	case FaultDrain:
		w.drain(n, f)
	case FaultLeave:
		w.leave(n, f)
	case FaultSplit:
		w.split(f)
	case FaultClock:
		n.clock += f.For * time.Duration(int32(f.Lot)%1000)
	}
}

// etcdEnd is etcd's endpoint in the network.
const etcdEnd = -1

// detection is how long it takes until somebody notices.
func detection(lot uint32) time.Duration { return time.Duration(lot>>8%500) * time.Millisecond }

// cut breaks links, one way each, for a while.
func (w *world) cut(d time.Duration, links ...[2]int) {
	for _, l := range links {
		w.net.broken[l]++
	}
	w.e.at(d, func() {
		for _, l := range links {
			w.net.broken[l]--
		}
	})
}

// crash ends what runs on a node, and starts it again later.
func (w *world) crash(n *node, back time.Duration, lot uint32) {
	if n.running == nil {
		return
	}
	w.stop(n, lot&1 == 0)
	w.suspect(n, detection(lot), true)
	w.e.at(back, func() { w.boot(n) })
}

// stop ends what runs on a node. What was being written to the disk lands as a whole or not at all.
func (w *world) stop(n *node, landed bool) {
	b := n.running
	n.running = nil
	w.e.kill(b.proc)
	b.endControllers()
	n.disk.cut(landed)
	w.e.logf("%s is down, its disk has %d frames", b.proc.name, n.disk.durable)
	w.endLease(n, leaseTTL)
}

// endLease ends a broker's registration as it is now.
func (w *world) endLease(n *node, after time.Duration) {
	if kv := w.etcd.get([]byte(fmt.Sprintf("/skein/brokers/%d", n.id))); kv != nil {
		w.e.at(after, func() { w.etcd.endLease(kv.Lease) })
	}
}

// leaseTTL is how long a registration outlives its broker.
const leaseTTL = 3 * time.Second

// suspect lets one or two controllers take a broker for dead.
func (w *world) suspect(n *node, after time.Duration, really bool) {
	if !really {
		return
	}
	for range 1 + w.e.rng.IntN(2) {
		w.e.at(after+w.e.between(0, 30*time.Millisecond), func() {
			c := w.nodes[w.e.rng.IntN(len(w.nodes))]
			if c.running != nil && c != n {
				c.running.failOver(ident.Broker(n.id))
			}
		})
	}
}
