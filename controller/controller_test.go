package controller

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/skeinmq/skein/internal/ident"
)

// running starts a controller over dir and returns it with a function that stops it.
func running(t testing.TB, cfg Config) (*Controller, func() error) {
	t.Helper()
	c, err := Open(cfg)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- c.Run(ctx) }()
	select {
	case <-c.Ready():
	case err := <-ended:
		t.Fatalf("run: %v", err)
	case <-time.After(patience):
		t.Fatalf("not ready in %v", patience)
	}
	return c, sync.OnceValue(func() error { cancel(); return <-ended })
}

func claim(t testing.TB, c *Controller, partition int32, owner ident.Epoch) Epoch {
	t.Helper()
	epochs, err := c.Claim(t.Context(), []Claim{{Partition: partition, Owner: owner}})
	if err != nil {
		t.Fatal(err)
	}
	return epochs[0]
}

func offsetsOp(group string, index int32, offset ident.Offset) Op {
	return Op{Kind: PutOffsets, Group: group, Offsets: []PartitionOffset{{
		Partition: ident.Partition{Topic: ident.Topic{1, 2, 3}, Index: index},
		Offset:    Offset{Offset: offset, LeaderEpoch: 4, Metadata: "m", CommitTime: 1000, ExpireTime: -1},
	}}}
}

func TestRestart(t *testing.T) {
	for _, tc := range []struct {
		name     string
		snapshot bool
		crash    bool
	}{
		{"log", false, false}, {"snapshot", true, false}, {"crash", false, true}, {"snapshot and crash", true, true},
	} {
		t.Run(tc.name, func(t *testing.T) {
			dir := t.TempDir()
			c, stop := running(t, Config{Dir: dir})
			e := claim(t, c, 7, 3)
			write := func(seq uint64, ops ...Op) {
				t.Helper()
				if err := c.Write(t.Context(), &Batch{Partition: 7, Epoch: e, Seq: seq, Ops: ops}); err != nil {
					t.Fatal(err)
				}
			}
			write(1, offsetsOp("a", 0, 10), offsetsOp("a", 1, 20), Op{Kind: PutGroup, Group: "a", Value: []byte("meta")})
			if tc.snapshot {
				if err := c.Snapshot(t.Context()); err != nil {
					t.Fatal(err)
				}
			}
			write(2, offsetsOp("a", 0, 11), offsetsOp("b", 0, 5), Op{Kind: DropGroup, Group: "c"})
			first, n, err := c.ProducerIDs(t.Context())
			if err != nil || first != 0 || n != 1000 {
				t.Fatalf("producer ids %d+%d, %v", first, n, err)
			}
			next := dir
			if tc.crash { // what a kill leaves behind: the files as they are, nothing closed
				next = filepath.Join(t.TempDir(), "copy")
				if err := os.CopyFS(next, os.DirFS(dir)); err != nil {
					t.Fatal(err)
				}
			}
			if err := stop(); err != nil {
				t.Fatal(err)
			}
			c, stop = running(t, Config{Dir: next})
			defer stop()
			groups := c.Groups(7)
			if len(groups) != 2 || groups[0].Name != "a" || string(groups[0].Value) != "meta" || groups[1].Value != nil {
				t.Fatalf("groups %+v", groups)
			}
			got := c.Offsets(7, "a")
			if len(got) != 2 || got[0].Offset.Offset != 11 || got[1].Offset.Offset != 20 || got[0].Metadata != "m" || got[0].LeaderEpoch != 4 {
				t.Fatalf("offsets %+v", got)
			}
			if first, _, err := c.ProducerIDs(t.Context()); err != nil || first != 1000 {
				t.Fatalf("producer ids after restart %d, %v", first, err)
			}
			// The old claim goes on being valid until somebody claims; then it is refused.
			write2 := func(e Epoch, seq uint64) error {
				return c.Write(t.Context(), &Batch{Partition: 7, Epoch: e, Seq: seq, Ops: []Op{offsetsOp("a", 0, 99)}})
			}
			if err := write2(e, 2); !errors.Is(err, ErrStale) {
				t.Fatalf("duplicate: %v", err)
			}
			if e2 := claim(t, c, 7, 3); e2 != e+1 {
				t.Fatalf("claim %d after %d", e2, e)
			}
			if err := write2(e, 3); !errors.Is(err, ErrFenced) {
				t.Fatalf("old epoch: %v", err)
			}
			if got := c.Offsets(7, "a")[0].Offset.Offset; got != 11 {
				t.Fatalf("refused write changed the offset to %d", got)
			}
			if _, err := c.Claim(t.Context(), []Claim{{Partition: 1, Owner: 0}, {Partition: 7, Owner: 2}}); !errors.Is(err, ErrFenced) {
				t.Fatalf("claim with an old owner: %v", err)
			}
			if e1 := claim(t, c, 1, 0); e1 != 1 {
				t.Fatalf("refused claim took partition 1: epoch %d", e1)
			}
		})
	}
}

