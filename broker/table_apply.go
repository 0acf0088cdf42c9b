package broker

import (
	"context"
	"hash/maphash"
	"maps"
	"time"

	"github.com/skeinmq/skein/internal/ident"
	"github.com/skeinmq/skein/internal/kconfig"
	"github.com/skeinmq/skein/queuemapper"
)

// refresh brings the table up to the store's newest snapshot. Groups in touched are looked at even if the map has not
// changed them: whoever activates, seals or reopens generations of this broker's logs says so here. It returns the
// snapshot that the table now reflects.
func (b *Broker) refresh(touched ...ident.Group) *queuemapper.Map {
	t := &b.table
	t.mu.Lock()
	defer t.mu.Unlock()
	view := t.view.Load()
	m := b.store.Map()
	if m == view.m && len(touched) == 0 {
		return m
	}
	b.endpoints.learn(m, time.Now())
	b.host.Follow(m)
	groups := changedGroups(view.m, m)
	for _, g := range touched {
		groups[g] = true
	}
	b.applyTopics(m, groups, b.reconfigure(view.m, m))
	b.assignCoordinators(m)
	t.view.Store(&tableView{m: m, next: make(chan struct{})})
	close(view.next)
	return m
}

// changedGroups returns the groups whose records differ.
func changedGroups(old, m *queuemapper.Map) map[ident.Group]bool {
	changed := make(map[ident.Group]bool)
	for g := range m.Groups() {
		if old == nil {
			changed[g.ID] = true
			continue
		}
		if was := old.Group(g.ID); was == nil || was.Revision != g.Revision {
			changed[g.ID] = true
		}
	}
	return changed
}

// reconfigure computes the broker's configs in force and reports whether the dynamic ones differ from those of old.
func (b *Broker) reconfigure(old, m *queuemapper.Map) bool {
	was, is := kconfig.Layers{}, b.layers(m, nil)
	if old != nil {
		was = b.layers(old, nil)
		if maps.Equal(was.Broker, is.Broker) && maps.Equal(was.Default, is.Default) {
			return false
		}
	}
	conf := is.BrokerConfig()
	b.current.Store(&conf)
	return true
}

// applyTopics adds, updates and removes topics.
func (b *Broker) applyTopics(m *queuemapper.Map, groups map[ident.Group]bool, reconfigured bool) {
	t := &b.table
	shards := make(map[uint64]map[string]*topic) // copies of the shards that change
	edit := func(name string) map[string]*topic {
		i := maphash.String(t.seed, name) % tableShards
		if shards[i] == nil {
			shards[i] = make(map[string]*topic)
			if old := t.byName[i].Load(); old != nil {
				maps.Copy(shards[i], *old)
			}
		}
		return shards[i]
	}
	var gone, added []*topic
	for rec := range m.Topics() {
		known := b.topic(rec.Name)
		if known != nil && known.id != rec.ID {
			gone = append(gone, known)
			known = nil
		}
		if known == nil {
			known = &topic{name: rec.Name, id: rec.ID}
			b.updateTopic(m, known, rec, groups, reconfigured)
			edit(rec.Name)[rec.Name] = known
			added = append(added, known)
			continue
		}
		b.updateTopic(m, known, rec, groups, reconfigured)
	}
	for i := range t.byName {
		if old := t.byName[i].Load(); old != nil {
			for name, known := range *old {
				if m.Topic(name) == nil {
					delete(edit(name), name)
					gone = append(gone, known)
				}
			}
		}
	}
	b.applyIDs(added, gone)
	for i, s := range shards {
		t.byName[i].Store(&s)
	}
	b.forget(gone)
}

// applyIDs brings the lookup by id up to date.
func (b *Broker) applyIDs(added, gone []*topic) {
	shards := make(map[byte]map[ident.Topic]*topic)
	edit := func(id ident.Topic) map[ident.Topic]*topic {
		if shards[id[0]] == nil {
			shards[id[0]] = make(map[ident.Topic]*topic)
			if old := b.table.byID[id[0]].Load(); old != nil {
				maps.Copy(shards[id[0]], *old)
			}
		}
		return shards[id[0]]
	}
	for _, t := range added {
		edit(t.id)[t.id] = t
	}
	for _, t := range gone {
		delete(edit(t.id), t.id)
	}
	for i, s := range shards {
		b.table.byID[i].Store(&s)
	}
}

