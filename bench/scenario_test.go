package bench

import (
	"errors"
	"testing"
)

// TestSteady: a load is repeated until its rate and what else is watched are steady, and no longer.
func TestSteady(t *testing.T) {
	for _, tc := range []struct {
		name   string
		rates  []int64 // bytes of each round
		stills []bool
		rounds int
	}{
		{"at once", []int64{100, 100}, nil, 2},
		{"it gets faster", []int64{100, 200, 300, 310}, nil, 4},
		{"it still takes memory", []int64{100, 100, 100, 100}, []bool{false, false, true, true}, 3},
		{"it takes memory for ever", []int64{100, 7e9, 7e9, 7e9, 7e9}, []bool{false, false, false, false, false}, 4},
		{"memory first", []int64{100, 200, 210}, []bool{true, true, true}, 3},
	} {
		n := 0
		produce := func(l ProduceLoad) (Produced, error) {
			n++
			return Produced{Bytes: tc.rates[n-1], AllBytes: tc.rates[n-1], Elapsed: l.Time}, nil
		}
		var still func() (bool, error)
		if tc.stills != nil {
			still = func() (bool, error) { return tc.stills[n-1], nil }
		}
		if _, err := steady(ProduceLoad{}, produce, still); err != nil || n != tc.rounds {
			t.Errorf("%s: %d rounds, %v, want %d", tc.name, n, err, tc.rounds)
		}
	}
	gone := errors.New("gone")
	produce := func(ProduceLoad) (Produced, error) { return Produced{}, nil }
	if _, err := steady(ProduceLoad{}, produce, func() (bool, error) { return true, gone }); !errors.Is(err, gone) {
		t.Errorf("a process that cannot be looked at: %v", err)
	}
}
