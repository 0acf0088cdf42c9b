package commitlog

import (
	"context"
	"errors"
	"io/fs"
	"testing"
	"testing/synctest"
	"time"

	"github.com/skeinmq/skein/internal/vfs"
)

// bigFile makes a file of some bytes that take room.
func bigFile(t *testing.T, fsys vfs.FS, name string, size int64) {
	t.Helper()
	f, err := fsys.Open(name, vfs.OpenOptions{Create: true, Write: true})
	if err == nil {
		err = errors.Join(f.Allocate(0, size), f.Close())
	}
	if err != nil {
		t.Fatal(err)
	}
}

// sizeOf is -1 of a file that is not there.
func sizeOf(t *testing.T, fsys vfs.FS, name string) int64 {
	t.Helper()
	st, err := fsys.Stat(name)
	if errors.Is(err, fs.ErrNotExist) {
		return -1
	}
	if err != nil {
		t.Fatal(err)
	}
	return st.Size
}

// TestGiveBack: never more than a step at once and no faster than the rate, whether a file goes or only its end; all at
// once where the disk is short of room.
func TestGiveBack(t *testing.T) {
	const size, keep = 5*giveStep + 4096, giveStep + 8192
	for name, short := range map[string]bool{"room": false, "no room": true} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				mem := poolTestDisk(t)
				bigFile(t, mem, "/log/goes", size)
				bigFile(t, mem, "/log/stays", size)
				g := giver{fs: mem, short: func() bool { return short }, wake: newWaker()}
				var times []time.Time
				done := func(err error) {
					if err != nil {
						t.Error(err)
					}
					times = append(times, time.Now())
				}
				g.add(surplus{path: "/log/goes", done: done})
				g.add(surplus{path: "/log/stays", keep: keep, done: done})
				g.add(surplus{path: "/log/none", done: done})
				ctx, cancel := context.WithCancel(t.Context())
				begun := time.Now()
				go g.run(ctx)
				last := int64(2 * size)
				for range 1000 {
					synctest.Wait()
					now := max(0, sizeOf(t, mem, "/log/goes")) + sizeOf(t, mem, "/log/stays")
					if !short && last-now > giveStep {
						t.Fatalf("%d bytes went at once", last-now)
					}
					last = now
					time.Sleep(time.Millisecond)
				}
				if a, b := sizeOf(t, mem, "/log/goes"), sizeOf(t, mem, "/log/stays"); a != -1 || b != keep || len(times) != 3 {
					t.Fatalf("left %d and %d, %d done", a, b, len(times))
				}
				took, want := times[1].Sub(begun), time.Duration(size+size-keep-giveStep)*time.Second/giveRate
				if short {
					want = 0
				}
				if took < want || took > want+100*time.Millisecond {
					t.Errorf("took %v, want %v", took, want)
				}
				cancel()
				synctest.Wait()
			})
		})
	}
}

// TestGiveBackWhenNeeded: what is left over is given back at once when a log file needs the room.
func TestGiveBackWhenNeeded(t *testing.T) {
	mem := poolTestDisk(t)
	mem.SetCapacity(20 * poolTestSize)
	cfg := poolTestConfig()
	cfg.Refuse, cfg.Throttle, cfg.Avoid = 2, 3, 4
	p := openPool(t, mem, cfg)
	bigFile(t, mem, "/log/pool-5.old", 19*poolTestSize+poolTestSize/2)
	p.discard("/log/pool-5.old")
	if _, _, err := p.take(t.Context(), 0, poolHeader(0)); err != nil {
		t.Error(err)
	}
}

// TestGiveBackStops: what is under way when the log stops is told, and the next start removes it.
func TestGiveBackStops(t *testing.T) {
	mem := poolTestDisk(t)
	bigFile(t, mem, "/log/pool-5.new", 3*giveStep)
	p := openPool(t, mem, poolTestConfig())
	p.giver.step()
	var told error
	p.giver.add(surplus{path: "/log/pool-6.old", done: func(err error) { told = err }})
	p.giver.stop()
	if got := sizeOf(t, mem, "/log/pool-5.new"); got != 2*giveStep || !errors.Is(told, errNotGiven) {
		t.Errorf("left %d bytes, told %v", got, told)
	}
	p = openPool(t, mem, poolTestConfig())
	p.giver.all()
	if got := list(t, mem); got != "" {
		t.Errorf("left: %s", got)
	}
}

// TestShortenedIsNotRecycled: a file is held while its end is given back, so that it cannot become a ready one meanwhile.
func TestShortenedIsNotRecycled(t *testing.T) {
	mem := poolTestDisk(t)
	p := openPool(t, mem, poolTestConfig())
	l := &Log{fs: mem, pool: p}
	l.sealer.l = l
	f := &logFile{fileHeader: fileHeader{size: poolTestSize}, name: "/log/" + logFileName(0), end: 5000}
	f.refs.Store(1)
	bigFile(t, mem, f.name, poolTestSize)
	l.sealer.shorten(f)
	if f.refs.Load() != 2 || f.cut.Load() {
		t.Errorf("%d references while it is being cut", f.refs.Load())
	}
	p.giver.all()
	if got := sizeOf(t, mem, f.name); got != 2*vfs.PageSize || f.refs.Load() != 1 || !f.cut.Load() || f.onDisk() != got {
		t.Errorf("%d bytes left, %d counted, %d references", got, f.onDisk(), f.refs.Load())
	}
}
