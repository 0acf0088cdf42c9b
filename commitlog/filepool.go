package commitlog

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/skeinmq/skein/internal/ident"
	"github.com/skeinmq/skein/internal/vfs"
)

// The file pool keeps log files ready ahead, so that a roll costs one rename and
// the append path cannot meet a full disk. A ready file is wholly written: with
// zeroes, in the background and at a limited rate, or with what a retired file
// held (the absolute positions in block headers make stale bytes harmless).
// Blocks that were only reserved would make each durable write change metadata
// too: docs/adr/0003 has the figures.
//
//	p, err := openFilePool(fsys, dir, filePoolConfig{…}) // takes leftovers over
//	go p.run(ctx)                                        // prepares; an error is final
//	f, name, err := p.take(ctx, first, header)           // durable under its final name
//	err = p.recycle(name)                                // a retired file, closed by all
//	p.level()
//	go p.giver.run(ctx) // gives back what is left over
//
// A file that take hands out while none is ready is prepared only at its start
// (FirstFill) and the rest is filled behind its back: poolFile.WriteAt keeps the
// two apart, so the holder need not know. All space is reserved before.

// filePoolConfig configures a pool; the zero value of a field means its default.
type filePoolConfig struct {
	FileSize  int64 // bytes; required
	Ready     int   // files kept ready; default 2
	FirstFill int64 // bytes zeroed before a file that is needed at once is handed out; default 4 MiB
	FillRate  int64 // bytes a second that the background may write; default 128 MiB
	// YieldRate: while the log itself writes, or reads in large pieces, more than this many bytes a second, nothing is zeroed; default 48 MiB.
	// What is not zeroed by then is only reserved: its writes wait longer, but no byte goes to the disk twice.
	YieldRate int64
	Direct    vfs.DirectIO // of the directory
	// Warn is told of files that could not be removed in the background; nil: nobody is.
	Warn func(path string, err error)

	// Free bytes (ready files included) below which the disk is at a level.
	// Defaults: Refuse two files or 2 % of the disk (at most 4 GiB), whichever is
	// more; Throttle twice that; Avoid four times.
	Avoid, Throttle, Refuse int64
}

func (c filePoolConfig) withDefaults(total int64) filePoolConfig {
	if c.Ready == 0 {
		c.Ready = 2
	}
	if c.FirstFill == 0 {
		c.FirstFill = 4 << 20
	}
	c.FirstFill = min(c.FirstFill, c.FileSize)
	if c.FillRate == 0 {
		c.FillRate = 128 << 20
	}
	if c.YieldRate == 0 {
		c.YieldRate = 48 << 20
	}
	if c.Refuse == 0 {
		c.Refuse = max(2*c.FileSize, min(total/50, 4<<30))
	}
	if c.Throttle == 0 {
		c.Throttle = 2 * c.Refuse
	}
	if c.Avoid == 0 {
		c.Avoid = 2 * c.Throttle
	}
	return c
}

// Names of files that are no log files yet.
const (
	poolPrefix      = "pool-"
	poolMaking      = ".new"   // being prepared; garbage after a crash
	poolReady       = ".ready" // prepared and durable
	poolOld         = ".old"   // being removed
	poolFillChunk   = 1 << 20
	poolLevelPeriod = time.Second
	poolYieldPeriod = 250 * time.Millisecond
	firstReserve    = 32 << 20 // bytes that the first file of a process must leave
)

// filePool prepares files in one directory.
type filePool struct {
	fs  vfs.FS
	dir string
	cfg filePoolConfig

	room atomic.Int32 // Level
	free atomic.Int64 // bytes that were free at the last look
	took atomic.Bool  // a file was handed out: the log can begin, and say what it gives up
	used atomic.Int64 // bytes that the log has written through files of the pool, and read past the page cache
	wake waker        // something for run to do

	mu      sync.Mutex
	ready   []string    // paths, oldest first
	filling []*poolFile // handed out before they were filled
	serial  int         // of the next name

	making *making // owned by run

	giver giver
}

