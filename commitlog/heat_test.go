package commitlog

import (
	"slices"
	"testing"
	"time"

	"github.com/skeinmq/skein/internal/ident"
	"github.com/skeinmq/skein/internal/vfs"
)

func TestHeat(t *testing.T) {
	h := newHeat(10 * heatStretch)
	t0 := h.began
	at := func(s int) time.Time { return t0.Add(time.Duration(s) * time.Second) }
	steps := []struct {
		name          string
		off           int64
		sec           int
		from          int64
		worth, coming bool
	}{
		{"first touch", 100, 0, 0, false, false},
		{"second touch of the stretch", 5000, 1, 0, true, true},
		{"it was asked for", 9000, 2, 0, false, true},
		{"another stretch", 3*heatStretch + 7, 2, 0, false, false},
		{"and again", 3 * heatStretch, 3, 3 * heatStretch, true, true},
		{"long after: a first touch anew", 200, 30, 0, false, false},
		{"which is followed", 300, 31, 0, true, true},
		{"touches far apart are of a sparse reader", 5 * heatStretch, 40, 0, false, false},
		{"still", 5 * heatStretch, 60, 0, false, false},
		{"past the end", 10 * heatStretch, 60, 0, false, false},
		{"before the start", -1, 60, 0, false, false},
	}
	for _, s := range steps {
		if from, worth, coming := h.touch(s.off, at(s.sec)); worth != s.worth || worth && from != s.from || coming != s.coming {
			t.Errorf("%s: touch(%d) at %d s = %d, %v, %v, want %d, %v, %v", s.name, s.off, s.sec, from, worth, coming, s.from, s.worth, s.coming)
		}
	}
}

// hinted notes where a file was said to be needed.
type hinted struct {
	vfs.File
	at []int64
	n  []int64
}

func (h *hinted) WillNeed(off, n int64) { h.at, h.n = append(h.at, off), append(h.n, n) }

// TestAsked: the kernel is told of each small read of a plan once, askDepth ahead, but not of the first, which comes at once, of
// what is in memory, or of what is read past the cache; and of a whole stretch when it is the second read in it.
func TestAsked(t *testing.T) {
	const each, frame = 40, 16 << 10
	file := func() (*logFile, *hinted) {
		h := &hinted{}
		f := &logFile{fileHeader: fileHeader{size: 512 << 20}, r: h}
		f.refs.Store(1)
		return f, h
	}
	plan := func(f *logFile, from int64, size int32) (out []located) {
		for i := range int64(each) {
			out = append(out, located{file: f, place: place{position: ident.Position(from + i*2*heatStretch), size: size}})
		}
		return out
	}
	read := func(mem *memory, plan []located, h *hinted) (ahead []int) {
		var a asked
		for i := range plan {
			a.tell(mem, plan, i)
			ahead = append(ahead, len(h.at)-i)
		}
		return ahead
	}
	none := newMemory(1<<20, 0)

	f, h := file()
	ahead := read(none, plan(f, 0, frame), h)
	for i, n := range ahead {
		if want := min(askDepth, each-1-i); n != want {
			t.Errorf("before read %d: told of %d that come later, want %d", i, n, want)
		}
	}
	if len(h.at) != each-1 || h.at[0] != 2*heatStretch || h.n[0] != frame+frameHeaderSize || !slices.IsSorted(h.at) {
		t.Errorf("told of %v", h.at)
	}
	*h = hinted{}
	read(none, plan(f, 5*frame, frame), h) // another queue, beside it
	if len(h.at) != each || h.at[1] != 2*heatStretch || h.n[1] != heatStretch {
		t.Errorf("the second reader told of %v, %v bytes", h.at, h.n)
	}
	*h = hinted{}
	if read(none, plan(f, 10*frame, frame), h); len(h.at) > 0 {
		t.Errorf("the third one told of what is coming: %v", h.at)
	}

	f, h = file()
	if read(none, plan(f, 0, directRead), h); len(h.at) > 0 {
		t.Errorf("told of large reads: %v", h.at)
	}

	f, h = file()
	some := newMemory(1<<20, 8<<20)
	c, err := some.open(20*2*heatStretch, 1<<20)
	if err != nil {
		t.Fatal(err)
	}
	defer some.clear()
	defer c.unpin()
	var a asked
	for i, p := range plan(f, 0, frame) {
		if !some.holds(p.position) {
			a.tell(some, plan(f, 0, frame), i)
		}
	}
	if len(h.at) != 19 {
		t.Errorf("told of %d reads, 19 are not in memory: %v", len(h.at), h.at)
	}
}

// BenchmarkHeat: what each small read pays.
func BenchmarkHeat(b *testing.B) {
	h := newHeat(512 << 20)
	for i := 0; b.Loop(); i++ {
		h.touch(int64(i)*16<<10&(512<<20-1), time.Now())
	}
}
