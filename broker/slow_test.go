package broker

import (
	"errors"
	"io"
	"net"
	"os"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// slowConn is a connection in a bubble, whose other end the test has.
func slowConn() (*conn, net.Conn) {
	here, there := net.Pipe()
	b := &Broker{rows: &handlers}
	b.memory.limit = 1 << 30
	b.metrics = newMetrics(nil, b)
	return newConn(b, here), there
}

// TestSlowReader: a peer that reads slowly gets its answer, one that does not read is given up, in bounded time.
func TestSlowReader(t *testing.T) {
	answer := make([]byte, 3<<20)
	synctest.Test(t, func(t *testing.T) {
		c, peer := slowConn()
		defer peer.Close()
		begun := time.Now()
		err := c.write([][]byte{answer})
		if took := time.Since(begun); !errors.Is(err, os.ErrDeadlineExceeded) || took > writePatience+time.Duration(len(answer)/bodyRate)*time.Second {
			t.Errorf("nobody reads: %v after %v", err, took)
		}
	})
	synctest.Test(t, func(t *testing.T) {
		c, peer := slowConn()
		defer peer.Close()
		var reading sync.WaitGroup
		defer reading.Wait()
		reading.Go(func() {
			for buf := make([]byte, 256<<10); ; time.Sleep(time.Second) {
				if _, err := io.ReadFull(peer, buf); err != nil {
					return
				}
			}
		})
		if err := c.write([][]byte{answer}); err != nil {
			t.Errorf("it reads slowly: %v", err)
		}
		c.nc.Close()
	})
}

// TestSlowBody: a body may come slowly, but not while others wait for memory.
func TestSlowBody(t *testing.T) {
	const size = 1 << 20
	for _, short := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			c, peer := slowConn()
			c.b.idleTimeout = time.Hour
			if short {
				c.b.memory.waiting.Store(1)
			}
			var writing sync.WaitGroup
			defer writing.Wait()
			writing.Go(func() {
				defer peer.Close()
				for range 20 { // 200 KiB/s
					if _, err := peer.Write(make([]byte, size/20)); err != nil {
						return
					}
					time.Sleep(250 * time.Millisecond)
				}
				peer.Write(make([]byte, size%20+4))
			})
			err := c.readBody(make([]byte, size+4), size)
			c.nc.Close()
			if short != errors.Is(err, errSlowBody) || !short && err != nil {
				t.Errorf("memory short: %t: %v", short, err)
			}
		})
	}
}

// TestOldDeadline: a request whose size came along with the end of the one before is read, however long that one took: the
// read deadline that is still in force was not meant for it.
func TestOldDeadline(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, peer := slowConn()
		c.b.idleTimeout, c.b.maxRequest = time.Hour, 100
		defer c.nc.Close()
		frame := []byte{0, 0, 0, 8, 1, 2, 3, 4, 5, 6, 7, 8}
		var writing sync.WaitGroup
		writing.Go(func() {
			peer.Write(frame[:8]) // in two pieces: the second is read under a short deadline
			peer.Write(append(frame[8:12:12], frame[:4]...))
			peer.Write(frame[4:])
		})
		for i := range 2 {
			size, err := c.readSize()
			if err == nil {
				err = c.readBody(make([]byte, size+4), size)
			}
			if err != nil {
				t.Fatalf("request %d: %v", i, err)
			}
			time.Sleep(2 * bodyLook) // it is served
		}
		writing.Wait()
	})
}
