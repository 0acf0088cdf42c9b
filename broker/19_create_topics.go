package broker

import (
	"context"
	"errors"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"
	"golang.org/x/sync/errgroup"

	"github.com/skeinmq/skein/internal/ident"
	"github.com/skeinmq/skein/internal/kconfig"
	"github.com/skeinmq/skein/protocol"
	"github.com/skeinmq/skein/queuemapper"
)

// CreateTopics (key 19), v0 to v7.
//
// The answer comes when every partition takes writes, wherever it is, as clients produce the moment they have it, or
// after a second if a broker does not answer or cannot be reached; Apache Kafka answers before. Any replication factor is accepted and stored: a partition has one copy, and the
// factor is how many replicas are shown (replicas.go). The brokers of a manual assignment must be of the cluster, and one of each alive;
// the first is the owner at first, if it lives. A topic may be created with 10,000 partitions, as in Kafka, and
// a request may ask for 100,000 in all and 10,000 topics, where Kafka takes 10,000 partitions. Two names of one request that collide are refused.
//
//	v1  validate only, error messages   v4  -1 for the default number of partitions and replicas
//	v5  flexible; configs in the answer  v7  topic id
var createTopics = handler{
	key: 19, name: "CreateTopics", min: 0, max: 7,
	handle: (*Broker).handleCreateTopics,
}

// Limits of one request.
const (
	maxNewPartitions        = 10_000  // of one topic
	maxNewPartitionsRequest = 100_000 // of all topics of a request
	maxNewTopicsRequest     = 10_000
	createsInFlight         = 8
)

func (b *Broker) handleCreateTopics(ctx context.Context, rq *request) kmsg.Response {
	req := rq.body.(*kmsg.CreateTopicsRequest)
	resp := req.ResponseKind().(*kmsg.CreateTopicsResponse)
	ctx, cancel := withRequestTimeout(ctx, req.TimeoutMillis)
	defer cancel()

	plan := b.planTopics(req)
	resp.Topics = make([]kmsg.CreateTopicsResponseTopic, len(plan))
	var work errgroup.Group
	work.SetLimit(createsInFlight)
	for i := range plan {
		work.Go(func() error {
			p := &plan[i]
			if p.err == nil && !req.ValidateOnly {
				var t *topic
				if t, p.err = b.createTopic(ctx, p); p.err == nil {
					p.id = t.id
				}
			}
			resp.Topics[i] = b.createdTopic(p, rq.version)
			return nil
		})
	}
	_ = work.Wait() // no function returns an error: each topic has its own
	if !req.ValidateOnly {
		b.awaitPeers(ctx, b.store.Map().Revision())
	}
	return resp
}

// withRequestTimeout bounds a request by the time that its client gives it.
func withRequestTimeout(ctx context.Context, millis int32) (context.Context, context.CancelFunc) {
	timeout := 30 * time.Second
	if millis > 0 {
		timeout = min(time.Duration(millis)*time.Millisecond, 5*time.Minute)
	}
	return context.WithTimeout(ctx, timeout)
}

// plannedTopic is a topic of the request, checked.
type plannedTopic struct {
	name        string
	partitions  int32
	replication int16
	configs     map[string]string
	assigned    [][]int32 // by partition; empty: nobody asked
	id          ident.Topic
	err         error
}

// planTopics checks the topics of a request; one that is named twice appears once.
func (b *Broker) planTopics(req *kmsg.CreateTopicsRequest) []plannedTopic {
	m := b.store.Map()
	times := make(map[string]int, len(req.Topics))
	for i := range req.Topics {
		times[req.Topics[i].Topic]++
	}
	names := collisions{m: m}
	layers := b.layers(m, nil)
	var plan []plannedTopic
	var total int64
	for i := range req.Topics {
		t := &req.Topics[i]
		n := times[t.Topic]
		if n == 0 {
			continue // the second of a name
		}
		times[t.Topic] = 0
		p := plannedTopic{name: t.Topic}
		if n > 1 {
			p.err = refuse(protocol.CodeInvalidRequest, "Duplicate topic name.")
		} else {
			p.err = b.planTopic(m, layers, &names, t, &p)
		}
		if p.err == nil {
			p.id = newTopicID()
			names.add(p.name)
			total += int64(p.partitions)
		}
		plan = append(plan, p)
	}
	if total > maxNewPartitionsRequest || len(plan) > maxNewTopicsRequest {
		for i := range plan {
			plan[i].err = refuse(protocol.CodePolicyViolation, "Excessively large number of partitions per request.")
		}
	}
	return plan
}

