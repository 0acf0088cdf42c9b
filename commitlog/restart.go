package commitlog

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"slices"
	"time"

	"github.com/skeinmq/skein/internal/ident"
)

// recover brings the table and the tails to what is on the disk. What is derived
// (indexes, checkpoints) saves time; without it everything is read.
func (l *Log) recover(ctx context.Context) error {
	files, err := l.listFiles()
	if err != nil {
		for _, f := range files {
			err = errors.Join(err, f.closeHandles())
		}
		return err
	}
	warn := func(path string, err error) {
		l.log.Warn("remove file that is not needed", "log", l.id, "file", path, "error", err)
	}
	l.pool, err = openFilePool(l.fs, l.logDir, filePoolConfig{FileSize: l.cfg.FileSize, Ready: l.cfg.ReadyFiles, Direct: l.direct, Warn: warn})
	if err != nil {
		return err
	}
	sorted, err := l.listSorted(files)
	if err != nil {
		return err
	}
	l.openIndexes(files)
	rp, sc, err := l.replayFiles(ctx, files)
	if err != nil {
		return err
	}
	l.table = rp.t
	next, err := l.sortOut(files, sc)
	if err != nil {
		return err
	}
	if err := l.addSorted(ctx, sorted); err != nil {
		return err
	}
	if err := l.publishIndexes(); err != nil {
		return err
	}
	l.keeper = keeper{l: l, wake: newWaker(), next: next}
	l.sealer.l, l.sealer.wake = l, newWaker()
	l.sorter.l, l.sorter.load = l, loadMeter{used: &l.pool.used, at: time.Now()}
	l.seq = &sequencer{l: l, cur: l.spareBlock(), prevEnd: sc.end, prevCRC: sc.crc}
	l.durable.Store(int64(sc.end))
	l.committed.Store(int64(sc.end))
	l.report(rp, sc)
	l.damage.open(sc.damage)
	return nil
}

// publishIndexes gives the queues what the indexes say that they have in sealed files.
func (l *Log) publishIndexes() error {
	for _, f := range l.files.all() {
		x := f.index.Load()
		switch {
		case x == nil:
			continue
		case f.covered:
			f.sealed.Store(true)
		default:
			if err := l.publishSegments(f, x); err != nil {
				return fmt.Errorf("read index: %w", err)
			}
		}
		if f.sorted == nil {
			f.end = x.head.end
		}
	}
	return nil
}

// openIndexes opens the index of each file that has a sound one. A bad one is rebuilt:
// its file counts as not sealed.
func (l *Log) openIndexes(files []*logFile) {
	for _, f := range files {
		x, err := openIndex(l.fs, f.indexName(), l.id)
		if err == nil && !x.isOf(f) {
			err = errors.Join(&derivedError{file: f.indexName(), reason: "of another file"}, x.close())
		}
		if err == nil {
			for _, rerr := range x.rows() { // the directory is read now, so that restart can count on it
				if err = rerr; err != nil {
					break
				}
			}
			if err != nil {
				err = errors.Join(err, x.close())
			}
		}
		switch {
		case err == nil:
			f.told = x.head.end
			f.index.Store(x)
		case !errors.Is(err, fs.ErrNotExist):
			l.log.Warn("index is not usable, reading the log instead", "log", l.id, "file", f.name, "error", err)
		}
	}
}

// replayFiles reads what has to be read: everything from the first file without an index
// on, and from the checkpoint on. A state is of use only when every file with later blocks
// is still there; where files were reclaimed since, the log itself has a newer one.
func (l *Log) replayFiles(ctx context.Context, files []*logFile) (*replay, *scan, error) {
	gone, err := newestGone(files)
	if err != nil {
		return nil, nil, err
	}
	state, inLog := l.loadState(), false
	for {
		rp := newReplay(l)
		if len(state) > 0 {
			at, err := rp.decodeSnapshot(state, l.cfg.Now().UnixMilli())
			if err == nil && at < gone {
				err = fmt.Errorf("it is of position %d, files up to %d are gone: %w", at, gone, errSnapshot)
			}
			if err != nil {
				l.log.Warn("state is not usable, reading the log instead", "log", l.id, "error", err)
				state, rp, at = nil, newReplay(l), 0
			}
			rp.from = at
		}
		rp.index = true
		sc, err := l.scanFiles(ctx, files, rp, len(state) > 0)
		if err != nil {
			return nil, nil, err
		}
		if rp.from < gone && rp.state != nil && !inLog {
			state, inLog = rp.state, true
			for _, f := range files {
				f.touched, f.end, f.doubt = nil, 0, false
			}
			continue
		}
		if err := rp.done(); err != nil {
			l.log.Warn("frames that make no sense", "log", l.id, "error", err)
		}
		if rp.from < gone {
			sc.damage = append(sc.damage, CorruptError{File: l.logDir, From: rp.from, To: gone, Reason: "files are absent"})
		}
		if sc.end < rp.from {
			l.missing(sc, rp.from)
		}
		return rp, sc, nil
	}
}

