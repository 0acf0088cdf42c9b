package broker

import (
	"bytes"
	"context"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/skeinmq/skein/broker/group"
)

// SyncGroup (key 14), v0 to v5.
//
// The request is parked until the leader's assignment is durable.
//
//	v3  group.instance.id   v4  flexible   v5  protocol type and name, which must be the group's
var syncGroup = handler{
	key: 14, name: "SyncGroup", min: 0, max: 5, waits: true,
	handle: (*Broker).handleSyncGroup,
}

func (b *Broker) handleSyncGroup(ctx context.Context, rq *request) kmsg.Response {
	req := rq.body.(*kmsg.SyncGroupRequest)
	resp := req.ResponseKind().(*kmsg.SyncGroupResponse)
	if rq.version >= 5 && (req.ProtocolType == nil || req.Protocol == nil) {
		resp.ErrorCode = errorCode(group.ErrInconsistentProtocol)
		return resp
	}
	sync := &group.SyncRequest{
		Group: req.Group, Generation: req.Generation, Member: req.MemberID, Instance: orEmpty(req.InstanceID),
		ProtocolType: req.ProtocolType, Protocol: req.Protocol,
		Assignments: make(map[string][]byte, len(req.GroupAssignment)),
	}
	for _, a := range req.GroupAssignment {
		sync.Assignments[a.MemberID] = bytes.Clone(a.MemberAssignment) // outlives the request
	}
	r := b.groups.Sync(ctx, sync)
	resp.ErrorCode, resp.MemberAssignment = errorCode(r.Err), r.Assignment
	resp.ProtocolType, resp.Protocol = nullable(r.ProtocolType), nullable(r.Protocol)
	return resp
}
