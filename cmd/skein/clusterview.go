package main

import (
	"context"
	"encoding/json"
	"net/http"
	"slices"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/skeinmq/skein/internal/ident"
	"github.com/skeinmq/skein/internal/peer/peerpb"
	"github.com/skeinmq/skein/queuemapper"
)

// clusterView is what GET /v1/cluster answers: the cluster as the answering broker knows it.
type clusterView struct {
	Cluster    string        `json:"cluster"`
	Broker     ident.Broker  `json:"broker"`            // that answers
	Waiting    string        `json:"waiting,omitempty"` // for whom
	Controller *ident.Broker `json:"controller"`        // the active one; null: nobody, as far as this broker knows
	Term       uint64        `json:"term"`
	Level      int           `json:"level"` // feature level
	Brokers    []brokerState `json:"brokers"`
	Etcd       []memberState `json:"etcd"` // members in brokers, or the URLs of an external etcd
	Logs       []logState    `json:"logs"`
}

type brokerState struct {
	Broker      ident.Broker `json:"broker"`
	Registered  bool         `json:"registered"`       // it lives, as far as the map says
	Silent      bool         `json:"silent,omitempty"` // nobody leads who would take it out of the map, and it does not answer
	Member      bool         `json:"member"`           // it has a copy of the controller's state
	Voter       bool         `json:"voter"`
	Internal    string       `json:"internal"`
	Rack        string       `json:"rack,omitempty"`
	Incarnation int64        `json:"incarnation,omitempty"`
	Groups      int          `json:"groups"` // that it owns
}

type memberState struct {
	Name    string `json:"name"`
	URL     string `json:"url"`
	Learner bool   `json:"learner,omitempty"`
	Leader  bool   `json:"leader,omitempty"`
}

type logState struct {
	ID        string         `json:"id"`
	Broker    ident.Broker   `json:"broker"`
	Epoch     int64          `json:"epoch"`
	State     string         `json:"state"`
	Groups    int            `json:"groups"`
	Witnesses []ident.Broker `json:"witnesses"`
}

func (n *node) serveCluster(w http.ResponseWriter, r *http.Request) {
	v := n.viewCluster()
	n.markSilent(r.Context(), v.Brokers)
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(v) // the client is gone: nobody to tell
}

// leaderless reports that this broker knows of no active controller.
func (n *node) leaderless() bool {
	ctl := n.controller.Load()
	if ctl == nil {
		return true
	}
	_, _, ok := ctl.Leader()
	return !ok
}

// markSilent asks the registered brokers whether they are there, when nobody leads who would take the dead out of the map.
func (n *node) markSilent(ctx context.Context, brokers []brokerState) {
	if n.net == nil || !n.leaderless() {
		return
	}
	var who []ident.Broker
	for _, b := range brokers {
		if b.Registered && b.Broker != n.settings.nodeID {
			who = append(who, b.Broker)
		}
	}
	silent := n.net.silent(ctx, who)
	for i := range brokers {
		brokers[i].Silent = slices.Contains(silent, brokers[i].Broker)
	}
}

func (n *node) viewCluster() clusterView {
	v := clusterView{Cluster: n.clusterID(), Broker: n.settings.nodeID, Brokers: []brokerState{}, Etcd: []memberState{}, Logs: []logState{}}
	v.Waiting, _ = n.waiting.Load().(string)
	brokers := make(map[ident.Broker]*brokerState)
	at := func(id ident.Broker) *brokerState {
		if brokers[id] == nil {
			brokers[id] = &brokerState{Broker: id}
		}
		return brokers[id]
	}
	if ctl := n.controller.Load(); ctl != nil {
		if id, _, ok := ctl.Leader(); ok {
			v.Controller, v.Term = &id, ctl.Term()
		}
		for _, m := range ctl.Members() {
			b := at(m.Broker)
			b.Member, b.Voter, b.Internal = true, m.Voter, m.Address
		}
	}
	select {
	case <-n.mapOpen:
		v.Logs, v.Level = viewLogs(n.store.Map()), int(n.store.Map().Level())
		for r := range n.store.Map().Brokers() {
			b := at(r.ID)
			b.Registered, b.Internal, b.Rack, b.Incarnation = true, r.Internal, r.Rack, r.Incarnation
		}
		for _, l := range v.Logs {
			at(l.Broker).Groups += l.Groups
		}
		v.Etcd = n.viewEtcd()
	default:
	}
	for _, b := range brokers {
		v.Brokers = append(v.Brokers, *b)
	}
	slices.SortFunc(v.Brokers, func(a, b brokerState) int { return int(a.Broker - b.Broker) })
	return v
}

