package main

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"maps"
	"net"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/skeinmq/skein/controller"
	"github.com/skeinmq/skein/internal/ident"
	"github.com/skeinmq/skein/internal/peer"
	"github.com/skeinmq/skein/internal/peer/peerpb"
	"github.com/skeinmq/skein/queuemapper"
)

const (
	helloTimeout = time.Second
	// stillWaiting is how often a broker says whom it waits for.
	stillWaiting = 3 * time.Second
)

// network is a node's way to other brokers.
type network struct {
	n        *node
	addr     string // that others are told
	instance []byte
	tls      *peer.TLS
	server   *peer.Server
	pool     *peer.Pool
	service  *controller.Service // set when the controller is open

	mu   sync.Mutex
	file nodeFile // as it is on the disk, or will be
}

func (n *node) newNetwork() (*network, error) {
	t, err := peer.LoadTLS(n.settings.internalTLS, n.logger)
	if err != nil {
		return nil, usageError{err}
	}
	nw := &network{n: n, tls: t, instance: make([]byte, 16)}
	if _, err := rand.Read(nw.instance); err != nil {
		return nil, err
	}
	if nw.addr, err = n.internalAddress(); err != nil {
		return nil, usageError{err}
	}
	if n.claim.node != nil {
		nw.file = *n.claim.node
	}
	cfg := peer.Config{Self: n.settings.nodeID, Cluster: n.clusterID, Advertise: nw.addr, TLS: t, Logger: n.logger}
	nw.server = peer.NewServer(cfg)
	nw.pool = peer.NewPool(cfg, nw.resolve)
	peerpb.RegisterPeerServer(nw.server.GRPC(), &greeter{nw: nw})
	return nw, nil
}

// internalAddress is what other brokers are told.
func (n *node) internalAddress() (string, error) {
	addr := n.settings.advertiseIn
	if own, ok := n.settings.own(); ok && addr == "" {
		addr = own.addr
	}
	if addr == "" {
		return n.claim.internal.Addr().String(), nil
	}
	host, port, err := net.SplitHostPort(addr)
	if err == nil && port == "0" {
		_, port, err = net.SplitHostPort(n.claim.internal.Addr().String())
	}
	return net.JoinHostPort(host, port), err
}

// clusterID is the cluster's id as far as it is known.
func (n *node) clusterID() string {
	if id, ok := n.cluster.Load().(string); ok {
		return id
	}
	return n.claim.cluster()
}

// resolve says where a broker is: where it registered; else where the members have it; else where the list or the last
// run had it.
func (nw *network) resolve(b ident.Broker) (string, bool) {
	if b == nw.n.settings.nodeID {
		return nw.addr, true
	}
	select {
	case <-nw.n.mapOpen:
		if r := nw.n.store.Map().Broker(b); r != nil && r.Internal != "" {
			return r.Internal, true
		}
	default:
	}
	if ctl := nw.n.controller.Load(); ctl != nil {
		if addr := ctl.Address(b); addr != "" {
			return addr, true
		}
	}
	addr, ok := nw.known()[b]
	return addr, ok
}

// known are the addresses of the list and of the last run.
func (nw *network) known() map[ident.Broker]string {
	out := make(map[ident.Broker]string)
	nw.mu.Lock()
	for _, m := range nw.file.Members {
		out[m.Broker] = m.Address
	}
	nw.mu.Unlock()
	for _, p := range nw.n.settings.peers {
		out[p.id] = p.addr
	}
	return out
}

// save changes the node file and writes it, if that makes a difference.
func (nw *network) save(change func(*nodeFile)) error {
	nw.mu.Lock()
	defer nw.mu.Unlock()
	fresh := nw.file
	change(&fresh)
	slices.SortFunc(fresh.Members, func(a, b nodeMember) int { return int(a.Broker - b.Broker) })
	fresh.Node, fresh.Internal, fresh.Version = nw.n.settings.nodeID, nw.addr, nodeFileVersion
	if fresh.Node == nw.file.Node && fresh.Internal == nw.file.Internal && nw.file.Version == fresh.Version &&
		fresh.Level == nw.file.Level && slices.Equal(fresh.Members, nw.file.Members) && slices.Equal(fresh.Etcd, nw.file.Etcd) {
		return nil
	}
	if err := fresh.write(nw.n.settings.data[0]); err != nil { // once per change of the membership, by one goroutine
		return err
	}
	nw.file = fresh
	return nil
}

