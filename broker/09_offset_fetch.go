package broker

import (
	"context"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/skeinmq/skein/controller"
	"github.com/skeinmq/skein/internal/ident"
	"github.com/skeinmq/skein/protocol"
)

// OffsetFetch (key 9), v0 to v10.
//
// A partition without a committed offset answers -1, whether or not it, its topic or the group exists. With
// require_stable the answer waits until commits that are under way are decided. Apache Kafka 4 begins at v1.
//
//	v2  null topics: all that there are; error code of the group   v5  leader epoch   v6  flexible
//	v7  require_stable   v8  several groups   v9  member id and epoch (newer group protocols only)   v10 topic ids
var offsetFetch = handler{
	key: 9, name: "OffsetFetch", min: 0, max: 10,
	handle: (*Broker).handleOffsetFetch,
}

func (b *Broker) handleOffsetFetch(ctx context.Context, rq *request) kmsg.Response {
	req := rq.body.(*kmsg.OffsetFetchRequest)
	resp := req.ResponseKind().(*kmsg.OffsetFetchResponse)
	if rq.version >= 8 {
		for i := range req.Groups {
			resp.Groups = append(resp.Groups, b.fetchGroup(ctx, rq.version, &req.Groups[i], req.RequireStable))
		}
		return resp
	}
	// Older versions ask for one group: the same in other words.
	one := kmsg.OffsetFetchRequestGroup{Group: req.Group}
	if req.Topics != nil || rq.version < 2 {
		one.Topics = make([]kmsg.OffsetFetchRequestGroupTopic, len(req.Topics))
	}
	for i, t := range req.Topics {
		one.Topics[i].Topic, one.Topics[i].Partitions = t.Topic, t.Partitions
	}
	got := b.fetchGroup(ctx, rq.version, &one, req.RequireStable)
	resp.ErrorCode = got.ErrorCode
	if got.ErrorCode != 0 && rq.version < 2 {
		// There is no place for the group's error: each partition carries it.
		got.Topics = failedTopics(one.Topics, got.ErrorCode)
	}
	for _, t := range got.Topics {
		out := kmsg.OffsetFetchResponseTopic{Topic: t.Topic}
		for _, p := range t.Partitions {
			out.Partitions = append(out.Partitions, kmsg.OffsetFetchResponseTopicPartition(p))
		}
		resp.Topics = append(resp.Topics, out)
	}
	return resp
}

// fetchGroup answers for one group.
func (b *Broker) fetchGroup(ctx context.Context, version int16, g *kmsg.OffsetFetchRequestGroup, stable bool) kmsg.OffsetFetchResponseGroup {
	out := kmsg.OffsetFetchResponseGroup{Group: g.Group}
	if g.Topics == nil {
		all, err := b.groups.Offsets(ctx, g.Group, stable)
		out.ErrorCode, out.Topics = errorCode(err), b.fetchedTopics(all)
		return out
	}
	var of []ident.Partition
	var at []*kmsg.OffsetFetchResponseGroupTopicPartition
	out.Topics = failedTopics(g.Topics, 0)
	for i := range g.Topics {
		id, _, missing := b.committable(version, g.Topics[i].Topic, g.Topics[i].TopicID)
		for k := range out.Topics[i].Partitions {
			p := &out.Topics[i].Partitions[k]
			switch missing {
			case protocol.CodeNone:
				of, at = append(of, ident.Partition{Topic: id, Index: p.Partition}), append(at, p)
			case protocol.CodeUnknownTopicID:
				p.ErrorCode = int16(missing)
			}
		}
	}
	err := b.groups.Lookup(ctx, g.Group, stable, of, func(i int, o controller.Offset) {
		at[i].Offset, at[i].LeaderEpoch, at[i].Metadata = int64(o.Offset), int32(o.LeaderEpoch), &o.Metadata
	})
	if err != nil {
		out.ErrorCode, out.Topics = errorCode(err), nil
	}
	return out
}

// failedTopics answers each partition with no offset and the given code.
func failedTopics(topics []kmsg.OffsetFetchRequestGroupTopic, code int16) []kmsg.OffsetFetchResponseGroupTopic {
	none := ""
	out := make([]kmsg.OffsetFetchResponseGroupTopic, len(topics))
	for i, t := range topics {
		out[i].Topic, out[i].TopicID = t.Topic, t.TopicID
		out[i].Partitions = make([]kmsg.OffsetFetchResponseGroupTopicPartition, len(t.Partitions))
		for k, index := range t.Partitions {
			out[i].Partitions[k] = kmsg.OffsetFetchResponseGroupTopicPartition{
				Partition: index, Offset: -1, LeaderEpoch: -1, Metadata: &none, ErrorCode: code,
			}
		}
	}
	return out
}

// fetchedTopics groups offsets, ordered by topic, into answers. Topics that were deleted are left out.
func (b *Broker) fetchedTopics(all []controller.PartitionOffset) []kmsg.OffsetFetchResponseGroupTopic {
	m := b.store.Map()
	var out []kmsg.OffsetFetchResponseGroupTopic
	for i := range all {
		o := &all[i]
		if i == 0 || o.Partition.Topic != all[i-1].Partition.Topic {
			name, _ := topicNameOf(m, o.Partition.Topic)
			out = append(out, kmsg.OffsetFetchResponseGroupTopic{Topic: name, TopicID: o.Partition.Topic})
		}
		t := &out[len(out)-1]
		t.Partitions = append(t.Partitions, kmsg.OffsetFetchResponseGroupTopicPartition{
			Partition: o.Partition.Index, Offset: int64(o.Offset.Offset), LeaderEpoch: int32(o.LeaderEpoch), Metadata: &o.Metadata,
		})
	}
	kept := out[:0]
	for _, t := range out {
		if t.Topic != "" {
			kept = append(kept, t)
		}
	}
	return kept
}
