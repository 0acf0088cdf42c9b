package controller

import (
	"github.com/skeinmq/skein/internal/ident"
)

// Partitions is the number of coordinator partitions: those of __consumer_offsets (Kafka's
// default of offsets.topic.num.partitions). Group → partition is the broker's formula.
const Partitions = 50

// Limits of what one command may carry. Both are far above what clients send: Kafka's own
// limit for a group's metadata is 1 MiB.
const (
	// MaxValueBytes bounds the metadata of one group.
	MaxValueBytes = 8 << 20
	// MaxEntryBytes bounds one encoded command. A batch that would pass it must be split.
	MaxEntryBytes = 16 << 20
)

// Epoch counts the claims of one coordinator partition. Every write is stamped with the
// epoch of the claim it belongs to; the state machine refuses every other one.
type Epoch int64

// Claim makes its sender the coordinator of a partition: it gets a new epoch, and every
// later write stamped with an older one is refused.
type Claim struct {
	Partition int32
	// Owner is the epoch of the placement group that hosts the partition: a claim with an
	// older one than the newest seen is refused (ErrFenced).
	Owner ident.Epoch
}

// Batch is what one coordinator partition writes at once: one raft entry, one fsync, all
// or nothing.
type Batch struct {
	Partition int32
	Epoch     Epoch // of the claim
	// Seq strictly increases within an epoch. A batch that arrives again, or after a newer
	// one, is refused (ErrStale).
	Seq uint64
	Ops []Op
}

// OpKind says what an Op does. The numbers are part of the format.
type OpKind uint8

// The operations on one group.
const (
	// PutGroup sets the group's metadata to Value.
	PutGroup OpKind = 1
	// DropGroup removes the group: its metadata and all its offsets.
	DropGroup OpKind = 2
	// PutOffsets sets the given committed offsets.
	PutOffsets OpKind = 3
	// DropOffsets removes the committed offsets of the given partitions.
	DropOffsets OpKind = 4
)

// Op changes one group.
type Op struct {
	Kind    OpKind
	Group   string
	Value   []byte            // PutGroup; not kept by the caller afterwards
	Offsets []PartitionOffset // PutOffsets; of DropOffsets only the Partition counts
}

// PartitionOffset is a committed offset and the partition it belongs to.
type PartitionOffset struct {
	Partition ident.Partition
	Offset
}

// Offset is one committed offset of one group.
type Offset struct {
	// Offset is the next one the group wants to read.
	Offset ident.Offset
	// LeaderEpoch is that of the last record consumed, -1 if the client did not say.
	LeaderEpoch ident.Epoch
	Metadata    string
	// CommitTime in ms since 1970; retention counts from it.
	CommitTime int64
	// ExpireTime in ms since 1970 if the client gave a retention of its own (OffsetCommit
	// v2–4), -1 if not.
	ExpireTime int64
}

// ProducerIDBlock is how many producer ids one allocation hands out (Kafka's size).
const ProducerIDBlock = 1000
