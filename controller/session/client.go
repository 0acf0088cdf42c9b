package session

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/skeinmq/skein/controller"
	"github.com/skeinmq/skein/internal/ident"
	"github.com/skeinmq/skein/internal/peer/peerpb"
)

// ErrDead: the active controller has given this incarnation up, or knows a newer one. The broker's logs are
// sealed, or will be: it has to begin again as a new incarnation.
var ErrDead = errors.New("given up by the active controller")

// Leader tells who the active controller is; *controller.Controller does.
type Leader interface {
	Leader() (id ident.Broker, address string, ok bool)
	LeaderChanged() <-chan struct{}
	LeaderGone(ident.Broker)
}

// Report is what a broker says about itself.
type Report struct {
	Draining bool
	DiskUsed float64 // share of the fullest disk, 0 to 1
	Loads    []*peerpb.GroupLoad
}

// ClientConfig configures a Client. The zero value of an optional field means its default.
type ClientConfig struct {
	Self        ident.Broker
	Incarnation int64
	Leader      Leader
	Conns       controller.Conns
	// Local keeps the sessions when this broker leads itself.
	Local *Server
	// Report is asked before each heartbeat; it must be quick. withLoads: every second or so. Optional.
	Report func(withLoads bool) Report
	// Interval between heartbeats; default 250 ms.
	Interval time.Duration
	// Dial as in ServerConfig.
	Dial func(ctx context.Context, address string) error
}

// Client sends a broker's heartbeats to whoever is the active controller.
type Client struct {
	cfg     ClientConfig
	leaving atomic.Bool
	soon    chan struct{} // one slot: send a heartbeat now
	left    chan struct{} // one slot: a heartbeat that said so was answered
}

// NewClient prepares the heartbeats. Run sends them.
func NewClient(cfg ClientConfig) *Client {
	if cfg.Interval == 0 {
		cfg.Interval = 250 * time.Millisecond
	}
	if cfg.Report == nil {
		cfg.Report = func(bool) Report { return Report{} }
	}
	if cfg.Dial == nil {
		cfg.Dial = knock
	}
	return &Client{cfg: cfg, soon: make(chan struct{}, 1), left: make(chan struct{}, 1)}
}

// Nudge sends a heartbeat now, because what Report says has changed.
func (c *Client) Nudge() {
	select {
	case c.soon <- struct{}{}:
	default:
	}
}

// Leave asks the controller to seal this broker's logs at once, and returns when it was heard.
func (c *Client) Leave(ctx context.Context) error {
	c.leaving.Store(true)
	c.Nudge()
	select {
	case <-c.left:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("leave: %w", context.Cause(ctx))
	}
}

// Run sends heartbeats until ctx ends (nil) or the controller has given this incarnation up (ErrDead).
func (c *Client) Run(ctx context.Context) error {
	for ctx.Err() == nil {
		changed := c.cfg.Leader.LeaderChanged()
		leader, address, known := c.cfg.Leader.Leader()
		var err error
		switch {
		case !known:
			err = errNoLeader
		case leader == c.cfg.Self:
			err = c.here(ctx, changed)
		default:
			err = c.there(ctx, leader, changed)
		}
		if errors.Is(err, ErrDead) {
			return err
		}
		if err == nil || ctx.Err() != nil {
			continue // there may be another leader
		}
		if known && leader != c.cfg.Self {
			c.suspect(ctx, leader, address)
		}
		select {
		case <-changed:
		case <-time.After(retryPause):
		case <-ctx.Done():
		}
	}
	return nil
}

const (
	retryPause  = 20 * time.Millisecond
	dialTimeout = 300 * time.Millisecond
	// loadsEvery heartbeats one carries loads.
	loadsEvery = 4
)

var (
	errNoLeader = errors.New("no active controller is known")
	errMovedOn  = errors.New("the active controller changed")
)

// suspect knocks at the leader's door after its stream broke: a voter need not wait when its process is gone.
func (c *Client) suspect(ctx context.Context, leader ident.Broker, address string) {
	ctx, cancel := context.WithTimeout(ctx, dialTimeout)
	defer cancel()
	if err := c.cfg.Dial(ctx, address); refused(err) {
		c.cfg.Leader.LeaderGone(leader)
	}
}

func (c *Client) heartbeat(n int) *peerpb.Heartbeat {
	withLoads := n%loadsEvery == 0
	r := c.cfg.Report(withLoads)
	hb := &peerpb.Heartbeat{
		Broker: int32(c.cfg.Self), Incarnation: c.cfg.Incarnation, Leaving: c.leaving.Load(), Draining: r.Draining, DiskUsed: r.DiskUsed,
	}
	if withLoads {
		hb.Loads = r.Loads
	}
	return hb
}

func (c *Client) answered(hb *peerpb.Heartbeat) {
	if hb.GetLeaving() {
		select {
		case c.left <- struct{}{}:
		default:
		}
	}
}

// here keeps the session while this broker leads. nil: the leader may have changed.
func (c *Client) here(ctx context.Context, changed <-chan struct{}) error {
	if c.cfg.Local == nil {
		return errNoLeader
	}
	t, stream := c.cfg.Local.open()
	if t == nil {
		return errNoLeader // it has just won and is not there yet
	}
	defer c.cfg.Local.closed(t, stream)
	tick := time.NewTicker(c.cfg.Interval)
	defer tick.Stop()
	for n := 0; ; n++ {
		hb := c.heartbeat(n)
		dead, ok := c.cfg.Local.beat(t, stream, hb)
		if dead {
			return ErrDead
		}
		if !ok {
			return errMovedOn
		}
		c.answered(hb)
		select {
		case <-tick.C:
		case <-c.soon:
		case <-changed:
			return nil
		case <-ctx.Done():
			return nil
		}
	}
}

// there keeps the session at another broker. nil: the leader may have changed.
func (c *Client) there(ctx context.Context, leader ident.Broker, changed <-chan struct{}) error {
	conn, err := c.cfg.Conns.Conn(leader)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stream, err := peerpb.NewControllerClient(conn).Session(ctx)
	if err != nil {
		return err
	}
	// Heartbeats that were sent and not answered: the answers come in their order.
	flying := make(chan *peerpb.Heartbeat, 64)
	failed := make(chan error, 1)
	go func() { // ends with the stream, which ends when this call returns
		for {
			reply, err := stream.Recv()
			switch {
			case err != nil:
				failed <- err
				return
			case reply.GetDead():
				failed <- ErrDead
				return
			}
			select {
			case hb := <-flying:
				c.answered(hb)
			default:
			}
		}
	}()
	tick := time.NewTicker(c.cfg.Interval)
	defer tick.Stop()
	for n := 0; ; n++ {
		hb := c.heartbeat(n)
		select {
		case flying <- hb:
		default:
			return errors.New("heartbeats are not answered")
		}
		if err := stream.Send(hb); err != nil {
			return <-failed
		}
		select {
		case <-tick.C:
		case <-c.soon:
		case <-changed:
			if now, _, ok := c.cfg.Leader.Leader(); ok && now == leader {
				changed = c.cfg.Leader.LeaderChanged()
				continue
			}
			return nil
		case err := <-failed:
			return err
		case <-ctx.Done():
			return nil
		}
	}
}
