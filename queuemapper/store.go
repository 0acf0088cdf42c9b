package queuemapper

import (
	"context"
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/skeinmq/skein/internal/ident"
)

// Config configures a Store.
type Config struct {
	Client *clientv3.Client
	Prefix string // default "/skein"; tests share one etcd
	// Groups is the number of placement groups that Format writes; default 64.
	Groups     int
	Logger     *slog.Logger
	Registerer prometheus.Registerer
	// Timeout bounds each request to etcd, whatever the caller's context allows; default 5 s.
	Timeout time.Duration
	// LeaseTTL is how long a registration outlives its broker; default 5 s, etcd rounds up
	// to whole seconds.
	LeaseTTL time.Duration
	// Pause waits between two tries of a write whose answer was lost: context.Cause of ctx when that ended first. Nil:
	// a timer. Rand makes ids and nonces; nil: crypto/rand. A simulation gives both.
	Pause func(ctx context.Context, d time.Duration) error
	Rand  io.Reader

	// MaxOps and MaxBytes bound what is published in one transaction: compares or operations, and bytes of
	// values. The defaults, 128 and 1 MiB, are what any etcd server takes; package embedded takes more.
	MaxOps, MaxBytes int
}

func (c Config) withDefaults() Config {
	if c.Prefix == "" {
		c.Prefix = "/skein"
	}
	if c.Groups == 0 {
		c.Groups = 64
	}
	if c.Logger == nil {
		c.Logger = slog.Default()
	}
	if c.Timeout == 0 {
		c.Timeout = 5 * time.Second
	}
	if c.LeaseTTL == 0 {
		c.LeaseTTL = 5 * time.Second
	}
	if c.Pause == nil {
		c.Pause = pause
	}
	if c.Rand == nil {
		c.Rand = rand.Reader
	}
	if c.MaxOps == 0 {
		c.MaxOps = maxOps
	}
	if c.MaxBytes == 0 {
		c.MaxBytes = maxBytes
	}
	return c
}

func pause(ctx context.Context, d time.Duration) error {
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-time.After(d):
		return nil
	}
}

// Validate names everything that is wrong.
func (c Config) Validate() error {
	var errs []error
	if c.Client == nil {
		errs = append(errs, errors.New("map store: no etcd client"))
	}
	if c.Groups < 0 || c.Groups > maxGroups {
		errs = append(errs, fmt.Errorf("map store: groups %d: want 1 to %d", c.Groups, maxGroups))
	}
	if c.MaxOps < 0 || c.MaxOps > 0 && c.MaxOps < 16 || c.MaxBytes < 0 {
		errs = append(errs, fmt.Errorf("map store: limits of %d operations, %d bytes: want at least 16, 1", c.MaxOps, c.MaxBytes))
	}
	if c.Prefix != "" && (c.Prefix[0] != '/' || c.Prefix[len(c.Prefix)-1] == '/') {
		errs = append(errs, fmt.Errorf("map store: prefix %q: want a leading and no trailing slash", c.Prefix))
	}
	return errors.Join(errs...)
}

// Store keeps the map in etcd. All writes return once the local snapshot has their effect.
// Its methods may be called by any goroutine.
type Store struct {
	cfg     Config
	client  *clientv3.Client
	log     *slog.Logger
	metrics *metrics

	current atomic.Pointer[Map]
	install sync.Mutex // serialises replacing current

	// running is what Run's watch holds up while it is at work, nil otherwise.
	running atomic.Pointer[runner]

	// doubt is set by a failure and makes the next write ask for a sign of life first, so
	// that an outage is ErrUnavailable and not ErrUnknown, which costs callers more.
	doubt atomic.Bool

	registration registration
}

// runner is one call of Run.
type runner struct{ stopped chan struct{} }

// format is the version of the layout of keys, in the cluster's record.
const format = 1

