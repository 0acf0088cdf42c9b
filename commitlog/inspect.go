package commitlog

import (
	"cmp"
	"context"
	"errors"
	"fmt"
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

// InspectedFile is one log file, or one sorted file.
type InspectedFile struct {
	Name    string
	First   ident.Position // of what it stands for
	End     ident.Position // of its last block, First when it has none; of what a sorted one stands for
	Sorted  bool
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

// offline is a log that is only looked at, with its log files and its sorted files.
func offline(ctx context.Context, fsys vfs.FS, dir string) (*Log, []*logFile, []*logFile, error) {
	if fsys == nil {
		fsys = vfs.OS()
	}
	id, err := ReadIdentity(fsys, dir)
	if err != nil {
		return nil, nil, nil, err
	}
	l := &Log{
		cfg: Config{Now: time.Now, FS: fsys, Dir: dir}, fs: fsys, log: slog.New(slog.DiscardHandler),
		logDir: filepath.Join(dir, "log"), metaDir: filepath.Join(dir, metaName),
		id: id.Log, cluster: id.ClusterID, align: vfs.SectorSize,
	}
	files, err := l.listFiles()
	if err != nil {
		closeFiles(files)
		return nil, nil, nil, err
	}
	sorted, err := l.listSorted(files)
	if err != nil {
		closeFiles(files)
		return nil, nil, nil, err
	}
	l.tellEnds(files)
	return l, files, sorted.files, ctx.Err()
}

// tellEnds takes from the indexes where the files end, and nothing else: whoever looks at a log reads its blocks. What is wrong with an
// index is found when it is checked.
func (l *Log) tellEnds(files []*logFile) {
	for _, f := range files {
		x, err := openIndex(l.fs, f.indexName(), l.id)
		if err != nil {
			continue
		}
		if x.isOf(f) {
			f.told = x.head.end
		}
		_ = x.close() // only read from
	}
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
	l, files, sorted, err := offline(ctx, fsys, dir)
	if err != nil {
		return nil, fmt.Errorf("inspect log %s: %w", dir, err)
	}
	defer closeFiles(slices.Concat(files, sorted))
	in := &inspector{
		out: &Inspection{Identity: Identity{Log: l.id, ClusterID: l.cluster}}, progress: progress,
		fs: l.fs, at: map[*logFile]*InspectedFile{}, held: map[queueKey]*InspectedQueue{},
	}
	all := slices.Concat(files, sorted)
	for _, f := range all {
		_, err := l.fs.Stat(f.indexName())
		from := f.span().from
		in.at[f] = &InspectedFile{Name: f.name, First: from, End: from, Sorted: f.sorted != nil, Size: f.size, Indexed: err == nil}
		in.total += f.size
	}
	sc := &scan{files: files, sure: -1, salvage: in.count, block: func(f *logFile, h *blockHeader, payload []byte) error {
		return errors.Join(in.block(f, h, payload), ctx.Err())
	}}
	defer sc.buf.close()
	err = sc.run()
	for _, f := range sorted {
		if err == nil {
			err = in.walk(ctx, f)
		}
	}
	if err != nil {
		return nil, fmt.Errorf("inspect log %s: %w", dir, err)
	}
	rp, state, err := l.replayFiles(ctx, files)
	if err != nil {
		return nil, fmt.Errorf("inspect log %s: %w", dir, err)
	}
	out := in.out
	for _, f := range all {
		out.Files = append(out.Files, *in.at[f])
	}
	slices.SortStableFunc(out.Files, func(a, b InspectedFile) int { return cmp.Compare(a.First, b.First) })
	out.Epoch, out.End, out.Damage = rp.epoch, sc.end, append(out.Damage, state.damage...)
	out.addQueues(rp, in.held)
	return out, nil
}

// inspector counts what lies in files.
type inspector struct {
	out         *Inspection
	progress    func(done, total int64)
	done, total int64
	fs          vfs.FS
	at          map[*logFile]*InspectedFile
	held        map[queueKey]*InspectedQueue
}

func (in *inspector) count(f *logFile, fr *frame) {
	if fr.kind != frameData {
		return
	}
	in.at[f].Batches++
	in.at[f].Bytes += int64(len(fr.payload))
	if f.covered {
		return // it is in a sorted file, too
	}
	k := queueKey{fr.partition, fr.gen}
	if in.held[k] == nil {
		in.held[k] = &InspectedQueue{}
	}
	in.held[k].Batches++
	in.held[k].Bytes += int64(len(fr.payload))
}

func (in *inspector) block(f *logFile, h *blockHeader, payload []byte) error {
	in.at[f].Blocks++
	in.at[f].End = h.end()
	for fr, err := range frames(payload, h.position+blockHeaderSize, h.frames) {
		if err != nil {
			return err
		}
		in.count(f, &fr)
	}
	in.tell(int64(h.padded))
	return nil
}

// walk counts what is in a sorted file.
func (in *inspector) walk(ctx context.Context, f *logFile) error {
	in.at[f].End = f.sorted.to
	defer in.tell(f.size)
	return walkSorted(ctx, in.fs, f, func(fr *frame) error {
		in.count(f, fr)
		return nil
	}, func(from, to ident.Position) {
		in.out.Damage = append(in.out.Damage, CorruptError{File: f.name, From: from, To: to, Reason: "frames not readable"})
	})
}

func (in *inspector) tell(n int64) {
	if in.done += n; in.progress != nil {
		in.progress(in.done, in.total)
	}
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
