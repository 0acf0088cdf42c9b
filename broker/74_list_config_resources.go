package broker

import (
	"context"
	"slices"
	"strconv"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/skeinmq/skein/protocol"
)

// ListConfigResources (key 74), v0 to v1.
//
// Lists what DescribeConfigs can be asked about. Broker loggers are not among it.
//
//	v0  client metrics subscriptions only   v1  every type, or those that are asked for
var listConfigResources = handler{
	key: 74, name: "ListConfigResources", min: 0, max: 1,
	handle: (*Broker).handleListConfigResources,
}

func (b *Broker) handleListConfigResources(_ context.Context, rq *request) kmsg.Response {
	req := rq.body.(*kmsg.ListConfigResourcesRequest)
	resp := req.ResponseKind().(*kmsg.ListConfigResourcesResponse)
	types := req.ResourceTypes
	switch {
	case rq.version == 0:
		types = []int8{resourceMetrics}
	case len(types) == 0:
		types = []int8{resourceTopic, resourceBroker, resourceLogger, resourceMetrics, resourceGroup}
	}
	m := b.store.Map()
	add := func(t int8, name string) {
		r := kmsg.NewListConfigResourcesResponseConfigResource()
		r.Name, r.Type = name, t
		resp.ConfigResources = append(resp.ConfigResources, r)
	}
	for i, t := range types {
		if slices.Contains(types[:i], t) {
			continue
		}
		switch t {
		case resourceTopic:
			for name := range b.topicNames(m) {
				add(t, name)
			}
		case resourceBroker:
			for _, node := range b.liveBrokers(m) {
				add(t, strconv.Itoa(int(node.NodeID)))
			}
		case resourceLogger:
		case resourceMetrics:
			for name := range m.DynamicNames(entityMetrics) {
				add(t, name)
			}
		case resourceGroup:
			for name := range m.DynamicNames(entityGroup) {
				add(t, name)
			}
		default:
			resp.ErrorCode, resp.ConfigResources = int16(protocol.CodeUnsupportedVersion), nil
			return resp
		}
	}
	return resp
}
