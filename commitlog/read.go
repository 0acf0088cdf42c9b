package commitlog

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/skeinmq/skein/internal/ident"
	"github.com/skeinmq/skein/internal/vfs"
)

// Bounds of one pread: places closer than readGap are fetched together, up to readMax.
const (
	readGap = 64 << 10
	readMax = 1 << 20
)

// located is a place with the file that holds it.
type located struct {
	place
	file *logFile
}

// read is Queue.Read.
func (q *Queue) read(ctx context.Context, opt ReadOptions, dst *Records) error {
	dst.Next = opt.From
	hw := q.HighWatermark()
	if opt.From < max(q.start, q.LogStart()) || opt.From > hw {
		return fmt.Errorf("read %s at %d of [%d,%d]: %w", q.partition, opt.From, max(q.start, q.LogStart()), hw, ErrOutOfRange)
	}
	to := hw
	if opt.To > 0 {
		to = min(to, opt.To)
	}
	if opt.From >= to {
		return nil
	}
	l := q.run.log
	if l.ahead.take(q, opt, to, dst) {
		l.metrics.aheadUsed.Inc()
	} else if err := q.fresh(ctx, opt, to, dst); err != nil {
		return err
	}
	l.ahead.follow(q, opt, dst, to)
	return nil
}

// fresh is read from memory and disk, between offsets that were checked.
func (q *Queue) fresh(ctx context.Context, opt ReadOptions, to ident.Offset, dst *Records) error {
	dst.Next = opt.From
	var err error
	dst.plan, err = q.locate(ctx, opt, to, dst.plan[:0])
	if err != nil {
		return err
	}
	err = q.fetch(ctx, dst)
	clear(dst.plan)
	if err != nil && dst.Bytes > 0 {
		return nil // what came before the trouble is good; the next read meets it first
	}
	return err
}

// locate appends the places that a read returns.
func (q *Queue) locate(ctx context.Context, opt ReadOptions, to ident.Offset, out []located) ([]located, error) {
	next, bytes := opt.From, 0
	for tries := 0; next < to && tries < 3; tries++ {
		before := len(out)
		full := false
		err := q.places(ctx, next, func(f *logFile, p *place) bool {
			if p.base >= to {
				full = true
				return false
			}
			first := len(out) == 0
			if p.base > next {
				full = true // a hole: damage. The read ends before it
				return false
			}
			if bytes+int(p.size) > opt.MaxBytes && (!first || !opt.AtLeastOne) {
				full = true
				return false
			}
			out = append(out, located{place: *p, file: f})
			bytes += int(p.size)
			next = p.end()
			return true
		})
		if err != nil {
			return out, err
		}
		if full {
			break
		}
		if len(out) > before {
			tries = 0
		}
	}
	if len(out) == 0 && bytes == 0 && q.hole(opt.From) {
		return out, q.damageAt(opt.From)
	}
	return out, nil
}

// places calls yield for the queue's places from the one that ends after off on, as far
// as one source of places goes; the caller asks again for more.
func (q *Queue) places(ctx context.Context, off ident.Offset, yield func(*logFile, *place) bool) error {
	for range 1000 { // the sources change under us only as often as files are sealed
		t := q.tailFor(off)
		if t != nil {
			n := int(t.n.Load())
			for i := t.search(off); i < n; i++ {
				if !yield(t.file, &t.e[i]) {
					return nil
				}
			}
			return nil
		}
		found, err := q.sealedPlaces(ctx, off, yield)
		if errors.Is(err, errAgain) {
			// What was yielded before the bad page is right: the caller asks for the rest.
			return nil
		}
		if found || err != nil {
			return err
		}
		if q.tailFor(off) == nil {
			return nil
		}
	}
	return nil
}

// tailFor returns the oldest tail that has a place ending after off, provided that no
// sealed segment could hold off.
func (q *Queue) tailFor(off ident.Offset) *tail {
	var best *tail
	for t := q.tail.Load(); t != nil; t = t.older.Load() {
		if t.last().end() <= off {
			break
		}
		best = t
		if t.e[0].base <= off {
			return t
		}
	}
	if best != nil && !q.sealedHas(off) {
		return best
	}
	return nil
}

// fetch fills dst from the places in its plan: from memory where it can, else from disk.
func (q *Queue) fetch(ctx context.Context, dst *Records) error {
	plan := dst.plan
	for i := 0; i < len(plan); {
		p := &plan[i]
		if c, b := q.run.log.mem.pin(p.position+frameHeaderSize, int(p.size)); c != nil {
			dst.add(b, p.end())
			dst.hold(c)
			i++
			continue
		}
		n := extent(plan[i:])
		if err := q.fetchDisk(ctx, plan[i:i+n], dst); err != nil {
			return err
		}
		i += n
	}
	return nil
}

// extent is how many of the next places one pread fetches.
func extent(plan []located) int {
	first := plan[0].position
	end := first + frameHeaderSize + ident.Position(plan[0].size)
	n := 1
	for ; n < len(plan); n++ {
		p := &plan[n]
		pEnd := p.position + frameHeaderSize + ident.Position(p.size)
		if p.file != plan[0].file || p.position-end > readGap || pEnd-first > readMax {
			break
		}
		end = pEnd
	}
	return n
}

