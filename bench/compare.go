package bench

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"time"
)

// CompareConfig configures Compare.
type CompareConfig struct {
	Skein   Target
	Kafka   Target   // nil: Skein alone
	Flush   Target   // Kafka made durable; nil: left out
	Bare    Target   // the least that a durable broker does; nil: left out
	Dir     string   // all keep their data below it: the same disk
	Only    []string // scenario names; empty: all
	Time    time.Duration
	Scale   bool // also the 100,000-partition figures: creation, idle memory, restart
	Log     io.Writer
	Options string // how it was called, for the report
}

// Report is what Compare measured.
type Report struct {
	Time     time.Time `json:"time"`
	Options  string    `json:"options"`
	Ceiling  []Outcome `json:"generatorCeiling"` // the same loads against a sink
	Outcomes []Outcome `json:"outcomes"`
	Scale    *Scale    `json:"scale,omitempty"`
	Bars     []Bar     `json:"bars"`
	Bare     []Ratio   `json:"bareServer"` // no bars: how much of a distance is the machine's
}

// Compare runs every scenario on each target, one after the other, and judges the bars.
func Compare(ctx context.Context, cfg CompareConfig) (Report, error) {
	rep := Report{Time: time.Now().UTC().Truncate(time.Second), Options: cfg.Options}
	base := filepath.Join(cfg.Dir, "skein-bench-data")
	defer os.RemoveAll(base)
	names := map[string]bool{}
	for _, s := range scenarios(cfg.Time) {
		names[s.Name] = true
		if len(cfg.Only) > 0 && !slices.Contains(cfg.Only, s.Name) {
			continue
		}
		fmt.Fprintf(cfg.Log, "%-8s %s\n", s.Name, s.About)
		if err := compareOn(ctx, cfg, s, base, &rep); err != nil {
			return rep, err
		}
	}
	for _, o := range cfg.Only {
		if !names[o] {
			return rep, fmt.Errorf("no scenario %q", o)
		}
	}
	if cfg.Scale {
		sc, err := runScale(ctx, cfg.Skein, base, cfg.Log)
		if err != nil {
			return rep, fmt.Errorf("scale: %w", err)
		}
		rep.Scale = &sc
	}
	rep.Bars, rep.Bare = judge(rep), besideBare(rep)
	return rep, nil
}

// targets are those of a scenario, in their order: the bare server next to Skein, as what it tells is about Skein.
func (cfg CompareConfig) targets(s Scenario) []Target {
	var list []Target
	add := func(t Target, wanted bool) {
		if t != nil && wanted {
			list = append(list, t)
		}
	}
	add(cfg.Kafka, !s.Alone)
	add(cfg.Bare, s.Bare)
	add(cfg.Skein, true)
	add(cfg.Flush, s.Flush)
	return list
}

func compareOn(ctx context.Context, cfg CompareConfig, s Scenario, base string, rep *Report) error {
	if s.Load.Rate == 0 && !s.Tail {
		c, err := Ceiling(ctx, s.Load)
		if err != nil {
			return fmt.Errorf("%s against the sink: %w", s.Name, err)
		}
		rep.Ceiling = append(rep.Ceiling, Outcome{Scenario: s.Name, Target: "sink", MBps: c.MBps(), Latency: c.Latency})
	}
	for _, t := range cfg.targets(s) {
		out, err := runScenario(ctx, t, s, base)
		if err != nil {
			return errors.Join(fmt.Errorf("%s on %s: %w", s.Name, t.Name(), err), os.RemoveAll(base))
		}
		rep.Outcomes = append(rep.Outcomes, out)
		fmt.Fprintf(cfg.Log, "  %-12s %7.1f MB/s  p50 %.2f p99 %.2f p99.9 %.2f ms  %.2f CPU s/GB  %.3f disk B/B  %d MiB RSS",
			t.Name(), out.MBps, out.Latency.P50, out.Latency.P99, out.Latency.P999, out.CPUPerGB, out.DiskRatio, out.RSS>>20)
		if out.CatchUp > 0 {
			fmt.Fprintf(cfg.Log, "  catch-up %.0f MB/s", out.CatchUp)
		}
		if out.FanOut > 0 {
			fmt.Fprintf(cfg.Log, "  %d groups at once %.0f MB/s", s.Groups, out.FanOut)
		}
		if out.TailMBps > 0 {
			fmt.Fprintf(cfg.Log, "  tail %.0f MB/s", out.TailMBps)
		}
		fmt.Fprintf(cfg.Log, "  steady after %.0f s\n", out.WarmSecs)
		if err := os.RemoveAll(base); err != nil {
			return err
		}
	}
	return nil
}
