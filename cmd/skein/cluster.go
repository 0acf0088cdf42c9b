package main

import (
	"context"
	"fmt"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/skeinmq/skein/broker/host"
	"github.com/skeinmq/skein/commitlog"
	"github.com/skeinmq/skein/controller/balance"
	"github.com/skeinmq/skein/controller/failover"
	"github.com/skeinmq/skein/controller/session"
	"github.com/skeinmq/skein/internal/ident"
	"github.com/skeinmq/skein/internal/peer"
	"github.com/skeinmq/skein/internal/peer/peerpb"
	"github.com/skeinmq/skein/internal/witness"
	"github.com/skeinmq/skein/queuemapper"
)

// openSessions prepares what the active controller knows of the others. The map and the controller are open.
func (n *node) openSessions() {
	n.sessions = session.NewServer(session.ServerConfig{
		Self: n.settings.nodeID, Leadership: n.ctl, Map: n.store, Logger: n.logger, Registerer: n.registry,
		Died: n.etcdLeaderGone,
		Heard: func(hb *peerpb.Heartbeat) {
			now := time.Now()
			n.balancer.ObserveDisk(ident.Broker(hb.GetBroker()), hb.GetDiskUsed())
			for _, l := range hb.GetLoads() {
				n.balancer.Observe(ident.Group(l.GetGroup()), balance.Load{BytesIn: l.GetBytesIn(), BatchesIn: l.GetBatchesIn(), ColdReads: l.GetColdBytesOut()}, now)
			}
		},
	})
	n.balancer = balance.NewLoop(balance.Config{
		Store: n.store, Sessions: n.sessions, Owners: balance.Remote{Conns: n.net.pool}, Enabled: n.mayBalance, Logger: n.logger, Registerer: n.registry,
	})
	peerpb.RegisterBalanceServer(n.net.server.GRPC(), &balance.Service{Loop: n.balancer})
}

// etcdLeaderGone has this broker's etcd member stand for election when the one that led is dead. One that is only silent has lost its
// office by then, unless the others took each other's votes.
func (n *node) etcdLeaderGone(b ident.Broker, why session.Reason) {
	m := n.member.Load()
	if m == nil || why != session.Refused && why != session.Silent {
		return
	}
	go func() { // one for each death
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		if err := m.LeaderGone(ctx, memberName(b)); err != nil {
			n.logger.Warn("etcd's election not hastened", "error", err)
		}
	}()
}

// standing is a broker's, with what operators want of it.
func (n *node) standing(b ident.Broker) failover.Standing {
	st := n.sessions.Session(b).Standing
	if st == failover.Live && n.store.Map().Draining(b) {
		return failover.Draining
	}
	return st
}

// failOver takes the groups of dead brokers to others, and evens out what they own, whenever this broker is the active controller, until ctx ends.
func (n *node) failOver(ctx context.Context) error {
	// Brokers that die together cost no timeout.
	reach := failover.Watchful{Members: sealers{n.net.pool}, Targets: preparers{host.Peers{Conns: n.net.pool}}, Sessions: n.sessions}
	f, err := failover.New(failover.Config{
		Store: n.store, Members: reach, Targets: reach,
		Standing: n.standing, Load: n.balancer.Load,
		Logger: n.logger, Registerer: n.registry,
	})
	if err != nil {
		return err
	}
	var following sync.WaitGroup
	following.Go(func() { n.balancer.Follow(ctx) })
	defer following.Wait()
	n.ctl.Lead(ctx, func(ctx context.Context, term uint64) {
		var balancing sync.WaitGroup
		balancing.Go(func() { n.balancer.Run(ctx) })
		defer balancing.Wait()
		loop := failover.Loop{Failover: f, Sessions: n.sessions, Self: n.settings.nodeID}
		if err := loop.Run(ctx, int64(term)); err != nil {
			n.logger.Warn("active controller", "term", term, "error", err)
		}
	})
	return nil
}

// sealers are the members of witness sets, as failover asks them.
type sealers struct{ pool *peer.Pool }

// sealTimeout bounds a seal, whose answer is a whole table, by a member that is not known to be dead.
const sealTimeout = 2 * time.Second

