package broker

import (
	"github.com/twmb/franz-go/pkg/kmsg"
)

// adminCase is one request of the script that is put to Apache Kafka and to Skein. The
// requests build on each other.
type adminCase struct {
	name string
	ver  int16 // -1: the newest
	req  func(s *adminScript) kmsg.Request
	// differs says why Skein's answer is its own; it then stands in skein.json.
	differs string
	// eventually: Kafka does it in the background; ask until the answer is stable.
	settle bool
}

const newest = -1

func text(s string) *string { return &s }

func newTopic(name string, partitions int32, rf int16, configs ...string) kmsg.CreateTopicsRequestTopic {
	t := kmsg.NewCreateTopicsRequestTopic()
	t.Topic, t.NumPartitions, t.ReplicationFactor = name, partitions, rf
	for i := 0; i < len(configs); i += 2 {
		c := kmsg.NewCreateTopicsRequestTopicConfig()
		c.Name = configs[i]
		if configs[i+1] != "null" {
			c.Value = &configs[i+1]
		}
		t.Configs = append(t.Configs, c)
	}
	return t
}

func assigned(name string, partitions int32, rf int16, index int32, brokers ...[]int32) kmsg.CreateTopicsRequestTopic {
	t := newTopic(name, partitions, rf)
	for i, b := range brokers {
		a := kmsg.NewCreateTopicsRequestTopicReplicaAssignment()
		a.Partition, a.Replicas = index+int32(i), b
		t.ReplicaAssignment = append(t.ReplicaAssignment, a)
	}
	return t
}

func create(validate bool, topics ...kmsg.CreateTopicsRequestTopic) func(*adminScript) kmsg.Request {
	return func(*adminScript) kmsg.Request {
		r := kmsg.NewPtrCreateTopicsRequest()
		r.Topics, r.ValidateOnly, r.TimeoutMillis = topics, validate, 10000
		return r
	}
}

func remove(topics ...kmsg.DeleteTopicsRequestTopic) func(*adminScript) kmsg.Request {
	return func(s *adminScript) kmsg.Request {
		r := kmsg.NewPtrDeleteTopicsRequest()
		r.TimeoutMillis = 10000
		r.Topics = topics
		for _, t := range topics {
			if t.Topic != nil {
				r.TopicNames = append(r.TopicNames, *t.Topic)
			}
		}
		return r
	}
}

func byName(n string) kmsg.DeleteTopicsRequestTopic {
	t := kmsg.NewDeleteTopicsRequestTopic()
	t.Topic = &n
	return t
}

func byID(id [16]byte) kmsg.DeleteTopicsRequestTopic {
	t := kmsg.NewDeleteTopicsRequestTopic()
	t.TopicID = id
	return t
}

func grow(validate bool, name string, count int32, brokers ...[]int32) kmsg.CreatePartitionsRequestTopic {
	t := kmsg.NewCreatePartitionsRequestTopic()
	t.Topic, t.Count = name, count
	for _, b := range brokers {
		a := kmsg.NewCreatePartitionsRequestTopicAssignment()
		a.Replicas = b
		t.Assignment = append(t.Assignment, a)
	}
	return t
}

func extend(validate bool, topics ...kmsg.CreatePartitionsRequestTopic) func(*adminScript) kmsg.Request {
	return func(*adminScript) kmsg.Request {
		r := kmsg.NewPtrCreatePartitionsRequest()
		r.Topics, r.ValidateOnly, r.TimeoutMillis = topics, validate, 10000
		return r
	}
}

// op is one change of IncrementalAlterConfigs: name, operation, value ("null" for none).
type op struct {
	op          kmsg.IncrementalAlterConfigOp
	name, value string
}

const (
	opSet      = kmsg.IncrementalAlterConfigOpSet
	opDelete   = kmsg.IncrementalAlterConfigOpDelete
	opAppend   = kmsg.IncrementalAlterConfigOpAppend
	opSubtract = kmsg.IncrementalAlterConfigOpSubtract
)

