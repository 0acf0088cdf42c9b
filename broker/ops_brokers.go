package broker

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strconv"

	"github.com/skeinmq/skein/internal/ident"
	"github.com/skeinmq/skein/queuemapper"
)

// BrokerView is one broker, as GET /v1/brokers lists them: the live ones, and those whose logs the map still has.
type BrokerView struct {
	ID       ident.Broker `json:"id"`
	Address  string       `json:"address,omitempty"`
	Internal string       `json:"internal,omitempty"`
	Rack     string       `json:"rack,omitempty"`
	// State: live; leaving (it moves its groups away, then ends); does not answer (it is registered, and nobody leads who would
	// take it out of the map); away (not registered). Drained is an operator's mark.
	State   string `json:"state"`
	Drained bool   `json:"drained"`
	Full    bool   `json:"full"` // its disk is nearly full: it gets no new partitions
	Logs    int    `json:"logs"`
	Absent  int    `json:"absent"` // logs that it does not have, though it is live: they are in none of its directories
	Groups  int    `json:"groups"` // that are open in its logs
	Runs    int    `json:"runs"`   // sealed generations with records in its logs: what must be gone before it can be removed
}

// BrokerResult is what changing a broker answers.
type BrokerResult struct {
	Broker  BrokerView `json:"broker"`
	Removed []string   `json:"removed,omitempty"` // logs
}

func (b *Broker) brokerOps(mux *http.ServeMux) {
	mux.HandleFunc("GET /v1/brokers", func(w http.ResponseWriter, rq *http.Request) {
		views := b.viewBrokers()
		b.markSilent(rq.Context(), views)
		writeJSON(w, views)
	})
	mux.HandleFunc("POST /v1/brokers/{id}/drain", func(w http.ResponseWriter, rq *http.Request) { b.serveDrain(w, rq, true) })
	mux.HandleFunc("POST /v1/brokers/{id}/undrain", func(w http.ResponseWriter, rq *http.Request) { b.serveDrain(w, rq, false) })
	mux.HandleFunc("DELETE /v1/brokers/{id}", b.serveRemoveBroker)
}

func (b *Broker) viewBrokers() []BrokerView {
	m := b.store.Map()
	at := make(map[ident.Broker]int)
	views := []BrokerView{}
	view := func(id ident.Broker) *BrokerView {
		if i, ok := at[id]; ok {
			return &views[i]
		}
		at[id] = len(views)
		views = append(views, BrokerView{ID: id, State: "away", Drained: m.Drained(id)})
		return &views[len(views)-1]
	}
	for r := range m.Brokers() {
		v := view(r.ID)
		v.Address, v.Internal, v.Rack, v.State = fmt.Sprintf("%s:%d", r.Host, r.Port), r.Internal, r.Rack, "live"
		v.Full = m.Full(r.ID)
		if m.Draining(r.ID) && !v.Drained {
			v.State = "leaving"
		}
	}
	for l := range m.Logs() {
		v := view(l.Host)
		v.Logs++
		if m.Absent(l) {
			v.Absent++
		}
	}
	for g := range m.Groups() {
		for i := range g.Generations {
			l := m.Log(g.Generations[i].Log)
			switch {
			case l == nil:
			case g.Generations[i].Sealed && len(g.Generations[i].Ends) == 0: // nobody got anything
			case g.Generations[i].Sealed:
				view(l.Host).Runs++
			default:
				view(l.Host).Groups++
			}
		}
	}
	return views
}

// markSilent asks the brokers that the map has as live whether they are, when nobody leads who would take the dead out of it.
func (b *Broker) markSilent(ctx context.Context, views []BrokerView) {
	if b.cfg.Silent == nil || !b.leaderless() {
		return
	}
	var who []ident.Broker
	for _, v := range views {
		if v.State != "away" && v.ID != b.cfg.ID {
			who = append(who, v.ID)
		}
	}
	silent := b.cfg.Silent(ctx, who)
	for i := range views {
		if slices.Contains(silent, views[i].ID) {
			views[i].State = "does not answer"
		}
	}
}

// brokerOf reads the id in a request's path; false: it was refused.
func (b *Broker) brokerOf(w http.ResponseWriter, rq *http.Request) (BrokerView, bool) {
	id, err := strconv.ParseInt(rq.PathValue("id"), 10, 32)
	if err == nil {
		for _, v := range b.viewBrokers() {
			if v.ID == ident.Broker(id) {
				return v, true
			}
		}
	}
	http.Error(w, fmt.Sprintf("broker %q: not known", rq.PathValue("id")), http.StatusNotFound)
	return BrokerView{}, false
}

func (b *Broker) serveDrain(w http.ResponseWriter, rq *http.Request, on bool) {
	v, ok := b.brokerOf(w, rq)
	if !ok {
		return
	}
	if on && !b.othersTake(v.ID) {
		http.Error(w, fmt.Sprintf("drain broker %d: there is no other live broker that takes its groups", v.ID), http.StatusConflict)
		return
	}
	if err := b.store.DrainBroker(rq.Context(), v.ID, on); err != nil {
		http.Error(w, err.Error(), http.StatusServiceUnavailable)
		return
	}
	v, _ = b.brokerOf(w, rq)
	writeJSON(w, BrokerResult{Broker: v})
}

// othersTake reports whether a live broker other than id takes groups.
func (b *Broker) othersTake(id ident.Broker) bool {
	m := b.store.Map()
	for l := range m.Logs() {
		if l.Host != id && l.State == queuemapper.LogOpen && m.Broker(l.Host) != nil && !m.Draining(l.Host) {
			return true
		}
	}
	return false
}

// serveRemoveBroker removes the logs of a broker that has been drained and stopped, once nothing lives in them.
func (b *Broker) serveRemoveBroker(w http.ResponseWriter, rq *http.Request) {
	var removed []string
	for {
		v, ok := b.brokerOf(w, rq)
		if !ok {
			return
		}
		switch {
		case v.State != "away":
			http.Error(w, fmt.Sprintf("remove broker %d: it runs: drain it, then stop it", v.ID), http.StatusConflict)
			return
		case v.Groups > 0 || v.Runs > 0:
			http.Error(w, fmt.Sprintf("remove broker %d: %d groups and %d older generations live in its logs; if its disk is gone for good: skein broker remove %d --lost", v.ID, v.Groups, v.Runs, v.ID), http.StatusConflict)
			return
		}
		some, err := b.removeLogs(rq.Context(), v.ID)
		removed = append(removed, some...)
		switch {
		case errors.Is(err, queuemapper.ErrConflict) && rq.Context().Err() == nil: // the map has what won
		case err != nil:
			http.Error(w, err.Error(), http.StatusConflict)
			return
		default:
			writeJSON(w, BrokerResult{Broker: BrokerView{ID: v.ID, State: "removed"}, Removed: removed})
			return
		}
	}
}

// removeLogs removes the logs of a broker, then its mark, and names the logs that it removed. ErrConflict: somebody changed the
// record of one meanwhile. The active controller seals them at that time if the broker has only just ended.
func (b *Broker) removeLogs(ctx context.Context, id ident.Broker) (removed []string, err error) {
	for l := range b.store.Map().Logs() {
		if l.Host != id {
			continue
		}
		if err := b.store.RemoveLog(ctx, l); err != nil {
			return removed, err
		}
		removed = append(removed, l.ID.String())
	}
	return removed, b.store.DrainBroker(ctx, id, false)
}
