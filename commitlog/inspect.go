package commitlog

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"path/filepath"
	"slices"
	"time"

	"github.com/skeinmq/skein/internal/ident"
	"github.com/skeinmq/skein/internal/vfs"
)

// Inspection is what a log's directory holds, read without opening the log.
type Inspection struct {
	Identity Identity
	Epoch    ident.LogEpoch
	End      ident.Position
	Files    []InspectedFile
	Queues   []InspectedQueue
	Damage   []CorruptError
}

// InspectedFile is one log file.
type InspectedFile struct {
	Name    string
	First   ident.Position
	End     ident.Position // of its last block; First when it has none
	Size    int64
	Blocks  int
	Batches int
	Bytes   int64 // of record batches
	Indexed bool
}

// InspectedQueue is one physical queue.
type InspectedQueue struct {
	Partition  ident.Partition
	Generation ident.Generation
	Sealed     bool
	Start      ident.Offset
	LogStart   ident.Offset
	End        ident.Offset
	Producers  int
	Batches    int   // in the files that are there
	Bytes      int64 // of those
}

// Verification is the outcome of Verify.
type Verification struct {
	Files    int
	Blocks   int
	Batches  int
	Bytes    int64          // read
	Problems []CorruptError // in order of position; empty: every byte is as it was written
}

// queueKey names a physical queue.
type queueKey struct {
	partition ident.Partition
	gen       ident.Generation
}

// offline is a log that is only looked at.
func offline(ctx context.Context, fsys vfs.FS, dir string) (*Log, []*logFile, error) {
	if fsys == nil {
		fsys = vfs.OS()
	}
	id, err := ReadIdentity(fsys, dir)
	if err != nil {
		return nil, nil, err
	}
	l := &Log{
		cfg: Config{Now: time.Now, FS: fsys, Dir: dir}, fs: fsys, log: slog.New(slog.DiscardHandler),
		logDir: filepath.Join(dir, "log"), metaDir: filepath.Join(dir, metaName),
		id: id.Log, cluster: id.ClusterID, align: vfs.SectorSize,
	}
	files, err := l.listFiles()
	if err != nil {
		closeFiles(files)
		return nil, nil, err
	}
	return l, files, ctx.Err()
}

func closeFiles(files []*logFile) {
	for _, f := range files {
		_ = f.closeHandles() // only read from
	}
}

// Inspect reads a log's directory: its files, and the state and size of every queue. It
// changes nothing and may be used while no process has the log open. A nil fsys is the
// real one. progress (nil: none) is told the bytes read so far.
func Inspect(ctx context.Context, fsys vfs.FS, dir string, progress func(done, total int64)) (*Inspection, error) {
	l, files, err := offline(ctx, fsys, dir)
	if err != nil {
		return nil, fmt.Errorf("inspect log %s: %w", dir, err)
	}
	defer closeFiles(files)
	out := &Inspection{Identity: Identity{Log: l.id, ClusterID: l.cluster}}
	at := map[*logFile]*InspectedFile{}
	done, total := int64(0), int64(0)
	for _, f := range files {
		_, err := l.fs.Stat(f.indexName())
		at[f] = &InspectedFile{Name: f.name, First: f.first, End: f.first, Size: f.size, Indexed: err == nil}
		total += f.size
	}
	held := map[queueKey]*InspectedQueue{}
	count := func(f *logFile, fr *frame) {
		if fr.kind != frameData {
			return
		}
		at[f].Batches++
		at[f].Bytes += int64(len(fr.payload))
		k := queueKey{fr.partition, fr.gen}
		if held[k] == nil {
			held[k] = &InspectedQueue{}
		}
		held[k].Batches++
		held[k].Bytes += int64(len(fr.payload))
	}
	sc := &scan{files: files, sure: -1, salvage: count, block: func(f *logFile, h *blockHeader, payload []byte) error {
		at[f].Blocks++
		at[f].End = h.end()
		for fr, err := range frames(payload, h.position+blockHeaderSize, h.frames) {
			if err != nil {
				return err
			}
			count(f, &fr)
		}
		if done += int64(h.padded); progress != nil {
			progress(done, total)
		}
		return ctx.Err()
	}}
	defer sc.buf.close()
	if err := sc.run(); err != nil {
		return nil, fmt.Errorf("inspect log %s: %w", dir, err)
	}
	for _, f := range files {
		out.Files = append(out.Files, *at[f])
	}
	rp, state, err := l.replayFiles(ctx, files)
	if err != nil {
		return nil, fmt.Errorf("inspect log %s: %w", dir, err)
	}
	out.Epoch, out.End, out.Damage = rp.epoch, sc.end, state.damage
	out.addQueues(rp, held)
	return out, nil
}

