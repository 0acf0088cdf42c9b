package balance

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/skeinmq/skein/internal/ident"
	"github.com/skeinmq/skein/internal/peer/peerpb"
)

// Status is what operators see.
type Status struct {
	Enabled bool         `json:"enabled"`
	Held    string       `json:"held,omitempty"` // why less is done than could be
	Logs    []LogStatus  `json:"logs"`
	Moves   []MoveStatus `json:"moves"`  // that would be made now, were nothing in the way
	Splits  []Split      `json:"splits"` // that would help
	Recent  []MoveStatus `json:"recent"` // newest last
}

// LogStatus is one open log of a live broker.
type LogStatus struct {
	Broker     ident.Broker `json:"broker"`
	Log        string       `json:"log"`
	Draining   bool         `json:"draining,omitempty"`
	Groups     int          `json:"groups"`
	Partitions int          `json:"partitions"`
	Load       float64      `json:"load"` // 1 is the mean
}

// MoveStatus is one move.
type MoveStatus struct {
	Group      ident.Group  `json:"group"`
	FromBroker ident.Broker `json:"fromBroker"`
	ToBroker   ident.Broker `json:"toBroker"`
	Cause      Cause        `json:"cause"`
	Why        string       `json:"why"`
	At         *time.Time   `json:"at,omitempty"`
	Error      string       `json:"error,omitempty"`
}

func (m *Move) status() MoveStatus {
	return MoveStatus{Group: m.Group, FromBroker: m.FromBroker, ToBroker: m.ToBroker, Cause: m.Cause, Why: m.Why}
}

// Status says how things stand, and what would be moved now if the balancer were on and nothing held it. ErrNotActive.
func (l *Loop) Status() (Status, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.planner == nil {
		return Status{}, ErrNotActive
	}
	in := l.input(time.Now())
	held := l.planner.clone().Plan(in).Held
	s := Status{Enabled: in.Enabled, Held: held, Moves: []MoveStatus{}, Splits: []Split{}, Recent: []MoveStatus{}}
	in.Enabled = true
	dry := l.planner.clone()
	dry.watch.resume()
	plan := dry.Plan(in)
	for _, ls := range plan.Logs {
		s.Logs = append(s.Logs, LogStatus{Broker: ls.Broker, Log: ls.Log.String(), Draining: ls.Draining, Groups: ls.Groups, Partitions: ls.Partitions, Load: ls.Load})
	}
	for i := range plan.Moves {
		s.Moves = append(s.Moves, plan.Moves[i].status())
	}
	s.Splits = append(s.Splits, plan.Splits...)
	for i := range l.recent {
		r := l.recent[i].status()
		r.At, r.Error = &l.recent[i].At, l.recent[i].Error
		s.Recent = append(s.Recent, r)
	}
	return s, nil
}

// Resume is the operator's word that brokers which vanished will not come back soon. ErrNotActive.
func (l *Loop) Resume() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.planner == nil {
		return ErrNotActive
	}
	l.planner.Resume()
	return nil
}

// clone is a planner that remembers the same.
func (p *Planner) clone() *Planner {
	c := *p
	c.moved, c.hot, c.spent = maps.Clone(p.moved), maps.Clone(p.hot), slices.Clone(p.spent)
	c.watch.seen, c.watch.missing = maps.Clone(p.watch.seen), maps.Clone(p.watch.missing)
	return &c
}

// Service answers other brokers' questions.
type Service struct {
	peerpb.UnimplementedBalanceServer
	Loop *Loop
}

// Status implements peerpb.BalanceServer.
func (s *Service) Status(context.Context, *peerpb.BalanceStatusRequest) (*peerpb.BalanceStatusReply, error) {
	st, err := s.Loop.Status()
	if err != nil {
		return nil, status.Error(codes.FailedPrecondition, err.Error())
	}
	out, err := json.Marshal(st)
	if err != nil {
		return nil, err
	}
	return &peerpb.BalanceStatusReply{Json: out}, nil
}

// Resume implements peerpb.BalanceServer.
func (s *Service) Resume(context.Context, *peerpb.BalanceResumeRequest) (*peerpb.BalanceResumeReply, error) {
	if err := s.Loop.Resume(); err != nil {
		return nil, status.Error(codes.FailedPrecondition, err.Error())
	}
	return &peerpb.BalanceResumeReply{}, nil
}

// Conns leads to other brokers' internal listeners.
type Conns interface {
	Conn(ident.Broker) (grpc.ClientConnInterface, error)
}

// Remote is Owners over the internal listeners.
type Remote struct{ Conns Conns }

// Move implements Owners.
func (r Remote) Move(ctx context.Context, owner ident.Broker, groups []ident.Group, to ident.Log) (map[ident.Group]error, error) {
	conn, err := r.Conns.Conn(owner)
	if err != nil {
		return nil, fmt.Errorf("reach broker %d: %w", owner, err)
	}
	rq := &peerpb.MoveRequest{To: to[:]}
	for _, g := range groups {
		rq.Groups = append(rq.Groups, int32(g))
	}
	reply, err := peerpb.NewOwnerClient(conn).Move(ctx, rq)
	if err != nil {
		return nil, fmt.Errorf("move groups of broker %d: %w", owner, err)
	}
	out := make(map[ident.Group]error, len(groups))
	for _, g := range reply.GetGroups() {
		out[ident.Group(g.GetGroup())] = nil
		if g.GetError() != "" {
			out[ident.Group(g.GetGroup())] = errors.New(g.GetError())
		}
	}
	return out, nil
}
