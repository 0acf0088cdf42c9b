package broker

import (
	"context"
	"time"
	"unicode/utf16"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/skeinmq/skein/broker/group"
	"github.com/skeinmq/skein/controller"
	"github.com/skeinmq/skein/internal/ident"
	"github.com/skeinmq/skein/protocol"
)

// OffsetCommit (key 8), v0 to v10.
//
// Partitions that do not exist are refused one by one, as is metadata that is too long; the rest is committed together
// and answered when it is durable. Apache Kafka 4 begins at v2; v0 (which once meant ZooKeeper) and v1 are served like a
// commit without membership. Offsets belong to a topic's id: those of a deleted topic never come back with its name.
//
//	v1  generation, member, timestamp per partition   v2  retention time instead   v5  no retention time
//	v6  leader epoch   v7  group.instance.id          v8  flexible                 v9  GROUP_ID_NOT_FOUND, STALE_MEMBER_EPOCH
//	v10 topic ids
var offsetCommit = handler{
	key: 8, name: "OffsetCommit", min: 0, max: 10,
	handle: (*Broker).handleOffsetCommit,
}

func (b *Broker) handleOffsetCommit(ctx context.Context, rq *request) kmsg.Response {
	req := rq.body.(*kmsg.OffsetCommitRequest)
	resp := req.ResponseKind().(*kmsg.OffsetCommitResponse)
	var offsets []controller.PartitionOffset
	var codes []*int16 // of the partitions that exist: what the commit yields goes there unless it is set
	now := time.Now().UnixMilli()
	for i := range req.Topics {
		t := &req.Topics[i]
		id, partitions, missing := b.committable(rq.version, t.Topic, t.TopicID)
		out := kmsg.OffsetCommitResponseTopic{Topic: t.Topic, TopicID: t.TopicID, Partitions: make([]kmsg.OffsetCommitResponseTopicPartition, len(t.Partitions))}
		for k := range t.Partitions {
			p, answer := &t.Partitions[k], &out.Partitions[k]
			answer.Partition = p.Partition
			switch {
			case missing != protocol.CodeNone:
				answer.ErrorCode = int16(missing)
				continue
			case p.Partition < 0 || int(p.Partition) >= partitions:
				answer.ErrorCode = int16(protocol.CodeUnknownTopicOrPartition)
				continue
			}
			codes = append(codes, &answer.ErrorCode)
			if b.metadataTooLong(orEmpty(p.Metadata)) {
				answer.ErrorCode = int16(protocol.CodeOffsetMetadataTooLarge)
				continue
			}
			offsets = append(offsets, controller.PartitionOffset{
				Partition: ident.Partition{Topic: id, Index: p.Partition},
				Offset:    committedOffset(req, p, now),
			})
		}
		resp.Topics = append(resp.Topics, out)
	}
	if len(codes) == 0 {
		return resp
	}
	err := b.groups.Commit(ctx, group.Commit{
		Group: req.Group, Generation: req.Generation, Member: req.MemberID, Instance: orEmpty(req.InstanceID), GroupNotFound: rq.version >= 9,
	}, offsets)
	if err != nil {
		for _, code := range codes {
			*code = errorCode(err)
		}
	}
	return resp
}

// committable finds the topic that a request names, by id from v10 on, or the code that says that it does not exist.
func (b *Broker) committable(version int16, name string, id ident.Topic) (ident.Topic, int, protocol.Code) {
	if version >= 10 {
		partitions, ok := b.partitionsOf(id)
		if !ok {
			return id, 0, protocol.CodeUnknownTopicID
		}
		return id, partitions, protocol.CodeNone
	}
	id, partitions, ok := b.topicIDOf(name)
	if !ok {
		return id, 0, protocol.CodeUnknownTopicOrPartition
	}
	return id, partitions, protocol.CodeNone
}

func committedOffset(req *kmsg.OffsetCommitRequest, p *kmsg.OffsetCommitRequestTopicPartition, now int64) controller.Offset {
	o := controller.Offset{
		Offset: ident.Offset(p.Offset), LeaderEpoch: ident.Epoch(p.LeaderEpoch), Metadata: orEmpty(p.Metadata),
		CommitTime: now, ExpireTime: -1,
	}
	if req.Version == 1 && p.Timestamp >= 0 {
		o.CommitTime = p.Timestamp
	}
	if req.Version >= 2 && req.Version <= 4 && req.RetentionTimeMillis != -1 {
		o.ExpireTime = max(now+req.RetentionTimeMillis, 0)
	}
	return o
}

// metadataTooLong compares with offset.metadata.max.bytes, which Kafka counts in UTF-16 units.
func (b *Broker) metadataTooLong(s string) bool {
	limit := int(b.conf().OffsetMetadataMaxBytes)
	return len(s) > limit && len(utf16.Encode([]rune(s))) > limit
}
