package protocol

import "math"

// FetchResponse is what a FetchEncoder encodes, v0 to v18. Fields that a version does not have are left out.
//
//	v0     [topic name, [partition, error, high watermark, records]]
//	v1     + throttle time           v4  + last stable offset, aborted transactions
//	v5     + log start offset        v7  + error, session id (KIP-227)
//	v11    + preferred read replica  v12 flexible, + diverging epoch and current leader tags
//	v13    topic id in place of name v16 + node endpoints tag (KIP-951)
type FetchResponse struct {
	ThrottleMillis int32
	Code           Code
	SessionID      int32
	Topics         []FetchResponseTopic
	// Nodes says how to reach the leaders named by the partitions.
	Nodes []NodeEndpoint
}

// FetchResponseTopic is one topic, named the way the request did.
type FetchResponseTopic struct {
	Name       string
	ID         UUID
	Partitions []FetchResponsePartition
}

// FetchResponsePartition is the answer for one partition. Reset gives the values that mean "nothing known".
type FetchResponsePartition struct {
	Index            int32
	Code             Code
	HighWatermark    int64
	LastStableOffset int64
	LogStartOffset   int64
	// AbortedTransactions, by first offset, is null (read_uncommitted) if nil.
	AbortedTransactions []AbortedTransaction
	// PreferredReadReplica is the node to read from instead, -1 for none.
	PreferredReadReplica int32
	// Diverging tells a client with an other history where the two part.
	Diverging EpochEnd
	// CurrentLeader is sent along with CodeNotLeaderOrFollower and its like.
	CurrentLeader LeaderEpoch
	// Records are whole batches that follow one another; the slices go out as they are and are not copied.
	Records [][]byte
}

// AbortedTransaction is a transaction that a read_committed client must drop.
type AbortedTransaction struct {
	ProducerID  int64
	FirstOffset int64
}

// EpochEnd is a leader epoch and the offset at which it ended. The zero value is absent.
type EpochEnd struct {
	Epoch     int32
	EndOffset int64
	// Known tells a present value from an absent one.
	Known bool
}

// Reset makes p an empty answer about that partition, with every offset and the preferred replica at -1. The slice of
// records keeps its capacity.
func (p *FetchResponsePartition) Reset(index int32) {
	clear(p.Records) // let go of the blocks they point into
	*p = FetchResponsePartition{
		Index: index, HighWatermark: -1, LastStableOffset: -1, LogStartOffset: -1, PreferredReadReplica: -1,
		Records: p.Records[:0],
	}
}

// RecordBytes returns the length of the records.
func (p *FetchResponsePartition) RecordBytes() int {
	n := 0
	for _, b := range p.Records {
		n += len(b)
	}
	return n
}

// FetchEncoder lays a Fetch answer out for one gathering write: everything but the records goes into one buffer of its
// own, and slices of that buffer alternate with the records, which are not copied. The zero value is ready; a warm one
// does not allocate. It is not safe for concurrent use.
type FetchEncoder struct {
	head []byte
	cuts []int // ends of the pieces of head that records follow
	bufs [][]byte
}

// Encode returns the whole frame (size, response header, body) as buffers in order, and the sum of their lengths.
// The slices belong to e until the next Encode or Release; writing them with net.Buffers consumes them, which is fine.
// An answer over 2 GiB is an error that matches ErrFrameSize.
func (e *FetchEncoder) Encode(p *FetchResponse, version int16, correlationID int32) (bufs [][]byte, total int, err error) {
	e.head, e.cuts = AppendFrameSize(e.head[:0]), e.cuts[:0]
	e.head = AppendResponseHeader(e.head, KeyFetch, version, correlationID)
	recordBytes := e.appendBody(p, version)
	total = len(e.head) + recordBytes
	if total > math.MaxInt32 {
		return nil, total, &FrameSizeError{Size: math.MaxInt32, Limit: math.MaxInt32}
	}
	AppendInt32(e.head[:0], int32(total-FrameSizeLen))

	e.bufs = e.bufs[:0]
	start, cut := 0, 0
	for i := range p.Topics {
		for j := range p.Topics[i].Partitions {
			records := p.Topics[i].Partitions[j].Records
			if len(records) == 0 {
				continue
			}
			e.bufs = append(e.bufs, e.head[start:e.cuts[cut]])
			start, cut = e.cuts[cut], cut+1
			e.bufs = append(e.bufs, records...)
		}
	}
	if start < len(e.head) {
		e.bufs = append(e.bufs, e.head[start:])
	}
	return e.bufs, total, nil
}

