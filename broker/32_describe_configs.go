package broker

import (
	"context"
	"slices"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/skeinmq/skein/internal/kconfig"
	"github.com/skeinmq/skein/protocol"
)

// DescribeConfigs (key 32), v0 to v4.
//
// Every config that Skein knows, whether it takes effect or is only stored (docs/configs.md), with its source, synonyms
// and documentation. Broker "" lists the dynamic defaults of the cluster. There are no broker loggers. One answer has at
// most half a million configs (15,000 whole topics), where a resource without any counts as one: resources beyond that are a
// POLICY_VIOLATION.
//
//	v1  source and synonyms   v3  type and documentation   v4  flexible
var describeConfigs = handler{
	key: 32, name: "DescribeConfigs", min: 0, max: 4,
	handle: (*Broker).handleDescribeConfigs,
}

// maxDescribed configs are in one answer: a resource costs a request ten bytes, and an answer thousands.
const maxDescribed = 500_000

func (b *Broker) handleDescribeConfigs(ctx context.Context, rq *request) kmsg.Response {
	req := rq.body.(*kmsg.DescribeConfigsRequest)
	resp := req.ResponseKind().(*kmsg.DescribeConfigsResponse)
	described := 0
	for i := range req.Resources {
		r := &req.Resources[i]
		out := kmsg.NewDescribeConfigsResponseResource()
		out.ResourceType, out.ResourceName = r.ResourceType, r.ResourceName
		var entries []kconfig.Entry
		err := refuse(protocol.CodePolicyViolation, "Too many configs in one answer; ask for fewer resources at once.")
		if described < b.maxDescribed && ctx.Err() == nil {
			entries, err = b.describeResource(int8(r.ResourceType), r.ResourceName)
		}
		out.ErrorCode, out.ErrorMessage = errorCode(err), errorMessage(err)
		if err == nil || codeOf(err) == protocol.CodeUnknownTopicOrPartition {
			none := "" // Kafka's is not null here
			out.ErrorMessage = &none
		}
		for _, e := range entries {
			if len(r.ConfigNames) == 0 || slices.Contains(r.ConfigNames, e.Def.Name) {
				out.Configs = append(out.Configs, describedConfig(e, req))
			}
		}
		described += max(1, len(out.Configs))
		resp.Resources = append(resp.Resources, out)
	}
	return resp
}

// describeResource returns the configs of a resource.
func (b *Broker) describeResource(t int8, name string) ([]kconfig.Entry, error) {
	m := b.store.Map()
	switch t {
	case resourceTopic:
		if err := checkTopicName(name); err != nil {
			return nil, err
		}
		if isInternal(name) {
			return b.identityLayers(m, internalTopicConfigs).Describe(kconfig.KindTopic), nil
		}
		rec := m.Topic(name)
		if rec == nil {
			return nil, refuseCode(protocol.CodeUnknownTopicOrPartition)
		}
		return b.identityLayers(m, rec.Configs).Describe(kconfig.KindTopic), nil
	case resourceBroker:
		if name == "" {
			return describeDefaults(m.Dynamic(entityBroker, "")), nil
		}
		if err := b.checkOwnID(name, "Broker", "%d or empty string, but"); err != nil {
			return nil, err
		}
		return b.identityLayers(m, nil).Describe(kconfig.KindBroker), nil
	case resourceLogger:
		if name == "" {
			return nil, refuse(protocol.CodeInvalidRequest, "Broker id must not be empty")
		}
		if err := b.checkOwnID(name, "Broker", "%d but"); err != nil {
			return nil, err
		}
		return nil, refuse(protocol.CodeInvalidRequest, "%s", noLoggers)
	case resourceMetrics:
		if name == "" {
			return nil, refuse(protocol.CodeInvalidRequest, "Client metrics subscription name must not be empty")
		}
		return kconfig.Layers{Entity: m.Dynamic(entityMetrics, name)}.Describe(kconfig.KindClientMetrics), nil
	case resourceGroup:
		if name == "" {
			return nil, refuse(protocol.CodeInvalidRequest, "Group name must not be empty")
		}
		return b.identityLayers(m, m.Dynamic(entityGroup, name)).Describe(kconfig.KindGroup), nil
	}
	return nil, refuse(protocol.CodeInvalidRequest, "%s", unknownResource)
}

const unknownResource = "This most likely occurs because of a request being malformed by the client library or the message was sent to an incompatible broker. See the broker logs for more details."

// describeDefaults lists what is set as the cluster's default, and nothing else.
func describeDefaults(set map[string]string) (out []kconfig.Entry) {
	for _, e := range (kconfig.Layers{Default: set}).Describe(kconfig.KindBroker) {
		if v, ok := set[e.Def.Name]; ok {
			e.Synonyms = []kconfig.Synonym{{Name: e.Def.Name, Value: v, Source: kconfig.SourceDefaultBroker}}
			out = append(out, e)
		}
	}
	return out
}

// describedConfig is one config of an answer.
func describedConfig(e kconfig.Entry, req *kmsg.DescribeConfigsRequest) kmsg.DescribeConfigsResponseResourceConfig {
	out := kmsg.NewDescribeConfigsResponseResourceConfig()
	out.Name, out.Value = e.Def.Name, e.Value
	out.Source, out.IsDefault = kmsg.ConfigSource(e.Source), e.Source == kconfig.SourceDefault
	out.ReadOnly = e.Def.Kind == kconfig.KindBroker && !e.Def.Dynamic()
	out.IsSensitive = e.Def.Sensitive()
	out.ConfigType = kmsg.ConfigType(e.Def.Type)
	if req.IncludeDocumentation {
		out.Documentation = &e.Def.Doc
	}
	if req.IncludeSynonyms {
		for _, s := range e.Synonyms {
			syn := kmsg.NewDescribeConfigsResponseResourceConfigConfigSynonym()
			syn.Name, syn.Source = s.Name, kmsg.ConfigSource(s.Source)
			if !out.IsSensitive {
				syn.Value = &s.Value
			}
			out.ConfigSynonyms = append(out.ConfigSynonyms, syn)
		}
	}
	if out.IsSensitive {
		out.Value = nil
	}
	return out
}
