package witness

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/skeinmq/skein/internal/ident"
	"github.com/skeinmq/skein/internal/peer/peerpb"
)

// Server serves a Member to the owners of other brokers' logs, and to controllers that seal.
type Server struct {
	peerpb.UnimplementedWitnessServer
	member  *Member
	metrics *Metrics
	log     *slog.Logger
}

// NewServer wraps a member. metrics and logger may be nil.
func NewServer(m *Member, metrics *Metrics, logger *slog.Logger) *Server {
	if metrics == nil {
		metrics = NewMetrics(nil)
	}
	if logger == nil {
		logger = slog.New(slog.DiscardHandler)
	}
	metrics.member.Store(m)
	return &Server{member: m, metrics: metrics, log: logger}
}

// Member is what the server serves.
func (s *Server) Member() *Member { return s.member }

// Follow serves one session on a stream of its own, until either end is done with it; the caller closes it.
func (s *Server) Follow(conn net.Conn) {
	out := &sender{conn: conn}
	hello, err := s.follow(conn, out)
	if err == nil {
		return
	}
	r := refusalOf(err)
	s.metrics.refused.WithLabelValues(r.String()).Inc()
	s.log.Warn("witness refuses an owner", "component", "witness", "table", hello.Key.String(), "owner", hello.Owner.String(), "error", err)
	if out.add(&peerpb.FollowReply{Refused: r, Why: err.Error()}) != nil || out.flush() != nil {
		return
	}
	// The owner closes when it has read why. Were the stream closed here, with bytes of the owner's not read, it would be reset,
	// and the answer lost on the way.
	_ = conn.SetReadDeadline(time.Now().Add(ownerTimeout))
	_, _ = io.Copy(io.Discard, conn)
}

// ownerTimeout is how long an owner may take for the first message of a session, and for closing it after the last.
const ownerTimeout = 5 * time.Second

// follow handles the messages of a session until one is refused: the error says why. nil: the stream has ended.
func (s *Server) follow(conn net.Conn, out *sender) (Hello, error) {
	in := readMessages(conn)
	_ = conn.SetReadDeadline(time.Now().Add(ownerTimeout))
	hello, err := s.hello(in)
	if err != nil {
		return hello, malformed(err)
	}
	_ = conn.SetReadDeadline(time.Time{})
	session, err := s.member.Hello(hello)
	if err != nil {
		return hello, err
	}
	var req peerpb.FollowRequest
	for {
		if err := in.next(&req); err != nil {
			return hello, malformed(err)
		}
		msg, err := messageOf(&req)
		if err != nil {
			return hello, err
		}
		recorded, tell, err := session.Handle(msg)
		if err != nil {
			return hello, err
		}
		if tell {
			if err := out.replace(&peerpb.FollowReply{Recorded: recorded}); err != nil { // a number covers all below (O5)
				return hello, err
			}
		}
		if !in.whole() && out.flush() != nil { // while there is more to handle, nobody waits for this answer alone
			return hello, nil
		}
	}
}

// malformed is an error of a stream, if it is one to refuse a session with.
func malformed(err error) error {
	if errors.Is(err, ErrMalformed) {
		return err
	}
	return nil
}

// hello reads what a session begins with.
func (s *Server) hello(in *messages) (Hello, error) {
	var first peerpb.FollowRequest
	if err := in.next(&first); err != nil {
		return Hello{}, err
	}
	h := first.GetHello()
	if h == nil || len(h.Log) != idBytes {
		return Hello{}, fmt.Errorf("%w: a stream begins with a hello", ErrMalformed)
	}
	return Hello{
		Key:   Key{Log: ident.Log(h.Log), Epoch: ident.LogEpoch(h.Epoch)},
		Owner: ID{ident.Broker(h.Owner), h.OwnerIncarnation}, Session: h.Session,
		Member: ID{s.member.ID().Broker, h.Incarnation},
	}, nil
}

// messageOf decodes what follows a hello.
func messageOf(req *peerpb.FollowRequest) (Message, error) {
	switch {
	case req.GetDelta() != nil:
		d := req.GetDelta()
		return Message{Delta: &Delta{Number: d.Number, Updates: d.Updates}}, nil
	case req.GetTable() != nil:
		t := req.GetTable()
		gens, err := generationsOf(t.Generations)
		return Message{Table: &TablePart{Generations: gens, Done: t.Done, Next: t.Next}}, err
	}
	return Message{}, ErrMalformed
}

