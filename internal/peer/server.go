package peer

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/raft"
	"google.golang.org/grpc"
	"google.golang.org/grpc/keepalive"

	"github.com/skeinmq/skein/internal/ident"
)

// Config says who this broker is to others.
type Config struct {
	Self ident.Broker
	// Cluster is the id of the cluster as far as it is known: "" before the map was read on fresh disks. It is asked
	// at each call and connection.
	Cluster func() string
	// Advertise is the host:port that others reach the listener at, for what tells them; "": the listener's own address.
	Advertise string
	TLS       *TLS // nil: plain TCP
	Logger    *slog.Logger
}

func (c Config) withDefaults() Config {
	if c.Cluster == nil {
		c.Cluster = func() string { return "" }
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	return c
}

func (c Config) hello(to ident.Broker) hello {
	return hello{cluster: c.Cluster(), from: c.Self, to: to, version: Version, minVersion: MinVersion}
}

// Server is the internal listener of a broker. Services and handlers may come and go while it runs: until one is
// there, callers are told that the broker is starting.
type Server struct {
	cfg Config
	log *slog.Logger

	services services
	http     atomic.Pointer[http.Handler] // of etcd's peers

	grpcConns, httpConns, etcdConns *queue
	raft                            *streamLayer

	mu    sync.Mutex
	conns map[net.Conn]struct{} // accepted and not closed; nil after the end
}

// NewServer makes the listener's parts; Run serves them.
func NewServer(cfg Config) *Server {
	cfg = cfg.withDefaults()
	s := &Server{cfg: cfg, log: cfg.Logger, conns: make(map[net.Conn]struct{})}
	s.services.table = make(map[string]*service)
	s.grpcConns, s.httpConns, s.etcdConns = newQueue(), newQueue(), newQueue()
	s.raft = &streamLayer{queue: newQueue(), cfg: cfg}
	if cfg.Advertise != "" {
		s.raft.bound.Store(cfg.Advertise)
	}
	return s
}

// GRPC registers services for as long as the server runs. A service that is registered again replaces the one
// before for new calls.
func (s *Server) GRPC() grpc.ServiceRegistrar {
	return &Scope{services: &s.services, ctx: context.Background()}
}

// Scope registers services that end before the server does: Close ends them.
func (s *Server) Scope() *Scope { return newScope(&s.services) }

// Raft is the stream layer for raft's network transport. Its streams exist only between brokers of one, known cluster.
func (s *Server) Raft() raft.StreamLayer { return s.raft }

// HandleHTTP makes h answer HTTP/1 requests: those of etcd's members. nil takes it away.
func (s *Server) HandleHTTP(h http.Handler) {
	if h == nil {
		s.http.Store(nil)
		return
	}
	s.http.Store(&h)
}

// EtcdListener hands out the connections of etcd's clients (see Pool.EtcdDialer and DialEtcd), for a gRPC server that has
// etcd's services. Closing it ends only this way in.
func (s *Server) EtcdListener() net.Listener { return s.etcdConns }

// DialEtcd connects a client of this process to what serves EtcdListener, without the network.
func (s *Server) DialEtcd(ctx context.Context) (net.Conn, error) {
	near, far := net.Pipe()
	select {
	case s.etcdConns.conns <- far:
		return near, nil
	case <-s.etcdConns.over:
		return nil, fmt.Errorf("dial own etcd: %w", net.ErrClosed)
	case <-ctx.Done():
		return nil, fmt.Errorf("dial own etcd: %w", context.Cause(ctx))
	}
}

// Run serves ln until ctx ends, then closes ln and every connection and waits for them.
func (s *Server) Run(ctx context.Context, ln net.Listener) error {
	s.raft.bound.CompareAndSwap(nil, ln.Addr().String())
	g := grpc.NewServer(
		grpc.MaxRecvMsgSize(MaxMessageBytes), grpc.MaxSendMsgSize(MaxMessageBytes), grpc.MaxConcurrentStreams(maxStreams),
		grpc.KeepaliveParams(keepalive.ServerParameters{Time: 10 * time.Second, Timeout: gone}),
		grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{MinTime: time.Second, PermitWithoutStream: true}),
		grpc.UnknownServiceHandler(s.services.handle), grpc.StreamInterceptor(s.checkCall), grpc.WaitForHandlers(true),
	)
	h := &http.Server{Handler: http.HandlerFunc(s.serveHTTP), ReadHeaderTimeout: 10 * time.Second, ErrorLog: slog.NewLogLogger(slog.DiscardHandler, 0)}
	var wg sync.WaitGroup
	defer wg.Wait()
	wg.Go(func() { _ = g.Serve(s.grpcConns) }) // they end when their queues are closed
	wg.Go(func() { _ = h.Serve(s.httpConns) })
	stop := context.AfterFunc(ctx, func() { ln.Close() })
	defer stop()
	defer func() {
		for _, q := range []*queue{s.grpcConns, s.httpConns, s.etcdConns, s.raft.queue} {
			q.Close()
		}
		s.closeConns()
		g.Stop()
		h.Close()
	}()
	for {
		c, err := ln.Accept()
		if ctx.Err() != nil {
			if err == nil {
				c.Close()
			}
			return nil
		}
		if errors.Is(err, net.ErrClosed) {
			return fmt.Errorf("internal listener: %w", err)
		}
		if err != nil { // descriptors are out, or the client was gone: go on
			s.log.Warn("connection not accepted", "component", "peer", "error", err)
			select {
			case <-ctx.Done():
			case <-time.After(50 * time.Millisecond):
			}
			continue
		}
		counted, ok := s.admit(c)
		if !ok {
			c.Close()
			continue
		}
		wg.Go(func() { s.sniff(ctx, counted) })
	}
}