// Release drops the references to records that the last Encode left in e, and buffers too large to keep.
func (e *FetchEncoder) Release() {
	clear(e.bufs[:cap(e.bufs)])
	if cap(e.head) > keepHead {
		*e = FetchEncoder{}
	}
}

// keepHead is how many bytes of answer, without the records, an encoder keeps room for: some 10,000 partitions.
const keepHead = 512 << 10

// appendBody appends the body without the records, notes where they belong, and returns their length.
func (e *FetchEncoder) appendBody(p *FetchResponse, version int16) (recordBytes int) {
	flexible := version >= 12
	dst := e.head
	if version >= 1 {
		dst = AppendInt32(dst, p.ThrottleMillis)
	}
	if version >= 7 {
		dst = AppendInt16(dst, int16(p.Code))
		dst = AppendInt32(dst, p.SessionID)
	}
	dst = AppendArrayLen(dst, len(p.Topics), flexible)
	for i := range p.Topics {
		t := &p.Topics[i]
		dst = appendTopic(dst, t.Name, &t.ID, version >= 13, flexible)
		dst = AppendArrayLen(dst, len(t.Partitions), flexible)
		for j := range t.Partitions {
			q := &t.Partitions[j]
			dst = q.appendHead(dst, version)
			n := q.RecordBytes()
			recordBytes += n
			dst = AppendBytesLen(dst, n, flexible)
			if len(q.Records) > 0 {
				e.cuts = append(e.cuts, len(dst))
			}
			if flexible {
				dst = q.appendTags(dst)
			}
		}
		dst = AppendNoTags(dst, flexible)
	}
	switch {
	case version >= 16:
		dst = appendNodesTag(dst, p.Nodes)
	case flexible:
		dst = append(dst, 0)
	}
	e.head = dst
	return recordBytes
}

// appendHead appends the fields that precede the records.
func (p *FetchResponsePartition) appendHead(dst []byte, version int16) []byte {
	flexible := version >= 12
	dst = AppendInt32(dst, p.Index)
	dst = AppendInt16(dst, int16(p.Code))
	dst = AppendInt64(dst, p.HighWatermark)
	if version >= 4 {
		dst = AppendInt64(dst, p.LastStableOffset)
	}
	if version >= 5 {
		dst = AppendInt64(dst, p.LogStartOffset)
	}
	if version >= 4 {
		n := len(p.AbortedTransactions)
		if p.AbortedTransactions == nil {
			n = -1
		}
		dst = AppendArrayLen(dst, n, flexible)
		for _, a := range p.AbortedTransactions {
			dst = AppendInt64(dst, a.ProducerID)
			dst = AppendInt64(dst, a.FirstOffset)
			dst = AppendNoTags(dst, flexible)
		}
	}
	if version >= 11 {
		dst = AppendInt32(dst, p.PreferredReadReplica)
	}
	return dst
}

// appendTags appends the tags of a partition: 0 diverging epoch, 1 current leader.
func (p *FetchResponsePartition) appendTags(dst []byte) []byte {
	n := byte(0)
	if p.Diverging.Known {
		n++
	}
	if p.CurrentLeader.Known {
		n++
	}
	dst = append(dst, n)
	if p.Diverging.Known {
		dst = append(dst, 0, 4+8+1)
		dst = AppendInt32(dst, p.Diverging.Epoch)
		dst = AppendInt64(dst, p.Diverging.EndOffset)
		dst = append(dst, 0)
	}
	if p.CurrentLeader.Known {
		dst = appendLeaderTag(dst, 1, p.CurrentLeader)
	}
	return dst
}
