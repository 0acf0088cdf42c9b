package peer

import (
	"context"
	"errors"
	"strconv"

	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"

	"github.com/skeinmq/skein/internal/ident"
)

// Keys of the metadata of every call, and of the header of every answer.
const (
	keyCluster = "skein-cluster" // absent: not known yet
	keyFrom    = "skein-from"
	keyTo      = "skein-to" // absent: whoever answers
	keyVersion = "skein-version"
	keyOldest  = "skein-oldest-version"
	keyRefused = "skein-refused" // in an answer's trailer: the Reason
)

func (h hello) pairs() []string {
	kv := []string{keyFrom, strconv.Itoa(int(h.from)), keyVersion, strconv.Itoa(h.version), keyOldest, strconv.Itoa(h.minVersion)}
	if h.cluster != "" {
		kv = append(kv, keyCluster, h.cluster)
	}
	if h.to != Anyone {
		kv = append(kv, keyTo, strconv.Itoa(int(h.to)))
	}
	return kv
}

// helloOf reads what the other end says of itself.
func helloOf(md metadata.MD) (hello, error) {
	bad := false
	num := func(key string, absent int) int {
		v := md.Get(key)
		if len(v) == 0 {
			return absent
		}
		n, err := strconv.ParseInt(v[0], 10, 32)
		bad = bad || err != nil
		return int(n)
	}
	h := hello{from: ident.Broker(num(keyFrom, -2)), to: ident.Broker(num(keyTo, int(Anyone))), version: num(keyVersion, 0), minVersion: num(keyOldest, 0)}
	if v := md.Get(keyCluster); len(v) > 0 {
		h.cluster = v[0]
	}
	if bad || h.from < 0 || len(h.cluster) > maxCluster {
		return h, &RefusedError{WrongPreface, "the call does not say which broker it is from"}
	}
	return h, nil
}

type senderKey struct{}

// Sender is the broker that made the call which ctx belongs to, false outside a call. It is what that broker says;
// with mutual TLS it is at least a broker of this cluster.
func Sender(ctx context.Context) (ident.Broker, bool) {
	b, ok := ctx.Value(senderKey{}).(ident.Broker)
	return b, ok
}

// checkCall refuses calls that are not meant for this broker, before their first message is read.
func (s *Server) checkCall(srv any, stream grpc.ServerStream, _ *grpc.StreamServerInfo, next grpc.StreamHandler) error {
	md, _ := metadata.FromIncomingContext(stream.Context())
	_ = stream.SetHeader(metadata.Pairs(s.cfg.hello(Anyone).pairs()...))
	h, err := helloOf(md)
	if err == nil {
		err = h.check(s.cfg.Self, s.cfg.Cluster(), false)
	}
	if refused, ok := errors.AsType[*RefusedError](err); ok {
		s.log.Warn("call refused", "component", "peer", "peer", h.from, "error", refused)
		stream.SetTrailer(metadata.Pairs(keyRefused, string(refused.Reason)))
		return refused
	}
	return next(srv, &scopedStream{ServerStream: stream, ctx: context.WithValue(stream.Context(), senderKey{}, h.from)})
}

// caller adds who we are to the calls of one connection and looks at who answers.
type caller struct {
	cfg Config
	to  ident.Broker
}

func (c *caller) out(ctx context.Context) context.Context {
	return metadata.AppendToOutgoingContext(ctx, c.cfg.hello(c.to).pairs()...)
}

// answered checks who answered; header is nil if nobody did.
func (c *caller) answered(header, trailer metadata.MD, err error) error {
	if v := trailer.Get(keyRefused); len(v) > 0 && err != nil {
		return &RefusedError{Reason(v[0]), grpcMessage(err)}
	}
	if len(header.Get(keyVersion)) == 0 {
		return err // no broker answered: err says why; or it is the end of a call that was checked
	}
	h, herr := helloOf(header)
	if herr != nil {
		return herr
	}
	if c.to != Anyone && h.from != c.to {
		return &RefusedError{WrongBroker, "broker " + strconv.Itoa(int(h.from)) + " answers for broker " + strconv.Itoa(int(c.to))}
	}
	if herr := h.check(c.cfg.Self, c.cfg.Cluster(), false); herr != nil {
		return herr
	}
	return err
}

func (c *caller) unary(ctx context.Context, method string, req, reply any, cc *grpc.ClientConn, invoke grpc.UnaryInvoker, opts ...grpc.CallOption) error {
	var header, trailer metadata.MD
	err := invoke(c.out(ctx), method, req, reply, cc, append(opts, grpc.Header(&header), grpc.Trailer(&trailer))...)
	return c.answered(header, trailer, err)
}

func (c *caller) stream(ctx context.Context, desc *grpc.StreamDesc, cc *grpc.ClientConn, method string, open grpc.Streamer, opts ...grpc.CallOption) (grpc.ClientStream, error) {
	s, err := open(c.out(ctx), desc, cc, method, opts...)
	if err != nil {
		return nil, err
	}
	return &checkedStream{ClientStream: s, caller: c}, nil
}

// checkedStream looks at who answers before the first message is handed on.
type checkedStream struct {
	grpc.ClientStream
	caller  *caller
	checked bool // owned by the receiver: one goroutine calls RecvMsg
}

// RecvMsg implements grpc.ClientStream.
func (s *checkedStream) RecvMsg(m any) error {
	err := s.ClientStream.RecvMsg(m)
	if err == nil && s.checked {
		return nil
	}
	var header, trailer metadata.MD
	if !s.checked {
		s.checked = true
		header, _ = s.Header()
	}
	if err != nil {
		trailer = s.Trailer()
	}
	return s.caller.answered(header, trailer, err)
}
