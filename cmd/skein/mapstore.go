package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.etcd.io/etcd/client/pkg/v3/transport"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"
	"google.golang.org/grpc"

	"github.com/skeinmq/skein/internal/ident"
	"github.com/skeinmq/skein/queuemapper"
	"github.com/skeinmq/skein/queuemapper/embedded"
)

const (
	clusterGroups = 1024 // placement groups of a cluster that forms of several brokers
	clusterLease  = 10 * time.Second
	voterCheck    = time.Second
	leaderCheck   = 200 * time.Millisecond
)

// memberName is what a broker's etcd member is called.
func memberName(b ident.Broker) string { return fmt.Sprintf("broker-%d", b) }

// hasMember reports whether the first directory holds an etcd member.
func (n *node) hasMember() bool {
	_, err := os.Stat(n.firstDir("etcd/member/wal"))
	return err == nil
}

// bootstrap are the voters that a fresh cluster begins with, as far as this broker is told; none if it joins one, or
// belongs to one.
func (n *node) bootstrap() []peerAddr {
	switch {
	case n.net == nil, n.claim.node != nil && len(n.claim.node.Members) > 0:
		return nil
	case len(n.settings.peers) > 0:
		return voters(n.settings.peers)
	case len(n.settings.join) > 0:
		return nil
	}
	return []peerAddr{{n.settings.nodeID, n.net.addr}}
}

func contains(list []peerAddr, id ident.Broker) bool {
	for _, p := range list {
		if p.id == id {
			return true
		}
	}
	return false
}

// openMap opens the map where it lives: in an external etcd, in a member of this process, or in members of other brokers.
func (n *node) openMap(ctx context.Context) (err error) {
	first := n.bootstrap()
	cfg := queuemapper.Config{Logger: n.logger, MaxOps: embedded.MaxOps, MaxBytes: embedded.MaxBytes}
	if n.net != nil {
		cfg.LeaseTTL = clusterLease
	}
	if len(n.settings.peers) > 1 {
		cfg.Groups = clusterGroups
	}
	switch {
	case len(n.settings.etcd) > 0:
		cfg.MaxOps, cfg.MaxBytes = 0, 0 // what any etcd takes
		err = n.openExternal(n.settings.etcd)
	case n.net == nil:
		err = n.startMember(ctx, embedded.Config{Dir: n.firstDir("etcd"), Logger: n.logger, Quota: n.settings.etcdQuota})
	case n.hasMember():
		err = n.startMember(ctx, n.memberConfig(nil, false))
	case contains(first, n.settings.nodeID):
		members := make(map[string]string)
		for _, p := range first {
			members[memberName(p.id)] = n.memberURL(p.addr)
		}
		err = n.startMember(ctx, n.memberConfig(members, false))
	default:
		err = n.openRemote(ctx)
	}
	if err != nil {
		return err
	}
	cfg.Client = n.client
	if n.store, err = n.openStore(ctx, cfg); err != nil {
		if n.external && ctx.Err() == nil {
			return fmt.Errorf("open the map in etcd at %s: %w: %s", strings.Join(n.settings.etcd, ","), err, n.askEndpoints(ctx))
		}
		return fmt.Errorf("open the map: %w", err)
	}
	n.cluster.Store(n.store.Map().Cluster().ID)
	return n.checkNodeID(ctx)
}

// openStore opens the map; in a cluster it waits for a store that is there but does not answer yet.
func (n *node) openStore(ctx context.Context, cfg queuemapper.Config) (*queuemapper.Store, error) {
	said := time.Now()
	for {
		metrics := prometheus.NewRegistry() // of this try
		cfg.Registerer = metrics
		s, err := queuemapper.Open(ctx, cfg, n.clusterID())
		if err == nil {
			n.registry.MustRegister(metrics)
		}
		if err == nil || n.net == nil || !errors.Is(err, queuemapper.ErrUnavailable) && !errors.Is(err, queuemapper.ErrUnknown) {
			n.waiting.Store("")
			return s, err
		}
		if time.Since(said) > stillWaiting {
			said = time.Now()
			why := n.askEndpoints(ctx)
			n.waiting.Store("waiting for the map: " + why)
			n.logger.Warn("waiting for the map", "broker", n.settings.nodeID, "at", n.client.Endpoints(), "error", err, "why", why)
			if found := n.findMembers(ctx); !n.external && n.member.Load() == nil && len(found) > 0 { // they moved
				n.client.SetEndpoints(found...)
			}
		}
		select {
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		case <-time.After(joinPause):
		}
	}
}

