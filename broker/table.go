package broker

import (
	"hash/maphash"
	"iter"
	"sync"
	"sync/atomic"

	"github.com/skeinmq/skein/commitlog"
	"github.com/skeinmq/skein/internal/ident"
	"github.com/skeinmq/skein/queuemapper"
)

// table is what the map means to this broker: each topic's partitions with the open queue of each that lives in a log
// of ours. Lookups take no lock. One goroutine at a time (mu) brings it up to a snapshot, by replacing the shards that
// changed; a topic and its partitions keep their identity from snapshot to snapshot, so a handler may hold on to them.
type table struct {
	mu   sync.Mutex // serializes apply
	seed maphash.Seed

	byName [tableShards]atomic.Pointer[map[string]*topic]
	byID   [tableShards]atomic.Pointer[map[ident.Topic]*topic]

	view atomic.Pointer[tableView]
}

// tableView is the snapshot that the table reflects and a channel that closes when it reflects a newer state.
type tableView struct {
	m    *queuemapper.Map
	next chan struct{}
}

const tableShards = 256

// topic is one topic of the table.
type topic struct {
	name string
	id   ident.Topic
	// record is the map's newest record of the topic, conf the configs in force (topic, broker default).
	record atomic.Pointer[queuemapper.Topic]
	conf   atomic.Pointer[topicConfig]
	// parts grows when partitions are added; elements never change.
	parts   atomic.Pointer[[]*partition]
	deleted atomic.Bool
}

// partition is one partition of a topic.
type partition struct {
	topic *topic
	index int32
	// open is the partition's run in a log of this broker that takes appends; nil while there is none here.
	open atomic.Pointer[openRun]
}

// openRun is the open physical queue of a partition.
type openRun struct {
	log   *hostedLog
	queue *commitlog.Queue
	gen   ident.Generation
}

// hostedLog is a log in a directory of this broker.
type hostedLog struct {
	id  ident.Log
	log *commitlog.Log
	// epoch is the epoch at which the log was begun; it is set before the table refers to the log.
	epoch ident.LogEpoch
}

// id names the partition.
func (p *partition) id() ident.Partition {
	return ident.Partition{Topic: p.topic.id, Index: p.index}
}

// partitions returns the topic's partitions by index.
func (t *topic) partitions() []*partition {
	if ps := t.parts.Load(); ps != nil {
		return *ps
	}
	return nil
}

// partition returns a partition, nil if there is none of that index.
func (t *topic) partition(index int32) *partition {
	ps := t.partitions()
	if index < 0 || int(index) >= len(ps) {
		return nil
	}
	return ps[index]
}

// topic finds a topic by name, nil if there is none.
func (b *Broker) topic(name string) *topic {
	m := b.table.byName[maphash.String(b.table.seed, name)%tableShards].Load()
	if m == nil {
		return nil
	}
	return (*m)[name]
}

// topicByID finds a topic by id, nil if there is none.
func (b *Broker) topicByID(id ident.Topic) *topic {
	m := b.table.byID[id[0]].Load() // ids are random
	if m == nil {
		return nil
	}
	return (*m)[id]
}

// newest returns the map's newest record of the topic. Do not change what it points at.
func (t *topic) newest() *queuemapper.Topic { return t.record.Load() }

func (t *table) init() {
	t.seed = maphash.MakeSeed()
	t.view.Store(&tableView{next: make(chan struct{})})
}

// topics iterates the topics of the table, in no order.
func (b *Broker) topics() iter.Seq[*topic] {
	return func(yield func(*topic) bool) {
		for i := range b.table.byName {
			shard := b.table.byName[i].Load()
			if shard == nil {
				continue
			}
			for _, t := range *shard {
				if !yield(t) {
					return
				}
			}
		}
	}
}

// topicNames iterates the names of all topics in order, the internal one among them.
func (b *Broker) topicNames(m *queuemapper.Map) iter.Seq[string] {
	return func(yield func(string) bool) {
		internal := false
		for t := range m.Topics() {
			if !internal && t.Name > offsetsTopic {
				internal = true
				if !yield(offsetsTopic) {
					return
				}
			}
			if b.topic(t.Name) != nil && !yield(t.Name) {
				return
			}
		}
		if !internal {
			yield(offsetsTopic)
		}
	}
}
