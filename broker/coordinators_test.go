package broker

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/skeinmq/skein/broker/coordinator"
	"github.com/skeinmq/skein/internal/etcdtest"
	"github.com/skeinmq/skein/internal/ident"
	"github.com/skeinmq/skein/queuemapper"
)

// moveCoordinators moves the placement groups of coordinator partitions to another broker's log.
func moveCoordinators(t *testing.T, from, to *cluster, partitions ...int32) {
	t.Helper()
	m := from.b.store.Map()
	var groups []ident.Group
	for _, p := range partitions {
		if g := m.CoordinatorGroup(p); !slices.Contains(groups, g) && m.Group(g).Current().Log != to.logOf(0) {
			groups = append(groups, g)
		}
	}
	for _, v := range from.b.moveGroups(t.Context(), groups, to.logOf(0)) {
		if v.Error != "" {
			t.Fatalf("move group %d: %s", v.Group, v.Error)
		}
	}
	to.await(func(m *queuemapper.Map) bool {
		for _, p := range partitions {
			if host, _, _ := m.Coordinator(p); host != to.id {
				return false
			}
		}
		return true
	})
}

// groupRequests is one request of each API that only the group's coordinator serves, with where its code is.
func groupRequests(group string, topic *topic) []struct {
	rq   kmsg.Request
	code func(kmsg.Response) int16
} {
	name := topic.name
	join := kmsg.NewPtrJoinGroupRequest()
	join.Version, join.Group, join.ProtocolType, join.SessionTimeoutMillis, join.MemberID = 9, group, "consumer", 10_000, "m"
	join.Protocols = []kmsg.JoinGroupRequestProtocol{{Name: "range"}}
	kind, protocol := "consumer", "range"
	sync := kmsg.NewPtrSyncGroupRequest()
	sync.Version, sync.Group, sync.MemberID, sync.ProtocolType, sync.Protocol = 5, group, "m", &kind, &protocol
	beat := kmsg.NewPtrHeartbeatRequest()
	beat.Version, beat.Group, beat.MemberID = 4, group, "m"
	leave := kmsg.NewPtrLeaveGroupRequest()
	leave.Version, leave.Group, leave.Members = 5, group, []kmsg.LeaveGroupRequestMember{{MemberID: "m"}}
	commit := kmsg.NewPtrOffsetCommitRequest()
	commit.Version, commit.Group, commit.Generation = 9, group, -1
	commit.Topics = []kmsg.OffsetCommitRequestTopic{{Topic: name, Partitions: []kmsg.OffsetCommitRequestTopicPartition{{Offset: 1, LeaderEpoch: -1}}}}
	fetch := kmsg.NewPtrOffsetFetchRequest()
	fetch.Version = 9
	fetch.Groups = []kmsg.OffsetFetchRequestGroup{{Group: group, MemberEpoch: -1, Topics: []kmsg.OffsetFetchRequestGroupTopic{{Topic: name, Partitions: []int32{0}}}}}
	all := kmsg.NewPtrOffsetFetchRequest()
	all.Version, all.RequireStable = 9, true
	all.Groups = []kmsg.OffsetFetchRequestGroup{{Group: group, MemberEpoch: -1}}
	describe := kmsg.NewPtrDescribeGroupsRequest()
	describe.Version, describe.Groups = 5, []string{group}
	del := kmsg.NewPtrDeleteGroupsRequest()
	del.Version, del.Groups = 2, []string{group}
	offsets := kmsg.NewPtrOffsetDeleteRequest()
	offsets.Group = group
	offsets.Topics = []kmsg.OffsetDeleteRequestTopic{{Topic: name, Partitions: []kmsg.OffsetDeleteRequestTopicPartition{{}}}}
	fetched := func(r kmsg.Response) int16 { return r.(*kmsg.OffsetFetchResponse).Groups[0].ErrorCode }
	return []struct {
		rq   kmsg.Request
		code func(kmsg.Response) int16
	}{
		{join, func(r kmsg.Response) int16 { return r.(*kmsg.JoinGroupResponse).ErrorCode }},
		{sync, func(r kmsg.Response) int16 { return r.(*kmsg.SyncGroupResponse).ErrorCode }},
		{beat, func(r kmsg.Response) int16 { return r.(*kmsg.HeartbeatResponse).ErrorCode }},
		{leave, func(r kmsg.Response) int16 { return r.(*kmsg.LeaveGroupResponse).ErrorCode }},
		{commit, func(r kmsg.Response) int16 { return r.(*kmsg.OffsetCommitResponse).Topics[0].Partitions[0].ErrorCode }},
		{fetch, fetched},
		{all, fetched},
		{describe, func(r kmsg.Response) int16 { return r.(*kmsg.DescribeGroupsResponse).Groups[0].ErrorCode }},
		{del, func(r kmsg.Response) int16 { return r.(*kmsg.DeleteGroupsResponse).Groups[0].ErrorCode }},
		{offsets, func(r kmsg.Response) int16 { return r.(*kmsg.OffsetDeleteResponse).ErrorCode }},
	}
}

