package broker

import "github.com/twmb/franz-go/pkg/kmsg"

// reassign asks to put partitions of topics on brokers; nil brokers cancel.
func reassign(ps ...reassigned) func(*adminScript) kmsg.Request {
	return func(*adminScript) kmsg.Request {
		r := kmsg.NewPtrAlterPartitionAssignmentsRequest()
		r.TimeoutMillis = 60000
		for _, p := range ps {
			t := kmsg.NewAlterPartitionAssignmentsRequestTopic()
			t.Topic = p.topic
			t.Partitions = []kmsg.AlterPartitionAssignmentsRequestTopicPartition{{Partition: p.index, Replicas: p.to}}
			r.Topics = append(r.Topics, t)
		}
		return r
	}
}

type reassigned struct {
	topic string
	index int32
	to    []int32
}

// elect asks for the election of leaders; nil partitions are all of the cluster.
func elect(kind int8, topics map[string][]int32) func(*adminScript) kmsg.Request {
	return func(*adminScript) kmsg.Request {
		r := kmsg.NewPtrElectLeadersRequest()
		r.ElectionType, r.TimeoutMillis = kind, 60000
		for name, ps := range topics {
			t := kmsg.NewElectLeadersRequestTopic()
			t.Topic, t.Partitions = name, ps
			r.Topics = append(r.Topics, t)
		}
		if topics != nil && r.Topics == nil {
			r.Topics = []kmsg.ElectLeadersRequestTopic{}
		}
		return r
	}
}

// noRFChange forbids a request to change replication factors.
func noRFChange(req func(*adminScript) kmsg.Request) func(*adminScript) kmsg.Request {
	return func(s *adminScript) kmsg.Request {
		r := req(s).(*kmsg.AlterPartitionAssignmentsRequest)
		r.AllowReplicationFactorChange = false
		return r
	}
}

var reassignCases = []adminCase{
	{name: "reassign to where it is", ver: newest, req: reassign(reassigned{"t1", 0, []int32{1}})},
	{name: "reassign v0", ver: 0, req: reassign(reassigned{"t1", 0, []int32{1}})},
	{name: "reassign unknown topic", ver: newest, req: reassign(reassigned{"nope", 0, []int32{1}})},
	{name: "reassign unknown partition", ver: newest, req: reassign(reassigned{"t1", 99, []int32{1}})},
	{name: "reassign to nobody", ver: newest, req: reassign(reassigned{"t1", 0, []int32{}})},
	{name: "reassign to an unknown broker", ver: newest, req: reassign(reassigned{"t1", 0, []int32{7}})},
	{name: "reassign to one unknown broker", ver: newest, req: reassign(reassigned{"t1", 0, []int32{1, 7}})},
	{name: "reassign twice the same", ver: newest, req: reassign(reassigned{"t1", 0, []int32{1, 1}})},
	{name: "reassign negative broker", ver: newest, req: reassign(reassigned{"t1", 0, []int32{-1}})},
	{name: "reassign many", ver: newest, req: reassign(reassigned{"t1", 0, []int32{1}}, reassigned{"t2", 0, []int32{1}}, reassigned{"nope", 0, []int32{1}})},
	{name: "reassign none", ver: newest, req: reassign()},
	{name: "reassign with another factor", ver: newest, req: noRFChange(reassign(reassigned{"t1", 0, []int32{1, 7}}))},
	{name: "reassign same factor", ver: newest, req: noRFChange(reassign(reassigned{"t1", 0, []int32{1}}))},
	{name: "cancel nothing", ver: newest, req: reassign(reassigned{"t1", 0, nil})},
	{name: "cancel unknown", ver: newest, req: reassign(reassigned{"nope", 0, nil})},
	{name: "reassignments of unknown", ver: newest, req: func(*adminScript) kmsg.Request {
		r := kmsg.NewPtrListPartitionReassignmentsRequest()
		t := kmsg.NewListPartitionReassignmentsRequestTopic()
		t.Topic, t.Partitions = "nope", []int32{0}
		r.Topics = append(r.Topics, t)
		return r
	}},
	{name: "elect preferred", ver: newest, req: elect(0, map[string][]int32{"t1": {0}})},
	{name: "elect preferred v0", ver: 0, req: elect(0, map[string][]int32{"t1": {0}})},
	{name: "elect unclean", ver: newest, req: elect(1, map[string][]int32{"t1": {0}})},
	{name: "elect unknown kind", ver: newest, req: elect(5, map[string][]int32{"t1": {0}})},
	{name: "elect unknown topic", ver: newest, req: elect(0, map[string][]int32{"nope": {0}})},
	{name: "elect unknown partition", ver: newest, req: elect(0, map[string][]int32{"t1": {99}})},
	{name: "elect many", ver: newest, req: elect(0, map[string][]int32{"t1": {0, 99}})},
	{name: "elect none", ver: newest, req: elect(0, map[string][]int32{})},
	{name: "elect all", ver: newest, req: elect(0, nil), differs: "the topic with three replicas exists here"},
}
