package commitlog

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"
)

// sorter rewrites sealed files of which little is live, so that the rest of their disk comes back, and puts together many small
// ones (each start of a process leaves one). What it writes is in order of queue (DESIGN 6: re-clustering), so that reading it
// takes few and large reads. It works at a limited rate, yields to the log as the filler of files does, and rewrites
// nothing of which less than it writes comes back, except that small files are put together sortSmall at a time, and but for
// SortAll (ADR 23).
type sorter struct {
	l      *Log
	serial uint32 // of the newest sorted file
	load   loadMeter
	next   time.Time // when more may be copied
}

const (
	// sortGain is the part of a file's size that rewriting must give back at least.
	sortGain = 16
	// sortSmall files in a row are put together when each is at most this part of FileSize.
	sortSmall = 8
	// sortMost is the part of FileSize that is rewritten at once, unless it is one file: so much is done again after a crash, and
	// the disk comes back in such pieces.
	sortMost = 4
	// sortRetry is how long files that could not be sorted are left alone.
	sortRetry = time.Minute
)

// run works until ctx ends.
func (s *sorter) run(ctx context.Context) {
	wait := s.l.cfg.SortEach
	for {
		select {
		case <-ctx.Done():
			return
		case <-time.After(wait):
		}
		wait = s.l.cfg.SortEach
		if s.l.poison() != nil {
			return
		}
		if !s.l.begun.Load() {
			continue
		}
		switch done, err := s.once(ctx); {
		case err != nil && ctx.Err() == nil:
			s.l.log.Warn("rewrite log files", "log", s.l.id, "error", err)
			wait = max(wait, sortRetry)
		case done:
			wait = 0
		}
	}
}

// once rewrites the files that are worth it most, and says whether it did.
func (s *sorter) once(ctx context.Context) (bool, error) {
	sources, err := s.fit(s.pick())
	if err != nil || len(sources) == 0 {
		return false, err
	}
	if s.serial == maxSerial {
		return false, errors.New("no numbers for sorted files are left")
	}
	for i, f := range sources {
		if !f.tryPin() {
			unpinAll(sources[:i])
			return true, nil // retention was quicker
		}
	}
	defer unpinAll(sources)
	s.serial++
	f, parts, err := s.l.buildSorted(ctx, sources, s.serial, s.pace)
	if err != nil {
		return s.leave(sources, err)
	}
	if f != nil {
		s.l.metrics.filesSorted.Add(float64(len(sources)))
		s.l.metrics.sortedBytes.Add(float64(f.size))
	}
	return true, s.l.sealer.replace(ctx, f, parts)
}

// leave sees to it that what cannot be read is not tried again and again: damaged data stays where it is, an index is made anew. It says
// whether there may be other files to rewrite.
func (s *sorter) leave(sources []*logFile, err error) (bool, error) {
	var bad *CorruptError
	if errors.As(err, &bad) {
		for _, f := range sources {
			if f.name == bad.File {
				f.blind = true
				return true, nil // it was told
			}
		}
	}
	if errors.Is(err, ErrCorrupt) {
		for _, f := range sources {
			s.l.sealer.order(f)
		}
	}
	return false, err
}

func unpinAll(files []*logFile) {
	for _, f := range files {
		f.unpin()
	}
}

// pick returns files, neighbours, that are to be rewritten as one, or none.
func (s *sorter) pick() []*logFile {
	size := s.l.cfg.FileSize
	small, n := s.neighbours(size, (*logFile).onDisk, func(f *logFile) (bool, int64) { return f.onDisk() <= size/sortSmall, 1 })
	if n >= sortSmall {
		return small[:sortSmall]
	}
	kept := func(f *logFile) int64 { return f.kept.Load() }
	thin, gain := s.neighbours(size/sortMost, kept, func(f *logFile) (bool, int64) { return f.onDisk() >= 2*kept(f), f.onDisk() - kept(f) })
	if gain >= size/sortGain {
		return thin
	}
	if s.l.cfg.SortAll {
		mixed, _ := s.neighbours(0, kept, func(f *logFile) (bool, int64) { return f.sorted == nil && f.live.Load() > 1, 1 })
		return mixed
	}
	return nil
}

