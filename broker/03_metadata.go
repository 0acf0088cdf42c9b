package broker

import (
	"context"
	"errors"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/skeinmq/skein/internal/ident"
	"github.com/skeinmq/skein/protocol"
	"github.com/skeinmq/skein/queuemapper"
)

// Metadata (key 3), v0 to v13.
//
// The leader is the owner by the map. While a failover runs that is the dead broker, which is listed with its last
// address: a partition is without a leader, and LEADER_NOT_AVAILABLE, only before its group is opened for the first time, or
// when its owner has been gone for minutes and nobody could take over. A topic that does not exist is created with
// num.partitions if auto.create.topics.enable and the request allow it (versions before v4 always do), and the answer has
// it complete, where Apache Kafka answers once with UNKNOWN_TOPIC_OR_PARTITION. The lists of replicas are made up
// (replicas.go, ADR 20).
//
//	v0  an empty list means all topics   v1  null does; controller, racks, internal topics
//	v2  cluster id                       v4  auto-creation may be forbidden
//	v5  offline replicas                 v7  leader epoch
//	v8  authorized operations (cluster's until v10)
//	v9  flexible                         v10 topic ids
//	v12 topics by id                     v13 error for the whole (KIP-1102)
var metadata = handler{
	key: 3, name: "Metadata", min: 0, max: 13,
	handle: (*Broker).handleMetadata,
}

func (b *Broker) handleMetadata(ctx context.Context, rq *request) kmsg.Response {
	req := rq.body.(*kmsg.MetadataRequest)
	resp := req.ResponseKind().(*kmsg.MetadataResponse)
	m := b.store.Map()
	id := m.Cluster().ID
	resp.ClusterID, resp.ControllerID = &id, b.controllerID(m)
	for _, node := range append(b.liveBrokers(m), b.leavers(m)...) {
		r := kmsg.NewMetadataResponseBroker()
		r.NodeID, r.Host, r.Port = node.NodeID, node.Host, node.Port
		if node.Rack != "" {
			r.Rack = &node.Rack
		}
		resp.Brokers = append(resp.Brokers, r)
	}
	resp.AuthorizedOperations = noOperations
	if rq.version >= 8 && req.IncludeClusterAuthorizedOperations {
		resp.AuthorizedOperations = clusterOperations
	}
	d := describer{b: b, m: m}
	switch {
	case req.Topics == nil || rq.version == 0 && len(req.Topics) == 0:
		for name := range b.topicNames(m) {
			resp.Topics = append(resp.Topics, d.metadata(b.topic(name), name))
		}
	default:
		create := rq.version < 4 || req.AllowAutoTopicCreation
		for i := range req.Topics {
			if t := &req.Topics[i]; !namedBefore(req.Topics[:i], t) {
				resp.Topics = append(resp.Topics, b.metadataOf(ctx, &d, t, create))
			}
		}
	}
	if rq.version >= 8 && req.IncludeTopicAuthorizedOperations {
		for i := range resp.Topics {
			resp.Topics[i].AuthorizedOperations = topicOperations
		}
	}
	return resp
}

// namedBefore reports whether a request names the topic twice; Kafka answers once. Only short lists are searched.
func namedBefore(before []kmsg.MetadataRequestTopic, t *kmsg.MetadataRequestTopic) bool {
	if len(before) > 64 || t.Topic == nil {
		return false
	}
	for i := range before {
		if before[i].Topic != nil && *before[i].Topic == *t.Topic {
			return true
		}
	}
	return false
}

// metadataOf answers for one topic of the request.
func (b *Broker) metadataOf(ctx context.Context, d *describer, from *kmsg.MetadataRequestTopic, create bool) kmsg.MetadataResponseTopic {
	out := kmsg.NewMetadataResponseTopic()
	out.Topic, out.TopicID = from.Topic, from.TopicID
	if from.Topic == nil || from.TopicID != ([16]byte{}) {
		id := ident.Topic(from.TopicID)
		if t := b.topicByID(id); t != nil {
			return d.metadata(t, t.name)
		}
		if id == offsetsTopicID {
			return d.metadata(nil, offsetsTopic)
		}
		out.Topic = nil
		out.ErrorCode = errorCode(refuseCode(protocol.CodeUnknownTopicID))
		return out
	}
	name := *from.Topic
	t := b.topic(name)
	if t == nil && !isInternal(name) {
		var err error
		if t, err = b.autoCreate(ctx, name, create); err != nil {
			out.ErrorCode = errorCode(err)
			return out
		}
		d.m = b.store.Map()
	}
	return d.metadata(t, name)
}

