package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	clientv3 "go.etcd.io/etcd/client/v3"
	"golang.org/x/sync/errgroup"

	"github.com/skeinmq/skein/broker"
	"github.com/skeinmq/skein/commitlog"
	"github.com/skeinmq/skein/controller"
	"github.com/skeinmq/skein/internal/kconfig"
	"github.com/skeinmq/skein/queuemapper"
	"github.com/skeinmq/skein/queuemapper/embedded"
)

// node is one broker process: the parts that `skein serve` wires together. They start in the
// order map store, map, logs and controller, broker; they stop in the opposite one.
type node struct {
	settings settings
	claim    *claim
	logger   *slog.Logger
	out      io.Writer

	registry *prometheus.Registry
	etcd     *embedded.Server // nil with an external etcd
	client   *clientv3.Client
	store    *queuemapper.Store
	ctl      *controller.Controller
	logs     []*commitlog.Log
	broker   *broker.Broker
}

func (n *node) run(ctx context.Context) (err error) {
	n.registry = prometheus.NewRegistry()
	n.registry.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	defer func() { err = errors.Join(err, n.close()) }()
	if err := n.open(ctx); err != nil {
		return err
	}
	// What the broker stands on ends after it.
	below, stopBelow := context.WithCancel(context.WithoutCancel(ctx))
	defer stopBelow()
	var under, all errgroup.Group
	ctx, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	part := func(name string, run func(context.Context) error) {
		under.Go(func() error {
			err := run(below)
			if err != nil && below.Err() == nil {
				err = fmt.Errorf("%s: %w", name, err)
				stop(err)
				return err
			}
			return nil
		})
	}
	part("map", n.store.Run)
	part("controller", n.ctl.Run)
	for i, l := range n.logs {
		part("log "+n.settings.data[i], l.Run)
	}
	all.Go(func() error { return n.serveHTTP(ctx) })
	all.Go(func() error {
		defer stop(nil)
		if err := n.broker.Run(ctx); err != nil {
			return fmt.Errorf("broker: %w", err)
		}
		return nil
	})
	all.Go(func() error { n.announce(ctx); return nil })
	err = all.Wait()
	stopBelow()
	return errors.Join(err, under.Wait())
}

// open opens everything and serves nothing. With directories that were in use before, logs recover while
// the map store starts.
func (n *node) open(ctx context.Context) error {
	var g errgroup.Group
	cluster := ""
	for _, id := range n.claim.identities {
		if id != nil {
			cluster = id.ClusterID
		}
	}
	n.logs = make([]*commitlog.Log, len(n.settings.data))
	mapOpen := make(chan struct{})
	var opened sync.Once
	g.Go(func() error {
		defer opened.Do(func() { close(mapOpen) })
		return n.openMap(ctx, cluster)
	})
	g.Go(n.openController)
	for i, dir := range n.settings.data {
		g.Go(func() (err error) {
			id := cluster
			if n.claim.identities[i] == nil {
				<-mapOpen // a fresh disk is given the cluster's id
				if n.store == nil {
					return nil
				}
				id = n.store.Map().Cluster().ID
			}
			if n.logs[i], err = commitlog.Open(ctx, n.logConfig(dir, id)); err != nil {
				return fmt.Errorf("open log %s: %w", dir, err)
			}
			return nil
		})
	}
	if err := g.Wait(); err != nil {
		return err
	}
	return n.openBroker()
}

func (n *node) openMap(ctx context.Context, cluster string) (err error) {
	if len(n.settings.etcd) == 0 {
		n.etcd, err = embedded.Start(ctx, embedded.Config{Dir: filepath.Join(n.settings.data[0], "etcd"), Logger: n.logger})
		if err != nil {
			return err
		}
		n.client = n.etcd.Client()
	} else {
		n.client, err = clientv3.New(clientv3.Config{Endpoints: n.settings.etcd, DialTimeout: 5 * time.Second, DialKeepAliveTime: 2 * time.Second, DialKeepAliveTimeout: 2 * time.Second})
		if err != nil {
			return fmt.Errorf("etcd %s: %w", strings.Join(n.settings.etcd, ","), err)
		}
	}
	maxOps, maxBytes := 0, 0 // what any etcd takes
	if n.etcd != nil {
		maxOps, maxBytes = embedded.MaxOps, embedded.MaxBytes
	}
	n.store, err = queuemapper.Open(ctx, queuemapper.Config{Client: n.client, Logger: n.logger, Registerer: n.registry, MaxOps: maxOps, MaxBytes: maxBytes}, cluster)
	if err != nil {
		return fmt.Errorf("open the map: %w", err)
	}
	return nil
}

func (n *node) openController() (err error) {
	n.ctl, err = controller.Open(controller.Config{Dir: filepath.Join(n.settings.data[0], "raft"), ID: n.settings.nodeID, Logger: n.logger, Registerer: n.registry})
	if err != nil {
		return fmt.Errorf("open the controller: %w", err)
	}
	return nil
}

func (n *node) logConfig(dir, cluster string) commitlog.Config {
	return commitlog.Config{
		ProducerExpiry: kconfig.Layers{Static: n.settings.kafka}.BrokerConfig().ProducerIDExpiration,
		Dir:            dir, ClusterID: cluster, Logger: n.logger,
		Registerer: prometheus.WrapRegistererWith(prometheus.Labels{"dir": dir}, n.registry),
	}
}

func (n *node) openBroker() error {
	host, port, err := n.advertised()
	if err != nil {
		return err
	}
	failover := n.settings.failover
	if failover == "" && n.etcd != nil {
		// The lock of the first directory, which has the etcd, proves that the broker that appended last is dead (O22).
		failover = broker.UnwitnessedGap
	}
	static := maps.Clone(n.settings.kafka) // tools ask a broker where its data is
	static["log.dirs"] = strings.Join(n.settings.data, ",")
	n.broker, err = broker.New(broker.Config{
		ID: n.settings.nodeID, Incarnation: time.Now().UnixNano(), Listener: n.claim.kafka, Host: host, Port: port,
		Rack: n.settings.kafka["broker.rack"], Store: n.store, ProducerIDs: broker.IDsFrom(n.ctl), Controller: n.ctl, Logs: n.logs, Unwitnessed: failover, Static: static,
		Logger: n.logger, Registerer: n.registry,
	})
	return err
}

// advertised is the address that clients are told.
func (n *node) advertised() (host string, port int32, err error) {
	addr := n.settings.advertise
	if addr == "" {
		addr = n.claim.kafka.Addr().String()
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
		num = uint64(n.claim.kafka.Addr().(*net.TCPAddr).Port)
	}
	return host, int32(num), nil
}

// announce prints the one line that scripts wait for.
func (n *node) announce(ctx context.Context) {
	select {
	case <-n.broker.Ready():
	case <-ctx.Done():
		return
	}
	var ids []string
	for _, l := range n.logs {
		ids = append(ids, l.Recovered().ID.String())
	}
	fmt.Fprintf(n.out, "ready listen=%s http=%s cluster=%s log=%s\n",
		n.claim.kafka.Addr(), n.claim.http.Addr(), n.store.Map().Cluster().ID, strings.Join(ids, ","))
}

func (n *node) close() error {
	var problems []error
	for _, l := range n.logs {
		if l != nil {
			problems = append(problems, l.Close())
		}
	}
	if n.client != nil && n.etcd == nil {
		problems = append(problems, n.client.Close())
	}
	if n.etcd != nil {
		problems = append(problems, n.etcd.Close())
	}
	return errors.Join(problems...)
}
