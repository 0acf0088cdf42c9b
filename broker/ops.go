package broker

import (
	"bufio"
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strconv"

	"github.com/skeinmq/skein/internal/ident"
	"github.com/skeinmq/skein/queuemapper"
)

// MapView is what GET /v1/map answers: the logs, and the open generation of each group.
type MapView struct {
	Cluster    string      `json:"cluster"`
	Revision   int64       `json:"revision"`
	Topics     int         `json:"topics"`
	Partitions int         `json:"partitions"`
	Logs       []LogView   `json:"logs"`
	Groups     []GroupView `json:"groups"`
}

// LogView is one log. DiskBytes and FreeBytes are known of the answering broker's own logs only.
type LogView struct {
	ID        string       `json:"id"`
	Broker    ident.Broker `json:"broker"`
	Epoch     int64        `json:"epoch"`
	State     string       `json:"state"` // open, sealed, absent (its broker is live, and has it in none of its directories)
	Here      bool         `json:"here"`  // in a directory of the answering broker
	Groups    int          `json:"groups"`
	Witnesses []int32      `json:"witnesses"` // brokers that witness it
	DiskBytes int64        `json:"diskBytes,omitempty"`
	FreeBytes int64        `json:"freeBytes,omitempty"`
}

// GroupView is one placement group.
type GroupView struct {
	Group       ident.Group `json:"group"`
	Epoch       ident.Epoch `json:"epoch"`
	Log         string      `json:"log"`
	Frame       string      `json:"frame"` // log epoch @ position of the opening frame
	Generations int         `json:"generations"`
	Partitions  int         `json:"partitions"`
}

// TopicMapView is what GET /v1/map/topics/{topic} answers.
type TopicMapView struct {
	Name       string             `json:"name"`
	ID         string             `json:"id"`
	Partitions []PartitionMapView `json:"partitions"`
}

// PartitionMapView is the runs of one partition in offset order.
type PartitionMapView struct {
	Index int32     `json:"index"`
	Runs  []RunView `json:"runs"`
}

// RunView is one physical queue. End is exclusive; of an open run it is the high watermark.
type RunView struct {
	Group ident.Group  `json:"group"`
	Epoch ident.Epoch  `json:"epoch"`
	Log   string       `json:"log"`
	Start ident.Offset `json:"start"`
	End   ident.Offset `json:"end"`
	Bytes int64        `json:"bytes"`
	Here  bool         `json:"here"`  // in a directory of the answering broker
	State string       `json:"state"` // open, sealed, unavailable (its log is in no directory of its broker, or that is away), lost (all of it is)
	// Broker hosts the log. Bytes, and the end of an open run, are known of the answering broker's own logs only.
	Broker ident.Broker `json:"broker"`
	// Lost are ranges of offsets that were acknowledged and that the disk no longer has: [from, to).
	Lost [][2]ident.Offset `json:"lost,omitempty"`
	// Hole is where the next run begins, if this one has no records from End on: it was sealed without its log (ADR 10).
	Hole ident.Offset `json:"hole,omitempty"`
}

// OpsHandler serves the operators' API under /v1/. It has no authentication: it belongs on loopback.
func (b *Broker) OpsHandler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /v1/map", func(w http.ResponseWriter, _ *http.Request) { writeJSON(w, b.viewMap()) })
	mux.HandleFunc("GET /v1/map/topics/{topic}", b.serveTopicMap)
	mux.HandleFunc("POST /v1/map/move", b.serveMove)
	mux.HandleFunc("POST /v1/map/split", b.serveSplit)
	mux.HandleFunc("POST /v1/map/lost", b.serveLost)
	mux.HandleFunc("GET /v1/meta", b.serveMeta)
	b.brokerOps(mux)
	return mux
}

func (b *Broker) viewMap() MapView {
	m := b.store.Map()
	v := MapView{Cluster: m.Cluster().ID, Revision: m.Revision()}
	v.Topics, v.Partitions = m.Len()
	parts := make(map[ident.Group]int)
	for t := range m.Topics() {
		for _, p := range t.Partitions {
			parts[p[len(p)-1].Group]++
		}
	}
	open := make(map[ident.Log]int)
	for g := range m.Groups() {
		gv := GroupView{Group: g.ID, Generations: len(g.Generations), Partitions: parts[g.ID]}
		if n := len(g.Generations); n > 0 {
			last := g.Generations[n-1]
			gv.Epoch, gv.Log, gv.Frame = last.Epoch, last.Log.String(), last.Frame.String()
			open[last.Log]++
		}
		v.Groups = append(v.Groups, gv)
	}
	for l := range m.Logs() {
		lv := LogView{ID: l.ID.String(), Broker: l.Host, Epoch: int64(l.Epoch), State: "open", Groups: open[l.ID]}
		if l.State == queuemapper.LogSealed {
			lv.State = "sealed"
		}
		lv.Witnesses = make([]int32, len(l.Witnesses))
		for i, w := range l.Witnesses {
			lv.Witnesses[i] = int32(w.Broker)
		}
		if h := b.hosted[l.ID]; h != nil {
			st := h.log.Stats()
			lv.Here, lv.DiskBytes, lv.FreeBytes = true, st.DiskBytes, st.FreeBytes
		} else if l.Host == b.cfg.ID || m.Absent(l) {
			lv.State = "absent"
		}
		v.Logs = append(v.Logs, lv)
	}
	return v
}

