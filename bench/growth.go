package bench

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"
)

// GrowthConfig configures Growth.
type GrowthConfig struct {
	Skein   SkeinFleet
	Dir     string
	Log     io.Writer
	Options string
}

// GrowthReport is what Growth measured.
type GrowthReport struct {
	Time    time.Time `json:"time"`
	Options string    `json:"options"`
	// EvenSecs is from exec of the fourth broker until each broker takes within 10 % of a quarter of the writes.
	EvenSecs float64 `json:"evenSeconds"`
	// ReadySecs is the part of it until the new broker served.
	ReadySecs float64 `json:"readySeconds"`
	// Shares are the parts of the writes that each broker took then.
	Shares []float64 `json:"shares"`
	// CopiedBytes is what brokers sent each other meanwhile beyond what the same load makes them send at rest.
	CopiedBytes int64 `json:"copiedBytes"`
	// StoredBytes is what lay on the disks before: what a copy would have had to move a quarter of.
	StoredBytes int64 `json:"storedBytes"`
	// DrainSecs is from the command until the drained broker took no write any more.
	DrainSecs   float64 `json:"drainSeconds"`
	DrainCopied int64   `json:"drainCopiedBytes"`
	WorstSecs   float64 `json:"worstLatencySeconds"` // of a steady producer all along
	Failed      int     `json:"failed"`
	Bars        []Bar   `json:"bars"`
}

// growth is a run of Growth.
type growth struct {
	*faultBench
	fleet  *skeinFleet
	rep    *GrowthReport
	atRest float64 // bytes a second between brokers under the load alone
}

// Growth adds a fourth broker to three under a steady load, waits until the load is even, and drains the first one.
func Growth(ctx context.Context, cfg GrowthConfig) (rep GrowthReport, err error) {
	rep = GrowthReport{Time: time.Now().UTC().Truncate(time.Second), Options: cfg.Options}
	base := filepath.Join(cfg.Dir, "skein-bench-data")
	defer os.RemoveAll(base)
	dir, err := freshDir(base, "growth")
	if err != nil {
		return rep, err
	}
	f, err := cfg.Skein.Launch(ctx, dir, 3)
	if err != nil {
		return rep, err
	}
	fleet := f.(*skeinFleet)
	defer func() { err = errors.Join(err, fleet.Close()) }()
	topics := Topics{Prefix: "growth", Count: 1, Partitions: 1000}
	if err := createReplicated(ctx, fleet, topics, nil); err != nil {
		return rep, err
	}
	p := Pauses{}
	b := &faultBench{fleet: fleet, topics: topics, log: cfg.Log, out: &p, batch: encodeBatch(4, 1024, time.Now())}
	b.r = newRouter(fleet.Seeds(), topics)
	defer b.r.close()
	if err := b.rest(ctx); err != nil {
		return rep, err
	}
	for range 20 { // 80 MB that nobody may copy
		if _, err := b.r.write(ctx, b.r.all(), b.batch); err != nil {
			return rep, err
		}
	}
	g := &growth{faultBench: b, fleet: fleet, rep: &rep}
	err = b.underFlow(ctx, b.r.all(), func(fl *flow) error {
		err := g.run(ctx)
		rep.WorstSecs = fl.take().Seconds()
		return err
	})
	rep.Failed = p.Failed
	rep.Bars = judgeGrowth(rep)
	return rep, err
}

func (g *growth) run(ctx context.Context) error {
	for _, id := range g.fleet.IDs() {
		n, err := treeSize(filepath.Join(g.fleet.dir, strconv.Itoa(id), "log"))
		if err != nil {
			return err
		}
		g.rep.StoredBytes += n
	}
	var err error
	if g.atRest, err = g.restRate(); err != nil {
		return err
	}
	if err := g.add(ctx); err != nil {
		return err
	}
	return g.drain(ctx)
}

// restRate is what brokers send each other a second while nothing happens.
func (g *growth) restRate() (float64, error) {
	before, err := socketBytes(g.fleet.Between())
	if err != nil {
		return 0, err
	}
	time.Sleep(2 * time.Second)
	after, err := socketBytes(g.fleet.Between())
	return float64(after-before) / 2, err
}

