package commitlog

import (
	"context"
	"errors"
	"io/fs"
	"sync"
	"time"

	"github.com/skeinmq/skein/internal/vfs"
)

// Some file systems hold up every sync while they free blocks (docs/adr/0003): ext4 mounted with discard for a quarter of a second
// and more when a file of 512 MiB goes at once, for 10 to 16 ms when 8 MiB do. So what is not needed is given back in steps.
const (
	giveStep = 8 << 20   // bytes at once
	giveRate = 160 << 20 // bytes a second
)

// giver cuts files off at their ends, step by step, or removes them in that way. Nobody waits for it, and what it has not done
// when the process ends the next start does.
type giver struct {
	fs    vfs.FS
	short func() bool // the disk is short of room: no pauses
	wake  waker

	mu    sync.Mutex
	queue []surplus // oldest first
	f     vfs.File  // of the first, once it is being cut
	size  int64     // what f has left
}

// surplus is disk that is not needed.
type surplus struct {
	path string
	keep int64       // bytes of the file that stay; 0: it is removed
	done func(error) // called once, in some goroutine; it must not block. errNotGiven: the log has stopped
}

var errNotGiven = errors.New("stopped before disk was given back")

func (g *giver) add(s surplus) {
	g.mu.Lock()
	g.queue = append(g.queue, s)
	g.mu.Unlock()
	g.wake.poke()
}

// run gives back until ctx ends.
func (g *giver) run(ctx context.Context) {
	defer g.stop()
	for {
		n, more := g.step()
		pause := time.Duration(n * int64(time.Second) / giveRate)
		switch {
		case !more:
			select {
			case <-ctx.Done():
				return
			case <-g.wake:
			}
		case ctx.Err() != nil:
			return
		case !g.short():
			_ = sleep(ctx, pause) // the next round sees that ctx has ended
		}
	}
}

// all gives back everything at once, and says whether there was anything.
func (g *giver) all() bool {
	for any := false; ; any = true {
		if _, more := g.step(); !more {
			return any
		}
	}
}

// step gives back some of the first file, and says how much; false: nothing is left.
func (g *giver) step() (int64, bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if len(g.queue) == 0 {
		return 0, false
	}
	s := g.queue[0]
	n, more, err := g.cut(s)
	if more && err == nil {
		return n, true
	}
	if g.f != nil {
		err = errors.Join(err, g.f.Close())
		g.f = nil
	}
	if s.keep == 0 {
		if rerr := g.fs.Remove(s.path); !errors.Is(rerr, fs.ErrNotExist) {
			err = errors.Join(err, rerr)
		}
	}
	g.queue = g.queue[1:]
	s.done(err)
	return n, true
}

// cut takes a step's bytes off a file, the last ones of a file that is removed excepted. It says how many go in this step, and whether
// that was not all.
func (g *giver) cut(s surplus) (n int64, more bool, err error) {
	if g.f == nil {
		f, err := g.fs.Open(s.path, vfs.OpenOptions{Write: true})
		if errors.Is(err, fs.ErrNotExist) && s.keep == 0 {
			return 0, false, nil
		}
		if err != nil {
			return 0, false, err
		}
		g.f = f
		if g.size, err = f.Size(); err != nil {
			return 0, false, err
		}
	}
	n = min(giveStep, max(0, g.size-s.keep))
	if g.size -= n; n == 0 || g.size == 0 {
		return n, false, nil
	}
	return n, g.size > s.keep, g.f.Truncate(g.size)
}

// stop leaves the rest to the next start.
func (g *giver) stop() {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.f != nil {
		_ = g.f.Close() // nothing was written through it
		g.f = nil
	}
	for _, s := range g.queue {
		s.done(errNotGiven)
	}
	g.queue = nil
}
