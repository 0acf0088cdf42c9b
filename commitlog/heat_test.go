package commitlog

import (
	"testing"
	"time"
)

func TestHeat(t *testing.T) {
	h := newHeat(10 * heatStretch)
	t0 := h.began
	at := func(s int) time.Time { return t0.Add(time.Duration(s) * time.Second) }
	steps := []struct {
		name  string
		off   int64
		sec   int
		from  int64
		worth bool
	}{
		{"first touch", 100, 0, 0, false},
		{"second touch of the stretch", 5000, 1, 0, true},
		{"it was asked for", 9000, 2, 0, false},
		{"another stretch", 3*heatStretch + 7, 2, 0, false},
		{"and again", 3 * heatStretch, 3, 3 * heatStretch, true},
		{"long after: a first touch anew", 200, 30, 0, false},
		{"which is followed", 300, 31, 0, true},
		{"touches far apart are of a sparse reader", 5 * heatStretch, 40, 0, false},
		{"still", 5 * heatStretch, 60, 0, false},
		{"past the end", 10 * heatStretch, 60, 0, false},
		{"before the start", -1, 60, 0, false},
	}
	for _, s := range steps {
		if from, worth := h.touch(s.off, at(s.sec)); worth != s.worth || worth && from != s.from {
			t.Errorf("%s: touch(%d) at %d s = %d, %v, want %d, %v", s.name, s.off, s.sec, from, worth, s.from, s.worth)
		}
	}
}

// BenchmarkHeat: what each small read pays.
func BenchmarkHeat(b *testing.B) {
	h := newHeat(512 << 20)
	for i := 0; b.Loop(); i++ {
		h.touch(int64(i)*16<<10&(512<<20-1), time.Now())
	}
}
