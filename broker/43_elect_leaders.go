package broker

import (
	"context"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/skeinmq/skein/internal/ident"
	"github.com/skeinmq/skein/protocol"
	"github.com/skeinmq/skein/queuemapper"
)

// ElectLeaders (key 43), v0 to v2.
//
// The preferred leader of a partition is the first of the replicas that it was assigned, or else the broker that its placement
// group is pinned to; it is made the owner by a planned move. Without either the owner is the preferred one:
// ELECTION_NOT_NEEDED. There is nothing to elect uncleanly: a partition whose owner is dead has been taken over, or nobody knows its records.
//
//	v1  type of the election   v2  flexible
var electLeaders = handler{
	key: 43, name: "ElectLeaders", min: 0, max: 2,
	handle: (*Broker).handleElectLeaders,
}

// Types of election.
const (
	electPreferred = 0
	electUnclean   = 1
)

func (b *Broker) handleElectLeaders(ctx context.Context, rq *request) kmsg.Response {
	req := rq.body.(*kmsg.ElectLeadersRequest)
	resp := req.ResponseKind().(*kmsg.ElectLeadersResponse)
	ctx, cancel := withRequestTimeout(ctx, req.TimeoutMillis)
	defer cancel()
	kind := req.ElectionType
	if rq.version == 0 {
		kind = electPreferred
	}
	m := b.store.Map()
	topics := req.Topics
	if topics == nil {
		for t := range m.Topics() {
			all := kmsg.ElectLeadersRequestTopic{Topic: t.Name}
			for i := range t.Partitions {
				all.Partitions = append(all.Partitions, int32(i))
			}
			topics = append(topics, all)
		}
	}
	for i := range topics {
		out := kmsg.NewElectLeadersResponseTopic()
		out.Topic = topics[i].Topic
		for _, index := range topics[i].Partitions {
			var err error
			if kind != electPreferred && kind != electUnclean {
				err = refuse(protocol.CodeInvalidRequest, "Unknown election type %d", kind)
				resp.ErrorCode = errorCode(err)
			} else {
				err = b.electLeader(ctx, m, out.Topic, index, kind)
			}
			if req.Topics == nil && codeOf(err) == protocol.CodeElectionNotNeeded {
				continue // not told, where nobody asked for the partition
			}
			p := kmsg.NewElectLeadersResponseTopicPartition()
			p.Partition, p.ErrorCode, p.ErrorMessage = index, errorCode(err), errorMessage(err)
			out.Partitions = append(out.Partitions, p)
		}
		resp.Topics = append(resp.Topics, out)
	}
	return resp
}

// electLeader makes the preferred leader of a partition its owner.
func (b *Broker) electLeader(ctx context.Context, m *queuemapper.Map, topic string, index int32, kind int8) error {
	rec := m.Topic(topic)
	if isInternal(topic) && index >= 0 && index < offsetsPartitions {
		return refuse(protocol.CodeElectionNotNeeded, "Leader election not needed for topic partition.")
	}
	if rec == nil {
		return refuse(protocol.CodeUnknownTopicOrPartition, "No such topic as %s", topic)
	}
	if index < 0 || int(index) >= len(rec.Partitions) {
		return refuse(protocol.CodeUnknownTopicOrPartition, "No such partition as %s-%d", topic, index)
	}
	m = b.store.Map() // a move for another partition may have brought this one along
	run, log, ok := m.Owner(rec, index)
	if !ok || log == nil {
		return refuse(protocol.CodeEligibleLeadersNotAvailable, "The partition has no leader.")
	}
	group := run.Generation.Group
	pin, pinned := m.Pin(group)
	assigned := m.Assignments(rec.ID).Of(index)
	switch {
	case kind == electUnclean && log.Host != b.cfg.ID && m.Broker(log.Host) == nil:
		return refuse(protocol.CodeEligibleLeadersNotAvailable, "Failed to elect leader for topic partition: its owner is dead, and nobody else has its records.")
	case kind == electPreferred && len(assigned) > 0 && assigned[0] != log.Host && (!pinned || pin.Broker != assigned[0]):
		r := &reassignment{id: ident.Partition{Topic: rec.ID, Index: index}, topic: topic, to: assigned[0], list: assigned}
		return b.electAssigned(ctx, r)
	case kind == electUnclean || !pinned || pin.Broker == log.Host:
		return refuse(protocol.CodeElectionNotNeeded, "Leader election not needed for topic partition.")
	}
	return b.electPinned(ctx, m, group, pin.Broker)
}

func (b *Broker) electPinned(ctx context.Context, m *queuemapper.Map, group ident.Group, to ident.Broker) error {
	log, ok := openLogOf(m, to)
	if !ok {
		return refuse(protocol.CodePreferredLeaderNotAvailable, "The preferred leader was not available.")
	}
	if err := b.askMove(ctx, m, group, log); err != nil {
		return refuse(protocol.CodePreferredLeaderNotAvailable, "The preferred leader was not available: %v", err)
	}
	return nil
}

// electAssigned brings a partition to the first of its replicas, and nothing that lives in its group.
func (b *Broker) electAssigned(ctx context.Context, r *reassignment) error {
	b.reassigns.step.Lock()
	defer b.reassigns.step.Unlock()
	if err := b.bring(ctx, r); err != nil {
		return refuse(protocol.CodePreferredLeaderNotAvailable, "The preferred leader was not available: %v", err)
	}
	return nil
}
