package commitlog

import "github.com/skeinmq/skein/internal/ident"

// Batch is one record batch (v2, validated, exactly one) to append. The log stamps
// base offset and leader epoch into its own copy; Data is not changed and may be
// reused once Done was called.
type Batch struct {
	Queue *Queue
	Data  []byte

	// Facts of the batch header, read by who validated it.
	Records       int32 // lastOffsetDelta + 1
	MaxTimestamp  int64
	ProducerID    int64 // -1: none
	ProducerEpoch int16
	BaseSequence  int32
	Transactional bool
	Control       bool

	Result Result
}

// Result of one batch, valid once Done was called.
type Result struct {
	// Err is nil, or wraps one of the package's sentinels. ErrDuplicate comes with the
	// Base of the first append, after that one is committed.
	Err      error
	Base     ident.Offset
	LogStart ident.Offset
	// Timestamp of the earlier append of a duplicate, else -1.
	Timestamp int64
}

// Append is one caller's batches for one log: they enter the log together, in order,
// and Done is called once when all are committed or refused. Done runs on the log's
// completing goroutine: it must not block and must not call back into the log.
type Append struct {
	Batches []Batch
	Done    func(*Append)

	// NotifyTag is the caller's; the log does not touch it.
	Tag any

	held int // batches that wait for the end of a freeze; owned by the sequencer
}

// Append hands a to the sequencer and returns at once. It never blocks: the caller
// bounds the bytes in flight.
func (l *Log) Append(a *Append) {
	if err := l.inbox.put(submission{a: a}); err != nil {
		l.late.Go(func() { // not on the caller's goroutine: it may hold what Done takes
			for i := range a.Batches {
				a.Batches[i].Result = Result{Base: -1, Timestamp: -1}
			}
			failAppend(a, err)
		})
	}
}
