package kconfig

import "strconv"

// Layers are the places where a value may be set, strongest first. Maps are only read;
// nil ones are empty.
type Layers struct {
	Entity  map[string]string // of the topic, group or subscription
	Broker  map[string]string // dynamic, of this broker
	Default map[string]string // dynamic, default of the cluster
	Static  map[string]string // the broker's own
}

// Synonym is one place where a config's value is set.
type Synonym struct {
	Name   string
	Value  string
	Source Source
}

// Entry is one config with its value in force.
type Entry struct {
	Def      *Def
	Value    *string // nil: null
	Source   Source
	Synonyms []Synonym // strongest first
}

// Describe returns every config of a kind with its value in force, ordered by name; internal ones only if they are set.
func (l Layers) Describe(k Kind) []Entry {
	defs := Defs(k)
	out := make([]Entry, 0, len(defs))
	for i := range defs {
		if e := l.Entry(&defs[i]); !defs[i].Internal || e.Source != SourceDefault {
			out = append(out, e)
		}
	}
	return out
}

// Entry returns one config with its value in force and all places where it is set.
func (l Layers) Entry(d *Def) Entry {
	e := Entry{Def: d, Source: SourceDefault}
	if d.Kind != KindBroker {
		if v, ok := l.Entity[d.Name]; ok {
			e.Synonyms = append(e.Synonyms, Synonym{d.Name, d.Canonical(v), entitySource(d.Kind)})
		}
		if b := Find(KindBroker, d.Synonym); b != nil {
			e.Synonyms = append(e.Synonyms, l.synonyms(b)...)
		} else if d.Kind == KindGroup {
			e.Synonyms = append(e.Synonyms, Synonym{d.Name, d.Default, SourceDefault})
		}
	} else {
		e.Synonyms = l.synonyms(d)
	}
	if len(e.Synonyms) > 0 {
		e.Source = e.Synonyms[0].Source
	}
	if v, ok := l.value(d); ok {
		v = d.Canonical(v)
		e.Value = &v
	}
	return e
}

func entitySource(k Kind) Source {
	switch k {
	case KindGroup:
		return SourceGroup
	case KindClientMetrics:
		return SourceClientMetrics
	}
	return SourceTopic
}

// synonyms lists where a broker config, or one that stands in for it, is set. As in
// Kafka the list begins at the first entry of the config's own name: a config that is
// set only through another unit has none.
func (l Layers) synonyms(d *Def) []Synonym {
	group := []string{d.Name}
	if len(d.Chain) > 0 {
		group = d.Chain
	}
	var all []Synonym
	for _, layer := range [...]struct {
		set map[string]string
		src Source
	}{{l.Broker, SourceBroker}, {l.Default, SourceDefaultBroker}, {l.Static, SourceStatic}} {
		for _, n := range group {
			if v, ok := layer.set[n]; ok {
				all = append(all, Synonym{n, v, layer.src})
			}
		}
	}
	for _, n := range group {
		if c := Find(KindBroker, n); !c.Null {
			all = append(all, Synonym{n, c.Default, SourceDefault})
		}
	}
	for i := range all {
		if all[i].Name == d.Name {
			return all[i:]
		}
	}
	return nil
}

// value is the text in force; false for null.
func (l Layers) value(d *Def) (string, bool) {
	if d.Kind != KindBroker {
		if v, ok := l.Entity[d.Name]; ok {
			return v, true
		}
		if b := Find(KindBroker, d.Synonym); b != nil {
			return l.scaled(b)
		}
		return d.Default, !d.Null
	}
	for _, set := range [...]map[string]string{l.Broker, l.Default, l.Static} {
		if v, ok := set[d.Name]; ok {
			return v, true
		}
	}
	return d.Default, !d.Null
}

// scaled is the value of a broker config, or of what stands in for it, in the config's unit.
func (l Layers) scaled(d *Def) (string, bool) {
	if len(d.Chain) == 0 {
		return l.value(d)
	}
	if v, ok := l.value(d); ok {
		if p, err := d.Parse(v); err == nil && p.Int < 0 {
			return "-1", true // every negative retention is none at all
		}
		return v, true
	}
	for _, n := range d.Chain[1:] {
		c := Find(KindBroker, n)
		v, ok := l.value(c)
		if !ok {
			continue
		}
		p, err := c.Parse(v)
		if err != nil {
			continue
		}
		if p.Int < 0 {
			return "-1", true
		}
		return strconv.FormatInt(p.Int*millis(n), 10), true
	}
	return "", false
}

// get is the parsed value in force of a broker config, nil for null. Values are checked
// where they enter; one that does not parse all the same counts as unset.
func (l Layers) get(name string) *Value { return l.parsed(Find(KindBroker, name)) }

func (l Layers) parsed(d *Def) *Value {
	s, ok := l.value(d)
	if !ok {
		return nil
	}
	v, err := d.Parse(s)
	if err != nil {
		if d.Null {
			return nil
		}
		v, _ = d.Parse(d.Default)
	}
	return &v
}

func (l Layers) long(k Kind, name string) int64 {
	if v := l.parsed(Find(k, name)); v != nil {
		return v.Int
	}
	return 0
}
