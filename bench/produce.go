package bench

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"
)

// ProduceLoad says what is produced, how, and for how long.
type ProduceLoad struct {
	Topics      Topics
	RecordBytes int // value bytes of a record
	Records     int // a batch
	Parts       int // batches a request, each to another partition
	Conns       int
	InFlight    int // requests on each connection
	Acks        int16

	// Rate in bytes of batches per second: requests fall due at even intervals and latency
	// counts from then. 0: as fast as answers come.
	Rate int64
	Warm time.Duration // not measured
	Time time.Duration // measured
	// Routes says which broker leads which partitions, where there are several: connection i goes to route i modulo their
	// number. Empty: one broker leads all.
	Routes []Route
	// Once sends each partition one batch and ends: Time and Rate are ignored.
	Once bool
	// Patience is for how long what a broker refuses for now, as a partition is on its way to another log or leader, is sent
	// again. 0: the first refusal ends the load.
	Patience time.Duration

	over <-chan struct{} // closed: no more is sent. nil: Time says when that is
}

// Route is a broker and the partitions that it leads.
type Route struct {
	Addr       string
	Partitions []int // by running number
}

// Produced is what came of a ProduceLoad.
type Produced struct {
	Bytes    int64         `json:"bytes"`    // of acknowledged batches that were due in the measured time
	AllBytes int64         `json:"allBytes"` // of all acknowledged batches: what disk and CPU were used for
	Requests int64         `json:"requests"`
	Elapsed  time.Duration `json:"elapsedNanos"`      // from the first to the answer of the last request that was due in the measured time
	Latency  Latency       `json:"latency"`           // from when a request was due to when all of it was acknowledged
	Refused  int64         `json:"refused,omitempty"` // requests that were refused, in part or whole, and sent again
}

// MBps is megabytes (10^6) of batches per second.
func (p Produced) MBps() float64 { return float64(p.Bytes) / 1e6 / p.Elapsed.Seconds() }

// Latency are quantiles of a request's latency in milliseconds.
type Latency struct {
	P50  float64 `json:"p50"`
	P99  float64 `json:"p99"`
	P999 float64 `json:"p999"`
	Max  float64 `json:"max"`
}

func newHistogram() *hdrhistogram.Histogram {
	return hdrhistogram.New(1, int64(10*time.Minute/time.Microsecond), 3)
}

func latencyOf(h *hdrhistogram.Histogram) Latency {
	ms := func(us int64) float64 { return float64(us) / 1000 }
	return Latency{ms(h.ValueAtQuantile(50)), ms(h.ValueAtQuantile(99)), ms(h.ValueAtQuantile(99.9)), ms(h.Max())}
}

// produceRun is a ProduceLoad under way.
type produceRun struct {
	load     ProduceLoad
	from, to time.Time // what is measured: requests that were due in between, however late their answers
	bytes    atomic.Int64
	all      atomic.Int64
	requests atomic.Int64
	last     atomic.Int64 // ns since from of the newest measured answer
	mu       sync.Mutex
	hist     *hdrhistogram.Histogram

	again resender
}

// Produce runs a load against addr. A request that is lost ends it with an error, as does one that is refused, unless the load has
// patience.
func Produce(ctx context.Context, addr string, load ProduceLoad) (Produced, error) {
	r := &produceRun{load: load, hist: newHistogram()}
	batch := encodeBatch(load.Records, load.RecordBytes, time.Now())
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	r.again.init(ctx, cancel, addr, load, batch)
	defer r.again.close()
	conns := make([]*conn, load.Conns)
	for i := range conns {
		to := addr
		if n := len(load.Routes); n > 0 {
			to = load.Routes[i%n].Addr
		}
		c, err := dial(ctx, to)
		if err != nil {
			return Produced{}, err
		}
		defer c.Close()
		conns[i] = c
	}
	stop := context.AfterFunc(ctx, func() {
		for _, c := range conns {
			c.Close()
		}
	})
	defer stop()
	r.from = time.Now().Add(load.Warm)
	r.to = r.from.Add(load.Time)
	var wg sync.WaitGroup
	for i, c := range conns {
		wg.Go(func() {
			if err := r.drive(ctx, i, c, r.templates(i, batch)); err != nil {
				cancel(err)
			}
		})
	}
	wg.Wait()
	r.again.wg.Wait()
	if err := context.Cause(ctx); err != nil {
		return Produced{}, fmt.Errorf("produce: %w", err)
	}
	elapsed := time.Duration(r.last.Load())
	if !load.Once {
		elapsed = max(elapsed, load.Time)
	}
	return Produced{
		Bytes: r.bytes.Load(), AllBytes: r.all.Load(), Requests: r.requests.Load(), Elapsed: elapsed, Latency: latencyOf(r.hist),
		Refused: r.again.refused.Load(),
	}, nil
}

