package session

import (
	"context"
	"errors"
	"net"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/skeinmq/skein/controller/failover"
	"github.com/skeinmq/skein/internal/ident"
	"github.com/skeinmq/skein/internal/metrictest"
	"github.com/skeinmq/skein/internal/peer/peerpb"
	"github.com/skeinmq/skein/queuemapper"
)

// Nobody is silent for so long because the machine stood still, and what is heard at once is heard long before the next beat.
const (
	silence = 2 * time.Minute
	beat    = 10 * time.Second
)

// patience ends a wait for what never comes.
const patience = time.Minute

// cluster is a few brokers in this process, each with a server and a client; the test says who leads.
type cluster struct {
	t       *testing.T
	mu      sync.Mutex
	leader  ident.Broker
	changed chan struct{}
	nodes   map[ident.Broker]*node
	gone    chan ident.Broker // what LeaderGone was told
	heard   chan *peerpb.Heartbeat
}

type node struct {
	c      *cluster
	id     ident.Broker
	addr   string
	server *Server
	client *Client
	rpc    *grpc.Server
	stop   context.CancelFunc
	ended  chan error
}

type service struct {
	peerpb.UnimplementedControllerServer
	s *Server
}

func (s *service) Session(stream grpc.BidiStreamingServer[peerpb.Heartbeat, peerpb.HeartbeatReply]) error {
	return s.s.Serve(stream)
}

func (c *cluster) now() (ident.Broker, chan struct{}) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.leader, c.changed
}

func (c *cluster) elect(b ident.Broker) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.leader = b
	close(c.changed)
	c.changed = make(chan struct{})
}

// Leader, LeaderChanged and LeaderGone are what a client sees of it.
func (n *node) Leader() (ident.Broker, string, bool) {
	b, _ := n.c.now()
	if b == 0 {
		return 0, "", false
	}
	return b, n.c.nodes[b].addr, true
}

func (n *node) LeaderChanged() <-chan struct{} { _, ch := n.c.now(); return ch }

func (n *node) LeaderGone(b ident.Broker) {
	select {
	case n.c.gone <- b:
	default:
	}
}

func (n *node) Lead(ctx context.Context, fn func(ctx context.Context, term uint64)) {
	for term := uint64(1); ctx.Err() == nil; term++ {
		leader, changed := n.c.now()
		if leader == n.id {
			ctx, cancel := context.WithCancel(ctx)
			go func() { <-changed; cancel() }()
			fn(ctx, term)
			cancel()
			continue
		}
		select {
		case <-changed:
		case <-ctx.Done():
		}
	}
}

func (n *node) Former() (ident.Broker, time.Time, bool) { return 0, time.Time{}, false }

func (n *node) Conn(b ident.Broker) (grpc.ClientConnInterface, error) {
	return grpc.NewClient("passthrough:///"+n.c.nodes[b].addr, grpc.WithTransportCredentials(insecure.NewCredentials()))
}

// Map and Watch are an empty map: brokers are known by their heartbeats.
func (n *node) Map() *queuemapper.Map                  { return &queuemapper.Map{} }
func (n *node) Watch(*queuemapper.Map) <-chan struct{} { return nil }

func newCluster(t *testing.T, size int) *cluster {
	c := &cluster{t: t, changed: make(chan struct{}), nodes: map[ident.Broker]*node{}, gone: make(chan ident.Broker, 100), heard: make(chan *peerpb.Heartbeat, 100)}
	for i := range size {
		ln, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		n := &node{c: c, id: ident.Broker(i + 1), addr: ln.Addr().String(), rpc: grpc.NewServer()}
		n.server = NewServer(ServerConfig{Self: n.id, Leadership: n, Map: n, Dial: knock, Timeout: silence, Heard: func(hb *peerpb.Heartbeat) {
			select {
			case c.heard <- hb:
			default:
			}
		}})
		peerpb.RegisterControllerServer(n.rpc, &service{s: n.server})
		go n.rpc.Serve(ln)
		c.nodes[n.id] = n
	}
	for _, n := range c.nodes {
		n.run(1)
	}
	t.Cleanup(func() {
		for _, n := range c.nodes {
			n.stop()
			n.rpc.Stop()
		}
	})
	return c
}

