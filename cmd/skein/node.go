package main

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	clientv3 "go.etcd.io/etcd/client/v3"
	"golang.org/x/sync/errgroup"

	"github.com/skeinmq/skein/broker"
	"github.com/skeinmq/skein/controller"
	"github.com/skeinmq/skein/controller/balance"
	"github.com/skeinmq/skein/controller/session"
	"github.com/skeinmq/skein/queuemapper"
	"github.com/skeinmq/skein/queuemapper/embedded"
)

// Pauses before a broker that was fenced comes back: none at first, then growing.
const (
	fencedPause    = 100 * time.Millisecond
	fencedPauseMax = 5 * time.Second
)

// node is one broker process: the parts that `skein serve` wires together. The outer ones, here, live as long as the
// process: HTTP, internal listener, map store, map, controller. The inner ones, the logs and the broker, live as long as one
// incarnation of the broker. Parts start in that order; they stop in the opposite one.
type node struct {
	settings settings
	claim    *claim
	logger   *slog.Logger
	out      io.Writer

	registry *prometheus.Registry
	net      *network     // nil: no other brokers
	cluster  atomic.Value // string: the cluster's id, once it is known
	waiting  atomic.Value // string: whom this broker waits for

	cleared  chan struct{}                   // closed when nothing stands against writing to the directories
	member   atomic.Pointer[embedded.Server] // nil: the map is elsewhere
	client   *clientv3.Client                // set before mapOpen is closed, as are external and store
	external bool                            // the map is in an etcd that is none of the brokers'
	etcdTLS  *tls.Config                     // to that; nil: none
	store    *queuemapper.Store
	mapOpen  chan struct{}

	ctl        *controller.Controller
	sessions   *session.Server                       // of the active controller; nil: no other brokers
	balancer   *balance.Loop                         // of the active controller; nil: no other brokers
	controller atomic.Pointer[controller.Controller] // ctl, for whoever may come before it

	inner atomic.Pointer[inner] // the one that serves; nil: none yet, or between two
}

// run runs the node until ctx ends or a part fails.
func (n *node) run(ctx context.Context) (err error) {
	n.registry = prometheus.NewRegistry()
	n.registry.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	n.mapOpen, n.cleared = make(chan struct{}), make(chan struct{})
	ctx, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	// The internal listener ends last: everything below talks through it to its end.
	below, stopBelow := context.WithCancel(context.WithoutCancel(ctx))
	defer stopBelow()
	var under, all errgroup.Group
	if n.claim.internal != nil {
		if n.net, err = n.newNetwork(); err != nil {
			return err
		}
		under.Go(func() error {
			err := n.net.server.Run(below, n.claim.internal)
			if err != nil {
				stop(err)
			}
			return err
		})
	}
	all.Go(func() error {
		err := n.serveHTTP(ctx)
		if err != nil {
			stop(err)
		}
		return err
	})
	err = n.serve(ctx, stop)
	stop(err)
	err = errors.Join(err, all.Wait(), n.close())
	stopBelow()
	return errors.Join(err, under.Wait())
}

// serve opens the parts and runs them until ctx ends; stop ends it early, with a cause.
func (n *node) serve(ctx context.Context, stop context.CancelCauseFunc) error {
	in, err := n.open(ctx)
	if err != nil {
		if ctx.Err() != nil && errors.Is(err, ctx.Err()) { // stopped while it waited for others
			return nil
		}
		return err
	}
	// What the broker stands on ends after it.
	below, stopBelow := context.WithCancel(context.WithoutCancel(ctx))
	defer stopBelow()
	var under errgroup.Group
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
	if n.net != nil {
		part("membership", n.keepMembership)
		part("sessions", n.sessions.Run)
		part("failover", n.failOver)
	}
	if !n.external {
		part("etcd", n.watchMember)
		if n.net != nil {
			part("members", n.followMembers)
		}
	}
	err = n.serveInner(ctx, in)
	stopBelow()
	return errors.Join(err, under.Wait())
}

// watchMember ends when the etcd member of this broker does, which it must not. There may be one only later.
func (n *node) watchMember(ctx context.Context) error {
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for {
		var stopped, failed <-chan struct{}
		m := n.member.Load()
		if m != nil {
			stopped, failed = m.Stopped(), m.Failed()
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		case <-failed:
			return m.Failure()
		case <-stopped:
			if m.Removed() {
				return errMemberRemoved
			}
			return errors.New("it stopped")
		}
	}
}

