package broker

import (
	"cmp"
	"context"
	"slices"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/skeinmq/skein/internal/ident"
	"github.com/skeinmq/skein/protocol"
)

// AlterPartitionReassignments (key 45), v0 to v1.
//
// A partition goes to the first broker of its list, by planned moves: that broker becomes its owner, no data is copied, and the
// older runs are read where they are. The rest of the list is what tools are shown as its replicas (replicas.go); there is
// one copy, whatever it says. Only this partition moves: unless it is alone in its placement group, or all of the group goes to
// the same broker, it is given another group first (reassign.go). The group it ends up in is pinned to the broker.
// The order is written into the map first, in the place of an older one. The answer waits two seconds for the moves, which take
// milliseconds; what is not done then goes on in the broker that was asked, or in another one when that ends. Every broker lists it (ListPartitionReassignments), and
// ends it for a null list of brokers: the partition stays where it was, or goes back.
//
//	v1  whether the replication factor may change (KIP-860)
var alterPartitionReassignments = handler{
	key: 45, name: "AlterPartitionReassignments", min: 0, max: 1,
	handle: (*Broker).handleAlterPartitionReassignments,
}

// reassignPatience is how long the answer waits for the moves.
const reassignPatience = 2 * time.Second

func (b *Broker) handleAlterPartitionReassignments(ctx context.Context, rq *request) kmsg.Response {
	req := rq.body.(*kmsg.AlterPartitionAssignmentsRequest)
	resp := req.ResponseKind().(*kmsg.AlterPartitionAssignmentsResponse)
	resp.AllowReplicationFactorChange = rq.version < 1 || req.AllowReplicationFactorChange
	m := b.store.Map()
	var begun []*reassignment
	at := make(map[*reassignment][2]int) // in the answer
	d := describer{b: b, m: m}
	for i := range req.Topics {
		out := kmsg.NewAlterPartitionAssignmentsResponseTopic()
		out.Topic = req.Topics[i].Topic
		for j := range req.Topics[i].Partitions {
			from := &req.Topics[i].Partitions[j]
			p := kmsg.NewAlterPartitionAssignmentsResponseTopicPartition()
			p.Partition = from.Partition
			r, err := b.checkReassignment(&d, out.Topic, from, rq.version >= 1 && !req.AllowReplicationFactorChange)
			switch {
			case err != nil:
			case from.Replicas == nil:
				err = b.cancelReassignment(ctx, r.id)
			default:
				begun = append(begun, r)
				at[r] = [2]int{i, j}
			}
			p.ErrorCode, p.ErrorMessage = errorCode(err), errorMessage(err)
			if p.ErrorCode == int16(protocol.CodeNoReassignmentInProgress) {
				p.ErrorMessage = nil
			}
			out.Partitions = append(out.Partitions, p)
		}
		resp.Topics = append(resp.Topics, out)
	}
	if len(req.Topics) == 0 {
		resp.ErrorMessage = new(string) // Kafka's is not null here
	}
	for r, err := range b.reassign(ctx, begun) {
		p := &resp.Topics[at[r][0]].Partitions[at[r][1]]
		p.ErrorCode, p.ErrorMessage = errorCode(err), errorMessage(err)
	}
	return resp
}

// checkReassignment checks one partition of a request as Kafka does.
func (b *Broker) checkReassignment(d *describer, topic string, from *kmsg.AlterPartitionAssignmentsRequestTopicPartition, sameFactor bool) (*reassignment, error) {
	m := d.m
	rec := m.Topic(topic)
	switch {
	case isInternal(topic) && from.Replicas != nil:
		return nil, refuse(protocol.CodeInvalidReplicaAssignment, "Partitions of the internal topic %s cannot be reassigned.", topic)
	case isInternal(topic):
		return nil, refuseCode(protocol.CodeNoReassignmentInProgress)
	case rec == nil:
		return nil, refuse(protocol.CodeUnknownTopicOrPartition, "Unable to find a topic named %s.", topic)
	case from.Partition < 0 || int(from.Partition) >= len(rec.Partitions):
		return nil, refuse(protocol.CodeUnknownTopicOrPartition, "Unable to find partition %s:%d.", topic, from.Partition)
	}
	r := &reassignment{id: ident.Partition{Topic: rec.ID, Index: from.Partition}, topic: topic}
	if from.Replicas == nil {
		return r, nil
	}
	if err := b.checkReplicas(m, sortedReplicas(from.Replicas), len(from.Replicas)); err != nil {
		return r, err
	}
	_, log, ok := m.Owner(rec, from.Partition)
	have := max(int(rec.ReplicationFactor), 1)
	if ok && log != nil {
		r.from = log.Host
		have = len(d.replicas(log.Host, rec.ReplicationFactor, m.Assignments(rec.ID).Of(from.Partition)).all)
	}
	if sameFactor && len(from.Replicas) != have {
		return r, refuse(protocol.CodeInvalidReplicationFactor,
			"The replication factor is changed from %d to %d", have, len(from.Replicas))
	}
	r.to = ident.Broker(from.Replicas[0])
	for _, id := range from.Replicas {
		r.list = append(r.list, ident.Broker(id))
	}
	return r, nil
}

// sortedReplicas is the order in which Kafka checks them.
func sortedReplicas(list []int32) []int32 {
	return slices.SortedFunc(slices.Values(list), cmp.Compare[int32])
}
