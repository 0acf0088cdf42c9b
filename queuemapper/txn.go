package queuemapper

import (
	"context"
	"errors"
	"fmt"
	"time"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
)

const (
	// maxOps is how many compares, and how many operations, one transaction may have: the
	// default limit of an etcd server.
	maxOps = 128
	// maxBytes of values go into one transaction; a server takes 1.5 MiB by default.
	maxBytes = 1 << 20
)

// nothingHappened are the answers that a server gives before it proposes anything.
var nothingHappened = []error{
	rpctypes.ErrNoSpace, rpctypes.ErrTooManyRequests, rpctypes.ErrPermissionDenied,
	rpctypes.ErrInvalidAuthToken, rpctypes.ErrUserEmpty, rpctypes.ErrNoLeader,
}

// refused are the answers that blame the request.
var refused = []error{
	rpctypes.ErrRequestTooLarge, rpctypes.ErrTooManyOps, rpctypes.ErrDuplicateKey,
	rpctypes.ErrEmptyKey, rpctypes.ErrKeyNotFound, rpctypes.ErrValueProvided,
}

func anyOf(err error, of []error) bool {
	for _, e := range of {
		if errors.Is(err, e) {
			return true
		}
	}
	return false
}

// commit sends one transaction, once. ErrUnavailable: nothing was written. ErrUnknown: that
// is not known. A failed compare is not an error but resp.Succeeded == false.
func (s *Store) commit(ctx context.Context, op string, cmps []clientv3.Cmp, then, els []clientv3.Op) (*clientv3.TxnResponse, error) {
	if err := s.signOfLife(ctx); err != nil {
		s.metrics.txn(op, outcomeUnavailable, 0)
		return nil, err
	}
	begun := time.Now()
	tctx, cancel := context.WithTimeout(ctx, s.cfg.Timeout)
	defer cancel()
	resp, err := s.client.KV.Txn(tctx).If(cmps...).Then(then...).Else(els...).Commit()
	took := time.Since(begun)
	switch {
	case err == nil && resp.Succeeded:
		s.metrics.txn(op, outcomeOK, took)
	case err == nil:
		s.metrics.txn(op, outcomeConflict, took)
	case anyOf(err, refused):
		s.metrics.txn(op, outcomeRefused, took)
		return nil, err
	case anyOf(err, nothingHappened):
		s.doubt.Store(true)
		s.metrics.txn(op, outcomeUnavailable, took)
		return nil, fmt.Errorf("%w: %w", ErrUnavailable, err)
	default:
		// A timeout, a broken connection, a stopped or leaderless server: all of them can
		// come after the transaction was proposed.
		s.doubt.Store(true)
		s.metrics.txn(op, outcomeUnknown, took)
		return nil, fmt.Errorf("%w: %w", ErrUnknown, err)
	}
	return resp, nil
}

// signOfLife makes sure that the store answers, if there is reason to doubt it.
func (s *Store) signOfLife(ctx context.Context) error {
	if err := context.Cause(ctx); err != nil {
		return fmt.Errorf("%w: %w", ErrUnavailable, err)
	}
	if !s.doubt.Load() {
		return nil
	}
	return s.Ping(ctx)
}

// Ping asks the store whether it answers, with a quorum behind it: ErrUnavailable if not, or not before ctx ends.
func (s *Store) Ping(ctx context.Context) error {
	if _, err := s.get(ctx, s.key(keyCluster), clientv3.WithKeysOnly()); err != nil {
		return err
	}
	s.doubt.Store(false)
	return nil
}

// keyNothing is a key that nobody writes.
const keyNothing = "/nothing"

// AwaitWrite is Ping by a write that changes nothing: it returns once the map takes writes.
func (s *Store) AwaitWrite(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, s.cfg.Timeout)
	defer cancel()
	if _, err := s.client.KV.Delete(ctx, s.key(keyNothing)); err != nil {
		s.doubt.Store(true)
		return fmt.Errorf("%w: %w", ErrUnavailable, err)
	}
	s.doubt.Store(false)
	return nil
}

// get reads, linearizably. Every failure is ErrUnavailable.
func (s *Store) get(ctx context.Context, key string, opts ...clientv3.OpOption) (*clientv3.GetResponse, error) {
	gctx, cancel := context.WithTimeout(ctx, s.cfg.Timeout)
	defer cancel()
	resp, err := s.client.KV.Get(gctx, key, opts...)
	if err != nil {
		if errors.Is(err, rpctypes.ErrCompacted) {
			return nil, err
		}
		s.doubt.Store(true)
		return nil, fmt.Errorf("%w: %w", ErrUnavailable, err)
	}
	return resp, nil
}

// settle sends a transaction until its answer is known or ctx ends. It is for transactions
// whose own effect is recognised in their Else answer: sending one again is the write that
// settles it (O8).
func (s *Store) settle(ctx context.Context, op string, cmps []clientv3.Cmp, then, els []clientv3.Op) (resp *clientv3.TxnResponse, again bool, err error) {
	for pause := 10 * time.Millisecond; ; pause = min(2*pause, time.Second) {
		resp, err = s.commit(ctx, op, cmps, then, els)
		if errors.Is(err, ErrUnknown) {
			again = true
		} else if err == nil || !again || !errors.Is(err, ErrUnavailable) {
			return resp, again, err
		}
		if err := s.cfg.Pause(ctx, pause); err != nil {
			return nil, again, fmt.Errorf("%w: %w", ErrUnknown, err)
		}
	}
}

// caughtUp waits until the snapshot reflects a revision that the caller knows to be written.
func (s *Store) caughtUp(ctx context.Context, revision int64) error {
	for {
		m := s.Map()
		if m.revision >= revision {
			return nil
		}
		run := s.running.Load()
		if run == nil {
			if err := s.reload(ctx); err != nil {
				return fmt.Errorf("%w: written, but the map was not read again: %v", ErrUnknown, err) // not %w: ErrUnavailable says that nothing happened
			}
			continue
		}
		select {
		case <-m.next:
		case <-run.stopped:
		case <-ctx.Done():
			return fmt.Errorf("%w: written, but the map was not seen: %w", ErrUnknown, context.Cause(ctx))
		}
	}
}

// conflict is the answer to a failed compare, once the snapshot shows what won.
func (s *Store) conflict(ctx context.Context, resp *clientv3.TxnResponse, what string) error {
	if err := s.conflictSeen(ctx, resp); err != nil {
		return err
	}
	return fmt.Errorf("%s: %w", what, ErrConflict)
}

// conflictSeen lets the snapshot catch up with what the Else branch of a failed compare saw.
func (s *Store) conflictSeen(ctx context.Context, resp *clientv3.TxnResponse) error {
	var newest int64
	gone := false
	for _, r := range resp.Responses {
		kvs := r.GetResponseRange().GetKvs()
		gone = gone || len(kvs) == 0
		for _, kv := range kvs {
			newest = max(newest, kv.ModRevision)
		}
	}
	if gone { // no revision says when it went
		return s.reload(ctx)
	}
	return s.caughtUp(ctx, newest)
}
