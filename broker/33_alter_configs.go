package broker

import (
	"context"

	"github.com/twmb/franz-go/pkg/kmsg"
)

// AlterConfigs (key 33), v0 to v2.
//
// Replaces all configs of a resource: what is not named goes back to its default.
//
//	v2  flexible
var alterConfigs = handler{
	key: 33, name: "AlterConfigs", min: 0, max: 2,
	handle: (*Broker).handleAlterConfigs,
}

func (b *Broker) handleAlterConfigs(ctx context.Context, rq *request) kmsg.Response {
	req := rq.body.(*kmsg.AlterConfigsRequest)
	resp := req.ResponseKind().(*kmsg.AlterConfigsResponse)
	changes := make([]configChange, len(req.Resources))
	for i := range req.Resources {
		r := &req.Resources[i]
		c := &changes[i]
		c.resourceType, c.name, c.replace = int8(r.ResourceType), r.ResourceName, true
		for _, o := range r.Configs {
			c.ops = append(c.ops, configOp{name: o.Name, value: o.Value})
		}
	}
	for i, err := range b.alterConfigs(ctx, changes, req.ValidateOnly) {
		out := kmsg.NewAlterConfigsResponseResource()
		out.ResourceType, out.ResourceName = req.Resources[i].ResourceType, req.Resources[i].ResourceName
		out.ErrorCode, out.ErrorMessage = errorCode(err), errorMessage(err)
		resp.Resources = append(resp.Resources, out)
	}
	return resp
}