// Open reads the whole map. On an empty store it formats: cluster record and empty groups.
// expect is the cluster id that the caller's disks carry, "" if none; another one is refused.
func Open(ctx context.Context, cfg Config, expect string) (*Store, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	cfg = cfg.withDefaults()
	s := &Store{cfg: cfg, client: cfg.Client, log: cfg.Logger, metrics: newMetrics(cfg.Registerer)}
	s.registration.changed = make(chan struct{}, 1)
	s.current.Store(newMap())
	if err := s.reload(ctx); err != nil {
		return nil, fmt.Errorf("open map: %w", err)
	}
	if s.Map().cluster.ID == "" {
		if expect != "" {
			return nil, fmt.Errorf("open map: %w: it is empty, the disks carry cluster id %s", ErrCluster, expect)
		}
		if err := s.format(ctx); err != nil {
			return nil, fmt.Errorf("format map: %w", err)
		}
	}
	c := s.Map().cluster
	if expect != "" && c.ID != expect {
		return nil, fmt.Errorf("open map: %w: it has cluster id %s, the disks carry %s", ErrCluster, c.ID, expect)
	}
	if c.Format > format {
		return nil, fmt.Errorf("open map: %w: cluster has format %d, newest known %d", ErrVersion, c.Format, format)
	}
	return s, nil
}

// format writes the groups and then, last, the cluster's record: a store without one is
// formatted again. Of two that format at once the first to write the record wins.
func (s *Store) format(ctx context.Context) error {
	for from := 0; from < s.cfg.Groups; from += maxOps {
		var missing []string
		for i := from; i < min(from+maxOps, s.cfg.Groups); i++ {
			missing = append(missing, keyGroup(ident.Group(i)))
		}
		if err := s.formatGroups(ctx, missing); err != nil {
			return err
		}
	}
	var id [16]byte
	if _, err := io.ReadFull(s.cfg.Rand, id[:]); err != nil {
		return err
	}
	c := Cluster{ID: base64.RawURLEncoding.EncodeToString(id[:]), Format: format, Groups: s.cfg.Groups}
	if _, _, err := s.settle(ctx, "format", []clientv3.Cmp{s.unchanged(keyCluster, 0)},
		[]clientv3.Op{s.put(keyCluster, encodeCluster(c))}, nil); err != nil {
		return err
	}
	return s.reload(ctx)
}

// formatGroups writes those of the keys that are not there. Brokers that start together do it together.
func (s *Store) formatGroups(ctx context.Context, missing []string) error {
	empty := encodeGroup(&Group{})
	for len(missing) > 0 {
		var cmps []clientv3.Cmp
		var puts, looks []clientv3.Op
		for _, key := range missing {
			cmps = append(cmps, s.unchanged(key, 0))
			puts = append(puts, s.put(key, empty))
			looks = append(looks, clientv3.OpGet(s.key(key), clientv3.WithKeysOnly()))
		}
		resp, _, err := s.settle(ctx, "format", cmps, puts, looks)
		if err != nil || resp.Succeeded {
			return err
		}
		var left []string
		for i, r := range resp.Responses {
			if len(r.GetResponseRange().GetKvs()) == 0 {
				left = append(left, missing[i])
			}
		}
		missing = left
	}
	return nil
}

// Map returns the newest snapshot: one atomic load.
func (s *Store) Map() *Map { return s.current.Load() }

// Watch returns a channel that is closed when a snapshot newer than m is there.
func (s *Store) Watch(m *Map) <-chan struct{} {
	if m == nil || m.next == nil {
		return closed
	}
	return m.next
}

var closed = func() chan struct{} { c := make(chan struct{}); close(c); return c }()

func (s *Store) key(relative string) string { return s.cfg.Prefix + relative }

func (s *Store) put(key string, value []byte) clientv3.Op {
	return clientv3.OpPut(s.key(key), string(s.withNext(value)))
}

// unchanged compares that a key still has the revision at which it was read.
func (s *Store) unchanged(key string, revision int64) clientv3.Cmp {
	return clientv3.Compare(clientv3.ModRevision(s.key(key)), "=", revision)
}
