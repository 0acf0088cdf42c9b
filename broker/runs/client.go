package runs

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/skeinmq/skein/commitlog"
	"github.com/skeinmq/skein/internal/ident"
	"github.com/skeinmq/skein/internal/peer/peerpb"
)

const (
	// patience is how long a host may take for the next message of an answer.
	patience = 3 * time.Second
	// ChunkBytes bounds the bytes that are asked for at a time, but for a batch that is larger.
	ChunkBytes = 4 << 20
	// streamsAtOnce bounds the reads from one host that are under way.
	streamsAtOnce = 16
	// A host that did not answer is not asked again for a while, so that nobody waits for it again and again.
	restMin = 100 * time.Millisecond
	restMax = 2 * time.Second
)

// Conns connects to other brokers.
type Conns interface {
	Conn(ident.Broker) (grpc.ClientConnInterface, error)
}

// Config configures a Client.
type Config struct {
	Conns Conns // nil: there are no other brokers; every remote run is away
	// AheadBytes bounds what is read ahead for clients that have not asked for it as yet; 0: nothing is.
	AheadBytes int64
	Logger     *slog.Logger
	Registerer prometheus.Registerer
}

// Client reads runs in other brokers' logs. Its methods may be called by any goroutine.
type Client struct {
	cfg     Config
	metrics *metrics
	ahead   ahead
	sealed  segmentCache

	mu    sync.Mutex
	hosts map[ident.Broker]*host
}

// host is another broker, as a place to read from.
type host struct {
	id    ident.Broker
	slots chan struct{}

	mu    sync.Mutex
	rest  time.Duration
	until time.Time // it is not asked before
}

// NewClient makes a client; Close ends it.
func NewClient(cfg Config) *Client {
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	c := &Client{cfg: cfg, metrics: newMetrics(cfg.Registerer), hosts: make(map[ident.Broker]*host)}
	c.ahead.init(cfg.AheadBytes)
	c.sealed.init()
	return c
}

// Close ends what is read ahead and returns when nothing of it is under way any more.
func (c *Client) Close() { c.ahead.close() }

// Remote is a run in another broker's log.
type Remote struct {
	c    *Client
	host ident.Broker
	ref  Ref
}

// Run returns a run in the log of another broker.
func (c *Client) Run(at ident.Broker, ref Ref) *Remote { return &Remote{c: c, host: at, ref: ref} }

// Epoch is Run's.
func (r *Remote) Epoch() ident.Epoch { return r.ref.Generation.Epoch }

// Extent is Run's. Only of a run that may hold less than its end says the host is asked.
func (r *Remote) Extent(ctx context.Context) (first, end ident.Offset, err error) {
	if !r.ref.Gap {
		return r.ref.Start, r.ref.End, nil
	}
	segments, err := r.Segments(ctx)
	if err != nil {
		return 0, 0, err
	}
	if len(segments) == 0 {
		return r.ref.Start, r.ref.Start, nil
	}
	return segments[0].First, segments[len(segments)-1].End, nil
}

// Read is Run's. What it returns is in memory of its own, which Release lets go of.
func (r *Remote) Read(ctx context.Context, opt commitlog.ReadOptions, dst *commitlog.Records) error {
	dst.Next = opt.From
	if opt.From >= min(orMax(opt.To), r.ref.End) {
		return nil
	}
	got, err := r.c.ahead.take(ctx, r, opt.From)
	if err == nil && got == nil {
		got, err = r.fetch(ctx, opt.From, min(opt.MaxBytes, ChunkBytes), opt.AtLeastOne)
	}
	if err != nil {
		return err
	}
	got.take(&opt, dst)
	r.c.metrics.bytes.Add(float64(dst.Bytes))
	if dst.Bytes > 0 { // it reads on, likely
		r.c.ahead.begin(r, dst.Next, got, min(opt.MaxBytes, ChunkBytes))
	}
	return nil
}

