package broker

import (
	"context"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/skeinmq/skein/broker/coordinator"
	"github.com/skeinmq/skein/broker/group"
	"github.com/skeinmq/skein/protocol"
)

// FindCoordinator (key 10), v0 to v6.
//
// The coordinator of a group or a transaction is the broker that leads its partition of the internal topic, which is the
// owner of a placement group (queuemapper.Map.Coordinator); while there is none, COORDINATOR_NOT_AVAILABLE. Share
// coordinators (v6) are not served and answered with INVALID_REQUEST, as by an Apache Kafka without share groups; so are
// types that do not exist.
//
//	v1  type, error message   v3  flexible   v4  several keys   v5  error codes of transactions   v6  share groups
var findCoordinator = handler{
	key: 10, name: "FindCoordinator", min: 0, max: 6,
	handle: (*Broker).handleFindCoordinator,
}

// Types of coordinator.
const (
	coordinatesGroup       = 0
	coordinatesTransaction = 1
	coordinatesShare       = 2
)

func (b *Broker) handleFindCoordinator(_ context.Context, rq *request) kmsg.Response {
	req := rq.body.(*kmsg.FindCoordinatorRequest)
	resp := req.ResponseKind().(*kmsg.FindCoordinatorResponse)
	var err error
	switch req.CoordinatorType {
	case coordinatesGroup, coordinatesTransaction:
	case coordinatesShare:
		err = refuse(protocol.CodeInvalidRequest, "share groups are not served")
	default:
		err = refuse(protocol.CodeInvalidRequest, "coordinator type %d is not known", req.CoordinatorType)
	}
	keys := req.CoordinatorKeys
	if rq.version < 4 {
		keys = []string{req.CoordinatorKey}
	}
	for _, key := range keys {
		resp.Coordinators = append(resp.Coordinators, b.coordinatorOf(key, err))
	}
	if rq.version < 4 {
		c := resp.Coordinators[0]
		resp.ErrorCode, resp.NodeID, resp.Host, resp.Port, resp.ErrorMessage = c.ErrorCode, c.NodeID, c.Host, c.Port, c.ErrorMessage
		if err == nil {
			none := protocol.CodeNone.String() // Kafka says so too
			resp.ErrorMessage = &none
		}
	}
	return resp
}

func (b *Broker) coordinatorOf(key string, err error) kmsg.FindCoordinatorResponseCoordinator {
	out := kmsg.FindCoordinatorResponseCoordinator{Key: key, NodeID: -1, Port: -1, ErrorCode: errorCode(err), ErrorMessage: errorMessage(err)}
	if err != nil {
		return out
	}
	node, _, ok := b.coordinatorNode(b.store.Map(), coordinator.Partition(key))
	if !ok {
		out.ErrorCode, out.ErrorMessage = errorCode(group.ErrCoordinatorNotAvailable), errorMessage(group.ErrCoordinatorNotAvailable)
		return out
	}
	out.NodeID, out.Host, out.Port = node.NodeID, node.Host, node.Port
	out.ErrorMessage = new(string)
	return out
}
