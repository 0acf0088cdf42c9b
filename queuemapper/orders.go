package queuemapper

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/skeinmq/skein/internal/ident"
)

// ErrSuperseded: the order that a change was made for is not in force any more.
var ErrSuperseded = errors.New("another order is in force, or none")

// Order is a reassignment as whoever works on it has it. What is done for it depends on its being in the map like that: a
// worker that was slow, or slept, must not undo what was asked for meanwhile.
type Order struct {
	Partition ident.Partition
	Reassignment
}

// InForce says whether an order is the one that the map has for its partition, and its worker the one that is to do it.
func (m *Map) InForce(o Order) bool {
	r, ok := m.Reassignment(o.Partition)
	return ok && o.is(r)
}

func (o *Order) is(r Reassignment) bool {
	return r.Worker == o.Worker && r.Incarnation == o.Incarnation && slices.Equal(r.Replicas, o.Replicas)
}

// PinFor pins a group for good to the broker that an order names, by a transaction that compares the order: ErrSuperseded.
func (s *Store) PinFor(ctx context.Context, group ident.Group, o Order) error {
	if s.Map().Group(group) == nil {
		return fmt.Errorf("pin group %d: %w", group, ErrNotFound)
	}
	pin, orders := dynamicKey{kindPin, strconv.Itoa(int(group))}, dynamicKey{kindReassign, o.Partition.Topic.String()}
	err := s.setTwo(ctx, pin, orders, func(pin, of map[string]string) error {
		if r, ok := readReassignments(of)[o.Partition.Index]; !ok || !o.is(r) {
			return ErrSuperseded
		}
		clear(pin)
		pin["broker"] = strconv.Itoa(int(o.Replicas[0]))
		return nil
	})
	if err != nil {
		return fmt.Errorf("pin group %d: %w", group, err)
	}
	return nil
}

// Fulfil records the replica lists of those orders on one topic's partitions that are in force, and takes these out of the
// map, in one transaction. The others have no effect.
func (s *Store) Fulfil(ctx context.Context, topic ident.Topic, list []Order) error {
	if s.Map().TopicByID(topic) == nil {
		return fmt.Errorf("assign replicas of topic %s: %w", topic, ErrNotFound)
	}
	replicas, orders := dynamicKey{kindReplicas, topic.String()}, dynamicKey{kindReassign, topic.String()}
	err := s.setTwo(ctx, replicas, orders, func(lists, of map[string]string) error {
		there := readReassignments(of)
		for _, o := range list {
			if r, ok := there[o.Partition.Index]; ok && o.is(r) {
				index := strconv.Itoa(int(o.Partition.Index))
				lists[index] = formatReplicas(o.Replicas)
				delete(of, index)
			}
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("assign replicas of topic %s: %w", topic, err)
	}
	return nil
}

// dynamicKey names what has dynamic configs.
type dynamicKey struct{ kind, name string }

// setTwo is SetDynamic of two entities at once: both are compared, and what fn changes is written.
func (s *Store) setTwo(ctx context.Context, a, b dynamicKey, fn func(a, b map[string]string) error) error {
	for {
		m := s.Map()
		var cmps []clientv3.Cmp
		var puts, gets []clientv3.Op
		var was, is [2]map[string]string
		for i, e := range []dynamicKey{a, b} {
			key, revision := keyConfig(e.kind, e.name), int64(0)
			was[i], is[i] = map[string]string{}, map[string]string{}
			if have, ok := m.dynamic.get(e.kind + "/" + e.name); ok {
				revision, was[i], is[i] = have.revision, have.configs, maps.Clone(have.configs)
			}
			cmps, gets = append(cmps, s.unchanged(key, revision)), append(gets, clientv3.OpGet(s.key(key)))
		}
		if err := fn(is[0], is[1]); err != nil {
			return err
		}
		for i, e := range []dynamicKey{a, b} {
			key := keyConfig(e.kind, e.name)
			switch {
			case maps.Equal(was[i], is[i]):
			case len(is[i]) == 0:
				puts = append(puts, clientv3.OpDelete(s.key(key)))
			default:
				puts = append(puts, s.put(key, encodeConfigs(is[i])))
			}
		}
		if len(puts) == 0 {
			return nil
		}
		resp, _, err := s.settle(ctx, "set_configs", cmps, puts, gets) // after a lost answer fn sees whether its change is there
		switch {
		case err == nil && resp.Succeeded:
			return s.caughtUp(ctx, resp.Header.Revision)
		case err == nil:
			err = s.conflictSeen(ctx, resp)
		}
		if err != nil {
			return err
		}
	}
}
