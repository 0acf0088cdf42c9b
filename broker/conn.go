package broker

import (
	"context"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"net/netip"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/skeinmq/skein/protocol"
)

// Limits of one connection.
const (
	// maxPipelined is how many Produce requests of one connection may wait for their commits.
	maxPipelined = 64
	// bodyPatience and bodyRate bound how long a body may take to arrive, as memory is reserved for it meanwhile.
	bodyPatience = 30 * time.Second
	bodyRate     = 128 << 10 // bytes a second
	// bodyRateShort is asked of a body while others wait for memory; it is looked at each bodyLook.
	bodyRateShort = 1 << 20
	bodyLook      = 500 * time.Millisecond
	// writePatience is how long a peer may take to read the next writeChunk bytes of an answer.
	writePatience = 30 * time.Second
	writeChunk    = 1 << 20
)

// conn is one client connection. Its goroutine reads a request, and either answers it before it reads the next one,
// as Kafka does, or, for Produce, hands it to the log and reads on: answers still leave in the order of the requests,
// and no other request starts before the Produce requests ahead of it have been answered. An idle connection holds a
// goroutine and this struct, no buffer.
type conn struct {
	b      *Broker
	nc     net.Conn
	cancel context.CancelCauseFunc
	addr   netip.Addr // of the peer, if it has one

	// Owned by the reading goroutine.
	header    protocol.RequestHeader
	next      [protocol.FrameSizeLen]byte // size of the next frame, as far as it was read
	nextLen   int
	readUntil time.Time // read deadline in force
	ahead     chan error
	mute      time.Duration // how long nothing is read after the request at hand

	// Owned by whoever writes: the reading goroutine while the pipeline is empty, else its writer.
	writeUntil time.Time
	sour       sourness
	told       told
	out        net.Buffers

	stopping atomic.Bool

	mu       sync.Mutex
	idle     sync.Cond // the pipeline got shorter, or its writer ended
	pipeline []*produceJob
	writing  bool
	broken   error // a write failed; what follows is not written
}

func newConn(b *Broker, nc net.Conn) *conn {
	c := &conn{b: b, nc: nc}
	c.told.all = &b.told
	c.idle.L = &c.mu
	return c
}

// serve runs the connection until the peer, the broker or an error ends it, and returns when nothing of it is left.
func (c *conn) serve(ctx context.Context) {
	tune(c.nc)
	ctx, c.cancel = context.WithCancelCause(ctx)
	err := c.readRequests(ctx)
	c.drainPipeline(0)
	c.cancel(errConnEnded)
	c.nc.Close()
	c.told.close()
	if c.ahead != nil {
		<-c.ahead
	}
	c.report(err)
}

// report logs why a connection ended, if that is worth a line: one for each peer that broke the protocol.
func (c *conn) report(err error) {
	var netErr net.Error
	switch {
	case err == nil, errors.Is(err, io.EOF), errors.Is(err, net.ErrClosed), errors.Is(err, errShutdown),
		errors.Is(err, errPeerGone), errors.As(err, &netErr), errors.Is(err, io.ErrClosedPipe):
		return
	case errors.Is(err, protocol.ErrMalformed), errors.Is(err, protocol.ErrFrameSize),
		errors.Is(err, protocol.ErrUnsupportedVersion), errors.Is(err, errRefusedQuietly):
		c.b.metrics.malformed.Inc()
		c.b.log.Warn("close connection", "remote", c.nc.RemoteAddr().String(), "client", c.header.ClientID, "error", err)
	case errors.Is(err, io.ErrUnexpectedEOF):
		return
	default:
		c.b.log.Warn("close connection", "remote", c.nc.RemoteAddr().String(), "client", c.header.ClientID, "error", err)
	}
}

// errRefusedQuietly ends a connection whose acks=0 request failed: there is no other way to tell the client.
var errRefusedQuietly = errors.New("refused a request that wants no answer")

func (c *conn) readRequests(ctx context.Context) error {
	for {
		if err := c.pipelineError(); err != nil {
			return err
		}
		size, err := c.readSize()
		if err != nil {
			if c.stopping.Load() {
				return errShutdown
			}
			return err
		}
		reserved, err := c.b.memory.reserve(ctx, int64(size))
		if err != nil {
			return err
		}
		in := getBuffer(size + protocol.FrameSizeLen)
		if err := c.readBody(in.b, size); err != nil {
			in.release()
			c.b.memory.release(reserved)
			return err
		}
		if err := c.dispatch(ctx, inbound{buf: in, frame: in.b[:size], reserved: reserved}); err != nil {
			return err
		}
		c.rest(ctx)
		if c.stopping.Load() {
			return errShutdown
		}
	}
}

// inbound is a request that was read: whoever has it must let go of it.
type inbound struct {
	buf      *buffer
	frame    []byte
	reserved int64
	start    time.Time
}

func (c *conn) letGo(in inbound) {
	in.buf.release()
	c.b.memory.release(in.reserved)
}

