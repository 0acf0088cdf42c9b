package broker

import (
	"context"

	"github.com/twmb/franz-go/pkg/kmsg"
)

// DescribeProducers (key 61), v0.
//
// The deduplication state of a partition's open run: every producer that has written to it lately.
var describeProducers = handler{
	key: 61, name: "DescribeProducers", min: 0, max: 0,
	handle: (*Broker).handleDescribeProducers,
}

func (b *Broker) handleDescribeProducers(ctx context.Context, rq *request) kmsg.Response {
	req := rq.body.(*kmsg.DescribeProducersRequest)
	resp := req.ResponseKind().(*kmsg.DescribeProducersResponse)
	for i := range req.Topics {
		t := kmsg.NewDescribeProducersResponseTopic()
		t.Topic = req.Topics[i].Topic
		for _, index := range req.Topics[i].Partitions {
			p := kmsg.NewDescribeProducersResponseTopicPartition()
			p.Partition = index
			active, err := b.producersOf(ctx, t.Topic, index)
			p.ActiveProducers, p.ErrorCode, p.ErrorMessage = active, errorCode(err), errorMessage(err)
			t.Partitions = append(t.Partitions, p)
		}
		resp.Topics = append(resp.Topics, t)
	}
	return resp
}

func (b *Broker) producersOf(ctx context.Context, name string, index int32) ([]kmsg.DescribeProducersResponseTopicPartitionActiveProducer, error) {
	if isInternal(name) && index >= 0 && index < offsetsPartitions {
		return nil, nil
	}
	_, run, err := b.openPartition(name, index)
	if err != nil {
		return nil, err
	}
	states, err := run.queue.Producers(ctx)
	if err != nil {
		return nil, err
	}
	active := make([]kmsg.DescribeProducersResponseTopicPartitionActiveProducer, 0, len(states))
	for _, s := range states {
		a := kmsg.NewDescribeProducersResponseTopicPartitionActiveProducer()
		a.ProducerID, a.ProducerEpoch = s.ID, int32(s.Epoch)
		a.LastTimestamp, a.CoordinatorEpoch, a.CurrentTxnStartOffset = s.LastTimestamp, s.CoordinatorEpoch, int64(s.TxnStart)
		a.LastSequence = -1
		if n := len(s.Batches); n > 0 {
			a.LastSequence = s.Batches[n-1].LastSequence
		}
		active = append(active, a)
	}
	return active, nil
}
