package bench

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"syscall"
	"time"
)

// FailoverConfig configures Failover.
type FailoverConfig struct {
	Skein SkeinFleet // no binary: left out
	Kafka FleetKind  // nil: Skein alone
	Dir   string
	// Partitions of the sweeps after a kill; Many of the one large sweep, 0: left out. Kafka gets KafkaPartitions.
	Partitions, Many, KafkaPartitions int
	Kills                             int
	Only                              []string
	Log                               io.Writer
	Options                           string
}

// Pauses are what one target did in one scenario of faults, in seconds.
type Pauses struct {
	Scenario   string    `json:"scenario"`
	Target     string    `json:"target"`
	Partitions int       `json:"partitions"`
	Samples    []float64 `json:"samples"`          // one for each fault
	Writes     []float64 `json:"writes,omitempty"` // of a consumer's scenario: the pause of its producer at the same fault
	Behind     int       `json:"behind,omitempty"` // partitions, of all faults, whose consumer had not been given the last records: it waits for the disk
	Median     float64   `json:"median"`
	Worst      float64   `json:"worst"`
	P99        float64   `json:"p99"`
	Base       float64   `json:"base"` // the same without a fault
	Failed     int       `json:"failed"`
	Refused    int       `json:"refused"` // tries that the client had to repeat
	Gaps       int       `json:"gaps"`
	Doubles    int       `json:"doubles"`
}

func (p *Pauses) close() {
	if len(p.Samples) == 0 {
		return
	}
	s := slices.Sorted(slices.Values(p.Samples))
	p.Median, p.Worst, p.P99 = s[len(s)/2], s[len(s)-1], byRank(s, 99)
}

// byRank is the smallest of sorted samples that at least so many of a hundred do not exceed; 0 of none.
func byRank(sorted []float64, percent int) float64 {
	if len(sorted) == 0 {
		return 0
	}
	return sorted[max(0, (len(sorted)*percent+99)/100-1)]
}

// FailoverReport is what Failover measured.
type FailoverReport struct {
	Time    time.Time `json:"time"`
	Options string    `json:"options"`
	Pauses  []Pauses  `json:"pauses"`
	Bars    []Bar     `json:"bars"`
}

// faultScenario measures one kind of fault on a cluster of three.
type faultScenario struct {
	name, about string
	alone       bool // Skein only
	run         func(b *faultBench, ctx context.Context) error
}

var faultScenarios = []faultScenario{
	{"kill", "kill -9 → every partition has taken a write", false, func(b *faultBench, ctx context.Context) error { return b.sweeps(ctx, syscall.SIGKILL) }},
	{"silent", "SIGSTOP → every partition has taken a write", false, func(b *faultBench, ctx context.Context) error { return b.sweeps(ctx, syscall.SIGSTOP) }},
	{"consumer", "kill -9 → a caught-up consumer gets records again; idempotent producer", false, (*faultBench).consumers},
	{"drain", "SIGTERM of one broker: worst produce latency", false, func(b *faultBench, ctx context.Context) error { return b.restarts(ctx, 1) }},
	{"roll", "rolling restart of all three: worst produce latency", false, func(b *faultBench, ctx context.Context) error { return b.restarts(ctx, 3) }},
	{"move", "300 moves of one group under load: worst produce latency of its partitions at 1,000 requests a second", true, (*faultBench).moves},
	{"kill-many", "kill -9 with very many partitions", true, func(b *faultBench, ctx context.Context) error { return b.sweeps(ctx, syscall.SIGKILL) }},
}

// faultBench is one scenario on one running cluster.
type faultBench struct {
	fleet  Fleet
	topics Topics
	kills  int
	log    io.Writer
	out    *Pauses
	r      *router
	batch  []byte
}

// Failover runs the scenarios on each target.
func Failover(ctx context.Context, cfg FailoverConfig) (FailoverReport, error) {
	rep := FailoverReport{Time: time.Now().UTC().Truncate(time.Second), Options: cfg.Options}
	base := filepath.Join(cfg.Dir, "skein-bench-data")
	defer os.RemoveAll(base)
	for _, s := range faultScenarios {
		if len(cfg.Only) > 0 && !slices.Contains(cfg.Only, s.name) || s.name == "kill-many" && cfg.Many == 0 {
			continue
		}
		fmt.Fprintf(cfg.Log, "%-9s %s\n", s.name, s.about)
		var kinds []FleetKind
		if cfg.Skein.Binary != "" {
			kinds = append(kinds, cfg.Skein)
		}
		if cfg.Kafka != nil && !s.alone {
			kinds = append(kinds, cfg.Kafka)
		}
		for _, k := range kinds {
			p, err := runFault(ctx, cfg, s, k, base)
			if err != nil {
				return rep, fmt.Errorf("%s on %s: %w", s.name, k.Name(), err)
			}
			fmt.Fprintf(cfg.Log, "  %-6s %6d partitions  median %.3f s  worst %.3f s  %d faults  (without one: %.3f s)  %d failed, %d gaps, %d doubles\n",
				p.Target, p.Partitions, p.Median, p.Worst, len(p.Samples), p.Base, p.Failed, p.Gaps, p.Doubles)
			rep.Pauses = append(rep.Pauses, p)
		}
	}
	rep.Bars = judgeFailover(rep)
	return rep, nil
}

