package controller

import (
	"context"
	"errors"
	"time"

	"github.com/hashicorp/raft"

	"github.com/skeinmq/skein/internal/ident"
)

// reign is one period in which this broker leads and shows everything that was committed before.
type reign struct {
	term uint64
	ctx  context.Context // ends with the reign
	end  context.CancelCauseFunc
}

var (
	errDeposed   = errors.New("no longer the active controller")
	errNewLeader = errors.New("the active controller changed")
)

// Term is raft's newest term as far as this broker knows, 0 before Run. It only guards against useless
// work of an old controller (O14).
func (c *Controller) Term() uint64 {
	if r := c.raft.Load(); r != nil {
		return r.CurrentTerm()
	}
	return 0
}

// Leads says whether this broker is the active controller, as far as it knows, and in which term.
func (c *Controller) Leads() (term uint64, ok bool) {
	if l := c.reign.Load(); l != nil {
		return l.term, true
	}
	return 0, false
}

// Leader says who the active controller is, as far as this broker knows, and the address of its
// internal listener.
func (c *Controller) Leader() (id ident.Broker, address string, ok bool) {
	r := c.raft.Load()
	if r == nil {
		return 0, "", false
	}
	addr, server := r.LeaderWithID()
	id, ok = brokerOf(server)
	return id, string(addr), ok
}

// LeaderChanged returns a channel that closes when Leader or Leads may answer otherwise than before.
func (c *Controller) LeaderChanged() <-chan struct{} { return c.leaders.next() }

// Lead runs fn whenever this broker becomes the active controller and has applied everything that was
// committed before; fn's context ends when it no longer is. It returns when ctx ends or the
// controller has stopped, after fn has. What fn does may overlap with the next controller's: the map's
// comparisons and the state machine's epochs are what keeps it harmless.
func (c *Controller) Lead(ctx context.Context, fn func(ctx context.Context, term uint64)) {
	for {
		changed := c.leaders.next()
		l := c.reign.Load()
		if l == nil {
			select {
			case <-changed:
				continue
			case <-ctx.Done():
				return
			case <-c.done:
				return
			}
		}
		both, cancel := context.WithCancelCause(ctx)
		unhook := context.AfterFunc(l.ctx, func() { cancel(errDeposed) })
		fn(both, l.term)
		select { // once a reign
		case <-l.ctx.Done():
		case <-ctx.Done():
		}
		unhook()
		cancel(nil)
		if ctx.Err() != nil {
			return
		}
	}
}

// crown begins a reign when everything committed before it is applied; it runs beside the loop.
func (c *Controller) crown(r *raft.Raft, l *reign) {
	if c.answer(r.Barrier(0)) != nil || l.ctx.Err() != nil {
		return // deposed again
	}
	select {
	case c.crowned <- l:
	case <-l.ctx.Done():
		return
	}
	// The address that the others were told may be an old one.
	self, addr := serverID(c.cfg.ID), raft.ServerAddress("")
	if c.transport == nil {
		return
	}
	addr = c.transport.LocalAddr()
	for _, s := range c.configuration(r).Servers {
		if s.ID == self && s.Address != addr {
			_ = c.answer(r.AddVoter(self, addr, 0, c.cfg.CommandTimeout)) // the next reign tries again
		}
	}
}

// depose ends the current reign.
func (c *Controller) depose(l *reign) {
	if l == nil {
		return
	}
	c.reign.CompareAndSwap(l, nil) // before its context ends: Lead, which looks for the next one then, would run it again
	l.end(errDeposed)
	c.metrics.isLeader.Set(0)
	c.leaders.fire()
}

// abdicate hands the leadership to another voter before this one stops, so that nobody has to wait for a timeout.
func (c *Controller) abdicate(r *raft.Raft) {
	if r.State() != raft.Leader || c.voters(r) < 2 {
		return
	}
	handed := make(chan struct{})
	go func() { defer close(handed); _ = r.LeadershipTransfer().Error() }()
	select {
	case <-handed:
	case <-time.After(2 * c.cfg.Timeout):
	}
}

// turn is how long a voter waits for each one before it that may take over from a dead leader: 80 ms of the default timeout.
func (c *Controller) turn() time.Duration { return c.cfg.Timeout / 10 }