// addQueues adds what replaying the files made, with what was counted of each.
func (out *Inspection) addQueues(rp *replay, held map[queueKey]*InspectedQueue) {
	for _, r := range rp.t.all() {
		for _, q := range r.sorted() {
			row := InspectedQueue{
				Partition: q.partition, Generation: r.gen, Sealed: r.is(runSealed),
				Start: q.start, LogStart: q.LogStart(), End: q.next,
			}
			if q.prods != nil {
				row.Producers = len(q.prods.list)
			}
			if h := held[queueKey{q.partition, r.gen}]; h != nil {
				row.Batches, row.Bytes = h.Batches, h.Bytes
			}
			out.Queues = append(out.Queues, row)
		}
	}
}

// verifier checks one log, file by file.
type verifier struct {
	l        *Log
	out      *Verification
	progress func(done, total int64)
	total    int64

	places map[queueKey][]place // of the current file
	file   *logFile
	held   map[queueKey]*coverage // of all files
	damage func() []CorruptError  // that the scan has found so far
}

// coverage is which offsets of a queue lie on the disk: from first to next, but for the holes.
type coverage struct {
	first, next ident.Offset
	holes       []offsetHole
}

// offsetHole is offsets that no batch holds, before the batch at a position of a file.
type offsetHole struct {
	from, to ident.Offset
	at       ident.Position
	file     *logFile
}

func (c *coverage) add(f *logFile, p place) {
	if p.base > c.next {
		c.holes = append(c.holes, offsetHole{from: c.next, to: p.base, at: p.position, file: f})
	}
	c.next = max(c.next, p.end())
}

// Verify reads every byte of a log: the CRCs of blocks, frames and record batches, the
// chain of blocks, the index files and that each of their entries points at its batch, and
// the checkpoints. progress (nil: none) is told the bytes read so far. What is wrong with
// the data is in Problems; the error is for what could not be read at all. Nothing is
// changed.
func Verify(ctx context.Context, fsys vfs.FS, dir string, progress func(done, total int64)) (*Verification, error) {
	l, files, err := offline(ctx, fsys, dir)
	if err != nil {
		return nil, fmt.Errorf("verify log %s: %w", dir, err)
	}
	defer closeFiles(files)
	v := &verifier{l: l, out: &Verification{Files: len(files)}, progress: progress, places: map[queueKey][]place{}, held: map[queueKey]*coverage{}}
	for _, f := range files {
		v.total += f.size
	}
	sc := &scan{files: files, sure: -1, salvage: func(f *logFile, fr *frame) { v.frame(f, fr) }}
	sc.block = func(f *logFile, h *blockHeader, payload []byte) error {
		v.out.Blocks++
		for fr, err := range frames(payload, h.position+blockHeaderSize, h.frames) {
			if err != nil {
				v.problem(f, h.position, h.end(), err)
				break
			}
			v.frame(f, &fr)
		}
		v.tell(int64(h.padded))
		return ctx.Err()
	}
	v.damage = func() []CorruptError { return sc.damage }
	defer sc.buf.close()
	if err := sc.run(); err != nil {
		return nil, fmt.Errorf("verify log %s: %w", dir, err)
	}
	v.endFile()
	v.out.Problems = append(v.out.Problems, sc.damage...)
	v.checkpoints()
	if err := v.queues(ctx, files); err != nil {
		return nil, fmt.Errorf("verify log %s: %w", dir, err)
	}
	slices.SortStableFunc(v.out.Problems, func(a, b CorruptError) int { return int(min(max(a.From-b.From, -1), 1)) })
	return v.out, nil
}

func (v *verifier) tell(n int64) {
	v.out.Bytes += n
	if v.progress != nil {
		v.progress(v.out.Bytes, v.total)
	}
}

func (v *verifier) problem(f *logFile, from, to ident.Position, cause error) {
	v.out.Problems = append(v.out.Problems, CorruptError{File: f.name, From: from, To: to, Reason: cause.Error()})
}

