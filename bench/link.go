package bench

import (
	"context"
	"errors"
	"net"
	"sync"
	"time"
)

// link is one connection that several goroutines send on; answers find their senders by correlation id.
type link struct {
	c *conn

	writing sync.Mutex // one request after the other; taken before mu
	mu      sync.Mutex
	next    int32
	waiting map[int32]chan []byte // nil once the link is broken
	broken  error
}

// newLink connects within a time: a broker that is gone refuses at once, one that is stopped does not answer.
func newLink(ctx context.Context, addr string, within time.Duration) (*link, error) {
	ctx, cancel := context.WithTimeout(ctx, within)
	defer cancel()
	c, err := dial(ctx, addr)
	if err != nil {
		return nil, err
	}
	l := &link{c: c, waiting: map[int32]chan []byte{}}
	go l.receive() // ends with the connection
	return l, nil
}

func (l *link) receive() {
	for {
		correlation, body, err := l.c.receive()
		if err != nil {
			l.fail(err)
			return
		}
		l.mu.Lock()
		ch := l.waiting[correlation]
		delete(l.waiting, correlation)
		l.mu.Unlock()
		if ch != nil {
			ch <- append([]byte(nil), body...)
		}
	}
}

// fail ends the link; everybody who waits is told.
func (l *link) fail(err error) {
	l.c.Close()
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.broken == nil {
		l.broken = err
	}
	for _, ch := range l.waiting {
		close(ch)
	}
	l.waiting = nil
}

var errLinkBroken = errors.New("the connection has ended")

// send writes a request and returns where its answer will be; the channel is closed when there will be none.
func (l *link) send(write func(c net.Conn, correlation int32) error) (<-chan []byte, error) {
	ch := make(chan []byte, 1)
	l.writing.Lock()
	defer l.writing.Unlock()
	l.mu.Lock()
	if l.waiting == nil {
		defer l.mu.Unlock()
		return nil, errors.Join(errLinkBroken, l.broken)
	}
	l.next++
	id := l.next
	l.waiting[id] = ch
	l.mu.Unlock()
	_ = l.c.SetWriteDeadline(time.Now().Add(time.Second)) // a stopped broker does not read
	if err := write(l.c, id); err != nil {
		l.fail(err)
		return nil, err
	}
	return ch, nil
}

func (l *link) dead() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.waiting == nil
}
