package main

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net"
	"net/http"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sync/errgroup"

	"github.com/skeinmq/skein/broker"
	"github.com/skeinmq/skein/broker/host"
	"github.com/skeinmq/skein/commitlog"
	"github.com/skeinmq/skein/internal/kconfig"
)

// inner is the part of a node that stands for one incarnation of the broker: its logs and what serves them. When it
// was fenced, the node makes another one in the same process.
type inner struct {
	n        *node
	registry *prometheus.Registry // of this part alone: its metrics go with it
	listener net.Listener         // Kafka's
	logs     []*commitlog.Log
	broker   *broker.Broker
	ops      http.Handler // the operators' API
	wit      *witnesses   // nil: no other brokers
}

// newInner opens the logs. With directories that were in use before, they recover without waiting for the map.
func (n *node) newInner(ctx context.Context, listener net.Listener) (*inner, error) {
	in := &inner{n: n, registry: prometheus.NewRegistry(), listener: listener, logs: make([]*commitlog.Log, len(n.settings.data))}
	if n.net != nil { // witness sets change the map
		select {
		case <-n.mapOpen:
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
		in.newWitnesses()
	}
	var g errgroup.Group
	for i, dir := range n.settings.data {
		g.Go(func() (err error) {
			select {
			case <-n.cleared:
			case <-ctx.Done():
				return context.Cause(ctx)
			}
			cluster := n.claim.cluster()
			if n.claim.identities[i] == nil { // a fresh disk is given the cluster's id
				select {
				case <-n.mapOpen:
					cluster = n.store.Map().Cluster().ID
				case <-ctx.Done():
					return context.Cause(ctx)
				}
			}
			if in.logs[i], err = commitlog.Open(ctx, in.logConfig(i, cluster)); err != nil {
				return fmt.Errorf("open log %s: %w", dir, err)
			}
			return nil
		})
	}
	if err := g.Wait(); err != nil {
		return nil, errors.Join(err, in.close())
	}
	return in, nil
}

// config is what the command line and the file say of brokers' configs.
func (in *inner) config() kconfig.BrokerConfig {
	return kconfig.Layers{Static: in.n.settings.kafka}.BrokerConfig()
}

func (in *inner) logConfig(i int, cluster string) commitlog.Config {
	dir := in.n.settings.data[i]
	conf := in.config()
	cfg := commitlog.Config{
		ProducerExpiry: conf.ProducerIDExpiration, SortRate: conf.SortBytesPerSecond, SortAll: conf.SortAll,
		CacheBytes: leastCache(conf.CacheBytes, processMemory(), len(in.n.settings.data)),
		Dir:        dir, ClusterID: cluster, Logger: in.n.logger,
		Registerer: prometheus.WrapRegistererWith(prometheus.Labels{"dir": dir}, in.registry),
	}
	if in.wit != nil {
		cfg.Witness = in.wit.sets[i].Registrar()
	}
	return cfg
}

// openBroker makes the broker, in a new incarnation. The map is open.
func (in *inner) openBroker(ctx context.Context) error {
	n := in.n
	host, port, err := n.advertised(in.listener.Addr())
	if err != nil {
		return err
	}
	failover := n.settings.failover
	if failover == "" && n.member.Load() != nil && n.net == nil {
		// The lock of the first directory, which has the etcd, proves that the broker that appended last is dead (O22).
		failover = broker.UnwitnessedGap
	}
	incarnation, err := n.store.NextIncarnation(ctx, n.settings.nodeID)
	if err != nil {
		return err
	}
	internal := ""
	if n.net != nil {
		internal = n.net.addr
	}
	static := maps.Clone(n.settings.kafka) // tools ask a broker where its data is
	static["log.dirs"] = strings.Join(n.settings.data, ",")
	cfg := broker.Config{
		ID: n.settings.nodeID, Incarnation: incarnation, Listener: in.listener, Host: host, Port: port, Internal: internal,
		Rack: n.settings.kafka["broker.rack"], Store: n.store, ProducerIDs: broker.IDsFrom(n.ctl), Controller: n.ctl, Logs: in.logs, Unwitnessed: failover, Static: static,
		Logger: n.logger, Registerer: in.registry,
	}
	for _, p := range n.settings.peers {
		cfg.Founders = append(cfg.Founders, p.id)
	}
	slices.Sort(cfg.Founders)
	if n.net != nil {
		cfg.Leaderless, cfg.Silent = n.leaderless, n.net.silent
	}
	if in.wit != nil {
		in.wit.bind(in, incarnation)
		cfg.Peers, cfg.GiveUp, cfg.ReportChanged = n.net.pool, in.wit.beats.Leave, in.wit.beats.Nudge
		for _, s := range in.wit.sets {
			cfg.Witnesses = append(cfg.Witnesses, s)
		}
	}
	if in.broker, err = broker.New(cfg); err == nil {
		in.ops = in.broker.OpsHandler()
	}
	return err
}

// run serves until ctx ends or the broker does; broker.ErrFenced asks for another inner part. The logs are still open
// afterwards, and nothing of them runs.
func (in *inner) run(ctx context.Context) error {
	ctx, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	// What the broker stands on ends after it.
	below, stopBelow := context.WithCancel(context.WithoutCancel(ctx))
	defer stopBelow()
	var under errgroup.Group
	for i, l := range in.logs {
		under.Go(func() error {
			err := l.Run(below)
			switch {
			case err == nil || below.Err() != nil:
				return nil
			case errors.Is(err, commitlog.ErrFenced):
				return nil // the broker says so
			}
			return fmt.Errorf("log %s: %w", in.n.settings.data[i], err) // the broker ends by it, too: it gives its groups up
		})
	}
	if in.config().CacheBytes < 0 {
		under.Go(func() error { followMemory(below, in.logs, readMemory); return nil })
	}
	// Witnesses outlive the logs: what a log still has to commit waits for them.
	witnessed, stopWitnesses := context.WithCancel(context.WithoutCancel(ctx))
	defer stopWitnesses()
	var beside errgroup.Group
	if in.wit != nil {
		in.wit.serve(in)
		defer in.wit.scope.Close()
		beside.Go(func() error { return in.wit.run(witnessed, in.logs) })
		beside.Go(func() error { host.ForgetEnded(witnessed, in.n.store, in.wit.member); return nil })
	}
	var announcing errgroup.Group
	announcing.Go(func() error { in.announce(ctx); return nil })
	err := in.broker.Run(ctx)
	if err != nil {
		err = fmt.Errorf("broker: %w", err)
	}
	stop(nil)
	stopBelow()
	_ = announcing.Wait()
	late := time.AfterFunc(lastCommits, stopWitnesses)
	err = errors.Join(err, under.Wait())
	late.Stop()
	stopWitnesses()
	return errors.Join(err, beside.Wait())
}

// lastCommits is how long a log that ends waits for its witnesses. Those of a cluster that ends with it may be gone, and without
// a quorum there are no others: what they have not got by then was never acknowledged.
const lastCommits = 2 * time.Second

// announce prints the one line that scripts wait for.
func (in *inner) announce(ctx context.Context) {
	select {
	case <-in.broker.Ready():
	case <-ctx.Done():
		return
	}
	var ids []string
	for _, l := range in.logs {
		ids = append(ids, l.Recovered().ID.String())
	}
	fmt.Fprintf(in.n.out, "ready listen=%s http=%s cluster=%s log=%s\n",
		in.listener.Addr(), in.n.claim.http.Addr(), in.n.store.Map().Cluster().ID, strings.Join(ids, ","))
}

func (in *inner) close() error {
	problems := []error{}
	for _, l := range in.logs {
		if l != nil {
			problems = append(problems, l.Close())
		}
	}
	return errors.Join(problems...)
}

// rebind takes Kafka's port again, which the fenced broker gave up. It has been this process's, so nobody should be
// there; whoever is gets some seconds to go.
func rebind(ctx context.Context, addr string) (net.Listener, error) {
	for begun := time.Now(); ; {
		ln, err := net.Listen("tcp", addr)
		if err == nil {
			return ln, nil
		}
		if time.Since(begun) > 10*time.Second {
			return nil, fmt.Errorf("listen again: %w", err)
		}
		select {
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		case <-time.After(50 * time.Millisecond):
		}
	}
}

// advertised is the address that clients are told.
func (n *node) advertised(bound net.Addr) (host string, port int32, err error) {
	addr := n.settings.advertise
	if addr == "" {
		addr = bound.String()
	}
	host, p, err := net.SplitHostPort(addr)
	if err != nil {
		return "", 0, fmt.Errorf("advertise %s: %w", addr, err)
	}
	num, err := strconv.ParseUint(p, 10, 16)
	if err != nil {
		return "", 0, fmt.Errorf("advertise %s: %w", addr, err)
	}
	if num == 0 {
		num = uint64(bound.(*net.TCPAddr).Port)
	}
	return host, int32(num), nil
}

func (n *node) firstDir(name string) string { return filepath.Join(n.settings.data[0], name) }