func (n *node) memberURL(addr string) string {
	if n.net.tls != nil {
		return "https://" + addr
	}
	return "http://" + addr
}

// memberConfig is that of an etcd member which other brokers reach through the internal listener.
func (n *node) memberConfig(members map[string]string, join bool) embedded.Config {
	f := n.net.tls.Files()
	voting := 0
	if n.claim.node != nil {
		for _, m := range n.claim.node.Members {
			if m.Voter {
				voting++
			}
		}
	}
	return embedded.Config{
		Dir: n.firstDir("etcd"), Name: memberName(n.settings.nodeID), Logger: n.logger, Quota: n.settings.etcdQuota,
		Peers: &embedded.Peers{
			URL: n.memberURL(n.net.addr), Members: members, Join: join, Alone: !join && len(members) < 2 && len(voters(n.settings.peers)) < 2 && voting < 2,
			Cert: f.Cert, Key: f.Key, CA: f.CA, Handle: func(h http.Handler) { n.net.server.HandleHTTP(h) },
		},
	}
}

// startMember runs this broker's etcd member; it returns when the member answers, which takes a quorum.
func (n *node) startMember(ctx context.Context, cfg embedded.Config) (err error) {
	if cfg.Peers != nil {
		wctx, stop := context.WithCancel(ctx)
		defer stop()
		go n.net.sayWaiting(wctx, n.quorum()) // ends with wctx, and is waited for by nobody: it holds nothing
	}
	m, err := embedded.Start(ctx, cfg)
	if errors.Is(err, embedded.ErrStopped) && cfg.Peers != nil && n.memberRemoved(ctx) {
		return errMemberRemoved
	}
	if err != nil {
		return err
	}
	n.member.Store(m)
	if cfg.Peers == nil {
		n.client = m.Client()
		return nil
	}
	m.ServeClients(n.net.server.EtcdListener())
	for _, known := range m.Members() {
		if known.ID == m.ID() && known.URL != cfg.Peers.URL { // it moved, or was alone so far
			if err := embedded.Update(ctx, m.Client(), m.ID(), cfg.Peers.URL); err != nil {
				return err
			}
		}
	}
	at := []string{n.net.addr}
	if !m.Led() { // a learner
		at = append(at, n.findMembers(ctx)...)
	}
	return n.openMembers(at)
}

// quorum are the brokers that a member needs a majority of: the voters of the last run; else those of the list.
func (n *node) quorum() map[ident.Broker]string {
	out := make(map[ident.Broker]string)
	if n.claim.node != nil {
		for _, m := range n.claim.node.Members {
			if m.Voter {
				out[m.Broker] = m.Address
			}
		}
	}
	if len(out) == 0 {
		for _, p := range voters(n.settings.peers) {
			out[p.id] = p.addr
		}
	}
	return out
}

// findMembers asks all brokers that are known where etcd's members are; it returns what they say, without this broker.
func (n *node) findMembers(ctx context.Context) []string {
	var found []string
	for _, g := range n.net.helloAll(ctx, n.net.known()) {
		if g.err != nil {
			continue
		}
		for _, m := range g.reply.Members {
			if addr := addressOf(m.Url); m.Started && addr != n.net.addr && !slices.Contains(found, addr) {
				found = append(found, addr)
			}
		}
	}
	slices.Sort(found)
	return found
}

// errMemberRemoved ends a node whose etcd member is none any more. Another node is made in the same process, without it.
var errMemberRemoved = errors.New("the etcd member of this broker was removed")

