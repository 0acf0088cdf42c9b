package commitlog

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"

	"github.com/skeinmq/skein/internal/ident"
	"github.com/skeinmq/skein/internal/vfs"
)

// verifier checks one log, file by file.
type verifier struct {
	l        *Log
	out      *Verification
	progress func(done, total int64)
	total    int64

	places map[queueKey][]place // of the current file
	file   *logFile
	held   map[queueKey]*coverage     // of all log files
	sorted map[queueKey][]offsetRange // of all sorted files
	damage func() []CorruptError      // that the scan has found so far
}

// coverage is which offsets of a queue lie on the disk: from first to next, but for the holes.
type coverage struct {
	first, next ident.Offset
	holes       []offsetHole
}

// offsetRange is offsets that lie in one sorted file.
type offsetRange struct{ from, to ident.Offset }

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

// Verify reads every byte of a log: the headers of its files, the CRCs of blocks, frames and record
// batches, the chain of blocks, the index files and that each of their entries points at its batch, and
// the checkpoints. progress (nil: none) is told the bytes read so far. What is wrong with
// the data is in Problems; the error is for what could not be read at all. Nothing is
// changed.
func Verify(ctx context.Context, fsys vfs.FS, dir string, progress func(done, total int64)) (*Verification, error) {
	l, files, sorted, err := offline(ctx, fsys, dir)
	if err != nil {
		return nil, fmt.Errorf("verify log %s: %w", dir, err)
	}
	all := slices.Concat(files, sorted)
	defer closeFiles(all)
	v := &verifier{
		l: l, out: &Verification{Files: len(all)}, progress: progress, places: map[queueKey][]place{},
		held: map[queueKey]*coverage{}, sorted: map[queueKey][]offsetRange{},
	}
	for _, f := range all {
		v.total += f.size
	}
	for _, f := range files {
		if f.badHeader != nil {
			v.problem(f, f.first, f.first+fileHeaderSize, f.badHeader)
		}
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
	for _, f := range sorted {
		if err := v.walk(ctx, f); err != nil {
			return nil, fmt.Errorf("verify log %s: %w", dir, err)
		}
	}
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
	if f.sorted != nil {
		v.addSorted(k, p)
		return
	}
	if v.held[k] == nil {
		v.held[k] = &coverage{first: p.base, next: p.base}
	}
	v.held[k].add(f, p)
}

// walk checks a sorted file.
func (v *verifier) walk(ctx context.Context, f *logFile) error {
	err := walkSorted(ctx, v.l.fs, f, func(fr *frame) error {
		v.frame(f, fr)
		return nil
	}, func(from, to ident.Position) { v.problem(f, from, to, fmt.Errorf("frames: %w", errBad)) })
	if err != nil {
		return err
	}
	v.endFile()
	v.file = nil
	v.tell(f.size)
	return nil
}

func (v *verifier) addSorted(k queueKey, p place) {
	list := v.sorted[k]
	if n := len(list); n > 0 && list[n-1].to == p.base {
		list[n-1].to = p.end()
		return
	}
	v.sorted[k] = append(list, offsetRange{p.base, p.end()})
}

// less returns what is left of offsets without those of the ranges, which are disjoint.
func (r offsetRange) less(ranges []offsetRange) (out []offsetRange) {
	slices.SortFunc(ranges, func(a, b offsetRange) int { return cmp.Compare(a.from, b.from) })
	for _, s := range ranges {
		if s.to <= r.from || r.to <= s.from {
			continue
		}
		if r.from < s.from {
			out = append(out, offsetRange{r.from, s.from})
		}
		r.from = s.to
	}
	if r.from < r.to {
		out = append(out, r)
	}
	return out
}

// queues checks that the log goes as far as its checkpoint says, and of each open queue that every offset that the log's state
// promises lies in a batch. Of what is sealed the map's word (Queue.Floor), which is not on this disk, may have given up more.
func (v *verifier) queues(ctx context.Context, files []*logFile) error {
	rp, state, err := v.l.replayFiles(ctx, files)
	if err != nil {
		return err
	}
	for _, d := range state.damage { // what only a checkpoint proves
		told := func(p CorruptError) bool { return p.From < d.To && d.From < p.To }
		if !slices.ContainsFunc(v.out.Problems, told) {
			v.out.Problems = append(v.out.Problems, d)
		}
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
				hole := offsetRange{max(h.from, from), min(h.to, q.next)}
				for _, left := range hole.less(v.sorted[queueKey{q.partition, r.gen}]) {
					v.absent(q, left.from, left.to, h)
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
