package controller

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"github.com/skeinmq/skein/internal/ident"
	"github.com/skeinmq/skein/internal/peer/peerpb"
)

// Service answers other brokers' calls: commands, membership, who leads. Register it with
// peerpb.RegisterControllerServer.
type Service struct {
	peerpb.UnimplementedControllerServer
	Controller *Controller
	// Cluster returns the cluster's id and the endpoints of the map's store, for brokers that join.
	Cluster func() (id string, etcd []string)
	// Admit says whether a broker may join, before anything is changed; nil: yes.
	Admit func(ctx context.Context, rq *peerpb.JoinRequest) error
	// Runs says whether the process of a broker answers; nil: no.
	Runs func(ctx context.Context, b ident.Broker) bool
	// Changing is called before a broker's vote changes (verb promote, demote or remove), on the
	// active controller: what else a voter is has to follow, or comes first; nil: nothing.
	Changing func(ctx context.Context, verb string, m Member) error
	// Sessions serves the heartbeats; nil: UNIMPLEMENTED.
	Sessions func(grpc.BidiStreamingServer[peerpb.Heartbeat, peerpb.HeartbeatReply]) error
}

// passedOn marks a call that a follower passes to the leader: it is passed on once.
const passedOn = "skein-passed-on"

// Session implements peerpb.ControllerServer.
func (s *Service) Session(stream grpc.BidiStreamingServer[peerpb.Heartbeat, peerpb.HeartbeatReply]) error {
	if s.Sessions == nil {
		return s.UnimplementedControllerServer.Session(stream)
	}
	return s.Sessions(stream)
}

// Apply implements peerpb.ControllerServer.
func (s *Service) Apply(ctx context.Context, rq *peerpb.ApplyRequest) (*peerpb.ApplyReply, error) {
	c := s.Controller
	if len(rq.GetCommand()) > MaxEntryBytes {
		return nil, status.Error(codes.InvalidArgument, ErrTooLarge.Error())
	}
	r := c.raft.Load()
	if r == nil {
		return nil, status.Error(codes.FailedPrecondition, ErrNotLeader.Error())
	}
	out, err := c.submit(ctx, rq.GetCommand())
	if err != nil {
		return nil, statusOf(err)
	}
	return &peerpb.ApplyReply{Index: out.index, Result: appendResult(nil, &out), Error: replyOf(out.err)}, nil
}

// Leader implements peerpb.ControllerServer.
func (s *Service) Leader(_ context.Context, rq *peerpb.LeaderRequest) (*peerpb.LeaderReply, error) {
	c := s.Controller
	id, addr, _ := c.Leader()
	reply := &peerpb.LeaderReply{Leader: int32(id), Address: addr, Term: int64(c.Term())}
	if rq.GetConfirm() {
		index, err := c.confirmed()
		if err != nil {
			return nil, statusOf(err)
		}
		reply.Applied = index
	}
	return reply, nil
}

// Join implements peerpb.ControllerServer.
func (s *Service) Join(ctx context.Context, rq *peerpb.JoinRequest) (*peerpb.JoinReply, error) {
	if rq.GetAddress() == "" {
		return nil, status.Error(codes.InvalidArgument, "the address is empty")
	}
	if _, leads := s.Controller.Leads(); !leads {
		return pass(ctx, s.Controller, rq, peerpb.ControllerClient.Join)
	}
	id, etcd := "", []string(nil)
	if s.Cluster != nil {
		id, etcd = s.Cluster()
	}
	if theirs := rq.GetCluster(); theirs != "" && theirs != id {
		return nil, status.Errorf(codes.PermissionDenied, "broker %d belongs to cluster %s, this is %s", rq.GetBroker(), theirs, id)
	}
	if s.Admit != nil {
		if err := s.Admit(ctx, rq); err != nil {
			return nil, status.Error(codes.PermissionDenied, err.Error())
		}
	}
	if err := s.Controller.Join(ctx, Member{Broker: ident.Broker(rq.GetBroker()), Address: rq.GetAddress()}); err != nil {
		return nil, statusOf(err)
	}
	return &peerpb.JoinReply{Cluster: id, Members: s.list(), Etcd: etcd}, nil
}

// Voters implements peerpb.ControllerServer.
func (s *Service) Voters(ctx context.Context, rq *peerpb.VotersRequest) (*peerpb.VotersReply, error) {
	c, b := s.Controller, ident.Broker(rq.GetBroker())
	if _, leads := c.Leads(); !leads {
		return pass(ctx, c, rq, peerpb.ControllerClient.Voters)
	}
	var err error
	switch rq.GetVerb() {
	case "list":
	case "promote", "demote", "remove":
		err = s.change(ctx, rq.GetVerb(), b)
	case "replace":
		err = s.replace(ctx, b, ident.Broker(rq.GetBy()))
	default:
		return nil, status.Errorf(codes.InvalidArgument, "verb %q: want list, promote, demote, remove or replace", rq.GetVerb())
	}
	if err != nil {
		return nil, err
	}
	return &peerpb.VotersReply{Members: s.list()}, nil
}