// fit leaves as many files as there is room to rewrite, with something to spare for what gives room back otherwise.
func (s *sorter) fit(files []*logFile) ([]*logFile, error) {
	if len(files) == 0 {
		return nil, nil
	}
	space, err := s.l.fs.Space(s.l.logDir)
	if err != nil {
		return nil, fmt.Errorf("measure free space: %w", err)
	}
	left := space.Available - s.l.pool.cfg.Refuse/4
	for i, f := range files {
		if left -= f.kept.Load() + 2*fileHeaderSize; left < 0 {
			return files[:i], nil
		}
	}
	return files, nil
}

// neighbours returns the row of sealed, sound files, with nothing live between them and no more than most in all, or a single one, that is
// worth most, and what it is worth. is says of a file with something live in it whether it is wanted, and what it is worth.
func (s *sorter) neighbours(most int64, size func(*logFile) int64, is func(*logFile) (bool, int64)) (best []*logFile, worth int64) {
	var row []*logFile
	var sum, gain int64
	for _, f := range s.l.files.all() {
		if f.sealed.Load() && f.live.Load() == 0 {
			continue // it is about to go
		}
		wanted, one := is(f)
		if !wanted || !f.cut.Load() || f.doubt || f.blind || s.l.damage.in(f) {
			row, sum, gain = nil, 0, 0
			continue
		}
		for len(row) > 0 && sum+size(f) > most {
			_, first := is(row[0])
			sum, gain = sum-size(row[0]), gain-first
			row = row[1:]
		}
		row, sum, gain = append(row, f), sum+size(f), gain+one
		if gain > worth {
			best, worth = slices.Clone(row), gain
		}
	}
	return best, worth
}

// pace waits until n more bytes may be copied: at SortRate, and not while the log itself keeps the disk busy, unless it is short of room.
func (s *sorter) pace(ctx context.Context, n int) error {
	for s.load.rate(time.Now()) > s.l.pool.cfg.YieldRate && s.l.level() == LevelOK {
		if err := sleep(ctx, poolYieldPeriod); err != nil {
			return err
		}
	}
	now := time.Now()
	if s.next.Before(now) {
		s.next = now
	}
	s.next = s.next.Add(time.Duration(int64(n) * int64(time.Second) / s.l.cfg.SortRate))
	return sleep(ctx, time.Until(s.next))
}

func sleep(ctx context.Context, d time.Duration) error {
	if d <= 0 {
		return context.Cause(ctx)
	}
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-time.After(d):
		return nil
	}
}

// replacement is a sorted file that is to take the place of those it was made of; nil: nothing of them is left.
type replacement struct {
	file  *logFile
	parts []sortedPart
	done  chan struct{}
}

// replace hands a sorted file to the sealing goroutine, which owns the queues' segments, and waits until readers go to it.
func (s *sealer) replace(ctx context.Context, f *logFile, parts []sortedPart) error {
	r := &replacement{file: f, parts: parts, done: make(chan struct{})}
	s.mu.Lock()
	s.todo.sorted = append(s.todo.sorted, r)
	s.mu.Unlock()
	s.wake.poke()
	select {
	case <-r.done:
		return nil
	case <-ctx.Done(): // the next opening finds the file
		return fmt.Errorf("replace log files: %w", context.Cause(ctx))
	case <-s.l.poisoned:
		return fmt.Errorf("replace log files: %w", s.l.poison())
	}
}

// adopt points the queues at a sorted file. What is not live any more by now is left where it is: in files that go.
func (s *sealer) adopt(r *replacement) {
	defer close(r.done)
	if r.file != nil {
		r.file.sealed.Store(true)
		r.file.cut.Store(true)
		s.l.files.add(r.file)
	}
	for i := range r.parts {
		r.parts[i].move(r.file)
	}
}

// move points the queue at the part's segment in the file, unless the one that it was made of is gone.
func (p *sortedPart) move(f *logFile) {
	segs := p.q.sealedSegments()
	i := slices.Index(segs, p.was)
	if i < 0 {
		return
	}
	p.from.keep(&p.was, -1)
	next := slices.Clone(segs)
	if p.seg.count == 0 {
		next = slices.Delete(next, i, i+1)
	} else {
		p.seg.file = f.no
		next[i] = p.seg
		f.keep(&p.seg, 1)
	}
	if len(next) == 0 {
		p.q.segs.Store(nil)
		return
	}
	p.q.segs.Store(&next)
}
