package balance

import (
	"context"
	"errors"
	"fmt"

	"google.golang.org/grpc"

	"github.com/skeinmq/skein/internal/ident"
	"github.com/skeinmq/skein/internal/peer/peerpb"
)

// Conns leads to other brokers' internal listeners.
type Conns interface {
	Conn(ident.Broker) (grpc.ClientConnInterface, error)
}

// Remote is Owners over the internal listeners.
type Remote struct{ Conns Conns }

// Move implements Owners.
func (r Remote) Move(ctx context.Context, owner ident.Broker, groups []ident.Group, to ident.Log) (map[ident.Group]error, error) {
	conn, err := r.Conns.Conn(owner)
	if err != nil {
		return nil, fmt.Errorf("reach broker %d: %w", owner, err)
	}
	rq := &peerpb.MoveRequest{To: to[:]}
	for _, g := range groups {
		rq.Groups = append(rq.Groups, int32(g))
	}
	reply, err := peerpb.NewOwnerClient(conn).Move(ctx, rq)
	if err != nil {
		return nil, fmt.Errorf("move groups of broker %d: %w", owner, err)
	}
	out := make(map[ident.Group]error, len(groups))
	for _, g := range reply.GetGroups() {
		out[ident.Group(g.GetGroup())] = nil
		if g.GetError() != "" {
			out[ident.Group(g.GetGroup())] = errors.New(g.GetError())
		}
	}
	return out, nil
}

// hottestMost bounds the partitions of a group that are looked at; owners say fewer.
const hottestMost = 64

// Hottest implements Owners.
func (r Remote) Hottest(ctx context.Context, owner ident.Broker, group ident.Group) ([]HotPartition, error) {
	conn, err := r.Conns.Conn(owner)
	if err != nil {
		return nil, fmt.Errorf("reach broker %d: %w", owner, err)
	}
	reply, err := peerpb.NewOwnerClient(conn).Hottest(ctx, &peerpb.HottestRequest{Group: int32(group)})
	if err != nil {
		return nil, fmt.Errorf("ask broker %d about group %d: %w", owner, group, err)
	}
	var out []HotPartition
	for _, p := range reply.GetPartitions()[:min(hottestMost, len(reply.GetPartitions()))] {
		hp := HotPartition{Topic: p.GetTopic(), Partition: ident.Partition{Index: p.GetPartition()}, Share: p.GetShare()}
		if copy(hp.Partition.Topic[:], p.GetTopicId()) != len(hp.Partition.Topic) || !(hp.Share >= 0 && hp.Share <= 1) {
			return nil, fmt.Errorf("ask broker %d about group %d: it names a topic %x with a share of %v", owner, group, p.GetTopicId(), hp.Share)
		}
		out = append(out, hp)
	}
	return out, nil
}

// Split implements Owners.
func (r Remote) Split(ctx context.Context, owner ident.Broker, topic string, partition int32, to ident.Group) error {
	conn, err := r.Conns.Conn(owner)
	if err != nil {
		return fmt.Errorf("reach broker %d: %w", owner, err)
	}
	reply, err := peerpb.NewOwnerClient(conn).Split(ctx, &peerpb.SplitRequest{Topic: topic, Partition: partition, Group: int32(to)})
	if err == nil && reply.GetError() != "" {
		err = errors.New(reply.GetError())
	}
	if err != nil {
		return fmt.Errorf("split %s:%d at broker %d: %w", topic, partition, owner, err)
	}
	return nil
}
