package broker

import (
	"context"
	"slices"

	"github.com/twmb/franz-go/pkg/kmsg"
)

// ListPartitionReassignments (key 46), v0.
//
// What AlterPartitionReassignments has begun at this broker and is not done. Mostly that is nothing: a move changes
// records of the map and is over before anybody could ask. Tools send both requests to the controller.
var listPartitionReassignments = handler{
	key: 46, name: "ListPartitionReassignments", min: 0, max: 0,
	handle: (*Broker).handleListPartitionReassignments,
}

func (b *Broker) handleListPartitionReassignments(_ context.Context, rq *request) kmsg.Response {
	req := rq.body.(*kmsg.ListPartitionReassignmentsRequest)
	resp := req.ResponseKind().(*kmsg.ListPartitionReassignmentsResponse)
	wanted := func(topic string, index int32) bool {
		return req.Topics == nil || slices.ContainsFunc(req.Topics, func(t kmsg.ListPartitionReassignmentsRequestTopic) bool {
			return t.Topic == topic && slices.Contains(t.Partitions, index)
		})
	}
	m := b.store.Map()
	for _, r := range b.reassigns.list() {
		t := m.TopicByID(r.id.Topic)
		if t == nil || !wanted(t.Name, r.id.Index) {
			continue
		}
		_, log, ok := m.Owner(t, r.id.Index)
		if !ok || log == nil || log.Host == r.to {
			continue
		}
		p := kmsg.NewListPartitionReassignmentsResponseTopicPartition()
		to, from := int32(r.to), int32(log.Host)
		p.Partition, p.Replicas, p.AddingReplicas, p.RemovingReplicas = r.id.Index, []int32{to, from}, []int32{to}, []int32{from}
		n := len(resp.Topics)
		if n == 0 || resp.Topics[n-1].Topic != t.Name {
			out := kmsg.NewListPartitionReassignmentsResponseTopic()
			out.Topic = t.Name
			resp.Topics = append(resp.Topics, out)
			n++
		}
		resp.Topics[n-1].Partitions = append(resp.Topics[n-1].Partitions, p)
	}
	return resp
}
