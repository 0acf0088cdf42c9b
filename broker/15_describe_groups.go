package broker

import (
	"context"
	"errors"
	"fmt"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/skeinmq/skein/broker/group"
)

// DescribeGroups (key 15), v0 to v6.
//
// A group that does not exist is described as Dead; from v6 on with GROUP_ID_NOT_FOUND.
//
//	v3  authorized operations   v4  group.instance.id   v5  flexible   v6  error message
var describeGroups = handler{
	key: 15, name: "DescribeGroups", min: 0, max: 6,
	handle: (*Broker).handleDescribeGroups,
}

// groupOperations are the operations on a group as bits: read, delete, describe, describe and alter configs.
const groupOperations = 1<<3 | 1<<6 | 1<<8 | 1<<10 | 1<<11

func (b *Broker) handleDescribeGroups(ctx context.Context, rq *request) kmsg.Response {
	req := rq.body.(*kmsg.DescribeGroupsRequest)
	resp := req.ResponseKind().(*kmsg.DescribeGroupsResponse)
	for _, name := range req.Groups {
		g := kmsg.NewDescribeGroupsResponseGroup()
		g.Group, g.AuthorizedOperations = name, noOperations
		d, err := b.groups.Describe(ctx, name)
		switch {
		case errors.Is(err, group.ErrGroupNotFound):
			g.State = group.Dead.String()
			if rq.version >= 6 {
				text := fmt.Sprintf("Group %s not found.", name)
				g.ErrorCode, g.ErrorMessage = errorCode(err), &text
			}
		case err != nil:
			g.ErrorCode = errorCode(err)
		default:
			describeGroup(&g, &d)
		}
		if g.ErrorCode == 0 && req.IncludeAuthorizedOperations {
			g.AuthorizedOperations = groupOperations
		}
		resp.Groups = append(resp.Groups, g)
	}
	return resp
}

func describeGroup(g *kmsg.DescribeGroupsResponseGroup, d *group.Description) {
	g.State, g.ProtocolType, g.Protocol = d.State.String(), d.ProtocolType, d.Protocol
	for _, m := range d.Members {
		g.Members = append(g.Members, kmsg.DescribeGroupsResponseGroupMember{
			MemberID: m.ID, InstanceID: nullable(m.Instance), ClientID: m.ClientID, ClientHost: m.Host,
			ProtocolMetadata: m.Metadata, MemberAssignment: m.Assignment,
		})
	}
}
