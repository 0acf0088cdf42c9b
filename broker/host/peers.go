package host

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/skeinmq/skein/commitlog"
	"github.com/skeinmq/skein/internal/ident"
	"github.com/skeinmq/skein/internal/peer/peerpb"
	"github.com/skeinmq/skein/queuemapper"
)

// Conns connects to other brokers.
type Conns interface {
	Conn(ident.Broker) (grpc.ClientConnInterface, error)
}

// Peers is the Targets of a broker that has connections to others. The controller prepares through it as well.
type Peers struct{ Conns Conns }

func (p Peers) client(id ident.Broker) (peerpb.OwnerClient, error) {
	conn, err := p.Conns.Conn(id)
	if err != nil {
		return nil, fmt.Errorf("reach broker %d: %w", id, err)
	}
	return peerpb.NewOwnerClient(conn), nil
}

// Prepare is Targets'. ErrNotHosted: the log is not open there at the record's epoch.
func (p Peers) Prepare(ctx context.Context, target *queuemapper.Log, openings []commitlog.Opening) ([]ident.Frame, error) {
	if len(openings) == 0 {
		return nil, nil
	}
	c, err := p.client(target.Host)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stream, err := c.Prepare(ctx)
	if err != nil {
		return nil, fmt.Errorf("prepare at broker %d: %w", target.Host, err)
	}
	for _, part := range prepareParts(target, openings) {
		if err := stream.Send(part); err == io.EOF {
			break // CloseAndRecv says why
		} else if err != nil {
			return nil, fmt.Errorf("prepare at broker %d: %w", target.Host, err)
		}
	}
	reply, err := stream.CloseAndRecv()
	switch {
	case status.Code(err) == codes.FailedPrecondition:
		return nil, fmt.Errorf("prepare at broker %d: %w: %w", target.Host, ErrNotHosted, err)
	case err != nil:
		return nil, fmt.Errorf("prepare at broker %d: %w", target.Host, err)
	case len(reply.GetFrames()) != len(openings):
		return nil, fmt.Errorf("prepare at broker %d: %d frames for %d openings", target.Host, len(reply.GetFrames()), len(openings))
	}
	frames := make([]ident.Frame, len(openings))
	for i, f := range reply.GetFrames() {
		frames[i] = ident.Frame{Epoch: ident.LogEpoch(f.GetEpoch()), Position: ident.Position(f.GetPosition())}
	}
	return frames, nil
}

// prepareParts cuts a request into messages of a bounded size.
func prepareParts(target *queuemapper.Log, openings []commitlog.Opening) []*peerpb.PrepareRequest {
	fresh := func() *peerpb.PrepareRequest {
		return &peerpb.PrepareRequest{Log: target.ID[:], Epoch: int64(target.Epoch)}
	}
	parts := []*peerpb.PrepareRequest{fresh()}
	size := 0
	add := func(o *commitlog.Opening, states []byte) {
		last := len(parts) - 1
		if len(parts[last].Openings) > 0 && size+len(states) > pieceBytes {
			parts, size = append(parts, fresh()), 0
			last++
		}
		size += len(states)
		parts[last].Openings = append(parts[last].Openings, &peerpb.Opening{
			Group: int32(o.Group), Epoch: int32(o.Epoch), Ceiling: int64(o.Ceiling), States: states,
		})
	}
	for i := range openings {
		o := &openings[i]
		from, bytes := 0, 0
		for k := range o.State {
			n := len(commitlog.AppendStates(nil, o.State[k:k+1]))
			if k > from && bytes+n > pieceBytes {
				add(o, commitlog.AppendStates(nil, o.State[from:k]))
				from, bytes = k, 0
			}
			bytes += n
		}
		add(o, commitlog.AppendStates(nil, o.State[from:]))
	}
	return parts
}

// Move asks the owner of groups to move them to a log (O18).
func (p Peers) Move(ctx context.Context, owner ident.Broker, groups []ident.Group, to ident.Log) []Moved {
	out := make([]Moved, len(groups))
	rq := &peerpb.MoveRequest{To: to[:]}
	at := make(map[ident.Group]*Moved, len(groups))
	for i, g := range groups {
		out[i] = Moved{Group: g, To: to, Err: fmt.Errorf("broker %d does not say what became of it", owner)}
		at[g] = &out[i]
		rq.Groups = append(rq.Groups, int32(g))
	}
	c, err := p.client(owner)
	var reply *peerpb.MoveReply
	if err == nil {
		reply, err = c.Move(ctx, rq)
	}
	if err != nil {
		for i := range out {
			out[i].Err = fmt.Errorf("ask broker %d to move: %w", owner, err)
		}
		return out
	}
	for _, g := range reply.GetGroups() {
		v := at[ident.Group(g.GetGroup())]
		if v == nil {
			continue
		}
		v.Epoch, v.Pause, v.Err = ident.Epoch(g.GetEpoch()), time.Duration(g.GetPauseMs()*float64(time.Millisecond)), nil
		if g.GetError() != "" {
			v.Err = errors.New(g.GetError())
		}
	}
	return out
}

// AwaitMap is Targets'. It waits for a connection, too, as long as ctx allows.
func (p Peers) AwaitMap(ctx context.Context, id ident.Broker, revision int64) error {
	c, err := p.client(id)
	if err != nil {
		return err
	}
	if _, err = c.AwaitMap(ctx, &peerpb.AwaitMapRequest{Revision: revision}, grpc.WaitForReady(true)); err != nil {
		return fmt.Errorf("await the map at broker %d: %w", id, err)
	}
	return nil
}
