package cluster

import (
	"bufio"
	"context"
	"fmt"
	"math/rand/v2"
	"net/http"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/skeinmq/skein/test/history"
	"github.com/skeinmq/skein/test/load"
)

const (
	manyTopics     = 100
	manyPartitions = 1000 // of each topic
	manyProducers  = 3
	// manyTables bounds what a broker's witness tables take: the other two brokers' partitions, each with the producers.
	manyTables = 200e6
	// manyPatience bounds each step; the bars of failover are held by `skein bench failover`.
	manyPatience = 5 * time.Minute
)

// TestManyPartitions has 100,000 partitions in three brokers: each takes records of several idempotent producers before a
// broker is killed, while it is away, and after it came back; everything is read, and memory is measured all along.
func TestManyPartitions(t *testing.T) {
	thorough(t)
	c, ok := clusterOf(t, 3).(*Skein)
	if !ok {
		t.Skip("Skein only")
	}
	r := &run{t: t, c: c, rng: rand.New(rand.NewPCG(number(t, envSeed, 1), 0)), writable: map[string][]time.Duration{}}
	r.load = &load.Load{Seeds: c.Seeds(), Seed: 1, H: history.New(), Patience: manyPatience}
	for i := range manyTopics {
		r.load.Topics = append(r.load.Topics, load.Topic{Name: fmt.Sprintf("many-%d", i), Partitions: manyPartitions})
	}
	step := func(name string, do func(ctx context.Context) error) {
		t.Helper()
		at := r.note("%s", name)
		ctx, cancel := context.WithTimeout(t.Context(), manyPatience)
		defer cancel()
		r.must(do(ctx))
		t.Logf("%s: %v", name, time.Since(at).Round(time.Millisecond))
		r.logMemory()
	}
	step("create 100,000 partitions", r.load.Create)
	var sweepers []*load.Sweeper
	for id := range int32(manyProducers) {
		s, err := r.load.NewSweeper(id)
		r.must(err)
		t.Cleanup(s.Close)
		sweepers = append(sweepers, s)
		step(fmt.Sprintf("producer %d writes to each", id), s.Sweep)
	}
	r.must(c.Kill(2))
	step("broker 2 is killed, producer 0 writes to each", sweepers[0].Sweep)
	step("producer 1 writes to each", sweepers[1].Sweep)
	step("start broker 2", func(context.Context) error { return c.Start(2) })
	step("all three write to each", func(ctx context.Context) error {
		for _, s := range sweepers {
			if err := s.Sweep(ctx); err != nil {
				return err
			}
		}
		return nil
	})
	step("read everything", r.load.ReadAll)
	found, totals := r.load.H.Check()
	for _, v := range found {
		t.Error(v)
	}
	if want := int64(8 * manyTopics * manyPartitions); totals.Acked != want || totals.Read != want {
		t.Errorf("%d acked, %d read, want %d", totals.Acked, totals.Read, want)
	}
	if t.Failed() {
		t.Log(c.Logs())
	}
}

// logMemory says what each broker takes, and holds the bound of the tables.
func (r *run) logMemory() {
	r.t.Helper()
	c := r.c.(*Skein)
	for _, id := range c.IDs() {
		if !c.Running(id) {
			continue
		}
		rss, peak, _, err := c.member(id).proc.Memory()
		r.must(err)
		values, err := metrics(c.HTTP(id), "go_memstats_heap_inuse_bytes", "skein_witness_table_bytes", "skein_witness_table_partitions")
		r.must(err)
		r.t.Logf("  broker %d: resident %d MB, at most %d MB, heap %.0f MB; witness of %.0f partitions in %.1f MB",
			id, rss>>20, peak>>20, values[0]/1e6, values[2], values[1]/1e6)
		if values[1] > manyTables {
			r.t.Errorf("broker %d: its witness tables take %.0f bytes", id, values[1])
		}
	}
}

// metrics reads single values of a broker.
func metrics(addr string, names ...string) ([]float64, error) {
	rs, err := http.Get("http://" + addr + "/metrics")
	if err != nil {
		return nil, err
	}
	defer rs.Body.Close()
	out := make([]float64, len(names))
	lines := bufio.NewScanner(rs.Body)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		name, value, _ := strings.Cut(lines.Text(), " ")
		for i := range names {
			if name == names[i] {
				if out[i], err = strconv.ParseFloat(value, 64); err != nil {
					return nil, fmt.Errorf("metric %s: %w", name, err)
				}
			}
		}
	}
	return out, lines.Err()
}
