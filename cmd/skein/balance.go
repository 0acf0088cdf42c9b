package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strconv"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/skeinmq/skein/controller/balance"
	"github.com/skeinmq/skein/internal/kconfig"
	"github.com/skeinmq/skein/internal/peer/peerpb"
	"github.com/skeinmq/skein/queuemapper"
)

// mayBalance reads the balancer's switch as this broker has it.
func (n *node) mayBalance(m *queuemapper.Map) bool {
	return kconfig.Layers{
		Static: n.settings.kafka, Default: m.Dynamic("broker", ""), Broker: m.Dynamic("broker", strconv.Itoa(int(n.settings.nodeID))),
	}.BrokerConfig().Balancer
}

// askBalancer calls the active controller's balancer, which may be here.
func (n *node) askBalancer(ask func(peerpb.BalanceClient) error) error {
	ctl := n.controller.Load()
	if ctl == nil || n.net == nil {
		return errors.New("this broker is starting, or it has no internal listener (--internal), and so no others to share with")
	}
	leader, _, ok := ctl.Leader()
	if !ok {
		return errors.New("no active controller is known")
	}
	conn, err := n.net.pool.Conn(leader)
	if err != nil {
		return fmt.Errorf("reach broker %d: %w", leader, err)
	}
	return ask(peerpb.NewBalanceClient(conn))
}

func (n *node) serveBalance(w http.ResponseWriter, r *http.Request) {
	var reply *peerpb.BalanceStatusReply
	err := n.askBalancer(func(c peerpb.BalanceClient) (err error) {
		reply, err = c.Status(r.Context(), &peerpb.BalanceStatusRequest{})
		return err
	})
	if err != nil {
		http.Error(w, status.Convert(err).Message(), http.StatusServiceUnavailable)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	_, _ = w.Write(reply.Json) // the client is gone: nobody to tell
}

// balanceRequest switches the balancer on or off, or has it go on after brokers vanished.
type balanceRequest struct {
	Enabled *bool `json:"enabled,omitempty"`
	Resume  bool  `json:"resume,omitempty"`
}

func (n *node) changeBalance(w http.ResponseWriter, r *http.Request) {
	var rq balanceRequest
	if err := json.NewDecoder(http.MaxBytesReader(w, r.Body, 4096)).Decode(&rq); err != nil {
		http.Error(w, "read request: "+err.Error(), http.StatusBadRequest)
		return
	}
	var errs []error
	if rq.Enabled != nil {
		errs = append(errs, n.switchBalancer(r.Context(), *rq.Enabled))
	}
	if rq.Resume {
		errs = append(errs, n.askBalancer(func(c peerpb.BalanceClient) error {
			_, err := c.Resume(r.Context(), &peerpb.BalanceResumeRequest{})
			return err
		}))
	}
	if err := errors.Join(errs...); err != nil {
		code := http.StatusServiceUnavailable
		if status.Code(err) == codes.FailedPrecondition {
			code = http.StatusConflict
		}
		http.Error(w, err.Error(), code)
		return
	}
	w.WriteHeader(http.StatusNoContent)
}

// switchBalancer sets the switch for all brokers.
func (n *node) switchBalancer(ctx context.Context, on bool) error {
	select {
	case <-n.mapOpen:
	default:
		return errors.New("this broker is starting")
	}
	return n.store.SetDynamic(ctx, "broker", "", func(set map[string]string) (map[string]string, error) {
		if set == nil {
			set = make(map[string]string)
		}
		set[balance.ConfigEnabled] = strconv.FormatBool(on)
		return set, nil
	})
}