func (g *growth) add(ctx context.Context) error {
	before, err := socketBytes(g.fleet.Between())
	if err != nil {
		return err
	}
	begun := time.Now()
	id, err := g.fleet.grow(ctx)
	if err != nil {
		return err
	}
	g.rep.ReadySecs = time.Since(begun).Seconds()
	fmt.Fprintf(g.log, "  broker %d serves after %.2f s\n", id, g.rep.ReadySecs)
	even := func(shares map[string]int) bool {
		want := float64(g.topics.total()) / float64(len(g.fleet.IDs()))
		for _, id := range g.fleet.IDs() {
			if n := float64(shares[g.fleet.Addr(id)]); n < 0.9*want || n > 1.1*want {
				return false
			}
		}
		return true
	}
	shares, err := g.until(ctx, even)
	if err != nil {
		return fmt.Errorf("the load does not become even: partitions by broker %v: %w", shares, err)
	}
	took := time.Since(begun)
	g.rep.EvenSecs = took.Seconds()
	for _, id := range g.fleet.IDs() {
		g.rep.Shares = append(g.rep.Shares, float64(shares[g.fleet.Addr(id)])/float64(g.topics.total()))
	}
	after, err := socketBytes(g.fleet.Between())
	if err != nil {
		return err
	}
	g.rep.CopiedBytes = max(0, after-before-int64(g.atRest*took.Seconds()))
	fmt.Fprintf(g.log, "  even after %.2f s, %d bytes between brokers beyond the load's own\n", g.rep.EvenSecs, g.rep.CopiedBytes)
	return nil
}

func (g *growth) drain(ctx context.Context) error {
	before, err := socketBytes(g.fleet.Between())
	if err != nil {
		return err
	}
	begun := time.Now()
	drained := make(chan error, 1)
	go func() {
		out, err := exec.CommandContext(ctx, g.fleet.kind.Binary, "broker", "drain", "1", "--http", g.fleet.HTTP(2)).CombinedOutput()
		if err != nil {
			err = fmt.Errorf("broker drain: %w: %s", err, strings.TrimSpace(string(out)))
		}
		drained <- err
	}()
	shares, err := g.until(ctx, func(shares map[string]int) bool { return shares[g.fleet.Addr(1)] == 0 })
	if err != nil {
		return errors.Join(fmt.Errorf("broker 1 is not drained: partitions by broker %v: %w", shares, err))
	}
	took := time.Since(begun)
	g.rep.DrainSecs = took.Seconds()
	after, err := socketBytes(g.fleet.Between())
	g.rep.DrainCopied = max(0, after-before-int64(g.atRest*took.Seconds()))
	fmt.Fprintf(g.log, "  broker 1 takes no writes after %.2f s\n", g.rep.DrainSecs)
	return errors.Join(err, <-drained)
}

// until looks at who leads how many partitions until that is as wanted.
func (g *growth) until(ctx context.Context, good func(map[string]int) bool) (shares map[string]int, err error) {
	for end := time.Now().Add(patience); ; time.Sleep(10 * time.Millisecond) {
		g.r.refresh(ctx)
		shares = map[string]int{}
		for _, r := range g.r.routes() {
			shares[r.Addr] = len(r.Partitions)
		}
		if good(shares) {
			return shares, nil
		}
		if ctx.Err() != nil {
			return shares, context.Cause(ctx)
		}
		if time.Now().After(end) {
			return shares, fmt.Errorf("not within %v", patience)
		}
	}
}

// treeSize sums the files below a folder by the room that they take.
func treeSize(dir string) (sum int64, err error) {
	err = filepath.WalkDir(dir, func(_ string, d os.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		st, err := d.Info()
		if err == nil {
			sum += st.Size()
		}
		return err
	})
	return sum, err
}

func judgeGrowth(rep GrowthReport) []Bar {
	bar := func(about string, want, got float64) Bar { return Bar{about, want, true, got, got <= want} }
	var bars []Bar
	if rep.EvenSecs > 0 {
		// Tables, frames and map records move; records do not: a tenth of a percent of what is stored is below any copy.
		bars = append(bars, bar("add a fourth broker → load within 10 % of even, s", 5, rep.EvenSecs),
			bar("bytes between brokers beyond the load's own : bytes stored", 0.01, float64(rep.CopiedBytes)/float64(max(1, rep.StoredBytes))))
	}
	if rep.DrainSecs > 0 {
		bars = append(bars, bar("drain → no writes on it, s", 5, rep.DrainSecs), bar("failed requests", 0, float64(rep.Failed)))
	}
	return bars
}

// Print writes the report's table for people.
func (rep GrowthReport) Print(w io.Writer) error {
	tw := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintf(tw, "fourth broker ready\t%.2f s\nload even\t%.2f s\t%.3f\nbytes between brokers\t%d\tof %d stored\ndrained\t%.2f s\t%d bytes\nworst produce latency\t%.3f s\t%d failed\n\n",
		rep.ReadySecs, rep.EvenSecs, rep.Shares, rep.CopiedBytes, rep.StoredBytes, rep.DrainSecs, rep.DrainCopied, rep.WorstSecs, rep.Failed)
	printBars(tw, rep.Bars)
	return tw.Flush()
}