// partitionsFor is how many partitions a scenario gets.
func partitionsFor(cfg FailoverConfig, s faultScenario, kind string) Topics {
	n := 100 // a load of a fixed rate
	switch {
	case s.name == "kill-many":
		n = cfg.Many
	case kind == "kafka" && (s.name == "kill" || s.name == "silent"):
		n = cfg.KafkaPartitions
	case s.name == "kill" || s.name == "silent":
		n = cfg.Partitions
	}
	each := min(n, 1000)
	return Topics{Prefix: "failover", Count: n / each, Partitions: each}
}

func runFault(ctx context.Context, cfg FailoverConfig, s faultScenario, kind FleetKind, base string) (p Pauses, err error) {
	dir, err := freshDir(base, kind.Name())
	if err != nil {
		return p, err
	}
	fleet, err := kind.Launch(ctx, dir, 3)
	if err != nil {
		return p, err
	}
	defer func() { err = errors.Join(err, fleet.Close(), os.RemoveAll(dir)) }()
	p = Pauses{Scenario: s.name, Target: kind.Name()}
	b := &faultBench{fleet: fleet, topics: partitionsFor(cfg, s, kind.Name()), kills: cfg.Kills, log: cfg.Log, out: &p}
	p.Partitions = b.topics.total()
	b.batch = encodeBatch(1, 100, time.Now())
	if err := createReplicated(ctx, fleet, b.topics, kind.TopicConfigs()); err != nil {
		return p, err
	}
	b.r = newRouter(fleet.Seeds(), b.topics)
	defer b.r.close()
	if err := b.rest(ctx); err != nil {
		return p, err
	}
	if err := s.run(b, ctx); err != nil {
		return p, err
	}
	p.close()
	return p, nil
}

// patience bounds a scenario's waiting for a cluster to be whole.
const patience = 3 * time.Minute

// rest waits until every partition takes writes at once.
func (b *faultBench) rest(ctx context.Context) error {
	ctx, cancel := context.WithTimeoutCause(ctx, patience, errors.New("the cluster does not come to rest"))
	defer cancel()
	b.r.refresh(ctx)
	for quiet := 0; quiet < 3; {
		begun := time.Now()
		refused, err := b.r.write(ctx, b.r.all(), b.batch)
		if err != nil {
			return err
		}
		if quiet++; refused > 0 {
			quiet = 0
		}
		b.out.Base = time.Since(begun).Seconds()
	}
	return nil
}

// balanced waits, for a while, until a broker that came back leads partitions again.
func (b *faultBench) balanced(ctx context.Context) {
	for end := time.Now().Add(10 * time.Second); time.Now().Before(end) && ctx.Err() == nil; time.Sleep(100 * time.Millisecond) {
		b.r.refresh(ctx)
		routes := b.r.routes()
		enough := len(routes) == len(b.fleet.IDs())
		for _, r := range routes {
			enough = enough && len(r.Partitions)*len(routes)*2 >= b.topics.total()
		}
		if enough {
			return
		}
	}
}

// busiest is the broker that leads the most partitions, but for one (0: any).
func (b *faultBench) busiest(ctx context.Context, not int) int {
	b.r.refresh(ctx)
	led := map[string]int{}
	for _, r := range b.r.routes() {
		led[r.Addr] = len(r.Partitions)
	}
	best, most := 0, -1
	for _, id := range b.fleet.IDs() {
		if n := led[b.fleet.Addr(id)]; id != not && n > most {
			best, most = id, n
		}
	}
	return best
}

// sweeps ends or stops a broker and writes to every partition until each has taken it, again and again.
func (b *faultBench) sweeps(ctx context.Context, sig syscall.Signal) error {
	last := 0
	for range b.kills {
		id := b.busiest(ctx, last)
		last = id
		begun := time.Now()
		if err := b.fleet.Signal(id, sig); err != nil {
			return err
		}
		limit, cancel := context.WithTimeoutCause(ctx, patience, fmt.Errorf("partitions take no writes %v after broker %d", patience, id))
		refused, err := b.r.write(limit, b.r.all(), b.batch)
		cancel()
		if err != nil {
			return err
		}
		took := time.Since(begun).Seconds()
		b.out.Samples = append(b.out.Samples, took)
		b.out.Refused += refused
		fmt.Fprintf(b.log, "    broker %d: %.3f s\n", id, took)
		if sig == syscall.SIGSTOP {
			err = b.fleet.Signal(id, syscall.SIGCONT)
		} else if err = b.fleet.Await(id); err == nil {
			err = b.fleet.Start(ctx, id)
		}
		if err != nil {
			return err
		}
		b.balanced(ctx)
		if err := b.rest(ctx); err != nil {
			return err
		}
	}
	return nil
}

// createReplicated creates topics with a factor of three and waits until each partition has a leader.
func createReplicated(ctx context.Context, f Fleet, t Topics, configs map[string]string) error {
	factor := int16(min(3, len(f.IDs())))
	return createTopicsWith(ctx, f.Addr(1), t, factor, configs)
}
