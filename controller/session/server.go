package session

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"slices"
	"sync"
	"syscall"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/skeinmq/skein/controller/failover"
	"github.com/skeinmq/skein/internal/ident"
	"github.com/skeinmq/skein/internal/peer/peerpb"
	"github.com/skeinmq/skein/queuemapper"
)

// Leadership tells when this broker is the active controller; *controller.Controller does.
type Leadership interface {
	Lead(ctx context.Context, fn func(ctx context.Context, term uint64))
	// Former is who led before, and when it was heard last.
	Former() (leader ident.Broker, heard time.Time, ok bool)
}

// Map is the map as it changes; *queuemapper.Store is one.
type Map interface {
	Map() *queuemapper.Map
	Watch(*queuemapper.Map) <-chan struct{}
}

// ServerConfig configures a Server. The zero value of an optional field means its default.
type ServerConfig struct {
	Self       ident.Broker
	Leadership Leadership
	Map        Map
	// Timeout is how long a broker may be silent; default 2 s.
	Timeout time.Duration
	// Probe is the time between two knocks at the door of a broker that has no stream; default 50 ms.
	Probe time.Duration
	// Dial connects to an address and closes the connection; default TCP. The address is that of an internal listener.
	Dial func(ctx context.Context, address string) error
	// Died hears of each broker whose session ends, in order; it must not block. Optional.
	Died func(broker ident.Broker, why Reason)
	// Heard is given the heartbeats of live brokers; about one a second of each carries loads, if it has any. Optional.
	Heard func(*peerpb.Heartbeat)

	Logger     *slog.Logger
	Registerer prometheus.Registerer
}

// Server keeps the sessions while this broker is the active controller, and none otherwise. It implements
// failover.Sessions.
type Server struct {
	cfg     ServerConfig
	log     *slog.Logger
	metrics *metrics

	mu      sync.Mutex
	term    *term // nil: another broker leads
	changed chan struct{}
	streams uint64 // numbers given to streams
}

// term is one reign.
type term struct {
	number  uint64
	ctx     context.Context
	began   time.Time
	machine *Machine
	beside  sync.WaitGroup
}

func (t *term) now() time.Duration { return time.Since(t.began) }

