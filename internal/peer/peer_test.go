package peer

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/hashicorp/raft"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/skeinmq/skein/internal/ident"
	"github.com/skeinmq/skein/internal/peer/peerpb"
)

// owner answers Prepare with the sender's id as a frame, and AwaitMap when its caller goes away.
type owner struct {
	peerpb.UnimplementedOwnerServer
	name    string
	entered chan struct{}
}

func (o *owner) Prepare(stream grpc.ClientStreamingServer[peerpb.PrepareRequest, peerpb.PrepareReply]) error {
	from, _ := Sender(stream.Context())
	n := 0
	for {
		_, err := stream.Recv()
		if err == io.EOF {
			return stream.SendAndClose(&peerpb.PrepareReply{Frames: []*peerpb.Frame{{Epoch: int64(from), Position: int64(n)}}})
		}
		if err != nil {
			return err
		}
		if n++; o.entered != nil {
			o.entered <- struct{}{}
		}
	}
}

func (o *owner) Move(ctx context.Context, rq *peerpb.MoveRequest) (*peerpb.MoveReply, error) {
	from, ok := Sender(ctx)
	if !ok {
		return nil, errors.New("no sender")
	}
	return &peerpb.MoveReply{Groups: []*peerpb.MovedGroup{{Group: int32(from), Error: o.name}}}, nil
}

func (o *owner) AwaitMap(ctx context.Context, _ *peerpb.AwaitMapRequest) (*peerpb.AwaitMapReply, error) {
	o.entered <- struct{}{}
	<-ctx.Done()
	return nil, context.Cause(ctx)
}

func testConfig(t *testing.T, self ident.Broker, cluster string, files *TLS) Config {
	return Config{Self: self, Cluster: func() string { return cluster }, TLS: files, Logger: slog.New(slog.NewTextHandler(t.Output(), nil))}
}

// start runs a server on loopback until the test ends.
func start(t *testing.T, cfg Config) (*Server, string) {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := NewServer(cfg)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx, ln) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Run: %v", err)
		}
	})
	return s, ln.Addr().String()
}

func pool(t *testing.T, cfg Config, addrs map[ident.Broker]string) *Pool {
	p := NewPool(cfg, func(b ident.Broker) (string, bool) { a, ok := addrs[b]; return a, ok })
	t.Cleanup(func() { p.Close() })
	return p
}

// patience is for what is as slow as the machine: it is no bound that is tested.
const patience = time.Minute

func move(t *testing.T, p *Pool, b ident.Broker) (*peerpb.MoveReply, error) {
	t.Helper()
	cc, err := p.Conn(b)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	return peerpb.NewOwnerClient(cc).Move(ctx, &peerpb.MoveRequest{}, grpc.WaitForReady(true))
}

func TestCalls(t *testing.T) {
	for _, secure := range []bool{false, true} {
		t.Run(map[bool]string{false: "plain", true: "tls"}[secure], func(t *testing.T) {
			var files *TLS
			if secure {
				files = newAuthority(t).load(t, t.TempDir(), "one")
			}
			s, addr := start(t, testConfig(t, 2, "c", files))
			peerpb.RegisterOwnerServer(s.GRPC(), &owner{})
			p := pool(t, testConfig(t, 1, "c", files), map[ident.Broker]string{2: addr})
			r, err := move(t, p, 2)
			if err != nil || r.Groups[0].Group != 1 {
				t.Fatalf("unary: %v, %v", r, err)
			}
			cc, _ := p.Conn(2)
			stream, err := peerpb.NewOwnerClient(cc).Prepare(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			for range 3 {
				if err := stream.Send(&peerpb.PrepareRequest{Log: make([]byte, 1<<20)}); err != nil {
					t.Fatal(err)
				}
			}
			pr, err := stream.CloseAndRecv()
			if err != nil || pr.Frames[0].Epoch != 1 || pr.Frames[0].Position != 3 {
				t.Fatalf("stream: %v, %v", pr, err)
			}
		})
	}
}

func TestRefusals(t *testing.T) {
	s, addr := start(t, testConfig(t, 2, "c", nil))
	served := &owner{}
	peerpb.RegisterOwnerServer(s.GRPC(), served)
	for _, c := range []struct {
		name    string
		cluster string
		to      ident.Broker
		want    Reason
	}{
		{"wrong cluster", "d", 2, WrongCluster},
		{"wrong broker", "c", 3, WrongBroker},
		{"cluster not known yet", "", 2, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			p := pool(t, testConfig(t, 1, c.cluster, nil), map[ident.Broker]string{c.to: addr})
			_, err := move(t, p, c.to)
			if c.want == "" {
				if err != nil {
					t.Fatal(err)
				}
				return
			}
			refused, ok := errors.AsType[*RefusedError](err)
			if !ok || refused.Reason != c.want || !errors.Is(err, ErrRefused) {
				t.Fatalf("unary: %v, want %s", err, c.want)
			}
			cc, _ := p.Conn(c.to)
			stream, err := peerpb.NewOwnerClient(cc).Prepare(t.Context())
			if err == nil {
				_, err = stream.CloseAndRecv()
			}
			if refused, ok := errors.AsType[*RefusedError](err); !ok || refused.Reason != c.want {
				t.Fatalf("stream: %v, want %s", err, c.want)
			}
		})
	}
}

