package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/pprof"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	dto "github.com/prometheus/client_model/go"
)

// gather collects the metrics of the process and of the broker's present incarnation.
func (n *node) gather() ([]*dto.MetricFamily, error) {
	from := prometheus.Gatherers{n.registry}
	if in := n.inner.Load(); in != nil {
		from = append(from, in.registry)
	}
	return from.Gather()
}

// serveHTTP serves health, metrics, profiles and the operators' API until ctx ends.
func (n *node) serveHTTP(ctx context.Context) error {
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", promhttp.HandlerFor(prometheus.GathererFunc(n.gather), promhttp.HandlerOpts{}))
	mux.HandleFunc("GET /livez", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, "ok") })
	mux.HandleFunc("GET /readyz", func(w http.ResponseWriter, _ *http.Request) {
		if ctx.Err() != nil {
			http.Error(w, "draining", http.StatusServiceUnavailable)
			return
		}
		waiting, _ := n.waiting.Load().(string)
		if in := n.inner.Load(); in != nil {
			select {
			case <-in.broker.Ready():
				fmt.Fprintln(w, "ok")
				if waiting != "" { // it serves what it can without them
					fmt.Fprintln(w, waiting)
				}
				return
			default:
			}
		}
		text := "starting"
		if waiting != "" {
			text += ": " + waiting
		}
		http.Error(w, text, http.StatusServiceUnavailable)
	})
	mux.HandleFunc("GET /v1/cluster", n.serveCluster)
	mux.HandleFunc("POST /v1/cluster/voters", n.serveVoters)
	mux.HandleFunc("GET /v1/cluster/level", n.serveLevel)
	mux.HandleFunc("POST /v1/cluster/level", n.serveLevel)
	mux.HandleFunc("GET /v1/balance", n.serveBalance)
	mux.HandleFunc("POST /v1/balance", n.changeBalance)
	mux.HandleFunc("/v1/", func(w http.ResponseWriter, r *http.Request) {
		in := n.inner.Load()
		if in == nil {
			http.Error(w, "starting", http.StatusServiceUnavailable)
			return
		}
		in.ops.ServeHTTP(w, r)
	})
	mux.HandleFunc("/debug/pprof/", pprof.Index)
	mux.HandleFunc("/debug/pprof/cmdline", pprof.Cmdline)
	mux.HandleFunc("/debug/pprof/profile", pprof.Profile)
	mux.HandleFunc("/debug/pprof/symbol", pprof.Symbol)
	mux.HandleFunc("/debug/pprof/trace", pprof.Trace)

	requests, cancel := context.WithCancel(context.WithoutCancel(ctx))
	defer cancel()
	srv := &http.Server{Handler: mux, ReadHeaderTimeout: 10 * time.Second, BaseContext: func(net.Listener) context.Context { return requests }}
	stop := context.AfterFunc(ctx, func() {
		grace, done := context.WithTimeout(requests, 2*time.Second)
		defer done()
		if srv.Shutdown(grace) != nil {
			srv.Close()
		}
	})
	defer stop()
	if err := srv.Serve(n.claim.http); !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("http: %w", err)
	}
	return nil
}
