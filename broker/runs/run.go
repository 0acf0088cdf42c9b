// Package runs reads the runs of a partition, wherever their logs are: in this process, or in another broker's, which
// is asked through the internal listener (peerpb Reads). Client asks, Server answers.
//
// It promises that a run in another broker's log is read batch for batch as it was written, never outside the bounds
// that the map gives it (O21), in bounded memory. It refuses to know topics, clients and Kafka's protocol, and who
// owns what: it is told.
package runs

import (
	"context"
	"errors"

	"github.com/skeinmq/skein/commitlog"
	"github.com/skeinmq/skein/internal/ident"
	"github.com/skeinmq/skein/protocol/record"
)

// ErrAway: the records exist, in a log that cannot be reached now. They can be read when it is back.
var ErrAway = errors.New("the log is not available")

// ErrMissing: the log is there, the run is not in it.
var ErrMissing = errors.New("the log does not hold the run")

// Run is a run that can be read.
type Run interface {
	// Epoch is the leader epoch of the run's records.
	Epoch() ident.Epoch
	// Extent is where the run's records begin and end; the same when it has none. It differs from the bounds that the
	// map names only where records were released, and in a run that was sealed at its ceiling.
	Extent(ctx context.Context) (first, end ident.Offset, err error)
	// Read is commitlog's Queue.Read. It may return less than it could, but not nothing.
	Read(ctx context.Context, opt commitlog.ReadOptions, dst *commitlog.Records) error
	// Lookup finds a record by its time.
	Lookup(ctx context.Context, by Question) (Found, bool, error)
	// Segments lists what is stored, in offset order: retention and sizes go by it. Do not change it.
	Segments(ctx context.Context) ([]commitlog.Segment, error)
}

// Question asks for the first record at or after From with at least the Timestamp (milliseconds since 1970), or, with
// Greatest, for the first one of those with the greatest timestamp.
type Question struct {
	From      ident.Offset
	Timestamp int64
	Greatest  bool
}

// Found is a record.
type Found struct {
	Offset    ident.Offset
	Timestamp int64
}

// Local is a run in a log of this process.
type Local struct{ *commitlog.Queue }

// Epoch is Run's.
func (l Local) Epoch() ident.Epoch { return l.Generation().Epoch }

// Extent is Run's.
func (l Local) Extent(context.Context) (first, end ident.Offset, err error) {
	end = l.HighWatermark()
	return min(max(l.Start(), l.LogStart()), end), end, nil
}

// Segments is Run's.
func (l Local) Segments(context.Context) ([]commitlog.Segment, error) {
	var out []commitlog.Segment
	for s, err := range l.Queue.Segments() {
		if err != nil {
			return nil, err
		}
		out = append(out, s)
	}
	return out, nil
}

// Lookup is Run's.
func (l Local) Lookup(ctx context.Context, by Question) (Found, bool, error) {
	find := func() (commitlog.Stamp, bool, error) { return l.FindTime(ctx, by.From, by.Timestamp) }
	if by.Greatest {
		find = func() (commitlog.Stamp, bool, error) { return l.MaxTime(ctx, by.From) }
	}
	s, ok, err := find()
	if err != nil || !ok {
		return Found{}, false, err
	}
	found, err := l.inside(ctx, s, by)
	return found, err == nil, err
}

// inside finds the record in a batch: the first at or after the timestamp, or the first with the batch's greatest one.
func (l Local) inside(ctx context.Context, s commitlog.Stamp, by Question) (Found, error) {
	var records commitlog.Records
	defer records.Release()
	from := max(s.Offset, by.From, l.LogStart())
	if err := l.Read(ctx, commitlog.ReadOptions{From: from, To: s.Last + 1, MaxBytes: 1, AtLeastOne: true}, &records); err != nil {
		return Found{}, err
	}
	ts := by.Timestamp
	if by.Greatest {
		ts = s.Timestamp
	}
	for _, slice := range records.Slices {
		for r, err := range record.Records(slice, 0) {
			if err != nil {
				return Found{}, err
			}
			if ident.Offset(r.Offset) >= from && r.Timestamp >= ts {
				return Found{ident.Offset(r.Offset), r.Timestamp}, nil
			}
		}
	}
	return Found{s.Last, s.Timestamp}, nil
}
