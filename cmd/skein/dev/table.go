package dev

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"time"
)

// mapView is the part of a broker's GET /v1/map that the table shows.
type mapView struct {
	Revision   int64 `json:"revision"`
	Partitions int   `json:"partitions"`
	Logs       []struct {
		ID     string `json:"id"`
		Broker int    `json:"broker"`
		Epoch  int64  `json:"epoch"`
		State  string `json:"state"`
	} `json:"logs"`
	Groups []struct {
		Group int    `json:"group"`
		Epoch int64  `json:"epoch"`
		Log   string `json:"log"`
	} `json:"groups"`
}

// sample is what one look at the cluster found.
type sample struct {
	at       time.Time
	rows     []row
	view     mapView
	haveView bool
	received map[int]float64 // bytes from clients since the process began, by broker
}

// row is one broker in the table.
type row struct {
	spec  Spec
	state State
	pid   int
	since time.Time
}

// Table draws the brokers again and again above what is printed: the terminal scrolls below it only.
type Table struct {
	s      *Supervisor
	out    io.Writer
	client http.Client

	last    sample
	changes int // of open generations since the start
	recent  []string
}

// NewTable returns a table of the supervisor's brokers that is drawn on a terminal.
func NewTable(s *Supervisor, out io.Writer) *Table {
	return &Table{s: s, out: out, client: http.Client{Timeout: 400 * time.Millisecond}}
}

const (
	drawEvery   = 500 * time.Millisecond
	keepChanges = 4
)

// Run draws until ctx ends, then gives the whole terminal back.
func (t *Table) Run(ctx context.Context) {
	fmt.Fprint(t.out, "\x1b[2J")
	height := 0
	tick := time.NewTicker(drawEvery)
	defer tick.Stop()
	for {
		now := t.look(ctx)
		lines := t.lines(now)
		t.last = now
		if len(lines) != height {
			height = len(lines)
			// The scrolling region begins below the table; setting it moves the cursor.
			fmt.Fprintf(t.out, "\x1b[%d;999r\x1b[999;1H", height+1)
		}
		var b strings.Builder
		b.WriteString("\x1b7\x1b[?25l")
		for i, l := range lines {
			fmt.Fprintf(&b, "\x1b[%d;1H\x1b[2K%s", i+1, l)
		}
		b.WriteString("\x1b8\x1b[?25h")
		io.WriteString(t.out, b.String())
		select {
		case <-tick.C:
		case <-ctx.Done():
			fmt.Fprint(t.out, "\x1b[r\x1b[999;1H")
			return
		}
	}
}

// look asks the supervisor, and the brokers over HTTP; a broker that doesn't answer shows as it was.
func (t *Table) look(ctx context.Context) sample {
	out := sample{at: time.Now(), received: map[int]float64{}}
	asked := make(chan []row, 1)
	t.s.onLoop(func() {
		var rows []row
		for _, c := range t.s.children {
			rows = append(rows, row{spec: c.spec, state: c.state, pid: c.pid, since: c.since})
		}
		asked <- rows
	})
	select {
	case out.rows = <-asked:
	case <-t.s.gone:
		return out
	case <-ctx.Done():
		return out
	}
	for _, r := range out.rows {
		if r.state != Ready && r.state != Stopping {
			continue
		}
		if n, err := t.received(ctx, r.spec.HTTP); err == nil {
			out.received[r.spec.ID] = n
		}
		if v, err := t.readMap(ctx, r.spec.HTTP); err == nil && (!out.haveView || v.Revision > out.view.Revision) {
			out.view, out.haveView = v, true
		}
	}
	if !out.haveView {
		out.view, out.haveView = t.last.view, t.last.haveView
	}
	return out
}

func (t *Table) get(ctx context.Context, url string) (io.ReadCloser, error) {
	rq, err := http.NewRequestWithContext(ctx, "GET", url, nil)
	if err != nil {
		return nil, err
	}
	rs, err := t.client.Do(rq)
	if err != nil {
		return nil, err
	}
	if rs.StatusCode != http.StatusOK {
		rs.Body.Close()
		return nil, fmt.Errorf("GET %s: %s", url, rs.Status)
	}
	return rs.Body, nil
}

