package broker

import (
	"context"

	"github.com/twmb/franz-go/pkg/kmsg"
)

// ListPartitionReassignments (key 46), v0.
//
// Always empty: a move changes one record of the map and is over before anybody could ask.
var listPartitionReassignments = handler{
	key: 46, name: "ListPartitionReassignments", min: 0, max: 0,
	handle: (*Broker).handleListPartitionReassignments,
}

func (b *Broker) handleListPartitionReassignments(_ context.Context, rq *request) kmsg.Response {
	return rq.body.ResponseKind()
}
