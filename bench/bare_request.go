package bench

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"hash/crc32"
	"io"
	"net"
)

// bareConn is a connection to a bare server. Its reader answers for it; a client that does not read its answers holds up
// all others.
type bareConn struct {
	net.Conn
	free chan *bareRequest // has room for all that there are
	out  []byte            // the acknowledger's
}

func newBareConn(c net.Conn) *bareConn {
	out := &bareConn{Conn: c, free: make(chan *bareRequest, bareBuffers)}
	for range bareBuffers {
		out.free <- &bareRequest{from: out}
	}
	return out
}

// bareRequest is a request between its connection and the block that takes it. It is used again.
type bareRequest struct {
	from    *bareConn
	body    []byte
	batches [][]byte // of body: those that may be written
	answer  []byte
}

// Where a record batch has its checksum, and from where on that counts (Kafka's record batch, magic 2).
const (
	batchCRCAt     = 17
	batchCRCFrom   = 21
	corruptMessage = 2 // Kafka's error code
)

// receive hands on what comes in, checked. Whatever is no Produce request of the generators ends the connection.
func (b *Bare) receive(ctx context.Context, c *bareConn) {
	in := bufio.NewReaderSize(c, 64<<10)
	for {
		var r *bareRequest
		select {
		case r = <-c.free:
		case <-ctx.Done():
			return
		}
		if err := r.read(in); err != nil {
			return
		}
		select {
		case b.in <- r:
		case <-ctx.Done():
			return
		}
	}
}

var errNoProduce = errors.New("not a produce request of the generators")

// read reads and checks the next request, and prepares the answer.
func (r *bareRequest) read(in io.Reader) (err error) {
	if r.body, err = readFrame(in, r.body, 8, bareRequestMax); err != nil {
		return err
	}
	if binary.BigEndian.Uint32(r.body) != produceVersion { // key 0 before it
		return errNoProduce
	}
	var whole bool
	r.batches = r.batches[:0]
	if r.answer, whole = answerProduce(r.answer[:0], r.body, r.check); !whole {
		return errNoProduce
	}
	return nil
}

// check takes a batch whose checksum is right.
func (r *bareRequest) check(batch []byte) (code uint16) {
	if len(batch) < batchCRCFrom || crc32.Checksum(batch[batchCRCFrom:], castagnoli) != binary.BigEndian.Uint32(batch[batchCRCAt:]) {
		return corruptMessage
	}
	r.batches = append(r.batches, batch)
	return 0
}
