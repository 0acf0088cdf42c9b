package sim

import (
	"slices"
	"testing"
	"time"
)

// story runs a few coroutines that draw lots, wait for each other and die.
func story(seed uint64) (hash uint64, said []string) {
	e := newEngine(seed)
	victim := &process{name: "victim"}
	say := func(s string) { said = append(said, s) }
	f := newFuture[int](e)
	for _, name := range []string{"a", "b", "c"} {
		e.start(nil, name, 0, func() {
			e.sleep(e.between(0, time.Second))
			say(name)
			f.resolve(len(said), nil)
		})
	}
	e.start(nil, "waits", 0, func() {
		if n, err := f.wait(0); n != 1 || err != nil {
			say("the future is wrong")
		}
		say("first")
	})
	e.start(victim, "dies", 0, func() {
		defer say("unwound")
		e.sleep(2 * time.Second)
		say("the dead speak")
	})
	e.at(time.Second, func() { e.kill(victim) })
	if err := e.run(time.Minute, 1000); err != nil {
		say(err.Error())
	}
	return e.hash, said
}

func TestEngine(t *testing.T) {
	orders := map[string]bool{}
	for seed := range uint64(100) {
		hash, said := story(seed)
		again, saidAgain := story(seed)
		if hash != again || !slices.Equal(said, saidAgain) {
			t.Fatalf("seed %d: %x %v, then %x %v", seed, hash, said, again, saidAgain)
		}
		if len(said) != 5 || slices.Contains(said, "the dead speak") || !slices.Contains(said, "unwound") {
			t.Fatalf("seed %d: %v", seed, said)
		}
		order := ""
		for _, s := range said {
			order += s[:1]
		}
		orders[order] = true
	}
	if len(orders) < 6 {
		t.Errorf("100 seeds make %d orders only: %v", len(orders), orders)
	}
}

// TestSleepers: a process that is paused takes no step, then goes on with what it knew.
func TestSleepers(t *testing.T) {
	e := newEngine(1)
	h := &process{name: "h"}
	var woke time.Duration
	e.start(h, "p", 0, func() {
		e.sleep(time.Second)
		woke = e.now
	})
	e.at(500*time.Millisecond, func() { h.asleep = 5 * time.Second })
	if err := e.run(time.Minute, 1000); err != nil || woke != 5*time.Second {
		t.Errorf("woke at %v, %v; want 5s", woke, err)
	}
}

// TestFutureTimeout: a wait ends in time, and a late value wakes nobody twice.
func TestFutureTimeout(t *testing.T) {
	e := newEngine(1)
	f := newFuture[int](e)
	var got []error
	e.start(nil, "p", 0, func() {
		_, err := f.wait(time.Second)
		got = append(got, err)
		e.sleep(5 * time.Second)
		_, err = f.wait(time.Second)
		got = append(got, err)
	})
	e.at(3*time.Second, func() { f.resolve(1, nil) })
	if err := e.run(time.Minute, 1000); err != nil || len(got) != 2 || got[0] != errTimeout || got[1] != nil || e.now != 6*time.Second {
		t.Errorf("%v %v at %v", got, err, e.now)
	}
}