// change changes one member. What it refuses it refuses before anything else follows.
func (s *Service) change(ctx context.Context, verb string, b ident.Broker) error {
	c := s.Controller
	if err := c.mayEdit(ctx, verb, b); err != nil {
		return statusOf(err)
	}
	if verb == "remove" && s.Runs != nil && s.Runs(ctx, b) {
		return status.Errorf(codes.InvalidArgument, "remove broker %d: its process runs: stop it first, or demote it and it goes on without a vote", b)
	}
	if s.Changing != nil {
		if err := s.Changing(ctx, verb, Member{Broker: b, Address: c.Address(b)}); err != nil {
			return status.Error(codes.Aborted, err.Error())
		}
	}
	do := map[string]func(context.Context, ident.Broker) error{"promote": c.Promote, "demote": c.Demote, "remove": c.Remove}[verb]
	if err := do(ctx, b); err != nil {
		return statusOf(err)
	}
	return nil
}

// replace gives the vote of one broker to another one. A voter that runs keeps its vote until the other one has its own, and
// stays a member. One that is gone is removed first: it counts towards the quorum and can do nothing for it. What was
// interrupted half way is finished by asking again.
func (s *Service) replace(ctx context.Context, b, by ident.Broker) error {
	members := s.Controller.Members()
	find := func(id ident.Broker) *Member {
		at := slices.IndexFunc(members, func(m Member) bool { return m.Broker == id })
		if at < 0 {
			return nil
		}
		return &members[at]
	}
	was, next := find(b), find(by)
	votes := 0
	for _, m := range members {
		if m.Voter {
			votes++
		}
	}
	fail := func(text string, args ...any) error {
		return status.Errorf(codes.InvalidArgument, "replace voter %d by %d: %s", b, by, fmt.Sprintf(text, args...))
	}
	switch {
	case b == by:
		return fail("they are the same")
	case next == nil:
		return fail("broker %d is no member: start it with --join first", by)
	case next.Voter && (was == nil || !was.Voter):
		return nil // it is so already
	case was == nil && votes%2 == 1:
		return fail("broker %d is no member", b)
	case was != nil && !was.Voter:
		return fail("broker %d does not vote", b)
	case next.Voter && votes%2 == 1:
		return fail("broker %d votes already", by)
	case was != nil && (s.Runs == nil || !s.Runs(ctx, b)):
		if err := s.change(ctx, "remove", b); err != nil {
			return err
		}
		return s.change(ctx, "promote", by)
	}
	if err := s.change(ctx, "promote", by); err != nil || was == nil {
		return err
	}
	return s.change(ctx, "demote", b)
}

func (s *Service) list() []*peerpb.Member {
	var out []*peerpb.Member
	for _, m := range s.Controller.Members() {
		out = append(out, &peerpb.Member{Broker: int32(m.Broker), Address: m.Address, Voter: m.Voter})
	}
	return out
}

// pass hands a call to the leader, unless it was handed over already.
func pass[Rq, Rp any](ctx context.Context, c *Controller, rq *Rq, call func(peerpb.ControllerClient, context.Context, *Rq, ...grpc.CallOption) (*Rp, error)) (*Rp, error) {
	if md, ok := metadata.FromIncomingContext(ctx); ok && len(md.Get(passedOn)) > 0 {
		return nil, status.Error(codes.Unavailable, ErrNotLeader.Error())
	}
	leader, _, known := c.Leader()
	if !known || leader == c.cfg.ID || c.cfg.Conns == nil {
		return nil, status.Error(codes.Unavailable, "no active controller is known")
	}
	conn, err := c.cfg.Conns.Conn(leader)
	if err != nil {
		return nil, status.Error(codes.Unavailable, err.Error())
	}
	return call(peerpb.NewControllerClient(conn), metadata.AppendToOutgoingContext(ctx, passedOn, "1"), rq)
}

// statusOf is an error as callers on other brokers get it: FAILED_PRECONDITION says that nothing was done,
// because this is not the active controller.
func statusOf(err error) error {
	code := codes.Unavailable
	switch {
	case errors.Is(err, ErrNotLeader), errors.Is(err, ErrClosed):
		code = codes.FailedPrecondition
	case errors.Is(err, ErrLastVoter), errors.Is(err, ErrNotMember):
		code = codes.InvalidArgument
	case errors.Is(err, context.DeadlineExceeded):
		code = codes.DeadlineExceeded
	}
	return status.Error(code, fmt.Sprint(err))
}