func generationsOf(in []*peerpb.GenerationStates) ([]ident.GenerationState, error) {
	out := make([]ident.GenerationState, len(in))
	for i, g := range in {
		states, err := ident.DecodeStates(g.GetStates())
		if err != nil {
			return nil, errors.Join(ErrMalformed, err)
		}
		n := g.GetGeneration()
		out[i] = ident.GenerationState{Partitions: states, Generation: ident.Generation{
			Group: ident.Group(n.GetGroup()), Epoch: ident.Epoch(n.GetEpoch()),
			Frame: ident.Frame{Epoch: ident.LogEpoch(n.GetFrameEpoch()), Position: ident.Position(n.GetFramePosition())},
		}}
	}
	return out, nil
}

func generationsPB(in []ident.GenerationState) []*peerpb.GenerationStates {
	out := make([]*peerpb.GenerationStates, len(in))
	for i := range in {
		g := in[i].Generation
		out[i] = &peerpb.GenerationStates{
			Generation: &peerpb.Generation{
				Group: int32(g.Group), Epoch: int32(g.Epoch), FrameEpoch: int64(g.Frame.Epoch), FramePosition: int64(g.Frame.Position),
			},
			States: ident.AppendStates(nil, in[i].Partitions),
		}
	}
	return out
}

// refusals pairs what a member says with how it travels.
var refusals = []struct {
	err error
	pb  peerpb.Refusal
}{
	{ErrSealed, peerpb.Refusal_REFUSAL_SEALED},
	{ErrGap, peerpb.Refusal_REFUSAL_GAP},
	{ErrOld, peerpb.Refusal_REFUSAL_OLD},
	{ErrIncarnation, peerpb.Refusal_REFUSAL_INCARNATION},
	{ErrFull, peerpb.Refusal_REFUSAL_FULL},
	{ErrMalformed, peerpb.Refusal_REFUSAL_MALFORMED},
}

func refusalOf(err error) peerpb.Refusal {
	for _, r := range refusals {
		if errors.Is(err, r.err) {
			return r.pb
		}
	}
	return peerpb.Refusal_REFUSAL_MALFORMED
}

func refusalError(r peerpb.Refusal) error {
	for _, known := range refusals {
		if known.pb == r {
			return known.err
		}
	}
	return ErrMalformed
}

// Seal is O10.
func (s *Server) Seal(req *peerpb.SealRequest, stream grpc.ServerStreamingServer[peerpb.SealReply]) error {
	if len(req.Log) != idBytes {
		return status.Error(codes.InvalidArgument, "no log")
	}
	key := Key{Log: ident.Log(req.Log), Epoch: ident.LogEpoch(req.Epoch)}
	t, err := s.member.Seal(key, req.Incarnation)
	if err != nil {
		s.log.Warn("witness was asked for what it does not know", "component", "witness", "table", key.String(), "error", err)
		return status.Error(codes.NotFound, err.Error())
	}
	s.log.Info("witness sealed a log", "component", "witness", "table", key.String(), "recorded", t.Recorded())
	var gens []ident.GenerationState
	n := 0
	flush := func() error {
		err := stream.Send(&peerpb.SealReply{Generations: generationsPB(gens)})
		gens, n = gens[:0], 0
		return err
	}
	for g, err := range t.Generations() {
		if err != nil {
			return status.Error(codes.Internal, err.Error())
		}
		for _, part := range tableParts([]ident.GenerationState{g}) {
			for _, piece := range part {
				gens = append(gens, piece)
				n += len(piece.Partitions) + 1
			}
			if n >= partSize {
				if err := flush(); err != nil {
					return err
				}
			}
		}
	}
	return flush()
}

// AskSeal has one member seal (log, epoch) and returns its table (O10). ErrUnknown: that member, or that incarnation of
// it, does not know it (O6); any other error leaves open whether it has sealed.
func AskSeal(ctx context.Context, conn grpc.ClientConnInterface, key Key, member ID) (*Table, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stream, err := peerpb.NewWitnessClient(conn).Seal(ctx, &peerpb.SealRequest{
		Log: key.Log[:], Epoch: int64(key.Epoch), Incarnation: member.Incarnation,
	})
	if err != nil {
		return nil, err
	}
	t := newTable(key)
	for {
		reply, err := stream.Recv()
		switch {
		case errors.Is(err, io.EOF):
			t.whole, t.sealed = true, true
			return t, nil
		case status.Code(err) == codes.NotFound:
			return nil, errors.Join(ErrUnknown, err)
		case err != nil:
			return nil, err
		}
		gens, err := generationsOf(reply.Generations)
		if err != nil {
			return nil, err
		}
		for i := range gens {
			t.add(&gens[i])
		}
	}
}