// open opens everything and serves nothing but HTTP and, before that, the internal listener. With directories that
// were in use before, logs recover while the map store starts.
func (n *node) open(ctx context.Context) (in *inner, err error) {
	g, gctx := errgroup.WithContext(ctx)
	g.Go(func() error {
		if err := n.clear(gctx); err != nil {
			return err
		}
		close(n.cleared)
		if err := n.openMap(gctx); err != nil {
			return err
		}
		close(n.mapOpen)
		if n.net == nil {
			return nil
		}
		return n.openController() // its streams exist only within a known cluster
	})
	if n.net == nil {
		g.Go(n.openController)
	}
	g.Go(func() (err error) {
		in, err = n.newInner(gctx, n.claim.kafka)
		return err
	})
	if err = g.Wait(); err != nil && in != nil {
		err = errors.Join(err, in.close())
	}
	return in, err
}

// clear finds out whether this broker may be who it is told to be, and joins its cluster if it is to.
func (n *node) clear(ctx context.Context) error {
	if n.net == nil {
		if n.claim.node != nil {
			return nil
		}
		return nodeFile{Node: n.settings.nodeID}.write(n.settings.data[0])
	}
	if err := n.net.greet(ctx); err != nil {
		return err
	}
	if len(n.settings.join) > 0 && (n.claim.node == nil || len(n.claim.node.Members) == 0) && !n.hasMember() {
		return n.joinCluster(ctx)
	}
	return n.net.save(func(*nodeFile) {})
}

// comesBack says whether what ended an inner part is no reason for the process to end: others have sealed its logs, or the
// map could not be written on the way into service.
func comesBack(err error) bool {
	return errors.Is(err, broker.ErrFenced) || errors.Is(err, queuemapper.ErrUnavailable) || errors.Is(err, queuemapper.ErrUnknown)
}

// serveInner runs the inner part, and another one each time it comes back, until ctx ends.
func (n *node) serveInner(ctx context.Context, in *inner) error {
	for pause := time.Duration(0); ; {
		begun := time.Now()
		err := in.openBroker(ctx)
		if err == nil {
			n.inner.Store(in)
			err = in.run(ctx)
			n.inner.Store(nil)
		}
		in.listener.Close() // twice, mostly
		cerr := in.close()
		if !comesBack(err) || ctx.Err() != nil || cerr != nil {
			if comesBack(err) && ctx.Err() != nil { // it ends anyway
				err = nil
			}
			return errors.Join(err, cerr)
		}
		n.logger.Warn("broker comes back in a new incarnation", "broker", n.settings.nodeID, "error", err)
		// One that is fenced again and again, as nobody that decides hears it, must not wear its disk and the map out.
		pause = min(2*pause+fencedPause, fencedPauseMax)
		if time.Since(begun) > fencedPauseMax {
			pause = 0
		}
		select {
		case <-time.After(pause):
		case <-ctx.Done():
			return nil
		}
		ln, err := rebind(ctx, in.listener.Addr().String())
		if err != nil {
			return err
		}
		if in, err = n.newInner(ctx, ln); err != nil {
			ln.Close()
			return err
		}
	}
}

func (n *node) openController() (err error) {
	cfg := controller.Config{Dir: n.firstDir("raft"), ID: n.settings.nodeID, Logger: n.logger, Registerer: n.registry}
	if n.net != nil {
		cfg.Transport, cfg.Conns = controller.NewTransport(n.net.server.Raft(), n.logger), n.net.pool
		if first := n.bootstrap(); contains(first, n.settings.nodeID) {
			for _, p := range first {
				cfg.Voters = append(cfg.Voters, controller.Member{Broker: p.id, Address: p.addr, Voter: true})
			}
		}
	}
	if n.ctl, err = controller.Open(cfg); err != nil {
		return fmt.Errorf("open the controller: %w", err)
	}
	n.controller.Store(n.ctl)
	if n.net != nil {
		n.openSessions()
		n.net.serveController()
	}
	return nil
}

func (n *node) close() error {
	var problems []error
	m := n.member.Load()
	if n.client != nil && (m == nil || m.Client() != n.client) {
		problems = append(problems, n.client.Close())
	}
	if m != nil {
		problems = append(problems, m.Close())
	}
	if n.net != nil {
		problems = append(problems, n.net.pool.Close())
	}
	return errors.Join(problems...)
}
