package broker

import (
	"fmt"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/skeinmq/skein/protocol"
)

// run is the script; its requests build on each other.
func (s *groupScript) run() {
	topic := newTopic("t", 2, 1)
	req := kmsg.NewPtrCreateTopicsRequest()
	req.Topics, req.TimeoutMillis = []kmsg.CreateTopicsRequestTopic{topic}, 10000
	req.SetVersion(7)
	s.topicID = s.main.ask(req).(*kmsg.CreateTopicsResponse).Topics[0].TopicID
	for { // Kafka makes its offsets topic in the background
		req := kmsg.NewPtrFindCoordinatorRequest()
		req.CoordinatorKey = "warm"
		req.SetVersion(3)
		if s.main.ask(req).(*kmsg.FindCoordinatorResponse).ErrorCode == 0 && s.loaded() {
			break
		}
		time.Sleep(50 * time.Millisecond)
	}
	s.find()
	s.simple()
	s.lifecycle()
	s.static()
	s.limits()
	s.admin()
}

// loaded says whether every partition's coordinator serves.
func (s *groupScript) loaded() bool {
	req := kmsg.NewPtrDescribeGroupsRequest()
	for i := range 500 {
		req.Groups = append(req.Groups, fmt.Sprint("warm", i))
	}
	req.SetVersion(6)
	for _, g := range s.main.ask(req).(*kmsg.DescribeGroupsResponse).Groups {
		if protocol.Code(g.ErrorCode) != protocol.CodeGroupIDNotFound {
			return false
		}
	}
	return true
}

func (s *groupScript) find() {
	for v := int16(0); v <= 6; v++ {
		for _, typ := range []int8{0, 2, 7} {
			if typ == 2 && v >= 6 {
				continue // Apache Kafka 4.3 has a share coordinator
			}
			req := kmsg.NewPtrFindCoordinatorRequest()
			req.CoordinatorKey, req.CoordinatorKeys, req.CoordinatorType = "g", []string{"g", ""}, typ
			s.do(fmt.Sprintf("find type %d", typ), v, req)
		}
	}
}

func commitOf(group string, gen int32, member string, topic string, id [16]byte, parts ...int32) *kmsg.OffsetCommitRequest {
	req := kmsg.NewPtrOffsetCommitRequest()
	req.Group, req.Generation, req.MemberID = group, gen, member
	t := kmsg.NewOffsetCommitRequestTopic()
	t.Topic, t.TopicID = topic, id
	for _, p := range parts {
		op := kmsg.NewOffsetCommitRequestTopicPartition()
		op.Partition, op.Offset, op.LeaderEpoch = p, int64(10+p), 0
		meta := "meta"
		op.Metadata = &meta
		t.Partitions = append(t.Partitions, op)
	}
	req.Topics = append(req.Topics, t)
	return req
}

func fetchOf(version int16, group, topic string, id [16]byte, parts ...int32) *kmsg.OffsetFetchRequest {
	req := kmsg.NewPtrOffsetFetchRequest()
	if version < 8 {
		req.Group = group
		if topic != "" {
			req.Topics = []kmsg.OffsetFetchRequestTopic{{Topic: topic, Partitions: parts}}
		}
		return req
	}
	g := kmsg.NewOffsetFetchRequestGroup()
	g.Group = group
	if topic != "" {
		g.Topics = []kmsg.OffsetFetchRequestGroupTopic{{Topic: topic, TopicID: id, Partitions: parts}}
	}
	req.Groups = append(req.Groups, g)
	return req
}

// simple is committing and fetching without membership.
func (s *groupScript) simple() {
	for v := int16(2); v <= 10; v++ {
		s.do("commit", v, commitOf("simple", -1, "", "t", s.topicID, 0, 7))
		s.do("commit unknown topic", v, commitOf("simple", -1, "", "nope", [16]byte{1, 2, 3}, 0))
		s.do("commit with generation", v, commitOf("fresh", 3, "", "t", s.topicID, 0))
		s.do("commit with member", v, commitOf("simple", 3, "x", "t", s.topicID, 1))
		s.do("commit member only", v, commitOf("simple", -1, "x", "t", s.topicID, 1))
		long := commitOf("simple", -1, "", "t", s.topicID, 0, 1)
		text := fmt.Sprintf("%5000d", 1)
		long.Topics[0].Partitions[1].Metadata = &text
		s.do("commit long metadata", v, long)
		null := commitOf("simple", -1, "", "t", s.topicID, 1)
		null.Topics[0].Partitions[0].Metadata = nil
		s.do("commit null metadata", v, null)
		s.do("commit no group", v, commitOf("", -1, "", "t", s.topicID, 0))
	}
	for v := int16(1); v <= 10; v++ {
		s.do("fetch", v, fetchOf(v, "simple", "t", s.topicID, 0, 1, 9))
		s.do("fetch unknown group", v, fetchOf(v, "nogroup", "t", s.topicID, 0))
		s.do("fetch unknown topic", v, fetchOf(v, "simple", "nope", [16]byte{1, 2, 3}, 0))
		s.do("fetch no group", v, fetchOf(v, "", "t", s.topicID, 0))
		if v >= 2 {
			s.do("fetch all", v, fetchOf(v, "simple", "", s.topicID))
			s.do("fetch all unknown group", v, fetchOf(v, "nogroup", "", s.topicID))
		}
		if v >= 7 {
			req := fetchOf(v, "simple", "t", s.topicID, 0)
			req.RequireStable = true
			s.do("fetch stable", v, req)
		}
	}
}

