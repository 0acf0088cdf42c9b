package broker

import (
	"context"
	"fmt"
	"net"
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
	conns     map[ident.Broker]*grpc.ClientConn
}

func newTestPeers() *testPeers {
	return &testPeers{listeners: make(map[ident.Broker]*bufconn.Listener), conns: make(map[ident.Broker]*grpc.ClientConn)}
}

// serve serves a broker's internal API until the returned function is called.
func (n *testPeers) serve(id ident.Broker, b *Broker) (stop func()) {
	ln := bufconn.Listen(1 << 20)
	srv := grpc.NewServer()
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
		grpc.WithConnectParams(grpc.ConnectParams{Backoff: backoff.Config{BaseDelay: 10 * time.Millisecond, Multiplier: 1, MaxDelay: 10 * time.Millisecond}}),
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) {
			n.mu.Lock()
			ln := n.listeners[id]
			n.mu.Unlock()
			if ln == nil {
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
