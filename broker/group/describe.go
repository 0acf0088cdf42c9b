package group

import (
	"maps"
	"slices"
)

// Description is a group as DescribeGroups shows it.
type Description struct {
	Name         string
	State        State
	ProtocolType string
	Protocol     string // of a stable group only
	Members      []Member
}

// Member is a member as DescribeGroups shows it.
type Member struct {
	ID, Instance, ClientID, Host string
	Metadata                     []byte // of a stable group only
	Assignment                   []byte
}

// Describe describes a group; false: there is none.
func (m *Machine) Describe(group string) (Description, bool) {
	g := m.groups[group]
	if g == nil {
		return Description{Name: group, State: Dead}, false
	}
	d := Description{Name: group, State: g.state, ProtocolType: g.protocolType}
	if g.state == Stable {
		d.Protocol = g.protocol
	}
	for _, mem := range g.members {
		out := Member{ID: mem.id, Instance: mem.instance, ClientID: mem.clientID, Host: mem.host, Assignment: mem.assignment}
		if g.state == Stable {
			out.Metadata = mem.metadata(g.protocol)
		}
		d.Members = append(d.Members, out)
	}
	return d, true
}

// Listed is a group as ListGroups shows it.
type Listed struct {
	Name         string
	ProtocolType string
	State        State
}

// List lists the groups by name.
func (m *Machine) List() []Listed {
	out := make([]Listed, 0, len(m.groups))
	for _, name := range slices.Sorted(maps.Keys(m.groups)) {
		g := m.groups[name]
		out = append(out, Listed{Name: name, ProtocolType: g.protocolType, State: g.state})
	}
	return out
}