func joinOf(group, member, instance string, protocols ...string) *kmsg.JoinGroupRequest {
	req := kmsg.NewPtrJoinGroupRequest()
	req.Group, req.MemberID, req.SessionTimeoutMillis, req.RebalanceTimeoutMillis, req.ProtocolType = group, member, 300_000, 300_000, "consumer" // no answer comes from a timeout
	if instance != "" {
		req.InstanceID = &instance
	}
	for _, p := range protocols {
		req.Protocols = append(req.Protocols, kmsg.JoinGroupRequestProtocol{Name: p, Metadata: []byte{0, 1, 0, 0, 0, 1, 0, 1, 't', 0, 0, 0, 0}})
	}
	return req
}

func syncOf(group, member, instance string, gen int32, assign ...string) *kmsg.SyncGroupRequest {
	req := kmsg.NewPtrSyncGroupRequest()
	typ, proto := "consumer", "range"
	req.Group, req.MemberID, req.Generation, req.ProtocolType, req.Protocol = group, member, gen, &typ, &proto
	if instance != "" {
		req.InstanceID = &instance
	}
	for _, m := range assign {
		req.GroupAssignment = append(req.GroupAssignment, kmsg.SyncGroupRequestGroupAssignment{MemberID: m, MemberAssignment: []byte("as")})
	}
	return req
}

func beatOf(group, member, instance string, gen int32) *kmsg.HeartbeatRequest {
	req := kmsg.NewPtrHeartbeatRequest()
	req.Group, req.MemberID, req.Generation = group, member, gen
	if instance != "" {
		req.InstanceID = &instance
	}
	return req
}

func leaveOf(group string, members ...string) *kmsg.LeaveGroupRequest {
	req := kmsg.NewPtrLeaveGroupRequest()
	req.Group, req.MemberID = group, members[0]
	for _, m := range members {
		req.Members = append(req.Members, kmsg.LeaveGroupRequestMember{MemberID: m})
	}
	return req
}

