package broker

import (
	"context"
	"slices"
	"strings"

	"github.com/twmb/franz-go/pkg/kmsg"
)

// ListGroups (key 16), v0 to v5.
//
// Filters take any case; a state or type that does not exist matches nothing.
//
//	v3  flexible   v4  states, and a filter by them   v5  types, likewise
var listGroups = handler{
	key: 16, name: "ListGroups", min: 0, max: 5,
	handle: (*Broker).handleListGroups,
}

// classicGroup is the type of the groups of package group.
const classicGroup = "classic"

func (b *Broker) handleListGroups(ctx context.Context, rq *request) kmsg.Response {
	req := rq.body.(*kmsg.ListGroupsRequest)
	resp := req.ResponseKind().(*kmsg.ListGroupsResponse)
	groups, err := b.groups.List(ctx)
	if err != nil {
		resp.ErrorCode = errorCode(err)
		return resp
	}
	for _, g := range groups {
		if !passes(req.StatesFilter, g.State.String()) || !passes(req.TypesFilter, classicGroup) {
			continue
		}
		resp.Groups = append(resp.Groups, kmsg.ListGroupsResponseGroup{
			Group: g.Name, ProtocolType: g.ProtocolType, GroupState: g.State.String(), GroupType: classicGroup,
		})
	}
	return resp
}

// passes says whether a filter, if there is one, names s.
func passes(filter []string, s string) bool {
	return len(filter) == 0 || slices.ContainsFunc(filter, func(f string) bool {
		return strings.EqualFold(strings.TrimSpace(f), s)
	})
}