// NewServer prepares the sessions. Run keeps them.
func NewServer(cfg ServerConfig) *Server {
	if cfg.Timeout == 0 {
		cfg.Timeout = 2 * time.Second
	}
	if cfg.Probe == 0 {
		cfg.Probe = 50 * time.Millisecond
	}
	if cfg.Dial == nil {
		cfg.Dial = knock
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	s := &Server{cfg: cfg, log: cfg.Logger.With("component", "session"), changed: make(chan struct{})}
	s.metrics = newMetrics(cfg.Registerer, s)
	return s
}

func knock(ctx context.Context, address string) error {
	var d net.Dialer
	c, err := d.DialContext(ctx, "tcp", address)
	if err != nil {
		return err
	}
	return c.Close()
}

// refused says whether a dial's error means that no process listens there.
func refused(err error) bool { return errors.Is(err, syscall.ECONNREFUSED) }

// Run keeps sessions whenever this broker leads, until ctx ends.
func (s *Server) Run(ctx context.Context) error {
	s.cfg.Leadership.Lead(ctx, s.reign)
	return nil
}

func (s *Server) reign(ctx context.Context, number uint64) {
	t := &term{
		number: number, ctx: ctx, began: time.Now(), machine: NewMachine(s.cfg.Self, s.cfg.Timeout, s.cfg.Probe),
	}
	if id, heard, ok := s.cfg.Leadership.Former(); ok {
		t.machine.Former(id, t.began.Sub(heard))
	}
	s.mu.Lock()
	s.term = t
	s.wake()
	s.mu.Unlock()
	defer t.beside.Wait()
	defer func() {
		s.mu.Lock()
		s.term = nil
		s.wake()
		s.mu.Unlock()
	}()
	tick := time.NewTicker(s.cfg.Probe / 2)
	defer tick.Stop()
	var seen *queuemapper.Map
	for {
		m := s.cfg.Map.Map()
		s.with(t, func() {
			if m != seen {
				t.machine.List(t.now(), list(m))
			}
			t.machine.Tick(t.now())
		})
		seen = m
		select {
		case <-tick.C:
		case <-s.cfg.Map.Watch(m):
		case <-ctx.Done():
			return
		}
	}
}

// list is who the map says there should be.
func list(m *queuemapper.Map) []Listed {
	var out []Listed
	for b := range m.Brokers() {
		out = append(out, Listed{Broker: b.ID, Incarnation: b.Incarnation, Address: b.Internal})
	}
	for l := range m.Logs() {
		if l.State != queuemapper.LogOpen {
			continue
		}
		i := slices.IndexFunc(out, func(k Listed) bool { return k.Broker == l.Host })
		if i < 0 {
			i = len(out)
			out = append(out, Listed{Broker: l.Host})
		}
		out[i].Incarnation = max(out[i].Incarnation, l.Incarnation) // it opens its logs before it registers
	}
	return out
}

// wake tells those who wait for a change. s.mu is held.
func (s *Server) wake() {
	close(s.changed)
	s.changed = make(chan struct{})
}

// with feeds the machine of a term, and does what it asks for.
func (s *Server) with(t *term, feed func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.term != t {
		return
	}
	feed()
	for _, a := range t.machine.Drain() {
		if a.Probe {
			t.beside.Go(func() { s.probe(t, a) })
			continue
		}
		s.wake()
		s.tell(t, a)
	}
}

func (s *Server) tell(t *term, a Action) {
	level := slog.LevelDebug
	if a.Standing == failover.Dead {
		level = slog.LevelWarn
		s.metrics.deaths.WithLabelValues(string(a.Reason)).Inc()
		if s.cfg.Died != nil {
			s.cfg.Died(a.Broker, a.Reason)
		}
	}
	s.log.Log(t.ctx, level, "session changed", "broker", a.Broker, "incarnation", a.Incarnation, "standing", standingName(a.Standing), "reason", a.Reason, "term", t.number)
}

// probe knocks once.
func (s *Server) probe(t *term, a Action) {
	ctx, cancel := context.WithTimeout(t.ctx, s.cfg.Timeout/4)
	defer cancel()
	s.metrics.probes.Inc()
	err := s.cfg.Dial(ctx, a.Address)
	s.with(t, func() { t.machine.Probed(t.now(), a.Broker, a.Incarnation, refused(err)) })
}

// Session implements failover.Sessions.
func (s *Server) Session(b ident.Broker) failover.Session {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.term == nil {
		return failover.Session{}
	}
	standing, incarnation, since := s.term.machine.Session(b)
	return failover.Session{Standing: standing, Incarnation: incarnation, Since: s.term.began.Add(since)}
}

// Changed implements failover.Sessions.
func (s *Server) Changed() <-chan struct{} {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.changed
}

// open begins a stream; nil: another broker leads.
func (s *Server) open() (t *term, stream uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.streams++
	return s.term, s.streams
}

// beat takes a heartbeat; ok is false when the term is over.
func (s *Server) beat(t *term, stream uint64, hb *peerpb.Heartbeat) (dead, ok bool) {
	s.with(t, func() {
		b := Beat{Broker: ident.Broker(hb.GetBroker()), Incarnation: hb.GetIncarnation(), Leaving: hb.GetLeaving(), Draining: hb.GetDraining()}
		dead, ok = t.machine.Beat(t.now(), stream, b), true
	})
	if ok && !dead && s.cfg.Heard != nil {
		s.cfg.Heard(hb)
	}
	return dead, ok
}

func (s *Server) closed(t *term, stream uint64) {
	s.with(t, func() { t.machine.Closed(t.now(), stream) })
}

var errNotActive = status.Error(codes.FailedPrecondition, "not the active controller")

// Serve implements the Session call.
func (s *Server) Serve(stream grpc.BidiStreamingServer[peerpb.Heartbeat, peerpb.HeartbeatReply]) error {
	t, number := s.open()
	if t == nil {
		return errNotActive
	}
	defer s.closed(t, number)
	failed := make(chan error, 1)
	go func() { // ends with the stream, which ends when this call returns
		for {
			hb, err := stream.Recv()
			if err != nil {
				failed <- err
				return
			}
			dead, ok := s.beat(t, number, hb)
			if !ok {
				failed <- errNotActive
				return
			}
			if err := stream.Send(&peerpb.HeartbeatReply{Term: int64(t.number), Dead: dead}); err != nil {
				failed <- err
				return
			}
		}
	}()
	select {
	case err := <-failed:
		if errors.Is(err, io.EOF) {
			return nil
		}
		return err
	case <-t.ctx.Done():
		return errNotActive
	}
}
