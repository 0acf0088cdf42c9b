// Package commitlog is the one log: every partition that lives on one disk is
// wound into it, one group commit at a time.
//
// It promises that what it acknowledged is at its offset after any crash, that
// nothing is visible before it is committed, and that a generation's end, once
// sealed, never changes. It refuses to know Kafka's API, the map and the network:
// who may write is told to it by Begin, Activate, Freeze and Seal.
package commitlog

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/skeinmq/skein/internal/ident"
	"github.com/skeinmq/skein/internal/vfs"
)

// Errors that callers branch on.
var (
	// ErrNotOpen: the queue's generation is not the open one here (never was, is
	// sealed, or is only prepared). Kafka: NOT_LEADER_OR_FOLLOWER.
	ErrNotOpen = errors.New("generation not open")
	// ErrFrozen: a planned move holds the group's appends; retry.
	ErrFrozen = errors.New("group frozen")
	// ErrPoisoned: a write failed or was stuck. Final for this Log.
	ErrPoisoned = errors.New("log poisoned")
	// ErrFull: too little free disk; retriable elsewhere or later.
	ErrFull = errors.New("disk full")
	// ErrCorrupt: stored bytes fail their checksums; see CorruptError.
	ErrCorrupt = errors.New("corrupt")
	// ErrOutOfRange: offset below the log start or above the end.
	ErrOutOfRange = errors.New("offset out of range")
	// ErrSequence: out of order sequence number (idempotence).
	ErrSequence = errors.New("out of order sequence")
	// ErrProducerEpoch: the batch's producer epoch is older than the known one.
	ErrProducerEpoch = errors.New("invalid producer epoch")
	// ErrDuplicate: not an error to clients: Result carries the first append's offset.
	ErrDuplicate = errors.New("duplicate sequence")
	// ErrTooLarge: a batch that no block of this log's files can hold.
	ErrTooLarge = errors.New("batch too large")
	// ErrClosed: the log is being closed.
	ErrClosed = errors.New("log closed")
)

// Config configures one log. The zero value of each optional field means its default.
type Config struct {
	Dir string // <data>; holds log/ and meta/

	ClusterID string // compared with the identity on disk; "" at format time only in tools

	FileSize       int64         // bytes of one log file; default 512 MiB
	MaxBlock       int           // bytes of one group commit; default 1 MiB, a larger batch gets a block of its own
	WritesInFlight int           // default 2: measured
	CacheBytes     int64         // recent blocks kept in memory until SetCacheBytes says otherwise; slow readers hold as much beyond. Default 256 MiB, bounded by Validate
	ReadsInFlight  int           // concurrent preads of cold data; default 64
	StuckWrite     time.Duration // a write older than this poisons the log; default 5 s
	ReadyFiles     int           // files prepared ahead; default 2

	ProducerExpiry time.Duration // default 24 h
	CheckpointEach time.Duration // default 30 s
	SortEach       time.Duration // how often sealed files of which little is live are looked for; default 5 s
	SortRate       int64         // bytes a second at which these are rewritten; default 32 MiB
	SortAll        bool          // every sealed file is rewritten once, in order of queue

	Witness Registrar // nil: the recorded witness set is empty, for ever

	FS vfs.FS // nil: the real one

	Logger     *slog.Logger
	Registerer prometheus.Registerer
	Now        func() time.Time // nil: the wall clock at Open and the time since then. Ages of producers go by it, stamps of blocks and files tell people
}

