package runs

import (
	"context"
	"fmt"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/skeinmq/skein/internal/ident"
	"github.com/skeinmq/skein/internal/peer/peerpb"
)

// MarksMost bounds the partitions that one request asks about.
const MarksMost = 1024

// Marks are where a partition begins and ends, as its owner has them.
type Marks struct {
	Epoch        ident.Epoch // of the open run
	High, Stable ident.Offset
	Start        ident.Offset // log start
}

// Marks asks the owner of partitions for theirs, at most MarksMost. It calls each with those that are open there.
func (c *Client) Marks(ctx context.Context, at ident.Broker, ps []ident.Partition, each func(ident.Partition, Marks)) error {
	rq := &peerpb.MarksRequest{Partitions: make([]*peerpb.PartitionRef, len(ps))}
	for i := range ps {
		rq.Partitions[i] = &peerpb.PartitionRef{Topic: ps[i].Topic[:], Index: ps[i].Index}
	}
	return c.ask(ctx, at, false, func(ctx context.Context, rpc peerpb.ReadsClient, _ func()) error {
		reply, err := rpc.Marks(ctx, rq)
		if err != nil {
			return err
		}
		for _, m := range reply.GetMarks() {
			if m.At < 0 || int(m.At) >= len(ps) || m.Start < 0 || m.Stable < m.Start || m.High < m.Stable {
				return fmt.Errorf("%w: marks [%d,%d,%d] of partition %d", errBatches, m.Start, m.Stable, m.High, m.At)
			}
			each(ps[m.At], Marks{
				Epoch: ident.Epoch(m.Epoch), High: ident.Offset(m.High), Stable: ident.Offset(m.Stable), Start: ident.Offset(m.Start),
			})
		}
		return nil
	})
}

// Marks is of peerpb.ReadsServer.
func (s *Server) Marks(_ context.Context, rq *peerpb.MarksRequest) (*peerpb.MarksReply, error) {
	if len(rq.GetPartitions()) > MarksMost {
		return nil, status.Errorf(codes.InvalidArgument, "marks of %d partitions at once", len(rq.GetPartitions()))
	}
	reply := &peerpb.MarksReply{}
	for i, p := range rq.GetPartitions() {
		if len(p.GetTopic()) != len(ident.Topic{}) {
			return nil, status.Error(codes.InvalidArgument, errRef.Error())
		}
		if m, ok := s.marks(ident.Partition{Topic: ident.Topic(p.Topic), Index: p.Index}); ok {
			reply.Marks = append(reply.Marks, &peerpb.Mark{
				At: int32(i), Epoch: int32(m.Epoch), High: int64(m.High), Stable: int64(m.Stable), Start: int64(m.Start),
			})
		}
	}
	return reply, nil
}
