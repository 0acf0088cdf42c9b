package witness

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"time"

	"google.golang.org/protobuf/proto"
)

const (
	// readBuffer is how many bytes one look at the stream brings; a longer message has a buffer of its own.
	readBuffer = 16 << 10
	// writeBuffer is about how many bytes of messages are written at once.
	writeBuffer = 64 << 10
	// writeTimeout ends a session whose other end takes no bytes. An owner gives a member up sooner than that (OwnerConfig); this
	// frees what a member has for an owner that is stopped.
	writeTimeout = 10 * time.Second
)

// messages reads the messages of a stream.
type messages struct {
	r    *bufio.Reader
	long bytes.Buffer // of messages that do not fit into r
}

func readMessages(r io.Reader) *messages { return &messages{r: bufio.NewReaderSize(r, readBuffer)} }

// whole reports whether the next message is here already, so that next does not wait.
func (s *messages) whole() bool {
	have := s.r.Buffered()
	if have < lengthBytes {
		return false
	}
	head, _ := s.r.Peek(lengthBytes)
	n, err := messageLength(head)
	return err == nil && n <= have-lengthBytes
}

// next decodes the next message into m. io.EOF: the stream ended between two messages. ErrMalformed: it is none.
func (s *messages) next(m proto.Message) error {
	head, err := s.r.Peek(lengthBytes)
	if err != nil {
		if len(head) > 0 && errors.Is(err, io.EOF) {
			err = io.ErrUnexpectedEOF
		}
		return err
	}
	n, err := messageLength(head)
	if err != nil {
		return err
	}
	body, err := s.take(n)
	if err != nil {
		if errors.Is(err, io.EOF) {
			err = io.ErrUnexpectedEOF
		}
		return err
	}
	if err := proto.Unmarshal(body, m); err != nil { // copies what it keeps
		return fmt.Errorf("%w: %w", ErrMalformed, err)
	}
	return nil
}

// take returns the next n bytes behind a length, until the next call.
func (s *messages) take(n int) ([]byte, error) {
	if all := lengthBytes + n; all <= readBuffer {
		b, err := s.r.Peek(all)
		if err != nil {
			return nil, err
		}
		_, _ = s.r.Discard(all) // leaves the bytes where they are until the next read
		return b[lengthBytes:], nil
	}
	_, _ = s.r.Discard(lengthBytes)
	if s.long.Reset(); s.long.Cap() > writeBuffer {
		s.long = bytes.Buffer{}
	}
	if _, err := io.CopyN(&s.long, s.r, int64(n)); err != nil { // grows with what is there, not with what is promised
		return nil, err
	}
	return s.long.Bytes(), nil
}

// sender writes messages to a stream, as many at once as there are.
type sender struct {
	conn net.Conn
	buf  []byte
}

// add queues a message, and writes what is queued when that is much.
func (s *sender) add(m proto.Message) (err error) {
	if s.buf, err = appendMessage(s.buf, m); err != nil {
		return err
	}
	if len(s.buf) >= writeBuffer {
		return s.flush()
	}
	return nil
}

// replace queues a message in the place of those that are queued.
func (s *sender) replace(m proto.Message) error {
	s.buf = s.buf[:0]
	return s.add(m)
}

// flush writes what is queued.
func (s *sender) flush() error {
	if len(s.buf) == 0 {
		return nil
	}
	_ = s.conn.SetWriteDeadline(time.Now().Add(writeTimeout)) // the write says what is wrong with the connection
	_, err := s.conn.Write(s.buf)
	if s.buf = s.buf[:0]; cap(s.buf) > 2*writeBuffer {
		s.buf = nil
	}
	return err
}

// late reports whether a deadline ended a read or a write.
func late(err error) bool { return errors.Is(err, os.ErrDeadlineExceeded) }
