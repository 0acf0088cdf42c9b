package broker

import (
	"context"
	"math"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/skeinmq/skein/protocol"
)

// DescribeCluster (key 60), v0 to v2.
//
// Lists the live brokers. Controllers (endpoint type 2) have no endpoint of their own: asking for them is answered with
// MISMATCHED_ENDPOINT_TYPE, as by a broker of Apache Kafka. No broker is ever fenced: a broker that is not alive is not
// in the map.
//
//	v1  endpoint type (KIP-919)   v2  fenced brokers
var describeCluster = handler{
	key: 60, name: "DescribeCluster", min: 0, max: 2,
	handle: (*Broker).handleDescribeCluster,
}

// noOperations says that authorized operations were not asked for.
const noOperations = math.MinInt32

// allOperations of a resource as bits, while there is no authorizer: everything that the kind of resource knows.
const (
	topicOperations   = 1<<3 | 1<<4 | 1<<5 | 1<<6 | 1<<7 | 1<<8 | 1<<10 | 1<<11
	clusterOperations = 1<<5 | 1<<7 | 1<<8 | 1<<9 | 1<<10 | 1<<11 | 1<<12
)

func (b *Broker) handleDescribeCluster(_ context.Context, rq *request) kmsg.Response {
	req := rq.body.(*kmsg.DescribeClusterRequest)
	resp := req.ResponseKind().(*kmsg.DescribeClusterResponse)
	resp.EndpointType, resp.ClusterAuthorizedOperations = 1, noOperations
	if rq.version >= 1 && req.EndpointType != 1 {
		err := refuse(protocol.CodeUnsupportedEndpointType, "endpoint type %d is not known", req.EndpointType)
		if req.EndpointType == 2 {
			err = refuse(protocol.CodeMismatchedEndpointType, "this is a broker, not a controller")
		}
		resp.ErrorCode, resp.ErrorMessage = errorCode(err), errorMessage(err)
		resp.ControllerID = -1
		return resp
	}
	m := b.store.Map()
	resp.ClusterID, resp.ControllerID = m.Cluster().ID, b.controllerID(m)
	if req.IncludeClusterAuthorizedOperations {
		resp.ClusterAuthorizedOperations = clusterOperations
	}
	for _, node := range b.liveBrokers(m) {
		r := kmsg.NewDescribeClusterResponseBroker()
		r.NodeID, r.Host, r.Port = node.NodeID, node.Host, node.Port
		if node.Rack != "" {
			r.Rack = &node.Rack
		}
		resp.Brokers = append(resp.Brokers, r)
	}
	return resp
}