// fetch reads one chunk from the host.
func (r *Remote) fetch(ctx context.Context, from ident.Offset, most int, whole bool) (*batches, error) {
	a := assembler{ref: &r.ref, from: from}
	err := r.c.ask(ctx, r.host, true, func(ctx context.Context, rpc peerpb.ReadsClient, alive func()) error {
		stream, err := rpc.Read(ctx, &peerpb.ReadRequest{
			Run: r.ref.Message(), From: int64(from), End: int64(r.ref.End), MaxBytes: int32(most), WholeFirst: whole,
		})
		for err == nil {
			var m *peerpb.ReadReply
			if m, err = stream.Recv(); err == nil {
				alive()
				err = a.add(m.GetBatches())
			}
		}
		if errors.Is(err, io.EOF) {
			err = nil
			if len(a.part) > 0 {
				err = fmt.Errorf("%w: the last one is not whole", errBatches)
			}
		}
		return err
	})
	if err != nil && len(a.got.list) == 0 {
		return nil, err
	}
	return &a.got, nil // what came before the trouble is good; the next read meets it first
}

// Lookup is Run's.
func (r *Remote) Lookup(ctx context.Context, by Question) (found Found, ok bool, err error) {
	err = r.c.ask(ctx, r.host, false, func(ctx context.Context, rpc peerpb.ReadsClient, _ func()) error {
		reply, err := rpc.Lookup(ctx, &peerpb.LookupRequest{
			Run: r.ref.Message(), From: int64(by.From), Timestamp: by.Timestamp, MaxTimestamp: by.Greatest,
		})
		if err != nil || !reply.GetFound() {
			return err
		}
		found, ok = Found{ident.Offset(reply.GetOffset()), reply.GetTimestamp()}, true
		if found.Offset < max(by.From, r.ref.Start) || found.Offset >= r.ref.End {
			return fmt.Errorf("%w: found offset %d", errBatches, found.Offset)
		}
		return nil
	})
	if r.ref.Gap && errors.Is(err, ErrMissing) {
		return Found{}, false, nil
	}
	return found, ok && err == nil, err
}

// Segments is Run's. Of a sealed run they only ever get fewer, so the first answer is kept: what was released since may
// still be listed.
func (r *Remote) Segments(ctx context.Context) ([]commitlog.Segment, error) {
	key := runKey{r.ref.Partition, r.ref.Generation}
	if list, ok := r.c.sealed.get(key); ok {
		return list, nil
	}
	var list []commitlog.Segment
	err := r.c.ask(ctx, r.host, false, func(ctx context.Context, rpc peerpb.ReadsClient, _ func()) error {
		reply, err := rpc.Segments(ctx, &peerpb.SegmentsRequest{Run: r.ref.Message()})
		if err != nil {
			return err
		}
		if !reply.GetComplete() {
			return status.Errorf(codes.Unavailable, "%s is not sealed there as yet", &r.ref)
		}
		next := r.ref.Start
		for _, s := range reply.GetSegments() {
			if ident.Offset(s.First) < next || s.End <= s.First || ident.Offset(s.End) > r.ref.End {
				return fmt.Errorf("%w: segment [%d,%d)", errBatches, s.First, s.End)
			}
			next = ident.Offset(s.End)
			list = append(list, commitlog.Segment{First: ident.Offset(s.First), End: next, Bytes: s.Bytes, MaxTimestamp: s.MaxTimestamp})
		}
		return nil
	})
	if r.ref.Gap && errors.Is(err, ErrMissing) {
		err = nil // nothing was written before its disk went away
	}
	if err == nil {
		r.c.sealed.put(key, list)
	}
	return list, err
}

