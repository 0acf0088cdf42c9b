package bench

import (
	"testing"
)

// TestRegisterMedian: two brokers' buckets, of which an earlier look is taken away.
func TestRegisterMedian(t *testing.T) {
	text := `# TYPE skein_witness_register_seconds histogram
skein_witness_register_seconds_bucket{le="5e-05"} 10
skein_witness_register_seconds_bucket{le="0.0001"} 30
skein_witness_register_seconds_bucket{le="0.0002"} 50
skein_witness_register_seconds_bucket{le="+Inf"} 60
skein_witness_register_seconds_sum 1
skein_witness_register_seconds_count 60
`
	before, after := buckets{}, buckets{}
	if err := before.add("skein_witness_register_seconds_bucket{le=\"5e-05\"} 20\nskein_witness_register_seconds_bucket{le=\"+Inf\"} 20\n", registerMetric); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := after.add(text, registerMetric); err != nil {
			t.Fatal(err)
		}
	}
	// 100 samples: none to 50 µs, 60 to 100, 100 to 200.
	if got := after.quantile(0.5); got != 1e-4 {
		t.Errorf("the median of all is %v", got)
	}
	d := after.minus(before)
	if d[5e-5] != 0 {
		t.Errorf("%v", d)
	}
	if got := (buckets{}).quantile(0.5); got != 0 {
		t.Errorf("the median of nothing is %v", got)
	}
	if err := after.add("skein_witness_register_seconds_bucket{le=\"x\"} 1\n", registerMetric); err == nil {
		t.Error("a bound that is no number was taken")
	}
}

// TestWitnessCostIsOfMedians: one slow start of either side does not decide.
func TestWitnessCostIsOfMedians(t *testing.T) {
	side := func(brokers int, p50s ...float64) ClusterOutcome {
		var list []ClusterOutcome
		for _, p := range p50s {
			list = append(list, ClusterOutcome{Scenario: "witness", Target: "skein", Brokers: brokers, Latency: Latency{P50: p}, Register: p / 2})
		}
		return medianOutcome(list)
	}
	three := side(3, 1.5, 1.2, 9, 1.3, 1.1)
	if three.Runs != 5 || three.Latency.P50 != 1.3 || three.Register != 0.65 {
		t.Errorf("%+v", three)
	}
	for _, c := range []struct {
		one ClusterOutcome
		met bool
	}{{side(1, 1.1, 1.05, 0.1, 1.1, 1.2), true}, {side(1, 0.9, 1.05, 0.9, 0.9, 7), false}} {
		bars := barsOf(judgeCluster(ClusterReport{Outcomes: []ClusterOutcome{three, c.one}}), "beyond one broker's")
		if len(bars) != 1 || bars[0].Met != c.met {
			t.Errorf("%v: %+v", c.one.P50s, bars)
		}
	}
}
