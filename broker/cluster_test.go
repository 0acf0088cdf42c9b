package broker

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/twmb/franz-go/pkg/kgo"
	clientv3 "go.etcd.io/etcd/client/v3"
	"golang.org/x/sync/errgroup"

	"github.com/skeinmq/skein/commitlog"
	"github.com/skeinmq/skein/controller"
	"github.com/skeinmq/skein/internal/ident"
	"github.com/skeinmq/skein/internal/vfs"
	"github.com/skeinmq/skein/queuemapper"
	"github.com/skeinmq/skein/queuemapper/embedded"
)

// etcd is one server for all tests of the package; clusters have prefixes of their own.
var etcd *embedded.Server

func TestMain(m *testing.M) {
	os.Exit(func() int {
		dir, err := os.MkdirTemp("", "broker")
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		defer os.RemoveAll(dir)
		etcd, err = embedded.Start(context.Background(), embedded.Config{Dir: dir, NoFsync: true})
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		defer etcd.Close()
		return m.Run()
	}())
}

var prefixes atomic.Int64

// enough is longer than anything takes that a test waits for, on whatever machine: only a failure reaches it.
const enough = time.Minute

// cluster is one real broker on real logs and a real map, for a test. Several of one map are brokers of one cluster.
type cluster struct {
	t      testing.TB
	id     ident.Broker
	peers  *testPeers
	prefix string
	dirs   []string
	fs     vfs.FS // of the logs; nil: the real one, with room, whatever this machine has
	etcd   *clientv3.Client
	conf   Config                 // template: Static and limits
	shared *controller.Controller // of several brokers: one replicated state for all, which outlives them
	all    []*cluster             // the brokers of the cluster
	// hasty has answers and moves wait for other brokers for as short as they do for clients: for tests in which some cannot be reached.
	// Else they wait as long as it takes, so that a test may judge what holds when they come, on whatever machine.
	hasty  bool
	b      *Broker
	addr   string
	logs   []*commitlog.Log
	stop   func() error
	ended  chan struct{} // closed when the broker's Run has returned runErr
	runErr error
}

// NextProducerID makes the cluster its brokers' source of producer ids.
func (c *cluster) NextProducerID(context.Context) (int64, error) { return c.peers.ids.Add(1), nil }

// startCluster starts a broker with n logs; it ends with the test.
func startCluster(t testing.TB, n int, conf Config) *cluster {
	t.Helper()
	return startBrokers(t, 1, n, conf)[0]
}

// startBrokers starts brokers 1 to n of one cluster, in this order, each with as many logs; they end with the test.
func startBrokers(t testing.TB, n, logs int, conf Config) []*cluster {
	t.Helper()
	return startBrokersOn(t, n, logs, conf, nil)
}

// startBrokersOn is startBrokers on a map that is reached through kv; nil: the real one. Before a broker starts it is given to each.
func startBrokersOn(t testing.TB, n, logs int, conf Config, kv clientv3.KV, each ...func(*cluster)) []*cluster {
	t.Helper()
	client := etcd.Client()
	if kv != nil {
		client = clientv3.NewCtxClient(context.Background())
		client.KV, client.Lease, client.Watcher = kv, etcd.Client().Lease, etcd.Client().Watcher
	}
	prefix, peers := fmt.Sprintf("/test%d", prefixes.Add(1)), newTestPeers()
	t.Cleanup(peers.close)
	var shared *controller.Controller
	if n > 1 {
		shared = startController(t)
	}
	all := make([]*cluster, n)
	for i := range all {
		c := &cluster{t: t, id: ident.Broker(i + 1), peers: peers, prefix: prefix, conf: conf, shared: shared, etcd: client}
		for range logs {
			c.dirs = append(c.dirs, t.TempDir())
		}
		for _, f := range each {
			f(c)
		}
		c.start()
		t.Cleanup(func() {
			if c.stop != nil {
				if err := c.stop(); err != nil {
					t.Errorf("stop broker: %v", err)
				}
			}
		})
		all[i] = c
	}
	for _, c := range all {
		c.all = all
		c.await(func(m *queuemapper.Map) bool { return allOpen(m, all) })
	}
	return all
}

// allOpen reports whether a map knows some brokers, and every log of theirs as begun: each broker's comes to know what the others did in
// its own time.
func allOpen(m *queuemapper.Map, of []*cluster) bool {
	for _, c := range of {
		if r := m.Broker(c.id); r == nil || r.Incarnation != c.b.cfg.Incarnation {
			return false
		}
		for _, l := range c.b.hosted {
			if known := m.Log(l.id); known == nil || known.State != queuemapper.LogOpen || known.Epoch != l.epoch || known.Begun != l.epoch {
				return false
			}
		}
	}
	return true
}

// hasty is for startBrokersOn.
func hasty(c *cluster) { c.hasty = true }