// lifecycle is a dynamic group through all states, for each version of JoinGroup.
func (s *groupScript) lifecycle() {
	for v := int16(0); v <= 9; v++ {
		g := fmt.Sprintf("dyn%d", v)
		sv, hv, lv := min(v, 5), min(v, 4), min(v, 5)
		s.do("join unknown member", v, joinOf(g, "cl-nobody", "", "range"))
		bad := joinOf(g, "", "", "range")
		bad.SessionTimeoutMillis = 5999
		s.do("join short session", v, bad)
		bad = joinOf(g, "", "", "range")
		bad.SessionTimeoutMillis = 1800001
		s.do("join long session", v, bad)
		s.do("join no group", v, joinOf("", "", "", "range"))
		s.do("join no protocols", v, joinOf(g, "", ""))
		bad = joinOf(g, "", "", "range")
		bad.ProtocolType = ""
		s.do("join no type", v, bad)

		first := s.do("join", v, joinOf(g, "", "", "range", "sticky")).(*kmsg.JoinGroupResponse)
		if v >= 4 {
			first = s.do("join with id", v, joinOf(g, first.MemberID, "", "range", "sticky")).(*kmsg.JoinGroupResponse)
		}
		a, gen := first.MemberID, first.Generation
		s.describe(g)
		s.do("commit while completing", 8, commitOf(g, gen, a, "t", s.topicID, 0))
		s.do("beat while completing", hv, beatOf(g, a, "", gen))
		s.do("join again the same", v, joinOf(g, a, "", "range", "sticky"))
		s.do("sync old", sv, syncOf(g, a, "", gen-1))
		s.do("sync nobody", sv, syncOf(g, "nobody", "", gen))
		s.do("sync no group", sv, syncOf("", a, "", gen))
		s.do("sync unknown group", sv, syncOf("nogroup", a, "", gen))
		other := syncOf(g, a, "", gen, a)
		name := "sticky"
		other.Protocol = &name
		if sv >= 5 {
			s.do("sync other protocol", sv, other)
			null := syncOf(g, a, "", gen, a)
			null.Protocol = nil
			s.do("sync null protocol", sv, null)
		}
		s.do("sync", sv, syncOf(g, a, "", gen, a, "stranger"))
		s.do("sync again", sv, syncOf(g, a, "", gen))
		s.describe(g)
		for _, m := range []string{a, "nobody", ""} {
			for _, n := range []int32{gen, gen + 1, -1} {
				s.do(fmt.Sprintf("beat %d", n), hv, beatOf(g, m, "", n))
				s.do(fmt.Sprintf("commit %d", n), 8, commitOf(g, n, m, "t", s.topicID, 0))
				s.do(fmt.Sprintf("commit %d", n), 9, commitOf(g, n, m, "t", s.topicID, 0))
			}
		}
		s.do("beat no group", hv, beatOf("", a, "", gen))
		s.do("beat unknown group", hv, beatOf("nogroup", a, "", gen))
		s.do("join other protocol", v, joinOf(g, a, "", "roundrobin"))
		s.do("join new other protocol", v, joinOf(g, "", "", "roundrobin"))

		// A second member comes; the first one hears of it.
		second := ""
		if v >= 4 {
			second = s.do("join second", v, joinOf(g, "", "", "range")).(*kmsg.JoinGroupResponse).MemberID
		}
		wait := s.park("second joined", v, joinOf(g, second, "", "range"))
		s.settle(g, 2)
		s.describe(g)
		s.do("beat while preparing", hv, beatOf(g, a, "", gen))
		s.do("sync while preparing", sv, syncOf(g, a, "", gen))
		s.do("commit while preparing", 8, commitOf(g, gen, a, "t", s.topicID, 0))
		s.do("rejoin", v, joinOf(g, a, "", "range"))
		second = wait().(*kmsg.JoinGroupResponse).MemberID
		gen++
		wait = s.park("second synced", sv, syncOf(g, second, "", gen))
		s.do("leader synced", sv, syncOf(g, a, "", gen, a, second))
		wait()
		s.describe(g)
		s.do("follower rejoins the same", v, joinOf(g, second, "", "range"))
		s.do("delete with members", min(v, 2), deleteOf(g))
		s.do("leave", lv, leaveOf(g, second, "nobody"))
		s.do("leave again", lv, leaveOf(g, second))
		s.do("leave no group", lv, leaveOf("", second))
		s.do("leave unknown group", lv, leaveOf("nogroup", second))
		s.describe(g)
		s.do("rejoin alone", v, joinOf(g, a, "", "range"))
		s.do("leave last", lv, leaveOf(g, a))
		s.describe(g)
		s.do("commit when empty", 8, commitOf(g, -1, "", "t", s.topicID, 1))
		s.do("commit when empty with member", 8, commitOf(g, gen, a, "t", s.topicID, 1))
		s.do("sync when empty", sv, syncOf(g, a, "", gen))
		s.do("beat when empty", hv, beatOf(g, a, "", gen))
	}
}

