package queuemapper

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/skeinmq/skein/internal/ident"
)

// registration is what Run keeps alive.
type registration struct {
	mu      sync.Mutex
	broker  *Broker // nil: none
	lease   clientv3.LeaseID
	changed chan struct{} // one slot
}

func (r *registration) set(b *Broker, lease clientv3.LeaseID) {
	r.mu.Lock()
	r.broker, r.lease = b, lease
	r.mu.Unlock()
	select {
	case r.changed <- struct{}{}:
	default:
	}
}

func (r *registration) get() (*Broker, clientv3.LeaseID) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.broker, r.lease
}

// NextIncarnation numbers a start of a broker: greater than every number that this broker had before, whatever the
// clocks say, because it is the revision of a write of its own.
func (s *Store) NextIncarnation(ctx context.Context, b ident.Broker) (int64, error) {
	// A lost answer is no matter: the number of the write that got lost is nobody's.
	resp, _, err := s.settle(ctx, "incarnation", nil, []clientv3.Op{s.put(keyIncarnation(b), encodeIncarnation())}, nil)
	if err != nil {
		return 0, fmt.Errorf("next incarnation of broker %d: %w", b, err)
	}
	return resp.Header.Revision, nil
}

// RegisterBroker writes a broker's registration under a lease that Run keeps alive, and
// renews when it was lost. A registration of an older incarnation is replaced; a newer one
// means that another process has the node id: ErrExists.
func (s *Store) RegisterBroker(ctx context.Context, b Broker) error {
	b.Roles = slices.Clone(b.Roles)
	lease, err := s.register(ctx, &b)
	if err != nil {
		return fmt.Errorf("register broker %d: %w", b.ID, err)
	}
	s.registration.set(&b, lease)
	return nil
}

func (s *Store) register(ctx context.Context, b *Broker) (clientv3.LeaseID, error) {
	gctx, cancel := context.WithTimeout(ctx, s.cfg.Timeout)
	defer cancel()
	ttl := int64((s.cfg.LeaseTTL + time.Second - 1) / time.Second)
	lease, err := s.client.Grant(gctx, ttl)
	if err != nil {
		s.doubt.Store(true)
		return 0, fmt.Errorf("%w: %w", ErrUnavailable, err)
	}
	for {
		resp, err := s.get(ctx, s.key(keyBroker(b.ID)))
		if err != nil {
			return 0, err
		}
		var revision int64
		if len(resp.Kvs) > 0 {
			there, err := decodeBroker(b.ID, resp.Kvs[0].Value)
			if err != nil {
				return 0, err
			}
			if there.Incarnation > b.Incarnation {
				return 0, fmt.Errorf("%w: as incarnation %d at %s:%d, this is %d", ErrExists, there.Incarnation, there.Host, there.Port, b.Incarnation)
			}
			revision = resp.Kvs[0].ModRevision
		}
		_, err = s.swap(ctx, "register_broker", keyBroker(b.ID), revision, encodeBroker(b), []clientv3.OpOption{clientv3.WithLease(lease.ID)})
		if errors.Is(err, ErrConflict) {
			continue
		}
		if err == nil {
			s.metrics.registrations.Inc()
		}
		return lease.ID, err
	}
}

// keepRegistered keeps the registration's lease alive until ctx ends, then gives it back, so
// that nobody waits for its end.
func (s *Store) keepRegistered(ctx context.Context) {
	pause := 50 * time.Millisecond
	for ctx.Err() == nil {
		b, lease := s.registration.get()
		if b == nil {
			select {
			case <-ctx.Done():
			case <-s.registration.changed:
			}
			continue
		}
		if s.keepAlive(ctx, lease) {
			pause = 50 * time.Millisecond
			continue // there is a newer registration
		}
		if ctx.Err() != nil {
			break
		}
		if fresh, err := s.register(ctx, b); err == nil {
			s.log.Warn("broker registered again after its lease was lost", "broker", b.ID)
			s.registration.set(b, fresh)
			continue
		} else if errors.Is(err, ErrExists) {
			s.log.Error("broker lost its node id to another process", "broker", b.ID, "error", err)
			s.registration.set(nil, 0)
			continue
		}
		select {
		case <-ctx.Done():
		case <-time.After(pause):
			pause = min(2*pause, 2*time.Second)
		}
	}
	if b, lease := s.registration.get(); b != nil {
		rctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
		defer cancel()
		_, _ = s.client.Revoke(rctx, lease) // if it fails the lease ends by itself
	}
}

// keepAlive holds a lease. It returns true when there is a newer registration, false when
// the lease is lost or ctx ended.
func (s *Store) keepAlive(ctx context.Context, lease clientv3.LeaseID) bool {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	answers, err := s.client.KeepAlive(ctx, lease)
	if err != nil {
		return false
	}
	for {
		select {
		case <-s.registration.changed:
			if _, now := s.registration.get(); now != lease {
				return true
			}
		case _, ok := <-answers:
			if !ok {
				return false
			}
		}
	}
}
