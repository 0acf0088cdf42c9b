package runs

import (
	"errors"
	"fmt"

	"github.com/skeinmq/skein/commitlog"
	"github.com/skeinmq/skein/internal/ident"
	"github.com/skeinmq/skein/protocol/record"
)

// largestBatch bounds a batch that comes in parts. Requests of clients are smaller.
const largestBatch = 256 << 20

// errBatches: an answer is not what was asked for. It is a fault of the other broker, and never passed on.
var errBatches = errors.New("answer does not hold the batches asked for")

// batches are whole batches in offset order, without a gap.
type batches struct {
	list  []batch
	bytes int
	next  ident.Offset // after the last one
}

type batch struct {
	bytes []byte
	base  ident.Offset
	next  ident.Offset
}

// assembler makes batches of the parts of a stream and checks them: the first holds the offset that was asked for, each
// of the others follows the one before, all lie within the run and are of its epoch. The batches' sums were checked by
// who read them from its disk.
type assembler struct {
	ref  *Ref
	from ident.Offset
	got  batches
	part []byte // the beginning of a batch
}

// add takes the next part of the stream; it keeps b.
func (a *assembler) add(b []byte) error {
	if len(a.part) > 0 {
		if len(a.part)+len(b) > largestBatch {
			return fmt.Errorf("%w: a batch of more than %d bytes", errBatches, largestBatch)
		}
		b = append(a.part, b...)
		a.part = nil // it is a message's memory, and ours
	}
	for len(b) > 0 {
		h, err := record.ParseHeader(b)
		if err != nil {
			if len(b) >= record.HeaderSize && (h.Magic != 2 || h.Length < 0 || h.Size() <= len(b)) {
				return fmt.Errorf("%w: %w", errBatches, err)
			}
			a.part = b // it goes on with the next message
			return nil
		}
		if err := a.check(&h); err != nil {
			return err
		}
		n := h.Size()
		a.got.list = append(a.got.list, batch{b[:n:n], ident.Offset(h.BaseOffset), ident.Offset(h.LastOffset() + 1)})
		a.got.bytes += n
		a.got.next = ident.Offset(h.LastOffset() + 1)
		b = b[n:]
	}
	return nil
}

func (a *assembler) check(h *record.Header) error {
	base, last := ident.Offset(h.BaseOffset), ident.Offset(h.LastOffset())
	first := len(a.got.list) == 0
	switch {
	case h.LastOffsetDelta < 0 || last < base:
	case base < a.ref.Start || last >= a.ref.End: // O21
	case ident.Epoch(h.LeaderEpoch) != a.ref.Generation.Epoch:
	case first && (base > a.from || last < a.from):
	case !first && base != a.got.next:
	default:
		return nil
	}
	return fmt.Errorf("%w: offsets %d to %d of epoch %d, asked for %d, had up to %d", errBatches, base, last, h.LeaderEpoch, a.from, a.got.next)
}

// take moves batches to dst as far as the options allow. Those that remain are the next reader's.
func (s *batches) take(opt *commitlog.ReadOptions, dst *commitlog.Records) {
	n := 0
	for ; n < len(s.list); n++ {
		b := &s.list[n]
		if b.base >= orMax(opt.To) || dst.Bytes+len(b.bytes) > opt.MaxBytes && (dst.Bytes > 0 || !opt.AtLeastOne) {
			break
		}
		dst.Slices = append(dst.Slices, b.bytes)
		dst.Bytes += len(b.bytes)
		dst.Next = b.next
		s.bytes -= len(b.bytes)
	}
	s.list = s.list[n:]
}
