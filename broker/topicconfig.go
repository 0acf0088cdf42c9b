package broker

import (
	"crypto/rand"
	"strconv"

	"github.com/skeinmq/skein/internal/ident"
	"github.com/skeinmq/skein/internal/kconfig"
	"github.com/skeinmq/skein/protocol/record"
	"github.com/skeinmq/skein/queuemapper"
)

// topicConfig is a topic's configs in force, and what they mean to a batch.
type topicConfig struct {
	kconfig.TopicConfig
	rules record.Rules // without what differs from request to request
}

// layers are the places where the configs of this broker, or of a topic, may be set.
func (b *Broker) layers(m *queuemapper.Map, topic map[string]string) kconfig.Layers {
	return kconfig.Layers{
		Entity:  topic,
		Broker:  m.Dynamic("broker", strconv.Itoa(int(b.cfg.ID))),
		Default: m.Dynamic("broker", ""),
		Static:  b.cfg.Static,
	}
}

// conf returns the broker's configs in force.
func (b *Broker) conf() *kconfig.BrokerConfig { return b.current.Load() }

// newTopicConfig computes a topic's configs.
func newTopicConfig(l kconfig.Layers) *topicConfig {
	c := topicConfig{TopicConfig: l.Topic()}
	c.rules = record.Rules{
		MaxBytes:      int(c.MaxMessageBytes),
		Recompress:    c.Compression != kconfig.CodecProducer,
		LogAppendTime: c.LogAppendTime,
		BeforeMax:     max(c.TimestampBeforeMaxMs, 1),
		AfterMax:      max(c.TimestampAfterMaxMs, 1),
		RequireKeys:   c.Compact,
	}
	if c.rules.Recompress {
		c.rules.Codec, c.rules.Level = record.Codec(c.Compression), record.Level(c.CompressionLevel)
	}
	return &c
}

// newTopicID returns a random topic id (UUID version 4), never one of Kafka's reserved ones.
func newTopicID() (id ident.Topic) {
	rand.Read(id[:]) // never fails
	id[6] = id[6]&0x0f | 0x40
	id[8] = id[8]&0x3f | 0x80
	return id
}
