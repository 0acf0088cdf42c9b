// Package ident holds the identifiers and the two small values that every layer
// of Skein names things by. It is vocabulary, not behaviour: no I/O, no state,
// no imports of ours. Each number has a type of its own, because two bare
// int64 in one signature is where bugs live.
package ident

import (
	"bytes"
	"cmp"
	"encoding/hex"
	"fmt"
)

// Offset is a logical offset of a partition: what Kafka calls an offset.
type Offset int64

// Position is an absolute byte position in one log. Positions never restart:
// a log is endless, its files are windows on it.
type Position int64

// Epoch numbers the generations of a placement group, strictly increasing. It is
// the Kafka leader epoch of every partition in the group.
type Epoch int32

// LogEpoch counts the openings of one log. Every block carries the one it was
// written under.
type LogEpoch int64

// Group is a placement group: the partitions that live and move together.
type Group int32

// Broker is a Kafka node id.
type Broker int32

// Topic is a Kafka topic id (KIP-516): 16 bytes, never reused.
type Topic [16]byte

// Log is the UUID written on a log's own disk. A log is addressed by it, never
// by the broker that hosts it.
type Log [16]byte

// Partition is a logical queue: what a Kafka client calls a partition.
type Partition struct {
	Topic Topic
	Index int32
}

// Frame names an opening frame: the log epoch under which it was written and its
// position in its log (O2). The zero Frame names nothing.
type Frame struct {
	Epoch    LogEpoch
	Position Position
}

// Generation is one period of a placement group on one log, named by its opening
// frame. A physical queue is exactly Partition × Generation. Two generations are
// the same only if all three fields are (O2).
type Generation struct {
	Group Group
	Epoch Epoch
	Frame Frame
}

// PartitionState is what a generation starts from, for one partition: the part of
// a seal's table that travels in an opening frame. A partition whose state is the
// zero one is left out: absent means no state at all (O5).
type PartitionState struct {
	Partition Partition
	// End is the first offset of the new generation: the exact end of the one before.
	End Offset
	// LogStart is the first offset that may be read; LogStart <= End.
	LogStart Offset
	// Producers is ordered by ID.
	Producers []ProducerState
}

// ProducerState is what deduplication of one producer on one partition needs.
type ProducerState struct {
	ID    int64
	Epoch int16
	// CoordinatorEpoch is that of the newest transaction marker, -1 if none.
	CoordinatorEpoch int32
	// TxnStart is the first offset of the open transaction, -1 if none.
	TxnStart Offset
	// LastTimestamp in ms since 1970 of the newest batch; expiry goes by it.
	LastTimestamp int64
	// Batches are the newest ones, oldest first, at most five (Kafka's window).
	Batches []ProducerBatch
}

// ProducerBatch is one appended batch as deduplication sees it.
type ProducerBatch struct {
	FirstSequence int32
	LastSequence  int32
	LastOffset    Offset
	// OffsetDelta is LastOffset minus the batch's base offset.
	OffsetDelta int32
	Timestamp   int64
}

// String renders the canonical 8-4-4-4-12 form.
func (l Log) String() string { return uuid(l) }

// String renders the canonical 8-4-4-4-12 form. (Kafka's tools print topic ids in
// URL-safe base64; that is the protocol layer's matter.)
func (t Topic) String() string { return uuid(t) }

func (p Partition) String() string { return fmt.Sprintf("%s-%d", p.Topic, p.Index) }

// Compare orders partitions by topic id, then by index.
func (p Partition) Compare(q Partition) int {
	return cmp.Or(bytes.Compare(p.Topic[:], q.Topic[:]), cmp.Compare(p.Index, q.Index))
}

func (f Frame) String() string { return fmt.Sprintf("%d@%d", f.Epoch, f.Position) }

func (g Generation) String() string {
	return fmt.Sprintf("%d.%d(%s)", g.Group, g.Epoch, g.Frame)
}

// ParseLog reads the form that Log.String writes.
func ParseLog(s string) (Log, error) {
	b, err := parseUUID(s)
	return Log(b), err
}

// ParseTopic reads the form that Topic.String writes.
func ParseTopic(s string) (Topic, error) {
	b, err := parseUUID(s)
	return Topic(b), err
}

func uuid(b [16]byte) string {
	h := hex.EncodeToString(b[:])
	return h[:8] + "-" + h[8:12] + "-" + h[12:16] + "-" + h[16:20] + "-" + h[20:]
}

func parseUUID(s string) (out [16]byte, err error) {
	if len(s) != 36 || s[8] != '-' || s[13] != '-' || s[18] != '-' || s[23] != '-' {
		return out, fmt.Errorf("parse uuid %q: want 8-4-4-4-12 hex digits", s)
	}
	if _, err := hex.Decode(out[:], []byte(s[:8]+s[9:13]+s[14:18]+s[19:23]+s[24:])); err != nil {
		return [16]byte{}, fmt.Errorf("parse uuid %q: %w", s, err)
	}
	return out, nil
}
