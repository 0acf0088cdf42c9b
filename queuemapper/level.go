package queuemapper

import (
	"context"
	"fmt"

	clientv3 "go.etcd.io/etcd/client/v3"
)

// Level is the feature level of a cluster: what all of its brokers understand. A build writes nothing, to the map, to
// logs, to the replicated state or to other brokers, that a build of the cluster's level would refuse. New formats and
// messages come with a level of their own, which an operator raises once every broker runs a build that knows it. Levels
// are never lowered (ADR 21).
type Level int

// OldestLevel is the oldest level at which this build serves.
const OldestLevel Level = 1

// newest is NewestLevel. A variable for tests; a build with the tag skeinnext knows one more, and uses it (next_on.go).
var newest = Level(1 + ahead)

// NewestLevel is the newest level that this build knows.
func NewestLevel() Level { return newest }

// Check says whether this build can serve at a level: ErrVersion if not.
func (l Level) Check() error {
	if l < OldestLevel || l > NewestLevel() {
		return fmt.Errorf("%w: the cluster's feature level is %d, this build knows levels %d to %d", ErrVersion, l, OldestLevel, NewestLevel())
	}
	return nil
}

// Level is the cluster's feature level.
func (m *Map) Level() Level { return max(m.level, 1) }

// RaiseLevel raises the cluster's feature level. The caller has made sure that every broker knows it; one that does not,
// and starts at this moment, ends when it sees the level. ErrInvalid if it is below the cluster's, or unknown to this build.
func (s *Store) RaiseLevel(ctx context.Context, to Level) error {
	for {
		resp, err := s.get(ctx, s.key(keyLevel))
		if err != nil {
			return fmt.Errorf("raise feature level: %w", err)
		}
		var revision int64
		now := Level(1)
		if len(resp.Kvs) > 0 {
			revision = resp.Kvs[0].ModRevision
			if now, err = decodeLevel(resp.Kvs[0].Value); err != nil {
				return fmt.Errorf("raise feature level: %w", err)
			}
		}
		switch {
		case to == now:
			return s.caughtUp(ctx, revision)
		case to < now || to > NewestLevel():
			return fmt.Errorf("raise feature level: %w: from %d to %d, this build knows levels up to %d", ErrInvalid, now, to, NewestLevel())
		}
		// The answer's being lost is no matter: it is asked again what there is.
		_, _, err = s.settle(ctx, "raise_level", []clientv3.Cmp{s.unchanged(keyLevel, revision)}, []clientv3.Op{s.put(keyLevel, encodeLevel(to))}, nil)
		if err != nil {
			return fmt.Errorf("raise feature level: %w", err)
		}
	}
}