// making is the file that run prepares at the moment.
type making struct {
	f    vfs.File
	path string
	at   int64 // zeroed up to here
}

// openFilePool takes over what an earlier process left in dir: ready files of the
// right size are used, all other files of a pool are removed in the background.
func openFilePool(fsys vfs.FS, dir string, cfg filePoolConfig) (*filePool, error) {
	if cfg.FileSize < poolFillChunk || cfg.FileSize%vfs.PageSize != 0 {
		return nil, fmt.Errorf("open file pool: file size %d, want at least %d and whole pages", cfg.FileSize, poolFillChunk)
	}
	space, err := fsys.Space(dir)
	if err != nil {
		return nil, fmt.Errorf("open file pool: %w", err)
	}
	p := &filePool{fs: fsys, dir: dir, cfg: cfg.withDefaults(space.Total), wake: newWaker()}
	p.giver = giver{fs: fsys, short: func() bool { return p.level() >= LevelThrottle }, wake: newWaker()}
	names, err := fsys.List(dir)
	if err != nil {
		return nil, fmt.Errorf("open file pool: %w", err)
	}
	for _, name := range names {
		rest, ok := strings.CutPrefix(name, poolPrefix)
		if !ok {
			continue
		}
		digits, suffix, _ := strings.Cut(rest, ".")
		if n, err := strconv.Atoi(digits); err == nil {
			p.serial = max(p.serial, n+1)
		}
		path := filepath.Join(dir, name)
		st, err := fsys.Stat(path)
		if err != nil {
			return nil, fmt.Errorf("open file pool: %w", err)
		}
		if "."+suffix == poolReady && st.Size == p.cfg.FileSize && len(p.ready) < p.cfg.Ready {
			p.ready = append(p.ready, path)
			continue
		}
		p.discard(path)
	}
	if err := p.measure(); err != nil {
		return nil, err
	}
	return p, p.relieve()
}

// relieve gives back at once what is left over when the disk is short of room.
func (p *filePool) relieve() error {
	if p.level() < LevelThrottle || !p.giver.all() {
		return nil
	}
	return p.measure()
}

// discard removes a file in the background. Nobody may have it open for writing, and its name must be one that the next start
// knows for garbage.
func (p *filePool) discard(path string) {
	p.giver.add(surplus{path: path, done: func(err error) {
		if err != nil && !errors.Is(err, errNotGiven) && p.cfg.Warn != nil {
			p.cfg.Warn(path, err)
		}
	}})
}

// level is how much room the disk had when it was last looked at: at each change
// of the pool's files and once a second.
func (p *filePool) level() Level { return Level(p.room.Load()) }

// available is the number of files that are ready.
func (p *filePool) available() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.ready)
}

// measure looks at the disk. Ready files count as free: they are ours to fill.
func (p *filePool) measure() error {
	space, err := p.fs.Space(p.dir)
	if err != nil {
		return fmt.Errorf("measure free space: %w", err)
	}
	free := space.Available + int64(p.available())*p.cfg.FileSize
	level := LevelOK
	switch {
	case free < p.cfg.Refuse:
		level = LevelRefuse
	case free < p.cfg.Throttle:
		level = LevelThrottle
	case free < p.cfg.Avoid:
		level = LevelAvoid
	}
	p.free.Store(free)
	p.room.Store(int32(level))
	return nil
}

// pressure is how far the room is used up between the levels Throttle and Refuse: 0 above, 1 exactly where
// appends are refused, and linear in the bytes between.
func (p *filePool) pressure() float64 {
	switch p.level() {
	case LevelThrottle:
		// One byte more keeps what is taken below 1, also at the last byte before the level Refuse.
		return min(float64(p.cfg.Throttle-p.free.Load())/float64(p.cfg.Throttle-p.cfg.Refuse+1), 1)
	case LevelRefuse:
		return 1
	}
	return 0
}

