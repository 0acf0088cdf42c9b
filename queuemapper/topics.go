package queuemapper

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"maps"
	"slices"
	"strconv"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/skeinmq/skein/internal/ident"
)

// swap writes one key if it still has the revision at which the caller read it (0: it must
// be absent), and everything guarded is as demanded, and returns the new revision once the snapshot has it. A lost answer is settled
// by sending the same write again: only one of them can succeed, and a value that is there
// byte for byte is our own, as values of racing writers differ or mean the same.
func (s *Store) swap(ctx context.Context, op, key string, revision int64, value []byte, opts []clientv3.OpOption, guards ...guard) (int64, error) {
	value = s.withNext(value)
	cmps, gets := []clientv3.Cmp{s.unchanged(key, revision)}, []clientv3.Op{clientv3.OpGet(s.key(key))}
	for _, g := range guards {
		cmps, gets = append(cmps, g.cmps(s)...), append(gets, clientv3.OpGet(s.key(g.key())))
	}
	resp, again, err := s.settle(ctx, op, cmps, []clientv3.Op{clientv3.OpPut(s.key(key), string(value), opts...)}, gets)
	if err != nil {
		return 0, err
	}
	written := resp.Header.Revision
	if !resp.Succeeded {
		kvs := resp.Responses[0].GetResponseRange().Kvs
		if !again || len(kvs) == 0 || !bytes.Equal(kvs[0].Value, value) {
			return 0, s.conflict(ctx, resp, "write "+key)
		}
		written = kvs[0].ModRevision
	}
	return written, s.caughtUp(ctx, written)
}

// NewTopic asks for a topic.
type NewTopic struct {
	Name              string
	ID                ident.Topic // zero: a random one
	ReplicationFactor int16
	Configs           map[string]string
	// Placements gives each partition its group; its length is the partition count.
	Placements []ident.Group
	// Assigned are replica lists that were asked for, by partition; see Assignments.
	Assigned map[int32][]ident.Broker
}

// placed makes placements of partitions that begin in these groups.
func (s *Store) placed(groups []ident.Group) ([]Placement, error) {
	stays := make([]Residence, len(groups))
	out := make([]Placement, len(groups))
	for i, g := range groups {
		if s.Map().Group(g) == nil {
			return nil, fmt.Errorf("%w: no group %d", ErrInvalid, g)
		}
		stays[i] = Residence{Group: g}
		out[i] = stays[i : i+1 : i+1]
	}
	return out, nil
}

// CreateTopic writes a new topic. ErrExists if the name is taken.
func (s *Store) CreateTopic(ctx context.Context, n NewTopic) (*Topic, error) {
	if n.Name == "" {
		return nil, fmt.Errorf("create topic: %w: no name", ErrInvalid)
	}
	if n.ID == (ident.Topic{}) {
		if _, err := io.ReadFull(s.cfg.Rand, n.ID[:]); err != nil {
			return nil, fmt.Errorf("create topic %s: %w", n.Name, err)
		}
	}
	pl, err := s.placed(n.Placements)
	if err != nil {
		return nil, fmt.Errorf("create topic %s: %w", n.Name, err)
	}
	t := &Topic{
		Name: n.Name, ID: n.ID, ReplicationFactor: n.ReplicationFactor,
		Configs: maps.Clone(n.Configs), Partitions: pl,
	}
	puts := []clientv3.Op{s.put(keyTopic(n.Name), encodeTopic(t))}
	if len(n.Assigned) > 0 {
		lists := make(map[string]string, len(n.Assigned))
		for index, list := range n.Assigned {
			lists[strconv.Itoa(int(index))] = formatReplicas(list)
		}
		puts = append(puts, s.put(keyConfig(kindReplicas, n.ID.String()), encodeConfigs(lists)))
	}
	resp, again, err := s.settle(ctx, "create_topic", []clientv3.Cmp{s.unchanged(keyTopic(n.Name), 0)}, puts,
		[]clientv3.Op{clientv3.OpGet(s.key(keyTopic(n.Name)))})
	if err != nil {
		return nil, fmt.Errorf("create topic %s: %w", n.Name, err)
	}
	t.Revision = resp.Header.Revision
	if !resp.Succeeded {
		kv := resp.Responses[0].GetResponseRange().Kvs[0] // the compare says that it is there
		there, err := decodeTopic(n.Name, kv.Value, kv.ModRevision)
		if err != nil {
			return nil, fmt.Errorf("create topic %s: %w", n.Name, err)
		}
		t.Revision = kv.ModRevision
		if !again || there.ID != n.ID {
			if err := s.caughtUp(ctx, kv.ModRevision); err != nil {
				return nil, fmt.Errorf("create topic %s: %w", n.Name, err)
			}
			return nil, fmt.Errorf("create topic %s: %w", n.Name, ErrExists)
		}
	}
	return s.topicAt(ctx, "create", t)
}