func (b *Broker) serveTopicMap(w http.ResponseWriter, rq *http.Request) {
	m := b.store.Map()
	t := m.Topic(rq.PathValue("topic"))
	if t == nil {
		http.Error(w, fmt.Sprintf("topic %q: not found", rq.PathValue("topic")), http.StatusNotFound)
		return
	}
	v := TopicMapView{Name: t.Name, ID: base64.RawURLEncoding.EncodeToString(t.ID[:])}
	first, last := 0, len(t.Partitions)
	if s := rq.URL.Query().Get("partition"); s != "" {
		n, err := strconv.Atoi(s)
		if err != nil || n < 0 || n >= last {
			http.Error(w, fmt.Sprintf("topic %s has no partition %q: it has %d", t.Name, s, last), http.StatusNotFound)
			return
		}
		first, last = n, n+1
	}
	for i := first; i < last; i++ {
		v.Partitions = append(v.Partitions, b.viewPartition(m, t, int32(i)))
	}
	writeJSON(w, v)
}

func (b *Broker) viewPartition(m *queuemapper.Map, t *queuemapper.Topic, index int32) PartitionMapView {
	v := PartitionMapView{Index: index, Runs: []RunView{}}
	for _, r := range m.Runs(t, index) {
		rv := RunView{Group: r.Generation.Group, Epoch: r.Generation.Epoch, Log: r.Log.String(), Start: r.Start, End: r.End, State: "sealed"}
		if r.Open {
			rv.State, rv.End = "open", r.Start
		}
		part := ident.Partition{Topic: t.ID, Index: index}
		for _, lost := range m.Group(r.Generation.Group).Lost(r.Generation.Epoch, part) {
			rv.Lost = append(rv.Lost, [2]ident.Offset{lost.From, lost.To})
		}
		h := b.hosted[r.Log]
		l := m.Log(r.Log)
		if l != nil {
			rv.Broker = l.Host
		}
		if h == nil && (l == nil || l.Host == b.cfg.ID || !m.InService(l)) {
			rv.State = "unavailable"
		}
		if next, _ := m.Readable(part, r, r.Start); !r.Open && next >= r.End {
			rv.State = "lost"
		}
		if h == nil {
			v.Runs = append(v.Runs, rv)
			continue
		}
		rv.Here = true
		if q, ok := h.log.Sealed(r.Generation, part); ok {
			rv.Bytes = q.Size()
			if r.Open {
				rv.End = q.HighWatermark()
			} else if r.Gap && q.HighWatermark() < r.End {
				rv.End, rv.Hole = q.HighWatermark(), r.End
			}
		} else if r.Gap {
			rv.End, rv.Hole = r.Start, r.End
		}
		v.Runs = append(v.Runs, rv)
	}
	return v
}

func (b *Broker) serveMeta(w http.ResponseWriter, rq *http.Request) {
	w.Header().Set("Content-Type", "application/x-ndjson")
	bw := bufio.NewWriter(w)
	err := b.store.Dump(rq.Context(), func(key string, value []byte) error {
		line, err := json.Marshal(struct {
			Key   string          `json:"key"`
			Value json.RawMessage `json:"value"`
		}{key, value})
		if err != nil {
			return err
		}
		_, err = bw.Write(append(line, '\n'))
		return err
	})
	if err = errors.Join(err, bw.Flush()); err != nil {
		b.log.Warn("dump the map", "err", err)
		panic(http.ErrAbortHandler) // the reader must not take half a dump for a whole one
	}
}

// MoveRequest asks for planned moves: Groups to To, All groups that are open on From to To, or Spread.
type MoveRequest struct {
	Groups []int32 `json:"groups,omitempty"`
	All    bool    `json:"all,omitempty"`
	From   string  `json:"from,omitempty"`
	To     string  `json:"to,omitempty"`
	Spread bool    `json:"spread,omitempty"`
}

// SplitRequest asks to give one partition another group from its end on (O20).
type SplitRequest struct {
	Topic     string `json:"topic"`
	Partition int32  `json:"partition"`
	Group     int32  `json:"group"`
}

// MoveResult tells each move, in the order in which they were made.
type MoveResult struct {
	Moves []MoveView `json:"moves"`
}

// MoveView is one group's move. PauseMillis is how long its writes were held.
type MoveView struct {
	Group       ident.Group `json:"group"`
	From        string      `json:"from"`
	To          string      `json:"to"`
	Epoch       ident.Epoch `json:"epoch"`
	PauseMillis float64     `json:"pauseMillis"`
	Error       string      `json:"error,omitempty"`
}

