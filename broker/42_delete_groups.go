package broker

import (
	"context"

	"github.com/twmb/franz-go/pkg/kmsg"
)

// DeleteGroups (key 42), v0 to v2.
//
// Removes groups without members, and their committed offsets; a group with members answers NON_EMPTY_GROUP.
//
//	v2  flexible   (v3, error messages, is Apache Kafka 4.4's)
var deleteGroups = handler{
	key: 42, name: "DeleteGroups", min: 0, max: 2,
	handle: (*Broker).handleDeleteGroups,
}

func (b *Broker) handleDeleteGroups(ctx context.Context, rq *request) kmsg.Response {
	req := rq.body.(*kmsg.DeleteGroupsRequest)
	resp := req.ResponseKind().(*kmsg.DeleteGroupsResponse)
	seen := make(map[string]bool, len(req.Groups))
	for _, name := range req.Groups {
		if seen[name] {
			continue // named twice is answered once
		}
		seen[name] = true
		resp.Groups = append(resp.Groups, kmsg.DeleteGroupsResponseGroup{
			Group: name, ErrorCode: errorCode(b.groups.Delete(ctx, name)),
		})
	}
	return resp
}
