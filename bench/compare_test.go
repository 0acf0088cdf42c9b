package bench

import (
	"slices"
	"strings"
	"testing"
)

// TestBesideBare: each scenario of the bare server has its two lines, and 16 KiB batches those of CPU.
func TestBesideBare(t *testing.T) {
	rep := Report{}
	for _, s := range scenarios(0) {
		for i, target := range []string{"kafka", "bare", "skein"} {
			rep.Outcomes = append(rep.Outcomes, Outcome{Scenario: s.Name, Target: target, MBps: []float64{100, 250, 200}[i], CPUPerGB: 10 - 4*float64(i)})
		}
	}
	rep.Bare = besideBare(rep)
	if want := (Ratio{"skein : bare, 1 partition, 16 KiB batches, MB/s", 0.8}); len(rep.Bare) != 11 || rep.Bare[0] != want {
		t.Errorf("%d lines, the first %+v, want %+v", len(rep.Bare), rep.Bare[0], want)
	}
	if want := (Ratio{"bare : kafka, 1 partition, 16 KiB batches, broker CPU seconds per GB", 0.6}); !slices.Contains(rep.Bare, want) {
		t.Errorf("no %+v in %+v", want, rep.Bare)
	}
	var out strings.Builder
	if err := rep.Print(&out); err != nil || !strings.Contains(out.String(), "bare : kafka, 1,000 partitions, 16 a request, MB/s  ") {
		t.Errorf("printed (%v): %s", err, out.String())
	}
	if list := besideBare(Report{Outcomes: rep.Outcomes[:1]}); len(list) > 0 {
		t.Errorf("of Kafka alone: %+v", list)
	}
}

// TestCompareTargets: the bare server comes right before Skein, where a scenario asks for it.
func TestCompareTargets(t *testing.T) {
	cfg := CompareConfig{Skein: Skein{}, Kafka: Kafka{}, Flush: Kafka{Flush: true}, Bare: BareServer{}}
	names := func(cfg CompareConfig, s Scenario) (list []string) {
		for _, t := range cfg.targets(s) {
			list = append(list, t.Name())
		}
		return list
	}
	if got := names(cfg, Scenario{Bare: true, Flush: true}); !slices.Equal(got, []string{"kafka", "bare", "skein", "kafka-flush"}) {
		t.Errorf("targets %q", got)
	}
	if got := names(cfg, Scenario{Alone: true}); !slices.Equal(got, []string{"skein"}) {
		t.Errorf("targets of Skein alone %q", got)
	}
	if got := names(CompareConfig{Skein: Skein{}}, Scenario{Bare: true, Flush: true}); !slices.Equal(got, []string{"skein"}) {
		t.Errorf("targets where there are no others %q", got)
	}
}
