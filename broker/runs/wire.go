package runs

import (
	"errors"
	"fmt"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/skeinmq/skein/internal/ident"
	"github.com/skeinmq/skein/internal/peer/peerpb"
)

// Ref names a run: a partition in a generation, in a log, with the bounds that the map gives it.
type Ref struct {
	Log        ident.Log
	Generation ident.Generation
	Partition  ident.Partition
	Start, End ident.Offset // End is exclusive
	// Gap says that the run may hold less than its end says, as it was sealed at its ceiling (ADR 10).
	Gap bool
}

// Message is the reference as it is sent.
func (r *Ref) Message() *peerpb.RunRef {
	g := r.Generation
	return &peerpb.RunRef{
		Log: r.Log[:], Topic: r.Partition.Topic[:], Index: r.Partition.Index, Start: int64(r.Start), End: int64(r.End),
		Generation: &peerpb.Generation{
			Group: int32(g.Group), Epoch: int32(g.Epoch), FrameEpoch: int64(g.Frame.Epoch), FramePosition: int64(g.Frame.Position),
		},
	}
}

var errRef = errors.New("reference to a run is not complete")

func refOf(m *peerpb.RunRef) (Ref, error) {
	g := m.GetGeneration()
	if m == nil || g == nil || len(m.Log) != len(ident.Log{}) || len(m.Topic) != len(ident.Topic{}) || m.Start < 0 || m.End < m.Start {
		return Ref{}, status.Error(codes.InvalidArgument, errRef.Error())
	}
	return Ref{
		Log: ident.Log(m.Log), Partition: ident.Partition{Topic: ident.Topic(m.Topic), Index: m.Index},
		Start: ident.Offset(m.Start), End: ident.Offset(m.End),
		Generation: ident.Generation{
			Group: ident.Group(g.Group), Epoch: ident.Epoch(g.Epoch),
			Frame: ident.Frame{Epoch: ident.LogEpoch(g.FrameEpoch), Position: ident.Position(g.FramePosition)},
		},
	}, nil
}

func (r *Ref) String() string {
	return fmt.Sprintf("%s [%d,%d) of generation %s in log %s", r.Partition, r.Start, r.End, r.Generation, r.Log)
}
