// Package witness keeps, in the memory of other brokers, what a failover needs to know of a log: up to where each
// partition has been promised to clients, and the state of its producers.
//
// There are two sides, each a pure core without goroutines, clock or I/O, and a thin shell around it. A Member holds the
// tables of the logs that have this broker in their witness set (O5, O6, O10). An Owner is the set machine of one log
// at one epoch: it says which members must have recorded a group commit before it is committed (O4), and changes the
// set by compare-and-swap (O7, O8). Server serves a Member on streams and by gRPC; Registrar is the commitlog's view of an Owner.
//
// The package refuses to know the map, Kafka and how connections are made. Whoever wires it turns its small interfaces
// into etcd transactions and dialled connections.
package witness

import (
	"errors"
	"fmt"

	"github.com/skeinmq/skein/internal/ident"
)

// Errors that callers branch on. A member refuses with one of them; that ends the session for good.
var (
	// ErrSealed: the member was told to seal the log at this epoch (O10). The owner can never ack again.
	ErrSealed = errors.New("sealed by the witness")
	// ErrGap: the number of a delta does not follow (O5).
	ErrGap = errors.New("gap in the updates")
	// ErrOld: a number, a table or a session that a newer one has overtaken (O5).
	ErrOld = errors.New("overtaken")
	// ErrIncarnation: another incarnation of the member was meant (O5, O6).
	ErrIncarnation = errors.New("another incarnation of the witness")
	// ErrUnknown: the member knows nothing of (log, epoch). Never the same as an empty table (O6).
	ErrUnknown = errors.New("unknown to the witness")
	// ErrFull: the tables of a member would pass its bounds.
	ErrFull = errors.New("witness tables full")
	// ErrMalformed: bytes that no owner of this version sends.
	ErrMalformed = errors.New("malformed witness message")
)

// ID is a broker in one incarnation: what a log's record names as a member of its witness set.
type ID struct {
	Broker      ident.Broker
	Incarnation int64
}

func (id ID) String() string { return fmt.Sprintf("%d/%d", id.Broker, id.Incarnation) }

// Key names a table: one log at one epoch.
type Key struct {
	Log   ident.Log
	Epoch ident.LogEpoch
}

func (k Key) String() string { return fmt.Sprintf("%s@%d", k.Log, k.Epoch) }

// Message is what an owner sends to a member, in order within a session: a Hello, the parts of the whole table, then
// deltas. Exactly one field is set.
type Message struct {
	Hello *Hello
	Table *TablePart
	Delta *Delta
}

// Hello begins a session.
type Hello struct {
	Key   Key
	Owner ID
	// Session orders the sessions of one owner for one log: a member serves only the newest that it has seen.
	Session uint64
	// Member is who is meant.
	Member ID
}

// TablePart is a part of the whole table. Nothing is recorded before the last one, which has Done set.
type TablePart struct {
	Generations []ident.GenerationState
	Done        bool
	Next        uint64 // number of the first delta after the table
}

// Delta is one numbered change (O5): what one group commit changed, or a piece of it when that is large.
type Delta struct {
	Number  uint64
	Updates []byte // see AppendUpdates
}
