package broker

import (
	"context"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/skeinmq/skein/protocol"
)

// DescribeClientQuotas (key 48), v0 to v1.
//
// No quota can be set yet, so none is found.
//
//	v1  flexible
var describeClientQuotas = handler{
	key: 48, name: "DescribeClientQuotas", min: 0, max: 1,
	handle: (*Broker).handleDescribeClientQuotas,
}

func (b *Broker) handleDescribeClientQuotas(_ context.Context, rq *request) kmsg.Response {
	req := rq.body.(*kmsg.DescribeClientQuotasRequest)
	resp := req.ResponseKind().(*kmsg.DescribeClientQuotasResponse)
	none := ""
	resp.ErrorMessage, resp.Entries = &none, []kmsg.DescribeClientQuotasResponseEntry{}
	for i := range req.Components {
		switch t := req.Components[i].EntityType; t {
		case "user", "client-id", "ip":
		default:
			err := refuse(protocol.CodeUnsupportedVersion, "Unsupported entity type %s", t)
			resp.ErrorCode, resp.ErrorMessage, resp.Entries = errorCode(err), errorMessage(err), nil
		}
	}
	return resp
}
