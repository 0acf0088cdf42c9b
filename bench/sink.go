package bench

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"sync"
)

// sink is a server that reads Produce requests, throws them away and acknowledges them: what
// a generator reaches against it is the generator's ceiling.
type sink struct {
	ln net.Listener
	wg sync.WaitGroup
}

func newSink() (*sink, error) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	s := &sink{ln: ln}
	s.wg.Go(func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			s.wg.Go(func() { s.serve(c) })
		}
	})
	return s, nil
}

func (s *sink) addr() string { return s.ln.Addr().String() }

func (s *sink) close() {
	s.ln.Close()
	s.wg.Wait()
}

// serve answers each request with the acknowledgement that its own structure asks for.
func (s *sink) serve(c net.Conn) {
	defer c.Close()
	r := bufio.NewReaderSize(c, 256<<10)
	var body, out []byte
	for {
		var head [4]byte
		if _, err := io.ReadFull(r, head[:]); err != nil {
			return
		}
		n := int(binary.BigEndian.Uint32(head[:]))
		if n < 8 || n > maxResponse {
			return
		}
		if cap(body) < n {
			body = make([]byte, n)
		}
		body = body[:n]
		if _, err := io.ReadFull(r, body); err != nil {
			return
		}
		out = ackAll(out[:0], body)
		if _, err := c.Write(out); err != nil {
			return
		}
	}
}

// ackAll answers a Produce request (v9) with no error for each of its partitions.
func ackAll(out, rq []byte) []byte {
	d := cursor{b: rq[4:]}
	correlation := d.b[:4]
	d.skip(4)
	d.skip(int(d.int16())) // client id
	d.skip(2)              // header tags, transactional id
	d.skip(6)              // acks, timeout
	out = append(out, 0, 0, 0, 0)
	out = append(out, correlation...)
	out = append(out, 0)
	topics := d.count()
	out = binary.AppendUvarint(out, uint64(topics+1))
	for range topics {
		n := d.count()
		out = binary.AppendUvarint(out, uint64(n+1))
		out = append(out, d.b[:min(n, len(d.b))]...)
		d.skip(n)
		parts := d.count()
		out = binary.AppendUvarint(out, uint64(parts+1))
		for range parts {
			out = append(out, d.b[:min(4, len(d.b))]...)
			d.skip(4)
			d.skip(d.count())
			d.skip(1)
			out = append(out, make([]byte, 2+8+8+8)...)
			out = append(out, 1, 0, 0) // no record errors, no message, no tags
		}
		d.skip(1)
		out = append(out, 0)
	}
	out = append(out, 0, 0, 0, 0, 0)
	binary.BigEndian.PutUint32(out, uint32(len(out)-4))
	return out
}

// Ceiling is what a load reaches against a sink.
func Ceiling(ctx context.Context, load ProduceLoad) (Produced, error) {
	s, err := newSink()
	if err != nil {
		return Produced{}, err
	}
	defer s.close()
	p, err := Produce(ctx, s.addr(), load)
	if errors.Is(err, net.ErrClosed) {
		err = context.Cause(ctx)
	}
	return p, err
}
