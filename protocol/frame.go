package protocol

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
)

// FrameSizeLen is the length of the size that precedes every request and response: an INT32, itself not counted.
const FrameSizeLen = 4

// ErrFrameSize is matched by an error about a frame whose announced size is negative or over the limit. The size of
// an HTTP or TLS request sent to the port usually ends here.
var ErrFrameSize = errors.New("frame size out of range")

// FrameSizeError tells an announced frame size and the limit it was held against, in bytes. It matches ErrFrameSize.
type FrameSizeError struct{ Size, Limit int32 }

// Error implements error.
func (e *FrameSizeError) Error() string {
	return fmt.Sprintf("read frame size: %d is not between 0 and %d", e.Size, e.Limit)
}

// Is makes errors.Is(err, ErrFrameSize) true.
func (e *FrameSizeError) Is(target error) bool { return target == ErrFrameSize }

// ReadFrameSize reads the size of the next frame and nothing else, so that memory for the body can be reserved before
// the body is read. A size below 0 or over limit is a *FrameSizeError. At the end of the stream between two frames the
// error is io.EOF, within the size io.ErrUnexpectedEOF. It does not allocate.
func ReadFrameSize(r *bufio.Reader, limit int32) (int, error) {
	b, err := r.Peek(FrameSizeLen)
	if err != nil {
		if err == io.EOF && len(b) > 0 {
			err = io.ErrUnexpectedEOF
		}
		return 0, err
	}
	size := int32(binary.BigEndian.Uint32(b))
	if size < 0 || size > limit {
		return 0, &FrameSizeError{Size: size, Limit: limit}
	}
	_, err = r.Discard(FrameSizeLen)
	return int(size), err
}

// ReadFrame fills body, made with the size that ReadFrameSize returned. A stream that ends before that is
// io.ErrUnexpectedEOF.
func ReadFrame(r io.Reader, body []byte) error {
	_, err := io.ReadFull(r, body)
	if err == io.EOF {
		return io.ErrUnexpectedEOF
	}
	return err
}

// AppendFrameSize appends room for the size of a frame; EndFrame fills it in.
func AppendFrameSize(dst []byte) []byte { return append(dst, 0, 0, 0, 0) }

// EndFrame writes the size of the frame that began with AppendFrameSize at offset start of buf and ends at the end
// of buf.
func EndFrame(buf []byte, start int) {
	binary.BigEndian.PutUint32(buf[start:], uint32(len(buf)-start-FrameSizeLen))
}