// forgetMember removes the directory of an etcd member that is none any more. Without it nothing would say that this broker belongs to a
// cluster, if it was killed before it noted who else does: the voters that it was to begin with are noted then.
func (n *node) forgetMember() error {
	err := n.net.save(func(f *nodeFile) {
		if len(f.Members) > 0 {
			return
		}
		for id, addr := range n.quorum() {
			f.Members = append(f.Members, nodeMember{id, addr, id != n.settings.nodeID})
		}
	})
	if err != nil {
		return err
	}
	return os.RemoveAll(n.firstDir("etcd"))
}

// memberRemoved asks the other brokers whether their etcd has this broker's member.
func (n *node) memberRemoved(ctx context.Context) bool {
	removed := false
	for _, g := range n.net.helloAll(ctx, n.quorum()) {
		if g.err != nil || len(g.reply.Members) == 0 || g.id == n.settings.nodeID {
			continue
		}
		for _, m := range g.reply.Members {
			if m.Url == n.memberURL(n.net.addr) {
				return false
			}
		}
		removed = true
	}
	return removed
}

// followMembers keeps the map's client at members of its etcd that can answer, until ctx ends: at this broker's own one as long
// as that has a leader, else at those of other voters. gRPC alone would take 12 s to leave one that is silent, and would never
// leave one that answers but is cut off from the leader, while others are not.
func (n *node) followMembers(ctx context.Context) error {
	tick := time.NewTicker(leaderCheck)
	defer tick.Stop()
	for checked := time.Now(); ; {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		own := n.member.Load()
		if own != nil && own.Led() {
			own.Elsewhere(false)
			n.goTo([]string{n.net.addr})
			continue
		}
		if own == nil && time.Since(checked) < voterCheck {
			continue
		}
		at := n.answering(ctx, own == nil)
		if len(at) > 0 && ctx.Err() == nil {
			n.goTo(at)
		}
		if own != nil {
			own.Elsewhere(len(at) > 0)
		}
		checked = time.Now()
	}
}

// goTo sends the map's client to other members.
func (n *node) goTo(addrs []string) {
	slices.Sort(addrs)
	if !slices.Equal(addrs, slices.Sorted(slices.Values(n.client.Endpoints()))) {
		n.client.SetEndpoints(addrs...)
	}
}

// answering are the addresses of the other voters whose members have a leader; if none has one, and orAny, of those that answer.
func (n *node) answering(ctx context.Context, orAny bool) []string {
	voters := n.voting()
	delete(voters, n.settings.nodeID)
	var led, there []string
	for b, reply := range n.net.askAll(ctx, slices.Collect(maps.Keys(voters))) {
		there = append(there, voters[b])
		if reply.MapLed {
			led = append(led, voters[b])
		}
	}
	if len(led) == 0 && orAny {
		return there
	}
	return led
}

// openRemote reaches the map through other brokers' members, or through the external etcd that they told of.
func (n *node) openRemote(ctx context.Context) (err error) {
	n.net.mu.Lock()
	endpoints := n.net.file.Etcd
	n.net.mu.Unlock()
	if len(endpoints) == 0 {
		endpoints = n.findMembers(ctx)
	}
	if len(endpoints) == 0 {
		for id, addr := range n.quorum() {
			if id != n.settings.nodeID {
				endpoints = append(endpoints, addr)
			}
		}
	}
	if len(endpoints) == 0 {
		return errors.New("no broker is known that holds the map: give --peers or --join")
	}
	if strings.Contains(endpoints[0], "://") {
		return n.openExternal(endpoints)
	}
	return n.openMembers(endpoints)
}

