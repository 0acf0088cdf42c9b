package host

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/skeinmq/skein/commitlog"
	"github.com/skeinmq/skein/internal/ident"
	"github.com/skeinmq/skein/internal/peer/peerpb"
)

const (
	// pieceBytes of states go into one message, unless one partition has more.
	pieceBytes = 1 << 20
	// prepareBytes bounds the states of one Prepare: what a server holds in memory for a caller.
	prepareBytes = 1 << 30
	// moveGroups bounds the groups of one Move.
	moveGroups = 1 << 16
)

// Service is peerpb's Owner for a Host.
type Service struct {
	peerpb.UnimplementedOwnerServer
	h *Host
}

// NewService makes the service; it answers for logs once they are in service.
func NewService(h *Host) *Service { return &Service{h: h} }

// Prepare is of peerpb.OwnerServer. Each part names the log and the epoch; an opening with the group and epoch of the
// one before it goes on with that one's states.
func (s *Service) Prepare(in grpc.ClientStreamingServer[peerpb.PrepareRequest, peerpb.PrepareReply]) error {
	var log ident.Log
	var epoch ident.LogEpoch
	var openings []commitlog.Opening
	size := 0
	for first := true; ; first = false {
		part, err := in.Recv()
		if err == io.EOF {
			break
		}
		if err != nil {
			return err
		}
		id, err := logID(part.GetLog())
		if err != nil {
			return err
		}
		if first {
			log, epoch = id, ident.LogEpoch(part.GetEpoch())
			if l := s.h.Hosted(log); l == nil || l.Epoch != epoch { // before the rest is sent
				return status.Errorf(codes.FailedPrecondition, "prepare in log %s at epoch %d: %v", log, epoch, ErrNotHosted)
			}
		}
		if id != log || ident.LogEpoch(part.GetEpoch()) != epoch {
			return status.Error(codes.InvalidArgument, "one request prepares in one log, at one epoch")
		}
		for _, o := range part.GetOpenings() {
			if size += len(o.GetStates()); size > prepareBytes {
				return status.Errorf(codes.ResourceExhausted, "more than %d bytes of states", prepareBytes)
			}
			if openings, err = addOpening(openings, o); err != nil {
				return status.Error(codes.InvalidArgument, err.Error())
			}
		}
	}
	frames, err := s.h.Prepare(in.Context(), log, epoch, openings)
	if err != nil {
		return statusOf(err)
	}
	reply := &peerpb.PrepareReply{Frames: make([]*peerpb.Frame, len(frames))}
	for i, f := range frames {
		reply.Frames[i] = &peerpb.Frame{Epoch: int64(f.Epoch), Position: int64(f.Position)}
	}
	return in.SendAndClose(reply)
}

// addOpening adds one part of an opening.
func addOpening(to []commitlog.Opening, o *peerpb.Opening) ([]commitlog.Opening, error) {
	states, err := commitlog.DecodeStates(o.GetStates())
	if err != nil {
		return nil, fmt.Errorf("states of group %d: %w", o.GetGroup(), err)
	}
	group, epoch := ident.Group(o.GetGroup()), ident.Epoch(o.GetEpoch())
	if group < 0 || epoch < 0 || o.GetCeiling() < 0 {
		return nil, fmt.Errorf("opening of group %d at epoch %d", group, epoch)
	}
	if n := len(to); n > 0 && to[n-1].Group == group && to[n-1].Epoch == epoch {
		to[n-1].State = append(to[n-1].State, states...)
		return to, nil
	}
	return append(to, commitlog.Opening{Group: group, Epoch: epoch, State: states, Ceiling: ident.Offset(o.GetCeiling())}), nil
}

// Move is of peerpb.OwnerServer.
func (s *Service) Move(ctx context.Context, rq *peerpb.MoveRequest) (*peerpb.MoveReply, error) {
	to, err := logID(rq.GetTo())
	if err != nil {
		return nil, err
	}
	if len(rq.GetGroups()) > moveGroups {
		return nil, status.Errorf(codes.InvalidArgument, "%d groups, at most %d", len(rq.GetGroups()), moveGroups)
	}
	if n := len(rq.GetEpochs()); n > 0 && n != len(rq.GetGroups()) {
		return nil, status.Errorf(codes.InvalidArgument, "%d epochs of %d groups", n, len(rq.GetGroups()))
	}
	groups := make([]ident.Group, len(rq.GetGroups()))
	var epochs []ident.Epoch
	for _, e := range rq.GetEpochs() {
		epochs = append(epochs, ident.Epoch(e))
	}
	for i, g := range rq.GetGroups() {
		groups[i] = ident.Group(g)
	}
	reply := &peerpb.MoveReply{}
	for _, v := range s.h.MoveAt(ctx, groups, epochs, to) {
		reply.Groups = append(reply.Groups, movedGroup(v, v.Err))
	}
	return reply, nil
}

func movedGroup(v Moved, err error) *peerpb.MovedGroup {
	m := &peerpb.MovedGroup{Group: int32(v.Group), Epoch: int32(v.Epoch), PauseMs: float64(v.Pause) / float64(time.Millisecond)}
	if err != nil {
		m.Error = err.Error()
	}
	return m
}

// Split is of peerpb.OwnerServer.
func (s *Service) Split(ctx context.Context, rq *peerpb.SplitRequest) (*peerpb.MovedGroup, error) {
	v, err := s.h.Split(ctx, rq.GetTopic(), rq.GetPartition(), ident.Group(rq.GetGroup()))
	return movedGroup(v, err), nil
}

// AwaitMap is of peerpb.OwnerServer.
func (s *Service) AwaitMap(ctx context.Context, rq *peerpb.AwaitMapRequest) (*peerpb.AwaitMapReply, error) {
	if err := s.h.AwaitMap(ctx, rq.GetRevision()); err != nil {
		return nil, status.FromContextError(err).Err()
	}
	return &peerpb.AwaitMapReply{}, nil
}

func logID(b []byte) (id ident.Log, err error) {
	if len(b) != len(id) {
		return id, status.Errorf(codes.InvalidArgument, "a log's id has %d bytes, not %d", len(id), len(b))
	}
	return ident.Log(b), nil
}

func statusOf(err error) error {
	switch {
	case errors.Is(err, ErrNotHosted), errors.Is(err, commitlog.ErrFenced), errors.Is(err, commitlog.ErrNotOpen):
		return status.Error(codes.FailedPrecondition, err.Error())
	case errors.Is(err, commitlog.ErrFull):
		return status.Error(codes.ResourceExhausted, err.Error())
	case errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
		return status.FromContextError(err).Err()
	}
	return status.Error(codes.Unavailable, err.Error())
}
