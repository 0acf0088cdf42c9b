package bench

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"time"

	"golang.org/x/sync/errgroup"
)

// Scenario is one load that is put on each target in turn.
type Scenario struct {
	Name   string
	About  string
	Topics Topics
	Load   ProduceLoad
	Flush  bool // also against Kafka with flush.messages=1
	Alone  bool // Skein only
	Bare   bool // also against a bare server: how fast it can be written here
	// Consume reads back after the load what it wrote (catch-up), or beside it (Tail).
	Consume, Tail bool
	Groups        int // that read it back at once, after Consume; 0: none do
}

// scenarios are the loads of the published table. seconds is how long each is measured.
func scenarios(seconds time.Duration) []Scenario {
	one := Topics{Prefix: "one", Count: 1, Partitions: 1}
	base := ProduceLoad{RecordBytes: 1024, Conns: 4, InFlight: 4, Acks: -1, Warm: 2 * time.Second, Time: seconds, Parts: 1, Records: 16}
	load := func(change func(*ProduceLoad)) ProduceLoad {
		l := base
		change(&l)
		return l
	}
	list := []Scenario{
		{Name: "one-16k", About: "1 partition, 16 KiB batches", Topics: one, Load: base, Bare: true, Flush: true, Consume: true, Groups: 4},
		{Name: "one-64k", About: "1 partition, 64 KiB batches", Topics: one, Bare: true, Load: load(func(l *ProduceLoad) { l.Records = 64 })},
		{Name: "one-1m", About: "1 partition, 1 MB batches", Topics: one, Bare: true, Load: load(func(l *ProduceLoad) { l.Records = 1000 })},
		{Name: "rate-20", About: "1 partition, fixed 20 MB/s", Topics: one, Load: load(func(l *ProduceLoad) { l.Rate = 20e6 })},
		{Name: "tail", About: "1 partition, 16 KiB batches, read as it is written", Topics: one, Load: base, Tail: true},
		{Name: "k-16", About: "1,000 partitions, 16 a request", Topics: Topics{Prefix: "k", Count: 10, Partitions: 100},
			Bare: true, Load: load(func(l *ProduceLoad) { l.Parts = 16 }), Consume: true},
		{Name: "k-tiny", About: "1,000 partitions, 64 batches of 1 KiB a request", Topics: Topics{Prefix: "k", Count: 10, Partitions: 100},
			Bare: true, Load: load(func(l *ProduceLoad) { l.Parts, l.Records = 64, 1 })},
		{Name: "10k-16", About: "10,000 partitions, 16 a request", Topics: Topics{Prefix: "tenk", Count: 10, Partitions: 1000},
			Load: load(func(l *ProduceLoad) { l.Parts = 16 })},
		{Name: "100k-16", About: "100,000 partitions, 16 a request", Topics: Topics{Prefix: "hundredk", Count: 100, Partitions: 1000},
			Load: load(func(l *ProduceLoad) { l.Parts = 16 }), Alone: true},
	}
	for i := range list {
		list[i].Load.Topics = list[i].Topics
	}
	return list
}

// Outcome is what one target did in one scenario.
type Outcome struct {
	Scenario   string    `json:"scenario"`
	Target     string    `json:"target"`
	MBps       float64   `json:"mbps"`
	Latency    Latency   `json:"latencyMs"`
	CPUPerGB   float64   `json:"cpuSecondsPerGB"` // broker CPU while producing
	DiskRatio  float64   `json:"diskBytesPerByte"`
	RSS        int64     `json:"rssBytes"`
	CatchUp    float64   `json:"catchUpMBps,omitempty"` // the median of CatchUps
	CatchUps   []float64 `json:"catchUpsMBps,omitempty"`
	FanOut     float64   `json:"fanOutMBps,omitempty"` // of all groups that read it back at once; the median of FanOuts
	FanOuts    []float64 `json:"fanOutsMBps,omitempty"`
	TailMBps   float64   `json:"tailMBps,omitempty"`
	CreateSecs float64   `json:"createSeconds"`
	WarmSecs   float64   `json:"warmSeconds"` // until the rate was steady
	StartSecs  float64   `json:"startSeconds"`
}