func (p *filePool) newPath(suffix string) string {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.serial++
	return filepath.Join(p.dir, poolPrefix+strconv.Itoa(p.serial-1)+suffix)
}

func (p *filePool) popReady() (string, bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.ready) == 0 {
		return "", false
	}
	path := p.ready[0]
	p.ready = p.ready[1:]
	return path, true
}

// take hands out the log file that begins at a position: durable under its final
// name, with header (whole pages) at its start, open for direct synchronous
// writing. It costs a rename, and when no file is ready a partial preparation.
// ErrFull (and syscall.ENOSPC) when there is no room; nothing is left behind
// then. After any other error the log is to be given up. A file that has the
// name already is replaced: the caller knows that nothing is in it.
func (p *filePool) take(ctx context.Context, first ident.Position, header []byte) (*poolFile, string, error) {
	defer p.wake.poke()
	if err := context.Cause(ctx); err != nil {
		return nil, "", err
	}
	path, ok := p.popReady()
	prepared := p.cfg.FileSize
	if !ok {
		var err error
		if path, err = p.makeAtOnce(); err != nil {
			return nil, "", fmt.Errorf("make log file: %w", err)
		}
		prepared = p.cfg.FirstFill
	}
	f, err := p.fs.Open(path, vfs.OpenOptions{Write: true, Direct: p.cfg.Direct.Available, Dsync: !plants.noDsync})
	if err != nil {
		return nil, "", fmt.Errorf("make log file: %w", err)
	}
	name := filepath.Join(p.dir, logFileName(first))
	out := &poolFile{File: f, size: p.cfg.FileSize, used: &p.used}
	out.safe.Store(prepared)
	if err := p.publish(f, path, name, header); err != nil {
		err = errors.Join(err, f.Close())
		if errors.Is(err, syscall.ENOSPC) { // no room for the name
			err = p.giveUp(path, p.giveUp(name, err))
		}
		return nil, "", fmt.Errorf("make log file: %w", err)
	}
	if prepared < out.size {
		if out.fill, err = p.openFill(name, vfs.OpenOptions{Write: true}); err != nil {
			return nil, "", fmt.Errorf("make log file: %w", errors.Join(err, f.Close()))
		}
		p.mu.Lock()
		p.filling = append(p.filling, out)
		p.mu.Unlock()
	}
	p.took.Store(true)
	return out, name, p.measure()
}

// publish writes the header and gives the file its final name, durably. The
// header comes first: a name that survives a power cut has it.
func (p *filePool) publish(f vfs.File, path, name string, header []byte) error {
	buf, err := vfs.AllocAligned(len(header))
	if err != nil {
		return err
	}
	copy(buf, header)
	_, err = f.WriteAt(buf, 0)
	if err = errors.Join(err, vfs.FreeAligned(buf)); err != nil {
		return err
	}
	if err := p.fs.Rename(path, name); err != nil {
		return err
	}
	return p.fs.SyncDir(p.dir)
}

// openFill opens a file for preparation: past the cache where the log's writes
// go past it (the two must not see different bytes), durable at a sync only.
func (p *filePool) openFill(path string, opt vfs.OpenOptions) (vfs.File, error) {
	opt.Direct = p.cfg.Direct.Available
	return p.fs.Open(path, opt)
}

