package bench

import (
	"fmt"
	"io"
	"text/tabwriter"
)

// judgeFailover computes every bar of issue 4, section 6, that the report has the figures for.
func judgeFailover(rep FailoverReport) []Bar {
	find := func(scenario, target string) *Pauses {
		for i := range rep.Pauses {
			if p := &rep.Pauses[i]; p.Scenario == scenario && p.Target == target {
				return p
			}
		}
		return nil
	}
	var bars []Bar
	atMost := func(about string, want, got float64) { bars = append(bars, Bar{about, want, true, got, got <= want}) }
	if p := find("kill", "skein"); p != nil {
		atMost(fmt.Sprintf("kill -9 → all %d partitions writable, median s", p.Partitions), 0.6, p.Median)
		atMost("the same, worst s", 1, p.Worst)
		if c := find("consumer", "skein"); c != nil {
			atMost("pause of a caught-up consumer beyond the write pause (worst), s", 0.1, c.Worst-p.Worst)
		}
	}
	if p := find("silent", "skein"); p != nil {
		atMost("SIGSTOP → writable, worst s", 3, p.Worst)
	}
	if p := find("kill-many", "skein"); p != nil {
		atMost(fmt.Sprintf("kill -9 with %d partitions, worst s", p.Partitions), 3, p.Worst)
	}
	if p := find("consumer", "skein"); p != nil {
		atMost("gaps and doubles at a consumer, idempotent producer", 0, float64(p.Gaps+p.Doubles))
	}
	if p := find("drain", "skein"); p != nil {
		atMost("SIGTERM of a broker: worst produce latency, s", 0.3, p.Worst)
		atMost("SIGTERM of a broker: failed requests", 0, float64(p.Failed))
	}
	if p := find("roll", "skein"); p != nil {
		atMost("rolling restart of all three: worst produce latency, s", 0.5, p.Worst)
		atMost("rolling restart of all three: failed requests", 0, float64(p.Failed))
	}
	if p := find("move", "skein"); p != nil {
		atMost("one group moved under load: write pause p99, s", 0.02, p.P99)
	}
	for _, s := range []string{"kill", "silent", "consumer", "drain", "roll"} {
		if o, k := find(s, "skein"), find(s, "kafka"); o != nil && k != nil && k.Median > 0 {
			atMost(s+", median : kafka's", 1, o.Median/k.Median)
		}
	}
	return bars
}

// Print writes the report's table for people.
func (rep FailoverReport) Print(w io.Writer) error {
	tw := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(tw, "SCENARIO\tTARGET\tPARTITIONS\tFAULTS\tMEDIAN s\tP99 s\tWORST s\tWITHOUT s\tREPEATED\tFAILED\tGAPS\tDOUBLES")
	for _, p := range rep.Pauses {
		fmt.Fprintf(tw, "%s\t%s\t%d\t%d\t%.3f\t%.3f\t%.3f\t%.3f\t%d\t%d\t%d\t%d\n", p.Scenario, p.Target, p.Partitions, len(p.Samples),
			p.Median, p.P99, p.Worst, p.Base, p.Refused, p.Failed, p.Gaps, p.Doubles)
	}
	fmt.Fprintln(tw)
	printBars(tw, rep.Bars)
	return tw.Flush()
}

// printBars writes what was promised and what was measured.
func printBars(w io.Writer, bars []Bar) {
	fmt.Fprintln(w, "BAR\tWANT\tGOT\t")
	for _, b := range bars {
		sign, verdict := "≥", "PASS"
		if b.AtMost {
			sign = "≤"
		}
		if !b.Met {
			verdict = "MISS"
		}
		fmt.Fprintf(w, "%s\t%s %g\t%.3f\t%s\n", b.About, sign, b.Want, b.Got, verdict)
	}
}