// openMembers makes the map's client, which reaches the members of its etcd through the brokers' internal listeners.
func (n *node) openMembers(addrs []string) (err error) {
	others := n.net.pool.EtcdDialer()
	dial := func(ctx context.Context, addr string) (net.Conn, error) {
		if addr == n.net.addr {
			return n.net.server.DialEtcd(ctx)
		}
		return others(ctx, addr)
	}
	n.client, err = clientv3.New(clientv3.Config{
		Endpoints: addrs, MaxCallSendMsgSize: embedded.MaxMessage, DialTimeout: 2 * time.Second, DialKeepAliveTime: 10 * time.Second, DialKeepAliveTimeout: 2 * time.Second,
		DialOptions: []grpc.DialOption{grpc.WithContextDialer(dial)}, Logger: zap.NewNop(),
	})
	if err != nil {
		return fmt.Errorf("map at brokers %s: %w", strings.Join(addrs, ", "), err)
	}
	return nil
}

// openExternal reaches an etcd that is not ours.
func (n *node) openExternal(urls []string) error {
	n.external = true
	cfg := clientv3.Config{Endpoints: urls, DialTimeout: 5 * time.Second, DialKeepAliveTime: 10 * time.Second, DialKeepAliveTimeout: 2 * time.Second, Logger: zap.NewNop()}
	if f := n.settings.etcdTLS; !f.Empty() || strings.HasPrefix(urls[0], "https://") {
		info := transport.TLSInfo{CertFile: f.Cert, KeyFile: f.Key, TrustedCAFile: f.CA}
		var err error
		if cfg.TLS, err = info.ClientConfig(); err != nil {
			return usageError{fmt.Errorf("etcd TLS: %w", err)}
		}
		n.etcdTLS = cfg.TLS
	}
	var err error
	if n.client, err = clientv3.New(cfg); err != nil {
		return fmt.Errorf("etcd %s: %w", strings.Join(urls, ","), err)
	}
	return nil
}

// askEndpoints asks each endpoint of an external etcd by itself and tells what each says: etcd's client keeps to itself
// why it does not get through.
func (n *node) askEndpoints(ctx context.Context) string {
	if !n.external {
		return "no answer from " + strings.Join(n.client.Endpoints(), ", ")
	}
	client := http.Client{Transport: &http.Transport{TLSClientConfig: n.etcdTLS, DisableKeepAlives: true}, Timeout: helloTimeout}
	endpoints := n.client.Endpoints()
	said := make([]string, len(endpoints))
	var wg sync.WaitGroup
	for i, e := range endpoints {
		wg.Go(func() {
			rq, err := http.NewRequestWithContext(ctx, http.MethodGet, e+"/health", nil)
			if err != nil {
				said[i] = err.Error()
				return
			}
			rs, err := client.Do(rq)
			if err != nil {
				said[i] = err.Error() // it names the URL
				return
			}
			defer rs.Body.Close()
			text, _ := io.ReadAll(io.LimitReader(rs.Body, 200))
			said[i] = fmt.Sprintf("%s says %s", e, strings.TrimSpace(string(text)))
		})
	}
	wg.Wait()
	return strings.Join(said, "; ")
}

// checkNodeID refuses to be a broker that another process is. A registration alone proves nothing: its lease outlives
// the process by some seconds.
func (n *node) checkNodeID(ctx context.Context) error {
	r := n.store.Map().Broker(n.settings.nodeID)
	if r == nil {
		return nil
	}
	host, port, err := n.advertised(n.claim.kafka.Addr())
	if err != nil {
		return err
	}
	conflict := func(addr string) error {
		return usageError{fmt.Errorf("node-id: another process is broker %d of cluster %s, at %s", n.settings.nodeID, n.clusterID(), addr)}
	}
	if n.net != nil && r.Internal != "" {
		if reply, err := n.net.hello(ctx, r.Internal); err == nil && ident.Broker(reply.Broker) == r.ID && string(reply.Instance) != string(n.net.instance) {
			return conflict(r.Internal)
		}
		return nil
	}
	if r.Host == host && r.Port == port {
		return nil // the port is ours now
	}
	addr := net.JoinHostPort(r.Host, fmt.Sprint(r.Port))
	d := net.Dialer{Timeout: helloTimeout}
	c, err := d.DialContext(ctx, "tcp", addr)
	if err != nil {
		return nil
	}
	c.Close()
	return conflict(addr)
}
