package peer

import (
	"time"

	"golang.org/x/sys/unix"
)

// breakUnanswered has the kernel break a connection whose sent bytes nobody acknowledged for d
// (TCP_RXT_CONNDROPTIME of netinet/tcp.h, seconds).
func breakUnanswered(fd int, d time.Duration) error {
	return unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_RXT_CONNDROPTIME, max(1, int(d.Seconds())))
}