// makeAtOnce makes a file of which all space is reserved and the first part zeroed.
func (p *filePool) makeAtOnce() (string, error) {
	// What is left then is for indexes and checkpoints, without which no file
	// could ever be retired. A log that begins takes no data at that level, and
	// without its first file its broker could not even serve what is there.
	reserve := p.cfg.Refuse / 4
	if !p.took.Load() {
		reserve = min(reserve, firstReserve)
	}
	space, err := p.fs.Space(p.dir)
	if err == nil && space.Available < p.cfg.FileSize+reserve && p.giver.all() {
		space, err = p.fs.Space(p.dir)
	}
	if err != nil {
		return "", err
	}
	if space.Available < p.cfg.FileSize+reserve {
		p.room.Store(int32(LevelRefuse))
		return "", fmt.Errorf("%w: %d bytes are free: %w", ErrFull, space.Available, syscall.ENOSPC)
	}
	path := p.newPath(poolMaking)
	f, err := p.openFill(path, vfs.OpenOptions{Create: true, Exclusive: true})
	if err != nil {
		return "", err
	}
	err = f.Allocate(0, p.cfg.FileSize)
	if err == nil {
		err = vfs.ZeroFill(f, 0, p.cfg.FirstFill)
	}
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return "", p.giveUp(path, err)
	}
	return path, nil
}

// giveUp removes a file that could not be prepared and names a full disk.
func (p *filePool) giveUp(path string, cause error) error {
	if errors.Is(cause, syscall.ENOSPC) {
		p.room.Store(int32(LevelRefuse))
		if !errors.Is(cause, ErrFull) {
			cause = fmt.Errorf("%w: %w", ErrFull, cause)
		}
	}
	if err := p.fs.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		cause = errors.Join(cause, err)
	}
	return cause
}

// recycle takes a retired file back: it becomes a ready one, or is removed, in the
// background, when enough are ready. Nobody may have it open for writing. Durable on
// return: the name cannot come back.
func (p *filePool) recycle(name string) error {
	defer p.wake.poke()
	st, err := p.fs.Stat(name)
	if err != nil {
		return fmt.Errorf("recycle %s: %w", name, err)
	}
	// One more than are kept ready: a file that retires between two rolls is
	// worth more than the space it frees for a moment.
	keep := st.Size == p.cfg.FileSize && p.available() <= p.cfg.Ready && p.level() < LevelThrottle
	if !keep {
		err = p.setAside(name)
	} else {
		path := p.newPath(poolReady)
		if err = p.fs.Rename(name, path); err == nil {
			err = p.fs.SyncDir(p.dir)
		}
		if err == nil {
			p.mu.Lock()
			p.ready = append(p.ready, path)
			p.mu.Unlock()
		}
	}
	if err != nil {
		return fmt.Errorf("recycle %s: %w", name, err)
	}
	return errors.Join(p.measure(), p.relieve())
}

// setAside takes the names of files away, of those that exist, durably, and has the files removed in the background.
func (p *filePool) setAside(names ...string) error {
	var aside []string
	for _, name := range names {
		path := p.newPath(poolOld)
		err := p.fs.Rename(name, path)
		if errors.Is(err, syscall.ENOSPC) { // for the new name
			path, err = name, p.fs.Remove(name)
		}
		switch {
		case errors.Is(err, fs.ErrNotExist):
		case err != nil:
			return err
		default:
			aside = append(aside, path)
		}
	}
	if len(aside) == 0 {
		return nil
	}
	if err := p.fs.SyncDir(p.dir); err != nil {
		return err
	}
	for _, path := range aside {
		p.discard(path)
	}
	return nil
}

// run prepares files until ctx ends. A full disk is waited out (the level says
// so); any other error is final: what this disk promised cannot be relied on.
func (p *filePool) run(ctx context.Context) error {
	tick := time.NewTicker(poolLevelPeriod)
	defer tick.Stop()
	defer p.stop()
	load := loadMeter{used: &p.used, at: time.Now()}
	measured := time.Now()
	for {
		start := time.Now()
		if load.rate(start) > p.cfg.YieldRate {
			select {
			case <-ctx.Done():
				return nil
			case <-time.After(poolYieldPeriod):
			}
			if err := p.measure(); err != nil {
				return err
			}
			continue
		}
		n, err := p.step()
		if err != nil {
			return fmt.Errorf("prepare log files: %w", err)
		}
		pause := tick.C
		if n > 0 {
			pause = time.After(time.Until(start.Add(time.Duration(n * int64(time.Second) / p.cfg.FillRate))))
		}
		select {
		case <-ctx.Done():
			return nil
		case <-pause:
		case <-p.wakeUnless(n > 0):
		}
		if n == 0 || time.Since(measured) >= poolLevelPeriod { // preparing a file can take long
			if err := p.measure(); err != nil {
				return err
			}
			measured = time.Now()
		}
	}
}

