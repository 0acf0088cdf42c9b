package queuemapper

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"go.etcd.io/etcd/api/v3/mvccpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
)

// page is how many keys one read of the whole map asks for.
const page = 2000

// errWentBack: the store answers with an older revision than one it has shown before.
var errWentBack = errors.New("map store went back in time")

// Run keeps the snapshot fresh, and the registration alive, until ctx ends; then it returns
// nil. While etcd is away the map stays as it is. It returns an error only for what waiting
// does not mend: a value of a newer format or a damaged one.
func (s *Store) Run(ctx context.Context) error {
	run := &runner{stopped: make(chan struct{})}
	if !s.running.CompareAndSwap(nil, run) {
		return errors.New("run map store: it is running")
	}
	defer close(run.stopped)
	defer s.running.Store(nil)
	ctx, cancel := context.WithCancel(ctx)
	var wg sync.WaitGroup
	defer wg.Wait()
	defer cancel()
	wg.Go(func() { s.keepRegistered(ctx) })

	away := false
	for pause := 10 * time.Millisecond; ; pause = min(2*pause, 2*time.Second) {
		before := s.Map()
		err := s.follow(ctx)
		if ctx.Err() != nil {
			return nil
		}
		if errors.Is(err, rpctypes.ErrCompacted) {
			s.metrics.reloads.Inc()
			err = s.reload(ctx)
		}
		switch {
		case errors.Is(err, ErrVersion) || errors.Is(err, ErrCorrupt) || errors.Is(err, ErrCluster):
			return fmt.Errorf("watch map: %w", err)
		case err == nil || s.Map() != before:
			pause = 10 * time.Millisecond
		}
		if err != nil {
			s.doubt.Store(true)
			s.metrics.interruptions.Inc()
			if !away {
				s.log.Warn("map watch interrupted", "error", err, "revision", s.Map().revision)
			}
		}
		away = err != nil
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(pause):
		}
	}
}

// follow applies what the watch brings until the watch ends.
func (s *Store) follow(ctx context.Context) error {
	ctx, cancel := context.WithCancel(clientv3.WithRequireLeader(ctx))
	defer cancel()
	m := s.Map()
	events := s.client.Watch(ctx, s.key("/"), clientv3.WithPrefix(), clientv3.WithRev(m.revision+1),
		clientv3.WithProgressNotify(), clientv3.WithCreatedNotify())
	for resp := range events {
		if err := resp.Err(); err != nil {
			return err
		}
		if resp.Header.Revision != 0 && resp.Header.Revision < m.revision {
			return fmt.Errorf("%w: revision %d, was %d", errWentBack, resp.Header.Revision, m.revision)
		}
		if err := s.apply(&resp); err != nil {
			return err
		}
	}
	return errors.New("watch ended")
}

// apply makes one snapshot of one answer of the watch. etcd never cuts a revision in two,
// so a snapshot has whole transactions only.
func (s *Store) apply(resp *clientv3.WatchResponse) error {
	revision := int64(0)
	if resp.IsProgressNotify() {
		revision = resp.Header.Revision
	}
	s.install.Lock()
	defer s.install.Unlock()
	m := s.current.Load()
	e := m.edit()
	for _, ev := range resp.Events {
		if ev.Kv.ModRevision <= m.revision {
			continue // a reload was ahead
		}
		revision = max(revision, ev.Kv.ModRevision)
		key := strings.TrimPrefix(string(ev.Kv.Key), s.cfg.Prefix)
		var err error
		if ev.Type == mvccpb.Event_DELETE {
			err = e.del(key)
		} else {
			err = e.put(key, ev.Kv.Value, ev.Kv.ModRevision)
		}
		if err != nil {
			return err
		}
	}
	if revision > m.revision {
		s.replace(m, e.done(revision))
	}
	return nil
}

// Refresh reads the map anew and shows it, for callers that do not have Run at work. ErrUnavailable if it cannot.
func (s *Store) Refresh(ctx context.Context) error { return s.reload(ctx) }

// replace shows a newer snapshot. The caller holds install.
func (s *Store) replace(old, fresh *Map) {
	s.current.Store(fresh)
	close(old.next)
	s.metrics.snapshot(fresh)
}

// reload reads the whole map anew, as of one revision.
func (s *Store) reload(ctx context.Context) error {
	kvs, revision, err := s.readAll(ctx)
	if err != nil {
		return err
	}
	s.install.Lock()
	defer s.install.Unlock()
	old := s.current.Load()
	if revision < old.revision {
		return fmt.Errorf("%w: revision %d, was %d", errWentBack, revision, old.revision)
	}
	if revision == old.revision {
		return nil
	}
	fresh, err := load(kvs, s.cfg.Prefix, old)
	if err != nil {
		return err
	}
	if was, is := old.cluster.ID, fresh.cluster.ID; was != "" && was != is {
		return fmt.Errorf("%w: cluster id %q, was %q", ErrCluster, is, was)
	}
	fresh.revision = revision
	s.replace(old, fresh)
	return nil
}

// readAll reads every key at one revision, page by page.
func (s *Store) readAll(ctx context.Context) (kvs []*mvccpb.KeyValue, revision int64, err error) {
	from, end := s.key("/"), clientv3.GetPrefixRangeEnd(s.key("/"))
	for {
		opts := []clientv3.OpOption{clientv3.WithRange(end), clientv3.WithLimit(page)}
		if revision != 0 {
			opts = append(opts, clientv3.WithRev(revision))
		}
		resp, err := s.get(ctx, from, opts...)
		if errors.Is(err, rpctypes.ErrCompacted) { // compacted between two pages
			kvs, revision, from = nil, 0, s.key("/")
			continue
		}
		if err != nil {
			return nil, 0, err
		}
		if revision == 0 {
			revision = resp.Header.Revision
		}
		kvs = append(kvs, resp.Kvs...)
		if !resp.More || len(resp.Kvs) == 0 {
			return kvs, revision, nil
		}
		from = string(kvs[len(kvs)-1].Key) + "\x00"
	}
}

// load builds a map from all keys, sorted as etcd returns them. What old has at the same
// revision is shared with it.
func load(kvs []*mvccpb.KeyValue, prefix string, old *Map) (*Map, error) {
	e := newMap().edit()
	e.ownCounts = true
	// The level first: a build that is too old says so, and not which value it cannot read.
	level := func(kv *mvccpb.KeyValue, key string) int { return strings.Compare(string(kv.Key), key) }
	if i, there := slices.BinarySearchFunc(kvs, prefix+keyLevel, level); there {
		if err := e.put(keyLevel, kvs[i].Value, kvs[i].ModRevision); err != nil {
			return nil, err
		}
	}
	var topics []entry[string, *Topic]
	for _, kv := range kvs {
		key := strings.TrimPrefix(string(kv.Key), prefix)
		dir, name := cutKey(key)
		if dir == keyTopics {
			t := old.Topic(name)
			if t == nil || t.Revision != kv.ModRevision {
				var err error
				if t, err = decodeTopic(name, kv.Value, kv.ModRevision); err != nil {
					return nil, fmt.Errorf("read map key %s: %w", key, err)
				}
			}
			topics = append(topics, entry[string, *Topic]{name, t})
			e.count(t, +1)
			continue
		}
		if dir == keyGroups && e.shareGroup(name, kv.ModRevision, old) {
			continue
		}
		if err := e.put(key, kv.Value, kv.ModRevision); err != nil {
			return nil, err
		}
	}
	e.setTopics(topics)
	return e.done(0), nil
}