// TestLateBatch: a batch that comes after a newer one must not bring old offsets back.
func TestLateBatch(t *testing.T) {
	s := newState()
	e := s.applyClaims([]Claim{{Partition: 3}}).epochs[0]
	put := func(seq uint64, off ident.Offset) error {
		return s.applyBatch(&Batch{Partition: 3, Epoch: e, Seq: seq, Ops: []Op{offsetsOp("g", 0, off)}})
	}
	for i, want := range []struct {
		seq uint64
		off ident.Offset
		err error
	}{{1, 10, nil}, {3, 30, nil}, {2, 20, ErrStale}, {3, 30, ErrStale}, {4, 40, nil}} {
		if err := put(want.seq, want.off); !errors.Is(err, want.err) {
			t.Fatalf("%d: %v, want %v", i, err, want.err)
		}
	}
	p := ident.Partition{Topic: ident.Topic{1, 2, 3}}
	if got := s.parts[3].groups["g"].offsets[p].Offset; got != 40 {
		t.Fatalf("offset %d", got)
	}
}

func TestClosed(t *testing.T) {
	c, stop := running(t, Config{Dir: t.TempDir()})
	if err := stop(); err != nil {
		t.Fatal(err)
	}
	if _, _, err := c.ProducerIDs(t.Context()); !errors.Is(err, ErrClosed) && !errors.Is(err, ErrUnknown) {
		t.Fatalf("after close: %v", err)
	}
}

func TestPoison(t *testing.T) {
	c, err := Open(Config{Dir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- c.Run(t.Context()) }()
	<-c.Ready()
	boom := errors.New("boom")
	c.store.fail(boom)
	err = <-ended
	if pe, ok := errors.AsType[*PoisonedError](err); !ok || !errors.Is(pe, boom) {
		t.Fatalf("run ended with %v", err)
	}
	if _, _, err := c.ProducerIDs(t.Context()); err == nil {
		t.Fatal("a poisoned controller gave out producer ids")
	}
}

func TestConfig(t *testing.T) {
	err := Config{Timeout: 1, QueueEntries: -1}.Validate()
	if err == nil {
		t.Fatal("valid")
	}
	for _, want := range []string{"directory is empty", "below 5ms", "not be negative"} {
		if !contains(err.Error(), want) {
			t.Errorf("%v does not say %q", err, want)
		}
	}
}

// BenchmarkStart measures how long an empty and a used directory take until ready.
func BenchmarkStart(b *testing.B) {
	for _, used := range []bool{false, true} {
		b.Run(fmt.Sprintf("used=%v", used), func(b *testing.B) {
			dir := b.TempDir()
			for i := range b.N {
				d := dir
				if !used {
					d = filepath.Join(dir, fmt.Sprint(i))
				}
				_, stop := running(b, Config{Dir: d})
				b.StopTimer()
				stop()
				b.StartTimer()
			}
		})
	}
}

// BenchmarkCommit measures committed offsets per second: each of the given number of
// coordinator partitions has one batch of so many commits in flight.
func BenchmarkCommit(b *testing.B) {
	for _, shape := range []struct{ parts, commits int }{{1, 1}, {50, 1}, {50, 16}, {50, 256}} {
		b.Run(fmt.Sprintf("partitions=%d/commits=%d", shape.parts, shape.commits), func(b *testing.B) {
			c, stop := running(b, Config{Dir: b.TempDir()})
			defer stop()
			var wg sync.WaitGroup
			b.ResetTimer()
			for p := range shape.parts {
				e := claim(b, c, int32(p), 0)
				wg.Go(func() {
					for i := p; i < b.N; i += shape.parts {
						batch := Batch{Partition: int32(p), Epoch: e, Seq: uint64(i + 1)}
						for k := range shape.commits {
							batch.Ops = append(batch.Ops, offsetsOp(fmt.Sprintf("group-%d", k), 0, ident.Offset(i)))
						}
						if err := c.Write(b.Context(), &batch); err != nil {
							b.Error(err)
							return
						}
					}
				})
			}
			wg.Wait()
			b.ReportMetric(float64(b.N*shape.commits)/b.Elapsed().Seconds(), "commits/s")
		})
	}
}
