package peer

import (
	"context"
	"errors"
	"io"
	"net"
	"os"
	"testing"
	"time"

	"github.com/skeinmq/skein/internal/ident"
)

// plainAndTLS runs a test over both kinds of connections.
func plainAndTLS(t *testing.T, f func(t *testing.T, files *TLS)) {
	t.Run("plain", func(t *testing.T) { f(t, nil) })
	t.Run("tls", func(t *testing.T) { f(t, newAuthority(t).load(t, t.TempDir(), "one")) })
}

func echo(c net.Conn) { _, _ = io.Copy(c, c) }

// says reports whether a stream answers what it is sent.
func says(c net.Conn) error {
	b := make([]byte, 4)
	if _, err := c.Write([]byte("echo")); err != nil {
		return err
	}
	_, err := io.ReadFull(c, b)
	if err == nil && string(b) != "echo" {
		err = errors.New(string(b))
	}
	return err
}

func TestWitnessStreams(t *testing.T) {
	plainAndTLS(t, func(t *testing.T, files *TLS) {
		s, addr := start(t, testConfig(t, 2, "c", files))
		p := pool(t, testConfig(t, 1, "c", files), map[ident.Broker]string{2: addr})
		reason := func(err error) Reason {
			refused, ok := errors.AsType[*RefusedError](err)
			if !ok {
				return ""
			}
			return refused.Reason
		}
		if _, err := p.DialWitness(t.Context(), 2); reason(err) != NotReady {
			t.Fatalf("before there is one: %v", err)
		}
		scope := s.Scope()
		scope.HandleWitness(echo)
		c, err := p.DialWitness(t.Context(), 2)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		if err := says(c); err != nil {
			t.Fatal(err)
		}
		if _, err := p.DialWitness(t.Context(), 3); !errors.Is(err, ErrNoAddress) {
			t.Errorf("broker without an address: %v", err)
		}
		for _, x := range []struct {
			cluster string
			to      ident.Broker
			want    Reason
		}{{"d", 2, WrongCluster}, {"", 2, NotReady}, {"c", 3, WrongBroker}} {
			other := pool(t, testConfig(t, 1, x.cluster, files), map[ident.Broker]string{x.to: addr})
			if _, err := other.DialWitness(t.Context(), x.to); reason(err) != x.want {
				t.Errorf("cluster %q, broker %d: %v, want %s", x.cluster, x.to, err, x.want)
			}
		}
		if _, err := dialStream(t.Context(), addr, files, kindWitness, p.cfg.hello(Anyone)); reason(err) != WrongBroker {
			t.Errorf("stream to whoever answers: %v", err)
		}
		scope.Close()
		if _, err := p.DialWitness(t.Context(), 2); reason(err) != NotReady {
			t.Errorf("after the scope's end: %v", err)
		}
		p.Close()
		if _, err := p.DialWitness(t.Context(), 2); !errors.Is(err, ErrClosed) {
			t.Errorf("closed pool: %v", err)
		}
	})
}

// TestScopeEndsWitnessStreams: a scope's end closes its streams, whatever waits in them, and waits for who serves them. The scope
// after it serves new ones.
func TestScopeEndsWitnessStreams(t *testing.T) {
	plainAndTLS(t, func(t *testing.T, files *TLS) {
		s, addr := start(t, testConfig(t, 2, "c", files))
		p := pool(t, testConfig(t, 1, "c", files), map[ident.Broker]string{2: addr})
		for name, wait := range map[string]func(c net.Conn){
			"its owner says nothing": func(c net.Conn) { _, _ = c.Read(make([]byte, 1)) },
			"its owner takes nothing": func(c net.Conn) {
				for b := make([]byte, 1<<20); ; {
					if _, err := c.Write(b); err != nil {
						return
					}
				}
			},
		} {
			scope, entered, served := s.Scope(), make(chan struct{}), false
			scope.HandleWitness(func(c net.Conn) {
				close(entered)
				wait(c)
				served = true
			})
			c, err := p.DialWitness(t.Context(), 2)
			if err != nil {
				t.Fatal(err)
			}
			<-entered
			scope.Close() // a stream that is not closed keeps it for ever
			if !served {
				t.Errorf("%s: the scope did not wait", name)
			}
			c.SetDeadline(time.Now().Add(patience))
			if _, err := io.Copy(io.Discard, c); errors.Is(err, os.ErrDeadlineExceeded) {
				t.Errorf("%s: the stream stays: %v", name, err)
			}
			c.Close()
		}
		scope := s.Scope()
		defer scope.Close()
		scope.HandleWitness(echo)
		c, err := p.DialWitness(t.Context(), 2)
		if err == nil {
			err = says(c)
			c.Close()
		}
		if err != nil {
			t.Errorf("the next scope: %v", err)
		}
	})
}

// TestWitnessStreamsAreBounded: owners leave room for the other connections, and what they close is free again.
func TestWitnessStreamsAreBounded(t *testing.T) {
	s, addr := start(t, testConfig(t, 2, "c", nil))
	p := pool(t, testConfig(t, 1, "c", nil), map[ident.Broker]string{2: addr})
	scope, ended := s.Scope(), make(chan struct{})
	scope.HandleWitness(func(c net.Conn) {
		echo(c)
		ended <- struct{}{}
	})
	s.services.sessions.Store(maxSessions - 1)
	last, err := p.DialWitness(t.Context(), 2)
	if err == nil {
		err = says(last)
	}
	if err != nil {
		t.Fatal(err)
	}
	if _, err := p.DialWitness(t.Context(), 2); !errors.Is(err, ErrRefused) {
		t.Errorf("one too many: %v", err)
	}
	last.Close()
	<-ended
	scope.Close() // the stream counts no more
	if n := s.services.sessions.Load(); n != maxSessions-1 {
		t.Errorf("%d streams are counted", n)
	}
}

// TestDialWitnessIsCancelled: a broker that accepts and says nothing, as one that is stopped, keeps nobody who has given it up.
func TestDialWitnessIsCancelled(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	p := pool(t, testConfig(t, 1, "c", nil), map[ident.Broker]string{2: ln.Addr().String()})
	ctx, cancel := context.WithCancel(t.Context())
	failed := make(chan error, 1)
	go func() {
		_, err := p.DialWitness(ctx, 2)
		failed <- err
	}()
	c, err := ln.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if _, _, err := readPreface(c); err != nil { // now it waits for the answer
		t.Fatal(err)
	}
	begun := time.Now()
	cancel()
	if err := <-failed; !errors.Is(err, context.Canceled) || time.Since(begun) >= shakeTimeout {
		t.Errorf("%v after %v, want that it was cancelled at once", err, time.Since(begun))
	}
}
