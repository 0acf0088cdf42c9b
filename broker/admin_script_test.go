package broker

import (
	"strings"

	"github.com/twmb/franz-go/pkg/kmsg"
)

const anyRF = "Skein accepts and stores any replication factor: a partition has one copy"

var long250 = strings.Repeat("x", 250)

// adminCases is the script: what it asks for, in order, of a fresh one-broker cluster with node id 1.
var adminCases = []adminCase{
	// CreateTopics
	{name: "create plain", ver: newest, req: create(false, newTopic("t1", 2, 1))},
	{name: "create again", ver: newest, req: create(false, newTopic("t1", 2, 1))},
	{name: "create again validate", ver: newest, req: create(true, newTopic("t1", 2, 1))},
	{name: "create validate", ver: newest, req: create(true, newTopic("t2", 3, 1, "retention.ms", "5000"))},
	{name: "create after validate", ver: newest, req: create(false, newTopic("t2", 3, -1, "retention.ms", "5000", "cleanup.policy", "compact, delete"))},
	{name: "create defaults", ver: newest, req: create(false, newTopic("t3", -1, -1))},
	{name: "create v0", ver: 2, req: create(false, newTopic("old-v2", 1, 1))},
	{name: "create v4", ver: 4, req: create(false, newTopic("old-v4", -1, -1))},
	{name: "create v5", ver: 5, req: create(false, newTopic("old-v5", 1, 1))},
	{name: "create none", ver: newest, req: create(false)},
	{name: "create rf 3", ver: newest, req: create(false, newTopic("rf3", 1, 3)), differs: anyRF},
	{name: "create rf 0", ver: newest, req: create(false, newTopic("rf0", 1, 0))},
	{name: "create rf -2", ver: newest, req: create(false, newTopic("rf-2", 1, -2))},
	{name: "create 0 partitions", ver: newest, req: create(false, newTopic("p0", 0, 1))},
	{name: "create -2 partitions", ver: newest, req: create(false, newTopic("p-2", -2, 1))},
	{name: "create empty name", ver: newest, req: create(false, newTopic("", 1, 1))},
	{name: "create dot", ver: newest, req: create(false, newTopic(".", 1, 1))},
	{name: "create dots", ver: newest, req: create(false, newTopic("..", 1, 1))},
	{name: "create bad character", ver: newest, req: create(false, newTopic("a b", 1, 1))},
	{name: "create long name", ver: newest, req: create(false, newTopic(long250, 1, 1))},
	{name: "create collision pair", ver: newest, req: create(false, newTopic("my.topic", 1, 1))},
	{name: "create collision", ver: newest, req: create(false, newTopic("my_topic", 1, 1))},
	{name: "create collision in request", ver: newest, req: create(true, newTopic("her.topic", 1, 1), newTopic("her_topic", 1, 1)), differs: "Kafka compares with existing topics only, and would create both"},
	{name: "create duplicate", ver: newest, req: create(false, newTopic("dup", 1, 1), newTopic("dup", 2, 1), newTopic("single", 1, 1))},
	{name: "create bad config", ver: newest, req: create(false, newTopic("c1", 1, 1, "retention.ms", "x"))},
	{name: "create unknown config", ver: newest, req: create(false, newTopic("c2", 1, 1, "foo", "x"))},
	{name: "create null config", ver: newest, req: create(false, newTopic("c3", 1, 1, "retention.ms", "null"))},
	{name: "create conflicting configs", ver: newest, req: create(false, newTopic("c4", 1, 1, "min.compaction.lag.ms", "10", "max.compaction.lag.ms", "5"))},
	{name: "create config twice", ver: newest, req: create(false, newTopic("c5", 1, 1, "retention.ms", "1", "retention.ms", "2"))},
	{name: "create assigned", ver: newest, req: create(false, assigned("m1", -1, -1, 0, []int32{1}, []int32{1}))},
	{name: "create assigned with count", ver: newest, req: create(false, assigned("m2", 2, -1, 0, []int32{1}, []int32{1}))},
	{name: "create assigned with rf", ver: newest, req: create(false, assigned("m3", -1, 1, 0, []int32{1}))},
	{name: "create assigned gap", ver: newest, req: create(false, assigned("m4", -1, -1, 1, []int32{1}))},
	{name: "create assigned empty", ver: newest, req: create(false, assigned("m5", -1, -1, 0, []int32{}))},
	{name: "create assigned twice the same", ver: newest, req: create(false, assigned("m6", -1, -1, 0, []int32{1, 1}))},
	{name: "create assigned unknown broker", ver: newest, req: create(false, assigned("m7", -1, -1, 0, []int32{7}))},
	{name: "create assigned uneven", ver: newest, req: create(false, assigned("m8", -1, -1, 0, []int32{1}, []int32{1, 2}))},
	{name: "create assigned twice one partition", ver: newest, req: create(false, func() kmsg.CreateTopicsRequestTopic {
		t := assigned("m9", -1, -1, 0, []int32{1}, []int32{1})
		t.ReplicaAssignment[1].Partition = 0
		return t
	}())},
	{name: "create too many", ver: newest, req: create(true, newTopic("big", 10001, 1))},
	{name: "create too many in sum", ver: newest, req: create(true, newTopic("big1", 6000, 1), newTopic("big2", 6000, 1)), differs: "the limit is per topic, and a request may ask for 100,000 partitions in all"},
	{name: "create the limit", ver: newest, req: create(true, newTopic("big3", 10000, 1)), differs: "Kafka cannot write that many records in one batch; we can"},

	// CreatePartitions
	{name: "extend", ver: newest, req: extend(false, grow(false, "t1", 4))},
	{name: "extend same", ver: newest, req: extend(false, grow(false, "t1", 4))},
	{name: "extend fewer", ver: newest, req: extend(false, grow(false, "t1", 1))},
	{name: "extend zero", ver: newest, req: extend(false, grow(false, "t1", 0))},
	{name: "extend unknown", ver: newest, req: extend(false, grow(false, "nope", 4))},
	{name: "extend validate", ver: newest, req: extend(true, grow(true, "t1", 9))},
	{name: "extend assigned", ver: newest, req: extend(false, grow(false, "t1", 5, []int32{1}))},
	{name: "extend assigned short", ver: newest, req: extend(false, grow(false, "t1", 7, []int32{1}))},
	{name: "extend assigned long", ver: newest, req: extend(false, grow(false, "t1", 6, []int32{1}, []int32{1}))},
	{name: "extend assigned unknown broker", ver: newest, req: extend(false, grow(false, "t1", 6, []int32{9}))},
	{name: "extend assigned empty", ver: newest, req: extend(false, grow(false, "t1", 6, []int32{}))},
	{name: "extend assigned rf", ver: newest, req: extend(false, grow(false, "t1", 6, []int32{1, 1}))},
	{name: "extend twice", ver: newest, req: extend(false, grow(false, "t1", 6), grow(false, "t1", 7))},
	{name: "extend none", ver: newest, req: extend(false)},
	{name: "extend too many", ver: newest, req: extend(true, grow(true, "t1", 10006)), differs: "a clear answer instead of UNKNOWN_SERVER_ERROR"},
	{name: "extend v0", ver: 0, req: extend(false, grow(false, "t1", 6))},

	// DescribeConfigs
	{name: "describe topic", ver: newest, req: describe(onTopic, "t2")},
	{name: "describe topic v1", ver: 1, req: describe(onTopic, "t2", "retention.ms", "cleanup.policy", "no.such")},
	{name: "describe missing topic", ver: newest, req: describe(onTopic, "nope")},
	{name: "describe bad topic", ver: newest, req: describe(onTopic, "bad name")},
	{name: "describe empty topic", ver: newest, req: describe(onTopic, "")},
	{name: "describe none", ver: newest, req: describe(onTopic, "t2", []string{}...)},
	{name: "describe broker", ver: newest, req: describe(onBroker, "1", "message.max.bytes", "num.partitions", "log.retention.ms", "log.retention.hours", "delete.topic.enable", "nope", "log.flush.interval.ms", "log.cleaner.io.max.bytes.per.second")},
	{name: "describe cluster default", ver: newest, req: describe(onBroker, "")},
	{name: "describe other broker", ver: newest, req: describe(onBroker, "2")},
	{name: "describe bad broker", ver: newest, req: describe(onBroker, "x")},
	{name: "describe logger", ver: newest, req: describe(onLogger, "1"), differs: "there are no loggers whose level could be set"},
	{name: "describe logger of none", ver: newest, req: describe(onLogger, "")},
	{name: "describe logger of another", ver: newest, req: describe(onLogger, "7")},
	{name: "describe group", ver: newest, req: describe(onGroup, "g1")},
	{name: "describe no group", ver: newest, req: describe(onGroup, "")},
	{name: "describe metrics", ver: newest, req: describe(onMetrics, "m1")},
	{name: "describe no metrics", ver: newest, req: describe(onMetrics, "")},
	{name: "describe unknown type", ver: newest, req: describe(3, "x")},

	// IncrementalAlterConfigs
	{name: "alter set", ver: newest, req: alter(false, change(onTopic, "t1", op{opSet, "retention.ms", "60000"}, op{opSet, "max.message.bytes", "2000"}))},
	{name: "alter set seen", ver: newest, req: describe(onTopic, "t1", "retention.ms", "max.message.bytes"), settle: true},
	{name: "alter validate", ver: newest, req: alter(true, change(onTopic, "t1", op{opSet, "retention.ms", "70000"}))},
	{name: "alter validate changed nothing", ver: newest, req: describe(onTopic, "t1", "retention.ms"), settle: true},
	{name: "alter delete", ver: newest, req: alter(false, change(onTopic, "t1", op{opDelete, "retention.ms", "null"}))},
	{name: "alter delete seen", ver: newest, req: describe(onTopic, "t1", "retention.ms"), settle: true},
	{name: "alter delete absent", ver: newest, req: alter(false, change(onTopic, "t1", op{opDelete, "segment.ms", "null"}, op{opDelete, "foo", "null"}))},
	{name: "alter append default", ver: newest, req: alter(false, change(onTopic, "t1", op{opAppend, "cleanup.policy", "compact"}))},
	{name: "alter append seen", ver: newest, req: describe(onTopic, "t1", "cleanup.policy"), settle: true},
	{name: "alter append again", ver: newest, req: alter(false, change(onTopic, "t1", op{opAppend, "cleanup.policy", "compact"}))},
	{name: "alter append again seen", ver: newest, req: describe(onTopic, "t1", "cleanup.policy"), settle: true},
	{name: "alter subtract", ver: newest, req: alter(false, change(onTopic, "t1", op{opSubtract, "cleanup.policy", "delete,compact"}))},
	{name: "alter subtract seen", ver: newest, req: describe(onTopic, "t1", "cleanup.policy"), settle: true},
	{name: "alter subtract absent", ver: newest, req: alter(false, change(onTopic, "t1", op{opSubtract, "cleanup.policy", "bogus"}))},
	{name: "alter append bad", ver: newest, req: alter(false, change(onTopic, "t1", op{opAppend, "cleanup.policy", "bogus"}))},
	{name: "alter append scalar", ver: newest, req: alter(false, change(onTopic, "t1", op{opAppend, "retention.ms", "1"}))},
	{name: "alter subtract scalar", ver: newest, req: alter(false, change(onTopic, "t1", op{opSubtract, "retention.ms", "1"}))},
	{name: "alter append unknown", ver: newest, req: alter(false, change(onTopic, "t1", op{opAppend, "foo", "1"}))},
	{name: "alter null set", ver: newest, req: alter(false, change(onTopic, "t1", op{opSet, "retention.ms", "null"}))},
	{name: "alter null append", ver: newest, req: alter(false, change(onTopic, "t1", op{opAppend, "cleanup.policy", "null"}))},
	{name: "alter unknown", ver: newest, req: alter(false, change(onTopic, "t1", op{opSet, "foo", "1"}))},
	{name: "alter bad value", ver: newest, req: alter(false, change(onTopic, "t1", op{opSet, "retention.ms", "x"}))},
	{name: "alter conflict", ver: newest, req: alter(false, change(onTopic, "t1", op{opSet, "min.compaction.lag.ms", "10"}, op{opSet, "max.compaction.lag.ms", "5"}))},
	{name: "alter twice", ver: newest, req: alter(false, change(onTopic, "t1", op{opSet, "retention.ms", "1"}, op{opDelete, "retention.ms", "null"}))},
	{name: "alter nothing", ver: newest, req: alter(false, change(onTopic, "t1"))},
	{name: "alter missing topic", ver: newest, req: alter(false, change(onTopic, "nope", op{opSet, "retention.ms", "1"}))},
	{name: "alter no topic", ver: newest, req: alter(false, change(onTopic, "", op{opSet, "retention.ms", "1"}))},
	{name: "alter resource twice", ver: newest, req: alter(false, change(onTopic, "t1", op{opSet, "retention.ms", "1"}), change(onTopic, "t1", op{opSet, "retention.ms", "2"}))},
	{name: "alter two, one bad", ver: newest, req: alter(false, change(onTopic, "t1", op{opSet, "segment.bytes", "2000000"}), change(onTopic, "t2", op{opSet, "retention.ms", "y"}))},
	{name: "alter two seen", ver: newest, req: describe(onTopic, "t1", "segment.bytes"), settle: true},
	{name: "alter cluster", ver: newest, req: alter(false, change(onBroker, "", op{opSet, "message.max.bytes", "3000000"}, op{opSet, "log.retention.ms", "90000"}))},
	{name: "alter cluster seen", ver: newest, req: describe(onBroker, ""), settle: true},
	{name: "alter broker", ver: newest, req: alter(false, change(onBroker, "1", op{opSet, "message.max.bytes", "4000000"}, op{opSet, "log.roll.ms", "500000"}))},
	{name: "alter broker seen", ver: newest, req: describe(onBroker, "1", "message.max.bytes", "log.roll.ms", "log.retention.ms"), settle: true},
	{name: "alter broker topic sees", ver: newest, req: describe(onTopic, "t2", "max.message.bytes", "retention.ms", "segment.ms"), settle: true},
	{name: "alter broker append", ver: newest, req: alter(false, change(onBroker, "1", op{opAppend, "log.cleanup.policy", "compact"}))},
	{name: "alter broker append seen", ver: newest, req: describe(onBroker, "1", "log.cleanup.policy"), settle: true},
	{name: "alter broker append scalar", ver: newest, req: alter(false, change(onBroker, "1", op{opAppend, "message.max.bytes", "1"}))},
	{name: "alter broker delete", ver: newest, req: alter(false, change(onBroker, "1", op{opDelete, "message.max.bytes", "null"}, op{opDelete, "log.roll.ms", "null"}, op{opDelete, "log.cleanup.policy", "null"}))},
	{name: "alter cluster delete", ver: newest, req: alter(false, change(onBroker, "", op{opDelete, "message.max.bytes", "null"}, op{opDelete, "log.retention.ms", "null"}))},
	{name: "alter cluster deleted", ver: newest, req: describe(onBroker, ""), settle: true},
	{name: "alter broker read-only", ver: newest, req: alter(false, change(onBroker, "1", op{opSet, "num.partitions", "5"}))},
	{name: "alter cluster read-only", ver: newest, req: alter(false, change(onBroker, "", op{opSet, "num.partitions", "5"}))},
	{name: "alter broker bad value", ver: newest, req: alter(false, change(onBroker, "1", op{opSet, "message.max.bytes", "x"}))},
	{name: "alter broker retention 0", ver: newest, req: alter(false, change(onBroker, "", op{opSet, "log.retention.ms", "0"}))},
	{name: "alter broker unknown", ver: newest, req: alter(false, change(onBroker, "1", op{opSet, "foo", "x"})), differs: "a name that nothing reads is refused, not stored"},
	{name: "alter other broker", ver: newest, req: alter(false, change(onBroker, "2", op{opSet, "message.max.bytes", "5"}))},
	{name: "alter bad broker", ver: newest, req: alter(false, change(onBroker, "x", op{opSet, "message.max.bytes", "5"}))},
	{name: "alter logger", ver: newest, req: alter(false, change(onLogger, "1", op{opSet, "root", "ERROR"})), differs: "there are no loggers whose level could be set"},
	{name: "alter unknown type", ver: newest, req: alter(false, change(3, "x", op{opSet, "a", "b"}))},
	{name: "alter group", ver: newest, req: alter(false, change(onGroup, "g1", op{opSet, "consumer.session.timeout.ms", "50000"}))},
	{name: "alter group seen", ver: newest, req: describe(onGroup, "g1", "consumer.session.timeout.ms"), settle: true},
	{name: "alter group low", ver: newest, req: alter(false, change(onGroup, "g1", op{opSet, "consumer.session.timeout.ms", "5"}))},
	{name: "alter group high", ver: newest, req: alter(false, change(onGroup, "g1", op{opSet, "consumer.session.timeout.ms", "100000"}))},
	{name: "alter group unknown", ver: newest, req: alter(false, change(onGroup, "g1", op{opSet, "foo", "5"}))},
	{name: "alter no group", ver: newest, req: alter(false, change(onGroup, "", op{opSet, "foo", "5"}))},
	{name: "alter metrics", ver: newest, req: alter(false, change(onMetrics, "m1", op{opSet, "interval.ms", "1000"}, op{opSet, "metrics", "a,b"}, op{opSet, "match", "client_id=x"}))},
	{name: "alter metrics seen", ver: newest, req: describe(onMetrics, "m1"), settle: true},
	{name: "alter metrics bad interval", ver: newest, req: alter(false, change(onMetrics, "m1", op{opSet, "interval.ms", "5"}))},
	{name: "alter metrics bad match", ver: newest, req: alter(false, change(onMetrics, "m1", op{opSet, "match", "foo=x"}))},
	{name: "alter metrics unknown", ver: newest, req: alter(false, change(onMetrics, "m1", op{opSet, "foo", "x"}))},
	{name: "alter no metrics", ver: newest, req: alter(false, change(onMetrics, "", op{opSet, "interval.ms", "1000"}))},
	{name: "alter internal topic", ver: newest, req: alter(false, change(onTopic, "__consumer_offsets", op{opSet, "retention.ms", "1000"})), differs: "__consumer_offsets always exists, and cannot be altered"},

	// ListConfigResources
	{name: "resources all", ver: newest, req: resources(), differs: "there are no loggers, and __consumer_offsets always exists"},
	{name: "resources v0", ver: 0, req: resources()},
	{name: "resources topics", ver: newest, req: resources(2), differs: "there are no loggers, and __consumer_offsets always exists"},
	{name: "resources groups", ver: newest, req: resources(32, 16)},
	{name: "resources unknown", ver: newest, req: resources(3)},

	// AlterConfigs
	{name: "replace", ver: newest, req: replace(false, onTopic, "t1", "retention.ms", "7000")},
	{name: "replace seen", ver: newest, req: describe(onTopic, "t1", "retention.ms", "max.message.bytes", "segment.bytes"), settle: true},
	{name: "replace validate", ver: newest, req: replace(true, onTopic, "t1", "retention.ms", "8000")},
	{name: "replace bad", ver: newest, req: replace(false, onTopic, "t1", "retention.ms", "x")},
	{name: "replace unknown", ver: newest, req: replace(false, onTopic, "t1", "foo", "x")},
	{name: "replace null", ver: newest, req: replace(false, onTopic, "t1", "retention.ms", "null")},
	{name: "replace twice", ver: newest, req: replace(false, onTopic, "t1", "retention.ms", "1", "retention.ms", "2")},
	{name: "replace missing", ver: newest, req: replace(false, onTopic, "nope", "retention.ms", "1")},
	{name: "replace with nothing", ver: 0, req: replace(false, onTopic, "t1")},
	{name: "replace with nothing seen", ver: newest, req: describe(onTopic, "t1", "retention.ms"), settle: true},
	{name: "replace cluster", ver: newest, req: replace(false, onBroker, "", "message.max.bytes", "5000000")},
	{name: "replace cluster seen", ver: newest, req: describe(onBroker, ""), settle: true},
	{name: "replace cluster with nothing", ver: newest, req: replace(false, onBroker, "")},
	{name: "replace read-only", ver: newest, req: replace(false, onBroker, "1", "num.partitions", "5")},
	{name: "replace logger", ver: newest, req: replace(false, onLogger, "1", "root", "INFO")},

	// DeleteRecords; the script writes ten records to t1-0 before.
	{name: "records written", ver: newest, req: func(s *adminScript) kmsg.Request { return s.produce("t1", 0, 10) }},
	{name: "truncate", ver: newest, req: truncate("t1", 0, 4)},
	{name: "truncate back", ver: newest, req: truncate("t1", 0, 2)},
	{name: "truncate past", ver: newest, req: truncate("t1", 0, 11)},
	{name: "truncate negative", ver: newest, req: truncate("t1", 0, -2)},
	{name: "truncate all", ver: newest, req: truncate("t1", 0, -1)},
	{name: "truncate empty partition", ver: newest, req: truncate("t1", 1, -1, 2, 0)},
	{name: "truncate unknown partition", ver: newest, req: truncate("t1", 99, 0)},
	{name: "truncate unknown topic", ver: newest, req: truncate("nope", 0, 0)},
	{name: "truncate none", ver: newest, req: func(*adminScript) kmsg.Request { return kmsg.NewPtrDeleteRecordsRequest() }},
	{name: "truncate v0", ver: 0, req: truncate("t1", 0, 10)},
	{name: "truncate compacted", ver: newest, req: alter(false, change(onTopic, "t3", op{opSet, "cleanup.policy", "compact"}))},
	{name: "truncate compacted only", ver: newest, req: truncate("t3", 0, 0)},

	// DescribeLogDirs
	{name: "log dirs", ver: newest, req: logDirs(map[string][]int32{"t1": {0, 1}}), differs: "sizes are ours"},
	{name: "log dirs of none", ver: newest, req: logDirs(map[string][]int32{"nope": {0}})},
	{name: "log dirs v1", ver: 1, req: logDirs(map[string][]int32{"t3": {0}})},

	// What a broker without the feature says.
	{name: "acls", ver: newest, req: func(*adminScript) kmsg.Request {
		r := kmsg.NewPtrDescribeACLsRequest()
		r.ResourceType, r.ResourcePatternType, r.Operation, r.PermissionType = 1, 1, 1, 1
		return r
	}},
	{name: "reassignments", ver: newest, req: func(*adminScript) kmsg.Request { return kmsg.NewPtrListPartitionReassignmentsRequest() }},
	{name: "reassignments of one", ver: newest, req: func(*adminScript) kmsg.Request {
		r := kmsg.NewPtrListPartitionReassignmentsRequest()
		t := kmsg.NewListPartitionReassignmentsRequestTopic()
		t.Topic, t.Partitions = "t1", []int32{0}
		r.Topics = append(r.Topics, t)
		return r
	}},
	{name: "quotas", ver: newest, req: func(*adminScript) kmsg.Request {
		r := kmsg.NewPtrDescribeClientQuotasRequest()
		c := kmsg.NewDescribeClientQuotasRequestComponent()
		c.EntityType, c.MatchType = "client-id", 2
		r.Components = append(r.Components, c)
		return r
	}},
	{name: "quotas strict", ver: newest, req: func(*adminScript) kmsg.Request {
		r := kmsg.NewPtrDescribeClientQuotasRequest()
		r.Strict = true
		return r
	}},
	{name: "quotas unknown type", ver: newest, req: func(*adminScript) kmsg.Request {
		r := kmsg.NewPtrDescribeClientQuotasRequest()
		c := kmsg.NewDescribeClientQuotasRequestComponent()
		c.EntityType, c.MatchType = "foo", 2
		r.Components = append(r.Components, c)
		return r
	}},
	{name: "scram", ver: newest, req: func(*adminScript) kmsg.Request { return kmsg.NewPtrDescribeUserSCRAMCredentialsRequest() }},
	{name: "scram of one", ver: newest, req: func(*adminScript) kmsg.Request {
		r := kmsg.NewPtrDescribeUserSCRAMCredentialsRequest()
		u := kmsg.NewDescribeUserSCRAMCredentialsRequestUser()
		u.Name = "alice"
		r.Users = append(r.Users, u)
		return r
	}},
	{name: "features", ver: newest, req: func(*adminScript) kmsg.Request {
		r := kmsg.NewPtrUpdateFeaturesRequest()
		f := kmsg.NewUpdateFeaturesRequestFeatureUpdate()
		f.Feature, f.MaxVersionLevel, f.UpgradeType = "foo.version", 1, 1
		r.FeatureUpdates = append(r.FeatureUpdates, f)
		return r
	}},
	{name: "features v1", ver: 1, req: func(*adminScript) kmsg.Request {
		r := kmsg.NewPtrUpdateFeaturesRequest()
		f := kmsg.NewUpdateFeaturesRequestFeatureUpdate()
		f.Feature, f.MaxVersionLevel, f.UpgradeType = "foo.version", 1, 1
		r.FeatureUpdates = append(r.FeatureUpdates, f)
		return r
	}},

	// DeleteTopics
	{name: "delete unknown", ver: newest, req: remove(byName("nope"))},
	{name: "delete unknown id", ver: newest, req: remove(byID([16]byte{1, 2, 3}))},
	{name: "delete zero id", ver: newest, req: remove(byID([16]byte{}))},
	{name: "delete name and id", ver: newest, req: func(s *adminScript) kmsg.Request {
		t := byName("t1")
		t.TopicID = [16]byte{1, 2, 3}
		return remove(t)(s)
	}},
	{name: "delete twice by name", ver: newest, req: remove(byName("t2"), byName("t2"))},
	{name: "delete same by name and id", ver: newest, req: func(s *adminScript) kmsg.Request {
		return remove(byName("t2"), byID(s.ids["t2"]))(s)
	}},
	{name: "delete by id", ver: newest, req: func(s *adminScript) kmsg.Request { return remove(byID(s.ids["t2"]))(s) }},
	{name: "delete by name", ver: newest, req: remove(byName("t3"))},
	{name: "delete again", ver: newest, req: remove(byName("t3"))},
	{name: "delete v1", ver: 1, req: remove(byName("old-v2"), byName("nope"))},
	{name: "delete v5", ver: 5, req: remove(byName("old-v4"), byName("nope"))},
	{name: "delete none", ver: newest, req: remove()},
	{name: "create anew", ver: newest, req: create(false, newTopic("t2", 1, 1))},
}
