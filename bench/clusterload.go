package bench

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"text/tabwriter"
	"time"
)

// ClusterConfig configures Cluster.
type ClusterConfig struct {
	Skein   SkeinFleet
	Kafka   FleetKind // nil: Skein alone
	Dir     string
	Only    []string
	Time    time.Duration
	Log     io.Writer
	Options string
}

// ClusterOutcome is what one target of three brokers did under one load.
type ClusterOutcome struct {
	Scenario  string  `json:"scenario"`
	Target    string  `json:"target"`
	Brokers   int     `json:"brokers"`
	MBps      float64 `json:"mbps"`
	Latency   Latency `json:"latencyMs"`
	CPUPerGB  float64 `json:"cpuSecondsPerGB"`
	DiskRatio float64 `json:"diskBytesPerByte"`
	// NetRatio is bytes on the connections between brokers per byte produced: what the kernel counts as acknowledged on
	// both ends of each connection to a port that only brokers use (ss -ti), so each direction once.
	NetRatio float64 `json:"networkBytesPerByte"`
	RSS      int64   `json:"rssBytes"`
	WarmSecs float64 `json:"warmSeconds"` // until the rate was steady
	// Runs is of how many runs the figures are the medians; P50s are the medians of each, in milliseconds.
	Runs int       `json:"runs"`
	P50s []float64 `json:"p50s"`
	// Register is the median time, in milliseconds, from a group commit being durable to all witnesses having it, as the
	// brokers measure it while they are under the load; 0: they do not say, or there are no witnesses.
	Register float64 `json:"registerMs,omitempty"`
}

// ClusterReport is what Cluster measured.
type ClusterReport struct {
	Time     time.Time        `json:"time"`
	Options  string           `json:"options"`
	Outcomes []ClusterOutcome `json:"outcomes"`
	Bars     []Bar            `json:"bars"`
}

// clusterScenario is one load.
type clusterScenario struct {
	name, about string
	partitions  int
	load        ProduceLoad
	single      bool // also on a cluster of one, and not on Kafka: in turn, singleRuns times
}

// singleRuns is how often three brokers and one take turns: what is to be seen is smaller than what one start differs from the next.
const singleRuns = 5

func clusterScenarios(measured time.Duration) []clusterScenario {
	load := ProduceLoad{RecordBytes: 1024, Records: 16, Parts: 1, Conns: 6, InFlight: 4, Acks: -1, Warm: 2 * time.Second, Time: measured}
	with := func(change func(*ProduceLoad)) ProduceLoad {
		l := load
		change(&l)
		return l
	}
	return []clusterScenario{
		{name: "hundred", about: "100 partitions, 16 KiB batches, 8 a request", partitions: 100, load: with(func(l *ProduceLoad) { l.Parts = 8 })},
		{name: "three", about: "3 partitions, 16 KiB batches", partitions: 3, load: load},
		{name: "three-64k", about: "3 partitions, 64 KiB batches", partitions: 3, load: with(func(l *ProduceLoad) { l.Records = 64 })},
		{name: "rate-10", about: "100 partitions, fixed 10 MB/s of 16 KiB batches", partitions: 100, load: with(func(l *ProduceLoad) { l.Rate = 10e6 })},
		{name: "witness", about: "3 partitions, 200 requests of 1 KiB a second: three brokers against one, five times in turn", partitions: 3, single: true,
			load: with(func(l *ProduceLoad) { l.Records, l.Rate, l.Conns, l.InFlight = 1, 200*1100, 3, 1 })},
	}
}

// Cluster puts the same loads on three brokers of each target.
func Cluster(ctx context.Context, cfg ClusterConfig) (ClusterReport, error) {
	rep := ClusterReport{Time: time.Now().UTC().Truncate(time.Second), Options: cfg.Options}
	base := filepath.Join(cfg.Dir, "skein-bench-data")
	defer os.RemoveAll(base)
	for _, s := range clusterScenarios(cfg.Time) {
		if len(cfg.Only) > 0 && !slices.Contains(cfg.Only, s.name) {
			continue
		}
		fmt.Fprintf(cfg.Log, "%-9s %s\n", s.name, s.about)
		outs, err := clusterOn(ctx, cfg, s, base)
		if err != nil {
			return rep, err
		}
		rep.Outcomes = append(rep.Outcomes, outs...)
	}
	rep.Bars = judgeCluster(rep)
	return rep, nil
}

