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
	}
	if p := find("silent", "skein"); p != nil {
		atMost("SIGSTOP → writable, worst s", 3, p.Worst)
	}
	if p := find("kill-many", "skein"); p != nil {
		atMost(fmt.Sprintf("kill -9 with %d partitions, worst s", p.Partitions), 3, p.Worst)
	}
	if p := find("consumer", "skein"); p != nil {
		if beyond, ok := p.beyondWrites(); ok {
			atMost("pause of a caught-up consumer beyond the write pause of the same kill (worst), s", 0.1, beyond)
		}
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

// beyondWrites is by how much the consumer's pause exceeded its producer's at the fault where it did most.
func (p *Pauses) beyondWrites() (worst float64, ok bool) {
	if len(p.Writes) == 0 || len(p.Writes) != len(p.Samples) {
		return 0, false
	}
	worst = p.Samples[0] - p.Writes[0]
	for i := range p.Writes {
		worst = max(worst, p.Samples[i]-p.Writes[i])
	}
	return worst, true
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
	for _, p := range rep.Pauses {
		if p.Writes != nil {
			writes := Pauses{Samples: p.Writes}
			writes.close()
			fmt.Fprintf(tw, "%s, %s: the same kills' writes paused for %.3f s in the median, %.3f s at worst\n", p.Scenario, p.Target, writes.Median, writes.Worst)
			fmt.Fprintf(tw, "%s, %s: %d of %d × %d partitions had their next records on the dead broker's disk and are in neither figure\n",
				p.Scenario, p.Target, p.Behind, len(p.Samples), p.Partitions)
		}
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
