package queuemapper

import (
	"context"
	"log/slog"

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
}

// Store keeps the map in etcd. All writes return once the local snapshot has their effect.
type Store struct{}

// Open reads the whole map. On an empty store it formats: cluster record and empty groups.
// expect is the cluster id that the caller's disks carry, "" if none; another one is refused.
func Open(ctx context.Context, cfg Config, expect string) (*Store, error) { panic("queuemapper") }

// Run keeps the snapshot fresh until ctx ends.
func (s *Store) Run(ctx context.Context) error { panic("queuemapper") }

// Map returns the newest snapshot: one atomic load.
func (s *Store) Map() *Map { panic("queuemapper") }

// Watch returns a channel that is closed when a snapshot newer than m is there.
func (s *Store) Watch(m *Map) <-chan struct{} { panic("queuemapper") }

// NewTopic asks for a topic.
type NewTopic struct {
	Name              string
	ID                ident.Topic // zero: a random one
	ReplicationFactor int16
	Configs           map[string]string
	// Placements gives each partition its group; its length is the partition count.
	Placements []ident.Group
}

// CreateTopic writes a new topic. ErrExists if the name is taken.
func (s *Store) CreateTopic(ctx context.Context, t NewTopic) (*Topic, error) { panic("queuemapper") }

// DeleteTopic removes a topic, comparing its id.
func (s *Store) DeleteTopic(ctx context.Context, name string, id ident.Topic) error {
	panic("queuemapper")
}

// AddPartitions appends partitions, comparing the topic's revision with the caller's.
func (s *Store) AddPartitions(ctx context.Context, t *Topic, placements []ident.Group) (*Topic, error) {
	panic("queuemapper")
}

// SetTopicConfigs replaces a topic's configs, comparing its revision with the caller's.
func (s *Store) SetTopicConfigs(ctx context.Context, t *Topic, configs map[string]string) (*Topic, error) {
	panic("queuemapper")
}

// SetDynamic changes an entity's dynamic configs with fn, which may be called again after a
// conflict. An empty result removes the key.
func (s *Store) SetDynamic(ctx context.Context, kind, name string, fn func(map[string]string) (map[string]string, error)) error {
	panic("queuemapper")
}

// PlaceNew chooses groups for n new partitions of a topic: spread over the open logs, then
// over the groups with the fewest partitions. Pure; see place.go.
func (m *Map) PlaceNew(topic ident.Topic, first, n int32) []ident.Group { panic("queuemapper") }

// RegisterBroker writes a broker's registration under a lease that Run keeps alive.
func (s *Store) RegisterBroker(ctx context.Context, b Broker) error { panic("queuemapper") }

// ReopenLog is the one way to open a log (O15, O17): it registers a new log at epoch 1, or
// moves OPEN(e) or SEALED(e) to OPEN(e+1) with the given host and witness set, comparing the
// record's revision. disk is the newest epoch that the disk has begun; a record further
// ahead than disk+1, or behind disk, is refused with an error that says so.
func (s *Store) ReopenLog(ctx context.Context, id ident.Log, host ident.Broker, disk ident.LogEpoch, witnesses []Witness) (*Log, error) {
	panic("queuemapper")
}

// SealLog moves a log OPEN(e) → SEALED(e), comparing the revision (O9).
func (s *Store) SealLog(ctx context.Context, l *Log) (*Log, error) { panic("queuemapper") }

// Publication seals a group's open generation and opens the next one (O13), in one transaction
// with others of the same call (split as etcd's limits demand, each whole).
type Publication struct {
	Group *Group // as the caller read it; its revision is compared
	// Source is the log of the generation that ends: OPEN at the mover's epoch (a planned move)
	// or SEALED at the table's epoch (a controller). Nil for a group's first generation.
	Source *Log
	// Target is the log of the generation that begins: OPEN at the epoch in which it prepared.
	Target *Log
	Frame  ident.Frame
	Epoch  ident.Epoch // greater than every earlier one of the group
	Ends   map[ident.Partition]ident.Offset
}

// Publish applies publications. The errors, by index, are nil, ErrConflict or ErrUnknown.
func (s *Store) Publish(ctx context.Context, pubs []Publication) []error { panic("queuemapper") }

// Touch writes a group's record unchanged, comparing nothing but its existence, so that every
// Publish that is still under way against an older revision fails (O18). It returns the record
// after the write: which of the two won.
func (s *Store) Touch(ctx context.Context, g ident.Group) (*Group, error) { panic("queuemapper") }

// Split moves one partition to another group from an offset on (O20): one transaction seals it at
// the drained offset in the topic's record and opens the target group's next generation.
type Split struct {
	Topic *Topic
	Index int32
	From  ident.Offset
	// Target is the publication of the target group's next generation, with an epoch above both groups'.
	Target Publication
	// Source is the group that the partition leaves and its log, compared.
	Source    *Group
	SourceLog *Log
}

// SplitPartition applies a Split.
func (s *Store) SplitPartition(ctx context.Context, sp Split) error { panic("queuemapper") }

// TrimGenerations drops leading generations of a group of which nothing is left to read: the
// caller (the owner) says from which epoch on generations are kept. It compares the revision.
func (s *Store) TrimGenerations(ctx context.Context, g *Group, keep ident.Epoch) (*Group, error) {
	panic("queuemapper")
}

// Dump iterates every key and its decoded value as JSON, for `skein meta dump`.
func (s *Store) Dump(ctx context.Context, fn func(key string, json []byte) error) error {
	panic("queuemapper")
}