// startController starts the replicated state of several brokers; it ends with the test.
func startController(t testing.TB) *controller.Controller {
	ctl, err := controller.Open(controller.Config{Dir: t.TempDir(), ID: 1})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- ctl.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := ignoreCanceled(<-ended); err != nil {
			t.Errorf("controller: %v", err)
		}
	})
	return ctl
}

// start starts the broker on what its directories hold, and returns when those that live know.
func (c *cluster) start() {
	c.t.Helper()
	c.startAt("127.0.0.1:0")
}

// startAt is start at a given address.
func (c *cluster) startAt(addr string) {
	c.t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	logger := slog.New(slog.NewTextHandler(c.t.Output(), &slog.HandlerOptions{Level: slog.LevelWarn}))
	store, err := queuemapper.Open(ctx, queuemapper.Config{Client: c.etcd, Prefix: c.prefix, Groups: 8, Logger: logger}, "")
	if err != nil {
		c.t.Fatal(err)
	}
	back, stopBack := context.WithCancel(context.Background())
	var g errgroup.Group
	g.Go(func() error { return ignoreCanceled(store.Run(back)) })
	if c.fs == nil {
		c.fs = withRoom(1 << 40)
	}
	c.logs = nil
	for _, dir := range c.dirs {
		l, err := commitlog.Open(ctx, commitlog.Config{
			Dir: filepath.Join(dir, "log"), ClusterID: store.Map().Cluster().ID, FileSize: 32 << 20, CacheBytes: 32 << 20, Logger: logger, FS: c.fs,
		})
		if err != nil {
			c.t.Fatal(err)
		}
		c.logs = append(c.logs, l)
		g.Go(func() error { return ignoreCanceled(l.Run(back)) })
	}
	ctl := c.shared
	if ctl == nil {
		if ctl, err = controller.Open(controller.Config{Dir: filepath.Join(c.dirs[0], "raft"), ID: 1, Logger: logger}); err != nil {
			c.t.Fatal(err)
		}
		g.Go(func() error { return ignoreCanceled(ctl.Run(back)) })
	}
	ln, err := net.Listen("tcp", addr)
	for end := time.Now().Add(enough); errors.Is(err, syscall.EADDRINUSE) && time.Now().Before(end); { // by a connection that was made meanwhile
		time.Sleep(10 * time.Millisecond)
		ln, err = net.Listen("tcp", addr)
	}
	if err != nil {
		c.t.Fatal(err)
	}
	conf := c.conf
	if !c.hasty {
		conf.Patience = enough
	}
	conf.ID, conf.Incarnation, conf.Listener, conf.Peers = c.id, time.Now().UnixNano(), ln, c.peers
	conf.Host, conf.Port = "127.0.0.1", int32(ln.Addr().(*net.TCPAddr).Port)
	conf.Controller = ctl
	conf.Store, conf.Logs, conf.ProducerIDs = store, c.logs, c
	if conf.Logger == nil {
		conf.Logger = logger
	}
	if conf.Registerer == nil {
		conf.Registerer = prometheus.NewRegistry()
	}
	if c.b, err = New(conf); err != nil {
		c.t.Fatal(err)
	}
	c.addr = ln.Addr().String()
	stopPeer := c.peers.serve(c.id, c.b)
	ended := make(chan struct{})
	c.ended = ended
	go func() {
		c.runErr = c.b.Run(ctx)
		close(ended)
	}()
	select {
	case <-c.b.Ready():
	case <-ended:
		c.t.Fatalf("broker ended: %v", c.runErr)
	}
	logs := c.logs
	c.stop = func() error {
		stopPeer()
		cancel()
		<-ended
		stopBack()
		err := errors.Join(c.runErr, g.Wait())
		for _, l := range logs {
			err = errors.Join(err, l.Close())
		}
		c.stop = nil
		return err
	}
	c.known()
}

// known waits until all brokers that live know that this one does.
func (c *cluster) known() {
	c.t.Helper()
	for _, other := range c.all {
		if other.lives() {
			other.await(func(m *queuemapper.Map) bool { return allOpen(m, []*cluster{c}) })
		}
	}
}

// crash ends the broker as a failover does: it moves nothing away, and its directories can be used again.
func (c *cluster) crash() {
	c.t.Helper()
	for _, l := range c.logs {
		l.Fence(errors.New("the test says so"))
	}
	<-c.ended
	if !errors.Is(c.runErr, ErrFenced) {
		c.t.Errorf("the broker ended with %v", c.runErr)
	}
	_ = c.stop() // says the same once more
}

func ignoreCanceled(err error) error {
	if errors.Is(err, context.Canceled) {
		return nil
	}
	return err
}

// client returns a franz-go client of the cluster.
func (c *cluster) client(opts ...kgo.Opt) *kgo.Client {
	c.t.Helper()
	cl, err := kgo.NewClient(append([]kgo.Opt{kgo.SeedBrokers(c.addr), kgo.AllowAutoTopicCreation()}, opts...)...)
	if err != nil {
		c.t.Fatal(err)
	}
	c.t.Cleanup(cl.Close)
	return cl
}
