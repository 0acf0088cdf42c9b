// Package embedded runs one etcd server inside this process: the map store of a cluster
// that has no etcd of its own. A single member needs no port: its client calls it directly.
// Several members reach each other, and clients reach them, through listeners that the caller
// serves. Writes are fsynced before they are answered.
// It refuses to know what is stored in it.
package embedded

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"go.etcd.io/etcd/client/pkg/v3/types"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/server/v3/config"
	"go.etcd.io/etcd/server/v3/etcdserver"
	"go.etcd.io/etcd/server/v3/etcdserver/api/etcdhttp"
	"go.etcd.io/etcd/server/v3/etcdserver/api/v3client"
	"go.etcd.io/etcd/server/v3/etcdserver/api/v3compactor"
	"go.etcd.io/etcd/server/v3/features"
	"go.etcd.io/etcd/server/v3/storage/wal"
	"google.golang.org/grpc"
)

const (
	// tick and election (50 ms) are short: they make a restart ready in tens of milliseconds
	// instead of a second, and a single member has nobody to lose an election to.
	tickMs        = 10
	electionTicks = 5

	// With other members a stall of the leader, its disk or the scheduler must not cost an election; a dead leader is
	// noticed after one to two times 800 ms, or at once by LeaderGone (ADR 12 has the measurements).
	peerTickMs        = 40
	peerElectionTicks = 20

	// walSegment is preallocated twice per server; etcd's own 64 MB would make every
	// fresh one-broker cluster take 128 MB of disk.
	walSegment = 8 << 20

	// QuotaDefault is etcd's own recommended one, in bytes; the map of 100,000 partitions takes tens of MiB. Below
	// QuotaLeast nothing would be left beside what a fresh map takes.
	QuotaDefault = 2 << 30
	QuotaLeast   = 8 << 20

	maxTxnOps       = 4096
	maxRequestBytes = 8 << 20

	// MaxOps and MaxBytes are what a map store on this server may be configured with: of operations per
	// transaction, and of bytes of their values, which leaves room for keys and compares.
	MaxOps   = maxTxnOps
	MaxBytes = maxRequestBytes - 2<<20

	// MaxMessage is what a client of another process must be allowed to send (clientv3.Config.MaxCallSendMsgSize, 2 MiB
	// by itself) for such a transaction.
	MaxMessage = maxRequestBytes + 512<<10

	// keepRevisions is what compaction leaves for watchers that fell behind. One that
	// falls further behind reads the whole map again.
	keepRevisions = 1000

	// snapshotCount bounds the raft log in memory: an entry can hold a whole transaction.
	snapshotCount = 2000
	catchUp       = 100
)

// peerURL names the member to itself. Nothing listens there.
const peerURL = "http://127.0.0.1:2380"

// Config configures a Server.
type Config struct {
	Dir    string       // data directory, made when absent; owned by this server alone
	Name   string       // member name, default "skein"
	Logger *slog.Logger // gets etcd's warnings and errors; nil: slog.Default()
	// Listen is a host:port to serve other processes on (gRPC, no TLS); "" for none.
	Listen string
	// Peers is for a member of several; nil: a single one.
	Peers *Peers
	// Quota is the size in bytes that the database may have, default QuotaDefault. At three quarters of it old values are
	// forgotten at once; beyond it writes are refused until there is room.
	Quota int64
	// NoFsync is for tests that do not restart: it loses data when the machine stops.
	NoFsync bool
}

func (c Config) withDefaults() Config {
	if c.Name == "" {
		c.Name = "skein"
	}
	if c.Logger == nil {
		c.Logger = slog.Default()
	}
	if c.Quota == 0 {
		c.Quota = QuotaDefault
	}
	return c
}

// Server is a running etcd server.
type Server struct {
	cfg    Config
	etcd   *etcdserver.EtcdServer
	client *clientv3.Client

	listener net.Listener // nil: no port
	grpc     *grpc.Server
	serving  sync.WaitGroup
	close    sync.Once
	closing  *atomic.Bool // set before the server is stopped
	failure  *failure

	elsewhere atomic.Bool // see Elsewhere

	spacing   sync.WaitGroup // keepSpace
	stopSpace context.CancelFunc
}

// ErrStopped: the server stopped by itself while it started: the others have removed it, or its files are damaged.
var ErrStopped = errors.New("server stopped")

// walOnce guards a variable of etcd's wal package that is read by every server.
var walOnce sync.Once

