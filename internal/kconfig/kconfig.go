// Package kconfig is the table of the Kafka configs that Skein knows: the names,
// types, defaults, ranges and synonyms of Apache Kafka 4.3, and for each whether it
// takes effect here or is only stored.
//
// It promises that what Validate accepts, the Resolve functions turn into typed
// values, and that an error names every key that is wrong, in Kafka's words. It
// refuses to know where configs come from and where they are kept: it is handed maps.
package kconfig

import (
	"cmp"
	"slices"
)

// Type is the type of a config's value; the numbers are those of DescribeConfigs.
type Type int8

// Types of values (KIP-569).
const (
	Boolean  Type = 1
	String   Type = 2
	Int      Type = 3
	Short    Type = 4
	Long     Type = 5
	Double   Type = 6
	List     Type = 7
	Class    Type = 8
	Password Type = 9
)

// String is Kafka's name of the type, as its error messages print it.
func (t Type) String() string {
	names := [...]string{"UNKNOWN", "BOOLEAN", "STRING", "INT", "SHORT", "LONG", "DOUBLE", "LIST", "CLASS", "PASSWORD"}
	if t < 0 || int(t) >= len(names) {
		return names[0]
	}
	return names[t]
}

// Source says which layer a value comes from; the numbers are those of DescribeConfigs.
type Source int8

// Sources of values, as of DescribeConfigs v1.
const (
	SourceTopic         Source = 1 // set on the topic
	SourceBroker        Source = 2 // dynamic, of one broker
	SourceDefaultBroker Source = 3 // dynamic, default of the cluster
	SourceStatic        Source = 4 // the broker's own file, flags and environment
	SourceDefault       Source = 5 // built in
	SourceLogger        Source = 6
	SourceClientMetrics Source = 7
	SourceGroup         Source = 8
)

// Kind is what a config belongs to.
type Kind int8

// Kinds of configs.
const (
	KindTopic Kind = iota
	KindBroker
	KindGroup
	KindClientMetrics
)

func (k Kind) String() string {
	return [...]string{"topic", "broker", "group", "client-metrics"}[k]
}

// Update says how a broker config may change.
type Update int8

// Ways in which a broker config may change.
const (
	ReadOnly    Update = iota // at start only
	PerBroker                 // dynamic, for one broker
	ClusterWide               // dynamic, for one broker or as the cluster's default
)

func (u Update) String() string {
	return [...]string{"read-only", "per-broker", "cluster-wide"}[u]
}

// Effect is what a config does in Skein.
type Effect int8

// Effects of a config.
const (
	Works  Effect = iota // it does what it does in Kafka
	Partly               // see Note
	Stored               // accepted, kept and described; see Note for why it changes nothing
)

// Def is one config: a row of the table.
type Def struct {
	Name    string
	Kind    Kind
	Type    Type
	Default string
	Null    bool // the default is null, not the empty string
	Update  Update
	// Synonym of a topic or group config: the broker config that is its default. "" if none.
	Synonym string
	// Chain of a broker config that says one thing in several units: all of them, finest first.
	Chain  []string
	Doc    string
	Effect Effect
	Note   string // why Effect is not Works
	// Internal of a config that Kafka neither documents nor describes unless it is set.
	Internal bool

	check check // of the whole value
	each  check // of each element of a list, as Text
}

// Sensitive reports whether the value must never be shown.
func (d *Def) Sensitive() bool { return d.Type == Password }

// Dynamic reports whether a broker config may change without a restart.
func (d *Def) Dynamic() bool { return d.Update != ReadOnly }

// DefaultValue is the built-in default, nil if it is null.
func (d *Def) DefaultValue() *string {
	if d.Null {
		return nil
	}
	return &d.Default
}

var tables = [...][]Def{
	KindTopic:         index(KindTopic, topicDefs),
	KindBroker:        index(KindBroker, slices.Concat(brokerDefs, brokerLogDefs, brokerGroupDefs, brokerSecurityDefs, brokerElsewhereDefs)),
	KindGroup:         index(KindGroup, groupDefs),
	KindClientMetrics: index(KindClientMetrics, clientMetricsDefs),
}

func index(k Kind, defs []Def) []Def {
	out := slices.Clone(defs)
	for i := range out {
		out[i].Kind = k
	}
	slices.SortFunc(out, func(a, b Def) int { return cmp.Compare(a.Name, b.Name) })
	return out
}

// Defs returns the configs of a kind, ordered by name. Do not change them.
func Defs(k Kind) []Def { return tables[k] }

// Find returns a config of a kind, nil if there is none of that name.
func Find(k Kind, name string) *Def {
	t := tables[k]
	i, ok := slices.BinarySearchFunc(t, name, func(d Def, n string) int { return cmp.Compare(d.Name, n) })
	if !ok {
		return nil
	}
	return &t[i]
}