// topicAt waits for the snapshot and returns its record, if that is the one just written.
func (s *Store) topicAt(ctx context.Context, verb string, t *Topic) (*Topic, error) {
	if err := s.caughtUp(ctx, t.Revision); err != nil {
		return nil, fmt.Errorf("%s topic %s: %w", verb, t.Name, err)
	}
	if seen := s.Map().Topic(t.Name); seen != nil && seen.Revision == t.Revision {
		return seen, nil
	}
	return t, nil
}

// DeleteTopic removes a topic, comparing its id. ErrNotFound if it is not there under that id.
func (s *Store) DeleteTopic(ctx context.Context, name string, id ident.Topic) error {
	sent := false
	for {
		t := s.Map().Topic(name)
		if t == nil || t.ID != id {
			if sent { // an answer was lost, and the topic is gone
				return nil
			}
			return fmt.Errorf("delete topic %s: %w", name, ErrNotFound)
		}
		resp, again, err := s.settle(ctx, "delete_topic", []clientv3.Cmp{s.unchanged(keyTopic(name), t.Revision)},
			[]clientv3.Op{clientv3.OpDelete(s.key(keyTopic(name))), clientv3.OpDelete(s.key(keyConfig(kindReplicas, id.String()))),
				clientv3.OpDelete(s.key(keyConfig(kindReassign, id.String())))}, []clientv3.Op{clientv3.OpGet(s.key(keyTopic(name)))})
		if err == nil && resp.Succeeded {
			err = s.caughtUp(ctx, resp.Header.Revision)
		} else if err == nil {
			sent = sent || again
			if err = s.conflictSeen(ctx, resp); err == nil {
				continue
			}
		}
		if err != nil {
			return fmt.Errorf("delete topic %s: %w", name, err)
		}
		return nil
	}
}

// AddPartitions appends partitions, comparing the topic's revision with the caller's.
func (s *Store) AddPartitions(ctx context.Context, t *Topic, placements []ident.Group) (*Topic, error) {
	pl, err := s.placed(placements)
	if err != nil {
		return nil, fmt.Errorf("extend topic %s: %w", t.Name, err)
	}
	fresh := *t
	fresh.Partitions = slices.Concat(t.Partitions, pl)
	return s.swapTopic(ctx, "extend", t.Revision, &fresh)
}

// SetTopicConfigs replaces a topic's configs, comparing its revision with the caller's.
func (s *Store) SetTopicConfigs(ctx context.Context, t *Topic, configs map[string]string) (*Topic, error) {
	fresh := *t
	fresh.Configs = maps.Clone(configs)
	return s.swapTopic(ctx, "configure", t.Revision, &fresh)
}

func (s *Store) swapTopic(ctx context.Context, verb string, revision int64, fresh *Topic) (*Topic, error) {
	written, err := s.swap(ctx, verb+"_topic", keyTopic(fresh.Name), revision, encodeTopic(fresh), nil)
	if err != nil {
		return nil, fmt.Errorf("%s topic %s: %w", verb, fresh.Name, err)
	}
	fresh.Revision = written
	return s.topicAt(ctx, verb, fresh)
}

// SetDynamic changes an entity's dynamic configs with fn, which may be called again after a
// conflict. An empty result removes the key. fn gets a copy that it may change, and its
// error ends the call.
func (s *Store) SetDynamic(ctx context.Context, kind, name string, fn func(map[string]string) (map[string]string, error)) error {
	key := keyConfig(kind, name)
	for {
		var revision int64
		was := map[string]string{}
		if e, ok := s.Map().dynamic.get(kind + "/" + name); ok {
			revision, was = e.revision, maps.Clone(e.configs)
		}
		is, err := fn(was)
		if err != nil {
			return err
		}
		if len(is) == 0 && revision == 0 {
			return nil
		}
		change := s.put(key, encodeConfigs(is))
		if len(is) == 0 {
			change = clientv3.OpDelete(s.key(key))
		}
		// After a lost answer the loop comes back with what is there, and fn sees whether
		// its change is in it.
		resp, _, err := s.settle(ctx, "set_configs", []clientv3.Cmp{s.unchanged(key, revision)},
			[]clientv3.Op{change}, []clientv3.Op{clientv3.OpGet(s.key(key))})
		switch {
		case err == nil && resp.Succeeded:
			err = s.caughtUp(ctx, resp.Header.Revision)
		case err == nil:
			if err = s.conflictSeen(ctx, resp); err == nil {
				continue
			}
		}
		if err != nil {
			return fmt.Errorf("set configs of %s %q: %w", kind, name, err)
		}
		return nil
	}
}
