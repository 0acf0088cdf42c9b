package broker

import (
	"context"

	"github.com/twmb/franz-go/pkg/kmsg"
	"golang.org/x/sync/errgroup"

	"github.com/skeinmq/skein/commitlog"
	"github.com/skeinmq/skein/protocol"
)

// DeleteRecords (key 21), v0 to v2.
//
// The log start has moved, durably, when the answer comes. -1 means the high watermark. A topic whose cleanup.policy
// does not delete is a POLICY_VIOLATION, as in Kafka.
//
//	v2  flexible
var deleteRecords = handler{
	key: 21, name: "DeleteRecords", min: 0, max: 2,
	handle: (*Broker).handleDeleteRecords,
}

// truncatesInFlight bounds the moves of log starts of one request: they share group commits.
const truncatesInFlight = 64

func (b *Broker) handleDeleteRecords(ctx context.Context, rq *request) kmsg.Response {
	req := rq.body.(*kmsg.DeleteRecordsRequest)
	resp := req.ResponseKind().(*kmsg.DeleteRecordsResponse)
	ctx, cancel := withRequestTimeout(ctx, req.TimeoutMillis)
	defer cancel()
	var work errgroup.Group
	work.SetLimit(truncatesInFlight)
	resp.Topics = make([]kmsg.DeleteRecordsResponseTopic, len(req.Topics))
	for i := range req.Topics {
		from, to := &req.Topics[i], &resp.Topics[i]
		to.Default()
		to.Topic = from.Topic
		to.Partitions = make([]kmsg.DeleteRecordsResponseTopicPartition, len(from.Partitions))
		for j := range from.Partitions {
			ask, out := &from.Partitions[j], &to.Partitions[j]
			out.Default()
			out.Partition, out.LowWatermark = ask.Partition, -1
			work.Go(func() error {
				low, err := b.truncate(ctx, from.Topic, ask.Partition, ask.Offset)
				if out.ErrorCode = errorCode(err); err == nil {
					out.LowWatermark = low
				}
				return nil
			})
		}
	}
	_ = work.Wait() // no function returns an error: each partition has its own
	return resp
}

// truncate moves one partition's log start and returns it.
func (b *Broker) truncate(ctx context.Context, name string, index int32, to int64) (int64, error) {
	if isInternal(name) {
		return -1, refuse(protocol.CodeInvalidTopicException, "Cannot delete records of internal topic %s.", name)
	}
	t := b.topic(name)
	if t == nil {
		return -1, refuseCode(protocol.CodeUnknownTopicOrPartition)
	}
	p := t.partition(index)
	switch {
	case p == nil:
		return -1, refuseCode(protocol.CodeUnknownTopicOrPartition)
	case p.open.Load() == nil:
		return -1, commitlog.ErrNotOpen
	case !t.conf.Load().Delete:
		return -1, refuse(protocol.CodePolicyViolation, "Records of partition %s-%d can not be deleted due to the configured policy", name, index)
	}
	low, err := b.deleteRecords(ctx, p, to)
	return int64(low), err
}
