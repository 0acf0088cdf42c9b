package main

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/skeinmq/skein/controller"
	"github.com/skeinmq/skein/internal/ident"
	"github.com/skeinmq/skein/internal/peer"
	"github.com/skeinmq/skein/internal/peer/peerpb"
	"github.com/skeinmq/skein/queuemapper"
	"github.com/skeinmq/skein/queuemapper/embedded"
)

const (
	joinTimeout     = 10 * time.Second
	joinPause       = 300 * time.Millisecond
	membershipCheck = 2 * time.Second
	// leaderless is how long a member has no active controller until it asks others whether it is one still.
	leaderless = 2 * time.Second
	// sayAgain is how often a broker logs that nobody leads.
	sayAgain = 30 * time.Second
	// votesPatience bounds a change of etcd's members.
	votesPatience = 15 * time.Second
)

// joinCluster asks the members that --join names to be let in, until one does. It writes down what they tell, so that
// the next start needs no flag.
func (n *node) joinCluster(ctx context.Context) error {
	said := time.Now()
	for {
		var last error
		for _, addr := range n.settings.join {
			reply, err := n.net.askJoin(ctx, addr)
			if err == nil {
				return n.joined(reply)
			}
			if final(err) {
				return usageError{fmt.Errorf("join %s: %w", addr, err)}
			}
			last = fmt.Errorf("%s: %w", addr, err)
		}
		if time.Since(said) > stillWaiting {
			said = time.Now()
			n.waiting.Store(fmt.Sprintf("waiting to join at %s: %v", strings.Join(n.settings.join, ", "), last))
			n.logger.Warn("waiting to join a cluster", "broker", n.settings.nodeID, "at", n.settings.join, "error", last)
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-time.After(joinPause):
		}
	}
}

// final reports whether asking again cannot help.
func final(err error) bool {
	var refused *peer.RefusedError
	if errors.As(err, &refused) {
		return refused.Reason != peer.NotReady
	}
	switch status.Code(err) {
	case codes.PermissionDenied, codes.InvalidArgument:
		return true
	}
	return false
}

func (nw *network) askJoin(ctx context.Context, addr string) (*peerpb.JoinReply, error) {
	ctx, cancel := context.WithTimeout(ctx, joinTimeout)
	defer cancel()
	conn, err := nw.pool.Dial(addr)
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	return peerpb.NewControllerClient(conn).Join(ctx, &peerpb.JoinRequest{
		Broker: int32(nw.n.settings.nodeID), Address: nw.addr, Cluster: nw.n.clusterID(), Version: version,
		NewestLevel: int32(queuemapper.NewestLevel()),
	})
}

func (n *node) joined(reply *peerpb.JoinReply) error {
	n.waiting.Store("")
	n.cluster.Store(reply.Cluster)
	return n.net.save(func(f *nodeFile) {
		f.Members, f.Etcd = nil, reply.Etcd
		for _, m := range reply.Members {
			f.Members = append(f.Members, nodeMember{ident.Broker(m.Broker), m.Address, m.Voter})
		}
	})
}

// keepMembership makes the cluster know this broker at its address, and keeps the node file true, until ctx ends.
func (n *node) keepMembership(ctx context.Context) error {
	poll := time.NewTicker(joinPause)
	defer poll.Stop()
	led, said := time.Now(), time.Time{}
	for known := false; ; {
		select {
		case <-ctx.Done():
			return nil
		case <-poll.C:
		}
		members := n.ctl.Members()
		if _, _, ok := n.ctl.Leader(); ok {
			led = time.Now()
			if said != (time.Time{}) {
				said = time.Time{}
				n.waiting.Store("")
			}
		} else if known && time.Since(led) > leaderless {
			// Nobody leads, or nobody that leads knows this broker: it was removed while it was away.
			said = n.sayLeaderless(ctx, said)
			n.announceMember(ctx)
			continue
		}
		if !known {
			if n.ctl.Address(n.settings.nodeID) != n.net.addr {
				n.announceMember(ctx)
				continue
			}
			known = true
			poll.Reset(membershipCheck)
		}
		if len(members) == 0 {
			continue
		}
		err := n.net.save(func(f *nodeFile) {
			f.Members = nil
			for _, m := range members {
				f.Members = append(f.Members, nodeMember{m.Broker, m.Address, m.Voter})
			}
			f.Level = n.store.Map().Level()
			if n.member.Load() == nil && len(f.Etcd) > 0 && !strings.Contains(f.Etcd[0], "://") {
				f.Etcd = nil // the voters among the members have it
			}
		})
		if err != nil {
			n.logger.Error("node file not written", "broker", n.settings.nodeID, "error", err)
		}
	}
}

