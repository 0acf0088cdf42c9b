package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"strings"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	clientv3 "go.etcd.io/etcd/client/v3"
	"golang.org/x/sync/errgroup"

	"github.com/skeinmq/skein/broker"
	"github.com/skeinmq/skein/controller"
	"github.com/skeinmq/skein/queuemapper"
	"github.com/skeinmq/skein/queuemapper/embedded"
)

// node is one broker process: the parts that `skein serve` wires together. The outer ones, here, live as long as the
// process: map store, map, controller, HTTP. The inner ones, the logs and the broker, live as long as one incarnation of
// the broker. Parts start in the order map store, map, logs and controller, broker; they stop in the opposite one.
type node struct {
	settings settings
	claim    *claim
	logger   *slog.Logger
	out      io.Writer

	registry *prometheus.Registry
	etcd     *embedded.Server // nil with an external etcd
	client   *clientv3.Client
	store    *queuemapper.Store // set before mapOpen is closed
	mapOpen  chan struct{}
	ctl      *controller.Controller

	inner atomic.Pointer[inner] // the one that serves; nil: none yet, or between two
}

// run runs the node until ctx ends or a part fails.
func (n *node) run(ctx context.Context) (err error) {
	n.registry = prometheus.NewRegistry()
	n.registry.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	n.mapOpen = make(chan struct{})
	ctx, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	var all errgroup.Group
	all.Go(func() error {
		err := n.serveHTTP(ctx)
		if err != nil {
			stop(err)
		}
		return err
	})
	err = n.serve(ctx, stop)
	stop(err)
	return errors.Join(err, all.Wait(), n.close())
}

// serve opens the parts and runs them until ctx ends; stop ends it early, with a cause.
func (n *node) serve(ctx context.Context, stop context.CancelCauseFunc) error {
	in, err := n.open(ctx)
	if err != nil {
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
	err = n.serveInner(ctx, in)
	stopBelow()
	return errors.Join(err, under.Wait())
}

// open opens everything and serves nothing but HTTP. With directories that were in use before, logs recover while the
// map store starts.
func (n *node) open(ctx context.Context) (in *inner, err error) {
	g, gctx := errgroup.WithContext(ctx)
	g.Go(func() error {
		if err := n.openMap(gctx); err != nil {
			return err
		}
		close(n.mapOpen)
		return nil
	})
	g.Go(n.openController)
	g.Go(func() (err error) {
		in, err = n.newInner(gctx, n.claim.kafka)
		return err
	})
	if err = g.Wait(); err != nil && in != nil {
		err = errors.Join(err, in.close())
	}
	return in, err
}

// serveInner runs the inner part, and another one each time it was fenced, until ctx ends.
func (n *node) serveInner(ctx context.Context, in *inner) error {
	for {
		err := in.openBroker(ctx)
		if err == nil {
			n.inner.Store(in)
			err = in.run(ctx)
			n.inner.Store(nil)
		}
		cerr := in.close()
		if !errors.Is(err, broker.ErrFenced) || ctx.Err() != nil || cerr != nil {
			if errors.Is(err, broker.ErrFenced) { // it ends anyway
				err = nil
			}
			return errors.Join(err, cerr)
		}
		n.logger.Warn("broker was fenced; it comes back in a new incarnation", "broker", n.settings.nodeID, "error", err)
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

func (n *node) openMap(ctx context.Context) (err error) {
	if len(n.settings.etcd) == 0 {
		n.etcd, err = embedded.Start(ctx, embedded.Config{Dir: n.firstDir("etcd"), Logger: n.logger})
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
	n.store, err = queuemapper.Open(ctx, queuemapper.Config{Client: n.client, Logger: n.logger, Registerer: n.registry, MaxOps: maxOps, MaxBytes: maxBytes}, n.claim.cluster())
	if err != nil {
		return fmt.Errorf("open the map: %w", err)
	}
	return nil
}

func (n *node) openController() (err error) {
	n.ctl, err = controller.Open(controller.Config{Dir: n.firstDir("raft"), ID: n.settings.nodeID, Logger: n.logger, Registerer: n.registry})
	if err != nil {
		return fmt.Errorf("open the controller: %w", err)
	}
	return nil
}

func (n *node) close() error {
	var problems []error
	if n.client != nil && n.etcd == nil {
		problems = append(problems, n.client.Close())
	}
	if n.etcd != nil {
		problems = append(problems, n.etcd.Close())
	}
	return errors.Join(problems...)
}
