package peer

import (
	"time"

	"golang.org/x/sys/unix"
)

// breakUnanswered has the kernel break a connection whose sent bytes nobody acknowledged for d (tcp(7),
// TCP_USER_TIMEOUT, milliseconds).
func breakUnanswered(fd int, d time.Duration) error {
	return unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT, int(d.Milliseconds()))
}
