package broker

import (
	"context"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/skeinmq/skein/internal/ident"
)

// OffsetForLeaderEpoch (key 23), v0 to v4.
//
// The generations are the epoch history: the answer is the greatest epoch at or below the asked one that the partition
// has had, and where it ended; the high watermark for the current one. An epoch above the current one, or below the
// first one, answers -1, -1.
//
//	v1  + epoch in the answer   v2  current leader epoch   v3  replica id   v4  flexible
var offsetForLeaderEpoch = handler{
	key: 23, name: "OffsetForLeaderEpoch", min: 0, max: 4,
	handle: (*Broker).handleOffsetForLeaderEpoch,
}

func (b *Broker) handleOffsetForLeaderEpoch(ctx context.Context, rq *request) kmsg.Response {
	req := rq.body.(*kmsg.OffsetForLeaderEpochRequest)
	resp := req.ResponseKind().(*kmsg.OffsetForLeaderEpochResponse)
	for i := range req.Topics {
		t := kmsg.NewOffsetForLeaderEpochResponseTopic()
		t.Topic = req.Topics[i].Topic
		for k := range req.Topics[i].Partitions {
			from := &req.Topics[i].Partitions[k]
			p := kmsg.NewOffsetForLeaderEpochResponseTopicPartition()
			p.Partition, p.LeaderEpoch, p.EndOffset = from.Partition, -1, -1
			if err := b.endOfEpoch(ctx, t.Topic, from, &p); err != nil {
				p.ErrorCode = errorCode(err)
			}
			t.Partitions = append(t.Partitions, p)
		}
		resp.Topics = append(resp.Topics, t)
	}
	return resp
}

func (b *Broker) endOfEpoch(ctx context.Context, name string, from *kmsg.OffsetForLeaderEpochRequestTopicPartition, out *kmsg.OffsetForLeaderEpochResponseTopicPartition) error {
	if isInternal(name) && from.Partition >= 0 && from.Partition < offsetsPartitions {
		return nil
	}
	p, run, err := b.openPartition(name, from.Partition)
	if err != nil {
		return err
	}
	if err := checkEpoch(ident.Epoch(from.CurrentLeaderEpoch), run.gen.Epoch); err != nil {
		return err
	}
	if ident.Epoch(from.LeaderEpoch) > run.gen.Epoch {
		return b.confirm(ctx, run) // known to be unknown
	}
	if epoch, end, ok := b.epochEnd(p, run, ident.Epoch(from.LeaderEpoch), run.queue.HighWatermark()); ok {
		out.LeaderEpoch, out.EndOffset = int32(epoch), int64(end)
	}
	return nil
}