func (b *Broker) serveMove(w http.ResponseWriter, rq *http.Request) {
	var in MoveRequest
	if !readJSON(w, rq, &in) {
		return
	}
	plan, err := b.planMoves(in)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	out := MoveResult{Moves: []MoveView{}}
	slices.SortStableFunc(plan, func(a, b plannedMove) int { return bytes.Compare(a.to[:], b.to[:]) }) // what goes to one log goes together
	for len(plan) > 0 {
		var groups []ident.Group
		for _, p := range plan {
			if p.to == plan[0].to {
				groups = append(groups, p.group)
			}
		}
		moves := b.moveAnywhere(rq.Context(), groups, plan[0].to)
		if !in.Spread {
			b.takePins(rq.Context(), moves, plan[0].to)
		}
		out.Moves, plan = append(out.Moves, moves...), plan[len(groups):]
	}
	writeJSON(w, out)
}

// takePins pins groups that were pinned and that an operator has moved to where they are now: the last word counts, or the balancer
// takes them back within a second. Groups that were not pinned are not.
func (b *Broker) takePins(ctx context.Context, moves []MoveView, to ident.Log) {
	m := b.store.Map()
	l := m.Log(to)
	for i := range moves {
		v := &moves[i]
		if pin, ok := m.Pin(v.Group); v.Error != "" || !ok || l == nil || pin.Broker == l.Host {
			continue
		}
		if err := b.store.PinGroup(ctx, v.Group, queuemapper.Pin{Broker: l.Host}); err != nil {
			v.Error = fmt.Sprintf("it is there, but pinned elsewhere: the balancer takes it back: %v", err)
		}
	}
}

// plannedMove is one step of a plan.
type plannedMove struct {
	group ident.Group
	to    ident.Log
}

// planMoves turns a request into steps, naming what is wrong with it.
func (b *Broker) planMoves(in MoveRequest) ([]plannedMove, error) {
	m := b.store.Map()
	if in.Spread {
		steps, err := m.Plan(b.openLogs(m))
		if err != nil {
			return nil, err
		}
		var plan []plannedMove
		for _, s := range steps {
			plan = append(plan, plannedMove{s.Group, s.To})
		}
		return plan, nil
	}
	to, err := ident.ParseLog(in.To)
	if err != nil {
		return nil, fmt.Errorf("to: %w", err)
	}
	if l := m.Log(to); l == nil || l.State != queuemapper.LogOpen {
		return nil, fmt.Errorf("to: log %s is not open", to)
	}
	var plan []plannedMove
	for _, g := range in.Groups {
		if m.Group(ident.Group(g)) == nil {
			return nil, fmt.Errorf("group %d: there are groups 0 to %d", g, m.Cluster().Groups-1)
		}
		plan = append(plan, plannedMove{ident.Group(g), to})
	}
	if in.All {
		from, err := ident.ParseLog(in.From)
		if err != nil {
			return nil, fmt.Errorf("from: %w", err)
		}
		for g := range m.Groups() {
			if n := len(g.Generations); n > 0 && g.Generations[n-1].Log == from {
				plan = append(plan, plannedMove{g.ID, to})
			}
		}
	}
	return slices.DeleteFunc(plan, func(p plannedMove) bool {
		gens := m.Group(p.group).Generations
		return len(gens) > 0 && gens[len(gens)-1].Log == p.to
	}), nil
}

// openLogs lists the logs that take groups, ordered by id: open, at live brokers that are not being drained.
func (b *Broker) openLogs(m *queuemapper.Map) []ident.Log {
	var out []ident.Log
	for l := range m.Logs() {
		if l.State == queuemapper.LogOpen && m.Broker(l.Host) != nil && !m.Draining(l.Host) && !(l.Host == b.cfg.ID && b.hosted[l.ID] == nil) {
			out = append(out, l.ID)
		}
	}
	return out
}

func (b *Broker) serveSplit(w http.ResponseWriter, rq *http.Request) {
	var in SplitRequest
	if !readJSON(w, rq, &in) {
		return
	}
	v, err := b.splitPartition(rq.Context(), in.Topic, in.Partition, ident.Group(in.Group))
	if err != nil {
		http.Error(w, err.Error(), http.StatusConflict)
		return
	}
	writeJSON(w, MoveResult{Moves: []MoveView{v}})
}

func readJSON(w http.ResponseWriter, rq *http.Request, into any) bool {
	dec := json.NewDecoder(http.MaxBytesReader(w, rq.Body, 1<<20))
	dec.DisallowUnknownFields()
	if err := dec.Decode(into); err != nil {
		http.Error(w, "read request: "+err.Error(), http.StatusBadRequest)
		return false
	}
	return true
}

func writeJSON(w http.ResponseWriter, v any) {
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(v) // the client is gone: nobody to tell
}
