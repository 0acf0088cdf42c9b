package broker

import (
	"context"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/skeinmq/skein/internal/ident"
	"github.com/skeinmq/skein/protocol"
)

// OffsetDelete (key 47), v0.
//
// Removes committed offsets of partitions, except of topics that the group is subscribed to. An error of the group is
// the whole answer's.
var offsetDelete = handler{
	key: 47, name: "OffsetDelete", min: 0, max: 0,
	handle: (*Broker).handleOffsetDelete,
}

func (b *Broker) handleOffsetDelete(ctx context.Context, rq *request) kmsg.Response {
	req := rq.body.(*kmsg.OffsetDeleteRequest)
	resp := req.ResponseKind().(*kmsg.OffsetDeleteResponse)
	var of []ident.Partition
	var codes []*int16
	for i := range req.Topics {
		t := &req.Topics[i]
		id, partitions, known := b.topicIDOf(t.Topic)
		out := kmsg.OffsetDeleteResponseTopic{Topic: t.Topic, Partitions: make([]kmsg.OffsetDeleteResponseTopicPartition, len(t.Partitions))}
		for k, p := range t.Partitions {
			answer := &out.Partitions[k]
			answer.Partition = p.Partition
			if !known || p.Partition < 0 || int(p.Partition) >= partitions {
				answer.ErrorCode = int16(protocol.CodeUnknownTopicOrPartition)
				continue
			}
			of, codes = append(of, ident.Partition{Topic: id, Index: p.Partition}), append(codes, &answer.ErrorCode)
		}
		resp.Topics = append(resp.Topics, out)
	}
	each, err := b.groups.DeleteOffsets(ctx, req.Group, of)
	if err != nil {
		resp.ErrorCode, resp.Topics = errorCode(err), nil
		return resp
	}
	for i, err := range each {
		*codes[i] = errorCode(err)
	}
	return resp
}