// hello asks who listens at an address.
func (nw *network) hello(ctx context.Context, addr string) (*peerpb.HelloReply, error) {
	ctx, cancel := context.WithTimeout(ctx, helloTimeout)
	defer cancel()
	conn, err := nw.pool.Dial(addr)
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	return peerpb.NewPeerClient(conn).Hello(ctx, &peerpb.HelloRequest{})
}

// ask is hello to a broker, on the connection that there is to it.
func (nw *network) ask(ctx context.Context, b ident.Broker) (*peerpb.HelloReply, error) {
	ctx, cancel := context.WithTimeout(ctx, helloTimeout)
	defer cancel()
	conn, err := nw.pool.Conn(b)
	if err != nil {
		return nil, err
	}
	return peerpb.NewPeerClient(conn).Hello(ctx, &peerpb.HelloRequest{})
}

// answers reports whether a broker answers within a second.
func (nw *network) answers(ctx context.Context, b ident.Broker) bool {
	_, err := nw.ask(ctx, b)
	return err == nil
}

// askAll returns what those of the brokers say that answer within a second.
func (nw *network) askAll(ctx context.Context, who []ident.Broker) map[ident.Broker]*peerpb.HelloReply {
	var mu sync.Mutex
	said := make(map[ident.Broker]*peerpb.HelloReply)
	var wg sync.WaitGroup
	for _, b := range who {
		wg.Go(func() {
			if reply, err := nw.ask(ctx, b); err == nil {
				mu.Lock()
				said[b] = reply
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	return said
}

// silent lists those of the brokers that do not answer within a second.
func (nw *network) silent(ctx context.Context, who []ident.Broker) []ident.Broker {
	said := nw.askAll(ctx, who)
	return slices.DeleteFunc(slices.Clone(who), func(b ident.Broker) bool { return said[b] != nil })
}

// greeting is what came of asking one address.
type greeting struct {
	id    ident.Broker
	addr  string
	reply *peerpb.HelloReply
	err   error
}

func (nw *network) helloAll(ctx context.Context, who map[ident.Broker]string) []greeting {
	out := make([]greeting, 0, len(who))
	for _, id := range slices.Sorted(maps.Keys(who)) {
		out = append(out, greeting{id: id, addr: who[id]})
	}
	var wg sync.WaitGroup
	for i := range out {
		wg.Go(func() { out[i].reply, out[i].err = nw.hello(ctx, out[i].addr) })
	}
	wg.Wait()
	return out
}

// greet asks the brokers that are known so far who they are, and refuses what does not fit together, before anything
// is written. Those that do not answer are no hindrance here.
func (nw *network) greet(ctx context.Context) error {
	n := nw.n
	self := n.settings.nodeID
	who := nw.known()
	who[self] = nw.addr // a process that has our address, and is not us, has our node id
	var problems []error
	for _, g := range nw.helloAll(ctx, who) {
		switch {
		case errors.Is(g.err, peer.ErrRefused):
			problems = append(problems, fmt.Errorf("broker %d at %s: %w", g.id, g.addr, g.err))
		case g.err != nil:
		case g.reply.ClusterLevel != 0 && queuemapper.Level(g.reply.ClusterLevel).Check() != nil:
			problems = append(problems, fmt.Errorf("broker %d at %s: %w", g.id, g.addr, queuemapper.Level(g.reply.ClusterLevel).Check()))
		case ident.Broker(g.reply.Broker) != g.id && !contains(nw.n.settings.peers, g.id) && g.id != self:
			// Where the last run had it: brokers move, and others get their addresses.
		case ident.Broker(g.reply.Broker) != g.id:
			problems = append(problems, fmt.Errorf("peers: at %s is broker %d, not %d", g.addr, g.reply.Broker, g.id))
		case g.id == self && string(g.reply.Instance) != string(nw.instance):
			problems = append(problems, fmt.Errorf("node-id: another process is broker %d, at %s", self, g.addr))
		case g.id != self && contains(n.bootstrap(), self) && !n.hasMember():
			if err := nw.mayBootstrap(ctx, g); err != nil && !slices.ContainsFunc(problems, func(e error) bool { return e.Error() == err.Error() }) {
				problems = append(problems, err) // once, though every other member says it
			}
		}
	}
	problems = append(problems, nw.greetJoin(ctx))
	if err := errors.Join(problems...); err != nil {
		return usageError{err}
	}
	return nil
}

// greetJoin refuses addresses of --join that are not all of one cluster, and that of this broker's directory.
func (nw *network) greetJoin(ctx context.Context) error {
	clusters := make(map[string]string) // address by id
	var problems []error
	for _, addr := range nw.n.settings.join {
		reply, err := nw.hello(ctx, addr)
		switch {
		case errors.Is(err, peer.ErrRefused):
			problems = append(problems, fmt.Errorf("join %s: %w", addr, err))
		case err == nil && reply.Cluster != "":
			clusters[reply.Cluster] = addr
		}
	}
	if len(clusters) > 1 {
		problems = append(problems, fmt.Errorf("join: the addresses are of different clusters: %v", clusters))
	}
	return errors.Join(problems...)
}

// mayBootstrap refuses to begin a cluster that is there already without this broker, or with another directory of it. In one
// that has formed without this broker, so far, it is a member that was never started.
func (nw *network) mayBootstrap(ctx context.Context, g greeting) error {
	self := nw.n.settings.nodeID
	known := len(g.reply.Members) == 0
	for _, m := range g.reply.Members {
		if m.Name != memberName(self) {
			continue
		}
		known = true
		if !m.Started {
			continue
		}
		if at := addressOf(m.Url); at != nw.addr {
			if reply, err := nw.hello(ctx, at); err == nil && ident.Broker(reply.Broker) == self {
				return fmt.Errorf("node-id: another process is broker %d, at %s", self, at)
			}
		}
		return fmt.Errorf("data %s: it is fresh, but broker %d is a voter of cluster %s with another directory: if that is lost for good, %s",
			nw.n.settings.data[0], self, g.reply.Cluster, voteElsewhere(self))
	}
	if !known {
		return fmt.Errorf("data %s: it is fresh, and cluster %s has no voter %d: start it with --join %s", nw.n.settings.data[0], g.reply.Cluster, self, g.addr)
	}
	return nil
}

// sayWaiting tells every few seconds which of the brokers that make up the quorum are missed, until ctx ends.
func (nw *network) sayWaiting(ctx context.Context, who map[ident.Broker]string) {
	delete(who, nw.n.settings.nodeID)
	defer nw.n.waiting.Store("")
	for {
		select {
		case <-ctx.Done():
			return
		case <-time.After(stillWaiting):
		}
		text := nw.missing(ctx, who)
		if ctx.Err() == nil && text != "" {
			nw.n.waiting.Store(text)
			nw.n.logger.Warn(text, "broker", nw.n.settings.nodeID)
		}
	}
}

// missing names those of the brokers that do not answer, and why, if it is not that nobody is there; "" if all do.
func (nw *network) missing(ctx context.Context, who map[ident.Broker]string) string {
	var missing []string
	for _, g := range nw.helloAll(ctx, who) {
		switch {
		case g.err == nil || g.id == nw.n.settings.nodeID:
		case errors.Is(g.err, syscall.ECONNREFUSED) || errors.Is(g.err, context.DeadlineExceeded) || strings.Contains(g.err.Error(), "connection refused"):
			missing = append(missing, fmt.Sprintf("%d@%s", g.id, g.addr))
		default:
			missing = append(missing, fmt.Sprintf("%d@%s (%v)", g.id, g.addr, g.err))
		}
	}
	if len(missing) == 0 {
		return ""
	}
	return "waiting for brokers " + strings.Join(missing, ", ")
}

// greeter answers peerpb.Peer.
type greeter struct {
	peerpb.UnimplementedPeerServer
	nw       *network
	starting sync.Mutex // a member
}

// Hello implements peerpb.PeerServer.
func (g *greeter) Hello(context.Context, *peerpb.HelloRequest) (*peerpb.HelloReply, error) {
	n := g.nw.n
	r := &peerpb.HelloReply{
		Broker: int32(n.settings.nodeID), Instance: g.nw.instance, Cluster: n.clusterID(), Version: version,
		NewestLevel: int32(queuemapper.NewestLevel()),
	}
	select {
	case <-n.mapOpen:
		r.ClusterLevel = int32(n.store.Map().Level())
	default:
	}
	if m := n.member.Load(); m != nil {
		r.MapLed = m.Led()
		for _, m := range m.Members() {
			r.Members = append(r.Members, &peerpb.EtcdMember{Name: m.Name, Url: m.URL, Id: m.ID, Started: m.Started})
		}
	}
	return r, nil
}
