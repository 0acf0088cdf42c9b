package broker

import (
	"context"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/skeinmq/skein/protocol"
)

// DescribeUserScramCredentials (key 50), v0.
//
// No credential can be set yet, so no user has any.
var describeUserScramCredentials = handler{
	key: 50, name: "DescribeUserScramCredentials", min: 0, max: 0,
	handle: (*Broker).handleDescribeUserScramCredentials,
}

func (b *Broker) handleDescribeUserScramCredentials(_ context.Context, rq *request) kmsg.Response {
	req := rq.body.(*kmsg.DescribeUserSCRAMCredentialsRequest)
	resp := req.ResponseKind().(*kmsg.DescribeUserSCRAMCredentialsResponse)
	none := ""
	resp.ErrorMessage = &none
	for i := range req.Users {
		r := kmsg.NewDescribeUserSCRAMCredentialsResponseResult()
		err := refuse(protocol.CodeResourceNotFound, "Attempt to describe a user credential that does not exist: %s", req.Users[i].Name)
		r.User, r.ErrorCode, r.ErrorMessage = req.Users[i].Name, errorCode(err), errorMessage(err)
		resp.Results = append(resp.Results, r)
	}
	return resp
}
