package bench

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"path/filepath"

	"golang.org/x/sync/errgroup"

	"github.com/skeinmq/skein/internal/vfs"
)

// What a bare server holds, at most: its blocks, and for each connection as many requests as it has buffers.
const (
	bareSpan       = 1 << 30 // bytes of its file
	bareBlockSize  = 4 << 20
	bareBlocks     = 4 // two are written, one is filled, one is acknowledged
	bareWrites     = 2 // in flight: the disk never waits for the next one
	bareRequestMax = bareBlockSize / 2
	bareConns      = 32
	bareBuffers    = 8 // requests of a connection that are not in a block yet
)

// BareConfig configures OpenBare.
type BareConfig struct {
	Dir  string // where its file lies
	FS   vfs.FS // nil: this machine's
	Span int64  // bytes of the file, at least those of all blocks; 0: 1 GiB
}

// Bare is the least that a durable broker does: it reads Produce requests, compares the checksum of each batch, copies the
// batches behind each other into a block, writes the block past the page cache, and answers in order once that is durable.
// It has no topics, no log, no index and no producers' state, and nothing can be read from it; its file is as long as it
// will ever be, was wholly written before, and is written over from its start when it is full. What a load reaches against
// it is what the disk, the kernel's network and the generator beside it allow, so that a broker's distance from it is the
// broker's own doing.
//
// Where there is no direct I/O it writes through the page cache, as the log does; durable it is in both cases (O_DSYNC).
type Bare struct {
	file   vfs.File
	direct bool
	align  int64  // of what is written
	span   int64  // of the file
	memory []byte // all blocks

	in    chan *bareRequest
	work  chan *bareBlock // to a writer that has nothing to do
	order chan *bareBlock // in which they are acknowledged
	free  chan *bareBlock
}

// OpenBare makes the file and writes all of it. The file's name is taken away at once, so that nothing is left behind
// however the process ends. The caller closes what it is given.
func OpenBare(ctx context.Context, cfg BareConfig) (*Bare, error) {
	fsys := cmp.Or[vfs.FS](cfg.FS, vfs.OS())
	direct, err := fsys.Direct(cfg.Dir)
	if err != nil {
		return nil, fmt.Errorf("probe direct I/O: %w", err)
	}
	b := &Bare{direct: direct.Available, align: int64(max(vfs.PageSize, direct.OffsetAlign)), span: cmp.Or(cfg.Span, bareSpan)}
	if b.span < bareBlocks*bareBlockSize || b.span%b.align != 0 {
		return nil, fmt.Errorf("open bare server: its file cannot have %d bytes", b.span)
	}
	name := filepath.Join(cfg.Dir, "bare.data")
	if b.file, err = fsys.Open(name, vfs.OpenOptions{Create: true, Exclusive: true, Direct: b.direct, Dsync: true}); err != nil {
		return nil, fmt.Errorf("open bare server: %w", err)
	}
	if err = fsys.Remove(name); err == nil {
		err = b.fill(ctx)
	}
	if err == nil {
		err = b.makeBlocks()
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("open bare server: %w", err), b.Close())
	}
	return b, nil
}

// fill writes the whole file: blocks that were only reserved would cost the file system's journal a write each later on.
func (b *Bare) fill(ctx context.Context) error {
	if err := b.file.Allocate(0, b.span); err != nil {
		return err
	}
	for at := int64(0); at < b.span; at += bareBlockSize {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if err := vfs.ZeroFill(b.file, at, min(bareBlockSize, b.span-at)); err != nil {
			return err
		}
	}
	return b.file.Sync()
}

func (b *Bare) makeBlocks() (err error) {
	if b.memory, err = vfs.AllocAligned(bareBlocks * bareBlockSize); err != nil {
		return err
	}
	b.in = make(chan *bareRequest, bareConns*bareBuffers)
	b.work = make(chan *bareBlock)
	b.order, b.free = make(chan *bareBlock, bareBlocks), make(chan *bareBlock, bareBlocks)
	for i := range bareBlocks {
		b.free <- &bareBlock{buf: b.memory[i*bareBlockSize : (i+1)*bareBlockSize], done: make(chan struct{}, 1)}
	}
	return nil
}

// Direct says whether it writes past the page cache.
func (b *Bare) Direct() bool { return b.direct }

// Serve serves once, until the context or a write that fails ends it, and closes the listener. The error is the write's or
// the listener's.
func (b *Bare) Serve(ctx context.Context, ln net.Listener) error {
	g, ctx := errgroup.WithContext(ctx)
	stop := context.AfterFunc(ctx, func() { ln.Close() })
	defer stop()
	g.Go(func() error { return b.accept(ctx, g, ln) })
	g.Go(func() error { b.sequence(ctx); return nil })
	g.Go(func() error { b.acknowledge(ctx); return nil })
	for range bareWrites {
		g.Go(func() error { return b.write(ctx) })
	}
	return g.Wait()
}

// Close gives back file and memory. Serve must have returned.
func (b *Bare) Close() error {
	err := b.file.Close()
	if b.memory != nil {
		err = errors.Join(err, vfs.FreeAligned(b.memory))
	}
	return err
}

// accept serves connections; one too many is closed at once, so that a load that needs it fails instead of hanging.
func (b *Bare) accept(ctx context.Context, g *errgroup.Group, ln net.Listener) error {
	slots := make(chan struct{}, bareConns)
	for {
		c, err := ln.Accept()
		if err != nil {
			if ctx.Err() != nil {
				return nil
			}
			return err
		}
		select {
		case slots <- struct{}{}:
		default:
			c.Close()
			continue
		}
		g.Go(func() error {
			defer func() { <-slots }()
			stop := context.AfterFunc(ctx, func() { c.Close() })
			defer stop()
			defer c.Close()
			b.receive(ctx, newBareConn(c))
			return nil
		})
	}
}
