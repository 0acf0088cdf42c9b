package broker

import (
	"context"
	"slices"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/skeinmq/skein/protocol"
)

// DescribeTopicPartitions (key 75), v0 (KIP-966).
//
// Topics come ordered by name, at most the smaller of the request's and the broker's limit
// (max.request.partition.size.limit) of partitions in one answer, and a cursor says where the next one begins. An
// internal topic that does not exist, such as Streams asks for before it creates its own, is
// UNKNOWN_TOPIC_OR_PARTITION like any other; nothing is created here.
var describeTopicPartitions = handler{
	key: 75, name: "DescribeTopicPartitions", min: 0, max: 0,
	handle: (*Broker).handleDescribeTopicPartitions,
}

func (b *Broker) handleDescribeTopicPartitions(_ context.Context, rq *request) kmsg.Response {
	req := rq.body.(*kmsg.DescribeTopicPartitionsRequest)
	resp := req.ResponseKind().(*kmsg.DescribeTopicPartitionsResponse)
	m := b.store.Map()
	d := describer{b: b, m: m}
	var names []string
	for i := range req.Topics {
		names = append(names, req.Topics[i].Topic)
	}
	if len(names) == 0 {
		names = slices.Collect(b.topicNames(m))
	}
	slices.Sort(names)
	names = slices.Compact(names)
	first := int32(0)
	if req.Cursor != nil {
		at, _ := slices.BinarySearch(names, req.Cursor.Topic)
		names = names[at:]
		if len(names) > 0 && names[0] == req.Cursor.Topic {
			first = req.Cursor.Partition
		}
	}
	left := int(b.conf().DescribePartitionLimit)
	if req.ResponsePartitionLimit > 0 {
		left = min(left, int(req.ResponsePartitionLimit))
	}
	if req.Cursor != nil && req.Cursor.Partition < 0 {
		return refuseCursor(resp, names)
	}
	for _, name := range names {
		if left <= 0 {
			resp.NextCursor = &kmsg.DescribeTopicPartitionsResponseNextCursor{Topic: name, Partition: first}
			break
		}
		out, total := d.describe(name, first, left)
		resp.Topics = append(resp.Topics, out)
		left -= len(out.Partitions)
		if next := int(first) + len(out.Partitions); next < total {
			resp.NextCursor = &kmsg.DescribeTopicPartitionsResponseNextCursor{Topic: name, Partition: int32(next)}
			break
		}
		first = 0
	}
	return resp
}

// refuseCursor answers a cursor that points at no partition.
func refuseCursor(resp *kmsg.DescribeTopicPartitionsResponse, names []string) kmsg.Response {
	for _, name := range names {
		out := kmsg.NewDescribeTopicPartitionsResponseTopic()
		out.Topic, out.ErrorCode = &name, errorCode(refuseCode(protocol.CodeInvalidRequest))
		resp.Topics = append(resp.Topics, out)
	}
	return resp
}

// describe describes at most limit partitions of a topic, from the first on. total is how many the topic has.
func (d *describer) describe(name string, first int32, limit int) (out kmsg.DescribeTopicPartitionsResponseTopic, total int) {
	out = kmsg.NewDescribeTopicPartitionsResponseTopic()
	out.Topic, out.AuthorizedOperations = &name, topicOperations
	t := d.b.topic(name)
	if t == nil && !isInternal(name) {
		err := checkTopicName(name)
		if err == nil {
			err = refuseCode(protocol.CodeUnknownTopicOrPartition)
		}
		out.ErrorCode = errorCode(err)
		return out, 0
	}
	whole := d.metadata(t, name)
	out.TopicID, out.IsInternal = whole.TopicID, whole.IsInternal
	total = len(whole.Partitions)
	from := min(int(first), total)
	for i := range whole.Partitions[from:min(from+limit, total)] {
		p := &whole.Partitions[from+i]
		r := kmsg.NewDescribeTopicPartitionsResponseTopicPartition()
		r.ErrorCode, r.Partition, r.LeaderID, r.LeaderEpoch = p.ErrorCode, p.Partition, p.Leader, p.LeaderEpoch
		r.Replicas, r.ISR, r.OfflineReplicas = p.Replicas, p.ISR, p.OfflineReplicas
		r.EligibleLeaderReplicas, r.LastKnownELR = []int32{}, []int32{}
		out.Partitions = append(out.Partitions, r)
	}
	return out, total
}
