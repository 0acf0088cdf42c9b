// Package broker is the server: connections, dispatch, one NN_name.go per Kafka API,
// groups and retention. It decides policy; the log, the map and the replicated state are
// mechanisms that it is handed.
//
// It promises Kafka's behaviour on the wire, bounded memory whatever a client sends, and
// that an acknowledgement is sent only for what the log committed.
package broker

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/skeinmq/skein/broker/coordinator"
	"github.com/skeinmq/skein/broker/host"
	"github.com/skeinmq/skein/broker/runs"
	"github.com/skeinmq/skein/commitlog"
	"github.com/skeinmq/skein/internal/ident"
	"github.com/skeinmq/skein/internal/kconfig"
	"github.com/skeinmq/skein/internal/peer/peerpb"
	"github.com/skeinmq/skein/queuemapper"
)

// ErrFenced ends Run when the broker may own nothing any more under its incarnation: a log of its was sealed or
// adopted. The process goes on: it closes the logs, opens them again, and makes a new broker with a new incarnation.
var ErrFenced = errors.New("broker is fenced")

// Config configures a broker. The zero value of an optional field means its default.
type Config struct {
	ID          ident.Broker
	Incarnation int64 // of the map's store: greater at every start
	Rack        string
	Founders    []ident.Broker // that form the cluster together; host.Config has more
	Listener    net.Listener   // Kafka protocol; the broker closes it
	Internal    string         // host:port of the internal listener as others reach it, "" if there is none
	Host        string         // advertised
	Port        int32          // advertised

	Store *queuemapper.Store
	// ProducerIDs serves InitProducerId.
	ProducerIDs ProducerIDs
	// Controller holds what group coordinators promise; nil: COORDINATOR_NOT_AVAILABLE to every group.
	Controller coordinator.Store
	// Logs are open for recovery only (Open has returned, Run is going): the broker reopens
	// them through the map and begins them.
	Logs []*commitlog.Log
	// Peers connects to the other brokers' internal listeners; nil: there are none.
	Peers runs.Conns
	// Witnesses of each log, by its place in Logs; missing or nil: the log never has witnesses.
	Witnesses []host.Witnesses
	// Unwitnessed says what becomes of groups whose log is in none of the directories; default UnwitnessedWait.
	// UnwitnessedGap is for callers who know that no other process can be this broker.
	Unwitnessed Unwitnessed
	// ReserveOffsets is how many offsets are reserved at a time above a group's highest end; default 2^24.
	ReserveOffsets int64

	// GiveUp asks the active controller to open this broker's groups elsewhere at once; nil: there is nobody to ask.
	GiveUp func(ctx context.Context) error
	// ReportChanged is told that what Draining says has changed; optional.
	ReportChanged func()

	// Leaderless reports that no active controller is known: nobody takes brokers out of the map that have died; nil: never.
	Leaderless func() bool
	// Silent lists those of the brokers that do not answer within a second; nil: none.
	Silent func(ctx context.Context, who []ident.Broker) []ident.Broker

	// Static are the broker's own configs by Kafka name, from the config file, flags and environment.
	Static map[string]string

	MemoryBytes    int64 // budget for requests and responses in flight; default 512 MiB
	MaxConnections int   // default 20,000
	DrainTimeout   time.Duration
	// ThrottleMost is the longest that a producer's connection is not read at a time while the disk runs full; default 1 s.
	ThrottleMost time.Duration
	// Patience is how long answers and planned moves wait for other brokers at least, before they go on without them or are given up.
	// 0 is right for clients. Tests that judge what holds when the answer comes give more: not every machine is quick.
	Patience time.Duration

	Logger     *slog.Logger
	Registerer prometheus.Registerer
}

// ProducerIDs hands out producer ids that no other caller ever gets (blocks of them come from the controller).
type ProducerIDs interface {
	NextProducerID(ctx context.Context) (int64, error)
}

// Broker serves Kafka clients.
type Broker struct {
	cfg   Config // immutable after New, with defaults
	log   *slog.Logger
	store *queuemapper.Store
	ids   ProducerIDs
	rows  *[maxKey + 1]handler // the dispatch table; through a field, as rows refer to methods that read it

	memory memory // of requests
	// answers is the bytes of records that are being sent. They have a budget of their own, so that clients that do not read
	// what they asked for keep nobody from writing; beyond it a fetch is answered with one batch.
	answers      atomic.Int64
	answersLimit int64
	server       *server
	sessions     *sessions
	told         atomic.Int64 // entries of all connections' told
	muted        atomic.Int64 // connections that are not read for now
	marks        ownersMarks
	lost         lostRanges
	metrics      *metrics

	// Limits that hold from the start on.
	maxRequest    int32
	fetchMaxBytes int
	idleTimeout   time.Duration
	maxDescribed  int // a test sets it lower

	current atomic.Pointer[kconfig.BrokerConfig] // configs in force
	gone    gone

	groups *coordinator.Coordinator

	remote *runs.Client // runs in other brokers' logs
	reads  *runs.Server // runs in ours, for other brokers

	reassigns reassignments
	endpoints endpoints
	table     table
	hosted    map[ident.Log]*hostedLog // set by start-up, before the table; immutable then

	leaving atomic.Bool // Run was told to end
	full    atomic.Bool // the disk is nearly full, as the registration says
	signing sync.Mutex  // held while the registration is written
	loads   loads

	host  *host.Host
	taken atomic.Bool // hosted is complete
	// life ends with Run: for what must outlive the request that began it.
	life    context.Context
	endLife context.CancelFunc
	given   sync.WaitGroup // moves that a broker that ends does not wait for

	ready chan struct{}
}

