package runs

import (
	"context"
	"errors"
	"math"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/skeinmq/skein/commitlog"
	"github.com/skeinmq/skein/internal/ident"
	"github.com/skeinmq/skein/internal/peer/peerpb"
)

const (
	// pieceBytes is how much of a run the server holds in memory at a time for one reader, but for a batch that is
	// larger, and the most that one message carries.
	pieceBytes = 1 << 20
	// readersAtOnce bounds the streams that a server reads for; what is more is refused, and tried again by its client.
	readersAtOnce = 64
	// releasesMost bounds the runs of one Release.
	releasesMost = 4096
)

// Server serves the runs in this broker's logs to the owners of their partitions.
type Server struct {
	peerpb.UnimplementedReadsServer
	log   func(ident.Log) *commitlog.Log
	marks func(ident.Partition) (Marks, bool)
	slots chan struct{}
}

// NewServer makes a server of the logs that log finds; nil is a log that is not in service here. It is asked at each
// request, on any goroutine, and so is marks, which knows the partitions that are open here.
func NewServer(log func(ident.Log) *commitlog.Log, marks func(ident.Partition) (Marks, bool)) *Server {
	return &Server{log: log, marks: marks, slots: make(chan struct{}, readersAtOnce)}
}

// queue finds the run of a request.
func (s *Server) queue(m *peerpb.RunRef) (Ref, *commitlog.Queue, error) {
	ref, err := refOf(m)
	if err != nil {
		return ref, nil, err
	}
	l := s.log(ref.Log)
	if l == nil {
		return ref, nil, status.Errorf(codes.Unavailable, "log %s is not in service here", ref.Log)
	}
	q, ok := l.Sealed(ref.Generation, ref.Partition)
	if !ok {
		return ref, nil, status.Errorf(codes.NotFound, "log %s does not hold %s of %s", ref.Log, ref.Generation, ref.Partition)
	}
	return ref, q, nil
}

// Read is of peerpb.ReadsServer.
func (s *Server) Read(rq *peerpb.ReadRequest, out grpc.ServerStreamingServer[peerpb.ReadReply]) error {
	ref, q, err := s.queue(rq.GetRun())
	if err != nil {
		return err
	}
	from, end := ident.Offset(rq.GetFrom()), min(ident.Offset(rq.GetEnd()), ref.End)
	if from < ref.Start || from >= end {
		return status.Errorf(codes.InvalidArgument, "read from %d to %d: not within %s", from, rq.GetEnd(), &ref) // O21
	}
	select {
	case s.slots <- struct{}{}:
		defer func() { <-s.slots }()
	default:
		return status.Error(codes.ResourceExhausted, "too many readers")
	}
	var records commitlog.Records
	defer records.Release()
	left := int(rq.GetMaxBytes())
	for first := rq.GetWholeFirst(); from < end && (left > 0 || first); first = false {
		opt := commitlog.ReadOptions{From: from, To: end, MaxBytes: max(min(left, pieceBytes), 0), AtLeastOne: first || left > pieceBytes}
		if err := q.Read(out.Context(), opt, &records); err != nil {
			return readStatus(err)
		}
		if records.Bytes == 0 {
			break
		}
		if err := sendPiece(out, &records); err != nil {
			return err
		}
		left -= records.Bytes
		from = records.Next
		records.Release()
	}
	if from == ident.Offset(rq.GetFrom()) && from >= q.HighWatermark() {
		return status.Errorf(codes.Unavailable, "%s is there up to %d only", &ref, q.HighWatermark())
	}
	return nil
}

// sendPiece sends what was read: whole batches in one message where they fit.
func sendPiece(out grpc.ServerStreamingServer[peerpb.ReadReply], records *commitlog.Records) error {
	if records.Bytes <= pieceBytes {
		buf := make([]byte, 0, records.Bytes)
		for _, b := range records.Slices {
			buf = append(buf, b...)
		}
		return out.Send(&peerpb.ReadReply{Batches: buf, Next: int64(records.Next)})
	}
	for i, b := range records.Slices {
		for len(b) > pieceBytes {
			if err := out.Send(&peerpb.ReadReply{Batches: b[:pieceBytes]}); err != nil {
				return err
			}
			b = b[pieceBytes:]
		}
		last := &peerpb.ReadReply{Batches: b}
		if i == len(records.Slices)-1 {
			last.Next = int64(records.Next)
		}
		if err := out.Send(last); err != nil {
			return err
		}
	}
	return nil
}

// readStatus says to a client what is wrong with a run.
func readStatus(err error) error {
	code := codes.Unavailable
	switch {
	case errors.Is(err, commitlog.ErrOutOfRange):
		code = codes.OutOfRange
	case errors.Is(err, commitlog.ErrCorrupt):
		code = codes.DataLoss
	case errors.Is(err, context.Canceled):
		code = codes.Canceled
	}
	return status.Error(code, err.Error())
}

// Segments is of peerpb.ReadsServer.
func (s *Server) Segments(_ context.Context, rq *peerpb.SegmentsRequest) (*peerpb.SegmentsReply, error) {
	ref, q, err := s.queue(rq.GetRun())
	if err != nil {
		return nil, err
	}
	reply := &peerpb.SegmentsReply{Complete: q.Sealed()} // before the segments, which may grow until then
	for seg, err := range q.Segments() {
		if err != nil {
			return nil, readStatus(err)
		}
		if seg.First >= ref.End {
			break // O21
		}
		reply.Segments = append(reply.Segments, &peerpb.Segment{
			First: int64(seg.First), End: int64(min(seg.End, ref.End)), Bytes: seg.Bytes, MaxTimestamp: seg.MaxTimestamp,
		})
	}
	return reply, nil
}

// Lookup is of peerpb.ReadsServer.
func (s *Server) Lookup(ctx context.Context, rq *peerpb.LookupRequest) (*peerpb.LookupReply, error) {
	ref, q, err := s.queue(rq.GetRun())
	if err != nil {
		return nil, err
	}
	if !q.Sealed() {
		return nil, status.Errorf(codes.Unavailable, "%s is not sealed here as yet", &ref)
	}
	from := max(ident.Offset(rq.GetFrom()), ref.Start)
	found, ok, err := Local{q}.Lookup(ctx, Question{From: from, Timestamp: rq.GetTimestamp(), Greatest: rq.GetMaxTimestamp()})
	if err != nil {
		return nil, readStatus(err)
	}
	if !ok || found.Offset >= ref.End { // O21
		return &peerpb.LookupReply{}, nil
	}
	return &peerpb.LookupReply{Found: true, Offset: int64(found.Offset), Timestamp: found.Timestamp}, nil
}

// Release is of peerpb.ReadsServer. A run that is not here has nothing to let go of.
func (s *Server) Release(_ context.Context, rq *peerpb.ReleaseRequest) (*peerpb.ReleaseReply, error) {
	if len(rq.GetRuns()) > releasesMost {
		return nil, status.Errorf(codes.InvalidArgument, "release of %d runs at once", len(rq.GetRuns()))
	}
	var errs []error
	for _, m := range rq.GetRuns() {
		ref, q, err := s.queue(m)
		switch {
		case status.Code(err) == codes.NotFound:
		case err != nil:
			errs = append(errs, err)
		default:
			q.Floor(min(ref.Start, ref.End))
		}
	}
	if len(errs) > 0 {
		return nil, status.Error(status.Code(errs[0]), errs[0].Error())
	}
	return &peerpb.ReleaseReply{}, nil
}

// orMax is an end that a caller left open.
func orMax(to ident.Offset) ident.Offset {
	if to <= 0 {
		return math.MaxInt64
	}
	return to
}