// frame checks one frame and remembers where it lies.
func (v *verifier) frame(f *logFile, fr *frame) {
	if v.file != f {
		v.endFile()
		v.file = f
	}
	if fr.kind != frameData {
		return
	}
	v.out.Batches++
	end := fr.position + frameHeaderSize + ident.Position(fr.length)
	if err := checkBatch(fr.payload, fr.base, fr.count, fr.gen.Epoch); err != nil {
		v.problem(f, fr.position, end, err)
	}
	k, p := queueKey{fr.partition, fr.gen}, placeOf(fr)
	v.places[k] = append(v.places[k], p)
	if v.held[k] == nil {
		v.held[k] = &coverage{first: p.base, next: p.base}
	}
	v.held[k].add(f, p)
}

// queues checks that of each open queue every offset that the log's state promises lies in a batch. Of what is sealed the
// map's word (Queue.Floor), which is not on this disk, may have given up more.
func (v *verifier) queues(ctx context.Context, files []*logFile) error {
	rp, _, err := v.l.replayFiles(ctx, files)
	if err != nil {
		return err
	}
	for _, r := range rp.t.all() {
		if r.is(runSealed) {
			continue
		}
		for _, q := range r.sorted() {
			from := max(q.start, q.LogStart())
			c := v.held[queueKey{q.partition, r.gen}]
			if c == nil {
				c = &coverage{first: q.next, next: from}
			}
			if from < c.first && c.first < q.next {
				c.holes = append(c.holes, offsetHole{from: from, to: c.first})
			}
			if c.next < q.next {
				c.holes = append(c.holes, offsetHole{from: max(c.next, from), to: q.next})
			}
			for _, h := range c.holes {
				if lo, hi := max(h.from, from), min(h.to, q.next); lo < hi {
					v.absent(q, lo, hi, h)
				}
			}
		}
	}
	return nil
}

func (v *verifier) absent(q *Queue, from, to ident.Offset, h offsetHole) {
	e := CorruptError{File: v.l.logDir, Reason: fmt.Sprintf("offsets %d to %d of %s (%s) are in no readable batch", from, to-1, q.partition, q.run.gen)}
	if h.file != nil {
		e.File, e.From, e.To = h.file.name, h.at, h.at
	}
	v.out.Problems = append(v.out.Problems, e)
}

// endFile checks the index of the file that was read (I11).
func (v *verifier) endFile() {
	f := v.file
	if f == nil {
		return
	}
	defer clear(v.places)
	x, err := openIndex(v.l.fs, f.indexName(), v.l.id)
	if errors.Is(err, fs.ErrNotExist) {
		return
	}
	if err == nil {
		err = errors.Join(x.verify(), v.entries(x))
		err = errors.Join(err, x.close())
	}
	if err != nil {
		v.out.Problems = append(v.out.Problems, CorruptError{File: f.indexName(), From: f.first, To: f.first, Reason: err.Error()})
	}
}

// known reports whether a position lies in damage that is told as such.
func (v *verifier) known(at ident.Position) bool {
	return slices.ContainsFunc(v.damage(), func(d CorruptError) bool { return d.From <= at && at < d.To })
}

// entries checks that every entry of an index points at its batch.
func (v *verifier) entries(x *indexFile) error {
	for row, err := range x.rows() {
		if err != nil {
			return err
		}
		held := v.places[queueKey{row.partition, row.gen}]
		for e, err := range x.entries(&row, row.first) {
			if err != nil {
				return err
			}
			i, ok := slices.BinarySearchFunc(held, e.position, func(p place, at ident.Position) int {
				return int(min(max(p.position-at, -1), 1))
			})
			if (!ok || held[i] != e) && !v.known(e.position) {
				return fmt.Errorf("%w: entry for offset %d of %s points at %d, where its batch is not", errBad, e.base, row.partition, e.position)
			}
		}
	}
	return nil
}

// checkpoints checks both slots. One that is being written is no problem by itself: the
// other one holds.
func (v *verifier) checkpoints() {
	c := openCheckpoints(v.l.fs, v.l.metaDir, v.l.id)
	cp, ok, damage := c.load()
	if ok {
		if _, err := newReplay(v.l).decodeSnapshot(cp.payload, v.l.cfg.Now().UnixMilli()); err != nil {
			damage = errors.Join(damage, err)
		}
	}
	if damage != nil {
		v.out.Problems = append(v.out.Problems, CorruptError{File: v.l.metaDir, Reason: damage.Error()})
	}
}
