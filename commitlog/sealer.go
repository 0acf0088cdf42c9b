package commitlog

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"sync"
	"time"

	"github.com/skeinmq/skein/internal/ident"
)

// sealer does in the background what nobody waits for: indexes of full files, checkpoints,
// and reclaiming files in which nothing is live. Everything that it writes is derived:
// its failures cost time after a restart, not data.
type sealer struct {
	l    *Log
	wake waker

	mu   sync.Mutex
	todo chores

	// Owned by the sealing goroutine.
	dying      []*logFile     // reclaimed, but read at the moment
	snapshotAt ident.Position // the state as of here is in the log itself
	slots      *checkpoints
}

// chores are what others have asked the sealer for.
type chores struct {
	files  []*logFile // full, oldest first
	broken []*repair  // files whose index is damaged
	dirty  []*Queue   // whose floor passed a segment
	sorted []*replacement
}

// queue hands over a file to which nothing is appended any more.
func (s *sealer) queue(f *logFile) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.todo.files = append(s.todo.files, f)
	s.wake.poke()
}

// repair is a new index in the making.
type repair struct {
	file *logFile
	done chan struct{} // closed when it is over
	err  error         // set before
}

// rebuild asks for a new index of a file and waits for it.
func (s *sealer) rebuild(ctx context.Context, f *logFile) error {
	r := s.order(f)
	select {
	case <-r.done:
		return r.err
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-s.l.stopped:
		return ErrClosed
	}
}

func (s *sealer) order(f *logFile) *repair {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, r := range s.todo.broken {
		if r.file == f {
			return r
		}
	}
	r := &repair{file: f, done: make(chan struct{})}
	s.todo.broken = append(s.todo.broken, r)
	s.wake.poke()
	return r
}

// trim asks to drop the segments of a queue that lie below its floor.
func (s *sealer) trim(q *Queue) {
	if !q.trimming.CompareAndSwap(false, true) {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.todo.dirty = append(s.todo.dirty, q)
	if len(s.todo.dirty) == 1 {
		s.wake.poke()
	}
}

func (s *sealer) take() chores {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := s.todo
	s.todo = chores{}
	return out
}

// run works until stop is closed.
func (s *sealer) run(stop <-chan struct{}) {
	tick := time.NewTicker(s.l.cfg.CheckpointEach)
	defer tick.Stop()
	s.shortenRecovered()
	for {
		due := false
		select {
		case <-stop:
			return
		case <-s.wake:
		case <-tick.C:
			due = true
		}
		if s.l.poison() != nil {
			return
		}
		s.work(due)
	}
}

// work does everything that is there to do once.
func (s *sealer) work(checkpoint bool) {
	todo := s.take()
	for i, f := range todo.files {
		if err := s.l.sealFile(f); err != nil {
			s.l.log.Warn("write index", "log", s.l.id, "file", f.name, "error", err)
			s.retry(todo.files[i:])
			break
		}
		s.shorten(f)
		checkpoint = true
	}
	for _, r := range todo.broken {
		if r.err = s.l.rebuildIndex(context.Background(), r.file); r.err != nil {
			s.l.log.Warn("rebuild index", "log", s.l.id, "file", r.file.name, "error", r.err)
		}
		close(r.done)
	}
	for _, r := range todo.sorted {
		s.adopt(r)
	}
	for _, q := range todo.dirty {
		q.trimming.Store(false)
		q.trimSegments(q.effectiveFloor(), &s.l.files)
	}
	if checkpoint && s.l.begun.Load() {
		if err := s.writeCheckpoint(); err != nil {
			s.l.log.Warn("write checkpoint", "log", s.l.id, "error", err)
		}
	}
	s.reclaim()
	s.l.damage.tell()
}

// retry puts files back; they are tried again when the next one is full, or at the next
// checkpoint. Their tails stay in memory until then.
func (s *sealer) retry(files []*logFile) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.todo.files = append(files, s.todo.files...)
}

// reclaim gives up the sealed files in which nothing is live (I12). What such a file says
// about the state of queues must first be in the log again.
func (s *sealer) reclaim() {
	var dead []*logFile
	newest := ident.Position(0)
	for _, f := range s.l.files.all() {
		if f.sealed.Load() && f.live.Load() == 0 {
			dead = append(dead, f)
			if f.sorted == nil { // a sorted one says nothing about states
				newest = f.limit()
			}
		}
	}
	if s.snapshotAt < newest && s.l.begun.Load() {
		at, err := s.l.writeSnapshot()
		if errors.Is(err, ErrClosed) { // the log stops; the next opening reclaims
			return
		}
		if err != nil {
			s.l.log.Warn("write state before reclaiming", "log", s.l.id, "error", err)
			return
		}
		s.snapshotAt = at
	}
	for _, f := range dead {
		if f.sorted != nil || f.limit() <= s.snapshotAt {
			s.l.files.remove(f)
			f.unpin()
			s.dying = append(s.dying, f)
		}
	}
	rest := s.dying[:0]
	for _, f := range s.dying {
		if f.refs.Load() > 0 {
			rest = append(rest, f) // a reader holds it: the next pass
			continue
		}
		if err := s.l.removeFile(f); err != nil {
			s.l.log.Warn("reclaim log file", "log", s.l.id, "file", f.name, "error", err)
		}
	}
	s.dying = rest
}

// removeFile takes a file that nobody reads off the disk, its index first.
func (l *Log) removeFile(f *logFile) error {
	err := f.closeHandles()
	l.damage.forget(f)
	if rerr := l.fs.Remove(f.indexName()); rerr != nil && !errors.Is(rerr, fs.ErrNotExist) {
		err = errors.Join(err, rerr)
	}
	l.metrics.reclaimed.Inc()
	return errors.Join(err, l.pool.recycle(f.name))
}

var errSnapshot = fmt.Errorf("snapshot: %w", errBad)
