package broker

import (
	"context"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/skeinmq/skein/broker/group"
)

// LeaveGroup (key 13), v0 to v5.
//
// From v3 on several members leave at once, static ones also by their instance id alone (an administrator's doing);
// each has its own error. Before, the one member's error is the answer's.
//
//	v3  several members   v4  flexible   v5  reason
var leaveGroup = handler{
	key: 13, name: "LeaveGroup", min: 0, max: 5,
	handle: (*Broker).handleLeaveGroup,
}

func (b *Broker) handleLeaveGroup(ctx context.Context, rq *request) kmsg.Response {
	req := rq.body.(*kmsg.LeaveGroupRequest)
	resp := req.ResponseKind().(*kmsg.LeaveGroupResponse)
	leavers := []group.Leaver{{Member: req.MemberID}}
	if rq.version >= 3 {
		leavers = make([]group.Leaver, len(req.Members))
		for i, m := range req.Members {
			leavers[i] = group.Leaver{Member: m.MemberID, Instance: orEmpty(m.InstanceID)}
		}
	}
	each, err := b.groups.Leave(ctx, req.Group, leavers)
	switch {
	case err != nil:
		resp.ErrorCode = errorCode(err)
	case rq.version < 3:
		resp.ErrorCode = errorCode(each[0])
	default:
		for i, err := range each {
			resp.Members = append(resp.Members, kmsg.LeaveGroupResponseMember{
				MemberID: req.Members[i].MemberID, InstanceID: req.Members[i].InstanceID, ErrorCode: errorCode(err),
			})
		}
	}
	return resp
}