// Former is the last other broker that led as far as this one knows, and when this one heard from it last.
func (c *Controller) Former() (leader ident.Broker, heard time.Time, ok bool) {
	r, id := c.raft.Load(), c.former.Load()
	if r == nil || id == nil {
		return 0, time.Time{}, false
	}
	return *id, r.LastContact(), true
}

// nobody is no broker.
const nobody ident.Broker = -1

// attend has this voter stand for election soon after the leader fell silent, or after its own start if it heard of none, until ctx
// ends. Raft itself looks only once in one to two timeouts whether it was silent for one: it takes up to three, and a cluster
// that starts would have no controller for two. The others are asked before (raft's pre-vote), and refuse as long as they hear the
// leader; the voters go one after the other.
func (c *Controller) attend(ctx context.Context, r *raft.Raft) {
	tick := time.NewTicker(c.cfg.Timeout / 16)
	defer tick.Stop()
	var looked time.Time // the leader's last word when this voter stood last
	for first := true; ; {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
		heard := r.LastContact()
		leader, _, known := c.Leader()
		if first = first && !known && heard.IsZero() && r.State() == raft.Follower; first {
			first = !c.standFirst(r)
			continue
		}
		if !known || leader == c.cfg.ID || r.State() != raft.Follower || heard.Equal(looked) || time.Since(heard) < c.cfg.Timeout {
			continue
		}
		rank, votes := c.rank(r, leader)
		if votes && time.Since(heard) >= c.cfg.Timeout+time.Duration(rank)*c.turn() {
			looked = heard
			c.metrics.takeovers.Inc()
			c.look(r)
		}
	}
}

// standFirst has a voter that heard of no leader since its start stand for election when its turn has come; false: not yet, or never.
func (c *Controller) standFirst(r *raft.Raft) bool {
	rank, votes := c.rank(r, nobody)
	if !votes || time.Since(c.started) < time.Duration(rank+1)*c.cfg.Timeout/8 {
		return false
	}
	c.metrics.takeovers.Inc()
	c.look(r)
	return true
}

// look makes a follower look now whether it has heard of the leader, and stand for election if not: raft does when its timeout
// becomes shorter.
func (c *Controller) look(r *raft.Raft) {
	rc := r.ReloadableConfig()
	for _, d := range []time.Duration{-time.Millisecond, time.Millisecond} {
		rc.HeartbeatTimeout += d
		if err := r.ReloadConfig(rc); err != nil {
			c.cfg.Logger.Warn("election not hastened", "component", "controller", "error", err)
			return
		}
	}
}

// rank is how many voters, of those without the leader, stand for election before this one, if this one votes at all.
func (c *Controller) rank(r *raft.Raft, leader ident.Broker) (rank int, votes bool) {
	for _, m := range c.members(r) {
		if !m.Voter || m.Broker == leader {
			continue
		}
		if m.Broker == c.cfg.ID {
			votes = true
		} else if m.Broker < c.cfg.ID {
			rank++
		}
	}
	return rank, votes
}

// LeaderGone tells the controller that the process of the leader does not exist any more: its
// address refused a connection. A voter then does not wait for the leader's silence to become long enough.
// The voters go one after the other, by their ids, so that they do not take each other's votes. Nothing
// rests on its being true.
func (c *Controller) LeaderGone(leader ident.Broker) {
	r := c.raft.Load()
	if r == nil || c.transport == nil || leader == c.cfg.ID {
		return
	}
	rank, votes := c.rank(r, leader)
	if !votes || !c.mayTakeOver(leader) {
		return
	}
	c.spawn(func() {
		select {
		case <-time.After(time.Duration(rank) * c.turn()):
		case <-c.over:
			return
		}
		if !c.mayTakeOver(leader) {
			return
		}
		c.metrics.takeovers.Inc()
		header := raft.RPCHeader{ProtocolVersion: raft.ProtocolVersionMax, ID: []byte(serverID(c.cfg.ID)), Addr: c.transport.EncodePeer(serverID(c.cfg.ID), c.transport.LocalAddr())}
		_ = c.transport.TimeoutNow(serverID(c.cfg.ID), c.transport.LocalAddr(), &raft.TimeoutNowRequest{RPCHeader: header}, &raft.TimeoutNowResponse{})
	})
}

// mayTakeOver says whether the one that is gone still counts as the leader here, or nobody does.
func (c *Controller) mayTakeOver(gone ident.Broker) bool {
	select {
	case <-c.over:
		return false
	default:
	}
	now, _, known := c.Leader()
	return !known || now == gone
}