// Start starts the server and returns once it answers writes, or when ctx ends.
func Start(ctx context.Context, cfg Config) (srv *Server, err error) {
	cfg = cfg.withDefaults()
	if cfg.Dir == "" {
		return nil, errors.New("start embedded etcd: no directory")
	}
	if err := os.MkdirAll(cfg.Dir, 0o700); err != nil {
		return nil, fmt.Errorf("start embedded etcd: %w", err)
	}
	if err := os.Chmod(cfg.Dir, 0o700); err != nil { // it was made by somebody with another mask
		return nil, fmt.Errorf("start embedded etcd: %w", err)
	}
	walOnce.Do(func() { wal.SegmentSizeBytes = walSegment })

	// etcd panics on damaged files; at a start that is an answer for the operator, not a crash.
	defer func() {
		if p := recover(); p != nil {
			srv, err = nil, fmt.Errorf("start embedded etcd in %s: %v", cfg.Dir, p)
		}
	}()
	closing, failure := new(atomic.Bool), newFailure()
	sc, err := serverConfig(cfg, closing, failure)
	if err != nil {
		return nil, fmt.Errorf("start embedded etcd: %w", err)
	}
	etcd, err := etcdserver.NewServer(sc)
	if err != nil {
		return nil, fmt.Errorf("start embedded etcd in %s: %w", cfg.Dir, err)
	}
	space, stopSpace := context.WithCancel(context.Background())
	srv = &Server{cfg: cfg, etcd: etcd, closing: closing, failure: failure, stopSpace: stopSpace}
	failure.live.Store(true)
	etcd.Start()
	srv.client = v3client.New(etcd)
	if cfg.Peers != nil {
		cfg.Peers.Handle(etcdhttp.NewPeerHandler(sc.Logger, etcd))
	}
	select {
	case <-etcd.ReadyNotify():
	case <-etcd.StopNotify():
		srv.Close()
		return nil, fmt.Errorf("start embedded etcd in %s: %w", cfg.Dir, ErrStopped)
	case <-srv.Failed():
		srv.Close()
		return nil, fmt.Errorf("start embedded etcd in %s: %w", cfg.Dir, srv.Failure())
	case <-ctx.Done():
		srv.Close()
		return nil, fmt.Errorf("start embedded etcd in %s: %w", cfg.Dir, context.Cause(ctx))
	}
	srv.spacing.Go(func() { srv.keepSpace(space) })
	if cfg.Listen != "" {
		if err := srv.listen(cfg.Listen); err != nil {
			srv.Close()
			return nil, fmt.Errorf("start embedded etcd: %w", err)
		}
	}
	return srv, nil
}

func serverConfig(cfg Config, closing *atomic.Bool, failure *failure) (config.ServerConfig, error) {
	urls, err := types.NewURLs([]string{peerURL})
	if err != nil {
		return config.ServerConfig{}, err
	}
	lg := zapTo(cfg.Logger, closing, failure)
	sc := config.ServerConfig{
		Name:                              cfg.Name,
		DataDir:                           filepath.Clean(cfg.Dir),
		ClientURLs:                        urls,
		PeerURLs:                          urls,
		InitialPeerURLsMap:                types.URLsMap{cfg.Name: urls},
		InitialClusterToken:               "skein",
		NewCluster:                        true, // only looked at when there is no WAL
		TickMs:                            tickMs,
		ElectionTicks:                     electionTicks,
		InitialElectionTickAdvance:        true,
		SnapshotCount:                     snapshotCount,
		SnapshotCatchUpEntries:            catchUp,
		MaxSnapFiles:                      2,
		MaxWALFiles:                       2,
		BackendBatchInterval:              100 * time.Millisecond,
		BackendBatchLimit:                 10000,
		QuotaBackendBytes:                 cfg.Quota,
		MaxTxnOps:                         maxTxnOps,
		MaxRequestBytes:                   maxRequestBytes,
		MaxConcurrentStreams:              1000,
		AutoCompactionMode:                v3compactor.ModeRevision,
		AutoCompactionRetention:           keepRevisions,
		CompactHashCheckTime:              time.Minute,
		BootstrapDefragThresholdMegabytes: 64,
		WarningApplyDuration:              time.Second,
		WarningUnaryRequestDuration:       2 * time.Second,
		WatchProgressNotifyInterval:       10 * time.Minute,
		DowngradeCheckTime:                5 * time.Second,
		StrictReconfigCheck:               true,
		PreVote:                           true,
		AuthToken:                         "simple",
		BcryptCost:                        10,
		TokenTTL:                          300,
		MaxLearners:                       1,
		Logger:                            lg,
		UnsafeNoFsync:                     cfg.NoFsync,
		V2Deprecation:                     config.V2DeprDefault,
		ServerFeatureGate:                 features.NewDefaultServerFeatureGate(cfg.Name, lg),
		Metrics:                           "basic",
	}
	if cfg.Peers != nil {
		err = cfg.Peers.apply(&sc)
	}
	return sc, err
}

// listen serves other processes.
func (s *Server) listen(addr string) error {
	ln, err := net.Listen("tcp", addr)
	if err != nil {
		return err
	}
	s.listener = ln
	s.ServeClients(ln)
	return nil
}

// Client returns the in-process client, for a single member. With other members it is good for questions about this one only:
// without a leader it waits longer than those that ServeClients serves. It belongs to the server: Close closes it.
func (s *Server) Client() *clientv3.Client { return s.client }

// Addr is the address that Listen got, "" if there is none.
func (s *Server) Addr() string {
	if s.listener == nil {
		return ""
	}
	return s.listener.Addr().String()
}

// Stopped is closed when the server has stopped, by Close or by a fault of its own.
func (s *Server) Stopped() <-chan struct{} { return s.etcd.StopNotify() }

// Close stops the server. One that failed, or fails now, is left alone: it holds its own locks.
func (s *Server) Close() error {
	var err error
	s.close.Do(func() {
		s.closing.Store(true)
		s.stopSpace()
		stopped := make(chan error, 1)
		go func() { stopped <- s.stop() }()
		select {
		case err = <-stopped:
		case <-s.Failed():
			s.hidePeers()
		}
	})
	return err
}

// stop ends client and server. The client goes first: an open watch would hold the server up.
func (s *Server) stop() error {
	err := s.client.Close()
	if errors.Is(err, context.Canceled) { // the in-process client says so of itself
		err = nil
	}
	if s.grpc != nil {
		s.grpc.Stop()
		s.serving.Wait()
	}
	s.hidePeers()
	s.spacing.Wait() // the database stays until it is out of it
	s.etcd.HardStop()
	return err
}

// hidePeers takes the handler of the other members' requests away.
func (s *Server) hidePeers() {
	if s.cfg.Peers != nil {
		s.cfg.Peers.Handle(nil)
	}
}