// runScenario starts the target on an empty directory, creates the topics, loads it and stops it.
func runScenario(ctx context.Context, t Target, s Scenario, base string) (out Outcome, err error) {
	out = Outcome{Scenario: s.Name, Target: t.Name()}
	if err := os.RemoveAll(base); err != nil { // also of other targets
		return out, err
	}
	dir, err := freshDir(base, t.Name())
	if err != nil {
		return out, err
	}
	if err := allWritten(ctx, dir); err != nil { // what the target before left in the page cache is not this one's
		return out, err
	}
	r, err := t.Start(ctx, dir)
	if err != nil {
		return out, err
	}
	defer func() { err = errors.Join(err, r.Stop()) }()
	out.StartSecs = r.Started.Seconds()
	begun := time.Now()
	if r.writeOnly {
		s.Consume, s.Groups = false, 0
	} else if err := createTopics(ctx, r.Addr, s.Topics, t.TopicConfigs()); err != nil {
		return out, err
	}
	out.CreateSecs = time.Since(begun).Seconds()
	if err := settle(ctx, r, s); err != nil {
		return out, err
	}
	if out.WarmSecs, err = warmUp(ctx, r, s); err != nil {
		return out, err
	}
	return out, measure(ctx, r, s, &out)
}

// How the unmeasured load before a measurement goes: in rounds, until one is not much faster than the one before it, and the broker
// does not take much more memory in it.
const (
	warmRound  = 2 * time.Second
	warmSteady = 1.25
	warmMemory = 64 << 20 // bytes in a round
	warmBytes  = 16e9     // written; after that a broker that still takes memory is measured while it does, before the disk is full
	warmMost   = 2 * time.Minute
)

// warmUp puts the load on, unmeasured, until its rate is steady. A broker with files for each partition spends its first
// seconds, or with thousands of them its first minute, on page faults in them, and one that keeps recent records in memory on faults
// in that; measured then, either would show what its start costs.
func warmUp(ctx context.Context, r *Running, s Scenario) (seconds float64, err error) {
	l := s.Load
	if l.Rate > 0 {
		return 0, nil // Warm is enough: it is far below what either can do
	}
	var before int64
	still := func() (bool, error) {
		u, err := r.Usage()
		grown := u.RSS - before
		before = u.RSS
		return grown < warmMemory, err
	}
	return steady(l, func(l ProduceLoad) (Produced, error) { return Produce(ctx, r.Addr, l) }, still)
}

// steady repeats a load as fast as answers come until its rate is steady and still, if there is one, says so after a round, and says how
// long that took.
func steady(l ProduceLoad, produce func(ProduceLoad) (Produced, error), still func() (bool, error)) (seconds float64, err error) {
	l.Warm, l.Time, l.Rate = 0, warmRound, 0
	begun := time.Now()
	for before, written := 0.0, 0.0; ; {
		p, err := produce(l)
		if err != nil {
			return 0, fmt.Errorf("warm up: %w", err)
		}
		written += float64(p.AllBytes)
		rests := still == nil || written > warmBytes
		if !rests {
			if rests, err = still(); err != nil {
				return 0, fmt.Errorf("warm up: %w", err)
			}
		}
		seconds = time.Since(begun).Seconds()
		now := p.MBps()
		if before > 0 && now < before*warmSteady && rests || time.Since(begun) > warmMost {
			return seconds, nil
		}
		before = now
	}
}

