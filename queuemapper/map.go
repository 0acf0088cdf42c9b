// Package queuemapper is the QueueMapper: it says which run of which partition's
// offsets lies in which log, and who owns what.
//
// The map itself is pure: an immutable snapshot with no I/O (Map). The Store keeps it
// in etcd: every change is one compare-and-swap transaction, and a watch that survives
// compaction, reconnects and restarts brings every broker the next snapshot. It refuses
// to know brokers' processes, logs' bytes and Kafka's protocol.
package queuemapper

import (
	"errors"
	"iter"

	"github.com/skeinmq/skein/internal/ident"
)

// Errors that callers branch on.
var (
	// ErrExists: the topic (or other key) is already there.
	ErrExists = errors.New("already exists")
	// ErrNotFound: no such topic, group, log or broker.
	ErrNotFound = errors.New("not found")
	// ErrConflict: the compare failed: somebody else wrote first. The map has what they wrote.
	ErrConflict = errors.New("map changed meanwhile")
	// ErrUnknown: the answer was lost; the write may or may not have happened. Settle it by
	// a write (O8, O18), never by a read.
	ErrUnknown = errors.New("outcome unknown")
	// ErrUnavailable: the store cannot be reached or has no quorum; nothing happened.
	ErrUnavailable = errors.New("map store unavailable")
)

// Map is one immutable snapshot of the whole map, as of one etcd revision.
type Map struct{}

// Cluster is the cluster's record.
type Cluster struct {
	ID     string // Kafka cluster id: 22 characters of URL-safe base64
	Format int
	Groups int // placement groups, fixed for the life of the cluster
}

// Topic is one topic's record. Do not change what it points at.
type Topic struct {
	Name              string
	ID                ident.Topic
	ReplicationFactor int16             // as requested; any value is accepted and stored
	Configs           map[string]string // set at topic level, by Kafka name
	Partitions        []Placement       // by index
	Revision          int64
}

// Placement says which groups a partition has lived in, oldest first: one entry unless it
// was split off (O20). Each is in force from its offset on.
type Placement []Residence

// Residence is a partition's stay in a group from an offset on.
type Residence struct {
	Group ident.Group
	From  ident.Offset
}

// Group is one placement group's record: its generations, epochs increasing, the last one open.
type Group struct {
	ID          ident.Group
	Generations []Generation
	Revision    int64
}

// Generation is one period of a group on one log (O2).
type Generation struct {
	Epoch  ident.Epoch
	Log    ident.Log
	Frame  ident.Frame // the opening frame that the record names
	Sealed bool
	// Ends of a sealed generation; a partition that is absent ended where it started.
	Ends map[ident.Partition]ident.Offset
	// Lost marks ranges that the disk no longer has (never refilled).
	Lost map[ident.Partition][]Range
}

// Range is [From, To) in logical offsets.
type Range struct{ From, To ident.Offset }

// LogState is a log's state.
type LogState int8

// A log takes appends (LogOpen) or was sealed by a failover (LogSealed), at its epoch.
const (
	LogOpen LogState = iota
	LogSealed
)

// Log is a log's record (O1).
type Log struct {
	ID        ident.Log
	Host      ident.Broker
	Epoch     ident.LogEpoch
	State     LogState
	Witnesses []Witness
	Revision  int64
}

// Witness is a member of a log's witness set, in one incarnation.
type Witness struct {
	Broker      ident.Broker
	Incarnation int64
}

// Broker is a broker's registration; it is attached to a lease.
type Broker struct {
	ID          ident.Broker
	Incarnation int64
	Host        string // advertised
	Port        int32
	Internal    string // host:port of the internal listener, "" if none
	Rack        string
	Roles       []string
}

// Run is one contiguous run of a partition's offsets in one log: a physical queue.
type Run struct {
	Generation ident.Generation
	Log        ident.Log
	Start      ident.Offset
	End        ident.Offset // exclusive; meaningless when Open
	Open       bool
}

// Revision is the etcd revision that the snapshot reflects.
func (m *Map) Revision() int64 { panic("queuemapper") }

// Cluster returns the cluster's record.
func (m *Map) Cluster() Cluster { panic("queuemapper") }

// Topic finds a topic by name, nil if there is none.
func (m *Map) Topic(name string) *Topic { panic("queuemapper") }

// TopicByID finds a topic by id, nil if there is none.
func (m *Map) TopicByID(id ident.Topic) *Topic { panic("queuemapper") }

// Topics iterates all topics ordered by name.
func (m *Map) Topics() iter.Seq[*Topic] { panic("queuemapper") }

// Len is the number of topics and of partitions.
func (m *Map) Len() (topics, partitions int) { panic("queuemapper") }

// Group returns a group's record, nil if the id is out of range.
func (m *Map) Group(id ident.Group) *Group { panic("queuemapper") }

// Groups iterates all groups by id.
func (m *Map) Groups() iter.Seq[*Group] { panic("queuemapper") }

// Log returns a log's record, nil if unknown.
func (m *Map) Log(id ident.Log) *Log { panic("queuemapper") }

// Logs iterates all logs ordered by id.
func (m *Map) Logs() iter.Seq[*Log] { panic("queuemapper") }

// Broker returns a live broker's registration, nil if there is none.
func (m *Map) Broker(id ident.Broker) *Broker { panic("queuemapper") }

// Brokers iterates live brokers by id.
func (m *Map) Brokers() iter.Seq[*Broker] { panic("queuemapper") }

// Dynamic returns the dynamic configs of an entity: kind "broker" and name "" (cluster
// default) or a node id, "group", "client-metrics", …. Nil if none.
func (m *Map) Dynamic(kind, name string) map[string]string { panic("queuemapper") }

// Owner is the open run of a partition: who takes its appends. False while the group has
// no open generation (only before the first broker of a new cluster is up) or when there
// is no such partition.
func (m *Map) Owner(t *Topic, index int32) (Run, *Log, bool) { panic("queuemapper") }

// Runs returns the partition's runs in offset order, empty ones left out except the open
// one, which is last.
func (m *Map) Runs(t *Topic, index int32) []Run { panic("queuemapper") }

// Locate returns the run that holds an offset: binary search over the group's generations.
// An offset at or past the open run's start is in the open run. False below the first run.
func (m *Map) Locate(t *Topic, index int32, o ident.Offset) (Run, bool) { panic("queuemapper") }

// EpochEnd answers OffsetForLeaderEpoch for an epoch below the current one (Kafka's
// LeaderEpochFileCache.endOffsetFor): the greatest epoch <= e that the partition has had,
// and its end. ok is false when e is below every known epoch; open is true when the answer
// is the open generation, whose end only the log knows.
func (m *Map) EpochEnd(t *Topic, index int32, e ident.Epoch) (epoch ident.Epoch, end ident.Offset, open, ok bool) {
	panic("queuemapper")
}
