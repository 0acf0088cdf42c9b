package sim

import (
	"flag"
	"os"
	"runtime"
	"runtime/debug"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

var (
	seeds = flag.Uint64("seeds", 300, "how many seeds TestSeeds runs")
	first = flag.Uint64("seed", 1, "the first of them")
	show  = flag.Bool("story", false, "TestSeeds prints what happens, of the first seed")
	procs = flag.Int("procs", runtime.NumCPU(), "how many runs at the same time")
)

// TestMain collects garbage seldom: a run has little that lives, and makes much that does not.
func TestMain(m *testing.M) {
	debug.SetGCPercent(1000)
	os.Exit(m.Run())
}

// TestSeeds runs clusters, one per seed, and checks DESIGN section 10 after every event. A failing seed is replayed by
//
//	go test ./internal/sim -run TestSeeds -seeds 1 -seed S -story
func TestSeeds(t *testing.T) {
	if *show {
		r := Run(Draw(*first), true)
		t.Logf("%+v\n%s\n%v", r.Config, strings.Join(r.Trace, "\n"), r.Err)
		if r.Err != nil {
			t.Fail()
		}
		return
	}
	begun := time.Now()
	var next, events, acked, published, bad, hash atomic.Uint64
	var mu sync.Mutex
	var slowest Result // to come back
	next.Store(*first)
	var wg sync.WaitGroup
	for range *procs {
		wg.Go(func() {
			for {
				seed := next.Add(1) - 1
				if seed >= *first+*seeds || bad.Load() >= 5 {
					return
				}
				r := Run(Draw(seed), false)
				events.Add(r.Events)
				hash.Add(r.Hash) // the same seeds give the same sum, in any process
				acked.Add(uint64(r.Acked))
				published.Add(uint64(r.Published))
				mu.Lock()
				if r.Back > slowest.Back {
					slowest = r
				}
				mu.Unlock()
				if r.Err != nil {
					bad.Add(1)
					t.Errorf("seed %d: %v\n\treplay: go test ./internal/sim -run TestSeeds -seeds 1 -seed %d -story", seed, r.Err, seed)
				}
			}
		})
	}
	wg.Wait()
	n, took := min(next.Load()-*first, *seeds), time.Since(begun)
	t.Logf("%d seeds in %v: %.0f a minute; %d events, %d records acked, %d generations sealed; slowest to come back: seed %d, %v; hash %x", n, took.Round(time.Millisecond),
		float64(n)/took.Minutes(), events.Load(), acked.Load(), published.Load(), slowest.Config.Seed, slowest.Back.Round(time.Millisecond), hash.Load())
}

// TestTrouble: what the simulation is for comes about in it.
func TestTrouble(t *testing.T) {
	did := map[string]int{}
	for seed := range uint64(300) {
		for what, n := range Run(Draw(seed), false).Did {
			did[what] += n
		}
	}
	for _, what := range []string{
		"split", "move", "move asked for by others", "drain of itself", "balance for drain", "balance for share", "balance for load",
		"record marked as lost", "skip over what is lost", "group failed over", "swap of witnesses", "settling of a swap",
		"look at ceilings", "trim of generations", "log given up", "disk back in time", "disk refused", "return while two are apart",
		"generation sealed at its ceiling", "disk detached from a running owner",
	} {
		if did[what] < 3 {
			t.Errorf("%d times in 300 runs: %s", did[what], what)
		}
	}
	t.Log(did)
}

// TestReplay: a seed always gives the same run.
func TestReplay(t *testing.T) {
	for seed := range uint64(40) {
		a, b := Run(Draw(seed), false), Run(Draw(seed), true)
		if a.Hash != b.Hash || a.Events != b.Events {
			t.Errorf("seed %d: %d events with hash %x, then %d with %x", seed, a.Events, a.Hash, b.Events, b.Hash)
		}
	}
}