func (s sealers) Seal(ctx context.Context, member queuemapper.Witness, log ident.Log, epoch ident.LogEpoch) (failover.Table, error) {
	ctx, cancel := context.WithTimeout(ctx, sealTimeout)
	defer cancel()
	conn, err := s.pool.Conn(member.Broker)
	if err != nil {
		return nil, fmt.Errorf("reach witness %d: %w", member.Broker, err)
	}
	t, err := witness.AskSeal(ctx, conn, witness.Key{Log: log, Epoch: epoch}, witness.ID{Broker: member.Broker, Incarnation: member.Incarnation})
	if err != nil {
		return nil, err
	}
	out := make(failover.Table)
	for g, err := range t.Generations() {
		if err != nil {
			return nil, fmt.Errorf("table of witness %d: %w", member.Broker, err)
		}
		out[g.Generation] = g.Partitions
	}
	return out, nil
}

// preparers are the brokers whose logs take groups over.
type preparers struct{ peers host.Peers }

func (p preparers) Prepare(ctx context.Context, b ident.Broker, log ident.Log, epoch ident.LogEpoch, openings []failover.Opening) ([]ident.Frame, error) {
	list := make([]commitlog.Opening, len(openings))
	for i, o := range openings {
		list[i] = commitlog.Opening{Group: o.Group, Epoch: o.Epoch, State: o.State, Ceiling: o.Ceiling}
	}
	return p.peers.Prepare(ctx, &queuemapper.Log{ID: log, Host: b, Epoch: epoch, State: queuemapper.LogOpen}, list)
}

// witnesses is what one incarnation of a broker does for the logs of others, and others for its own.
type witnesses struct {
	metrics *witness.Metrics
	sets    []*host.Witnessed // by log
	member  *witness.Member
	scope   *peer.Scope
	beats   *session.Client
}

// newWitnesses makes the witness sets of an incarnation's logs; the logs are opened with them. The map is open.
func (in *inner) newWitnesses() {
	n := in.n
	in.wit = &witnesses{metrics: witness.NewMetrics(in.registry)}
	for range n.settings.data {
		in.wit.sets = append(in.wit.sets, host.NewWitnessed(host.WitnessedConfig{
			Store: n.store, Rack: n.settings.kafka["broker.rack"], Dial: n.net.pool.DialWitness, Metrics: in.wit.metrics, Logger: n.logger,
		}))
	}
}

// bind makes the incarnation known to its witness sets, and makes it a witness itself, which knows nothing as yet (O6).
func (w *witnesses) bind(in *inner, incarnation int64) {
	n := in.n
	for i, s := range w.sets {
		s.Bind(in.logs[i], n.settings.nodeID, incarnation)
	}
	w.member = witness.NewMember(witness.MemberConfig{ID: witness.ID{Broker: n.settings.nodeID, Incarnation: incarnation}})
	w.beats = session.NewClient(session.ClientConfig{
		Self: n.settings.nodeID, Incarnation: incarnation, Leader: n.ctl, Conns: n.net.pool, Local: n.sessions,
		Report: in.report,
	})
}

// report is what the broker tells the active controller about itself.
func (in *inner) report(withLoads bool) session.Report {
	r := session.Report{Draining: in.broker.Draining(), DiskUsed: in.broker.DiskUsed()}
	if withLoads {
		r.Loads = in.broker.Loads()
	}
	return r
}

// serve answers the calls of others; close takes the services away.
func (w *witnesses) serve(in *inner) {
	w.scope = in.n.net.server.Scope()
	member := witness.NewServer(w.member, w.metrics, in.n.logger)
	peerpb.RegisterWitnessServer(w.scope, member)
	w.scope.HandleWitness(member.Follow)
	peerpb.RegisterOwnerServer(w.scope, in.broker.Owner())
	peerpb.RegisterReadsServer(w.scope, in.broker.Reads())
}

// run is everything in the background until ctx ends. A broker that the controller has given up fences its logs: it has
// to come back as a new incarnation.
func (w *witnesses) run(ctx context.Context, logs []*commitlog.Log) error {
	var g errgroup.Group
	for _, s := range w.sets {
		g.Go(func() error { return s.Run(ctx) })
	}
	g.Go(func() error {
		if err := w.beats.Run(ctx); err != nil {
			for _, l := range logs {
				l.Fence(err)
			}
		}
		return nil
	})
	return g.Wait()
}
