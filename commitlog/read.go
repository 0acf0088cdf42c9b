package commitlog

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/skeinmq/skein/internal/ident"
	"github.com/skeinmq/skein/internal/vfs"
)

// Bounds of one pread: places closer than readGap are fetched together, up to readMax: the MiB of batches that consumers
// ask for of a partition, with the headers and the paddings between them. What a pread leaves over takes a second one.
const (
	readGap = 64 << 10
	readMax = 5 << 18
)

// located is a place with the file that holds it.
type located struct {
	place
	file *logFile
}

// frameEnd is where the frame ends.
func (p *located) frameEnd() ident.Position {
	return p.position + frameHeaderSize + ident.Position(p.size)
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
	came := l.ahead.take(q, opt, to, dst)
	if came {
		l.metrics.aheadUsed.Inc()
	} else if err := q.readPlanned(ctx, opt, to, dst); err != nil {
		return err
	}
	l.ahead.follow(q, opt, dst, to, came)
	return nil
}

// readPlanned reads what is not there already. What is planned can be moved before it is read, and then is looked for again.
func (q *Queue) readPlanned(ctx context.Context, opt ReadOptions, to ident.Offset, dst *Records) (err error) {
	for range 3 {
		if err = q.plan(ctx, opt, to, dst); err != nil {
			return err
		}
		if err = q.fetchPlan(ctx, dst); !errors.Is(err, errAgain) {
			return err
		}
	}
	return fmt.Errorf("%w: %w: reclaimed", err, ErrOutOfRange)
}

// plan finds what a read between offsets that were checked returns.
func (q *Queue) plan(ctx context.Context, opt ReadOptions, to ident.Offset, dst *Records) (err error) {
	dst.Next = opt.From
	dst.plan, err = q.locate(ctx, opt, to, dst.plan[:0])
	return err
}

// fetchPlan reads what was planned, from memory and disk.
func (q *Queue) fetchPlan(ctx context.Context, dst *Records) error {
	err := q.fetch(ctx, dst)
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
	var told asked
	for i := 0; i < len(plan); {
		p := &plan[i]
		if c, b := q.run.log.mem.pin(p.position+frameHeaderSize, int(p.size)); c != nil {
			dst.add(b, p.end())
			dst.hold(c)
			i++
			continue
		}
		told.tell(q.run.log.mem, plan, i)
		n, err := q.fetchDisk(ctx, plan[i:i+extent(plan[i:])], dst)
		if err != nil {
			return err
		}
		i += n
	}
	return nil
}

// extent is how many of the next places one pread fetches.
func extent(plan []located) int {
	first, end := plan[0].position, plan[0].frameEnd()
	n := 1
	for ; n < len(plan); n++ {
		p := &plan[n]
		if p.file != plan[0].file || p.position-end > readGap || p.frameEnd()-first > readMax {
			break
		}
		end = p.frameEnd()
	}
	return n
}

// fetchDisk gets the first places of an extent, with one pread or what another reader's fetched, and proves every batch. It returns
// how many they are.
func (q *Queue) fetchDisk(ctx context.Context, plan []located, dst *Records) (int, error) {
	l := q.run.log
	s, n, mine := l.passed.enter(plan)
	plan = plan[:n]
	from := plan[0].position
	var b []byte
	var err error
	if s != nil && !mine {
		if b, err = l.passed.pin(ctx, s, dst); err != nil {
			return 0, err
		}
	}
	if b != nil {
		b = b[from-s.from:]
		l.metrics.readsShared.Add(float64(plan[n-1].frameEnd() - from))
	} else {
		var c *chunk
		b, c, err = l.fetchExtent(ctx, plan, dst)
		if mine {
			l.passed.finish(s, b, c)
		}
		if err != nil {
			return 0, err
		}
	}
	for i := range plan {
		p := &plan[i]
		b := b[p.position-from:][:frameHeaderSize+int(p.size)]
		if err := q.prove(p, b); err != nil {
			bad := CorruptError{File: p.file.name, From: p.position, To: p.frameEnd(), Reason: err.Error()}
			l.damage.note(bad)
			return 0, &bad
		}
		dst.add(b[frameHeaderSize:len(b):len(b)], p.end())
		dst.Cold += int(p.size)
	}
	return n, nil
}

