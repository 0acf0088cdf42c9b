package controller

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/hashicorp/raft"

	"github.com/skeinmq/skein/internal/ident"
)

// Member is a broker that has a copy of the replicated state, with or without a vote.
type Member struct {
	Broker  ident.Broker
	Address string // of its internal listener
	Voter   bool
}

// Errors of changes of the membership.
var (
	// ErrLastVoter: nobody would be left to vote.
	ErrLastVoter = errors.New("the last voter")
	// ErrNotMember: the broker has to join first.
	ErrNotMember = errors.New("no member of the cluster")
)

// Members lists the members as this broker knows them; none before it was told.
func (c *Controller) Members() []Member {
	r := c.raft.Load()
	if r == nil {
		return nil
	}
	return c.members(r)
}

// Address is where a member's internal listener was when it was last told, "" if it is none.
func (c *Controller) Address(b ident.Broker) string {
	for _, m := range c.Members() {
		if m.Broker == b {
			return m.Address
		}
	}
	return ""
}

func (c *Controller) configuration(r *raft.Raft) raft.Configuration {
	f := r.GetConfiguration()
	if f.Error() != nil {
		return raft.Configuration{}
	}
	return f.Configuration()
}

func (c *Controller) members(r *raft.Raft) []Member {
	var out []Member
	for _, s := range c.configuration(r).Servers {
		if id, ours := brokerOf(s.ID); ours {
			out = append(out, Member{Broker: id, Address: string(s.Address), Voter: s.Suffrage == raft.Voter})
		}
	}
	return out
}

func (c *Controller) voters(r *raft.Raft) int {
	n := 0
	for _, m := range c.members(r) {
		if m.Voter {
			n++
		}
	}
	return n
}

// Join makes a broker a member without a vote, or notes the new address of one that is a member
// already. Of the active controller only: ErrNotLeader otherwise.
func (c *Controller) Join(ctx context.Context, m Member) error {
	r, err := c.leading(ctx)
	if err != nil {
		return fmt.Errorf("join broker %d: %w", m.Broker, err)
	}
	for _, known := range c.members(r) {
		if known.Broker == m.Broker && known.Address == m.Address {
			return nil
		}
	}
	err = c.change(ctx, r.AddNonvoter(serverID(m.Broker), raft.ServerAddress(m.Address), 0, c.cfg.CommandTimeout))
	if err != nil {
		return fmt.Errorf("join broker %d: %w", m.Broker, err)
	}
	return nil
}

// Promote gives a member a vote. Of the active controller only, like the two below.
func (c *Controller) Promote(ctx context.Context, b ident.Broker) error {
	return c.edit(ctx, "promote", b, func(r *raft.Raft, m Member) raft.IndexFuture {
		return r.AddVoter(serverID(b), raft.ServerAddress(m.Address), 0, c.cfg.CommandTimeout)
	})
}

// Demote takes a member's vote.
func (c *Controller) Demote(ctx context.Context, b ident.Broker) error {
	return c.edit(ctx, "demote", b, func(r *raft.Raft, m Member) raft.IndexFuture {
		return r.DemoteVoter(serverID(b), 0, c.cfg.CommandTimeout)
	})
}

// Remove makes a broker no member any more. It has to join again, with a directory that is fresh.
func (c *Controller) Remove(ctx context.Context, b ident.Broker) error {
	return c.edit(ctx, "remove", b, func(r *raft.Raft, m Member) raft.IndexFuture {
		return r.RemoveServer(serverID(b), 0, c.cfg.CommandTimeout)
	})
}

func (c *Controller) edit(ctx context.Context, verb string, b ident.Broker, do func(*raft.Raft, Member) raft.IndexFuture) error {
	fail := func(err error) error { return fmt.Errorf("%s broker %d: %w", verb, b, err) }
	r, err := c.leading(ctx)
	if err != nil {
		return fail(err)
	}
	m, needed, err := c.checkEdit(r, verb, b)
	if err == nil && needed {
		err = c.change(ctx, do(r, m))
	}
	if err != nil {
		return fail(err)
	}
	return nil
}

// mayEdit reports what stands against a change, before anything else prepares for it.
func (c *Controller) mayEdit(ctx context.Context, verb string, b ident.Broker) error {
	r, err := c.leading(ctx)
	if err == nil {
		_, _, err = c.checkEdit(r, verb, b)
	}
	if err != nil {
		return fmt.Errorf("%s broker %d: %w", verb, b, err)
	}
	return nil
}

// checkEdit finds the member that is to change; needed is false if it is so already.
func (c *Controller) checkEdit(r *raft.Raft, verb string, b ident.Broker) (m Member, needed bool, err error) {
	members := c.members(r)
	at := slices.IndexFunc(members, func(m Member) bool { return m.Broker == b })
	loses := verb != "promote"
	switch {
	case at < 0 && verb == "remove":
		return m, false, nil
	case at < 0:
		return m, false, ErrNotMember
	}
	m = members[at]
	switch {
	case m.Voter != loses && verb != "remove":
		return m, false, nil
	case loses && m.Voter && c.voters(r) == 1:
		return m, false, ErrLastVoter
	case loses && b == c.cfg.ID:
		// A leader cannot take its own vote. The next one can.
		c.abdicate(r)
		return m, false, fmt.Errorf("%w: it handed the lead over for that, try again", ErrNotLeader)
	}
	return m, true, nil
}

// leading returns raft if this broker leads.
func (c *Controller) leading(ctx context.Context) (*raft.Raft, error) {
	if c.transport == nil {
		return nil, errors.New("this controller is alone for good")
	}
	if err := c.awaitReady(ctx); err != nil {
		return nil, err
	}
	if _, leads := c.Leads(); !leads {
		return nil, ErrNotLeader
	}
	return c.raft.Load(), nil
}

// change waits for a change of the membership.
func (c *Controller) change(ctx context.Context, f raft.IndexFuture) error {
	done := make(chan error, 1)
	if !c.spawn(func() { done <- c.answer(f) }) {
		return ErrClosed
	}
	select {
	case err := <-done:
		if err != nil {
			return applyError(err)
		}
		return nil
	case <-ctx.Done():
		return fmt.Errorf("%w: %w", ErrUnknown, context.Cause(ctx))
	}
}
