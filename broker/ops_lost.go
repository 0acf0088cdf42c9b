package broker

import (
	"fmt"
	"net/http"
	"time"

	"github.com/skeinmq/skein/internal/ident"
	"github.com/skeinmq/skein/queuemapper"
)

// LostRequest gives logs up whose disks are gone for good: those that are named, or all that a broker does not have in service.
// Without Yes nothing is changed.
type LostRequest struct {
	Logs   []string      `json:"logs,omitempty"`
	Broker *ident.Broker `json:"broker,omitempty"`
	Yes    bool          `json:"yes,omitempty"`
}

// LostResult tells what was given up, or would be.
type LostResult struct {
	Logs []LostLogView `json:"logs"`
	Done bool          `json:"done"`
}

// LostLogView is one log. Groups are open in it still: nobody could tell where they end, as yet, and if nobody can they go on at
// their ceilings. Runs and Offsets are what becomes unreadable for good, as far as it is known: not what lies in Groups.
type LostLogView struct {
	ID      string       `json:"id"`
	Broker  ident.Broker `json:"broker"`
	Groups  int          `json:"groups"`
	Runs    int          `json:"runs"`
	Offsets int64        `json:"offsets"`
}

// lostPatience is how long the active controller has to seal a log and to open its groups elsewhere, from what witnesses know.
const lostPatience = 10 * time.Second

func (b *Broker) serveLost(w http.ResponseWriter, rq *http.Request) {
	var in LostRequest
	if !readJSON(w, rq, &in) {
		return
	}
	m := b.store.Map()
	ids, err := b.lostLogs(m, in)
	if err != nil {
		http.Error(w, err.Error(), http.StatusConflict)
		return
	}
	out := LostResult{Logs: []LostLogView{}}
	for _, id := range ids {
		v := LostLogView{ID: id.String()}
		if l := m.Log(id); l != nil {
			v.Broker = l.Host
		}
		v.Groups, v.Runs, v.Offsets = m.Holds(id)
		out.Logs = append(out.Logs, v)
		if in.Yes {
			if err := b.host.GiveUp(rq.Context(), id, lostPatience); err != nil {
				http.Error(w, err.Error(), http.StatusConflict)
				return
			}
			b.log.Warn("a log was given up by an operator: what lay there is lost", "log", id, "broker", v.Broker, "runs", v.Runs, "offsets", v.Offsets)
		}
	}
	if out.Done = in.Yes; in.Yes && in.Broker != nil && m.Broker(*in.Broker) == nil {
		if err := b.store.DrainBroker(rq.Context(), *in.Broker, false); err != nil { // the mark goes with it
			http.Error(w, err.Error(), http.StatusServiceUnavailable)
			return
		}
	}
	writeJSON(w, out)
}

// lostLogs finds the logs that a request is about, and refuses what is not lost. One without a record that generations are named
// for was given up before, not to the end.
func (b *Broker) lostLogs(m *queuemapper.Map, in LostRequest) (ids []ident.Log, err error) {
	for _, s := range in.Logs {
		id, err := ident.ParseLog(s)
		if err != nil {
			return nil, fmt.Errorf("log %q: %w", s, err)
		}
		if open, runs, _ := m.Holds(id); m.Log(id) == nil && open+runs == 0 {
			return nil, fmt.Errorf("log %s: not known", id)
		}
		ids = append(ids, id)
	}
	if in.Broker != nil {
		for l := range m.Logs() {
			if l.Host == *in.Broker {
				ids = append(ids, l.ID)
			}
		}
		if len(ids) == 0 {
			return nil, fmt.Errorf("broker %d: no log of it is known", *in.Broker)
		}
	}
	for _, id := range ids {
		switch l := m.Log(id); {
		case b.hosted[id] != nil:
			return nil, fmt.Errorf("log %s is not lost: this broker has it", id)
		case l != nil && m.InService(l):
			return nil, fmt.Errorf("log %s is not lost: broker %d is live and has it", id, l.Host)
		}
	}
	return ids, nil
}

// awayRuns counts the older runs of groups that this broker owns which readers wait for: not noted as lost, in logs that no live
// broker has.
func (b *Broker) awayRuns() (n int) {
	m := b.store.Map()
	away := make(map[ident.Log]bool)
	for l := range m.Logs() {
		away[l.ID] = !m.InService(l)
	}
	for g := range m.Groups() {
		if b.host.OpenIn(g) == nil {
			continue
		}
		for i := range g.Generations {
			gen := &g.Generations[i]
			if there, known := away[gen.Log]; gen.Sealed && b.hosted[gen.Log] == nil && (there || !known) {
				n += m.Unmarked(g, i)
			}
		}
	}
	return n
}
