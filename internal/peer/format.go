package peer

import (
	"encoding/binary"
	"fmt"
	"io"

	"github.com/skeinmq/skein/internal/ident"
)

// A stream that is neither HTTP begins with a preface; the other end answers, and if it takes the stream the rest is the
// stream's own.
//
//	 0        3      4      5      6           10         14      15
//	+--------+------+------+------+-----------+----------+-------+------------+
//	| D5 S K | kind | ver  | min  | from      | to       | len   | cluster id |
//	+--------+------+------+------+-----------+----------+-------+------------+
//
//	 0      1       3
//	+------+-------+---------+
//	| code | len   | message |    code 0: taken, and len is 0
//	+------+-------+---------+
//
// Numbers are big-endian. D5 begins neither an HTTP request nor a TLS record.
const (
	prefaceMagic = "\xd5SK"
	prefaceFixed = 15
	replyFixed   = 3
	maxCluster   = 64
	maxReason    = 512
)

// kind is what a stream with a preface carries.
type kind byte

const (
	kindRaft    kind = 'R' // hashicorp/raft between voters
	kindEtcd    kind = 'E' // a client of the etcd member on this broker, HTTP/2
	kindWitness kind = 'W' // a log's owner to a witness of it, as internal/witness frames it
)

// replies by code; 0 is "taken".
var replyReasons = [...]Reason{1: WrongCluster, 2: WrongBroker, 3: WrongVersion, 4: NotReady, 5: WrongPreface}

func appendPreface(dst []byte, k kind, h hello) []byte {
	dst = append(append(dst, prefaceMagic...), byte(k), byte(h.version), byte(h.minVersion))
	dst = binary.BigEndian.AppendUint32(dst, uint32(h.from))
	dst = binary.BigEndian.AppendUint32(dst, uint32(h.to))
	dst = append(dst, byte(len(h.cluster)))
	return append(dst, h.cluster...)
}

// readPreface reads a whole preface, magic included.
func readPreface(r io.Reader) (kind, hello, error) {
	var b [prefaceFixed + maxCluster]byte
	if _, err := io.ReadFull(r, b[:prefaceFixed]); err != nil {
		return 0, hello{}, fmt.Errorf("read preface: %w", err)
	}
	if string(b[:3]) != prefaceMagic {
		return 0, hello{}, &RefusedError{WrongPreface, fmt.Sprintf("preface begins with % x", b[:3])}
	}
	n := int(b[14])
	if n > maxCluster {
		return 0, hello{}, &RefusedError{WrongPreface, fmt.Sprintf("cluster id of %d bytes", n)}
	}
	if _, err := io.ReadFull(r, b[prefaceFixed:prefaceFixed+n]); err != nil {
		return 0, hello{}, fmt.Errorf("read preface: %w", err)
	}
	return kind(b[3]), hello{
		version: int(b[4]), minVersion: int(b[5]),
		from:    ident.Broker(binary.BigEndian.Uint32(b[6:])),
		to:      ident.Broker(binary.BigEndian.Uint32(b[10:])),
		cluster: string(b[prefaceFixed : prefaceFixed+n]),
	}, nil
}

// appendReply encodes the answer to a preface: nil takes the stream.
func appendReply(dst []byte, refused *RefusedError) []byte {
	if refused == nil {
		return append(dst, 0, 0, 0)
	}
	code := byte(len(replyReasons) - 1)
	for i, r := range replyReasons {
		if r == refused.Reason && r != "" {
			code = byte(i)
		}
	}
	text := refused.Message[:min(len(refused.Message), maxReason)]
	dst = binary.BigEndian.AppendUint16(append(dst, code), uint16(len(text)))
	return append(dst, text...)
}

// readReply returns nil if the stream was taken, a *RefusedError if not.
func readReply(r io.Reader) error {
	var b [replyFixed + maxReason]byte
	if _, err := io.ReadFull(r, b[:replyFixed]); err != nil {
		return fmt.Errorf("read answer to preface: %w", err)
	}
	code, n := int(b[0]), int(binary.BigEndian.Uint16(b[1:]))
	switch {
	case code == 0 && n == 0:
		return nil
	case n > maxReason || code == 0 || code >= len(replyReasons):
		return &RefusedError{WrongPreface, fmt.Sprintf("answer to preface begins with % x", b[:replyFixed])}
	}
	if _, err := io.ReadFull(r, b[replyFixed:replyFixed+n]); err != nil {
		return fmt.Errorf("read answer to preface: %w", err)
	}
	return &RefusedError{replyReasons[code], string(b[replyFixed : replyFixed+n])}
}
