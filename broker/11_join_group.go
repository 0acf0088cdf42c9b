package broker

import (
	"bytes"
	"context"
	"crypto/rand"
	"fmt"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/skeinmq/skein/broker/group"
)

// JoinGroup (key 11), v0 to v9.
//
// The request is parked until the group has decided who is in its next generation. The rules are package group's.
//
//	v1  rebalance timeout   v4  MEMBER_ID_REQUIRED: join again with the id given   v5  group.instance.id   v6  flexible
//	v7  protocol type in the answer   v8  reason   v9  skipAssignment for a static leader that comes back
var joinGroup = handler{
	key: 11, name: "JoinGroup", min: 0, max: 9, waits: true,
	handle: (*Broker).handleJoinGroup,
}

func (b *Broker) handleJoinGroup(ctx context.Context, rq *request) kmsg.Response {
	req := rq.body.(*kmsg.JoinGroupRequest)
	join := &group.JoinRequest{
		Group: req.Group, Member: req.MemberID, Instance: orEmpty(req.InstanceID), ClientID: rq.clientID, Host: rq.host(),
		SessionTimeout: millis(req.SessionTimeoutMillis), RebalanceTimeout: millis(req.RebalanceTimeoutMillis),
		ProtocolType: req.ProtocolType, RequireKnownID: rq.version >= 4, CanSkipAssignment: rq.version >= 9,
	}
	if rq.version == 0 {
		join.RebalanceTimeout = join.SessionTimeout
	}
	if req.MemberID == "" {
		join.NewID = newMemberID(rq.clientID, join.Instance)
	}
	join.Protocols = make([]group.Protocol, len(req.Protocols))
	for i, p := range req.Protocols {
		join.Protocols[i] = group.Protocol{Name: p.Name, Metadata: bytes.Clone(p.Metadata)} // outlives the request
	}
	r := b.groups.Join(ctx, join)

	resp := req.ResponseKind().(*kmsg.JoinGroupResponse)
	resp.ErrorCode, resp.Generation, resp.MemberID, resp.LeaderID = errorCode(r.Err), r.Generation, r.Member, r.Leader
	resp.ProtocolType, resp.Protocol, resp.SkipAssignment = nullable(r.ProtocolType), nullable(r.Protocol), r.SkipAssignment
	for _, m := range r.Members {
		resp.Members = append(resp.Members, kmsg.JoinGroupResponseMember{
			MemberID: m.ID, InstanceID: nullable(m.Instance), ProtocolMetadata: m.Metadata,
		})
	}
	return resp
}

// newMemberID makes the id of a new member as Kafka does: what the client is called, "-", and a random UUID.
func newMemberID(client, instance string) string {
	if instance != "" {
		client = instance
	}
	var u [16]byte
	rand.Read(u[:]) // never fails
	u[6], u[8] = u[6]&0x0f|0x40, u[8]&0x3f|0x80
	return fmt.Sprintf("%s-%x-%x-%x-%x-%x", client, u[:4], u[4:6], u[6:8], u[8:10], u[10:])
}
