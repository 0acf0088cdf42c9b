package runs

import (
	"bytes"
	"errors"
	"testing"

	"github.com/skeinmq/skein/commitlog"
	"github.com/skeinmq/skein/internal/ident"
	"github.com/skeinmq/skein/protocol/record"
)

// stored makes a batch of n records as it lies in a log.
func stored(base int64, n int, epoch int32, size int) []byte {
	var b record.Builder
	for range n {
		b.Append(1, nil, make([]byte, size))
	}
	out := b.AppendBatch(nil)
	record.Stamp(out, base, epoch)
	return out
}

func testRef() *Ref {
	return &Ref{Start: 100, End: 200, Generation: ident.Generation{Group: 1, Epoch: 7}}
}

func TestAssembler(t *testing.T) {
	join := func(bs ...[]byte) []byte { return bytes.Join(bs, nil) }
	tests := map[string]struct {
		from ident.Offset
		in   []byte
		next ident.Offset // 0: refused
	}{
		"one":                     {100, stored(100, 10, 7, 5), 110},
		"from within":             {105, stored(100, 10, 7, 5), 110},
		"several":                 {100, join(stored(100, 10, 7, 5), stored(110, 1, 7, 5), stored(111, 89, 7, 5)), 200},
		"a gap":                   {100, join(stored(100, 10, 7, 5), stored(111, 1, 7, 5)), 0},
		"twice":                   {100, join(stored(100, 10, 7, 5), stored(100, 10, 7, 5)), 0},
		"too late":                {99 + 2, stored(102, 1, 7, 5), 0},
		"too early":               {115, stored(100, 10, 7, 5), 0},
		"of another epoch":        {100, stored(100, 10, 8, 5), 0},
		"before the run":          {100, stored(99, 10, 7, 5), 0},
		"over the end of the run": {195, stored(195, 6, 7, 5), 0},
		"garbage":                 {100, bytes.Repeat([]byte{0xff}, 100), 0},
		"length of nothing":       {100, make([]byte, 61), 0},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			for piece := 1; piece <= len(tt.in); piece += max(1, len(tt.in)/7) { // however the stream is cut
				a := assembler{ref: testRef(), from: tt.from}
				var err error
				for rest := tt.in; len(rest) > 0 && err == nil; {
					n := min(piece, len(rest))
					err = a.add(bytes.Clone(rest[:n]))
					rest = rest[n:]
				}
				if tt.next == 0 {
					if !errors.Is(err, errBatches) {
						t.Errorf("in pieces of %d: %v, want a refusal", piece, err)
					}
					continue
				}
				if err != nil || a.got.next != tt.next || len(a.part) > 0 {
					t.Fatalf("in pieces of %d: %v, up to %d, want %d", piece, err, a.got.next, tt.next)
				}
				var all []byte
				for _, b := range a.got.list {
					all = append(all, b.bytes...)
				}
				if !bytes.Equal(all, tt.in) || a.got.bytes != len(tt.in) {
					t.Errorf("in pieces of %d: other bytes came out", piece)
				}
			}
		})
	}
}

// TestTake cuts a chunk as a local read would.
func TestTake(t *testing.T) {
	in := [][]byte{stored(100, 10, 7, 5), stored(110, 10, 7, 5), stored(120, 10, 7, 5)}
	size := len(in[0])
	tests := map[string]struct {
		opt  commitlog.ReadOptions
		next ident.Offset
	}{
		"all":                 {commitlog.ReadOptions{MaxBytes: 3 * size}, 130},
		"two":                 {commitlog.ReadOptions{MaxBytes: 3*size - 1}, 120},
		"none":                {commitlog.ReadOptions{MaxBytes: size - 1}, 100},
		"at least one":        {commitlog.ReadOptions{MaxBytes: 1, AtLeastOne: true}, 110},
		"below an end":        {commitlog.ReadOptions{MaxBytes: 3 * size, To: 111}, 120},
		"below an early end":  {commitlog.ReadOptions{MaxBytes: 3 * size, To: 110}, 110},
		"at least one, no to": {commitlog.ReadOptions{MaxBytes: 0, AtLeastOne: true, To: 100}, 100},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			a := assembler{ref: testRef(), from: 100}
			if err := a.add(bytes.Join(in, nil)); err != nil {
				t.Fatal(err)
			}
			dst := commitlog.Records{Next: 100}
			a.got.take(&tt.opt, &dst)
			left := 0
			for _, b := range a.got.list {
				left += len(b.bytes)
			}
			if dst.Next != tt.next || dst.Bytes+left != 3*size || a.got.bytes != left {
				t.Errorf("up to %d with %d bytes, %d are left (%d); want %d", dst.Next, dst.Bytes, left, a.got.bytes, tt.next)
			}
		})
	}
}

// FuzzAssembler: whatever another broker sends, nothing outside the run comes out, and what comes out is contiguous.
func FuzzAssembler(f *testing.F) {
	f.Add(bytes.Join([][]byte{stored(100, 10, 7, 5), stored(110, 3, 7, 5)}, nil), 20)
	f.Add(stored(150, 1, 7, 5), 1000)
	f.Fuzz(func(t *testing.T, in []byte, piece int) {
		a := assembler{ref: testRef(), from: 100}
		piece = max(piece, 1)
		for rest := bytes.Clone(in); len(rest) > 0; {
			n := min(piece, len(rest))
			if a.add(rest[:n:n]) != nil {
				break
			}
			rest = rest[n:]
		}
		next := ident.Offset(100)
		for i, b := range a.got.list {
			if b.next <= b.base || b.next > 200 || i == 0 && (b.base > next || b.next <= next) || i > 0 && b.base != next {
				t.Fatalf("batch %d has offsets [%d,%d) after %d", i, b.base, b.next, next)
			}
			next = b.next
		}
	})
}
