// Package peer is how brokers reach each other: one TCP port per broker, with mutual TLS when there are files for it.
//
// What a connection speaks is told by its first bytes, after the TLS handshake: HTTP/2 is gRPC (the services of
// peerpb), HTTP/1 is etcd between its members, and a preface of our own opens a stream for raft, for a client of etcd or
// from a log's owner to a witness. Both ends check that they mean the same cluster, the right broker and a version they
// both know, before anything is done: gRPC calls carry that in their metadata, other streams in their preface, etcd has
// a check of its own.
//
// It promises that a host that is gone is noticed within two seconds while something waits for it, that connections,
// streams and messages are bounded, and that a connection goes to the address a broker has now. It refuses to know what is said.
package peer

import (
	"errors"
	"fmt"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/skeinmq/skein/internal/ident"
)

const (
	// Version is what this build speaks on the internal listener; MinVersion is the oldest that it understands. A call
	// carries both, so that two builds talk if their ranges overlap.
	Version    = 1
	MinVersion = 1

	// MaxMessageBytes bounds a message in either direction, of gRPC and of a witness's stream. What is larger is cut in
	// parts by its service.
	MaxMessageBytes = 4 << 20

	maxStreams  = 1024 // of one gRPC connection
	maxConns    = 1024 // of one listener
	maxSessions = 512  // of witnesses among them, so that the others find room
	maxPeers    = 1024 // a pool has connections to
)

// Anyone is the receiver that a caller means who does not know whom it will reach.
const Anyone ident.Broker = -1

var (
	// ErrRefused: the other end is of another cluster, another broker, or speaks no common version. Nothing was done.
	ErrRefused = errors.New("refused by peer")
	// ErrNoAddress: nobody knows where the broker is.
	ErrNoAddress = errors.New("no address of broker")
	// ErrClosed: the pool or the listener has ended.
	ErrClosed = errors.New("peer connections closed")
)

// Reason says why a peer was refused.
type Reason string

// Reasons of a RefusedError.
const (
	WrongCluster Reason = "cluster"  // the other end carries another cluster id
	WrongBroker  Reason = "broker"   // somebody else answers at that address
	WrongVersion Reason = "version"  // no version is known to both
	NotReady     Reason = "starting" // the other end does not know its cluster yet
	WrongPreface Reason = "preface"  // it is no Skein broker
)

// RefusedError is an ErrRefused with its reason. As a gRPC status it is FAILED_PRECONDITION, or UNAVAILABLE when
// trying again later may help (NotReady).
type RefusedError struct {
	Reason  Reason
	Message string
}

func (e *RefusedError) Error() string { return fmt.Sprintf("%s: %s", ErrRefused, e.Message) }

// Is makes the error an ErrRefused.
func (e *RefusedError) Is(target error) bool { return target == ErrRefused }

// GRPCStatus is the error as gRPC callers see it.
func (e *RefusedError) GRPCStatus() *status.Status {
	if e.Reason == NotReady {
		return status.New(codes.Unavailable, e.Message)
	}
	return status.New(codes.FailedPrecondition, e.Message)
}

// hello is what either end says of itself, and whom it means.
type hello struct {
	cluster    string // "": not known yet
	from       ident.Broker
	to         ident.Broker // Anyone: whoever answers
	version    int
	minVersion int
}

// check is what the end that is called, self, thinks of h. strict refuses while either does not know its cluster.
func (h hello) check(self ident.Broker, cluster string, strict bool) error {
	switch {
	case h.version < MinVersion || h.minVersion > Version:
		return &RefusedError{WrongVersion, fmt.Sprintf("broker %d speaks versions %d to %d, broker %d speaks %d to %d", h.from, h.minVersion, h.version, self, MinVersion, Version)}
	case h.to != Anyone && h.to != self:
		return &RefusedError{WrongBroker, fmt.Sprintf("this is broker %d, not broker %d: look at the addresses in --peers and at --node-id", self, h.to)}
	case h.cluster != "" && cluster != "" && h.cluster != cluster:
		return &RefusedError{WrongCluster, fmt.Sprintf("broker %d is of cluster %s, broker %d of cluster %s", self, cluster, h.from, h.cluster)}
	case strict && (h.cluster == "" || cluster == ""):
		return &RefusedError{NotReady, fmt.Sprintf("broker %d or %d does not know its cluster yet", self, h.from)}
	}
	return nil
}