// sayLeaderless tells what this broker can do without an active controller, and whom it waits for; said is when it was
// logged last, zero for never.
func (n *node) sayLeaderless(ctx context.Context, said time.Time) time.Time {
	text := n.net.missing(ctx, n.voting())
	if text == "" {
		text = "waiting for an election"
	}
	if n.external {
		text += "; without a majority of voters there is no failover, no rebalancing and no group commit"
	} else {
		text += "; without a majority of voters there is no failover, no move, no group commit and no change of topics"
	}
	text += "; partitions of this broker are written as long as the witnesses that the map records for it live"
	if ctx.Err() != nil {
		return said
	}
	n.waiting.Store(text)
	if time.Since(said) > sayAgain {
		said = time.Now()
		n.logger.Warn("no active controller", "broker", n.settings.nodeID, "state", text)
	}
	return said
}

// voting are the voters as the controller has them.
func (n *node) voting() map[ident.Broker]string {
	out := make(map[ident.Broker]string)
	for _, m := range n.ctl.Members() {
		if m.Voter {
			out[m.Broker] = m.Address
		}
	}
	return out
}

// announceMember asks whoever is there to make this broker a member, or to note its address.
func (n *node) announceMember(ctx context.Context) {
	known := n.net.known()
	for _, b := range slices.Sorted(maps.Keys(known)) {
		if b == n.settings.nodeID {
			continue
		}
		_, err := n.net.askJoin(ctx, known[b])
		if err == nil || ctx.Err() != nil {
			return
		}
		if final(err) {
			n.logger.Error("the cluster refuses this broker", "broker", n.settings.nodeID, "error", err)
		}
	}
	if id, _, ok := n.ctl.Leader(); ok && id == n.settings.nodeID { // alone so far, or the one whose address changed
		if err := n.ctl.Join(ctx, controller.Member{Broker: n.settings.nodeID, Address: n.net.addr}); err != nil {
			n.logger.Warn("own address not noted", "broker", n.settings.nodeID, "error", err)
		}
	}
}

// serveController answers other brokers' calls to the controller.
func (nw *network) serveController() {
	n := nw.n
	nw.service = &controller.Service{
		Controller: n.ctl, Cluster: n.tellCluster, Admit: n.admit, Changing: n.votesChange, Runs: n.net.answers, Sessions: n.sessions.Serve,
	}
	peerpb.RegisterControllerServer(nw.server.GRPC(), nw.service)
}

// tellCluster is what a broker that joins is told.
func (n *node) tellCluster() (id string, etcd []string) {
	if len(n.settings.etcd) > 0 {
		return n.clusterID(), n.settings.etcd
	}
	if m := n.member.Load(); m != nil {
		for _, m := range m.Members() {
			if !m.Learner {
				etcd = append(etcd, addressOf(m.URL))
			}
		}
	}
	return n.clusterID(), etcd
}

// addressOf is the internal address in an etcd member's URL.
func addressOf(url string) string {
	_, addr, _ := strings.Cut(url, "://")
	return addr
}

// admit refuses a broker that another process is, and a voter that lost its directory.
func (n *node) admit(ctx context.Context, rq *peerpb.JoinRequest) error {
	b := ident.Broker(rq.Broker)
	if level := n.store.Map().Level(); queuemapper.Level(max(rq.NewestLevel, 1)) < level {
		return fmt.Errorf("broker %d runs build %s, which knows feature levels up to %d; the cluster's is %d", b, rq.Version, max(rq.NewestLevel, 1), level)
	}
	lost := false // a voter's directory
	var at []string
	if r := n.store.Map().Broker(b); r != nil && r.Internal != "" {
		at = append(at, r.Internal)
	}
	for _, m := range n.ctl.Members() {
		if m.Broker != b {
			continue
		}
		at = append(at, m.Address)
		lost = lost || m.Voter && rq.Cluster == ""
	}
	for _, addr := range slices.Compact(at) {
		if addr == rq.Address {
			continue
		}
		if reply, err := n.net.hello(ctx, addr); err == nil && ident.Broker(reply.Broker) == b {
			return fmt.Errorf("another process is broker %d, at %s", b, addr)
		}
	}
	if lost {
		return fmt.Errorf("broker %d is a voter and comes with a fresh directory: if the other one is lost for good, %s", b, voteElsewhere(b))
	}
	return nil
}

