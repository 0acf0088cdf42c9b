package broker

import (
	"context"
	"errors"
	"maps"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/skeinmq/skein/internal/kconfig"
	"github.com/skeinmq/skein/protocol"
	"github.com/skeinmq/skein/queuemapper"
)

// IncrementalAlterConfigs (key 44), v0 to v1.
//
// SET, DELETE, APPEND and SUBTRACT on topics, this broker, the cluster's default, groups and metrics subscriptions. A
// change is in force on all brokers when the answer comes. Unlike Apache Kafka, names that nothing knows are refused for
// brokers too, and there are no broker loggers.
//
//	v1  flexible
var incrementalAlterConfigs = handler{
	key: 44, name: "IncrementalAlterConfigs", min: 0, max: 1,
	handle: (*Broker).handleIncrementalAlterConfigs,
}

func (b *Broker) handleIncrementalAlterConfigs(ctx context.Context, rq *request) kmsg.Response {
	req := rq.body.(*kmsg.IncrementalAlterConfigsRequest)
	resp := req.ResponseKind().(*kmsg.IncrementalAlterConfigsResponse)
	changes := make([]configChange, len(req.Resources))
	for i := range req.Resources {
		r := &req.Resources[i]
		c := &changes[i]
		c.resourceType, c.name = int8(r.ResourceType), r.ResourceName
		for _, o := range r.Configs {
			c.ops = append(c.ops, configOp{name: o.Name, kind: opKind(o.Op), value: o.Value})
		}
	}
	for i, err := range b.alterConfigs(ctx, changes, req.ValidateOnly) {
		out := kmsg.NewIncrementalAlterConfigsResponseResource()
		out.ResourceType, out.ResourceName = req.Resources[i].ResourceType, req.Resources[i].ResourceName
		out.ErrorCode, out.ErrorMessage = errorCode(err), errorMessage(err)
		resp.Resources = append(resp.Resources, out)
	}
	return resp
}

// alterConfigs applies changes, each for itself; the errors are by index.
func (b *Broker) alterConfigs(ctx context.Context, changes []configChange, validateOnly bool) []error {
	ctx, cancel := withRequestTimeout(ctx, 0)
	defer cancel()
	times := make(map[string]int, len(changes))
	for i := range changes {
		times[resourceKey(changes[i].resourceType, changes[i].name)]++
	}
	errs := make([]error, len(changes))
	for i := range changes {
		c := &changes[i]
		if times[resourceKey(c.resourceType, c.name)] > 1 {
			errs[i] = refuse(protocol.CodeInvalidRequest, "Each resource must appear at most once.")
			continue
		}
		errs[i] = b.alterResource(ctx, c, validateOnly)
	}
	if m := b.refresh(); !validateOnly {
		b.awaitPeers(ctx, m.Revision())
	}
	return errs
}

func (b *Broker) alterResource(ctx context.Context, c *configChange, validateOnly bool) error {
	if c.resourceType == resourceLogger && !c.replace {
		if err := b.checkOwnID(c.name, "Node", "%d, but"); err != nil {
			return err
		}
		return refuse(protocol.CodeInvalidRequest, "%s", noLoggers)
	}
	switch c.resourceType {
	case resourceTopic, resourceBroker, resourceGroup, resourceMetrics:
	default:
		return refuse(protocol.CodeInvalidRequest, "Unknown resource type %d", c.resourceType)
	}
	if err := c.check(); err != nil {
		return err
	}
	switch c.resourceType {
	case resourceTopic:
		return b.alterTopic(ctx, c, validateOnly)
	case resourceBroker:
		if c.name != "" {
			if err := b.checkOwnID(c.name, "Node", "%d, but"); err != nil {
				return err
			}
		}
		return b.alterDynamic(ctx, entityBroker, c, validateOnly, func(now map[string]string) (map[string]string, error) {
			return c.checkedBroker(now, b.layers(b.store.Map(), nil))
		})
	case resourceGroup:
		if c.name == "" {
			return refuse(protocol.CodeInvalidRequest, "Default group resources are not allowed.")
		}
		return b.alterDynamic(ctx, entityGroup, c, validateOnly, func(now map[string]string) (map[string]string, error) {
			return c.checkedEntity(kconfig.KindGroup, now, b.layers(b.store.Map(), nil))
		})
	}
	if c.name == "" {
		return refuse(protocol.CodeInvalidRequest, "Subscription name can't be empty")
	}
	return b.alterDynamic(ctx, entityMetrics, c, validateOnly, func(now map[string]string) (map[string]string, error) {
		return c.checkedEntity(kconfig.KindClientMetrics, now, kconfig.Layers{})
	})
}

// alterTopic changes a topic's configs, again if somebody else changed the topic meanwhile.
func (b *Broker) alterTopic(ctx context.Context, c *configChange, validateOnly bool) error {
	switch {
	case c.name == "":
		return refuse(protocol.CodeInvalidRequest, "Default topic resources are not allowed.")
	case isInternal(c.name):
		return refuse(protocol.CodePolicyViolation, "The configs of the internal topic '%s' are fixed.", c.name)
	}
	for range casRetries {
		m := b.store.Map()
		rec := m.Topic(c.name)
		if rec == nil {
			return refuse(protocol.CodeUnknownTopicOrPartition, "The topic '%s' does not exist.", c.name)
		}
		after, err := c.checkedTopic(rec.Configs, b.layers(m, nil))
		if err != nil || validateOnly || maps.Equal(after, rec.Configs) {
			return err
		}
		if _, err = b.store.SetTopicConfigs(ctx, rec, after); !errors.Is(err, queuemapper.ErrConflict) {
			return err
		}
	}
	return refuse(protocol.CodeRequestTimedOut, "The topic '%s' was changed by others all the time; try again.", c.name)
}

// alterDynamic changes an entity's dynamic configs. The store tries again after a conflict.
func (b *Broker) alterDynamic(ctx context.Context, kind string, c *configChange, validateOnly bool, fn func(map[string]string) (map[string]string, error)) error {
	if validateOnly {
		_, err := fn(b.store.Map().Dynamic(kind, c.name))
		return err
	}
	return b.store.SetDynamic(ctx, kind, c.name, fn)
}