func viewLogs(m *queuemapper.Map) []logState {
	owned := make(map[ident.Log]int)
	for g := range m.Groups() {
		if cur := g.Current(); cur != nil {
			owned[cur.Log]++
		}
	}
	out := []logState{}
	for l := range m.Logs() {
		s := logState{ID: l.ID.String(), Broker: l.Host, Epoch: int64(l.Epoch), State: l.State.String(), Groups: owned[l.ID], Witnesses: []ident.Broker{}}
		for _, x := range l.Witnesses {
			s.Witnesses = append(s.Witnesses, x.Broker)
		}
		out = append(out, s)
	}
	return out
}

func (n *node) viewEtcd() []memberState {
	out := []memberState{}
	m := n.member.Load()
	if m == nil {
		for _, e := range n.client.Endpoints() {
			out = append(out, memberState{URL: e})
		}
		return out
	}
	for _, e := range m.Members() {
		out = append(out, memberState{Name: e.Name, URL: e.URL, Learner: e.Learner, Leader: e.ID == m.Leader()})
	}
	return out
}

// votersRequest asks for a change of who votes: verb list, promote, demote, remove, or replace a broker by another one.
type votersRequest struct {
	Verb   string       `json:"verb"`
	Broker ident.Broker `json:"broker"`
	By     ident.Broker `json:"by,omitempty"`
}

// voterState is one member of the controller, as POST /v1/cluster/voters answers them.
type voterState struct {
	Broker  ident.Broker `json:"broker"`
	Address string       `json:"address"`
	Voter   bool         `json:"voter"`
}

func (n *node) serveVoters(w http.ResponseWriter, r *http.Request) {
	var rq votersRequest
	if err := json.NewDecoder(http.MaxBytesReader(w, r.Body, 4096)).Decode(&rq); err != nil {
		http.Error(w, "read request: "+err.Error(), http.StatusBadRequest)
		return
	}
	if n.controller.Load() == nil || n.net == nil {
		http.Error(w, "this broker is starting, or it has no internal listener (--internal)", http.StatusServiceUnavailable)
		return
	}
	reply, err := n.changeVoters(r.Context(), &peerpb.VotersRequest{Verb: rq.Verb, Broker: int32(rq.Broker), By: int32(rq.By)})
	if err != nil {
		code := http.StatusServiceUnavailable
		switch status.Code(err) {
		case codes.InvalidArgument:
			code = http.StatusBadRequest
		case codes.Aborted:
			code = http.StatusConflict
		}
		http.Error(w, status.Convert(err).Message(), code)
		return
	}
	out := []voterState{}
	for _, m := range reply.Members {
		out = append(out, voterState{ident.Broker(m.Broker), m.Address, m.Voter})
	}
	slices.SortFunc(out, func(a, b voterState) int { return int(a.Broker - b.Broker) })
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(out)
}

// handOverTime bounds how long a change waits for an active controller: a change of its own vote makes it hand over.
const handOverTime = 10 * time.Second

// changeVoters asks the active controller, and the next one if it handed over for that. Without a majority of voters there
// is none to wait for.
func (n *node) changeVoters(ctx context.Context, rq *peerpb.VotersRequest) (*peerpb.VotersReply, error) {
	for begun := time.Now(); ; {
		if waiting, _ := n.waiting.Load().(string); waiting != "" && n.leaderless() {
			return nil, status.Error(codes.Unavailable, waiting)
		}
		reply, err := n.net.service.Voters(ctx, rq)
		switch status.Code(err) {
		case codes.FailedPrecondition, codes.Unavailable:
		default:
			return reply, err
		}
		if time.Since(begun) > handOverTime {
			return nil, err
		}
		select {
		case <-ctx.Done():
			return nil, err
		case <-time.After(joinPause):
		}
	}
}