// planTopic checks one topic in the order in which Kafka does: name, configs, numbers.
func (b *Broker) planTopic(m *queuemapper.Map, layers kconfig.Layers, names *collisions, t *kmsg.CreateTopicsRequestTopic, p *plannedTopic) error {
	if err := checkTopicName(t.Topic); err != nil {
		return err
	}
	if err := names.check(t.Topic); err != nil {
		return err
	}
	if m.Topic(t.Topic) != nil || isInternal(t.Topic) {
		return refuse(protocol.CodeTopicAlreadyExists, "Topic '%s' already exists.", t.Topic)
	}
	for i := range t.Configs {
		c := &t.Configs[i]
		if c.Value == nil {
			return refuse(protocol.CodeInvalidConfig, "Null value not supported for topic configs: %s", c.Name)
		}
		if p.configs == nil {
			p.configs = make(map[string]string, len(t.Configs))
		}
		p.configs[c.Name] = *c.Value
	}
	if err := checkSize(p.configs); err != nil {
		return err
	}
	if errs := kconfig.Check(kconfig.KindTopic, p.configs, layers); len(errs) > 0 {
		return configRefusal(protocol.CodeInvalidConfig, errs)
	}
	if len(t.ReplicaAssignment) > 0 {
		return b.planAssigned(m, t, p)
	}
	conf := b.conf()
	switch {
	case t.ReplicationFactor == -1:
		p.replication = conf.DefaultReplicationFactor
	case t.ReplicationFactor < 1:
		return refuse(protocol.CodeInvalidReplicationFactor, "Replication factor must be larger than 0, or -1 to use the default value.")
	default:
		p.replication = t.ReplicationFactor
	}
	switch {
	case t.NumPartitions == -1:
		p.partitions = conf.NumPartitions
	case t.NumPartitions < 1:
		return refuse(protocol.CodeInvalidPartitions, "Number of partitions was set to an invalid non-positive value.")
	default:
		p.partitions = t.NumPartitions
	}
	if p.partitions > maxNewPartitions {
		return refuse(protocol.CodePolicyViolation, "Excessively large number of partitions per request.")
	}
	return nil
}

// planAssigned checks a manual assignment.
func (b *Broker) planAssigned(m *queuemapper.Map, t *kmsg.CreateTopicsRequestTopic, p *plannedTopic) error {
	if t.ReplicationFactor != -1 {
		return refuse(protocol.CodeInvalidRequest, "A manual partition assignment was specified, but replication factor was not set to -1.")
	}
	if t.NumPartitions != -1 {
		return refuse(protocol.CodeInvalidRequest, "A manual partition assignment was specified, but numPartitions was not set to -1.")
	}
	n := len(t.ReplicaAssignment)
	if n > maxNewPartitions {
		return refuse(protocol.CodePolicyViolation, "Excessively large number of partitions per request.")
	}
	seen := make(map[int32]bool, n)
	for i := range t.ReplicaAssignment {
		a := &t.ReplicaAssignment[i]
		if seen[a.Partition] {
			return refuse(protocol.CodeInvalidReplicaAssignment, "Found multiple manual partition assignments for partition %d", a.Partition)
		}
		seen[a.Partition] = true
		if err := b.checkReplicas(m, a.Replicas, len(t.ReplicaAssignment[0].Replicas)); err != nil {
			return err
		}
	}
	for i := range t.ReplicaAssignment {
		if !seen[int32(i)] {
			return refuse(protocol.CodeInvalidReplicaAssignment, "partitions should be a consecutive 0-based integer sequence")
		}
	}
	p.assigned = make([][]int32, n)
	for i := range t.ReplicaAssignment {
		p.assigned[t.ReplicaAssignment[i].Partition] = t.ReplicaAssignment[i].Replicas
	}
	p.partitions, p.replication = int32(n), int16(min(len(t.ReplicaAssignment[0].Replicas), 1<<15-1))
	return nil
}

// checkReplicas checks the brokers that a request assigns a partition to; want is how many the others have.
func (b *Broker) checkReplicas(m *queuemapper.Map, replicas []int32, want int) error {
	if len(replicas) == 0 {
		return refuse(protocol.CodeInvalidReplicaAssignment, "The manual partition assignment includes an empty replica list.")
	}
	seen := make(map[int32]bool, len(replicas))
	alive := false
	for _, id := range replicas {
		if seen[id] {
			return refuse(protocol.CodeInvalidReplicaAssignment, "The manual partition assignment includes the broker %d more than once.", id)
		}
		seen[id] = true
		switch {
		case ident.Broker(id) == b.cfg.ID || m.Broker(ident.Broker(id)) != nil:
			alive = true
		case !hostsLog(m, ident.Broker(id)): // one that is away may be named, as in Kafka
			return refuse(protocol.CodeInvalidReplicaAssignment, "The manual partition assignment includes broker %d, but no such broker is registered.", id)
		}
	}
	if !alive {
		return refuse(protocol.CodeInvalidReplicaAssignment, "All brokers specified in the manual partition assignment are fenced or in controlled shutdown.")
	}
	if len(replicas) != want {
		return refuse(protocol.CodeInvalidReplicaAssignment,
			"The manual partition assignment includes a partition with %d replica(s), but this is not consistent with previous partitions, which have %d replica(s).", len(replicas), want)
	}
	return nil
}

// createdTopic is the answer for one topic.
func (b *Broker) createdTopic(p *plannedTopic, version int16) kmsg.CreateTopicsResponseTopic {
	out := kmsg.NewCreateTopicsResponseTopic()
	out.Topic = p.name
	if p.err != nil {
		if errors.Is(p.err, queuemapper.ErrExists) { // another client was faster
			p.err = refuse(protocol.CodeTopicAlreadyExists, "Topic '%s' already exists.", p.name)
		}
		out.ErrorCode, out.ErrorMessage = errorCode(p.err), errorMessage(p.err)
		return out
	}
	if version < 5 {
		return out
	}
	out.TopicID, out.NumPartitions, out.ReplicationFactor = p.id, p.partitions, p.replication
	entries := b.layers(b.store.Map(), p.configs).Describe(kconfig.KindTopic)
	out.Configs = make([]kmsg.CreateTopicsResponseTopicConfig, len(entries)) // never null: Java clients die of it
	for i, e := range entries {
		c := kmsg.NewCreateTopicsResponseTopicConfig()
		c.Name, c.Value, c.Source = e.Def.Name, e.Value, int8(e.Source)
		if v, ok := p.configs[e.Def.Name]; ok {
			c.Value = &v // as the client wrote it
		}
		out.Configs[i] = c
	}
	return out
}