// Log is one commitlog. Life: Open (recovers; serves nothing) → Run in a goroutine →
// Begin (told by the map what is open) → Append/Read/… → Close.
type Log struct {
	cfg     Config
	fs      vfs.FS
	log     *slog.Logger
	logDir  string
	metaDir string
	id      ident.Log
	cluster string
	direct  vfs.DirectIO
	align   int // of blocks in the files made from now on

	recovered Recovered
	table     *table
	mem       *memory
	readMem   *memory // buffers of large reads from disk
	damage    damage
	packMem   *memory // and of small ones
	ahead     ahead
	passed    passed
	files     fileSet
	pool      *filePool
	keeper    keeper
	sealer    sealer
	sorter    sorter
	metrics   *metrics
	inbox     *inbox
	blocks    blockPool
	seq       *sequencer // owned by its goroutine once Run has begun
	low       lowCeilings

	reads     chan struct{} // slots of concurrent preads
	order     chan *block   // dispatched blocks, in order, to the completer
	writes    chan *block   // to the writers
	witnessed chan *block   // durable blocks, in order, that wait for the witnesses
	touched   []*Queue      // owned by who commits: the completer, or commitWitnessed while handed > 0
	snapping  chan struct{} // one slot: who holds it takes a snapshot

	epoch     atomic.Int64
	begun     atomic.Bool
	durable   atomic.Int64 // position
	committed atomic.Int64 // position
	inFlight  atomic.Int64 // writes
	piped     atomic.Int64 // blocks between dispatch and commit
	handed    atomic.Int64 // of these, those that the completer left to commitWitnessed

	stopped   chan struct{} // closed when Run has no sequencer any more
	poisonErr atomic.Pointer[error]
	poisoned  chan struct{} // closed once poisonErr is set
	late      sync.WaitGroup
	stray     bool // a write outlived Run
}

// Recovered is what the disk says, before the map has been asked.
type Recovered struct {
	ID          ident.Log
	ClusterID   string
	Epoch       ident.LogEpoch // newest epoch begun on this disk; 0: never
	Fresh       bool           // the directory was just formatted
	Generations []RecoveredGeneration
	End         ident.Position
	Damage      []CorruptError // quarantined ranges, if any
}

// RecoveredGeneration is one generation found on the disk, sealed ones included, with recovered ends.
type RecoveredGeneration = ident.GenerationState

// MapGeneration is one generation as the map names it, told to Begin.
type MapGeneration struct {
	Generation ident.Generation
	Open       bool
	// Ceiling of an open generation: no batch of it ends beyond. 0: no bound.
	Ceiling ident.Offset
	// Ends of a sealed generation. A partition that is absent ended where it started.
	Ends map[ident.Partition]ident.Offset
	// Gap: Ends are its ceiling, as nobody knew better. What the disk has of it is all that there is; it is
	// cut nowhere, and that it ends earlier is no loss.
	Gap bool
}

// CorruptError names a damaged range of the log.
type CorruptError struct {
	File     string
	From, To ident.Position
	Reason   string
}

func (e *CorruptError) Error() string { return "corrupt " + e.File + ": " + e.Reason }

// Is makes errors.Is(err, ErrCorrupt) true.
func (e *CorruptError) Is(target error) bool { return target == ErrCorrupt }

// Open recovers the log in cfg.Dir, formatting an empty directory. It serves nothing yet.
func Open(ctx context.Context, cfg Config) (*Log, error) { return open(ctx, cfg) }

// Recovered reports what recovery found.
func (l *Log) Recovered() Recovered { return l.recovered }

// Run drives the log until ctx ends or the log is poisoned; it returns after the last
// write is on disk. It must run before Begin.
func (l *Log) Run(ctx context.Context) error { return l.run(ctx) }

// Begin opens the log at epoch with exactly the generations that the map names (O3, O15,
// O16): what the map does not name is forgotten, what it sealed is cut at its ends, the
// cut is written down, and only then does anything else succeed.
func (l *Log) Begin(ctx context.Context, epoch ident.LogEpoch, named []MapGeneration) error {
	return l.begin(ctx, epoch, named)
}

// Opening asks for an opening frame: what a generation starts from (O12).
type Opening struct {
	Group ident.Group
	Epoch ident.Epoch
	State []ident.PartitionState
	// Ceiling, as MapGeneration.Ceiling. It is not written to the disk: the map keeps it.
	Ceiling ident.Offset
}