// fetchExtent reads from the first place to the last into memory that dst holds: the chunk, if it is large.
func (l *Log) fetchExtent(ctx context.Context, plan []located, dst *Records) ([]byte, *chunk, error) {
	f, from := plan[0].file, plan[0].position
	if !f.tryPin() {
		return nil, nil, fmt.Errorf("read %s at %d: %w", f.name, plan[0].base, errAgain)
	}
	defer f.unpin()
	select {
	case l.reads <- struct{}{}:
	case <-ctx.Done():
		return nil, nil, context.Cause(ctx)
	}
	defer func() { <-l.reads }()
	return l.pread(f, from, int(plan[len(plan)-1].frameEnd()-from), dst)
}

// directRead is the size from which a read goes past the page cache: it is large enough
// for the device, and it would only push out what small reads share there.
const directRead = 128 << 10

// pread reads size bytes at a position into memory that dst holds: the chunk, if it is large.
func (l *Log) pread(f *logFile, at ident.Position, size int, dst *Records) ([]byte, *chunk, error) {
	off := int64(at - f.first)
	if size < directRead {
		b, err := dst.room(l, size)
		if err == nil {
			err = l.preadInto(f, f.r, b, size, off)
		}
		return b, nil, err
	}
	skip, want, h := 0, size, f.r
	if f.d != nil {
		skip, want = wholePages(off, size)
		h = f.d
	}
	c, err := l.readMem.get(want)
	if err != nil {
		return nil, nil, err
	}
	c.refs.Store(1)
	dst.hold(c)
	l.pool.used.Add(int64(want)) // the filler yields to it
	if err := l.preadInto(f, h, c.buf[:want], skip+size, off-int64(skip)); err != nil {
		return nil, nil, err
	}
	return c.buf[skip : skip+size], c, nil
}

// wholePages is the size of the pages around size bytes at off, and how many bytes are before these.
func wholePages(off int64, size int) (skip, want int) {
	skip = int(off & (vfs.PageSize - 1))
	return skip, (skip + size + vfs.PageSize - 1) &^ (vfs.PageSize - 1)
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
	p, err := q.placeAfter(off)
	return err == nil && (p == nil || p.base > off)
}

// placeAfter returns the first place that ends after off, or nil.
func (q *Queue) placeAfter(off ident.Offset) (found *located, err error) {
	err = q.places(context.Background(), off, func(f *logFile, p *place) bool {
		found = &located{place: *p, file: f}
		return false
	})
	return found, err
}

// damageAt is the error for reading in a hole: the damage before the next batch that is there, or in the last file that
// holds a batch.
func (q *Queue) damageAt(off ident.Offset) error {
	l := q.run.log
	at, f := l.end(), q.lastFile()
	if p, err := q.placeAfter(off); err == nil && p != nil {
		at, f = p.position, p.file
	} else if f != nil && f.sorted != nil {
		at = f.limit()
	} else if f != nil {
		at = f.first
	}
	name := l.logDir
	if f != nil {
		name = f.name
	}
	if d, ok := l.damage.before(at, f); ok {
		return &CorruptError{File: d.File, From: d.From, To: d.To, Reason: fmt.Sprintf("offset %d of %s is lost: %s", off, q.partition, d.Reason)}
	}
	bad := CorruptError{File: name, From: at, To: at, Reason: fmt.Sprintf("offset %d of %s is not on the disk", off, q.partition)}
	l.damage.note(bad)
	return &bad
}

// lastFile returns the newest file that holds a batch of the queue, or nil.
func (q *Queue) lastFile() *logFile {
	if t := q.tail.Load(); t != nil {
		return t.file
	}
	segs := q.sealedSegments()
	if len(segs) == 0 {
		return nil
	}
	return q.run.log.files.byNumber(segs[len(segs)-1].file)
}
