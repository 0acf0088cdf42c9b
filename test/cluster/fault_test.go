package cluster

import (
	"context"
	"errors"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/skeinmq/skein/test/history"
)

// fault is one thing that happens to a cluster. When do returns, every broker runs again.
type fault struct {
	name string
	do   func(r *run)
}

var faults = []fault{
	{"kill", func(r *run) {
		id := r.any()
		at := r.note("kill broker %d", id)
		r.must(r.c.Kill(id))
		r.settle("kill", at)
		r.pause(500)
		r.note("start broker %d", id)
		r.must(r.c.Start(id))
	}},
	{"wipe", func(r *run) { // its witness tables are gone, but it is hardly missed
		id := r.any()
		at := r.note("kill broker %d and start it at once", id)
		r.must(r.c.Kill(id))
		r.must(r.c.Start(id))
		r.settle("wipe", at)
	}},
	{"stop", func(r *run) {
		id := r.any()
		at := r.note("stop broker %d", id)
		took, err := r.c.Stop(id)
		r.must(err)
		r.stops = append(r.stops, took)
		r.settle("stop", at)
		r.pause(300)
		r.note("start broker %d", id)
		r.must(r.c.Start(id))
	}},
	{"pause", func(r *run) { // past its session: it is replaced, wakes up, and must notice
		id := r.any()
		r.load.H.Tolerate(history.Stale, history.Early)
		at := r.note("pause broker %d", id)
		r.must(r.c.Pause(id))
		r.settle("pause", at)
		r.pause(1500)
		at = r.note("broker %d goes on", id)
		r.must(r.c.Continue(id))
		r.settle("continue", at)
	}},
	{"blink", func(r *run) { // shorter than its session
		id := r.any()
		r.load.H.Tolerate(history.Stale, history.Early)
		at := r.note("pause broker %d for a moment", id)
		r.must(r.c.Pause(id))
		r.pause(900)
		r.must(r.c.Continue(id))
		r.settle("blink", at)
	}},
	{"two", func(r *run) { // of three: nobody can decide anything until one is back
		ids := r.c.IDs()
		i := r.rng.IntN(len(ids))
		a, b := ids[i], ids[(i+1)%len(ids)]
		r.note("kill brokers %d and %d", a, b)
		r.must(errors.Join(r.c.Kill(a), r.c.Kill(b)))
		r.pause(3000)
		at := r.note("start brokers %d and %d", a, b)
		r.must(r.c.StartAll())
		r.settle("two", at)
	}},
	{"all", func(r *run) {
		r.note("kill all")
		r.must(forEach(r.c, r.c.Kill))
		r.pause(500)
		at := r.note("start all")
		r.must(r.c.StartAll())
		r.settle("all", at)
	}},
	{"roll", func(r *run) {
		for _, id := range r.c.IDs() {
			at := r.note("restart broker %d", id)
			took, err := r.c.Stop(id)
			r.must(err)
			r.stops = append(r.stops, took)
			r.settle("roll: stop", at)
			r.must(r.c.Start(id))
		}
	}},
}

// forEach does the same to every broker at once.
func forEach(c Cluster, do func(int) error) error {
	ids := c.IDs()
	errs := make([]error, len(ids))
	var wg sync.WaitGroup
	for i, id := range ids {
		wg.Go(func() { errs[i] = do(id) })
	}
	wg.Wait()
	return errors.Join(errs...)
}

// breakIt does every fault once, in a random order, and in the long form many more.
func (r *run) breakIt(list []fault) {
	r.t.Helper()
	left := time.Now()
	if long() {
		left = left.Add(longTime)
	}
	for first := true; first || time.Now().Before(left); first = false {
		for _, i := range r.rng.Perm(len(list)) {
			list[i].do(r)
			at := r.note("all is up after %s", list[i].name)
			r.settle("after "+list[i].name, at)
			r.pause(400)
			if r.t.Failed() {
				return
			}
		}
	}
}

// longTime is how long the long form breaks one cluster.
const longTime = 15 * time.Minute

// named picks faults.
func named(names ...string) (out []fault) {
	for _, f := range faults {
		if slices.Contains(names, f.name) {
			out = append(out, f)
		}
	}
	return out
}

// TestReturn breaks three brokers in ways after which all of them are there again before anybody is expected to write.
func TestReturn(t *testing.T) {
	r := begin(t, clusterOf(t, 3))
	r.breakIt(named("wipe", "two", "all", "blink"))
	r.finish()
}

// TestThree breaks three brokers in every way that they must survive.
func TestThree(t *testing.T) {
	r := begin(t, clusterOf(t, 3))
	r.breakIt(faults)
	r.finish()
}

// TestFive loses two of five at once, killed or paused.
func TestFive(t *testing.T) {
	r := begin(t, clusterOf(t, 5))
	r.breakIt(append(named("kill", "all", "roll"), []fault{
		{"kill two", func(r *run) {
			a, b := r.pair()
			at := r.note("kill brokers %d and %d", a, b)
			r.must(errors.Join(r.c.Kill(a), r.c.Kill(b)))
			r.settle("kill two", at)
			r.must(r.c.StartAll())
		}},
		{"kill and pause", func(r *run) {
			a, b := r.pair()
			r.load.H.Tolerate(history.Stale, history.Early)
			at := r.note("kill broker %d, pause broker %d", a, b)
			r.must(errors.Join(r.c.Kill(a), r.c.Pause(b)))
			r.settle("kill, pause", at)
			r.must(errors.Join(r.c.Continue(b), r.c.Start(a)))
		}},
		{"stop and kill", func(r *run) { // while one gives its partitions away, another one dies
			a, b := r.pair()
			at := r.note("stop broker %d, kill broker %d meanwhile", a, b)
			killed := make(chan error, 1)
			go func() {
				time.Sleep(50 * time.Millisecond)
				killed <- r.c.Kill(b)
			}()
			_, err := r.c.Stop(a)
			r.must(errors.Join(err, <-killed))
			r.settle("stop, kill", at)
			r.must(r.c.StartAll())
		}},
	}...))
	r.finish()
}

func (r *run) pair() (a, b int) {
	ids := r.c.IDs()
	p := r.rng.Perm(len(ids))
	return ids[p[0]], ids[p[1]]
}

// TestGrowAndShrink adds a broker under load, which must get its share without being asked, and drains another one.
func TestGrowAndShrink(t *testing.T) {
	c, ok := clusterOf(t, 3).(*Skein)
	if !ok {
		t.Skip("Skein only")
	}
	r := begin(t, c)
	at := r.note("add a broker")
	id, err := c.Add()
	r.must(err)
	r.awaitGroups(id, func(own, all, brokers int) bool { return own*brokers*10 >= all*8 })
	r.note("broker %d has its share %v later", id, time.Since(at).Round(time.Millisecond))
	r.settle("add", at)
	at = r.note("drain broker 1")
	ctx, cancel := context.WithTimeout(t.Context(), settlePatience)
	defer cancel()
	r.must(c.Drain(ctx, 1, 2))
	r.awaitGroups(1, func(own, _, _ int) bool { return own == 0 })
	r.note("broker 1 is empty %v later", time.Since(at).Round(time.Millisecond))
	r.settle("drain", at)
	r.note("stop broker 1")
	_, err = c.Stop(1)
	r.must(err)
	r.settle("stop", time.Now())
	r.must(c.Start(1))
	r.finish()
}