// Prepare writes opening frames, durable and witnessed, and returns their names in order.
// The generations take no appends before Activate.
func (l *Log) Prepare(ctx context.Context, openings []Opening) ([]ident.Frame, error) {
	return l.prepare(ctx, openings)
}

// Activate opens prepared generations for appends: the map now names them.
func (l *Log) Activate(gens []ident.Generation) error { return l.activate(gens) }

// Freeze stops every kind of frame of the groups (O18), waits until nothing of them is in
// flight and returns the exact state of each, ordered by partition. Appends wait, for a second
// at most: Thaw lets them in, Seal refuses them. When it fails, some of the groups may be frozen.
func (l *Log) Freeze(ctx context.Context, groups ...ident.Group) (map[ident.Group][]ident.PartitionState, error) {
	return l.freeze(ctx, groups)
}

// Thaw ends a Freeze that did not lead to a move.
func (l *Log) Thaw(groups ...ident.Group) error { return l.thaw(groups) }

// Seal ends generations here for ever, at the ends that the map published, and writes
// the cuts down. Reads below the ends go on. When ctx ends first, it goes on without the caller until the log does.
func (l *Log) Seal(ctx context.Context, gens ...MapGeneration) error {
	done := make(chan error, 1)
	l.late.Go(func() { done <- l.seal(context.WithoutCancel(ctx), gens) })
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
		return fmt.Errorf("seal %d generations: %w", len(gens), context.Cause(ctx))
	}
}

// Drop forgets every run of the partitions (a deleted topic, or a range that retention
// has passed in all generations), durably.
func (l *Log) Drop(ctx context.Context, partitions []ident.Partition) error {
	return l.drop(ctx, partitions)
}

// Queue returns the physical queue of a partition in the group's open generation,
// making it (at offset 0, in memory only) when the partition has no state there yet.
func (l *Log) Queue(group ident.Group, p ident.Partition) (*Queue, error) {
	r := l.table.openOf(group)
	if r == nil || !l.begun.Load() {
		return nil, fmt.Errorf("queue %s of group %d: %w", p, group, ErrNotOpen)
	}
	return r.getOrMake(p, l.end()), nil
}

// Sealed returns the physical queue of a partition in the named generation, open or
// sealed, or false when the log holds nothing of it.
func (l *Log) Sealed(gen ident.Generation, p ident.Partition) (*Queue, bool) {
	if r := l.table.get(gen); r != nil {
		if q := r.get(p); q != nil {
			return q, true
		}
	}
	return nil, false
}

// Level is how much room the disk has.
type Level int

// Levels of a disk, in order of severity.
const (
	LevelOK Level = iota
	LevelAvoid
	LevelThrottle
	LevelRefuse
)

// Stats is a snapshot for operators.
type Stats struct {
	ID          ident.Log
	Epoch       ident.LogEpoch
	First, End  ident.Position // live range of positions
	Committed   ident.Position
	Files       int
	DiskBytes   int64 // bytes of all files of the log
	FreeBytes   int64
	Queues      int
	Level       Level
	CacheLimit  int64          // bytes of recent blocks that memory may keep
	Unavailable []CorruptError // what is known to be damaged, found now or by earlier processes
}

// Pressure is how much producers should be slowed down, so that the disk does not run full at once: 0 above LevelThrottle,
// then in proportion to the room that is gone, and 1 when everything is refused. It costs next to nothing.
func (l *Log) Pressure() float64 { return l.pressure() }

// SetCacheBytes changes how many bytes of recent blocks are kept in memory; what is too much is given up at once. What slow readers may
// hold beyond it stays what Config.CacheBytes says.
func (l *Log) SetCacheBytes(n int64) { l.mem.setLimit(n) }

// CacheAllocated is the bytes of memory that recent blocks take, with those that only slow readers hold.
func (l *Log) CacheAllocated() int64 { return l.mem.bytes.Load() }

// Stats reports the state of the log.
func (l *Log) Stats() Stats { return l.stats() }

// Close releases files and memory after Run has returned.
func (l *Log) Close() error { return l.close() }
