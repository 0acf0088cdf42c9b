package queuemapper

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/skeinmq/skein/internal/ident"
)

// Keys, relative to the store's prefix.
const (
	keyCluster    = "/cluster"
	keyController = "/controller"
	keyLevel      = "/level"
	keyTopics     = "/topics/"
	keyGroups     = "/pg/"
	keyLogs       = "/logs/"
	keyBrokers    = "/brokers/"
	keyConfigs    = "/config/"
	// keyIncarnations holds no value of interest: the revision of a key is the broker's newest incarnation.
	keyIncarnations = "/incarnations/"
)

func keyTopic(name string) string      { return keyTopics + name }
func keyGroup(id ident.Group) string   { return keyGroups + strconv.Itoa(int(id)) }
func keyLog(id ident.Log) string       { return keyLogs + id.String() }
func keyBroker(id ident.Broker) string { return keyBrokers + strconv.Itoa(int(id)) }
func keyIncarnation(id ident.Broker) string {
	return keyIncarnations + strconv.Itoa(int(id))
}
func keyConfig(kind, name string) string {
	return keyConfigs + kind + "/" + name
}

// cutKey splits a relative key into its directory and the name in it.
func cutKey(key string) (dir, name string) {
	if i := strings.IndexByte(key[min(1, len(key)):], '/'); i >= 0 {
		return key[:i+2], key[i+2:]
	}
	return key, ""
}

// edit is a map that is becoming the next snapshot. It shares with the one it came from
// what it has not touched.
type edit struct {
	m         Map
	ownGroups bool
	ownCounts bool
}

func newMap() *Map {
	return &Map{
		topics:  ordered[string, *Topic]{compare: strings.Compare},
		byID:    ordered[ident.Topic, *Topic]{compare: compareTopics},
		logs:    ordered[ident.Log, *Log]{compare: compareLogs},
		brokers: ordered[ident.Broker, *Broker]{compare: cmp.Compare[ident.Broker]},
		dynamic: ordered[string, *entity]{compare: strings.Compare},
		next:    make(chan struct{}),
	}
}

func compareTopics(a, b ident.Topic) int { return bytes.Compare(a[:], b[:]) }
func compareLogs(a, b ident.Log) int     { return bytes.Compare(a[:], b[:]) }

func (m *Map) edit() *edit { return &edit{m: *m} }

// done returns the new snapshot.
func (e *edit) done(revision int64) *Map {
	m := e.m
	m.revision = revision
	m.next = make(chan struct{})
	return &m
}

// put applies one written key. A key that this version does not know is left alone.
func (e *edit) put(key string, value []byte, revision int64) error {
	var err error
	switch dir, name := cutKey(key); dir {
	case keyCluster:
		var c Cluster
		if c, err = decodeCluster(value); err == nil {
			e.m.cluster = c
			e.sizeGroups(c.Groups)
		}
	case keyController:
		e.m.controller, err = decodeController(value)
	case keyLevel:
		e.m.level, err = decodeLevel(value)
		if err == nil {
			err = e.m.level.Check()
		}
	case keyTopics:
		err = e.putTopic(name, value, revision)
	case keyGroups:
		err = e.putGroup(name, value, revision)
	case keyLogs:
		var id ident.Log
		var l *Log
		if id, err = ident.ParseLog(name); err != nil {
			break
		}
		if l, err = decodeLog(id, value, revision); err == nil {
			e.m.logs = e.m.logs.with(id, l)
		}
	case keyBrokers:
		var id ident.Broker
		var b *Broker
		if id, err = parseBroker(name); err != nil {
			break
		}
		if b, err = decodeBroker(id, value); err == nil {
			e.m.brokers = e.m.brokers.with(id, b)
		}
	case keyConfigs:
		err = e.putConfigs(name, value, revision)
	}
	if err != nil {
		return fmt.Errorf("read map key %s: %w", key, err)
	}
	return nil
}

func (e *edit) putConfigs(name string, value []byte, revision int64) error {
	configs, err := decodeConfigs(value)
	if err != nil {
		return err
	}
	kind, entityName, ok := strings.Cut(name, "/")
	if !ok {
		return errors.New("want kind/name")
	}
	e.m.dynamic = e.m.dynamic.with(name, &entity{kind: kind, name: entityName, configs: configs, revision: revision})
	return nil
}

