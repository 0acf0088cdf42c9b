package group

import (
	"time"
)

// Commit is who asks to commit offsets.
type Commit struct {
	Group      string
	Generation int32  // negative: not managed by the group protocol
	Member     string // "" likewise
	Instance   string
	// GroupNotFound: the client's version (OffsetCommit 9 and up) knows that error;
	// others hear ErrIllegalGeneration.
	GroupNotFound bool
}

// CheckCommit says whether an offset commit is allowed. It counts as a heartbeat. A group
// that does not exist is made when the committer uses no membership: the caller then stores
// offsets, which are all there is of such a group.
func (m *Machine) CheckCommit(now time.Time, c Commit) error {
	g := m.groups[c.Group]
	if g == nil {
		if c.Generation < 0 {
			_, err := m.create(now, c.Group)
			return err
		}
		if c.GroupNotFound {
			return ErrGroupNotFound
		}
		return ErrIllegalGeneration
	}
	if err := g.checkCommit(c); err != nil {
		return err
	}
	if mem := g.byID[c.Member]; mem != nil && (g.state == Stable || g.state == PreparingRebalance) {
		m.heard(now, mem)
	}
	return nil
}

func (g *Group) checkCommit(c Commit) error {
	if c.Generation < 0 && g.state == Empty {
		return nil // an administrator, or a consumer that assigns itself
	}
	if c.Generation >= 0 || c.Member != "" || c.Instance != "" {
		if err := g.validate(c.Member, c.Instance); err != nil {
			return err
		}
		if c.Generation != g.generation {
			return ErrIllegalGeneration
		}
	} else if g.state != Empty {
		return ErrUnknownMember
	}
	if g.state == CompletingRebalance {
		return ErrRebalanceInProgress
	}
	return nil
}

// CheckOffsetDelete says whether committed offsets of the group may be deleted at all;
// Subscribed then says for which topics not.
func (m *Machine) CheckOffsetDelete(group string) error {
	if group == "" {
		return ErrInvalidGroup
	}
	g := m.groups[group]
	switch {
	case g == nil:
		return ErrGroupNotFound
	case g.state != Empty && g.protocolType != consumerProtocol:
		return ErrNonEmpty
	}
	return nil
}

// Subscribed says whether the group's members consume the topic. A group of consumers whose
// subscriptions cannot be read counts as subscribed to everything.
func (m *Machine) Subscribed(group, topic string) bool {
	g := m.groups[group]
	return g != nil && g.subscribed(topic)
}

func (g *Group) subscribed(topic string) bool {
	if g.topicsKnown {
		return g.topics[topic]
	}
	return g.protocolType == consumerProtocol
}

// Delete removes an empty group and, through the write it asks for, its offsets.
func (m *Machine) Delete(group string) error {
	g := m.groups[group]
	if g == nil {
		return ErrGroupNotFound
	}
	if g.state != Empty {
		return ErrNonEmpty
	}
	m.drop(g)
	m.out.Writes = append(m.out.Writes, Write{Group: group, Drop: true})
	return nil
}

// Retention is how the offsets of a group expire now.
type Retention struct {
	// Expires is false: none do.
	Expires bool
	// Since is the time, in ms since 1970, from which all offsets of the group count;
	// -1: each from its own commit.
	Since int64
}

// Retention applies Kafka's rules (KIP-211): a group without members counts from when it
// lost them; offsets of a self-assigning consumer count from their commit; so do those of
// topics that a stable group of consumers is not subscribed to (the caller asks Subscribed).
func (m *Machine) Retention(group string) Retention {
	g := m.groups[group]
	switch {
	case g == nil:
		return Retention{}
	case g.protocolType == "":
		return Retention{Expires: true, Since: -1}
	case g.state == Empty:
		return Retention{Expires: true, Since: g.since}
	case g.state == Stable && g.protocolType == consumerProtocol && g.topicsKnown:
		return Retention{Expires: true, Since: -1}
	default:
		return Retention{}
	}
}

// Idle says whether the group may be removed once it has no offsets. An id that was given
// out keeps it: its client is about to join.
func (m *Machine) Idle(group string) bool {
	g := m.groups[group]
	return g != nil && g.state == Empty && len(g.pendingJoin) == 0
}
