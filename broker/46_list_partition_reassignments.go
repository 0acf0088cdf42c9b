package broker

import (
	"context"
	"slices"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/skeinmq/skein/internal/ident"
)

// ListPartitionReassignments (key 46), v0.
//
// What AlterPartitionReassignments has begun at this broker, or at any one more than two seconds ago, and is not done. Mostly
// that is nothing: a move changes records of the map and is over before anybody could ask.
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
	d := describer{b: b, m: m}
	for _, r := range b.ongoing(m) {
		t := m.TopicByID(r.id.Topic)
		if t == nil || !wanted(t.Name, r.id.Index) {
			continue
		}
		_, log, ok := m.Owner(t, r.id.Index)
		if !ok || log == nil || log.Host == r.to {
			continue
		}
		now := d.replicas(log.Host, t.ReplicationFactor, m.Assignments(t.ID).Of(r.id.Index)).all
		p := kmsg.NewListPartitionReassignmentsResponseTopicPartition()
		p.Partition = r.id.Index
		for _, id := range r.list {
			p.Replicas = append(p.Replicas, int32(id))
			if !slices.Contains(now, int32(id)) {
				p.AddingReplicas = append(p.AddingReplicas, int32(id))
			}
		}
		for _, id := range now {
			if !slices.Contains(r.list, ident.Broker(id)) {
				p.Replicas, p.RemovingReplicas = append(p.Replicas, id), append(p.RemovingReplicas, id)
			}
		}
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