// clusterOn puts a load on each target, in turn if it takes several runs.
func clusterOn(ctx context.Context, cfg ClusterConfig, s clusterScenario, base string) ([]ClusterOutcome, error) {
	type side struct {
		kind    FleetKind
		brokers int
	}
	var sides []side
	runs := 1
	if cfg.Kafka != nil && !s.single {
		sides = append(sides, side{cfg.Kafka, 3})
	}
	if cfg.Skein.Binary != "" {
		sides = append(sides, side{cfg.Skein, 3})
		if s.single {
			sides, runs = append(sides, side{cfg.Skein, 1}), singleRuns
		}
	}
	each := make([][]ClusterOutcome, len(sides))
	for range runs {
		for i, sd := range sides {
			o, err := runCluster(ctx, s, sd.kind, sd.brokers, base)
			if err != nil {
				return nil, fmt.Errorf("%s on %s: %w", s.name, sd.kind.Name(), err)
			}
			fmt.Fprintf(cfg.Log, "  %d %-6s %7.1f MB/s  p50 %.2f p99 %.2f p99.9 %.2f ms  %.2f CPU s/GB  %.3f disk B/B  %.4f network B/B  %d MiB RSS  witnesses %.3f ms\n",
				o.Brokers, o.Target, o.MBps, o.Latency.P50, o.Latency.P99, o.Latency.P999, o.CPUPerGB, o.DiskRatio, o.NetRatio, o.RSS>>20, o.Register)
			each[i] = append(each[i], o)
		}
	}
	var out []ClusterOutcome
	for _, list := range each {
		out = append(out, medianOutcome(list))
	}
	return out, nil
}

// medianOutcome is what several runs of the same come to: each figure is the median of its own.
func medianOutcome(list []ClusterOutcome) ClusterOutcome {
	of := func(get func(*ClusterOutcome) float64) float64 {
		var all []float64
		for i := range list {
			all = append(all, get(&list[i]))
		}
		slices.Sort(all)
		return byRank(all, 50)
	}
	out := list[0]
	out.Runs, out.P50s = len(list), nil
	for _, o := range list {
		out.P50s = append(out.P50s, o.Latency.P50)
	}
	out.MBps = of(func(o *ClusterOutcome) float64 { return o.MBps })
	out.Latency = Latency{
		P50:  of(func(o *ClusterOutcome) float64 { return o.Latency.P50 }),
		P99:  of(func(o *ClusterOutcome) float64 { return o.Latency.P99 }),
		P999: of(func(o *ClusterOutcome) float64 { return o.Latency.P999 }),
		Max:  of(func(o *ClusterOutcome) float64 { return o.Latency.Max }),
	}
	out.CPUPerGB = of(func(o *ClusterOutcome) float64 { return o.CPUPerGB })
	out.DiskRatio = of(func(o *ClusterOutcome) float64 { return o.DiskRatio })
	out.NetRatio = of(func(o *ClusterOutcome) float64 { return o.NetRatio })
	out.RSS = int64(of(func(o *ClusterOutcome) float64 { return float64(o.RSS) }))
	out.WarmSecs = of(func(o *ClusterOutcome) float64 { return o.WarmSecs })
	out.Register = of(func(o *ClusterOutcome) float64 { return o.Register })
	return out
}

func runCluster(ctx context.Context, s clusterScenario, kind FleetKind, brokers int, base string) (o ClusterOutcome, err error) {
	o = ClusterOutcome{Scenario: s.name, Target: kind.Name(), Brokers: brokers}
	dir, err := freshDir(base, kind.Name())
	if err != nil {
		return o, err
	}
	fleet, err := kind.Launch(ctx, dir, brokers)
	if err != nil {
		return o, err
	}
	defer func() { err = errors.Join(err, fleet.Close(), os.RemoveAll(dir)) }()
	topics := Topics{Prefix: s.name, Count: 1, Partitions: s.partitions}
	if err := createReplicated(ctx, fleet, topics, kind.TopicConfigs()); err != nil {
		return o, err
	}
	b := &faultBench{fleet: fleet, topics: topics, out: &Pauses{}, batch: encodeBatch(1, 100, time.Now())}
	b.r = newRouter(fleet.Seeds(), topics)
	defer b.r.close()
	if err := b.rest(ctx); err != nil {
		return o, err
	}
	if brokers > 1 {
		b.balanced(ctx)
	}
	for try := 0; ; try++ { // a balancer may move a partition away from under a generator with fixed routes
		err := measureCluster(ctx, b, s, &o)
		if _, refused := errors.AsType[RefusedError](err); err == nil || !refused || try == 5 {
			return o, err
		}
		b.r.refresh(ctx)
	}
}

