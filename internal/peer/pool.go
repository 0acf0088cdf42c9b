package peer

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/status"

	"github.com/skeinmq/skein/internal/ident"
)

// Pool is a broker's connections to the others, made when they are asked for. Its methods may be called from any
// goroutine.
type Pool struct {
	cfg     Config
	resolve func(ident.Broker) (addr string, ok bool)

	mu     sync.Mutex
	conns  map[ident.Broker]*pooled
	closed bool
}

type pooled struct {
	addr string
	conn *grpc.ClientConn
}

// NewPool makes a pool. resolve says where a broker's internal listener is now; it is asked at each call of Conn and must be quick.
func NewPool(cfg Config, resolve func(ident.Broker) (addr string, ok bool)) *Pool {
	return &Pool{cfg: cfg.withDefaults(), resolve: resolve, conns: make(map[ident.Broker]*pooled)}
}

// Conn returns the connection to a broker at the address that it has now. It does not wait: calls on it fail at once
// (UNAVAILABLE) while the broker cannot be reached, or wait with grpc.WaitForReady. When the address changes, calls on the
// connection before end. Do not keep it: ask again for each call or stream. ErrNoAddress, ErrClosed.
func (p *Pool) Conn(b ident.Broker) (grpc.ClientConnInterface, error) {
	addr, known := p.resolve(b)
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return nil, ErrClosed
	}
	have := p.conns[b]
	if have != nil && known && have.addr == addr {
		return have.conn, nil
	}
	if have != nil {
		delete(p.conns, b)
		have.conn.Close() // does not wait for the network
	}
	if !known {
		return nil, fmt.Errorf("connect to broker %d: %w", b, ErrNoAddress)
	}
	if len(p.conns) >= maxPeers {
		return nil, fmt.Errorf("connect to broker %d: there are %d connections already", b, len(p.conns))
	}
	conn, err := p.open(addr, b)
	if err != nil {
		return nil, fmt.Errorf("connect to broker %d at %s: %w", b, addr, err)
	}
	p.conns[b] = &pooled{addr, conn}
	return conn, nil
}

// Dial makes a connection of its own to whoever is at an address; the caller closes it.
func (p *Pool) Dial(addr string) (*grpc.ClientConn, error) {
	conn, err := p.open(addr, Anyone)
	if err != nil {
		return nil, fmt.Errorf("connect to %s: %w", addr, err)
	}
	return conn, nil
}

func (p *Pool) open(addr string, to ident.Broker) (*grpc.ClientConn, error) {
	c := &caller{cfg: p.cfg, to: to}
	return grpc.NewClient("passthrough:///"+addr,
		grpc.WithTransportCredentials(insecure.NewCredentials()), // TLS is below gRPC
		grpc.WithContextDialer(func(ctx context.Context, addr string) (net.Conn, error) { return dial(ctx, addr, p.cfg.TLS) }),
		grpc.WithUnaryInterceptor(c.unary), grpc.WithStreamInterceptor(c.stream),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(MaxMessageBytes), grpc.MaxCallSendMsgSize(MaxMessageBytes)),
		grpc.WithKeepaliveParams(keepalive.ClientParameters{Time: 10 * time.Second, Timeout: gone}),
		grpc.WithConnectParams(grpc.ConnectParams{
			Backoff:           backoff.Config{BaseDelay: 20 * time.Millisecond, Multiplier: 1.6, Jitter: 0.2, MaxDelay: 500 * time.Millisecond},
			MinConnectTimeout: dialTimeout,
		}),
		grpc.WithIdleTimeout(0), grpc.WithDisableServiceConfig(),
	)
}

// EtcdDialer dials etcd's client services on a voter's internal port: for grpc.WithContextDialer, which hands it
// the endpoint's host:port.
func (p *Pool) EtcdDialer() func(ctx context.Context, addr string) (net.Conn, error) {
	return func(ctx context.Context, addr string) (net.Conn, error) {
		return dialStream(ctx, addr, p.cfg.TLS, kindEtcd, p.cfg.hello(Anyone))
	}
}

// DialWitness opens a stream to the witness on a broker, which serves it by Scope.HandleWitness; the caller closes it, which
// waits for nobody. That the stream was taken is the other end's word that it is this broker, of this cluster.
// ErrNoAddress, ErrClosed, ErrRefused: NotReady while there is no witness.
func (p *Pool) DialWitness(ctx context.Context, b ident.Broker) (net.Conn, error) {
	p.mu.Lock()
	closed := p.closed
	p.mu.Unlock()
	if closed {
		return nil, ErrClosed
	}
	addr, ok := p.resolve(b)
	if !ok {
		return nil, fmt.Errorf("connect to the witness on broker %d: %w", b, ErrNoAddress)
	}
	c, err := dialStream(ctx, addr, p.cfg.TLS, kindWitness, p.cfg.hello(b))
	if err != nil {
		return nil, fmt.Errorf("connect to the witness on broker %d: %w", b, err)
	}
	return abrupt(c), nil
}

// Probe connects to a broker's internal listener and closes again: an error means that nobody listens there (or that
// ctx ended).
func (p *Pool) Probe(ctx context.Context, b ident.Broker) error {
	addr, ok := p.resolve(b)
	if !ok {
		return fmt.Errorf("probe broker %d: %w", b, ErrNoAddress)
	}
	var d net.Dialer
	c, err := d.DialContext(ctx, "tcp", addr)
	if err != nil {
		return fmt.Errorf("probe broker %d: %w", b, err)
	}
	return c.Close()
}

// Close ends every connection that calls are made on, and those calls.
func (p *Pool) Close() error {
	p.mu.Lock()
	conns := p.conns
	p.conns, p.closed = nil, true
	p.mu.Unlock()
	var problems []error
	for _, c := range conns {
		problems = append(problems, c.conn.Close())
	}
	return errors.Join(problems...)
}

// grpcMessage is an error's text without gRPC's frame around it.
func grpcMessage(err error) string { return status.Convert(err).Message() }