// TestWrongCoordinator asks brokers that do not coordinate a group: each says so, and FindCoordinator names who does, at
// every broker, before and after a move.
func TestWrongCoordinator(t *testing.T) {
	cs := startBrokers(t, 3, 1, Config{})
	tp := cs[0].topic("t", 1, nil)
	const name = "orders"
	p := coordinator.Partition(name)
	for round := range 3 {
		owner := cs[round]
		if round > 0 {
			moveCoordinators(t, cs[round-1], owner, p)
		}
		for _, c := range cs {
			c.await(func(m *queuemapper.Map) bool {
				host, _, ok := m.Coordinator(p)
				return ok && host == owner.id && m.Topic("t") != nil
			})
			find := kmsg.NewPtrFindCoordinatorRequest()
			find.Version, find.CoordinatorKeys = 4, []string{name}
			if got := c.dial().ask(find).(*kmsg.FindCoordinatorResponse).Coordinators[0]; got.ErrorCode != 0 || got.NodeID != int32(owner.id) || got.Port != owner.b.cfg.Port {
				t.Errorf("round %d: broker %d names %+v", round, c.id, got)
			}
			for _, r := range groupRequests(name, tp) {
				code, api := r.code(c.dial().ask(r.rq)), kmsg.NameForKey(r.rq.Key())
				if wrong := code == kerr.NotCoordinator.Code; wrong != (c != owner) || code == kerr.UnknownServerError.Code {
					t.Errorf("round %d: broker %d of owner %d answers %s with %v", round, c.id, owner.id, api, kerr.ErrorForCode(code))
				}
			}
		}
	}
}

// TestCoordinatorMoves moves a group's coordinator between brokers, to and fro, under two real members that read and
// commit: nobody rebalances, no committed offset is lost or moves back, tools see the group once.
func TestCoordinatorMoves(t *testing.T) {
	cs := startBrokers(t, 3, 1, Config{Static: map[string]string{"num.partitions": "4", "group.initial.rebalance.delay.ms": "0"}})
	if _, err := kadm.NewClient(cs[0].client()).CreateTopic(t.Context(), 4, 1, nil, "read"); err != nil {
		t.Fatal(err)
	}
	const name = "readers"
	p := coordinator.Partition(name)
	often := kgo.HeartbeatInterval(10 * time.Millisecond) // a heartbeat is more often than a commit the first to meet a coordinator
	static := cs[0].reader(name, "read", often, kgo.InstanceID("static"))
	dynamic := cs[1].reader(name, "read", often)
	eventually(t, "two share", func() bool { return settled(2, static, dynamic) })
	load := startLoad(t, cs[0], "read", 4) // only now: what was read before its partition went to the other one is read twice
	rejoins := func() int { return static.joined() + dynamic.joined() }
	before := rejoins()
	adm := kadm.NewClient(cs[2].client())
	committed := map[int32]int64{}
	look := func() bool {
		ctx, cancel := context.WithTimeout(t.Context(), enough) // as long as eventually
		defer cancel()
		got, err := adm.FetchOffsets(ctx, name)
		if err != nil {
			t.Errorf("fetch offsets: %v", err)
			return true
		}
		grown := 0
		got.Each(func(o kadm.OffsetResponse) {
			if o.At < committed[o.Partition] {
				t.Errorf("partition %d: committed offset %d after %d", o.Partition, o.At, committed[o.Partition])
			}
			if o.At > committed[o.Partition] {
				grown++
			}
			committed[o.Partition] = o.At
		})
		return grown > 0
	}
	// Whoever is told to join again by the first answer does so before it sends another heartbeat.
	heard := func(by ident.Broker) {
		was, also := static.heard(by), dynamic.heard(by)
		eventually(t, "both are heard", func() bool { return static.heard(by) >= was+2 && dynamic.heard(by) >= also+2 })
	}
	at := 0
	for round := range 8 {
		to := (at + 1 + round%2) % 3
		moveCoordinators(t, cs[at], cs[to], p)
		at = to
		eventually(t, fmt.Sprintf("commits go on in round %d", round), look)
		heard(cs[at].id)
	}
	listed, err := adm.ListGroups(t.Context())
	if err != nil || len(listed.Groups()) != 1 {
		t.Errorf("listed %v, %v", listed, err)
	}
	d, err := adm.DescribeGroups(t.Context(), name)
	if g := d[name]; err != nil || g.State != "Stable" || len(g.Members) != 2 || g.Coordinator.NodeID != int32(cs[at].id) {
		t.Errorf("described %+v, %v", g, err)
	}
	if n := rejoins(); n != before {
		t.Errorf("members were given partitions %d times, %d of them after the group was stable", n, n-before)
	}
	load.end(t)
	sum := 0
	for _, n := range load.sent {
		sum += n
	}
	eventually(t, "all is read", func() bool { return static.total()+dynamic.total() >= sum })
	if got := static.total() + dynamic.total(); got != sum {
		t.Errorf("read %d times, sent %d", got, sum)
	}
}

