package bench

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
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
		var err error
		if body, err = readFrame(r, body, 8, maxResponse); err != nil {
			return
		}
		var whole bool
		if out, whole = answerProduce(out[:0], body, func([]byte) uint16 { return 0 }); !whole {
			return
		}
		if _, err := c.Write(out); err != nil {
			return
		}
	}
}

// answerProduce answers a Produce request (v9, from its key on) with the code that judge has for the records of each of its
// partitions. It says whether the request was whole.
func answerProduce(out, rq []byte, judge func(records []byte) (code uint16)) (answer []byte, whole bool) {
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
		name := d.take(d.count())
		out = binary.AppendUvarint(out, uint64(len(name)+1))
		out = append(out, name...)
		parts := d.count()
		out = binary.AppendUvarint(out, uint64(parts+1))
		for range parts {
			index, records := d.take(4), d.take(d.count())
			d.skip(1)
			if d.bad {
				return nil, false
			}
			out = append(out, index...)
			out = binary.BigEndian.AppendUint16(out, judge(records))
			out = append(out, make([]byte, 8+8+8)...)
			out = append(out, 1, 0, 0) // no record errors, no message, no tags
		}
		d.skip(1)
		out = append(out, 0)
	}
	d.skip(1)
	out = append(out, 0, 0, 0, 0, 0)
	binary.BigEndian.PutUint32(out, uint32(len(out)-4))
	return out, !d.bad
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
