package broker

import (
	"context"
	"fmt"
	"net"
	"path"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/test/bufconn"

	"github.com/skeinmq/skein/internal/ident"
	"github.com/skeinmq/skein/internal/peer/peerpb"
)

// testPeers is the internal network of the brokers of one test: gRPC over memory.
type testPeers struct {
	ids       atomic.Int64 // producer ids, which are the cluster's
	mu        sync.Mutex
	listeners map[ident.Broker]*bufconn.Listener
	cut       map[ident.Broker]*bufconn.Listener // by refuse
	conns     map[ident.Broker]*grpc.ClientConn
	calls     []peerCall // of unary methods
	// onSend is told of each message of a stream that a broker answers with, before it goes; nil: nobody is.
	onSend func(id ident.Broker, method string) error
	// onCall is told of each unary call that a broker gets, before it is answered; nil: nobody is.
	onCall func(to ident.Broker, method string)
	// onRefused is told of each connection that finds nobody; nil: nobody is.
	onRefused func(to ident.Broker)
}

// refuse cuts a broker off: no new connection reaches it.
func (n *testPeers) refuse(id ident.Broker) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if ln := n.listeners[id]; ln != nil {
		delete(n.listeners, id)
		n.cut[id] = ln
		if c := n.conns[id]; c != nil {
			c.Close()
			delete(n.conns, id)
		}
	}
}

// allow ends refuse.
func (n *testPeers) allow(id ident.Broker) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.listeners[id] = n.cut[id]
}

// peerCall is one request between brokers.
type peerCall struct {
	to     ident.Broker
	method string // without its service
	req    any
}

// asked returns the requests that a broker got.
func (n *testPeers) asked(to ident.Broker, method string) (reqs []any) {
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, c := range n.calls {
		if c.to == to && c.method == method {
			reqs = append(reqs, c.req)
		}
	}
	return reqs
}

// watchedStream tells the test what is sent.
type watchedStream struct {
	grpc.ServerStream
	before func() error
}

func (s watchedStream) SendMsg(m any) error {
	if err := s.before(); err != nil {
		return err
	}
	return s.ServerStream.SendMsg(m)
}

func newTestPeers() *testPeers {
	return &testPeers{listeners: make(map[ident.Broker]*bufconn.Listener), cut: make(map[ident.Broker]*bufconn.Listener), conns: make(map[ident.Broker]*grpc.ClientConn)}
}

// serve serves a broker's internal API until the returned function is called.
func (n *testPeers) serve(id ident.Broker, b *Broker) (stop func()) {
	ln := bufconn.Listen(1 << 20)
	srv := grpc.NewServer(
		grpc.UnaryInterceptor(func(ctx context.Context, req any, info *grpc.UnaryServerInfo, handle grpc.UnaryHandler) (any, error) {
			n.mu.Lock()
			n.calls = append(n.calls, peerCall{id, path.Base(info.FullMethod), req})
			told := n.onCall
			n.mu.Unlock()
			if told != nil {
				told(id, path.Base(info.FullMethod))
			}
			return handle(ctx, req)
		}),
		grpc.StreamInterceptor(func(service any, stream grpc.ServerStream, info *grpc.StreamServerInfo, handle grpc.StreamHandler) error {
			return handle(service, watchedStream{stream, func() error {
				n.mu.Lock()
				told := n.onSend
				n.mu.Unlock()
				if told == nil {
					return nil
				}
				return told(id, path.Base(info.FullMethod))
			}})
		}))
	peerpb.RegisterReadsServer(srv, b.Reads())
	peerpb.RegisterOwnerServer(srv, b.Owner())
	n.mu.Lock()
	n.listeners[id] = ln
	n.mu.Unlock()
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		srv.Serve(ln)
	}()
	return sync.OnceFunc(func() {
		n.mu.Lock()
		delete(n.listeners, id)
		n.mu.Unlock()
		srv.Stop()
		<-ended
	})
}

// Conn is runs.Conns'.
func (n *testPeers) Conn(id ident.Broker) (grpc.ClientConnInterface, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if c := n.conns[id]; c != nil {
		return c, nil
	}
	c, err := grpc.NewClient("passthrough:///broker", grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithConnectParams(grpc.ConnectParams{
			Backoff:           backoff.Config{BaseDelay: 10 * time.Millisecond, Multiplier: 1, MaxDelay: 10 * time.Millisecond},
			MinConnectTimeout: 20 * time.Second, // without it a connection has a backoff's time: too little on a busy machine
		}),
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) {
			n.mu.Lock()
			ln, told := n.listeners[id], n.onRefused
			n.mu.Unlock()
			if ln == nil {
				if told != nil {
					told(id)
				}
				return nil, fmt.Errorf("broker %d is not there", id)
			}
			return ln.DialContext(ctx)
		}))
	n.conns[id] = c
	return c, err
}

func (n *testPeers) close() {
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, c := range n.conns {
		c.Close()
	}
}
