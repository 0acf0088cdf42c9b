package broker

import (
	"context"
	"errors"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/skeinmq/skein/internal/ident"
	"github.com/skeinmq/skein/protocol"
	"github.com/skeinmq/skein/queuemapper"
)

// CreatePartitions (key 37), v0 to v3.
//
// The answer comes when every new partition takes writes, wherever it is. Assignments are as in CreateTopics.
//
//	v1  throttle time   v2  flexible
var createPartitions = handler{
	key: 37, name: "CreatePartitions", min: 0, max: 3,
	handle: (*Broker).handleCreatePartitions,
}

// maxTopicPartitions of one topic: its record must fit into one transaction of the map's store.
const maxTopicPartitions = 100_000

// casRetries bounds how often a change is tried again after somebody else changed the same record.
const casRetries = 16

func (b *Broker) handleCreatePartitions(ctx context.Context, rq *request) kmsg.Response {
	req := rq.body.(*kmsg.CreatePartitionsRequest)
	resp := req.ResponseKind().(*kmsg.CreatePartitionsResponse)
	ctx, cancel := withRequestTimeout(ctx, req.TimeoutMillis)
	defer cancel()
	times := make(map[string]int, len(req.Topics))
	for i := range req.Topics {
		times[req.Topics[i].Topic]++
	}
	for i := range req.Topics {
		t := &req.Topics[i]
		n := times[t.Topic]
		if n == 0 {
			continue // the second of a name
		}
		times[t.Topic] = 0
		var err error
		if n > 1 {
			err = refuse(protocol.CodeInvalidRequest, "Duplicate topic name.")
		} else {
			err = b.addPartitions(ctx, t, req.ValidateOnly)
		}
		out := kmsg.NewCreatePartitionsResponseTopic()
		out.Topic, out.ErrorCode, out.ErrorMessage = t.Topic, errorCode(err), errorMessage(err)
		if codeOf(err) == protocol.CodeUnknownTopicOrPartition {
			out.ErrorMessage = nil
		}
		resp.Topics = append(resp.Topics, out)
	}
	if !req.ValidateOnly {
		b.awaitPeers(ctx, b.store.Map().Revision())
	}
	return resp
}

// addPartitions grows one topic.
func (b *Broker) addPartitions(ctx context.Context, t *kmsg.CreatePartitionsRequestTopic, validateOnly bool) error {
	for range casRetries {
		m := b.store.Map()
		rec := m.Topic(t.Topic)
		if err := b.checkGrowth(m, rec, t); err != nil || validateOnly {
			return err
		}
		first := int32(len(rec.Partitions))
		places := m.PlaceNew(rec.ID, first, t.Count-first)
		var assigned map[int32][]ident.Broker
		if len(t.Assignment) > 0 {
			lists := make([][]int32, len(t.Assignment))
			for i := range t.Assignment {
				lists[i] = t.Assignment[i].Replicas
			}
			var hosts []ident.Broker
			hosts, assigned = assignments(first, lists)
			places = m.PlaceAt(rec.ID, first, hosts)
		}
		_, err := b.store.AddPartitions(ctx, rec, places)
		if err == nil && assigned != nil {
			err = b.store.Assign(ctx, rec.ID, assigned)
		}
		if err == nil {
			_, err = b.awaitWritable(ctx, rec.ID)
			return err
		}
		if !errors.Is(err, queuemapper.ErrConflict) {
			return err
		}
	}
	return refuse(protocol.CodeRequestTimedOut, "Topic '%s' was changed by others all the time; try again.", t.Topic)
}

func (b *Broker) checkGrowth(m *queuemapper.Map, rec *queuemapper.Topic, t *kmsg.CreatePartitionsRequestTopic) error {
	if isInternal(t.Topic) {
		return refuse(protocol.CodePolicyViolation, "Topic '%s' is internal: its number of partitions is fixed.", t.Topic)
	}
	if rec == nil {
		return refuseCode(protocol.CodeUnknownTopicOrPartition)
	}
	have := int32(len(rec.Partitions))
	switch {
	case t.Count == have:
		return refuse(protocol.CodeInvalidPartitions, "Topic already has %d partition(s).", have)
	case t.Count < have:
		return refuse(protocol.CodeInvalidPartitions, "The topic %s currently has %d partition(s); %d would not be an increase.", t.Topic, have, t.Count)
	case t.Count-have > maxNewPartitions:
		return refuse(protocol.CodePolicyViolation, "Excessively large number of partitions per request.")
	case t.Count > maxTopicPartitions:
		return refuse(protocol.CodeInvalidPartitions, "A topic may have %d partitions.", maxTopicPartitions)
	case t.Assignment != nil && len(t.Assignment) != int(t.Count-have):
		return refuse(protocol.CodeInvalidReplicaAssignment,
			"Attempted to add %d additional partition(s), but only %d assignment(s) were specified.", t.Count-have, len(t.Assignment))
	}
	for i := range t.Assignment {
		if err := b.checkReplicas(m, t.Assignment[i].Replicas, len(t.Assignment[0].Replicas)); err != nil {
			return err
		}
	}
	return nil
}