// voteElsewhere is what to do with the vote of a broker whose directory is lost.
func voteElsewhere(b ident.Broker) string {
	return fmt.Sprintf("give its vote to another member first (skein cluster voters replace %d N), or, if there is none, take it out (skein cluster voters remove %d), "+
		"start it with --join, and give it a vote again (skein cluster voters add %d)", b, b, b)
}

// votesChange makes the members of the map's etcd follow the voters, on the active controller: a member comes
// before its broker's vote, and goes before it.
func (n *node) votesChange(ctx context.Context, verb string, m controller.Member) error {
	if n.external || m.Address == "" {
		return nil // the map is elsewhere; or it is no member, which the controller says
	}
	ctx, cancel := context.WithTimeout(ctx, votesPatience)
	defer cancel()
	list, err := embedded.List(ctx, n.client)
	if err != nil {
		return err
	}
	url := n.memberURL(m.Address)
	at := slices.IndexFunc(list, func(e embedded.Member) bool { return e.URL == url || e.Name == memberName(m.Broker) })
	if verb != "promote" {
		if at < 0 {
			return nil
		}
		return embedded.Remove(ctx, n.client, list[at].ID)
	}
	if at >= 0 && !list[at].Learner && list[at].Name != "" {
		return nil
	}
	if away := n.votersAway(ctx); len(away) > 0 { // etcd would refuse it, some seconds later
		return fmt.Errorf("voters %v do not answer, and none is added meanwhile: start them, or replace one that is gone for good", away)
	}
	if list, err = embedded.AddLearner(ctx, n.client, url); err != nil {
		return err
	}
	rq := &peerpb.StartMemberRequest{}
	for _, e := range list {
		rq.Members = append(rq.Members, &peerpb.EtcdMember{Name: e.Name, Url: e.URL, Id: e.ID})
	}
	conn, err := n.net.pool.Conn(m.Broker)
	if err != nil {
		return err
	}
	if _, err := peerpb.NewPeerClient(conn).StartMember(ctx, rq); err != nil {
		return fmt.Errorf("start the etcd member at broker %d: %w", m.Broker, err)
	}
	for _, e := range list {
		if e.URL == url {
			return embedded.Promote(ctx, n.client, e.ID)
		}
	}
	return fmt.Errorf("etcd member %s is gone again", url)
}

// votersAway are the voters that do not answer.
func (n *node) votersAway(ctx context.Context) (away []ident.Broker) {
	for _, g := range n.net.helloAll(ctx, n.voting()) {
		if g.err != nil {
			away = append(away, g.id)
		}
	}
	return away
}

// StartMember implements peerpb.PeerServer.
func (g *greeter) StartMember(ctx context.Context, rq *peerpb.StartMemberRequest) (*peerpb.StartMemberReply, error) {
	n := g.nw.n
	if n.member.Load() != nil {
		return &peerpb.StartMemberReply{}, nil
	}
	if !g.starting.TryLock() {
		return nil, status.Error(codes.Unavailable, "the member is being started")
	}
	defer g.starting.Unlock()
	var list []embedded.Member
	for _, m := range rq.Members {
		list = append(list, embedded.Member{ID: m.Id, Name: m.Name, URL: m.Url})
	}
	names := embedded.Names(list, memberName(n.settings.nodeID), n.memberURL(g.nw.addr))
	m, err := embedded.Start(ctx, n.memberConfig(names, true))
	if err != nil {
		return nil, status.Error(codes.Internal, err.Error())
	}
	m.ServeClients(g.nw.server.EtcdListener())
	n.member.Store(m) // the map's client stays what it is until the next start
	return &peerpb.StartMemberReply{}, nil
}