func (t *Table) readMap(ctx context.Context, addr string) (v mapView, err error) {
	body, err := t.get(ctx, "http://"+addr+"/v1/map")
	if err != nil {
		return v, err
	}
	defer body.Close()
	return v, json.NewDecoder(body).Decode(&v)
}

// receivedMetric counts what clients sent to a broker.
const receivedMetric = "skein_broker_received_bytes_total"

func (t *Table) received(ctx context.Context, addr string) (float64, error) {
	body, err := t.get(ctx, "http://"+addr+"/metrics")
	if err != nil {
		return 0, err
	}
	defer body.Close()
	return findMetric(body, receivedMetric)
}

// findMetric reads the first value of a metric from a page in Prometheus' text format.
func findMetric(page io.Reader, name string) (float64, error) {
	lines := bufio.NewScanner(page)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		rest, ok := strings.CutPrefix(lines.Text(), name)
		if !ok || rest == "" || rest[0] != ' ' && rest[0] != '{' {
			continue
		}
		f := strings.Fields(rest)
		return strconv.ParseFloat(f[len(f)-1], 64)
	}
	return 0, fmt.Errorf("no metric %s: %w", name, lines.Err())
}

// lines is the table. It notes which open generations have changed since the last one.
func (t *Table) lines(now sample) []string {
	owner, epoch := map[string]int{}, map[int]string{}
	for _, l := range now.view.Logs {
		owner[l.ID] = l.Broker
		epoch[l.Broker] = fmt.Sprintf("%s %d", l.State, l.Epoch)
	}
	groups := map[int]int{}
	for _, g := range now.view.Groups {
		groups[owner[g.Log]]++
	}
	t.noteChanges(now, owner)
	out := []string{
		fmt.Sprintf("\x1b[1m%-4s %-9s %-16s %-8s %-10s %7s %8s  %s\x1b[0m", "ID", "STATE", "ADDRESS", "PID", "LOG", "GROUPS", "MB/s IN", "FOR"),
	}
	for _, r := range now.rows {
		rate := 0.0
		if was, ok := t.last.received[r.spec.ID]; ok {
			if is, ok := now.received[r.spec.ID]; ok && is >= was {
				rate = (is - was) / 1e6 / now.at.Sub(t.last.at).Seconds()
			}
		}
		out = append(out, fmt.Sprintf("%-4d %s%-9s\x1b[0m %-16s %-8d %-10s %7d %8.1f  %s", r.spec.ID, colour(r.state), r.state, r.spec.Listen, r.pid,
			epoch[r.spec.ID], groups[r.spec.ID], rate, now.at.Sub(r.since).Round(time.Second)))
	}
	out = append(out, fmt.Sprintf("%d partitions, map revision %d, %d changes of generations", now.view.Partitions, now.view.Revision, t.changes))
	for i := range keepChanges {
		line := ""
		if i < len(t.recent) {
			line = "  " + t.recent[i]
		}
		out = append(out, line)
	}
	return append(out, strings.Repeat("─", 78))
}

// noteChanges compares the open generations with those of the last look.
func (t *Table) noteChanges(now sample, owner map[string]int) {
	if !now.haveView || !t.last.haveView || now.view.Revision == t.last.view.Revision {
		return
	}
	type open struct {
		epoch int64
		log   string
	}
	was := map[int]open{}
	for _, g := range t.last.view.Groups {
		was[g.Group] = open{g.Epoch, g.Log}
	}
	type way struct{ from, to int }
	moved, first := map[way]int{}, []way(nil)
	for _, g := range now.view.Groups {
		w, ok := was[g.Group]
		if !ok || w.epoch == g.Epoch {
			continue
		}
		t.changes++
		k := way{owner[w.log], owner[g.Log]}
		if moved[k] == 0 {
			first = append(first, k)
		}
		moved[k]++
	}
	for _, k := range first {
		t.recent = append(t.recent, fmt.Sprintf("%s  %d groups: broker %d → broker %d", now.at.Format("15:04:05.0"), moved[k], k.from, k.to))
	}
	if n := len(t.recent); n > keepChanges {
		t.recent = t.recent[n-keepChanges:]
	}
}

func colour(s State) string {
	switch s {
	case Ready:
		return "\x1b[32m"
	case Down:
		return "\x1b[31m"
	default:
		return "\x1b[33m"
	}
}
