package main

import (
	"context"
	"fmt"
	"maps"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"
)

// result is one cell of the table.
type result struct {
	Client  string  `json:"client"`
	Version string  `json:"version"`
	Case    string  `json:"case"`
	Status  string  `json:"status"` // pass, fail or n/a
	Seconds float64 `json:"seconds"`
	Text    string  `json:"text,omitempty"` // why it failed or does not apply, or what was left out
	Log     string  `json:"log,omitempty"`  // file with what the client wrote, kept on failure

	tool bool
}

// matrix runs every chosen client through every chosen case.
type matrix struct {
	o       options
	in      *installer
	chosen  selection
	stage   *stage
	tools   *toolHost
	brokers int // that there are

	seedOnce sync.Once
	seedErr  error

	mu      sync.Mutex
	results []result // guarded by mu while clients run
}

func newMatrix(ctx context.Context, o options, b *broker, in *installer, chosen selection) (*matrix, error) {
	s, err := newStage(b.bootstrap, o.timeout)
	if err != nil {
		return nil, err
	}
	s.faults = o.kill > 0
	if s.factor = 1; o.brokers > 1 {
		s.factor = 3
		s.configs = map[string]string{"min.insync.replicas": "2"}
	}
	m := &matrix{o: o, in: in, chosen: chosen, stage: s}
	m.tools = &toolHost{in: in, stage: s}
	if m.brokers, err = s.awaitBrokers(ctx, o); err != nil {
		s.close()
		return nil, err
	}
	return m, nil
}

func (m *matrix) close() {
	m.tools.close()
	m.stage.close()
}

func (m *matrix) run(ctx context.Context) {
	var g errgroup.Group
	g.SetLimit(max(1, m.o.parallel))
	var tools []client
	for _, c := range m.chosen.clients {
		if c.tool != nil {
			tools = append(tools, c)
			continue
		}
		g.Go(func() error { m.runClient(ctx, c); return nil })
	}
	// The tools share one process and run one after the other.
	g.Go(func() error {
		for _, c := range tools {
			m.runTool(ctx, c)
		}
		return nil
	})
	g.Wait()
	m.sortResults()
}

// sortResults puts results into the order of the table.
func (m *matrix) sortResults() {
	byClient := map[string][]result{}
	for _, r := range m.results {
		byClient[r.Client] = append(byClient[r.Client], r)
	}
	m.results = nil
	for _, c := range m.chosen.clients {
		m.results = append(m.results, byClient[c.name]...)
	}
}

func (m *matrix) add(r result) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.results = append(m.results, r)
}

// runClient starts a client's process and takes it through the cases; a process
// that hung or died is replaced for the next case.
func (m *matrix) runClient(ctx context.Context, c client) {
	version := ""
	var r *runner
	defer func() {
		if r != nil {
			r.end()
		}
	}()
	argv, installErr := c.install(ctx, m.in)
	for _, name := range c.cases() {
		if !m.chosen.cases[name] {
			continue
		}
		began := time.Now()
		out := result{Client: c.name, Version: version, Case: name}
		switch {
		case c.na[name] != "":
			out.Status, out.Text = "n/a", c.na[name]
		case installErr != nil:
			out.Status, out.Text = "fail", installErr.Error()
		default:
			if r == nil {
				var err error
				if r, err = startRunner(ctx, argv); err != nil {
					out.Status, out.Text = "fail", err.Error()
					break
				}
				version = r.version
				out.Version = version
			}
			if alive := m.runCase(ctx, r, c, &out); !alive {
				r = nil
			}
		}
		if name == "admin" && out.Status == "pass" {
			out.Text = strings.Join(slices.Sorted(maps.Values(c.lacks)), "; ")
		}
		out.Seconds = time.Since(began).Seconds()
		m.add(out)
	}
	m.stampVersion(c.name, version)
}

// stampVersion fills the version into cells that were decided before it was known.
func (m *matrix) stampVersion(client, version string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for i := range m.results {
		if m.results[i].Client == client {
			m.results[i].Version = version
		}
	}
}

// runCase runs one case and reports whether the process can serve another.
func (m *matrix) runCase(ctx context.Context, r *runner, c client, out *result) (alive bool) {
	m.seedOnce.Do(func() { m.seedErr = m.stage.seed(ctx) })
	status, text, alive := m.ask(ctx, r, c, out.Case)
	out.Status, out.Text = status, text
	if status == "fail" {
		out.Log = filepath.Join(m.o.logs, c.name+"-"+out.Case+".log")
		saveLog(out.Log, append([]byte(text+"\n\n"), r.log.take()...))
	}
	return alive
}

// patiently asks again when brokers are killed while we look: what is wrong stays wrong.
func (m *matrix) patiently(ctx context.Context, look func(context.Context) error) error {
	err := look(ctx)
	for deadline := time.Now().Add(2 * m.o.kill); err != nil && m.o.kill > 0 && time.Now().Before(deadline); err = look(ctx) {
		select {
		case <-time.After(500 * time.Millisecond):
		case <-ctx.Done():
			return err
		}
	}
	return err
}

func (m *matrix) ask(ctx context.Context, r *runner, c client, name string) (status, text string, alive bool) {
	if m.seedErr != nil {
		return "fail", m.seedErr.Error(), true
	}
	limited, cancel := context.WithTimeout(ctx, m.o.timeout)
	defer cancel()
	var f facts
	err := m.patiently(limited, func(ctx context.Context) (err error) {
		f, err = m.stage.prepare(ctx, c, name)
		return err
	})
	if err != nil {
		return "fail", "prepare: " + err.Error(), true
	}
	status, text, err = r.ask(ctx, m.o.timeout, f.params)
	if err != nil {
		r.kill()
		return "fail", err.Error(), false
	}
	if status == "pass" && f.verify != nil {
		limited, cancel := context.WithTimeout(ctx, m.o.timeout)
		defer cancel()
		if err := m.patiently(limited, f.verify); err != nil {
			return "fail", fmt.Sprintf("broker's side: %v", err), true
		}
	}
	return status, text, true
}
