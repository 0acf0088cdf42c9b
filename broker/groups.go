package broker

import (
	"time"

	"github.com/skeinmq/skein/broker/coordinator"
	"github.com/skeinmq/skein/broker/group"
	"github.com/skeinmq/skein/controller"
	"github.com/skeinmq/skein/internal/ident"
	"github.com/skeinmq/skein/internal/kconfig"
	"github.com/skeinmq/skein/queuemapper"
)

// maxGroups bounds the groups of one coordinator partition.
const maxGroups = 1 << 17

// newCoordinator prepares the group coordinators. Group settings are read at start, as in Kafka.
func (b *Broker) newCoordinator(conf *kconfig.BrokerConfig) *coordinator.Coordinator {
	return coordinator.New(coordinator.Config{
		Store: b.cfg.Controller,
		Group: group.Config{
			MinSessionTimeout: conf.GroupMinSessionTimeout, MaxSessionTimeout: conf.GroupMaxSessionTimeout,
			InitialRebalanceDelay: conf.GroupInitialRebalanceDelay, MaxSize: int(conf.GroupMaxSize),
			MaxMetadataBytes: controller.MaxValueBytes, MaxGroups: maxGroups,
		},
		Retention: conf.OffsetsRetention, CheckInterval: conf.OffsetsRetentionCheckInterval,
		TopicName: func(id ident.Topic) (string, bool) { return topicNameOf(b.store.Map(), id) },
		Logger:    b.log, Registerer: b.cfg.Registerer,
	})
}

// assignCoordinators lets the coordinators follow the map: this broker runs those whose placement groups it owns, and
// stops at once those of which it reads that they are another broker's.
func (b *Broker) assignCoordinators(m *queuemapper.Map) {
	owned := make(map[int32]ident.Epoch)
	for p := range int32(controller.Partitions) {
		if host, epoch, ok := m.Coordinator(p); ok && host == b.cfg.ID {
			owned[p] = epoch
		}
	}
	b.groups.Assign(owned)
}

// topicNameOf names a topic that may have committed offsets; false: there is none of that id.
func topicNameOf(m *queuemapper.Map, id ident.Topic) (string, bool) {
	if id == offsetsTopicID {
		return offsetsTopic, true
	}
	if t := m.TopicByID(id); t != nil {
		return t.Name, true
	}
	return "", false
}

// topicIDOf finds a topic that may have committed offsets, and how many partitions it has.
func (b *Broker) topicIDOf(name string) (id ident.Topic, partitions int, ok bool) {
	if name == offsetsTopic {
		return offsetsTopicID, offsetsPartitions, true
	}
	if t := b.topic(name); t != nil {
		return t.id, len(t.partitions()), true
	}
	return id, 0, false
}

// partitionsOf is topicIDOf for one that is named by its id.
func (b *Broker) partitionsOf(id ident.Topic) (partitions int, ok bool) {
	if id == offsetsTopicID {
		return offsetsPartitions, true
	}
	if t := b.topicByID(id); t != nil {
		return len(t.partitions()), true
	}
	return 0, false
}

func millis(ms int32) time.Duration { return time.Duration(ms) * time.Millisecond }

// orEmpty is a nullable string's value, "" for null.
func orEmpty(s *string) string {
	if s == nil {
		return ""
	}
	return *s
}

// nullable is orEmpty the other way round.
func nullable(s string) *string {
	if s == "" {
		return nil
	}
	return &s
}
