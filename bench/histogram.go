package bench

import (
	"context"
	"fmt"
	"io"
	"math"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"
)

// buckets are a histogram of Prometheus, summed over brokers: how many samples are at most each bound.
type buckets map[float64]float64

// registerMetric is how long witnesses take, by the word of the owner of the log.
const registerMetric = "skein_witness_register_seconds"

// registerTimes reads registerMetric of each broker; nothing of brokers that are not Skein's.
func registerTimes(ctx context.Context, f Fleet) (buckets, error) {
	sum := buckets{}
	s, ok := f.(*skeinFleet)
	if !ok {
		return sum, nil
	}
	for _, id := range s.IDs() {
		text, err := readMetrics(ctx, s.HTTP(id))
		if err != nil {
			return nil, err
		}
		if err := sum.add(text, registerMetric); err != nil {
			return nil, err
		}
	}
	return sum, nil
}

func readMetrics(ctx context.Context, addr string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	rq, err := http.NewRequestWithContext(ctx, "GET", "http://"+addr+"/metrics", nil)
	if err != nil {
		return "", err
	}
	rs, err := http.DefaultClient.Do(rq)
	if err != nil {
		return "", err
	}
	defer rs.Body.Close()
	if rs.StatusCode != http.StatusOK {
		return "", fmt.Errorf("read metrics of %s: %s", addr, rs.Status)
	}
	text, err := io.ReadAll(rs.Body)
	return string(text), err
}

// add takes the buckets of one metric without labels from a text of Prometheus.
func (b buckets) add(text, metric string) error {
	for line := range strings.Lines(text) {
		rest, ok := strings.CutPrefix(line, metric+`_bucket{le="`)
		if !ok {
			continue
		}
		le, count, ok := strings.Cut(strings.TrimSpace(rest), `"} `)
		if !ok {
			return fmt.Errorf("read %s: unknown line %q", metric, line)
		}
		bound, err := strconv.ParseFloat(le, 64)
		if err != nil {
			return fmt.Errorf("read %s: %w", metric, err)
		}
		n, err := strconv.ParseFloat(count, 64)
		if err != nil {
			return fmt.Errorf("read %s: %w", metric, err)
		}
		b[bound] += n
	}
	return nil
}

// minus is what came after an earlier look.
func (b buckets) minus(before buckets) buckets {
	out := buckets{}
	for bound, n := range b {
		out[bound] = n - before[bound]
	}
	return out
}

// quantile is where that part of the samples ends, with samples spread evenly within their bucket; 0 of none.
func (b buckets) quantile(part float64) float64 {
	all := b[math.Inf(1)]
	if all == 0 {
		return 0
	}
	var bounds []float64
	for bound := range b {
		bounds = append(bounds, bound)
	}
	slices.Sort(bounds)
	from, below := 0.0, 0.0
	for _, bound := range bounds {
		n := b[bound]
		switch want := part * all; {
		case n < want:
			from, below = bound, n
		case math.IsInf(bound, 1):
			return from
		default:
			return from + (bound-from)*(want-below)/(n-below)
		}
	}
	return from
}
