package broker

import (
	"context"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/skeinmq/skein/protocol"
)

// DescribeAcls (key 29), v0 to v3.
//
// There is no authorizer yet, and the answer is that of an Apache Kafka without one: SECURITY_DISABLED. Mirror makers
// and consoles ask, and go on.
//
//	v1  pattern types   v2  flexible   v3  user resources
var describeACLs = handler{
	key: 29, name: "DescribeAcls", min: 0, max: 3,
	handle: (*Broker).handleDescribeACLs,
}

func (b *Broker) handleDescribeACLs(_ context.Context, rq *request) kmsg.Response {
	resp := rq.body.ResponseKind().(*kmsg.DescribeACLsResponse)
	err := refuse(protocol.CodeSecurityDisabled, "No Authorizer is configured on the broker")
	resp.ErrorCode, resp.ErrorMessage = errorCode(err), errorMessage(err)
	return resp
}