func (n *node) run(incarnation int64) {
	n.client = NewClient(ClientConfig{
		Self: n.id, Incarnation: incarnation, Leader: n, Conns: n, Local: n.server, Interval: beat,
		Report: func(withLoads bool) Report {
			r := Report{DiskUsed: 0.5}
			if withLoads {
				r.Loads = []*peerpb.GroupLoad{{Group: int32(n.id), BytesIn: 100}}
			}
			return r
		},
	})
	ctx, cancel := context.WithCancel(context.Background())
	client, ended := n.client, make(chan error, 1)
	n.stop, n.ended = cancel, ended
	go n.server.Run(ctx)
	go func() { ended <- client.Run(ctx) }()
}

// await waits until the leader thinks so of a broker, and says how long it took.
func (c *cluster) await(of ident.Broker, want failover.Standing, incarnation int64) time.Duration {
	c.t.Helper()
	start := time.Now()
	for time.Since(start) < patience {
		leader, _ := c.now()
		s := c.nodes[leader].server
		changed := s.Changed()
		if got := s.Session(of); got.Standing == want && got.Incarnation == incarnation {
			return time.Since(start)
		}
		select {
		case <-changed:
		case <-time.After(time.Second):
		}
	}
	c.t.Fatalf("broker %d never became %s", of, standingName(want))
	return 0
}

func TestSessions(t *testing.T) {
	c := newCluster(t, 3)
	c.elect(1)
	for b := range ident.Broker(3) {
		c.await(b+1, failover.Live, 1)
	}
	for heard := make(map[int32]bool); len(heard) < 3; {
		hb := <-c.heard
		if hb.GetLoads() == nil {
			continue
		}
		if heard[hb.GetBroker()] = true; hb.GetLoads()[0].GetGroup() != hb.GetBroker() || hb.GetDiskUsed() != 0.5 {
			t.Errorf("heard %+v", hb)
		}
	}
	if got := c.nodes[2].server.Session(1); got.Standing != failover.Unknown {
		t.Errorf("a follower knows %+v", got)
	}

	// Leaving is heard at once.
	if err := c.nodes[3].client.Leave(t.Context()); err != nil {
		t.Fatal(err)
	}
	if took := c.await(3, failover.Leaving, 1); took >= beat {
		t.Errorf("leaving was heard after %v", took)
	}

	// The next leader hears from everybody, and knows nothing of before; a broker that is replaced hears of it.
	c.elect(2)
	c.await(1, failover.Live, 1)
	c.await(3, failover.Leaving, 1)
	old := c.nodes[1].ended
	defer c.nodes[1].stop()
	c.nodes[1].run(2)
	c.await(1, failover.Live, 2)
	if err := <-old; !errors.Is(err, ErrDead) {
		t.Errorf("the older incarnation ended with %v", err)
	}
}

// TestLeaderGone: a client whose leader's process is gone says so at once.
func TestLeaderGone(t *testing.T) {
	c := newCluster(t, 2)
	c.elect(1)
	c.await(2, failover.Live, 1)
	c.nodes[1].rpc.Stop()
	start := time.Now()
	if b := <-c.gone; b != 1 {
		t.Errorf("%d is said to be gone", b)
	}
	if took := time.Since(start); took >= beat {
		t.Errorf("noticed after %v", took)
	}
}

// TestProcessGone: the kernel's refusal is a death certificate; silence takes the whole timeout.
func TestProcessGone(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	if err := knock(t.Context(), ln.Addr().String()); err != nil {
		t.Fatal(err)
	}
	ln.Close()
	// Not the listener's port: another process may have been given it.
	if err := knock(t.Context(), "127.0.0.1:1"); !refused(err) {
		t.Errorf("a closed door: %v", err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
	defer cancel()
	<-ctx.Done()
	if err := knock(ctx, ln.Addr().String()); refused(err) {
		t.Errorf("no time to knock: %v", err)
	}
}

func TestMetricNames(t *testing.T) {
	reg := prometheus.NewRegistry()
	NewServer(ServerConfig{Registerer: reg})
	metrictest.Check(t, reg)
}