func (l *Log) scanFiles(ctx context.Context, files []*logFile, rp *replay, haveState bool) (*scan, error) {
	now := l.cfg.Now().UnixMilli()
	sc := &scan{
		files: files,
		from:  firstToRead(files, rp.from, haveState),
		block: func(f *logFile, h *blockHeader, payload []byte) error {
			if err := ctx.Err(); err != nil {
				return err
			}
			return rp.block(f, h, payload)
		},
		salvage: func(f *logFile, fr *frame) { rp.apply(f, fr, now) },
		sure:    -1,
		buf:     window{fs: l.fs, direct: l.direct.Available},
	}
	if haveState {
		sc.sure, sc.sureEpoch = rp.from, rp.epoch
	}
	defer sc.buf.close()
	return sc, sc.run()
}

// newestGone is the highest position of a block that the chain names and that no file
// holds: files were reclaimed up to there. 0: everything is here.
func newestGone(files []*logFile) (ident.Position, error) {
	var gone ident.Position
	for _, f := range files {
		h, err := f.firstBlock()
		if err != nil && !errors.Is(err, errBad) {
			return 0, err
		}
		if err == nil && h.prevEnd > gone && !holds(files, h.prevEnd) {
			gone = h.prevEnd
		}
	}
	return gone, nil
}

// firstBlock reads the header of a file's first block.
func (f *logFile) firstBlock() (blockHeader, error) {
	var b [blockHeaderSize]byte
	if _, err := f.r.ReadAt(b[:], fileHeaderSize); err != nil && !errors.Is(err, io.EOF) {
		return blockHeader{}, fmt.Errorf("read %s: %w", f.name, err)
	}
	return decodeBlockHeader(b[:], f.first+fileHeaderSize)
}

// holds reports whether the block that ends at a position lies in one of the files.
func holds(files []*logFile, end ident.Position) bool {
	return slices.ContainsFunc(files, func(f *logFile) bool { return f.first < end && end <= f.limit() })
}

// missing records that the log ends before what a checkpoint knows to have been durable.
func (l *Log) missing(sc *scan, to ident.Position) {
	name, from, i := l.logDir, sc.end, sc.from // where nothing was read, the files before have indexes
	if sc.last != nil {
		name = sc.last.name
		sc.last.doubt = true
		i = slices.Index(sc.files, sc.last) + 1
	}
	whole := sc.last == nil || sc.last.told == sc.end // what comes before file i has all that was in it
	if whole && i < len(sc.files) && sc.files[i].first < to {
		name, from = sc.files[i].name, sc.files[i].first+fileHeaderSize
	}
	sc.damage = append(sc.damage, CorruptError{
		File: name, From: from, To: to, Reason: "the checkpoint proves that more was written",
	})
}

// firstToRead is the first file whose blocks recovery needs.
func firstToRead(files []*logFile, at ident.Position, haveState bool) int {
	if !haveState {
		return 0
	}
	unindexed := slices.IndexFunc(files, func(f *logFile) bool { return f.index.Load() == nil })
	holds := slices.IndexFunc(files, func(f *logFile) bool { return f.limit() >= at })
	if unindexed < 0 {
		unindexed = len(files) - 1
	}
	if holds < 0 {
		holds = len(files) - 1
	}
	return max(0, min(unindexed, holds))
}

// sortOut keeps the files that hold log and returns where the next file begins. The others
// were prepared, or torn by the crash: nothing in them was ever acked.
func (l *Log) sortOut(files []*logFile, sc *scan) (ident.Position, error) {
	next := ident.Position(0)
	for _, f := range files {
		next = f.limit()
		if f.index.Load() != nil || sc.last != nil && f.first <= sc.last.first {
			f.recovered = true
			if err := l.openReaders(f); err != nil {
				return 0, err
			}
			l.files.add(f)
			continue
		}
		if err := errors.Join(f.closeHandles(), l.pool.recycle(f.name)); err != nil {
			return 0, fmt.Errorf("remove unused log file: %w", err)
		}
	}
	return next, nil
}

// report fills in Recovered and hands the queues to the sequencer.
func (l *Log) report(rp *replay, sc *scan) {
	l.recovered.ID, l.recovered.ClusterID, l.recovered.Epoch = l.id, l.cluster, rp.epoch
	l.recovered.End, l.recovered.Damage = sc.end, sc.damage
	for _, r := range l.table.all() {
		g := RecoveredGeneration{Generation: r.gen}
		for _, q := range r.sorted() {
			if q.hasState() {
				g.Partitions = append(g.Partitions, q.snapshot())
			}
		}
		l.recovered.Generations = append(l.recovered.Generations, g)
		l.seq.adopt(r)
	}
}