// New checks cfg (all problems in one error) and prepares a broker.
func New(cfg Config) (*Broker, error) {
	if err := cfg.validate(); err != nil {
		return nil, err
	}
	cfg = cfg.withDefaults()
	b := &Broker{
		cfg: cfg, log: cfg.Logger, store: cfg.Store, ids: cfg.ProducerIDs, rows: &handlers,
		hosted: make(map[ident.Log]*hostedLog), ready: make(chan struct{}), maxDescribed: maxDescribed,
	}
	b.life, b.endLife = context.WithCancel(context.Background())
	b.table.init()
	b.host = b.newHost()
	b.loads.init(b.store.Map().Cluster().Groups, time.Now())
	conf := kconfig.Layers{Static: cfg.Static}.BrokerConfig()
	b.current.Store(&conf)
	b.maxRequest, b.fetchMaxBytes, b.idleTimeout = conf.SocketRequestMaxBytes, int(conf.FetchMaxBytes), conf.ConnectionsMaxIdle
	if b.idleTimeout <= 0 {
		b.idleTimeout = math.MaxInt64 / 4
	}
	b.cfg.MaxConnections = min(cfg.MaxConnections, int(conf.MaxConnections))
	if conf.QueuedMaxRequestBytes > 0 { // as in Kafka, 0 is no limit of the operator's
		cfg.MemoryBytes = conf.QueuedMaxRequestBytes
	}
	b.memory.limit = max(cfg.MemoryBytes/2, int64(b.maxRequest)) // any request that is allowed must fit
	b.answersLimit = cfg.MemoryBytes / 2
	b.remote = runs.NewClient(runs.Config{
		Conns: cfg.Peers, AheadBytes: min(b.answersLimit/4, aheadMost), Logger: cfg.Logger, Registerer: cfg.Registerer,
	})
	b.reads = runs.NewServer(b.openHere, b.ownMarks)
	b.gone.wake = make(chan struct{}, 1)
	b.reassigns.ended = make(chan struct{}, 1)
	b.server = &server{b: b, conns: make(map[*conn]struct{})}
	b.sessions = newSessions(int(conf.FetchSessionSlots))
	b.metrics = newMetrics(cfg.Registerer, b)
	b.groups = b.newCoordinator(&conf)
	return b, nil
}

func (c Config) validate() error {
	var errs []error
	if c.Listener == nil {
		errs = append(errs, errors.New("check broker config: no listener"))
	}
	if c.Store == nil {
		errs = append(errs, errors.New("check broker config: no map store"))
	}
	if len(c.Logs) == 0 {
		errs = append(errs, errors.New("check broker config: no log"))
	}
	if c.Unwitnessed != "" && c.Unwitnessed != UnwitnessedGap && c.Unwitnessed != UnwitnessedWait {
		errs = append(errs, fmt.Errorf("check broker config: failover.unwitnessed %q: want gap or wait", c.Unwitnessed))
	}
	if c.ReserveOffsets < 0 {
		errs = append(errs, errors.New("check broker config: reserved offsets are negative"))
	}
	if c.MemoryBytes < 0 {
		errs = append(errs, errors.New("check broker config: memory budget is negative"))
	}
	return errors.Join(errs...)
}

func (c Config) withDefaults() Config {
	if c.MemoryBytes == 0 {
		c.MemoryBytes = 512 << 20
	}
	if c.Unwitnessed == "" {
		c.Unwitnessed = UnwitnessedWait
	}
	if c.ReserveOffsets == 0 {
		c.ReserveOffsets = int64(host.ReserveDefault)
	}
	if c.MaxConnections == 0 {
		c.MaxConnections = 20_000
	}
	if c.DrainTimeout == 0 {
		c.DrainTimeout = 10 * time.Second
	}
	if c.ThrottleMost == 0 {
		c.ThrottleMost = throttleMost
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	return c
}

// Ready is closed when the broker serves.
func (b *Broker) Ready() <-chan struct{} { return b.ready }

// aheadMost bounds what is read ahead in other brokers' logs.
const aheadMost = 64 << 20

// Owner is what this broker does for others as the host of its logs: prepare, move, act on the map, say what is hot. It may be
// served from New on.
func (b *Broker) Owner() peerpb.OwnerServer { return owner{host.NewService(b.host), b} }

// Reads serves the runs in this broker's logs to the owners of their partitions, once the broker is ready.
func (b *Broker) Reads() peerpb.ReadsServer { return b.reads }

// openHere finds a log of this broker that is in service.
func (b *Broker) openHere(id ident.Log) *commitlog.Log {
	select {
	case <-b.ready:
	default:
		return nil // start-up still fills the list
	}
	if h := b.hosted[id]; h != nil {
		return h.log
	}
	return nil
}