// updateTopic brings one topic up to its record.
func (b *Broker) updateTopic(m *queuemapper.Map, t *topic, rec *queuemapper.Topic, groups map[ident.Group]bool, reconfigured bool) {
	old := t.record.Load()
	if old == nil || old.Revision != rec.Revision || reconfigured {
		t.conf.Store(newTopicConfig(b.layers(m, rec.Configs)))
	}
	parts := t.partitions()
	known := len(parts)
	if known < len(rec.Partitions) {
		grown := make([]*partition, len(rec.Partitions))
		copy(grown, parts)
		block := make([]partition, len(rec.Partitions)-known)
		for i := range block {
			block[i] = partition{topic: t, index: int32(known + i)}
			grown[known+i] = &block[i]
		}
		parts = grown
	}
	for i, p := range parts {
		stays := rec.Partitions[i]
		moved := i < known && old != nil && len(old.Partitions[i]) != len(stays)
		if i >= known || moved || groups[stays[len(stays)-1].Group] {
			p.open.Store(b.findOpen(m, rec, p))
		}
	}
	t.record.Store(rec)
	if known < len(parts) {
		t.parts.Store(&parts)
	}
}

// findOpen returns the run that takes the partition's appends in a log of this broker, nil if there is none.
func (b *Broker) findOpen(m *queuemapper.Map, rec *queuemapper.Topic, p *partition) *openRun {
	run, log, ok := m.Owner(rec, p.index)
	if !ok {
		return nil
	}
	if cur := p.open.Load(); cur != nil && b.host.Moving(run.Generation.Group) {
		return cur // its appends wait in the log until the move has ended; then this is looked at again
	}
	host := b.hosted[run.Log]
	if host == nil || log.Host != b.cfg.ID || log.State != queuemapper.LogOpen || log.Epoch != host.epoch {
		return nil
	}
	if cur := p.open.Load(); cur != nil && cur.gen == run.Generation {
		return cur
	}
	q, err := host.log.Queue(run.Generation.Group, p.id())
	if err != nil || q.Generation() != run.Generation {
		// Only prepared as yet: who activates it refreshes. Until then a move within this broker goes on reading, and
		// being named as the leader, where it was; appends there are refused.
		return p.open.Load()
	}
	return &openRun{log: host, queue: q, gen: run.Generation}
}

// followMap keeps the table up to date until ctx ends.
func (b *Broker) followMap(ctx context.Context) error {
	for {
		m := b.refresh()
		select {
		case <-b.store.Watch(m):
		case <-ctx.Done():
			return nil
		}
	}
}

// awaitTable waits until ok holds of the table. It brings the table up to date itself and does not wait for followMap
// to get round to it.
func (b *Broker) awaitTable(ctx context.Context, ok func(m *queuemapper.Map) bool) error {
	for {
		next := b.table.view.Load().next
		if ok(b.refresh()) {
			return nil
		}
		select {
		case <-next:
		case <-b.store.Watch(b.store.Map()):
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// awaitWritable waits until every partition of the topic that is this broker's takes writes here, and returns it. A
// topic that is deleted meanwhile is queuemapper.ErrNotFound.
func (b *Broker) awaitWritable(ctx context.Context, id ident.Topic) (*topic, error) {
	var found *topic
	err := b.awaitTable(ctx, func(m *queuemapper.Map) bool {
		rec := m.TopicByID(id)
		found = b.topicByID(id)
		if rec == nil || found == nil {
			found = nil
			return true
		}
		for _, p := range found.partitions() {
			if p.open.Load() == nil && b.ownedHere(m, p) {
				return false
			}
		}
		return len(found.partitions()) >= len(rec.Partitions)
	})
	if err == nil && found == nil {
		err = queuemapper.ErrNotFound
	}
	return found, err
}

// createTopic writes a new topic to the map and returns it when every partition of this broker's takes writes, as clients
// produce the moment CreateTopics has answered; the caller waits for the other brokers (awaitPeers). There is at least one
// partition; the name, the configs and the assignment have been checked.
func (b *Broker) createTopic(ctx context.Context, p *plannedTopic) (*topic, error) {
	nt := queuemapper.NewTopic{
		Name: p.name, ID: newTopicID(), ReplicationFactor: p.replication, Configs: p.configs,
	}
	m := b.store.Map()
	if len(p.assigned) == 0 {
		nt.Placements = m.PlaceNew(nt.ID, 0, p.partitions)
	} else {
		var hosts []ident.Broker
		hosts, nt.Assigned = assignments(0, p.assigned)
		nt.Placements = m.PlaceAt(nt.ID, 0, hosts)
	}
	rec, err := b.store.CreateTopic(ctx, nt)
	if err != nil {
		return nil, err
	}
	return b.awaitWritable(ctx, rec.ID)
}

// assignments are the brokers that new partitions shall go to, and their replica lists; first is the index of the first.
func assignments(first int32, lists [][]int32) (hosts []ident.Broker, assigned map[int32][]ident.Broker) {
	assigned = make(map[int32][]ident.Broker, len(lists))
	for i, list := range lists {
		hosts = append(hosts, ident.Broker(list[0]))
		for _, id := range list {
			assigned[first+int32(i)] = append(assigned[first+int32(i)], ident.Broker(id))
		}
	}
	return hosts, assigned
}

// forget marks topics that the map has no more, and has their data dropped.
func (b *Broker) forget(gone []*topic) {
	for _, t := range gone {
		t.deleted.Store(true)
		b.gone.add(t.partitions())
	}
}
