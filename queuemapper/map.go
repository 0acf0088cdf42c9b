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
	"slices"

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
	// ErrCluster: the store belongs to another cluster than the caller's disks, or is empty
	// while they are not.
	ErrCluster = errors.New("map store of another cluster")
	// ErrInvalid: the request contradicts itself or the map as the caller read it; nothing was sent.
	ErrInvalid = errors.New("invalid change of the map")
)

// Map is one immutable snapshot of the whole map, as of one etcd revision. Neighbouring
// snapshots share what did not change. The zero Map is empty.
type Map struct {
	revision   int64
	cluster    Cluster
	controller Controller
	level      Level // 0: none was written yet
	topics     ordered[string, *Topic]
	byID       ordered[ident.Topic, *Topic]
	groups     []*Group // by id
	logs       ordered[ident.Log, *Log]
	brokers    ordered[ident.Broker, *Broker]
	dynamic    ordered[string, *entity] // by kind/name
	partitions int
	counts     []int32 // partitions that live in each group now, by id

	next chan struct{} // closed when the store has a newer snapshot; nil outside a store
}

// entity holds the dynamic configs of one kind/name.
type entity struct {
	kind, name string
	configs    map[string]string
	revision   int64
}

// Cluster is the cluster's record.
type Cluster struct {
	ID     string `json:"id"` // Kafka cluster id: 22 characters of URL-safe base64
	Format int    `json:"format"`
	Groups int    `json:"groups"` // placement groups, fixed for the life of the cluster
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
	Group ident.Group  `json:"group"`
	From  ident.Offset `json:"from"`
	// First is the epoch of the group's generation in which the stay began; 0 for the
	// partition's first stay. Last is the one in which it ended, at the next stay's From; of
	// the last stay, which goes on, it means nothing. The group's generations outside [First, Last] say nothing about the
	// partition, whatever ends they name.
	First ident.Epoch `json:"first"`
	Last  ident.Epoch `json:"last"`
}

// Group is one placement group's record: its generations, epochs increasing, the last one open.
// Do not change what it points at.
type Group struct {
	ID ident.Group
	// Starts is where the first generation that is still listed starts, for partitions that
	// moved on in ones that were trimmed; absent: 0.
	Starts      map[ident.Partition]ident.Offset
	Generations []Generation
	Revision    int64

	raw   [][]byte // encoded generations by index, nil when not known; shares the record's bytes
	index index
}

// Generation is one period of a group on one log (O2).
type Generation struct {
	Epoch ident.Epoch
	Log   ident.Log
	Frame ident.Frame // the opening frame that the record names
	// Ceiling bounds an open generation: no partition of it is given an offset at or past it (ADR 10).
	// 0: the record was written before there were ceilings; there is no bound.
	Ceiling ident.Offset
	Sealed  bool
	// Gap says that the generation was sealed at its ceiling, because nobody could tell the exact ends. What
	// lies between what its disk holds and Ends was never written: a hole, no loss.
	Gap bool
	// Ends of a sealed generation; a partition that is absent ended where it started.
	Ends map[ident.Partition]ident.Offset
	// Lost marks ranges that the disk no longer has (never refilled).
	Lost map[ident.Partition][]Range
}

// Range is [From, To) in logical offsets.
type Range struct {
	From ident.Offset `json:"from"`
	To   ident.Offset `json:"to"`
}

// LogState is a log's state.
type LogState int8

// A log takes appends (LogOpen) or was sealed by a failover (LogSealed), at its epoch.
const (
	LogOpen LogState = iota
	LogSealed
)

// Log is a log's record (O1).
type Log struct {
	ID   ident.Log
	Host ident.Broker
	// Incarnation of the host that opened the epoch. What is known of an older one says nothing about the log.
	Incarnation int64
	Epoch       ident.LogEpoch
	// Begun is the newest epoch that is known to be on the log's disk: Begun <= Epoch. A disk that has
	// begun less is an old copy (ADR 9).
	Begun     ident.LogEpoch
	State     LogState
	Witnesses []Witness
	Revision  int64
}

