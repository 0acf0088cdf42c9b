package balance

import (
	"context"
	"encoding/json"
	"maps"
	"slices"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/skeinmq/skein/internal/ident"
	"github.com/skeinmq/skein/internal/peer/peerpb"
)

// Status is what operators see.
type Status struct {
	Enabled bool         `json:"enabled"`
	Held    string       `json:"held,omitempty"`  // why less is done than could be
	Notes   []string     `json:"notes,omitempty"` // what else keeps groups where they are
	Logs    []LogStatus  `json:"logs"`
	Moves   []MoveStatus `json:"moves"`  // that would be made now, were nothing in the way
	Splits  []Split      `json:"splits"` // that would be made now
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
	DiskUsed   float64      `json:"diskUsed"`
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

// Status says how things stand, and what would be moved and split now if the balancer were on and nothing held it. It asks an
// owner which partitions of a group are hot when that must be known, which takes about a second. ErrNotActive.
func (l *Loop) Status(ctx context.Context) (Status, error) {
	s, asks, err := l.dryRun()
	for range splitTries {
		if len(asks) == 0 || err != nil {
			break
		}
		for _, a := range asks {
			l.sample(ctx, a)
		}
		s, asks, err = l.dryRun()
	}
	return s, err
}

func (l *Loop) dryRun() (Status, []Ask, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.planner == nil {
		return Status{}, nil, ErrNotActive
	}
	in := l.input(time.Now())
	held := l.planner.clone().Plan(in).Held
	s := Status{Enabled: in.Enabled, Held: held, Moves: []MoveStatus{}, Splits: []Split{}, Recent: []MoveStatus{}}
	in.Enabled = true
	dry := l.planner.clone()
	dry.watch.resume()
	plan := dry.Plan(in)
	for _, ls := range plan.Logs {
		s.Logs = append(s.Logs, LogStatus{
			Broker: ls.Broker, Log: ls.Log.String(), Draining: ls.Draining, Groups: ls.Groups, Partitions: ls.Partitions, Load: ls.Load, DiskUsed: ls.DiskUsed,
		})
	}
	for i := range plan.Moves {
		s.Moves = append(s.Moves, plan.Moves[i].status())
	}
	s.Splits = append(s.Splits, plan.Splits...)
	s.Notes = plan.Notes
	for i := range l.recent {
		r := l.recent[i].status()
		r.At, r.Error = &l.recent[i].At, l.recent[i].Error
		s.Recent = append(s.Recent, r)
	}
	return s, plan.Ask, nil
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
	c.moved, c.hot, c.spent, c.relieved = maps.Clone(p.moved), maps.Clone(p.hot), slices.Clone(p.spent), slices.Clone(p.relieved)
	c.full, c.brim, c.parted = maps.Clone(p.full), maps.Clone(p.brim), maps.Clone(p.parted)
	c.watch.seen, c.watch.missing = maps.Clone(p.watch.seen), maps.Clone(p.watch.missing)
	return &c
}

// Service answers other brokers' questions.
type Service struct {
	peerpb.UnimplementedBalanceServer
	Loop *Loop
}

// Status implements peerpb.BalanceServer.
func (s *Service) Status(ctx context.Context, _ *peerpb.BalanceStatusRequest) (*peerpb.BalanceStatusReply, error) {
	st, err := s.Loop.Status(ctx)
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
