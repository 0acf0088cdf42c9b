package broker

import (
	"context"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/skeinmq/skein/protocol"
)

// InitProducerId (key 22), v0 to v5.
//
// Serves idempotent producers: an id that no other producer ever gets, epoch 0. An idempotent producer that comes back
// with its id and epoch (KIP-360) gets a new id, as Apache Kafka gives it. Transactions are not served yet: a
// transactional id is refused with TRANSACTIONAL_ID_AUTHORIZATION_FAILED, which clients treat as final. v6 (KIP-939)
// is unstable in Apache Kafka and not advertised there either.
//
//	v2  flexible   v3  producer id and epoch of a producer that recovers   v4, v5 error codes of transactions
var initProducerID = handler{
	key: 22, name: "InitProducerId", min: 0, max: 5,
	handle: (*Broker).handleInitProducerID,
}

func (b *Broker) handleInitProducerID(ctx context.Context, rq *request) kmsg.Response {
	req := rq.body.(*kmsg.InitProducerIDRequest)
	resp := req.ResponseKind().(*kmsg.InitProducerIDResponse)
	id, err := b.newProducerID(ctx, req)
	resp.ProducerID, resp.ProducerEpoch = id, 0
	if err != nil {
		resp.ProducerID, resp.ProducerEpoch, resp.ErrorCode = -1, -1, errorCode(err)
	}
	return resp
}

func (b *Broker) newProducerID(ctx context.Context, req *kmsg.InitProducerIDRequest) (int64, error) {
	switch {
	case req.TransactionalID != nil && *req.TransactionalID == "":
		return 0, refuse(protocol.CodeInvalidRequest, "transactional id is empty")
	case req.TransactionalID != nil:
		return 0, refuse(protocol.CodeTransactionalIDAuthorizationFailed, "transactions are not served yet")
	case req.ProducerID == -1 && req.ProducerEpoch != -1, req.ProducerID != -1 && req.ProducerEpoch == -1:
		return 0, refuse(protocol.CodeInvalidRequest, "producer id and epoch must be given together")
	case b.ids == nil:
		return 0, refuse(protocol.CodeCoordinatorNotAvailable, "no producer ids to be had")
	}
	id, err := b.ids.NextProducerID(ctx)
	if err != nil {
		b.log.Warn("allocate producer id", "error", err)
		// As Apache Kafka: clients try again here. Other codes send them to look for a coordinator, which there is not.
		return 0, refuse(protocol.CodeCoordinatorLoadInProgress, "allocate producer id: %v", err)
	}
	return id, nil
}