// readSize returns the size of the next frame.
func (c *conn) readSize() (int, error) {
	if c.ahead != nil { // somebody reads it already
		c.setReadDeadline(c.b.idleTimeout)
		err := <-c.ahead
		c.ahead = nil
		if err != nil {
			return 0, err
		}
	}
	if c.nextLen < len(c.next) {
		if time.Until(c.readUntil) < c.b.idleTimeout*3/4 {
			c.setReadDeadline(c.b.idleTimeout)
		}
		if err := c.readNext(); err != nil {
			return 0, err
		}
	}
	c.nextLen = 0
	size, limit := int32(binary.BigEndian.Uint32(c.next[:])), c.b.maxRequest
	if size < 0 || size > limit {
		return 0, &protocol.FrameSizeError{Size: size, Limit: limit}
	}
	if size == 0 {
		return 0, &protocol.DecodeError{Message: "request header", Problem: "empty frame"}
	}
	return int(size), nil
}

// readNext fills next.
func (c *conn) readNext() error {
	n, err := io.ReadFull(c.nc, c.next[c.nextLen:])
	c.nextLen += n
	if err == io.ErrUnexpectedEOF || err == io.EOF && c.nextLen == 0 {
		return err
	}
	if err == io.EOF {
		return io.ErrUnexpectedEOF
	}
	return err
}

func (c *conn) setReadDeadline(d time.Duration) {
	if c.stopping.Load() {
		return
	}
	c.readUntil = time.Now().Add(d)
	c.nc.SetReadDeadline(c.readUntil)
	if c.stopping.Load() { // it lost against us
		c.nc.SetReadDeadline(time.Unix(1, 0))
	}
}

// stopReading ends reading as soon as the request that is being read or answered is done.
func (c *conn) stopReading() {
	c.stopping.Store(true)
	c.nc.SetReadDeadline(time.Unix(1, 0))
}

// readBody reads a body of size bytes into buf, which is longer by the size of a frame: what the peer has sent of the
// next frame's size comes along and saves a read.
func (c *conn) readBody(buf []byte, size int) error {
	n, err := c.nc.Read(buf)
	if errors.Is(err, os.ErrDeadlineExceeded) && !c.stopping.Load() {
		err = nil // it was set for the body before, or long ago: the size of this one came along, so that nobody set it anew
	}
	if n < size && err == nil {
		var more int
		more, err = c.readRest(buf[n:], size-n)
		n += more
		c.readUntil = time.Time{} // the idle timeout is set again
	}
	if n < size {
		if err == io.EOF {
			err = io.ErrUnexpectedEOF
		}
		return err
	}
	c.nextLen = copy(c.next[:], buf[size:n])
	return nil
}

// errSlowBody ends a connection that holds memory for a request which it does not send, while others wait for memory.
var errSlowBody = errors.New("request body comes too slowly while memory is short")

// readRest reads want bytes or more. A slow peer has patience, but not while others wait for the memory that it holds.
func (c *conn) readRest(buf []byte, want int) (n int, err error) {
	begin := time.Now()
	last := bodyPatience + time.Duration(want/bodyRate)*time.Second
	for {
		c.setReadDeadline(min(bodyLook, max(last-time.Since(begin), 0)))
		more, err := io.ReadAtLeast(c.nc, buf[n:], want-n)
		n += more
		took := time.Since(begin)
		switch {
		case err == nil:
			return n, nil
		case !errors.Is(err, os.ErrDeadlineExceeded) || c.stopping.Load() || took >= last:
			return n, err
		case c.b.memory.waiting.Load() > 0 && int64(n) < int64(took.Seconds()*bodyRateShort):
			return n, errSlowBody
		}
	}
}

// watchPeer has the next frame's size read while a request waits, so that a peer that goes away ends ctx. It is called
// by the reading goroutine, whose next readSize takes over what was read.
func (c *conn) watchPeer() {
	if c.ahead != nil || c.nextLen == len(c.next) || c.stopping.Load() {
		return
	}
	c.readUntil = time.Time{}
	c.nc.SetReadDeadline(time.Time{})
	if c.stopping.Load() {
		c.nc.SetReadDeadline(time.Unix(1, 0))
	}
	ahead := make(chan error, 1)
	c.ahead = ahead
	go func() {
		err := c.readNext()
		if err != nil && !errors.Is(err, os.ErrDeadlineExceeded) {
			c.cancel(errPeerGone)
		}
		ahead <- err
		close(ahead)
	}()
}

// write sends bufs, which are consumed, in order. A peer that does not read in time is given up.
func (c *conn) write(bufs [][]byte) error {
	for len(bufs) > 0 {
		n, total := 0, 0
		for n < len(bufs) && (n == 0 || total+len(bufs[n]) <= writeChunk) {
			total += len(bufs[n])
			n++
		}
		if now := time.Now(); c.writeUntil.Sub(now) < writePatience*3/4 || total > writeChunk {
			c.writeUntil = now.Add(writePatience + time.Duration(total/bodyRate)*time.Second)
			c.nc.SetWriteDeadline(c.writeUntil)
		}
		var err error
		if n == 1 {
			_, err = c.nc.Write(bufs[0])
		} else {
			c.out = bufs[:n:n]
			_, err = c.out.WriteTo(c.nc)
		}
		c.b.metrics.bytesOut.Add(float64(total))
		if err != nil {
			return err
		}
		bufs = bufs[n:]
	}
	c.out = nil
	return nil
}
