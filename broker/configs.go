package broker

import (
	"errors"
	"fmt"
	"maps"
	"net"
	"slices"
	"strconv"
	"strings"

	"github.com/skeinmq/skein/internal/kconfig"
	"github.com/skeinmq/skein/protocol"
	"github.com/skeinmq/skein/queuemapper"
)

// Types of config resources, as on the wire.
const (
	resourceTopic   = 2
	resourceBroker  = 4
	resourceLogger  = 8
	resourceMetrics = 16
	resourceGroup   = 32
)

// Kinds of entities with dynamic configs in the map.
const (
	entityBroker  = "broker"
	entityGroup   = "group"
	entityMetrics = "client-metrics"
)

const noLoggers = "Log levels cannot be described or changed: a Skein broker has no named loggers."

// internalTopicConfigs are those of __consumer_offsets, as Apache Kafka sets them.
var internalTopicConfigs = map[string]string{
	"cleanup.policy": "compact", "compression.type": "producer", "segment.bytes": "104857600",
}

// identityLayers are layers with what the broker knows of itself set as in a file.
func (b *Broker) identityLayers(m *queuemapper.Map, entity map[string]string) kconfig.Layers {
	l := b.layers(m, entity)
	static := maps.Clone(l.Static)
	if static == nil {
		static = make(map[string]string)
	}
	id := strconv.Itoa(int(b.cfg.ID))
	static["node.id"], static["broker.id"] = id, id
	if b.cfg.Rack != "" {
		static["broker.rack"] = b.cfg.Rack
	}
	if _, ok := static["listeners"]; !ok {
		static["listeners"] = "PLAINTEXT://" + b.cfg.Listener.Addr().String()
	}
	static["advertised.listeners"] = "PLAINTEXT://" + net.JoinHostPort(b.cfg.Host, strconv.Itoa(int(b.cfg.Port)))
	l.Static = static
	return l
}

// configRefusal makes one refusal of all problems of a set of configs.
func configRefusal(code protocol.Code, errs []error) error {
	text := make([]string, len(errs))
	for i, err := range errs {
		text[i] = err.Error()
	}
	return refuse(code, "%s", strings.Join(text, "; "))
}

// configOp is one change of one config.
type configOp struct {
	name  string
	kind  opKind
	value *string
}

type opKind int8

// Operations of IncrementalAlterConfigs, as on the wire.
const (
	opKindSet opKind = iota
	opKindDelete
	opKindAppend
	opKindSubtract
)

func (k opKind) String() string {
	return [...]string{"SET", "DELETE", "APPEND", "SUBTRACT"}[k]
}

// configChange is what a request asks of one resource: single changes, or a whole new set (AlterConfigs).
type configChange struct {
	resourceType int8
	name         string
	ops          []configOp
	replace      bool
}

// check refuses what is wrong with a change whatever the configs are now.
func (c *configChange) check() error {
	seen := make(map[string]bool, len(c.ops))
	var null []string
	for _, o := range c.ops {
		if seen[o.name] {
			return refuse(protocol.CodeInvalidRequest, "Error due to duplicate config keys")
		}
		seen[o.name] = true
		if o.kind < opKindSet || o.kind > opKindSubtract {
			return refuse(protocol.CodeInvalidRequest, "Unknown operation %d on %s", o.kind, o.name)
		}
		if o.value == nil && o.kind != opKindDelete {
			null = append(null, o.name)
		}
	}
	if len(null) > 0 {
		return refuse(protocol.CodeInvalidRequest, "Null value not supported for : %s", strings.Join(null, ", "))
	}
	return nil
}

// maxConfigBytes of names and values may be set on one resource: its record must fit into one transaction of the map's store.
const maxConfigBytes = 256 << 10

// checkSize refuses configs that would not fit into their record.
func checkSize(configs map[string]string) error {
	n := 0
	for name, value := range configs {
		n += len(name) + len(value)
	}
	if n > maxConfigBytes {
		return refuse(protocol.CodeInvalidConfig, "The configs of a resource may have %d bytes in all, not %d.", maxConfigBytes, n)
	}
	return nil
}

