package bench

import (
	"fmt"
	"io"
	"slices"
	"text/tabwriter"
)

// Bar is one promise and what was measured for it.
type Bar struct {
	About  string  `json:"about"`
	Want   float64 `json:"want"`
	AtMost bool    `json:"atMost"` // else at least
	Got    float64 `json:"got"`
	Met    bool    `json:"met"`
}

// outcome is what a target did in a scenario; nil: nothing.
func (rep Report) outcome(scenario, target string) *Outcome {
	for i := range rep.Outcomes {
		if o := &rep.Outcomes[i]; o.Scenario == scenario && o.Target == target {
			return o
		}
	}
	return nil
}

// judge computes every bar that the report has the figures for.
func judge(rep Report) []Bar {
	find := rep.outcome
	var bars []Bar
	add := func(about string, want float64, atMost bool, got float64) {
		bars = append(bars, Bar{about, want, atMost, got, got == want || (got < want) == atMost})
	}
	ratio := func(about, scenario, peer string, want float64, atMost bool, of func(*Outcome) float64) {
		if s, k := find(scenario, "skein"), find(scenario, peer); s != nil && k != nil && of(k) > 0 {
			add(about+" : "+peer, want, atMost, of(s)/of(k))
		}
	}
	mbps := func(o *Outcome) float64 { return o.MBps }
	ratio("1 partition, 16 KiB batches, MB/s", "one-16k", "kafka", 2.2, false, mbps)
	ratio("1 partition, 64 KiB batches, MB/s", "one-64k", "kafka", 3, false, mbps)
	ratio("1 partition, 1 MB batches, MB/s", "one-1m", "kafka", 3, false, mbps)
	ratio("1 partition, both durable, MB/s", "one-16k", "kafka-flush", 10, false, mbps)
	ratio("1,000 partitions, 16 a request, MB/s", "k-16", "kafka", 1.3, false, mbps)
	ratio("10,000 partitions, 16 a request, MB/s", "10k-16", "kafka", 20, false, mbps)
	if many, few := find("100k-16", "skein"), find("k-16", "skein"); many != nil && few != nil {
		add("our 100,000 partitions : our 1,000, MB/s", 0.8, false, many.MBps/few.MBps)
	}
	ratio("1 KiB batches, 64 partitions a request, MB/s", "k-tiny", "kafka", 2.5, false, mbps)
	ratio("p99 at 20 MB/s", "rate-20", "kafka", 0.75, true, func(o *Outcome) float64 { return o.Latency.P99 })
	ratio("p99.9 at 20 MB/s", "rate-20", "kafka", 0.8, true, func(o *Outcome) float64 { return o.Latency.P999 })
	ratio("broker CPU seconds per GB, 16 KiB batches", "one-16k", "kafka", 0.3, true, func(o *Outcome) float64 { return o.CPUPerGB })
	ratio("catch-up consume, 1 partition, MB/s", "one-16k", "kafka", 1, false, func(o *Outcome) float64 { return o.CatchUp })
	ratio("catch-up consume, 1,000 partitions, MB/s", "k-16", "kafka", 1, false, func(o *Outcome) float64 { return o.CatchUp })
	ratio("catch-up consume, 1 partition, 4 groups at once, MB/s", "one-16k", "kafka", 1, false, func(o *Outcome) float64 { return o.FanOut })
	ratio("tail consume beside produce, MB/s", "tail", "kafka", 1, false, func(o *Outcome) float64 { return o.TailMBps })
	if o := find("one-16k", "skein"); o != nil {
		add("bytes to disk : bytes produced, 16 KiB batches", 1.05, true, o.DiskRatio)
	}
	if s := rep.Scale; s != nil {
		add("resident MiB, 100,000 idle partitions", 300, true, s.IdleRSSMiB)
		add("seconds to create 100,000 partitions and write each", 5, true, s.CreateSecs)
		add("seconds to ready after kill -9, 100,000 partitions, 10 GB", 2, true, s.RestartSecs)
		add("seconds from an empty directory to the first ack", 0.5, true, s.FirstAckSecs)
	}
	return bars
}

// Ratio is what was measured of two, and no promise.
type Ratio struct {
	About string  `json:"about"`
	Ratio float64 `json:"ratio"`
}

// besideBare says how far Skein is from a bare server, and that from Kafka: a bar that the bare server misses as well is
// missed by the machine, not by Skein.
func besideBare(rep Report) []Ratio {
	var out []Ratio
	add := func(s Scenario, above, below, what string, of func(*Outcome) float64) {
		if a, b := rep.outcome(s.Name, above), rep.outcome(s.Name, below); a != nil && b != nil && of(b) > 0 {
			out = append(out, Ratio{fmt.Sprintf("%s : %s, %s, %s", above, below, s.About, what), of(a) / of(b)})
		}
	}
	for i, s := range slices.DeleteFunc(scenarios(0), func(s Scenario) bool { return !s.Bare }) {
		mbps := func(o *Outcome) float64 { return o.MBps }
		add(s, "skein", "bare", "MB/s", mbps)
		add(s, "bare", "kafka", "MB/s", mbps)
		if i == 0 {
			add(s, "bare", "kafka", "broker CPU seconds per GB", func(o *Outcome) float64 { return o.CPUPerGB })
		}
	}
	return out
}

// Print writes the report's table for people.
func (rep Report) Print(w io.Writer) error {
	tw := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(tw, "SCENARIO\tTARGET\tMB/s\tp50 ms\tp99 ms\tp99.9 ms\tCPU s/GB\tDISK B/B\tRSS MiB\tCATCH-UP\tFAN-OUT\tTAIL")
	for _, o := range rep.Outcomes {
		fmt.Fprintf(tw, "%s\t%s\t%.1f\t%.2f\t%.2f\t%.2f\t%.2f\t%.3f\t%d\t%.0f\t%.0f\t%.0f\n", o.Scenario, o.Target, o.MBps,
			o.Latency.P50, o.Latency.P99, o.Latency.P999, o.CPUPerGB, o.DiskRatio, o.RSS>>20, o.CatchUp, o.FanOut, o.TailMBps)
	}
	for _, o := range rep.Ceiling {
		fmt.Fprintf(tw, "%s\tsink\t%.1f\t%.2f\t%.2f\t%.2f\t\t\t\t\t\n", o.Scenario, o.MBps, o.Latency.P50, o.Latency.P99, o.Latency.P999)
	}
	fmt.Fprintln(tw)
	fmt.Fprintln(tw, "BAR\tWANT\tGOT\t")
	for _, b := range rep.Bars {
		sign, verdict := "≥", "met"
		if b.AtMost {
			sign = "≤"
		}
		if !b.Met {
			verdict = "MISSED"
		}
		fmt.Fprintf(tw, "%s\t%s %g\t%.2f\t%s\n", b.About, sign, b.Want, b.Got, verdict)
	}
	if len(rep.Bare) > 0 {
		fmt.Fprintln(tw)
		fmt.Fprintln(tw, "BESIDE A BARE SERVER (NO BARS)\t\tGOT\t")
	}
	for _, r := range rep.Bare {
		fmt.Fprintf(tw, "%s\t\t%.2f\t\n", r.About, r.Ratio)
	}
	return tw.Flush()
}