func (s *Server) serveHTTP(w http.ResponseWriter, r *http.Request) {
	h := s.http.Load()
	if h == nil {
		http.Error(w, "this broker has no etcd member, or it is starting", http.StatusServiceUnavailable)
		return
	}
	(*h).ServeHTTP(w, r)
}

// admit counts a connection; false: there are enough.
func (s *Server) admit(c net.Conn) (net.Conn, bool) {
	watched(c)
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.conns == nil || len(s.conns) >= maxConns {
		return nil, false
	}
	counted := &countedConn{Conn: c, s: s}
	s.conns[counted] = struct{}{}
	return counted, true
}

func (s *Server) closeConns() {
	s.mu.Lock()
	conns := s.conns
	s.conns = nil
	s.mu.Unlock()
	for c := range conns {
		c.Close()
	}
}

// countedConn leaves the server's count when it is closed.
type countedConn struct {
	net.Conn
	s *Server
}

func (c *countedConn) Close() error {
	c.s.mu.Lock()
	delete(c.s.conns, c)
	c.s.mu.Unlock()
	return c.Conn.Close()
}

// sniff finds out what a connection speaks and hands it on.
func (s *Server) sniff(ctx context.Context, c net.Conn) {
	c.SetDeadline(time.Now().Add(shakeTimeout))
	if s.cfg.TLS != nil {
		secure := s.cfg.TLS.server(c)
		if err := secure.HandshakeContext(ctx); err != nil {
			if !errors.Is(err, io.EOF) && ctx.Err() == nil {
				s.log.Warn("connection refused", "component", "peer", "remote", c.RemoteAddr(), "error", err)
			}
			c.Close()
			return
		}
		c = secure
	}
	var first [3]byte
	if _, err := io.ReadFull(c, first[:]); err != nil {
		c.Close() // a look at whether the port is open
		return
	}
	seen := &prefixed{Conn: c, prefix: first[:]}
	var to taker = s.httpConns
	switch {
	case string(first[:]) == prefaceMagic:
		if seen, to = s.takeStream(seen); seen == nil {
			return
		}
	case bytes.Equal(first[:], []byte("PRI")):
		to = s.grpcConns
	}
	seen.SetDeadline(time.Time{})
	to.give(seen)
}

