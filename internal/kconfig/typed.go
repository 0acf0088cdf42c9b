package kconfig

import (
	"math"
	"strconv"
	"strings"
	"time"
)

// Codec is a compression codec by its number in a batch's attributes.
type Codec int8

// Codecs that compression.type names.
const (
	CodecProducer Codec = -1 // keep what the producer chose
	CodecNone     Codec = 0
	CodecGzip     Codec = 1
	CodecSnappy   Codec = 2
	CodecLZ4      Codec = 3
	CodecZstd     Codec = 4
)

// TopicConfig is what holds for one topic: computed once per change, read on every batch.
// Milliseconds and bytes as in Kafka; -1 is no limit where Kafka says so.
type TopicConfig struct {
	MaxMessageBytes int32
	Compression     Codec
	// CompressionLevel is that of Compression; meaningless for producer, none and snappy.
	CompressionLevel int
	LogAppendTime    bool // message.timestamp.type
	// TimestampBeforeMaxMs and TimestampAfterMaxMs bound a CreateTime against the clock.
	TimestampBeforeMaxMs int64
	TimestampAfterMaxMs  int64
	Delete, Compact      bool // cleanup.policy; neither: everything is kept
	RetentionMs          int64
	RetentionBytes       int64
	MinInsyncReplicas    int32
	SegmentBytes         int32
	SegmentMs            int64
	DeleteRetentionMs    int64
	MinCompactionLagMs   int64
	MaxCompactionLagMs   int64
	MinCleanableRatio    float64
	SkipAway             bool // failover.read=skip
}

// Topic computes a topic's config from its layers.
func (l Layers) Topic() TopicConfig {
	r := reader{l, KindTopic}
	c := TopicConfig{
		MaxMessageBytes:      int32(r.long("max.message.bytes")),
		LogAppendTime:        r.value("message.timestamp.type").Text == "LogAppendTime",
		TimestampBeforeMaxMs: r.long("message.timestamp.before.max.ms"),
		TimestampAfterMaxMs:  r.long("message.timestamp.after.max.ms"),
		RetentionMs:          max(r.long("retention.ms"), -1),
		RetentionBytes:       max(r.long("retention.bytes"), -1),
		MinInsyncReplicas:    int32(r.long("min.insync.replicas")),
		SegmentBytes:         int32(r.long("segment.bytes")),
		SegmentMs:            r.long("segment.ms"),
		DeleteRetentionMs:    r.long("delete.retention.ms"),
		MinCompactionLagMs:   r.long("min.compaction.lag.ms"),
		MaxCompactionLagMs:   r.long("max.compaction.lag.ms"),
		MinCleanableRatio:    r.value("min.cleanable.dirty.ratio").Float,
		SkipAway:             r.value("failover.read").Text == "skip",
	}
	for _, p := range r.value("cleanup.policy").List {
		c.Delete = c.Delete || p == "delete"
		c.Compact = c.Compact || p == "compact"
	}
	switch codec := r.value("compression.type").Text; codec {
	case "producer":
		c.Compression = CodecProducer
	case "snappy":
		c.Compression = CodecSnappy
	case "gzip", "lz4", "zstd":
		c.Compression = map[string]Codec{"gzip": CodecGzip, "lz4": CodecLZ4, "zstd": CodecZstd}[codec]
		c.CompressionLevel = int(r.long("compression." + codec + ".level"))
	}
	return c
}

// BrokerConfig is what holds for this broker: the configs that take effect.
type BrokerConfig struct {
	NodeID int32
	Rack   string

	NumPartitions            int32
	DefaultReplicationFactor int16
	AutoCreateTopics         bool
	DeleteTopics             bool

	ConnectionsMaxIdle     time.Duration // 0: never
	MaxConnections         int32
	ConnectionsPerIP       int32            // max.connections.per.ip
	ConnectionOverrides    map[string]int32 // max.connections.per.ip.overrides: by address or host name
	ConnectionRate         int32            // max.connection.creation.rate
	SocketRequestMaxBytes  int32
	QueuedMaxRequestBytes  int64 // -1: the broker's own budget
	FetchMaxBytes          int32
	FetchSessionSlots      int32 // max.incremental.fetch.session.cache.slots
	DescribePartitionLimit int32 // max.request.partition.size.limit

	RetentionCheckInterval time.Duration
	ProducerIDExpiration   time.Duration
	TransactionMaxTimeout  time.Duration

	GroupInitialRebalanceDelay time.Duration
	GroupMinSessionTimeout     time.Duration
	GroupMaxSessionTimeout     time.Duration
	GroupMaxSize               int32

	OffsetMetadataMaxBytes        int32
	OffsetsReplicationFactor      int16 // shown of __consumer_offsets
	OffsetsCommitTimeout          time.Duration
	OffsetsRetention              time.Duration
	OffsetsRetentionCheckInterval time.Duration

	Balancer bool

	ReadRedirect         bool  // skein.read.redirect
	ReadRedirectMinBytes int64 // skein.read.redirect.min.bytes

	CacheBytes         int64 // skein.log.cache.bytes
	SortBytesPerSecond int64 // skein.log.sort.bytes.per.second
	SortAll            bool  // skein.log.sort.all
}