// diskRests waits, for a while, until what a target does on its disk after a warm-up at full speed is over (files that are prepared
// ahead, dirty pages): a fixed low rate is measured as it is in the long run.
func diskRests(ctx context.Context, usage func() (Usage, error)) error {
	const atRest = 1 << 20 // bytes a second
	var before int64 = -1
	for end := time.Now().Add(30 * time.Second); time.Now().Before(end); {
		u, err := usage()
		if err != nil {
			return err
		}
		if before >= 0 && u.DiskWrites-before < atRest {
			return nil
		}
		before = u.DiskWrites
		select {
		case <-time.After(time.Second):
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
	return nil
}

// allWritten has the kernel write what it holds back for a file system, and waits for it. What a process has written by the page cache
// counts as its disk writes (Usage) when it is handed over, and reaches the disk half a minute later.
func allWritten(ctx context.Context, dir string) error {
	if out, err := exec.CommandContext(ctx, "sync", "-f", dir).CombinedOutput(); err != nil {
		return fmt.Errorf("sync -f %s: %w: %s", dir, err, out)
	}
	return nil
}

// settle writes each partition once, unmeasured: in some brokers creation goes on in the background
// after the answer (they refuse meanwhile), and first touches are slow in all.
func settle(ctx context.Context, r *Running, s Scenario) error {
	l := s.Load
	l.Once, l.Records = true, 1
	for deadline := time.Now().Add(2 * time.Minute); ; {
		_, err := Produce(ctx, r.Addr, l)
		if _, refused := errors.AsType[RefusedError](err); !refused || time.Now().After(deadline) {
			if err != nil {
				return fmt.Errorf("first touch: %w", err)
			}
			return nil
		}
		select {
		case <-time.After(500 * time.Millisecond):
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

func measure(ctx context.Context, r *Running, s Scenario, out *Outcome) error {
	var from []int64
	if s.Consume || s.Tail || s.Groups > 0 {
		var err error
		if from, err = endOffsets(ctx, r.Addr, s.Topics); err != nil {
			return err
		}
	}
	var tail Consumed
	tailDone := make(chan error, 1)
	if s.Tail {
		go func() {
			var err error
			tail, err = Consume(ctx, r.Addr, ConsumeLoad{Topics: s.Topics, From: from, Conns: 1, PerRequest: 1,
				PartitionMax: 1 << 20, RequestMax: 50 << 20, Time: s.Load.Warm + s.Load.Time})
			tailDone <- err
		}()
	}
	if s.Load.Rate > 0 {
		if err := diskRests(ctx, r.Usage); err != nil {
			return err
		}
	}
	before, err := r.Usage()
	if err != nil {
		return err
	}
	p, err := Produce(ctx, r.Addr, s.Load)
	if err != nil {
		return err
	}
	after, err := r.Usage()
	if err != nil {
		return err
	}
	gb := float64(p.AllBytes) / 1e9
	out.MBps, out.Latency = p.MBps(), p.Latency
	out.CPUPerGB = (after.CPU - before.CPU).Seconds() / gb
	out.DiskRatio = float64(after.DiskWrites-before.DiskWrites) / float64(p.AllBytes)
	out.RSS = after.RSS
	if s.Tail {
		if err := <-tailDone; err != nil {
			return err
		}
		out.TailMBps = tail.MBps()
	}
	if s.Consume {
		if out.CatchUp, out.CatchUps, err = catchUp(ctx, r, s, from, p.AllBytes, 1); err != nil {
			return err
		}
	}
	if s.Groups > 0 {
		out.FanOut, out.FanOuts, err = catchUp(ctx, r, s, from, p.AllBytes, s.Groups)
	}
	return err
}

// catchUps is how often it is read back; the median of it is the figure.
const catchUps = 3

// catchUp has groups, all at once, read what was written from some offsets to the ends, each time on a disk at rest: a broker that
// leaves its data in the page cache would otherwise be read while the kernel writes them, and whoever comes next would pay for it,
// too. It returns what all of them got in MB/s: the median, and each time's.
func catchUp(ctx context.Context, r *Running, s Scenario, from []int64, written int64, groups int) (median float64, all []float64, err error) {
	for range catchUps {
		if err := allWritten(ctx, r.Dir); err != nil {
			return 0, nil, err
		}
		if err := diskRests(ctx, r.Usage); err != nil {
			return 0, nil, err
		}
		each := make([]Consumed, groups)
		var reading errgroup.Group
		begun := time.Now()
		for i := range each {
			reading.Go(func() (err error) {
				each[i], err = Consume(ctx, r.Addr, ConsumeLoad{Topics: s.Topics, From: from, Conns: min(4, s.Topics.total()), PerRequest: 100,
					PartitionMax: 1 << 20, RequestMax: 50 << 20, Bytes: written, Time: 2 * time.Minute})
				return err
			})
		}
		if err := reading.Wait(); err != nil {
			return 0, nil, err
		}
		sum := Consumed{Elapsed: time.Since(begun)}
		for _, c := range each {
			if c.Bytes < written*99/100 {
				return 0, nil, fmt.Errorf("catch-up: %d of %d bytes in %v", c.Bytes, written, c.Elapsed)
			}
			sum.Bytes += c.Bytes
		}
		all = append(all, sum.MBps())
	}
	slices.Sort(all)
	return byRank(all, 50), all, nil
}