func change(kind kmsg.ConfigResourceType, name string, ops ...op) kmsg.IncrementalAlterConfigsRequestResource {
	r := kmsg.NewIncrementalAlterConfigsRequestResource()
	r.ResourceType, r.ResourceName = kind, name
	for _, o := range ops {
		c := kmsg.NewIncrementalAlterConfigsRequestResourceConfig()
		c.Name, c.Op = o.name, o.op
		if o.value != "null" {
			c.Value = text(o.value)
		}
		r.Configs = append(r.Configs, c)
	}
	return r
}

func alter(validate bool, resources ...kmsg.IncrementalAlterConfigsRequestResource) func(*adminScript) kmsg.Request {
	return func(*adminScript) kmsg.Request {
		r := kmsg.NewPtrIncrementalAlterConfigsRequest()
		r.Resources, r.ValidateOnly = resources, validate
		return r
	}
}

func replace(validate bool, kind kmsg.ConfigResourceType, name string, configs ...string) func(*adminScript) kmsg.Request {
	return func(*adminScript) kmsg.Request {
		r := kmsg.NewPtrAlterConfigsRequest()
		r.ValidateOnly = validate
		rs := kmsg.NewAlterConfigsRequestResource()
		rs.ResourceType, rs.ResourceName = kind, name
		for i := 0; i < len(configs); i += 2 {
			c := kmsg.NewAlterConfigsRequestResourceConfig()
			c.Name = configs[i]
			if configs[i+1] != "null" {
				c.Value = &configs[i+1]
			}
			rs.Configs = append(rs.Configs, c)
		}
		r.Resources = append(r.Resources, rs)
		return r
	}
}

func describe(kind kmsg.ConfigResourceType, name string, only ...string) func(*adminScript) kmsg.Request {
	return func(*adminScript) kmsg.Request {
		r := kmsg.NewPtrDescribeConfigsRequest()
		r.IncludeSynonyms = true
		rs := kmsg.NewDescribeConfigsRequestResource()
		rs.ResourceType, rs.ResourceName = kind, name
		rs.ConfigNames = only
		r.Resources = append(r.Resources, rs)
		return r
	}
}

func truncate(topic string, to ...int64) func(*adminScript) kmsg.Request {
	return func(*adminScript) kmsg.Request {
		r := kmsg.NewPtrDeleteRecordsRequest()
		r.TimeoutMillis = 10000
		t := kmsg.NewDeleteRecordsRequestTopic()
		t.Topic = topic
		for i := 0; i < len(to); i += 2 {
			p := kmsg.NewDeleteRecordsRequestTopicPartition()
			p.Partition, p.Offset = int32(to[i]), to[i+1]
			t.Partitions = append(t.Partitions, p)
		}
		r.Topics = append(r.Topics, t)
		return r
	}
}

func logDirs(topics map[string][]int32) func(*adminScript) kmsg.Request {
	return func(*adminScript) kmsg.Request {
		r := kmsg.NewPtrDescribeLogDirsRequest()
		for n, ps := range topics {
			t := kmsg.NewDescribeLogDirsRequestTopic()
			t.Topic, t.Partitions = n, ps
			r.Topics = append(r.Topics, t)
		}
		return r
	}
}

func resources(types ...int8) func(*adminScript) kmsg.Request {
	return func(*adminScript) kmsg.Request {
		r := kmsg.NewPtrListConfigResourcesRequest()
		r.ResourceTypes = types
		return r
	}
}

const (
	onTopic   = kmsg.ConfigResourceTypeTopic
	onBroker  = kmsg.ConfigResourceTypeBroker
	onLogger  = kmsg.ConfigResourceTypeBrokerLogger
	onMetrics = kmsg.ConfigResourceTypeClientMetrics
	onGroup   = kmsg.ConfigResourceTypeGroupConfig
)