// taker gets the connections that speak one thing, and closes those that it does not want.
type taker interface{ give(c *prefixed) }

// takeStream answers a preface; nil: the stream was refused and is closed.
func (s *Server) takeStream(c *prefixed) (*prefixed, taker) {
	k, h, err := readPreface(c)
	var to taker
	if err == nil {
		to, err = s.takerOf(k, h)
	}
	refused, is := errors.AsType[*RefusedError](err)
	if err != nil && !is {
		c.Close()
		return nil, nil
	}
	if refused != nil && refused.Reason != NotReady {
		s.log.Warn("stream refused", "component", "peer", "remote", c.RemoteAddr(), "peer", h.from, "error", refused)
	}
	_, err = c.Write(appendReply(nil, refused))
	if refused != nil || err != nil {
		c.Close()
		return nil, nil
	}
	return c, to
}

// takerOf says who takes a stream. Only an etcd client may come before both ends know their cluster: its stream is what tells it.
func (s *Server) takerOf(k kind, h hello) (taker, error) {
	switch err := h.check(s.cfg.Self, s.cfg.Cluster(), k != kindEtcd); {
	case k != kindRaft && k != kindEtcd && k != kindWitness:
		return nil, &RefusedError{WrongPreface, fmt.Sprintf("stream of kind %q", k)}
	case err != nil:
		return nil, err
	case k == kindRaft:
		return s.raft.queue, nil
	case k == kindEtcd:
		return s.etcdConns, nil
	case h.to != s.cfg.Self: // Anyone: an owner means one broker, or what it is told means nothing
		return nil, &RefusedError{WrongBroker, fmt.Sprintf("stream from broker %d to a witness that it does not name", h.from)}
	}
	return s.services.takesWitness(s.cfg.Self)
}

// prefixed gives back the bytes that were looked at.
type prefixed struct {
	net.Conn
	prefix []byte
}

func (c *prefixed) Read(b []byte) (int, error) {
	if len(c.prefix) > 0 {
		n := copy(b, c.prefix)
		c.prefix = c.prefix[n:]
		return n, nil
	}
	return c.Conn.Read(b)
}

// queue is a net.Listener that is fed by the server.
type queue struct {
	conns chan net.Conn
	over  chan struct{}
	once  sync.Once
	bound atomic.Value // string
}

func newQueue() *queue { return &queue{conns: make(chan net.Conn), over: make(chan struct{})} }

// give hands a connection to whoever accepts; nobody for a while, or any more: it is closed.
func (q *queue) give(c *prefixed) {
	patience := time.NewTimer(shakeTimeout)
	defer patience.Stop()
	select {
	case q.conns <- c:
	case <-q.over:
		c.Close()
	case <-patience.C:
		c.Close()
	}
}

// Accept implements net.Listener.
func (q *queue) Accept() (net.Conn, error) {
	select {
	case c := <-q.conns:
		return c, nil
	case <-q.over:
		return nil, fmt.Errorf("accept: %w", net.ErrClosed)
	}
}

// Close implements net.Listener.
func (q *queue) Close() error {
	q.once.Do(func() { close(q.over) })
	return nil
}

// Addr implements net.Listener.
func (q *queue) Addr() net.Addr {
	addr, _ := q.bound.Load().(string)
	return address(addr)
}

// address is a host:port that may be a name.
type address string

// Network implements net.Addr.
func (address) Network() string { return "tcp" }

// String implements net.Addr.
func (a address) String() string { return string(a) }

// streamLayer is raft's way to other brokers.
type streamLayer struct {
	*queue
	cfg Config
}

// Dial implements raft.StreamLayer.
func (l *streamLayer) Dial(addr raft.ServerAddress, timeout time.Duration) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(context.Background(), timeout)
	defer cancel()
	return dialStream(ctx, string(addr), l.cfg.TLS, kindRaft, l.cfg.hello(Anyone))
}