// Release tells a host where the runs are still wanted from: each Ref's Start. No more than releasesMost at once are sent.
func (c *Client) Release(ctx context.Context, at ident.Broker, refs []Ref) error {
	for len(refs) > 0 {
		n := min(len(refs), releasesMost)
		rq := &peerpb.ReleaseRequest{Runs: make([]*peerpb.RunRef, n)}
		for i := range n {
			rq.Runs[i] = refs[i].Message()
		}
		err := c.ask(ctx, at, false, func(ctx context.Context, rpc peerpb.ReadsClient, _ func()) error {
			_, err := rpc.Release(ctx, rq)
			return err
		})
		if err != nil {
			return err
		}
		refs = refs[n:]
	}
	return nil
}

// ask calls a host within bounds: of what is under way, of time, and of how often one that does not answer is asked.
// call says by alive that the host goes on answering.
func (c *Client) ask(ctx context.Context, id ident.Broker, stream bool, call func(ctx context.Context, rpc peerpb.ReadsClient, alive func()) error) error {
	h := c.hostOf(id)
	if !h.awake() {
		return fmt.Errorf("ask broker %d: %w", id, ErrAway)
	}
	if stream {
		select {
		case h.slots <- struct{}{}:
			defer func() { <-h.slots }()
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
	c.metrics.requests.Inc()
	inner, cancel := context.WithCancel(ctx)
	defer cancel()
	silent := time.AfterFunc(patience, cancel)
	defer silent.Stop()
	err := c.dial(id, func(rpc peerpb.ReadsClient) error {
		return call(inner, rpc, func() { silent.Reset(patience) })
	})
	if err == nil {
		h.answered()
		return nil
	}
	if ctx.Err() != nil { // the asker gave up: no fault of the host
		return context.Cause(ctx)
	}
	return c.judge(h, err)
}

func (c *Client) dial(id ident.Broker, call func(peerpb.ReadsClient) error) error {
	if c.cfg.Conns == nil {
		return ErrAway
	}
	conn, err := c.cfg.Conns.Conn(id)
	if err != nil {
		return err
	}
	return call(peerpb.NewReadsClient(conn))
}

// judge makes an error of ours of what a host answered, and remembers when it did not.
func (c *Client) judge(h *host, err error) error {
	switch status.Code(err) {
	case codes.OutOfRange:
		h.answered()
		return fmt.Errorf("broker %d: %s: %w", h.id, status.Convert(err).Message(), commitlog.ErrOutOfRange)
	case codes.DataLoss:
		h.answered()
		return fmt.Errorf("broker %d: %s: %w", h.id, status.Convert(err).Message(), commitlog.ErrCorrupt)
	case codes.NotFound:
		h.answered()
		return fmt.Errorf("broker %d: %s: %w", h.id, status.Convert(err).Message(), ErrMissing)
	case codes.ResourceExhausted, codes.Unimplemented: // the latter: an older build
		h.answered()
	default:
		h.failed()
	}
	c.metrics.failures.Inc()
	if errors.Is(err, errBatches) {
		c.cfg.Logger.Error("another broker's answer is wrong", "broker", int(h.id), "error", err)
	}
	return fmt.Errorf("ask broker %d: %w: %w", h.id, ErrAway, err)
}

func (c *Client) hostOf(id ident.Broker) *host {
	c.mu.Lock()
	defer c.mu.Unlock()
	h := c.hosts[id]
	if h == nil {
		h = &host{id: id, slots: make(chan struct{}, streamsAtOnce)}
		c.hosts[id] = h
	}
	return h
}

// awake says whether the host may be asked; one of those who ask after its rest tries it.
func (h *host) awake() bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	now := time.Now()
	if now.Before(h.until) {
		return false
	}
	if h.rest > 0 {
		h.until = now.Add(h.rest)
	}
	return true
}

func (h *host) answered() {
	h.mu.Lock()
	h.rest, h.until = 0, time.Time{}
	h.mu.Unlock()
}

func (h *host) failed() {
	h.mu.Lock()
	h.rest = min(max(2*h.rest, restMin), restMax)
	h.until = time.Now().Add(h.rest)
	h.mu.Unlock()
}