// templates are the requests of one connection: together the connections go round all partitions.
func (r *produceRun) templates(conn int, batch []byte) []*produceTemplate {
	if n := len(r.load.Routes); n > 0 {
		return r.routed(r.load.Routes[conn%n].Partitions, batch)
	}
	total := r.load.Topics.total()
	parts := min(r.load.Parts, total)
	var out []*produceTemplate
	for first := conn * parts; first < total; first += parts * r.load.Conns {
		count := parts
		if r.load.Once {
			count = min(parts, total-first)
		}
		out = append(out, newProduceTemplate(r.load.Topics, first, count, r.load.Acks, batch))
	}
	if len(out) == 0 && !r.load.Once { // more connections than requests: they share partitions
		out = append(out, newProduceTemplate(r.load.Topics, conn*parts%total, parts, r.load.Acks, batch))
	}
	return out
}

// routed are the requests of a connection to a broker that leads the listed partitions.
func (r *produceRun) routed(list []int, batch []byte) []*produceTemplate {
	var out []*produceTemplate
	for chunk := range slices.Chunk(list, max(r.load.Parts, 1)) {
		out = append(out, templateFor(r.load.Topics, chunk, r.load.Acks, batch))
	}
	return out
}

// sent is a request on its way.
type sent struct {
	due     time.Time
	pt      *produceTemplate
	refused RefusedError // what the broker has said to it; 0: nothing yet
}

// drive sends on one connection until the time is up and every answer is there.
func (r *produceRun) drive(ctx context.Context, index int, c *conn, list []*produceTemplate) error {
	if len(list) == 0 {
		return nil
	}
	flight := make(chan sent, r.load.InFlight)
	answered := make(chan error, 1)
	slots := make(chan struct{}, r.load.InFlight)
	for range r.load.InFlight {
		slots <- struct{}{}
	}
	go func() { answered <- r.receive(c, flight, slots) }()
	var scratch net.Buffers
	correlation := int32(0)
	interval := r.interval(list[0].bytes)
	due := time.Now().Add(time.Duration(index) * interval / time.Duration(r.load.Conns))
	for n := 0; ; n++ {
		if r.load.Once && n == len(list) {
			break
		}
		if r.load.Rate > 0 {
			if wait := time.Until(due); wait > 0 {
				time.Sleep(wait)
			}
		}
		select {
		case <-slots:
		case err := <-answered:
			return err
		case <-r.load.over:
			close(flight)
			return <-answered
		case <-ctx.Done():
			close(flight)
			<-answered // the connection is closed
			return nil
		}
		if r.load.Rate == 0 {
			due = time.Now()
		}
		if !r.load.Once && due.After(r.to) {
			break
		}
		pt := list[n%len(list)]
		if pt.away.Load() {
			r.again.send(r, sent{due: due, pt: pt}, pt.list, c, slots)
		} else {
			flight <- sent{due: due, pt: pt}
			if err := pt.write(c, correlation, &scratch); err != nil {
				return errors.Join(err, <-answered)
			}
			correlation++
		}
		due = due.Add(interval)
	}
	close(flight)
	return <-answered
}

// interval between two requests of one connection at the load's rate.
func (r *produceRun) interval(requestBytes int) time.Duration {
	if r.load.Rate == 0 {
		return 0
	}
	return time.Duration(float64(requestBytes) * float64(r.load.Conns) / float64(r.load.Rate) * float64(time.Second))
}

func (r *produceRun) receive(c *conn, flight <-chan sent, slots chan<- struct{}) error {
	hist := newHistogram()
	defer func() {
		r.mu.Lock()
		r.hist.Merge(hist)
		r.mu.Unlock()
	}()
	n := int32(0)
	for s := range flight {
		correlation, body, err := c.receive()
		if err != nil {
			return fmt.Errorf("answer %d: %w", n, err)
		}
		if correlation != n {
			return fmt.Errorf("answer %d came in the place of %d", correlation, n)
		}
		acked, err := checkProduceResponse(body)
		if err != nil {
			if s.refused, _ = errors.AsType[RefusedError](err); !r.again.may(s.refused) {
				return err
			}
		}
		if acked != s.pt.parts {
			return fmt.Errorf("answer %d has %d partitions, want %d", n, acked, s.pt.parts)
		}
		n++
		if err != nil {
			r.again.send(r, s, r.again.router.unacknowledged(body, s.pt.list), c, slots)
			continue
		}
		r.acked(s, hist)
		slots <- struct{}{}
	}
	return nil
}

// acked counts an acknowledged request. The caller owns the histogram.
func (r *produceRun) acked(s sent, hist *hdrhistogram.Histogram) {
	now := time.Now()
	r.all.Add(int64(s.pt.bytes))
	if r.load.Once || !s.due.Before(r.from) {
		r.bytes.Add(int64(s.pt.bytes))
		r.requests.Add(1)
		r.last.Store(max(r.last.Load(), int64(now.Sub(r.from))))
		_ = hist.RecordValue(max(now.Sub(s.due).Microseconds(), 1))
	}
}
