package broker

import (
	"context"
	"errors"
	"net"
	"sync"
	"syscall"
	"time"
)

// Why connections end.
var (
	errShutdown  = errors.New("broker is shutting down")
	errPeerGone  = errors.New("peer closed the connection")
	errConnEnded = errors.New("connection ended")
)

// Pauses after an accept that failed for want of descriptors: the connections that are there go on.
const (
	acceptPauseMin = 5 * time.Millisecond
	acceptPauseMax = time.Second
)

// server is the accepting side of a broker.
type server struct {
	b *Broker

	limits connLimits

	mu    sync.Mutex
	conns map[*conn]struct{}
	stop  bool // no connection is added any more
}

// serve accepts connections until ctx ends, then drains them: each finishes the requests that it has read, and what
// takes longer than the drain timeout is cut off. It returns when every connection has ended.
func (s *server) serve(ctx context.Context) error {
	var wg sync.WaitGroup
	defer wg.Wait()
	connCtx, cancel := context.WithCancelCause(context.WithoutCancel(ctx))
	defer cancel(errShutdown)
	closed := context.AfterFunc(ctx, func() { s.b.cfg.Listener.Close() })
	defer closed()
	err := s.accept(ctx, connCtx, &wg)
	s.b.cfg.Listener.Close()
	s.drain(cancel, &wg)
	return err
}

func (s *server) accept(ctx, connCtx context.Context, wg *sync.WaitGroup) error {
	pause := acceptPauseMin
	for {
		nc, err := s.b.cfg.Listener.Accept()
		switch {
		case ctx.Err() != nil:
			if err == nil {
				nc.Close()
			}
			return nil
		case err != nil && shortOfDescriptors(err):
			s.b.log.Warn("accept connection", "error", err, "connections", s.len())
			s.b.metrics.refused.Inc()
			select {
			case <-time.After(pause):
			case <-ctx.Done():
				return nil
			}
			pause = min(2*pause, acceptPauseMax)
			continue
		case err != nil:
			return err
		}
		pause = acceptPauseMin
		if !s.keepPace(ctx) {
			nc.Close()
			return nil
		}
		c := newConn(s.b, nc)
		c.addr = addrOf(nc)
		if over, ok := s.add(c, s.limits.limitOf(ctx, c.addr, s.b.conf())); !ok {
			s.b.metrics.refused.Inc()
			if over.name != "" {
				s.limits.tell(s.b.log, time.Now(), over, nc.RemoteAddr())
			}
			nc.Close()
			continue
		}
		wg.Go(func() {
			defer s.remove(c)
			c.serve(connCtx)
		})
	}
}

func shortOfDescriptors(err error) bool {
	return errors.Is(err, syscall.EMFILE) || errors.Is(err, syscall.ENFILE) || errors.Is(err, syscall.ENOBUFS) ||
		errors.Is(err, syscall.ENOMEM) || errors.Is(err, syscall.ECONNABORTED)
}

// drain ends reading on every connection and gives what is under way the drain timeout.
func (s *server) drain(cancel context.CancelCauseFunc, wg *sync.WaitGroup) {
	s.mu.Lock()
	s.stop = true
	for c := range s.conns {
		c.stopReading()
	}
	s.mu.Unlock()
	cancel(errShutdown) // long polls and joins answer now
	timeout := time.AfterFunc(s.b.cfg.DrainTimeout, func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		for c := range s.conns {
			c.nc.Close()
		}
	})
	defer timeout.Stop()
	wg.Wait()
}

// keepPace waits as max.connection.creation.rate says: not long, so that a change of it is soon felt. False: ctx has ended.
func (s *server) keepPace(ctx context.Context) bool {
	wait := s.limits.pace.take(time.Now(), s.b.conf().ConnectionRate)
	if wait <= 0 {
		return true
	}
	timer := time.NewTimer(wait)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// add registers a connection, unless there are too many, of its address (perIP) or in all, or the broker stops. over is the limit that it
// would pass; without a name there is none.
func (s *server) add(c *conn, perIP connLimit) (over connLimit, ok bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	all := connLimit{"max.connections", s.b.maxConnections()}
	switch {
	case s.stop:
		return connLimit{}, false
	case len(s.conns) >= all.most:
		return all, false
	case !s.limits.count(c.addr, perIP.most):
		return perIP, false
	}
	s.conns[c] = struct{}{}
	return connLimit{}, true
}

// maxConnections is what the operator allows, within what the broker is built for.
func (b *Broker) maxConnections() int {
	return min(b.cfg.MaxConnections, int(b.conf().MaxConnections))
}

func (s *server) remove(c *conn) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.conns, c)
	s.limits.uncount(c.addr)
}

func (s *server) len() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.conns)
}

// tune sets what a TCP connection needs.
func tune(nc net.Conn) {
	if tcp, ok := nc.(*net.TCPConn); ok {
		tcp.SetKeepAlive(true) // best effort; Go sets TCP_NODELAY by itself
	}
}