// apply returns the configs after the change, and the names that it sets. under is what they fall back on.
func (c *configChange) apply(k kconfig.Kind, now map[string]string, under kconfig.Layers) (after map[string]string, set []string, err error) {
	after = make(map[string]string, len(now)+len(c.ops))
	if !c.replace {
		maps.Copy(after, now)
	}
	for _, o := range c.ops {
		if o.kind == opKindDelete {
			delete(after, o.name)
			continue
		}
		set = append(set, o.name)
		if o.kind == opKindSet {
			after[o.name] = *o.value
			continue
		}
		d := kconfig.Find(k, o.name)
		if d == nil || d.Type != kconfig.List {
			if k == kconfig.KindBroker {
				return nil, nil, refuse(protocol.CodeInvalidConfig, "Config value %s is not allowed for config key: %s", strings.ToLower(o.kind.String()), o.name)
			}
			return nil, nil, refuse(protocol.CodeInvalidConfig, "Can't %s to key %s because its type is not LIST.", o.kind, o.name)
		}
		old, ok := after[o.name]
		if !ok {
			if v := under.Entry(d).Value; v != nil {
				old = *v
			}
		}
		after[o.name] = editList(old, *o.value, o.kind)
	}
	return after, set, checkSize(after)
}

// editList adds elements to a list, or takes them away.
func editList(list, elements string, kind opKind) string {
	have := splitTrimmed(list)
	for _, e := range splitTrimmed(elements) {
		at := slices.Index(have, e)
		switch {
		case kind == opKindAppend && at < 0:
			have = append(have, e)
		case kind == opKindSubtract && at >= 0:
			have = slices.Delete(have, at, at+1)
		}
	}
	return strings.Join(have, ",")
}

func splitTrimmed(s string) []string {
	if s = strings.TrimSpace(s); s == "" {
		return nil
	}
	list := strings.Split(s, ",")
	for i := range list {
		list[i] = strings.TrimSpace(list[i])
	}
	return list
}

// checkedTopic returns a topic's configs after a change.
func (c *configChange) checkedTopic(now map[string]string, under kconfig.Layers) (map[string]string, error) {
	after, _, err := c.apply(kconfig.KindTopic, now, under)
	if err != nil {
		return nil, err
	}
	if errs := kconfig.Check(kconfig.KindTopic, after, under); len(errs) > 0 {
		return nil, configRefusal(protocol.CodeInvalidConfig, errs)
	}
	return after, nil
}

// checkedEntity returns the configs of a group or of a metrics subscription after a change.
func (c *configChange) checkedEntity(k kconfig.Kind, now map[string]string, under kconfig.Layers) (map[string]string, error) {
	after, _, err := c.apply(k, now, under)
	if err != nil {
		return nil, err
	}
	errs := kconfig.Check(k, after, under)
	if len(errs) == 0 {
		return after, nil
	}
	code := protocol.CodeInvalidConfig
	if _, conflict := errors.AsType[*kconfig.ConflictError](errs[0]); k == kconfig.KindClientMetrics && !conflict {
		code = protocol.CodeInvalidRequest
	}
	return nil, configRefusal(code, errs)
}

// checkedBroker returns the dynamic configs of this broker, or of all, after a change.
func (c *configChange) checkedBroker(now map[string]string, layers kconfig.Layers) (map[string]string, error) {
	cluster := c.name == ""
	under := kconfig.Layers{Static: layers.Static}
	if !cluster {
		under.Default = layers.Default
	}
	after, set, err := c.apply(kconfig.KindBroker, now, under)
	if err != nil {
		return nil, err
	}
	if cluster {
		layers.Default = after
	} else {
		layers.Broker = after
	}
	errs := kconfig.CheckDynamic(cluster, set, layers)
	if len(errs) == 0 {
		return after, nil
	}
	code := protocol.CodeInvalidRequest
	if _, unknown := errors.AsType[*kconfig.UnknownError](errs[0]); unknown {
		code = protocol.CodeInvalidConfig
	}
	return nil, configRefusal(code, errs)
}

// checkOwnID refuses a resource that names another broker; verb and suffix are Kafka's, which has two texts for it.
func (b *Broker) checkOwnID(name, subject, expected string) error {
	id, err := strconv.ParseInt(name, 10, 32)
	if err != nil {
		return refuse(protocol.CodeInvalidRequest, "%s id must be an integer, but it is: %s", subject, name)
	}
	if int32(id) != int32(b.cfg.ID) {
		return refuse(protocol.CodeInvalidRequest, "Unexpected broker id, expected "+expected+" received %d", int32(b.cfg.ID), id)
	}
	return nil
}

// resourceKey names a resource in messages and comparisons.
func resourceKey(t int8, name string) string { return fmt.Sprint(t, ":", name) }
