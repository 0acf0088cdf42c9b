package broker

import (
	"context"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/skeinmq/skein/broker/runs"
	"github.com/skeinmq/skein/internal/ident"
	"github.com/skeinmq/skein/protocol"
)

// ListOffsets (key 2), v0 to v11.
//
// By timestamp the search goes through the runs in order and ends inside the first batch whose greatest timestamp is
// late enough: the offset is that of the first record that is. A partition without such a record answers -1, -1.
// Local and tiered special timestamps are answered as Apache Kafka does without tiered storage.
//
//	-1  latest: the high watermark, or the last stable offset for read_committed
//	-2  earliest
//	-3  the record with the greatest timestamp (v7)
//	-4  earliest on local disk (v8)         = earliest
//	-5  latest in tiered storage (v9)       = none
//	-6  earliest that waits for upload (v11) = none
//
//	v0  a list of offsets, newest first     v1  one offset with its timestamp
//	v2  isolation level                     v4  leader epoch
//	v6  flexible                            v10 timeout of the request (remote reads only)
var listOffsets = handler{
	key: 2, name: "ListOffsets", min: 0, max: 11,
	handle: (*Broker).handleListOffsets,
}

// Special timestamps.
const (
	timeLatest         = -1
	timeEarliest       = -2
	timeMax            = -3
	timeEarliestLocal  = -4
	timeLatestTiered   = -5
	timeEarliestUpload = -6
)

// specialSince is the version that brought each special timestamp, by its negation.
var specialSince = [...]int16{0, 0, 0, 7, 8, 9, 11}

func (b *Broker) handleListOffsets(ctx context.Context, rq *request) kmsg.Response {
	req := rq.body.(*kmsg.ListOffsetsRequest)
	resp := req.ResponseKind().(*kmsg.ListOffsetsResponse)
	seen := make(map[partKey]int)
	for i := range req.Topics {
		for k := range req.Topics[i].Partitions {
			seen[partKey{name: req.Topics[i].Topic, index: req.Topics[i].Partitions[k].Partition}]++
		}
	}
	for i := range req.Topics {
		t := kmsg.NewListOffsetsResponseTopic()
		t.Topic = req.Topics[i].Topic
		for k := range req.Topics[i].Partitions {
			from := &req.Topics[i].Partitions[k]
			p := kmsg.NewListOffsetsResponseTopicPartition()
			p.Partition, p.Offset, p.Timestamp, p.LeaderEpoch = from.Partition, -1, -1, -1
			var err error
			if seen[partKey{name: t.Topic, index: from.Partition}] > 1 && rq.version >= 1 {
				err = refuse(protocol.CodeInvalidRequest, "partition %s-%d is named twice", t.Topic, from.Partition)
			} else {
				err = b.listOffset(ctx, req, t.Topic, from, &p)
			}
			if err != nil {
				p.ErrorCode = errorCode(err)
				p.Offset, p.Timestamp, p.LeaderEpoch = -1, -1, -1
			}
			if rq.version == 0 && p.ErrorCode == 0 && p.Offset >= 0 {
				p.OldStyleOffsets = []int64{p.Offset}
			}
			t.Partitions = append(t.Partitions, p)
		}
		resp.Topics = append(resp.Topics, t)
	}
	return resp
}

func (b *Broker) listOffset(ctx context.Context, req *kmsg.ListOffsetsRequest, name string, from *kmsg.ListOffsetsRequestTopicPartition, out *kmsg.ListOffsetsResponseTopicPartition) error {
	if isInternal(name) && from.Partition >= 0 && from.Partition < offsetsPartitions {
		out.Offset, out.LeaderEpoch = 0, 0
		return nil
	}
	p, run, err := b.openPartition(name, from.Partition)
	if err != nil {
		return err
	}
	if err := checkEpoch(ident.Epoch(from.CurrentLeaderEpoch), run.gen.Epoch); err != nil {
		return err
	}
	ts := from.Timestamp
	if ts < 0 && (ts < timeEarliestUpload || req.Version < specialSince[-ts]) {
		return refuse(protocol.CodeUnsupportedVersion, "timestamp %d is not known to v%d", ts, req.Version)
	}
	q := run.queue
	start := q.LogStart()
	stable, high := q.LastStable(), q.HighWatermark()
	upper := high
	if req.IsolationLevel == 1 {
		upper = stable
	}
	switch ts {
	case timeLatest:
		out.Offset, out.LeaderEpoch = int64(upper), int32(run.gen.Epoch)
	case timeEarliest, timeEarliestLocal:
		out.Offset, out.LeaderEpoch = int64(start), b.epochAt(p, run, start)
	case timeLatestTiered, timeEarliestUpload:
		// nothing is tiered: no offset, no epoch
	default:
		return b.findTime(ctx, p, run, ts, start, upper, out)
	}
	return nil
}

// findTime answers the searches by timestamp: the first record at or after ts, or that with the greatest timestamp.
func (b *Broker) findTime(ctx context.Context, p *partition, open *openRun, ts int64, start, upper ident.Offset, out *kmsg.ListOffsetsResponseTopicPartition) error {
	by := runs.Question{From: start, Timestamp: ts, Greatest: ts == timeMax}
	var best runs.Found
	var where runs.Run
	for r, err := range b.runsFrom(p, open, start) {
		if err != nil {
			return err
		}
		found, ok, err := r.Lookup(ctx, by)
		switch {
		case err != nil:
			return err
		case !ok || by.Greatest && where != nil && found.Timestamp <= best.Timestamp:
			continue
		}
		best, where = found, r
		if !by.Greatest {
			break
		}
	}
	if where == nil || best.Timestamp < 0 && by.Greatest || best.Offset >= upper {
		return nil // -1, -1: no such record
	}
	out.Offset, out.Timestamp, out.LeaderEpoch = int64(best.Offset), best.Timestamp, int32(where.Epoch())
	return nil
}