// TestClientChecks: a server that would serve anybody is still refused by a caller that means another.
func TestClientChecks(t *testing.T) {
	c := &caller{cfg: testConfig(t, 1, "c", nil), to: 2}
	answer := func(self ident.Broker, cluster string, version int) error {
		h := hello{cluster: cluster, from: self, to: Anyone, version: version, minVersion: version}
		md := make(map[string][]string)
		for kv := h.pairs(); len(kv) > 0; kv = kv[2:] {
			md[kv[0]] = []string{kv[1]}
		}
		return c.answered(md, nil, nil)
	}
	for name, got := range map[string]struct {
		err  error
		want Reason
	}{
		"another broker":  {answer(3, "c", Version), WrongBroker},
		"another cluster": {answer(2, "d", Version), WrongCluster},
		"newer only":      {answer(2, "c", Version+1), WrongVersion},
		"older only":      {answer(2, "c", MinVersion-1), WrongVersion},
		"right":           {answer(2, "c", Version), ""},
	} {
		refused, _ := errors.AsType[*RefusedError](got.err)
		if (refused == nil) != (got.want == "") || refused != nil && refused.Reason != got.want {
			t.Errorf("%s: %v, want %q", name, got.err, got.want)
		}
	}
}

func TestScopes(t *testing.T) {
	s, addr := start(t, testConfig(t, 2, "c", nil))
	p := pool(t, testConfig(t, 1, "c", nil), map[ident.Broker]string{2: addr})
	if _, err := move(t, p, 2); status.Code(err) != codes.Unavailable {
		t.Fatalf("before registration: %v", err)
	}
	first, entered := s.Scope(), make(chan struct{})
	peerpb.RegisterOwnerServer(first, &owner{name: "first", entered: entered})
	if r, err := move(t, p, 2); err != nil || r.Groups[0].Error != "first" {
		t.Fatalf("first: %v, %v", r, err)
	}
	cc, _ := p.Conn(2)
	hanging := make(chan error, 1)
	go func() {
		_, err := peerpb.NewOwnerClient(cc).AwaitMap(t.Context(), &peerpb.AwaitMapRequest{})
		hanging <- err
	}()
	<-entered
	first.Close()
	if err := <-hanging; status.Code(err) != codes.Unavailable {
		t.Errorf("call that was on: %v", err)
	}
	second := s.Scope()
	peerpb.RegisterOwnerServer(second, &owner{name: "second"})
	if r, err := move(t, p, 2); err != nil || r.Groups[0].Error != "second" {
		t.Fatalf("second: %v, %v", r, err)
	}
	second.Close()
	if _, err := move(t, p, 2); status.Code(err) != codes.Unavailable {
		t.Errorf("after close: %v", err)
	}
}

// TestScopeEndsStreams: a method that waits for its caller's next message does not keep a scope from ending. A broker that witnesses
// for others has such calls all the time, and did not exit after SIGTERM.
func TestScopeEndsStreams(t *testing.T) {
	s, addr := start(t, testConfig(t, 2, "c", nil))
	p := pool(t, testConfig(t, 1, "c", nil), map[ident.Broker]string{2: addr})
	scope, entered := s.Scope(), make(chan struct{})
	peerpb.RegisterOwnerServer(scope, &owner{entered: entered})
	cc, _ := p.Conn(2)
	stream, err := peerpb.NewOwnerClient(cc).Prepare(t.Context())
	if err == nil {
		err = stream.Send(&peerpb.PrepareRequest{})
	}
	if err != nil {
		t.Fatal(err)
	}
	<-entered
	closed := make(chan struct{})
	go func() { scope.Close(); close(closed) }()
	select {
	case <-closed:
	case <-time.After(patience):
		t.Fatal("the scope waits for the caller of a stream")
	}
	if err := stream.RecvMsg(&peerpb.PrepareReply{}); status.Code(err) != codes.Unavailable {
		t.Errorf("the caller was told %v", err)
	}
}

func TestAddressChange(t *testing.T) {
	a, addrA := start(t, testConfig(t, 2, "c", nil))
	b, addrB := start(t, testConfig(t, 2, "c", nil))
	peerpb.RegisterOwnerServer(a.GRPC(), &owner{name: "a"})
	peerpb.RegisterOwnerServer(b.GRPC(), &owner{name: "b"})
	addrs := map[ident.Broker]string{2: addrA}
	p := pool(t, testConfig(t, 1, "c", nil), addrs)
	if r, err := move(t, p, 2); err != nil || r.Groups[0].Error != "a" {
		t.Fatalf("%v, %v", r, err)
	}
	addrs[2] = addrB
	if r, err := move(t, p, 2); err != nil || r.Groups[0].Error != "b" {
		t.Fatalf("%v, %v", r, err)
	}
	delete(addrs, 2)
	if _, err := move(t, p, 2); !errors.Is(err, ErrNoAddress) {
		t.Errorf("%v, want no address", err)
	}
	if len(p.conns) != 0 {
		t.Errorf("%d connections kept", len(p.conns))
	}
}

