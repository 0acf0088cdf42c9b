package commitlog

import (
	"hash/crc32"
	"sync/atomic"
	"time"

	"github.com/skeinmq/skein/internal/ident"
)

// block is one group commit on its way: built by the sequencer, written by a
// writer, committed by the completer, then used again.
type block struct {
	file  *logFile
	chunk *chunk
	pos   ident.Position
	buf   []byte // of the chunk, from the block's start to the furthest it may grow
	n     int    // bytes used, header included; 0: it has no place yet
	count uint32 // frames
	pad   int    // padded length, once dispatched

	entries []entry
	acts    []func(error) // run when it is committed, or failed
	dones   []*Append
	updates []Update
	batches []ident.ProducerBatch // behind updates
	seq     uint64

	started  atomic.Int64 // when its write began, ns; 0: not being written
	written  chan error   // one value when the write is over
	witness  chan error   // one value when every witness has it
	rollFrom *logFile     // the file that this block's file follows, when it is the first in it
}

// entry is one data frame of a block.
type entry struct {
	q        *Queue
	p        place
	lso      ident.Offset // last stable offset once this is committed
	producer int64        // -1: none
}

func newBlock() *block {
	return &block{written: make(chan error, 1), witness: make(chan error, 1)}
}

func (b *block) end() ident.Position { return b.pos + ident.Position(b.pad) }

// reset makes the block empty; it keeps its slices' memory and drops what they
// point to.
func (b *block) reset() {
	clear(b.entries)
	clear(b.acts)
	clear(b.dones)
	b.entries, b.acts, b.dones = b.entries[:0], b.acts[:0], b.dones[:0]
	b.dropUpdates()
	b.file, b.chunk, b.buf, b.rollFrom = nil, nil, nil, nil
	b.n, b.count, b.pad, b.pos = 0, 0, 0, 0
}

// keptUpdates bounds the memory that a block keeps for its next updates.
const keptUpdates = 4096

func (b *block) dropUpdates() {
	if cap(b.updates) > keptUpdates || cap(b.batches) > batchesKept*keptUpdates {
		b.updates, b.batches = nil, nil
	}
	clear(b.updates)
	b.updates, b.batches = b.updates[:0], b.batches[:0]
}

// empty reports whether nobody waits for the block.
func (b *block) empty() bool { return b.n == 0 && len(b.acts) == 0 && len(b.dones) == 0 }

// finish pads the block and writes its header in place.
func (b *block) finish(h *blockHeader, align int) {
	b.pad = (b.n + align - 1) &^ (align - 1)
	clear(b.buf[b.n:b.pad])
	h.position = b.pos
	h.padded = uint32(b.pad)
	h.payload = uint32(b.n - blockHeaderSize)
	h.payloadCRC = crc32.Checksum(b.buf[blockHeaderSize:b.n], castagnoli)
	h.frames = b.count
	encodeBlockHeader(b.buf, h)
}

// writeBlocks is the body of one writer goroutine.
func (l *Log) writeBlocks() {
	for b := range l.writes {
		if err := l.poison(); err != nil {
			b.started.Store(0)
			b.written <- err
			continue
		}
		start := time.Now()
		b.started.Store(start.UnixNano())
		_, err := b.file.w.WriteAt(b.buf[:b.pad], int64(b.pos-b.file.first))
		if err == nil && !l.direct.Available {
			err = b.file.w.Datasync()
		}
		if plants.writeErrors {
			err = nil
		}
		b.started.Store(0)
		l.metrics.writeSeconds.Observe(time.Since(start).Seconds())
		l.inFlight.Add(-1)
		b.written <- err
		l.inbox.wake.poke()
	}
}
