package broker

import (
	"context"
	"net"

	"github.com/twmb/franz-go/pkg/kmsg"
)

// handler is one row of the dispatch table: ApiVersions, admission, metrics and docs all
// derive from these rows. The row stands in its API's file (NN_name.go).
type handler struct {
	key      int16
	name     string
	min, max int16
	// handle answers one request. It may block (a join waits for its group); ctx ends when the
	// connection or the broker does. A nil response means: send nothing (acks=0).
	// Produce and Fetch have paths of their own and leave it nil.
	handle func(b *Broker, ctx context.Context, rq *request) kmsg.Response
}

// request is one decoded request and who sent it.
type request struct {
	key, version int16
	clientID     string
	body         kmsg.Request
	remote       net.Addr
}