// autoCreate creates a topic that a client asked for, if that is allowed.
func (b *Broker) autoCreate(ctx context.Context, name string, allowed bool) (*topic, error) {
	conf := b.conf()
	if err := checkTopicName(name); err != nil {
		return nil, err
	}
	if !allowed || !conf.AutoCreateTopics {
		return nil, refuseCode(protocol.CodeUnknownTopicOrPartition)
	}
	t, err := b.createTopic(ctx, &plannedTopic{name: name, partitions: conf.NumPartitions, replication: conf.DefaultReplicationFactor})
	if errors.Is(err, queuemapper.ErrExists) { // another client was faster
		if rec := b.store.Map().Topic(name); rec != nil {
			t, err = b.awaitWritable(ctx, rec.ID)
		}
	}
	if err == nil {
		b.awaitPeers(ctx, b.store.Map().Revision())
	}
	if err != nil && ctx.Err() == nil {
		b.log.Warn("create topic on demand", "topic", name, "error", err)
	}
	return t, err
}

// describer fills descriptions of partitions. Equal lists of replicas are shared, as there may be many.
type describer struct {
	b       *Broker
	m       *queuemapper.Map
	members []ident.Broker
	lists   map[replicaKey]replicas
}

// placed is where a partition is.
type placed struct {
	err    error
	leader int32 // -1: none
	epoch  int32
	replicas
}

// place describes a partition; assigned is the list of replicas that somebody asked for.
func (d *describer) place(t *topic, p *partition, assigned []ident.Broker) placed {
	rec := t.newest()
	run, log, ok := d.m.Owner(rec, p.index)
	if !ok || log == nil {
		return placed{err: refuseCode(protocol.CodeLeaderNotAvailable), leader: -1, epoch: -1}
	}
	hosts := noHosts
	if run.Start > 0 && d.b.conf().ReadRedirect {
		hosts = d.readHosts(rec, p.index, log.Host)
	}
	out := placed{leader: int32(log.Host), epoch: int32(run.Generation.Epoch)}
	out.replicas = d.replicasWith(log.Host, rec.ReplicationFactor, assigned, hosts)
	if _, known := d.b.endpoint(d.m, log.Host); !known {
		// Those that are alive do not know its records.
		out.err, out.leader, out.inSync = refuseCode(protocol.CodeLeaderNotAvailable), -1, nil
	}
	return out
}

// metadata describes a topic; t is nil for the internal one.
func (d *describer) metadata(t *topic, name string) kmsg.MetadataResponseTopic {
	out := kmsg.NewMetadataResponseTopic()
	out.Topic = &name
	if t == nil {
		return d.internalMetadata(out)
	}
	out.TopicID = t.id
	ps, assigned := t.partitions(), d.m.Assignments(t.id)
	out.Partitions = make([]kmsg.MetadataResponseTopicPartition, len(ps))
	for i, p := range ps {
		at := d.place(t, p, assigned.Of(p.index))
		r := &out.Partitions[i]
		r.Default()
		r.Partition, r.ErrorCode, r.Leader, r.LeaderEpoch = p.index, errorCode(at.err), at.leader, at.epoch
		r.Replicas, r.ISR, r.OfflineReplicas = at.all, at.inSync, at.offline
	}
	return out
}

// internalMetadata describes __consumer_offsets.
func (d *describer) internalMetadata(out kmsg.MetadataResponseTopic) kmsg.MetadataResponseTopic {
	if !isInternal(*out.Topic) { // it was deleted meanwhile
		out.ErrorCode = errorCode(refuseCode(protocol.CodeUnknownTopicOrPartition))
		return out
	}
	out.TopicID, out.IsInternal = offsetsTopicID, true
	factor := d.b.conf().OffsetsReplicationFactor
	for i := range int32(offsetsPartitions) {
		r := kmsg.NewMetadataResponseTopicPartition()
		r.Partition = i
		if node, epoch, ok := d.b.coordinatorNode(d.m, i); ok {
			at := d.replicas(ident.Broker(node.NodeID), factor, nil)
			r.Leader, r.LeaderEpoch, r.Replicas, r.ISR, r.OfflineReplicas = node.NodeID, int32(epoch), at.all, at.inSync, at.offline
		} else {
			r.Leader, r.LeaderEpoch, r.ErrorCode = -1, -1, errorCode(refuseCode(protocol.CodeLeaderNotAvailable))
		}
		out.Partitions = append(out.Partitions, r)
	}
	return out
}
