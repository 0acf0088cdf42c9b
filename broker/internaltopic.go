package broker

import (
	"github.com/skeinmq/skein/internal/ident"
	"github.com/skeinmq/skein/protocol"
)

// The internal topic __consumer_offsets is listed with 50 partitions, as Kafka's is, because tools and clients ask for
// it: each partition is led by the broker whose coordinator serves the groups that hash to it. What Kafka stores in its
// records lives in the replicated state machine; read as a topic each partition is empty. It can be described, listed
// and read, not written, created, altered or deleted.
const (
	offsetsTopic      = "__consumer_offsets"
	offsetsPartitions = 50
)

// offsetsTopicID is the topic id of __consumer_offsets in every Skein cluster.
var offsetsTopicID = ident.Topic{'s', 'k', 'e', 'i', 'n', 0, 0x40, 0, 0x80, 'o', 'f', 'f', 's', 'e', 't', 's'}

// isInternal reports whether the name is that of a topic that only the broker writes.
func isInternal(name string) bool { return name == offsetsTopic }

// isInternal reports whether the part is of an internal topic.
func (f *fetchPart) isInternal() bool {
	return f.name == offsetsTopic || f.id == protocol.UUID(offsetsTopicID)
}

// readInternal answers a read of an internal topic: an empty partition.
func (j *fetchJob) readInternal(f *fetchPart, res *fetchResult) error {
	if f.index < 0 || f.index >= offsetsPartitions {
		return refuseCode(protocol.CodeUnknownTopicOrPartition)
	}
	if f.offset != 0 {
		return refuseCode(protocol.CodeOffsetOutOfRange)
	}
	res.out.HighWatermark, res.out.LastStableOffset, res.out.LogStartOffset = 0, 0, 0
	return nil
}