// fetchDisk reads one extent and proves every batch in it.
func (q *Queue) fetchDisk(ctx context.Context, plan []located, dst *Records) error {
	l := q.run.log
	f, last := plan[0].file, &plan[len(plan)-1]
	from := plan[0].position
	size := int(last.position-from) + frameHeaderSize + int(last.size)
	if !f.tryPin() {
		return fmt.Errorf("read %s at %d: %w: reclaimed", q.partition, plan[0].base, ErrOutOfRange)
	}
	defer f.unpin()
	select {
	case l.reads <- struct{}{}:
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	b, err := l.pread(f, from, size, dst)
	<-l.reads
	if err != nil {
		return err
	}
	for i := range plan {
		p := &plan[i]
		b := b[p.position-from:][:frameHeaderSize+int(p.size)]
		if err := q.prove(p, b); err != nil {
			return &CorruptError{File: f.name, From: p.position, To: p.position + ident.Position(len(b)), Reason: err.Error()}
		}
		dst.add(b[frameHeaderSize:len(b):len(b)], p.end())
		dst.Cold += int(p.size)
	}
	return nil
}

// directRead is the size from which a read goes past the page cache: it is large enough
// for the device, and it would only push out what small reads share there.
const directRead = 128 << 10

// pread reads size bytes at a position into memory that dst holds.
func (l *Log) pread(f *logFile, at ident.Position, size int, dst *Records) ([]byte, error) {
	off := int64(at - f.first)
	if size < directRead {
		f.warm(off)
		b, err := dst.room(l, size)
		if err != nil {
			return nil, err
		}
		return b, l.preadInto(f, f.r, b, size, off)
	}
	skip, want, h := 0, size, f.r
	if f.d != nil {
		skip = int(off & (vfs.PageSize - 1))
		want = (skip + size + vfs.PageSize - 1) &^ (vfs.PageSize - 1)
		h = f.d
	}
	c, err := l.readMem.get(want)
	if err != nil {
		return nil, err
	}
	c.refs.Store(1)
	dst.hold(c)
	l.pool.used.Add(int64(want)) // the filler yields to it
	if err := l.preadInto(f, h, c.buf[:want], skip+size, off-int64(skip)); err != nil {
		return nil, err
	}
	return c.buf[skip : skip+size], nil
}

// preadInto fills b, of which need bytes must be in the file.
func (l *Log) preadInto(f *logFile, h vfs.File, b []byte, need int, off int64) error {
	n, err := h.ReadAt(b, off)
	if err != nil && !(errors.Is(err, io.EOF) && n >= need) {
		return fmt.Errorf("read %s: %w", f.name, err)
	}
	l.metrics.diskReads(len(b))
	return nil
}

// prove checks that bytes from the disk are the batch that the index promised.
func (q *Queue) prove(p *located, b []byte) error {
	h, err := decodeFrameHeader(b, p.position)
	if err != nil {
		return err
	}
	if h.kind != frameData || h.partition != q.partition || h.gen != q.run.gen || h.base != p.base || int(h.length) != int(p.size) {
		return fmt.Errorf("frame: %w: it is %s offset %d", errBad, h.partition, h.base)
	}
	return checkBatch(b[frameHeaderSize:], p.base, p.count, q.run.gen.Epoch)
}

func (r *Records) add(b []byte, next ident.Offset) {
	r.Slices = append(r.Slices, b)
	r.Bytes += len(b)
	r.Next = next
}

// hold takes over one reference of the chunk until Release.
func (r *Records) hold(c *chunk) {
	if n := len(r.pins); n > 0 && r.pins[n-1] == c {
		c.unpin()
		return
	}
	r.pins = append(r.pins, c)
}

// release is Release.
func (r *Records) release() {
	for _, c := range r.pins {
		c.unpin()
	}
	clear(r.pins)
	clear(r.Slices)
	clear(r.plan)
	r.pins, r.Slices, r.plan = r.pins[:0], r.Slices[:0], r.plan[:0]
	r.Bytes, r.Cold, r.Next = 0, 0, 0
	r.pack, r.packed = nil, 0
}

// hole reports whether no batch holds an offset that lies below the high watermark.
func (q *Queue) hole(off ident.Offset) bool {
	hit := false
	err := q.places(context.Background(), off, func(_ *logFile, p *place) bool {
		hit = p.base <= off
		return false
	})
	return err == nil && !hit
}

// damageAt is the error for reading in a hole.
func (q *Queue) damageAt(off ident.Offset) error {
	for _, d := range q.run.log.damaged() {
		return &CorruptError{File: d.File, From: d.From, To: d.To, Reason: fmt.Sprintf("offset %d of %s is lost: %s", off, q.partition, d.Reason)}
	}
	return &CorruptError{File: q.run.log.logDir, Reason: fmt.Sprintf("offset %d of %s is not on the disk", off, q.partition)}
}
