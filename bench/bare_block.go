package bench

import (
	"context"
	"fmt"
)

// bareBlock is what one write takes to the disk, and whom to answer then. It goes from the sequencer to a writer and to
// the acknowledger, and belongs to whoever has it.
type bareBlock struct {
	buf  []byte
	n    int           // bytes of batches in it
	at   int64         // in the file
	done chan struct{} // has room for the one word that it is written

	answers []bareAnswer // in order
	text    []byte       // theirs, one behind the other
	conns   []*bareConn  // scratch of answer
}

// bareAnswer is the next so many bytes of a block's text.
type bareAnswer struct {
	to    *bareConn
	bytes int
}

// room says whether any request fits.
func (k *bareBlock) room() bool {
	return len(k.buf)-k.n >= bareRequestMax && len(k.text) < bareRequestMax
}

// take copies a request's batches and its answer, and gives its connection the buffer back.
func (k *bareBlock) take(r *bareRequest) {
	for _, batch := range r.batches {
		k.n += copy(k.buf[k.n:], batch)
	}
	k.answers = append(k.answers, bareAnswer{r.from, len(r.answer)})
	k.text = append(k.text, r.answer...)
	r.from.free <- r
}

// answer sends what is durable now, in one piece to each connection. One that is gone is its reader's to notice.
func (k *bareBlock) answer() {
	k.conns = k.conns[:0]
	text := k.text
	for _, a := range k.answers {
		if len(a.to.out) == 0 {
			k.conns = append(k.conns, a.to)
		}
		a.to.out = append(a.to.out, text[:a.bytes]...)
		text = text[a.bytes:]
	}
	for _, c := range k.conns {
		_, _ = c.Write(c.out)
		c.out = c.out[:0]
	}
	k.n, k.answers, k.text = 0, k.answers[:0], k.text[:0]
}

// sequence puts requests into blocks in the order in which they came: what is there already goes into one block, which is
// written as soon as a writer has nothing to do, however little it is.
func (b *Bare) sequence(ctx context.Context) {
	next := int64(0) // where the block goes
	for {
		var k *bareBlock
		select {
		case k = <-b.free:
		case <-ctx.Done():
			return
		}
		for given := false; !given; {
			in, work := b.in, b.work
			if !k.room() {
				in = nil
			}
			if len(k.answers) == 0 {
				work = nil
			}
			select {
			case r := <-in:
				k.take(r)
				continue
			default:
			}
			k.at = b.place(next, k.n)
			end := k.at + b.padded(k.n)
			select {
			case r := <-in:
				k.take(r)
			case work <- k:
				b.order <- k
				next, given = end, true
			case <-ctx.Done():
				return
			}
		}
	}
}

// place is where n bytes go: at next, or from the start of the file if they would pass its end. Who is still writing there
// is at most bareWrites blocks ahead, which are a part of the file only.
func (b *Bare) place(next int64, n int) int64 {
	if next+b.padded(n) > b.span {
		return 0
	}
	return next
}

// padded is the length with which n bytes are written.
func (b *Bare) padded(n int) int64 { return (int64(n) + b.align - 1) / b.align * b.align }

// write is one of the writers. A write that fails ends the server: nobody can say what is on the disk then.
func (b *Bare) write(ctx context.Context) error {
	for {
		select {
		case k := <-b.work:
			p := k.buf[:b.padded(k.n)]
			clear(p[k.n:])
			if len(p) > 0 { // else everything in it was refused
				if _, err := b.file.WriteAt(p, k.at); err != nil {
					return fmt.Errorf("write %d bytes at %d: %w", len(p), k.at, err)
				}
			}
			k.done <- struct{}{}
		case <-ctx.Done():
			return nil
		}
	}
}

// acknowledge answers block by block in the order of the sequencer, whichever of two was written first.
func (b *Bare) acknowledge(ctx context.Context) {
	for {
		var k *bareBlock
		select {
		case k = <-b.order:
		case <-ctx.Done():
			return
		}
		select {
		case <-k.done:
		case <-ctx.Done():
			return
		}
		k.answer()
		b.free <- k
	}
}