// static is static membership.
func (s *groupScript) static() {
	for v := int16(5); v <= 9; v++ {
		g := fmt.Sprintf("st%d", v)
		one := s.do("static join", v, joinOf(g, "", "i1", "range")).(*kmsg.JoinGroupResponse)
		s.do("static sync", 5, syncOf(g, one.MemberID, "i1", 1, one.MemberID))
		s.do("static describe", 4, describeOf(g))
		back := s.do("static leader returns", v, joinOf(g, "", "i1", "range")).(*kmsg.JoinGroupResponse)
		s.do("static sync of the old", 5, syncOf(g, one.MemberID, "i1", 1))
		s.do("static sync", 5, syncOf(g, back.MemberID, "i1", 1))
		s.do("static beat of the old", 4, beatOf(g, one.MemberID, "i1", 1))
		s.do("static beat without instance", 4, beatOf(g, back.MemberID, "", 1))
		s.do("static beat unknown instance", 4, beatOf(g, back.MemberID, "i9", 1))
		s.do("static join of the old", v, joinOf(g, one.MemberID, "i1", "range"))
		c := commitOf(g, 1, one.MemberID, "t", s.topicID, 0)
		id := "i1"
		c.InstanceID = &id
		s.do("static commit of the old", 8, c)
		wait := s.park("static second joined", v, joinOf(g, "", "i2", "range"))
		s.settle(g, 2)
		lead := s.do("static first rejoins", v, joinOf(g, back.MemberID, "i1", "range")).(*kmsg.JoinGroupResponse)
		two := wait().(*kmsg.JoinGroupResponse)
		wait = s.park("static second synced", 5, syncOf(g, two.MemberID, "i2", 2))
		s.do("static leader synced", 5, syncOf(g, lead.MemberID, "i1", 2, lead.MemberID, two.MemberID))
		wait()
		two = s.do("static follower returns", v, joinOf(g, "", "i2", "range")).(*kmsg.JoinGroupResponse)
		s.do("static follower synced", 5, syncOf(g, two.MemberID, "i2", 2))
		leave := kmsg.NewPtrLeaveGroupRequest()
		leave.Group = g
		for _, i := range []string{"i2", "i9"} {
			leave.Members = append(leave.Members, kmsg.LeaveGroupRequestMember{InstanceID: &i})
		}
		leave.Members = append(leave.Members, kmsg.LeaveGroupRequestMember{MemberID: one.MemberID, InstanceID: &id})
		s.do("static leave", 5, leave)
		s.do("static describe", 4, describeOf(g))
	}
}

// limits is group.max.size: three.
func (s *groupScript) limits() {
	var waits []func() kmsg.Response
	first := s.do("first", 3, joinOf("big", "", "", "range")).(*kmsg.JoinGroupResponse)
	s.do("first synced", 3, syncOf("big", first.MemberID, "", 1, first.MemberID))
	for i := range 2 {
		waits = append(waits, s.park("more", 3, joinOf("big", "", "", "range")))
		s.settle("big", 2+i)
	}
	waits = append(waits, s.park("the first again", 3, joinOf("big", first.MemberID, "", "range")))
	for _, w := range waits {
		w()
	}
	s.do("one too many", 3, joinOf("big", "", "", "range"))
	s.do("one too many", 5, joinOf("big", "", "", "range"))
}

func describeOf(groups ...string) *kmsg.DescribeGroupsRequest {
	req := kmsg.NewPtrDescribeGroupsRequest()
	req.Groups, req.IncludeAuthorizedOperations = groups, true
	return req
}

func (s *groupScript) describe(group string) { s.do("describe", 6, describeOf(group)) }

func deleteOf(groups ...string) *kmsg.DeleteGroupsRequest {
	req := kmsg.NewPtrDeleteGroupsRequest()
	req.Groups = groups
	return req
}

// admin is describing, listing and deleting.
func (s *groupScript) admin() {
	for v := int16(0); v <= 6; v++ {
		s.do("describe several", v, describeOf("dyn1", "nogroup", "simple", ""))
	}
	for v := int16(0); v <= 5; v++ {
		for _, states := range [][]string{nil, {"empty"}, {"Stable", " EMPTY"}, {"Nonsense"}} {
			for _, types := range [][]string{nil, {"Classic"}, {"consumer"}, {"nonsense"}} {
				if v < 5 && types != nil || v < 4 && states != nil {
					continue
				}
				req := kmsg.NewPtrListGroupsRequest()
				req.StatesFilter, req.TypesFilter = states, types
				s.do(fmt.Sprint("list ", states, types), v, req)
			}
		}
	}
	drop := func(group, topic string, parts ...int32) {
		req := kmsg.NewPtrOffsetDeleteRequest()
		req.Group = group
		t := kmsg.NewOffsetDeleteRequestTopic()
		t.Topic = topic
		for _, p := range parts {
			t.Partitions = append(t.Partitions, kmsg.OffsetDeleteRequestTopicPartition{Partition: p})
		}
		req.Topics = append(req.Topics, t)
		s.do("delete offsets", 0, req)
	}
	drop("simple", "t", 0, 9)
	drop("simple", "nope", 0)
	drop("nogroup", "t", 0)
	drop("nogroup", "nope", 0)
	drop("", "t", 0)
	drop("st5", "t", 0)
	drop("big", "t", 0)
	s.do("what is left", 8, fetchOf(8, "simple", "", s.topicID))
	for v := int16(0); v <= 2; v++ {
		s.do("delete", v, deleteOf("simple", "nogroup", "big", "", fmt.Sprintf("dyn%d", v), fmt.Sprintf("dyn%d", v)))
	}
	s.do("deleted", 8, fetchOf(8, "simple", "", s.topicID))
	s.describe("dyn0")
}