func TestRaftStreams(t *testing.T) {
	s, addr := start(t, testConfig(t, 2, "c", nil))
	go func() {
		c, err := s.Raft().Accept()
		if err == nil {
			io.Copy(c, c)
			c.Close()
		}
	}()
	one := NewServer(testConfig(t, 1, "c", nil))
	c, err := one.Raft().Dial(raft.ServerAddress(addr), patience)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if _, err := c.Write([]byte("echo")); err != nil {
		t.Fatal(err)
	}
	b := make([]byte, 4)
	if _, err := io.ReadFull(c, b); err != nil || string(b) != "echo" {
		t.Fatalf("%q, %v", b, err)
	}
	for cluster, want := range map[string]Reason{"d": WrongCluster, "": NotReady} {
		other := NewServer(testConfig(t, 1, cluster, nil))
		_, err := other.Raft().Dial(raft.ServerAddress(addr), patience)
		if refused, ok := errors.AsType[*RefusedError](err); !ok || refused.Reason != want {
			t.Errorf("cluster %q: %v, want %s", cluster, err, want)
		}
	}
}

func TestHTTP(t *testing.T) {
	s, addr := start(t, testConfig(t, 2, "c", nil))
	get := func() (int, string) {
		r, err := http.Get("http://" + addr + "/raft")
		if err != nil {
			t.Fatal(err)
		}
		defer r.Body.Close()
		b, _ := io.ReadAll(r.Body)
		return r.StatusCode, string(b)
	}
	if code, _ := get(); code != http.StatusServiceUnavailable {
		t.Errorf("without a handler: %d", code)
	}
	s.HandleHTTP(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, r.URL.Path) }))
	if code, body := get(); code != 200 || body != "/raft" {
		t.Errorf("%d %q", code, body)
	}
	s.HandleHTTP(nil)
	if code, _ := get(); code != http.StatusServiceUnavailable {
		t.Errorf("handler taken away: %d", code)
	}
}

// TestGarbage: what is none of ours costs a connection and nothing else.
func TestGarbage(t *testing.T) {
	s, addr := start(t, testConfig(t, 2, "c", nil))
	peerpb.RegisterOwnerServer(s.GRPC(), &owner{})
	for _, text := range []string{"", "\x00\x00\x00", "PRI garbage", prefaceMagic, prefaceMagic + strings.Repeat("\xff", 12), prefaceMagic + "X\x01\x01" + strings.Repeat("\x00", 9), "GET / HTTP/9.9\r\n\r\n"} {
		c, err := net.Dial("tcp", addr)
		if err != nil {
			t.Fatal(err)
		}
		io.WriteString(c, text)
		c.(*net.TCPConn).CloseWrite()
		c.SetDeadline(time.Now().Add(patience))
		if _, err := io.ReadAll(c); errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("%q: connection stays", text)
		}
		c.Close()
	}
	p := pool(t, testConfig(t, 1, "c", nil), map[ident.Broker]string{2: addr})
	if _, err := move(t, p, 2); err != nil {
		t.Error(err)
	}
}

// TestClusterBecomesKnown: brokers may talk before they know their cluster; from then on they are held to it.
func TestClusterBecomesKnown(t *testing.T) {
	var mine atomic.Value
	mine.Store("")
	cfg := testConfig(t, 2, "", nil)
	cfg.Cluster = func() string { return mine.Load().(string) }
	s, addr := start(t, cfg)
	peerpb.RegisterOwnerServer(s.GRPC(), &owner{})
	p := pool(t, testConfig(t, 1, "c", nil), map[ident.Broker]string{2: addr})
	if _, err := move(t, p, 2); err != nil {
		t.Fatal(err)
	}
	mine.Store("d")
	if _, err := move(t, p, 2); !errors.Is(err, ErrRefused) {
		t.Errorf("%v, want a refusal on the same connection", err)
	}
}

func TestPoolEnds(t *testing.T) {
	_, addr := start(t, testConfig(t, 2, "c", nil))
	p := pool(t, testConfig(t, 1, "c", nil), map[ident.Broker]string{2: addr})
	if err := p.Probe(t.Context(), 2); err != nil {
		t.Error(err)
	}
	if _, err := p.Conn(2); err != nil {
		t.Error(err)
	}
	p.Close()
	if _, err := p.Conn(2); !errors.Is(err, ErrClosed) {
		t.Error(err)
	}
}
