package commitlog

import (
	"context"
	"iter"
	"slices"
	"sync/atomic"

	"github.com/skeinmq/skein/internal/ident"
)

// Queue is a physical queue: one partition in one generation, in this log.
// Its marks only move forward.
type Queue struct {
	partition ident.Partition
	run       *run
	since     ident.Position // frames of this queue lie at or past it
	start     ident.Offset   // immutable once others see the queue

	// Owned by the sequencer, and by recovery before it.
	next         ident.Offset // of the next batch
	pendingStart ident.Offset // log start, written but perhaps not committed
	prods        *producers   // nil: none

	stamp    uint32 // of the last snapshot that has it, or does not need it
	dropping bool   // its drop is in the log, perhaps not yet durable
	dropped  bool   // its drop was sequenced
	listed   bool   // among the sequencer's stateful queues
	toldAt   int32  // its place among the updates of that block's data frames
	toldIn   uint64 // the block whose updates have it

	mark uint64 // owned by the completer: the block that touched it last

	hw, lso, logStart atomic.Int64
	floor             atomic.Int64
	gone              atomic.Bool
	trimming          atomic.Bool
	segs              atomic.Pointer[[]segment]
	tail              atomic.Pointer[tail]
	watchers          atomic.Pointer[[]Watcher]
}

// Partition and Generation name the queue.
func (q *Queue) Partition() ident.Partition { return q.partition }

// Generation names the period of the group that the queue belongs to.
func (q *Queue) Generation() ident.Generation { return q.run.gen }

// Open reports whether the queue's generation takes appends.
func (q *Queue) Open() bool { return q.run.is(runOpen) && !q.gone.Load() }

// Sealed reports whether the run has its end on this disk: its high watermark moves no more.
func (q *Queue) Sealed() bool { return q.run.is(runSealed) }

// Start is the first offset of the run: the end of the one before.
func (q *Queue) Start() ident.Offset { return q.start }

// HighWatermark is the end of what is committed: the end of the run when sealed.
func (q *Queue) HighWatermark() ident.Offset { return ident.Offset(q.hw.Load()) }

// LastStable is the last stable offset: at most HighWatermark.
func (q *Queue) LastStable() ident.Offset { return ident.Offset(min(q.lso.Load(), q.hw.Load())) }

// LogStart is the committed log start as this generation knows it.
func (q *Queue) LogStart() ident.Offset { return ident.Offset(q.logStart.Load()) }

// SetLogStart moves the log start, durably, before it returns (O4, O18). Moving back is
// a no-op; beyond the high watermark is ErrOutOfRange. Open generations only.
func (q *Queue) SetLogStart(ctx context.Context, to ident.Offset) error {
	return q.run.log.setLogStart(ctx, q, to)
}

// Floor tells the log that nothing of this run below to will ever be read again, so that
// files can go. It is not written down: the owner says it again after a restart.
func (q *Queue) Floor(to ident.Offset) { q.setFloor(to) }

// ReadOptions bounds one read.
type ReadOptions struct {
	From     ident.Offset
	To       ident.Offset // exclusive; clamped to HighWatermark. <= 0: HighWatermark
	MaxBytes int          // whole batches up to this; see AtLeastOne
	// AtLeastOne returns the first batch even when it exceeds MaxBytes (KIP-74).
	AtLeastOne bool
}

// Records is the outcome of a read: whole batches, contiguous from the one that contains
// From. The slices are valid until Release, and read-only. Records may be reused.
type Records struct {
	Slices [][]byte
	Bytes  int
	Cold   int          // of Bytes, those that came from the disk
	Next   ident.Offset // the offset after the last batch; From when there is none

	pins   []*chunk
	plan   []located
	pack   *chunk // the last of pins that small reads go into, filled up to packed
	packed int
}

// Release lets go of the memory behind Slices and empties r for reuse.
func (r *Records) Release() { r.release() }

// Read appends what the options allow to dst (which is empty or was released). From memory
// it does not block; older data is read from disk on a bounded number of threads.
// ErrOutOfRange when From is outside [max(Start, LogStart), HighWatermark]; a CorruptError
// when the first batch that it would return is damaged.
func (q *Queue) Read(ctx context.Context, opt ReadOptions, dst *Records) error {
	return q.read(ctx, opt, dst)
}

// Stamp is an offset with its record batch's timestamp and leader epoch.
type Stamp struct {
	Offset    ident.Offset // base offset of the batch
	Last      ident.Offset // last offset of the batch
	Timestamp int64        // its max timestamp
}

// FindTime returns the first committed batch at or after from whose max timestamp is >= ts.
// The caller looks inside the batch.
func (q *Queue) FindTime(ctx context.Context, from ident.Offset, ts int64) (Stamp, bool, error) {
	return q.findTime(ctx, from, ts)
}

// MaxTime returns the committed batch with the greatest max timestamp (the first such) at or after from.
func (q *Queue) MaxTime(ctx context.Context, from ident.Offset) (Stamp, bool, error) {
	return q.maxTime(ctx, from)
}

// Segment is what one log file holds of a queue: retention decides by it, as Kafka does by
// its segment files.
type Segment struct {
	First, End   ident.Offset
	Bytes        int64
	MaxTimestamp int64
	Unsealed     bool // still in the file that is being written
}

// Segments iterates the committed segments of the run from LogStart on, in offset order.
func (q *Queue) Segments() iter.Seq2[Segment, error] { return q.segments() }

// Size is the committed bytes from LogStart on (exact at batch granularity is not promised
// for the segment that LogStart cuts).
func (q *Queue) Size() int64 { return q.size() }

// Producers returns the deduplication state, ordered by producer id, for DescribeProducers.
func (q *Queue) Producers(ctx context.Context) ([]ident.ProducerState, error) {
	return q.run.log.producersOf(ctx, q)
}

// Watcher is told that a queue's high watermark, last stable offset or log start moved, or
// that it was frozen, sealed or dropped. Notify runs on the log's completing goroutine: it must not block.
type Watcher interface{ Notify(q *Queue) }

// Watch registers w for every later change of q until Unwatch. A watcher may be registered once per queue.
func (q *Queue) Watch(w Watcher) {
	for {
		old := q.watchers.Load()
		var next []Watcher
		if old != nil {
			next = append(next, *old...)
		}
		next = append(next, w)
		if q.watchers.CompareAndSwap(old, &next) {
			return
		}
	}
}

// Unwatch ends a Watch; a Notify that is under way may still arrive.
func (q *Queue) Unwatch(w Watcher) {
	for {
		old := q.watchers.Load()
		if old == nil {
			return
		}
		i := slices.Index(*old, w)
		if i < 0 {
			return
		}
		var next *[]Watcher
		if len(*old) > 1 {
			rest := slices.Delete(slices.Clone(*old), i, i+1)
			next = &rest
		}
		if q.watchers.CompareAndSwap(old, next) {
			return
		}
	}
}