func measureCluster(ctx context.Context, b *faultBench, s clusterScenario, o *ClusterOutcome) error {
	load := s.load
	load.Topics, load.Routes = b.topics, b.r.routes()
	var err error
	if o.WarmSecs, err = steady(load, func(l ProduceLoad) (Produced, error) { return Produce(ctx, "", l) }, nil); err != nil {
		return err
	}
	if load.Rate > 0 {
		if err := diskRests(ctx, func() (Usage, error) { return fleetUsage(b.fleet) }); err != nil {
			return err
		}
	}
	usage, err := fleetUsage(b.fleet)
	if err != nil {
		return err
	}
	net, err := socketBytes(b.fleet.Between())
	if err != nil {
		return err
	}
	registered, err := registerTimes(ctx, b.fleet)
	if err != nil {
		return err
	}
	p, err := Produce(ctx, "", load)
	if err != nil {
		return err
	}
	by, err := registerTimes(ctx, b.fleet)
	if err != nil {
		return err
	}
	o.Register = 1e3 * by.minus(registered).quantile(0.5)
	after, err := fleetUsage(b.fleet)
	if err != nil {
		return err
	}
	sent, err := socketBytes(b.fleet.Between())
	if err != nil {
		return err
	}
	o.MBps, o.Latency, o.RSS = p.MBps(), p.Latency, after.RSS
	o.CPUPerGB = (after.CPU - usage.CPU).Seconds() / (float64(p.AllBytes) / 1e9)
	o.DiskRatio = float64(after.DiskWrites-usage.DiskWrites) / float64(p.AllBytes)
	o.NetRatio = float64(sent-net) / float64(p.AllBytes)
	return nil
}

// judgeCluster computes every bar of issue 4, section 6, that the report has the figures for.
func judgeCluster(rep ClusterReport) []Bar {
	find := func(scenario, target string, brokers int) *ClusterOutcome {
		for i := range rep.Outcomes {
			if o := &rep.Outcomes[i]; o.Scenario == scenario && o.Target == target && o.Brokers == brokers {
				return o
			}
		}
		return nil
	}
	var bars []Bar
	ratio := func(about, scenario string, want float64, atMost bool, of func(*ClusterOutcome) float64) {
		if s, k := find(scenario, "skein", 3), find(scenario, "kafka", 3); s != nil && k != nil && of(k) > 0 {
			got := of(s) / of(k)
			bars = append(bars, Bar{about + " : kafka's", want, atMost, got, got == want || (got < want) == atMost})
		}
	}
	mbps := func(o *ClusterOutcome) float64 { return o.MBps }
	ratio("produce, acks=all, 100 partitions, MB/s", "hundred", 2.5, false, mbps)
	ratio("produce, acks=all, 3 partitions, MB/s", "three", 2.5, false, mbps)
	ratio("produce, acks=all, 3 partitions, 64 KiB batches, MB/s", "three-64k", 2.5, false, mbps)
	ratio("disk bytes a byte produced", "hundred", 0.36, true, func(o *ClusterOutcome) float64 { return o.DiskRatio })
	ratio("network bytes between brokers a byte produced", "hundred", 0.05, true, func(o *ClusterOutcome) float64 { return o.NetRatio })
	ratio("p99 at 10 MB/s fixed rate", "rate-10", 0.3, true, func(o *ClusterOutcome) float64 { return o.Latency.P99 })
	if three, one := find("witness", "skein", 3), find("witness", "skein", 1); three != nil && one != nil {
		d := three.Latency.P50 - one.Latency.P50
		about := fmt.Sprintf("three brokers' p50 produce latency beyond one broker's, medians of %d runs in turn, ms", min(three.Runs, one.Runs))
		bars = append(bars, Bar{about, 0.3, true, d, d <= 0.3})
	}
	return bars
}

// Print writes the report's table for people.
func (rep ClusterReport) Print(w io.Writer) error {
	tw := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(tw, "SCENARIO\tTARGET\tBROKERS\tMB/s\tp50 ms\tp99 ms\tp99.9 ms\tCPU s/GB\tDISK B/B\tNETWORK B/B\tRSS MiB\tRUNS\tWITNESSES p50 ms")
	for _, o := range rep.Outcomes {
		fmt.Fprintf(tw, "%s\t%s\t%d\t%.1f\t%.2f\t%.2f\t%.2f\t%.2f\t%.3f\t%.4f\t%d\t%d\t%.3f\n", o.Scenario, o.Target, o.Brokers, o.MBps,
			o.Latency.P50, o.Latency.P99, o.Latency.P999, o.CPUPerGB, o.DiskRatio, o.NetRatio, o.RSS>>20, o.Runs, o.Register)
	}
	fmt.Fprintln(tw)
	printBars(tw, rep.Bars)
	return tw.Flush()
}