// Witness is a member of a log's witness set, in one incarnation.
type Witness struct {
	Broker      ident.Broker `json:"broker"`
	Incarnation int64        `json:"incarnation"`
}

// Broker is a broker's registration; it is attached to a lease.
type Broker struct {
	ID          ident.Broker `json:"id"`
	Incarnation int64        `json:"incarnation"`
	Host        string       `json:"host"` // advertised
	Port        int32        `json:"port"`
	Internal    string       `json:"internal"` // host:port of the internal listener, "" if none
	Rack        string       `json:"rack"`
	Roles       []string     `json:"roles"`
}

// Run is one contiguous run of a partition's offsets in one log: a physical queue.
type Run struct {
	Generation ident.Generation
	Log        ident.Log
	Start      ident.Offset
	End        ident.Offset // exclusive; meaningless when Open
	Open       bool
	Gap        bool // it may hold less than its end says: see Generation
}

// Revision is the etcd revision that the snapshot reflects.
func (m *Map) Revision() int64 { return m.revision }

// Cluster returns the cluster's record.
func (m *Map) Cluster() Cluster { return m.cluster }

// Topic finds a topic by name, nil if there is none.
func (m *Map) Topic(name string) *Topic {
	t, _ := m.topics.get(name)
	return t
}

// TopicByID finds a topic by id, nil if there is none.
func (m *Map) TopicByID(id ident.Topic) *Topic {
	t, _ := m.byID.get(id)
	return t
}

// Topics iterates all topics ordered by name.
func (m *Map) Topics() iter.Seq[*Topic] { return m.topics.values() }

// Len is the number of topics and of partitions.
func (m *Map) Len() (topics, partitions int) { return m.topics.n, m.partitions }

// Group returns a group's record, nil if the id is out of range.
func (m *Map) Group(id ident.Group) *Group {
	if id < 0 || int(id) >= len(m.groups) {
		return nil
	}
	return m.groups[id]
}

// Groups iterates all groups by id.
func (m *Map) Groups() iter.Seq[*Group] { return slices.Values(m.groups) }

// Log returns a log's record, nil if unknown.
func (m *Map) Log(id ident.Log) *Log {
	l, _ := m.logs.get(id)
	return l
}

// Logs iterates all logs ordered by id.
func (m *Map) Logs() iter.Seq[*Log] { return m.logs.values() }

// Broker returns a live broker's registration, nil if there is none.
func (m *Map) Broker(id ident.Broker) *Broker {
	b, _ := m.brokers.get(id)
	return b
}

// Brokers iterates live brokers by id.
func (m *Map) Brokers() iter.Seq[*Broker] { return m.brokers.values() }

// Dynamic returns the dynamic configs of an entity: kind "broker" and name "" (cluster
// default) or a node id, "group", "client-metrics", …. Nil if none. Do not change it.
func (m *Map) Dynamic(kind, name string) map[string]string {
	if e, ok := m.dynamic.get(kind + "/" + name); ok {
		return e.configs
	}
	return nil
}

// DynamicNames iterates the names of the entities of a kind that have dynamic configs, ordered.
func (m *Map) DynamicNames(kind string) iter.Seq[string] {
	return func(yield func(string) bool) {
		for e := range m.dynamic.from(kind + "/") {
			if e.kind != kind || !yield(e.name) {
				return
			}
		}
	}
}

// Partitions is the number of partitions that live in a group now, 0 if there is no such group.
func (m *Map) Partitions(id ident.Group) int {
	if id < 0 || int(id) >= len(m.counts) {
		return 0
	}
	return int(m.counts[id])
}

// Current returns the group's open generation, nil if it has none yet.
func (g *Group) Current() *Generation {
	if n := len(g.Generations); n > 0 && !g.Generations[n-1].Sealed {
		return &g.Generations[n-1]
	}
	return nil
}
