package peer

import (
	"context"
	"fmt"
	"net"
	"strings"
	"sync"
	"sync/atomic"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/skeinmq/skein/internal/ident"
)

// services is the gRPC services of a server by name, and its witness. gRPC's own table is closed once it serves; a broker
// that rebuilds its inner part needs one that is not.
type services struct {
	mu      sync.RWMutex
	table   map[string]*service
	witness *witnessService // nil: none is served

	sessions atomic.Int32 // streams of owners that are being served, by whichever scope
}

type service struct {
	scope   *Scope
	impl    any
	methods map[string]grpc.MethodHandler
	streams map[string]grpc.StreamHandler
}

// witnessService takes the streams of kind W.
type witnessService struct {
	scope *Scope
	serve func(net.Conn)
}

// Scope is a set of services with one end.
type Scope struct {
	services *services
	ctx      context.Context // of every call
	end      context.CancelFunc

	mu     sync.Mutex
	closed bool
	calls  sync.WaitGroup
}

func newScope(s *services) *Scope {
	sc := &Scope{services: s}
	sc.ctx, sc.end = context.WithCancel(context.Background())
	return sc
}

// RegisterService implements grpc.ServiceRegistrar. Of two with one name the later one gets the calls.
func (sc *Scope) RegisterService(desc *grpc.ServiceDesc, impl any) {
	sv := &service{scope: sc, impl: impl, methods: make(map[string]grpc.MethodHandler), streams: make(map[string]grpc.StreamHandler)}
	for _, m := range desc.Methods {
		sv.methods[m.MethodName] = m.Handler
	}
	for _, m := range desc.Streams {
		sv.streams[m.StreamName] = m.Handler
	}
	sc.services.mu.Lock()
	defer sc.services.mu.Unlock()
	sc.services.table[desc.ServiceName] = sv
}

// HandleWitness has serve called for each stream that Pool.DialWitness opens to this broker, in a goroutine of the stream's. The
// stream is closed when serve returns, and when the scope ends, which makes serve return. Of two calls the later one gets
// the streams.
func (sc *Scope) HandleWitness(serve func(net.Conn)) {
	sc.services.mu.Lock()
	defer sc.services.mu.Unlock()
	sc.services.witness = &witnessService{sc, serve}
}

// Close takes the services away, ends the contexts of their calls and waits for them. Callers see UNAVAILABLE; streams of owners
// are closed.
func (sc *Scope) Close() {
	sc.services.mu.Lock()
	if w := sc.services.witness; w != nil && w.scope == sc {
		sc.services.witness = nil
	}
	for name, sv := range sc.services.table {
		if sv.scope == sc {
			delete(sc.services.table, name)
		}
	}
	sc.services.mu.Unlock()
	sc.mu.Lock()
	sc.closed = true
	sc.mu.Unlock()
	if sc.end != nil {
		sc.end()
	}
	sc.calls.Wait()
}

// enter counts a call; false: the scope has ended.
func (sc *Scope) enter() bool {
	sc.mu.Lock()
	defer sc.mu.Unlock()
	if sc.closed {
		return false
	}
	sc.calls.Add(1)
	return true
}

// takesWitness says who would serve a stream of kind W, or why nobody does.
func (s *services) takesWitness(self ident.Broker) (*witnessService, error) {
	s.mu.RLock()
	w := s.witness
	s.mu.RUnlock()
	switch {
	case w == nil:
		return nil, &RefusedError{NotReady, fmt.Sprintf("broker %d is no witness yet or any more", self)}
	case s.sessions.Load() >= maxSessions:
		return nil, &RefusedError{NotReady, fmt.Sprintf("broker %d is a witness for %d logs already", self, maxSessions)}
	}
	return w, nil
}

// give serves a stream that was taken, until it or the scope ends.
func (w *witnessService) give(p *prefixed) {
	c := abrupt(p.Conn) // the preface, and so the prefix, was read
	defer c.Close()
	if !w.scope.enter() {
		return
	}
	defer w.scope.calls.Done()
	s := w.scope.services
	defer s.sessions.Add(-1)
	if s.sessions.Add(1) > maxSessions { // others came at once
		return
	}
	stop := context.AfterFunc(w.scope.ctx, func() { c.Close() })
	defer stop()
	w.serve(c)
}

// handle serves every call of the server.
func (s *services) handle(_ any, stream grpc.ServerStream) error {
	full, _ := grpc.MethodFromServerStream(stream)
	name, method, _ := strings.Cut(strings.TrimPrefix(full, "/"), "/")
	s.mu.RLock()
	sv := s.table[name]
	s.mu.RUnlock()
	if sv == nil || !sv.scope.enter() {
		return status.Errorf(codes.Unavailable, "%s: not served yet or any more", name)
	}
	if m := sv.streams[method]; m != nil {
		return sv.stream(m, stream)
	}
	defer sv.scope.calls.Done()
	ctx, cancel := context.WithCancel(stream.Context())
	defer cancel()
	defer context.AfterFunc(sv.scope.ctx, cancel)()
	m := sv.methods[method]
	if m == nil {
		return status.Error(codes.Unimplemented, fmt.Sprintf("unknown method %s of %s", method, name))
	}
	out, err := m(sv.impl, ctx, stream.RecvMsg, nil)
	if err != nil {
		return sv.result(err)
	}
	return stream.SendMsg(out)
}

// stream serves a call that is a stream. A method that waits for its caller's next message looks at no context: when the scope
// ends the call is over for the caller at once, which ends that wait, and so the method, and only then the call counts no more.
func (sv *service) stream(m grpc.StreamHandler, stream grpc.ServerStream) error {
	ctx, cancel := context.WithCancel(stream.Context())
	stop := context.AfterFunc(sv.scope.ctx, cancel)
	ended := make(chan error, 1)
	go func() {
		defer sv.scope.calls.Done()
		defer cancel()
		defer stop()
		ended <- m(sv.impl, &scopedStream{ServerStream: stream, ctx: ctx})
	}()
	select {
	case err := <-ended:
		return sv.result(err)
	case <-sv.scope.ctx.Done():
		return status.Error(codes.Unavailable, "service ended")
	}
}

// result makes the end of the scope UNAVAILABLE instead of CANCELED, which callers take for their own doing.
func (sv *service) result(err error) error {
	if err != nil && sv.scope.ctx.Err() != nil {
		return status.Error(codes.Unavailable, "service ended: "+err.Error())
	}
	return err
}

type scopedStream struct {
	grpc.ServerStream
	ctx context.Context
}

// Context implements grpc.ServerStream.
func (s *scopedStream) Context() context.Context { return s.ctx }
