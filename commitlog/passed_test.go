package commitlog

import (
	"bytes"
	"context"
	"errors"
	"sync"
	"testing"
	"testing/synctest"

	"github.com/skeinmq/skein/internal/ident"
	"github.com/skeinmq/skein/internal/vfs"
)

// TestOnePass: readers near one another, whose pieces lie differently, read the log from the disk once, whoever is first, and get
// the batches that were written. On the clock of a bubble nothing that was read is given up because a reader is late.
func TestOnePass(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, want := coldLog(t, 4<<20, 512, 32<<10)
		q, batches := r.queue(1, 0), want.batches[0]
		var readers sync.WaitGroup
		for i := range 4 {
			readers.Go(func() {
				var rec Records
				defer rec.Release()
				at, k := ident.Offset(2*i), i // of two records each
				for k < len(batches) {
					if err := readPiece(q, at, &rec); err != nil || len(rec.Slices) == 0 {
						t.Errorf("reader %d at %d: %d slices, %v", i, at, len(rec.Slices), err)
						return
					}
					for _, b := range rec.Slices {
						if !bytes.Equal(b, batches[k]) {
							t.Errorf("reader %d: batch %d differs", i, k)
							return
						}
						k++
					}
					at = rec.Next
				}
			})
		}
		readers.Wait()
		all := float64(0)
		for _, b := range batches {
			all += float64(len(b))
		}
		// Up to a batch of each piece may lie between two stretches: it is too small to be kept, and in the page cache.
		if read := valueOf(t, r.metrics.readBytes); read > 1.5*all {
			t.Errorf("four readers of %v bytes read %v from the disk", all, read)
		}
		if shared := valueOf(t, r.metrics.readsShared); shared < 2.4*all {
			t.Errorf("of three times %v bytes %v were shared", all, shared)
		}
		r.passed.rest()
		r.passed.rest()
		if n := len(r.passed.list); n != 0 || r.passed.bytes != 0 || r.passed.held.Load() != 0 {
			t.Errorf("%d stretches stay, %d bytes", n, r.passed.bytes)
		}
	})
}

// planOf is a plan of batches side by side, of a size each with its header.
func planOf(f *logFile, from ident.Position, n, each int) []located {
	out := make([]located, n)
	for i := range out {
		out[i] = located{place: place{position: from + ident.Position(i*each), size: int32(each - frameHeaderSize)}, file: f}
	}
	return out
}

// TestPassedEnter: who reads what of a plan.
func TestPassedEnter(t *testing.T) {
	const each = 64 << 10
	f := new(logFile)
	var a passed
	defer a.close()
	one, n, mine := a.enter(planOf(f, 0, 8, each))
	if one == nil || n != 8 || !mine || one.size() != 8*each {
		t.Fatalf("the first reads %d places, mine %v: %+v", n, mine, one)
	}
	for name, c := range map[string]struct {
		from    ident.Position
		places  int
		n       int
		theirs  bool
		nothing bool
	}{
		"the same":          {0, 8, 8, true, false},
		"a part":            {2 * each, 3, 3, true, false},
		"its end and more":  {6 * each, 8, 2, true, false},
		"small, behind":     {8 * each, 1, 1, false, true},
		"small, its middle": {each, 1, 1, true, false},
	} {
		s, n, mine := a.enter(planOf(f, c.from, c.places, each))
		if n != c.n || (s == one) != c.theirs || (s == nil) != c.nothing || mine {
			t.Errorf("%s: %d places, mine %v, %+v", name, n, mine, s)
		}
	}
	two, n, mine := a.enter(planOf(f, 16*each, 4, each))
	if two == nil || n != 4 || !mine {
		t.Fatalf("far behind: %d places, mine %v", n, mine)
	}
	three, n, mine := a.enter(planOf(f, 13*each, 8, each))
	if three == nil || n != 3 || !mine {
		t.Errorf("before one that is there: %d places, mine %v", n, mine)
	}
}

// TestPassedWaits: who comes while a stretch is read gets it, or reads for itself when that failed or was pushed out.
func TestPassedWaits(t *testing.T) {
	const each = 256 << 10
	f, mem := new(logFile), newMemory(each, 0)
	var a passed
	ended, end := context.WithCancelCause(t.Context())
	end(errors.New("gone"))
	for _, c := range []struct {
		name string
		do   func(s *stretch, b []byte, c *chunk)
		want bool
	}{
		{"read", func(s *stretch, b []byte, c *chunk) { a.finish(s, b, c) }, true},
		{"failed", func(s *stretch, _ []byte, _ *chunk) { a.finish(s, nil, nil) }, false},
		{"pushed out", func(s *stretch, b []byte, c *chunk) {
			for i := range ident.Position(2 * passedMemory / each) {
				a.enter(planOf(f, 1<<30+i*each, 1, each))
			}
			if a.bytes > passedMemory {
				t.Errorf("%d bytes are held", a.bytes)
			}
			a.finish(s, b, c)
		}, false},
		{"closed", func(s *stretch, b []byte, c *chunk) { a.close(); a.finish(s, b, c) }, false},
	} {
		c0, err := mem.get(each)
		if err != nil {
			t.Fatal(err)
		}
		c0.refs.Store(1)
		s, _, mine := a.enter(planOf(f, 0, 1, each))
		if !mine {
			t.Fatalf("%s: it is there already", c.name)
		}
		var rec Records
		if _, err := a.pin(ended, s, &rec); err == nil || err.Error() != "gone" {
			t.Errorf("%s: a reader that gives up: %v", c.name, err)
		}
		var got []byte
		var waiting sync.WaitGroup
		waiting.Go(func() { got, err = a.pin(t.Context(), s, &rec) })
		c.do(s, c0.buf[:each], c0)
		waiting.Wait()
		if (got != nil) != c.want || err != nil {
			t.Errorf("%s: %d bytes, %v", c.name, len(got), err)
		}
		rec.Release()
		c0.unpin()
		a.mu.Lock()
		for len(a.list) > 0 {
			a.drop(a.list[0])
		}
		a.mu.Unlock()
		if c0.refs.Load() != 0 {
			t.Errorf("%s: %d references are left", c.name, c0.refs.Load())
		}
	}
	if _, n, mine := a.enter(planOf(f, 0, 1, each)); mine || n != 1 {
		t.Errorf("after the end: %d places, mine %v", n, mine)
	}
}

// TestOnePassDamaged: what is damaged is refused to each reader, whoever read it from the disk.
func TestOnePassDamaged(t *testing.T) {
	r, _ := coldLog(t, 4<<20, 64, 32<<10)
	q := r.queue(1, 0)
	p, err := q.placeAfter(20)
	if err != nil || p == nil {
		t.Fatal(p, err)
	}
	w, err := r.fs.Open(p.file.name, vfs.OpenOptions{Write: true})
	if err == nil {
		_, err = w.WriteAt([]byte{0xff, 0xff, 0xff, 0xff}, int64(p.position-p.file.first)+frameHeaderSize+1000)
	}
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	var one, two Records
	defer one.Release()
	defer two.Release()
	for _, rec := range []*Records{&one, &two} {
		if err := readPiece(q, 10, rec); err != nil || rec.Next != p.base {
			t.Errorf("up to the damage: %d, %v", rec.Next, err)
		}
		if err := readPiece(q, p.base, rec); !errors.Is(err, ErrCorrupt) {
			t.Errorf("at the damage: %v", err)
		}
	}
}
