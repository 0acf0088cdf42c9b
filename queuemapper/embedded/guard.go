package embedded

import (
	"context"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	"google.golang.org/grpc"
)

// etcd leaves a request that was on its way to a leader that died waiting for seven seconds, and one without a leader
// for five. A map that fails over within a second cannot: a request waits for a leader only so long as an election
// takes, and is given up, its outcome unknown, once another leader is there and has not answered.
const (
	leaderPatience = 2500 * time.Millisecond // without any leader
	leaderGrace    = 60 * time.Millisecond   // of a new leader, for what the old one had on its way
	leaderPoll     = 20 * time.Millisecond
)

// errGivenUp is the cause of a request's end by watchLeader.
var errGivenUp = rpctypes.ErrGRPCLeaderChanged

// guard runs do. Before it is begun: rpctypes.ErrNoLeader, and nothing happened. When it was given up: ErrLeaderChanged.
func (s *Server) guard(ctx context.Context, do func(context.Context) error) error {
	if err := s.awaitLeader(ctx); err != nil {
		return err
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	over := make(chan struct{})
	defer close(over)
	lead, term := s.etcd.Lead(), s.etcd.Term()
	watch := time.AfterFunc(leaderPoll, func() { s.watchLeader(over, cancel, lead, term) })
	defer watch.Stop()
	err := do(ctx)
	if err != nil && context.Cause(ctx) == errGivenUp {
		return errGivenUp
	}
	return err
}

func (s *Server) awaitLeader(ctx context.Context) error {
	if s.etcd.Lead() != 0 {
		return nil
	}
	patience := time.NewTimer(leaderPatience)
	defer patience.Stop()
	poll := time.NewTicker(leaderPoll)
	defer poll.Stop()
	for s.etcd.Lead() == 0 {
		if s.elsewhere.Load() {
			return rpctypes.ErrGRPCNoLeader
		}
		select {
		case <-poll.C:
		case <-patience.C:
			return rpctypes.ErrGRPCNoLeader
		case <-s.etcd.StoppingNotify():
			return rpctypes.ErrGRPCNoLeader
		case <-ctx.Done():
			return rpctypes.ErrGRPCNoLeader
		}
	}
	return nil
}

// Elsewhere says whether others have a leader that this member may not hear. As long as it hears none then, requests do not wait
// here: their clients know where to go.
func (s *Server) Elsewhere(yes bool) { s.elsewhere.Store(yes) }

// watchLeader cancels a request that outlived the leader which it was sent to.
func (s *Server) watchLeader(over <-chan struct{}, cancel context.CancelCauseFunc, lead, term uint64) {
	poll := time.NewTicker(leaderPoll)
	defer poll.Stop()
	var none, other time.Duration
	for {
		select {
		case <-over:
			return
		case <-poll.C:
		}
		switch now := s.etcd.Lead(); {
		case now == 0:
			none += leaderPoll
		case now != lead || s.etcd.Term() != term:
			other += leaderPoll
		}
		if none >= leaderPatience || none > 0 && s.elsewhere.Load() || other >= leaderGrace {
			cancel(errGivenUp)
			return
		}
	}
}

// guardCall guards what the clients of brokers ask.
func (s *Server) guardCall(ctx context.Context, rq any, info *grpc.UnaryServerInfo, next grpc.UnaryHandler) (out any, err error) {
	switch rq.(type) {
	case *pb.RangeRequest, *pb.PutRequest, *pb.DeleteRangeRequest, *pb.TxnRequest, *pb.LeaseGrantRequest, *pb.LeaseRevokeRequest:
	default:
		return next(ctx, rq)
	}
	err = s.guard(ctx, func(ctx context.Context) error { out, err = next(ctx, rq); return err })
	return out, err
}