func (e *edit) putTopic(name string, value []byte, revision int64) error {
	t, err := decodeTopic(name, value, revision)
	if err != nil {
		return err
	}
	e.delTopic(name)
	e.m.topics = e.m.topics.with(name, t)
	e.m.byID = e.m.byID.with(t.ID, t)
	e.count(t, +1)
	return nil
}

func (e *edit) delTopic(name string) {
	old, ok := e.m.topics.get(name)
	if !ok {
		return
	}
	e.m.topics = e.m.topics.without(name)
	e.m.byID = e.m.byID.without(old.ID)
	e.count(old, -1)
}

// count adds a topic's partitions to, or takes them from, the groups they live in.
func (e *edit) count(t *Topic, by int32) {
	if !e.ownCounts {
		e.m.counts, e.ownCounts = slices.Clone(e.m.counts), true
	}
	e.m.partitions += int(by) * len(t.Partitions)
	for _, pl := range t.Partitions {
		if g := int(pl[len(pl)-1].Group); g < len(e.m.counts) {
			e.m.counts[g] += by
		}
	}
}

// sizeGroups brings the tables by group to n entries; groups without a record are empty.
func (e *edit) sizeGroups(n int) {
	if len(e.m.groups) == n {
		return
	}
	groups := make([]*Group, n)
	counts := make([]int32, n)
	copy(counts, e.m.counts)
	copy(groups, e.m.groups)
	for i, g := range groups {
		if g == nil {
			groups[i] = &Group{ID: ident.Group(i)}
		}
	}
	e.m.groups, e.ownGroups = groups, true
	e.m.counts, e.ownCounts = counts, true
}

func (e *edit) putGroup(name string, value []byte, revision int64) error {
	n, err := strconv.Atoi(name)
	if err != nil {
		return err
	}
	if n < 0 || n >= len(e.m.groups) {
		return nil // left over from a format that did not finish
	}
	g, err := decodeGroup(ident.Group(n), value, revision, e.m.groups[n])
	if err != nil {
		return err
	}
	if !e.ownGroups {
		e.m.groups, e.ownGroups = slices.Clone(e.m.groups), true
	}
	e.m.groups[n] = g
	return nil
}

func parseBroker(name string) (ident.Broker, error) {
	n, err := strconv.ParseInt(name, 10, 32)
	if err == nil && n < 0 {
		err = errors.New("negative node id")
	}
	return ident.Broker(n), err
}

// del applies one deleted key. The cluster's record and the groups' are never deleted.
func (e *edit) del(key string) error {
	switch dir, name := cutKey(key); dir {
	case keyTopics:
		e.delTopic(name)
	case keyController:
		e.m.controller = Controller{}
	case keyLevel:
		e.m.level = 0
	case keyLogs:
		if id, err := ident.ParseLog(name); err == nil {
			e.m.logs = e.m.logs.without(id)
		}
	case keyBrokers:
		if id, err := parseBroker(name); err == nil {
			e.m.brokers = e.m.brokers.without(id)
		}
	case keyConfigs:
		e.m.dynamic = e.m.dynamic.without(name)
	case keyCluster, keyGroups:
		return fmt.Errorf("read map key %s: %w: it was deleted", key, ErrCorrupt)
	}
	return nil
}

// shareGroup takes a group's record from old if it is the one written at that revision.
func (e *edit) shareGroup(name string, revision int64, old *Map) bool {
	n, err := strconv.Atoi(name)
	if err != nil || n < 0 || n >= len(old.groups) || n >= len(e.m.groups) || old.groups[n].Revision != revision {
		return false
	}
	e.m.groups[n] = old.groups[n] // sizeGroups made the table for this edit
	return true
}

// setTopics puts all topics, sorted by name, into an edit that has none.
func (e *edit) setTopics(byName []entry[string, *Topic]) {
	byID := make([]entry[ident.Topic, *Topic], len(byName))
	for i, t := range byName {
		byID[i] = entry[ident.Topic, *Topic]{t.val.ID, t.val}
	}
	slices.SortFunc(byID, func(a, b entry[ident.Topic, *Topic]) int { return compareTopics(a.key, b.key) })
	e.m.topics = orderedOf(strings.Compare, byName)
	e.m.byID = orderedOf(compareTopics, byID)
}