// loadMeter measures how fast the log uses the disk, over periods of at least poolYieldPeriod.
type loadMeter struct {
	used *atomic.Int64
	at   time.Time
	seen int64
	last int64 // bytes a second in the last whole period
}

func (m *loadMeter) rate(now time.Time) int64 {
	if took := now.Sub(m.at); took >= poolYieldPeriod {
		used := m.used.Load()
		m.last = int64(float64(used-m.seen) / took.Seconds())
		m.at, m.seen = now, used
	}
	return m.last
}

// wakeUnless keeps the rate: work under way is not hastened by more of it.
func (p *filePool) wakeUnless(busy bool) <-chan struct{} {
	if busy {
		return nil
	}
	return p.wake
}

// step does one chunk of the most urgent work and returns its bytes; 0: idle.
func (p *filePool) step() (int64, error) {
	p.mu.Lock()
	var next *poolFile
	if len(p.filling) > 0 {
		next = p.filling[0]
	}
	wanted := p.cfg.Ready - len(p.ready)
	p.mu.Unlock()
	if next != nil {
		n, err := next.fillSome()
		if n == 0 && err == nil {
			p.mu.Lock()
			p.filling = p.filling[1:]
			p.mu.Unlock()
			return 1, next.endFill()
		}
		return n, err
	}
	if p.making == nil && (wanted <= 0 || !p.hasRoom()) {
		return 0, nil
	}
	n, err := p.makeSome()
	if err != nil && errors.Is(err, syscall.ENOSPC) {
		m := p.making
		p.making = nil
		if m == nil {
			return 0, nil
		}
		if err := p.giveUp(m.path, errors.Join(err, m.f.Close())); !errors.Is(err, ErrFull) {
			return 0, err
		}
		return 0, nil
	}
	return n, err
}

// hasRoom is true when another ready file leaves the level where it is.
func (p *filePool) hasRoom() bool {
	space, err := p.fs.Space(p.dir)
	return err == nil && space.Available >= p.cfg.FileSize+p.cfg.Refuse/2
}

// makeSome prepares one chunk of a ready file, beginning or ending it when due.
func (p *filePool) makeSome() (int64, error) {
	if p.making == nil {
		path := p.newPath(poolMaking)
		f, err := p.openFill(path, vfs.OpenOptions{Create: true, Exclusive: true})
		if err != nil {
			return 0, err
		}
		p.making = &making{f: f, path: path}
		return 1, f.Allocate(0, p.cfg.FileSize)
	}
	m := p.making
	if n := min(poolFillChunk, p.cfg.FileSize-m.at); n > 0 {
		err := vfs.ZeroFill(m.f, m.at, n)
		m.at += n
		return n, err
	}
	p.making = nil
	path := strings.TrimSuffix(m.path, poolMaking) + poolReady
	err := errors.Join(m.f.Sync(), m.f.Close())
	if err == nil {
		err = p.fs.Rename(m.path, path)
	}
	if err == nil {
		err = p.fs.SyncDir(p.dir)
	}
	if err != nil {
		return 0, p.giveUp(m.path, err)
	}
	p.mu.Lock()
	p.ready = append(p.ready, path)
	p.mu.Unlock()
	return 1, p.measure()
}

// stop gives up what run has open. A half-made file stays for the next start to
// remove.
func (p *filePool) stop() {
	p.mu.Lock()
	filling := p.filling
	p.filling = nil
	p.mu.Unlock()
	for _, f := range filling {
		_ = f.endFill() // the log's own writes do not depend on it
	}
	if p.making != nil {
		_ = p.making.f.Close()
		p.making = nil
	}
}