// total is how many records were read, doubles included.
func (r *groupReader) total() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	n := 0
	for _, k := range r.seen {
		n += k
	}
	return n
}

// darkKV is an etcd that can be cut off: requests hang until their time is over.
type darkKV struct {
	clientv3.KV
	dark atomic.Bool
	hung atomic.Int64
}

func (kv *darkKV) wait(ctx context.Context) error {
	if !kv.dark.Load() {
		return nil
	}
	kv.hung.Add(1)
	<-ctx.Done()
	return ctx.Err()
}

func (kv *darkKV) Get(ctx context.Context, key string, opts ...clientv3.OpOption) (*clientv3.GetResponse, error) {
	if err := kv.wait(ctx); err != nil {
		return nil, err
	}
	return kv.KV.Get(ctx, key, opts...)
}

func (kv *darkKV) Put(ctx context.Context, key, val string, opts ...clientv3.OpOption) (*clientv3.PutResponse, error) {
	if err := kv.wait(ctx); err != nil {
		return nil, err
	}
	return kv.KV.Put(ctx, key, val, opts...)
}

func (kv *darkKV) Txn(ctx context.Context) clientv3.Txn {
	return etcdtest.Txn(kv.KV.Txn(ctx), func(_ []clientv3.Op, do func() (*clientv3.TxnResponse, error)) (*clientv3.TxnResponse, error) {
		if err := kv.wait(ctx); err != nil {
			return nil, err
		}
		return do()
	})
}

// TestEtcdAway: while etcd answers nothing, records, heartbeats, joins and commits of groups go on, and new producers get
// their ids; what needs the map is refused with a retriable error, and works again afterwards.
func TestEtcdAway(t *testing.T) {
	kv := &darkKV{KV: etcd.Client().KV}
	cs := startBrokersOn(t, 2, 1, Config{Static: map[string]string{"num.partitions": "4", "group.initial.rebalance.delay.ms": "0"}}, kv)
	const name = "readers"
	load := startLoad(t, cs[0], "read", 4)
	one := cs[0].reader(name, "read")
	eventually(t, "one reads", func() bool { return one.partitions() == 4 && one.count() > 0 })
	moveCoordinators(t, cs[0], cs[1], coordinator.Partition(name))
	adm := kadm.NewClient(cs[0].client())
	committed := func() (sum int64) {
		got, err := adm.FetchOffsets(t.Context(), name)
		if err != nil {
			t.Errorf("fetch offsets: %v", err)
		}
		got.Each(func(o kadm.OffsetResponse) { sum += o.At })
		return sum
	}
	kv.dark.Store(true)
	begun := time.Now()
	for range 5 {
		was := committed()
		eventually(t, "commits go on", func() bool { return committed() > was })
	}
	two := cs[1].reader(name, "read")
	eventually(t, "a member joins", func() bool { return one.partitions() == 2 && two.partitions() == 2 })
	init := kmsg.NewPtrInitProducerIDRequest()
	init.Version, init.ProducerID, init.ProducerEpoch = 4, -1, -1
	if got := cs[1].dial().ask(init).(*kmsg.InitProducerIDResponse); got.ErrorCode != 0 {
		t.Errorf("producer id: code %d", got.ErrorCode)
	}
	create := kmsg.NewPtrCreateTopicsRequest()
	create.Version, create.TimeoutMillis = 7, 200
	create.Topics = []kmsg.CreateTopicsRequestTopic{{Topic: "new", NumPartitions: 1, ReplicationFactor: 1}}
	if got := kerr.TypedErrorForCode(cs[1].dial().ask(create).(*kmsg.CreateTopicsResponse).Topics[0].ErrorCode); got == nil || !got.Retriable {
		t.Errorf("create a topic without the map: %v", got)
	}
	if kv.hung.Load() == 0 {
		t.Error("nothing needed the map")
	}
	t.Logf("etcd was away for %v", time.Since(begun))
	kv.dark.Store(false)
	eventually(t, "the topic can be created", func() bool {
		resp, err := adm.CreateTopic(t.Context(), 1, 1, nil, "new")
		return err == nil && (resp.Err == nil || errors.Is(resp.Err, kerr.TopicAlreadyExists))
	})
	load.end(t)
}