// BrokerConfig computes a broker's config from its layers; Entity is not looked at.
func (l Layers) BrokerConfig() BrokerConfig {
	r := reader{l, KindBroker}
	c := BrokerConfig{
		NodeID:                        int32(r.long("node.id")),
		Rack:                          r.value("broker.rack").Text,
		NumPartitions:                 int32(r.long("num.partitions")),
		DefaultReplicationFactor:      int16(r.long("default.replication.factor")),
		AutoCreateTopics:              r.value("auto.create.topics.enable").Bool(),
		DeleteTopics:                  r.value("delete.topic.enable").Bool(),
		ConnectionsMaxIdle:            max(r.duration("connections.max.idle.ms"), 0),
		MaxConnections:                int32(r.long("max.connections")),
		ConnectionsPerIP:              int32(r.long("max.connections.per.ip")),
		ConnectionOverrides:           hostNumbers(r.value("max.connections.per.ip.overrides").Text),
		ConnectionRate:                int32(r.long("max.connection.creation.rate")),
		SocketRequestMaxBytes:         int32(r.long("socket.request.max.bytes")),
		QueuedMaxRequestBytes:         max(r.long("queued.max.request.bytes"), -1),
		FetchMaxBytes:                 int32(r.long("fetch.max.bytes")),
		FetchSessionSlots:             int32(r.long("max.incremental.fetch.session.cache.slots")),
		DescribePartitionLimit:        int32(r.long("max.request.partition.size.limit")),
		RetentionCheckInterval:        r.duration("log.retention.check.interval.ms"),
		ProducerIDExpiration:          r.duration("producer.id.expiration.ms"),
		TransactionMaxTimeout:         r.duration("transaction.max.timeout.ms"),
		OffsetsReplicationFactor:      int16(r.long("offsets.topic.replication.factor")),
		GroupInitialRebalanceDelay:    max(r.duration("group.initial.rebalance.delay.ms"), 0),
		GroupMinSessionTimeout:        r.duration("group.min.session.timeout.ms"),
		GroupMaxSessionTimeout:        r.duration("group.max.session.timeout.ms"),
		GroupMaxSize:                  int32(r.long("group.max.size")),
		OffsetMetadataMaxBytes:        int32(r.long("offset.metadata.max.bytes")),
		OffsetsCommitTimeout:          r.duration("offsets.commit.timeout.ms"),
		OffsetsRetention:              time.Duration(r.long("offsets.retention.minutes")) * time.Minute,
		OffsetsRetentionCheckInterval: r.duration("offsets.retention.check.interval.ms"),
		Balancer:                      r.value("skein.balancer.enabled").Bool(),
		ReadRedirect:                  r.value("skein.read.redirect").Bool(),
		ReadRedirectMinBytes:          r.long("skein.read.redirect.min.bytes"),
		CacheBytes:                    r.long("skein.log.cache.bytes"),
		SortBytesPerSecond:            r.long("skein.log.sort.bytes.per.second"),
		SortAll:                       r.value("skein.log.sort.all").Bool(),
	}
	if _, ok := l.Static["node.id"]; !ok {
		if id := r.long("broker.id"); id >= 0 {
			c.NodeID = int32(id)
		}
	}
	return c
}

// reader reads parsed values of one kind.
type reader struct {
	l Layers
	k Kind
}

func (r reader) value(name string) Value {
	if v := r.l.parsed(Find(r.k, name)); v != nil {
		return *v
	}
	return Value{}
}

func (r reader) long(name string) int64 { return r.value(name).Int }

// duration reads milliseconds, without overflow.
func (r reader) duration(name string) time.Duration {
	return time.Duration(min(r.long(name), math.MaxInt64/int64(time.Millisecond))) * time.Millisecond
}

// millis is the number of milliseconds in the unit that ends a config's name.
func millis(name string) int64 {
	switch {
	case strings.HasSuffix(name, ".hours"):
		return int64(time.Hour / time.Millisecond)
	case strings.HasSuffix(name, ".minutes"):
		return int64(time.Minute / time.Millisecond)
	}
	return 1
}

// hostNumbers reads a checked list of host:number pairs; the last of a host counts, as in Kafka.
func hostNumbers(list string) map[string]int32 {
	out := make(map[string]int32)
	for _, e := range splitList(list) {
		if i := strings.LastIndexByte(e, ':'); i > 0 {
			n, _ := strconv.ParseInt(strings.TrimSpace(e[i+1:]), 10, 32) // checked
			out[strings.Trim(strings.TrimSpace(e[:i]), "[]")] = int32(n)
		}
	}
	return out
}
