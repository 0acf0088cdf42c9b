package broker

import (
	"context"

	"github.com/twmb/franz-go/pkg/kmsg"
)

// Heartbeat (key 12), v0 to v4.
//
//	v3  group.instance.id   v4  flexible
var heartbeat = handler{
	key: 12, name: "Heartbeat", min: 0, max: 4,
	handle: (*Broker).handleHeartbeat,
}

func (b *Broker) handleHeartbeat(ctx context.Context, rq *request) kmsg.Response {
	req := rq.body.(*kmsg.HeartbeatRequest)
	resp := req.ResponseKind().(*kmsg.HeartbeatResponse)
	resp.ErrorCode = errorCode(b.groups.Heartbeat(ctx, req.Group, req.Generation, req.MemberID, orEmpty(req.InstanceID)))
	return resp
}
