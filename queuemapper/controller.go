package queuemapper

import (
	"context"
	"errors"
	"fmt"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/skeinmq/skein/internal/ident"
)

// Controller is the record of the active controller: the one with the greatest term. It keeps older ones from
// useless work; safety does not rest on it (O14).
type Controller struct {
	Term   int64        `json:"term"` // raft's, as it was elected; 0: there was none yet
	Broker ident.Broker `json:"broker"`
}

// Controller returns the record of the active controller, the zero one if there was none yet.
func (m *Map) Controller() Controller { return m.controller }

// ClaimController writes down who the active controller is, unless a newer one did (O14): ErrConflict then.
// Doing it again with the same term and broker changes nothing.
func (s *Store) ClaimController(ctx context.Context, c Controller) error {
	if c.Term <= 0 || c.Broker < 0 {
		return fmt.Errorf("claim controller: %w: term %d of broker %d", ErrInvalid, c.Term, c.Broker)
	}
	for {
		resp, err := s.get(ctx, s.key(keyController))
		if err != nil {
			return fmt.Errorf("claim controller: %w", err)
		}
		var revision int64
		if len(resp.Kvs) > 0 {
			there, err := decodeController(resp.Kvs[0].Value)
			switch {
			case err != nil:
				return fmt.Errorf("claim controller: %w", err)
			case there == c:
				return s.caughtUp(ctx, resp.Kvs[0].ModRevision)
			case there.Term >= c.Term:
				return fmt.Errorf("claim controller: %w: broker %d is it in term %d, this is term %d", ErrConflict, there.Broker, there.Term, c.Term)
			}
			revision = resp.Kvs[0].ModRevision
		}
		_, err = s.swap(ctx, "claim_controller", keyController, revision, encodeController(c), nil)
		if !errors.Is(err, ErrConflict) {
			return err
		}
	}
}

// RemoveBroker deletes a dead broker's registration, so that nobody waits for the end of its lease. A newer
// incarnation's stays: ErrConflict. None being there is fine.
func (s *Store) RemoveBroker(ctx context.Context, id ident.Broker, incarnation int64) error {
	key := keyBroker(id)
	for {
		resp, err := s.get(ctx, s.key(key))
		if err != nil {
			return fmt.Errorf("remove broker %d: %w", id, err)
		}
		if len(resp.Kvs) == 0 {
			if s.Map().Broker(id) == nil {
				return nil
			}
			return s.reload(ctx) // no revision says when it went
		}
		there, err := decodeBroker(id, resp.Kvs[0].Value)
		if err != nil {
			return fmt.Errorf("remove broker %d: %w", id, err)
		}
		if there.Incarnation > incarnation {
			if err := s.caughtUp(ctx, resp.Kvs[0].ModRevision); err != nil { // the snapshot has what won, as after every conflict
				return fmt.Errorf("remove broker %d: %w", id, err)
			}
			return fmt.Errorf("remove broker %d: %w: incarnation %d is there, %d was to go", id, ErrConflict, there.Incarnation, incarnation)
		}
		done, _, err := s.settle(ctx, "remove_broker", []clientv3.Cmp{s.unchanged(key, resp.Kvs[0].ModRevision)},
			[]clientv3.Op{clientv3.OpDelete(s.key(key))}, nil)
		if err != nil {
			return fmt.Errorf("remove broker %d: %w", id, err)
		}
		if done.Succeeded {
			return s.caughtUp(ctx, done.Header.Revision)
		}
	}
}
