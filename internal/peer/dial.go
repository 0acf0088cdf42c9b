package peer

import (
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"time"
)

const (
	// gone is how long a host may leave sent bytes without an answer before its connection breaks.
	gone        = 2 * time.Second
	dialTimeout = 2 * time.Second
	// shakeTimeout bounds what comes before a connection's first byte of its own: TLS and the preface.
	shakeTimeout = 5 * time.Second
)

// watched makes the kernel notice a dead host in about two seconds: by keepalives when nothing is sent, by the
// age of unanswered bytes when something is. (gRPC's own pings from clients cannot be that fast.)
func watched(c net.Conn) {
	t, ok := c.(*net.TCPConn)
	if !ok {
		return
	}
	_ = t.SetKeepAliveConfig(net.KeepAliveConfig{Enable: true, Idle: time.Second, Interval: time.Second, Count: 1})
	_ = t.SetNoDelay(true)
	if raw, err := t.SyscallConn(); err == nil {
		_ = raw.Control(func(fd uintptr) { _ = breakUnanswered(int(fd), gone) })
	}
}

// dial connects to a broker's internal listener, with TLS if there is any.
func dial(ctx context.Context, addr string, t *TLS) (net.Conn, error) {
	d := net.Dialer{Timeout: dialTimeout, KeepAlive: -1}
	c, err := d.DialContext(ctx, "tcp", addr)
	if err != nil {
		return nil, err
	}
	watched(c)
	if t == nil {
		return c, nil
	}
	host, _, err := net.SplitHostPort(addr)
	if err != nil {
		c.Close()
		return nil, err
	}
	sctx, cancel := context.WithTimeout(ctx, shakeTimeout)
	defer cancel()
	secure := t.client(c, host)
	if err := secure.HandshakeContext(sctx); err != nil {
		c.Close()
		return nil, fmt.Errorf("TLS with %s: %w", addr, err)
	}
	return secure, nil
}

// dialStream opens a stream that begins with a preface. A *RefusedError says that the other end does not take it.
func dialStream(ctx context.Context, addr string, t *TLS, k kind, h hello) (net.Conn, error) {
	c, err := dial(ctx, addr, t)
	if err != nil {
		return nil, err
	}
	c.SetDeadline(time.Now().Add(shakeTimeout))
	stop := context.AfterFunc(ctx, func() { abrupt(c).Close() })
	if _, err = c.Write(appendPreface(nil, k, h)); err == nil {
		err = readReply(c)
	}
	if !stop() {
		err = context.Cause(ctx)
	}
	if err != nil {
		c.Close()
		return nil, fmt.Errorf("open stream to %s: %w", addr, err)
	}
	c.SetDeadline(time.Time{})
	return c, nil
}

// abrupt is the connection with an end that waits for nobody: Close of one with TLS says goodbye first, for as long as
// five seconds when the other end takes no bytes. It is for streams that tell an end from a cut themselves.
func abrupt(c net.Conn) net.Conn {
	if t, ok := c.(*tls.Conn); ok {
		return abruptConn{t}
	}
	return c
}

type abruptConn struct{ *tls.Conn }

// Close implements net.Conn.
func (c abruptConn) Close() error { return c.NetConn().Close() }
