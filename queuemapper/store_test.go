package queuemapper

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"regexp"
	"sync/atomic"
	"testing"
	"time"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/skeinmq/skein/internal/ident"
	"github.com/skeinmq/skein/queuemapper/embedded"
)

// etcd is one server for all tests of the package; they have prefixes of their own.
var etcd *embedded.Server

func TestMain(m *testing.M) {
	os.Exit(func() int {
		dir, err := os.MkdirTemp("", "queuemapper")
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		defer os.RemoveAll(dir)
		etcd, err = embedded.Start(context.Background(), embedded.Config{Dir: dir, NoFsync: true})
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		defer etcd.Close()
		return m.Run()
	}())
}

var prefixes atomic.Int64

// patience is for what is as slow as the machine: it is no bound that is tested.
const patience = time.Minute

// testConfig is of a store whose requests and registrations outlive a machine that stands still for a while.
func testConfig(t testing.TB) Config {
	return Config{
		Client: etcd.Client(), Prefix: fmt.Sprintf("/test%d", prefixes.Add(1)), Groups: 8, Timeout: patience, LeaseTTL: patience,
		Logger: slog.New(slog.NewTextHandler(t.Output(), nil)),
	}
}

// openStore opens a store and runs it until the test ends.
func openStore(t testing.TB, cfg Config) *Store {
	t.Helper()
	s, err := Open(t.Context(), cfg, "")
	if err != nil {
		t.Fatal(err)
	}
	runStore(t, s)
	return s
}

func runStore(t testing.TB, s *Store) {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("run: %v", err)
		}
	})
}

func logID(b byte) ident.Log { return ident.Log{15: b} }

func mustReopen(t testing.TB, s *Store, id ident.Log, host ident.Broker, disk ident.LogEpoch) *Log {
	t.Helper()
	l, err := s.ReopenLog(t.Context(), id, host, 1, disk, nil)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// firstGenerations opens every group, spread over the logs.
func firstGenerations(t testing.TB, s *Store, logs ...*Log) {
	t.Helper()
	var pubs []Publication
	for g := range s.Map().Groups() {
		l := logs[int(g.ID)%len(logs)]
		pubs = append(pubs, Publication{Group: g, Target: l, Epoch: 1, Frame: ident.Frame{Epoch: l.Epoch, Position: 4096}})
	}
	mustPublish(t, s, pubs...)
}

func mustPublish(t testing.TB, s *Store, pubs ...Publication) {
	t.Helper()
	if err := errors.Join(s.Publish(t.Context(), pubs)...); err != nil {
		t.Fatal(err)
	}
}

// next is the publication that moves a group to a log at the epoch after its current one.
func next(s *Store, g ident.Group, to *Log, ends map[ident.Partition]ident.Offset) Publication {
	m := s.Map()
	group := m.Group(g)
	cur := group.Current()
	return Publication{
		Group: group, Source: m.Log(cur.Log), Target: to, Epoch: cur.Epoch + 1,
		Frame: ident.Frame{Epoch: to.Epoch, Position: 8192}, Ends: ends,
	}
}

func mustCreate(t testing.TB, s *Store, name string, groups ...ident.Group) *Topic {
	t.Helper()
	topic, err := s.CreateTopic(t.Context(), NewTopic{Name: name, ReplicationFactor: 3, Placements: groups})
	if err != nil {
		t.Fatal(err)
	}
	return topic
}

func TestLifeOfAMap(t *testing.T) {
	s := openStore(t, testConfig(t))
	a := mustReopen(t, s, logID(1), 1, 0)
	b := mustReopen(t, s, logID(2), 1, 0)
	firstGenerations(t, s, a, b)
	topic := mustCreate(t, s, "orders", s.Map().PlaceNew(ident.Topic{}, 0, 16)...)

	run, l, ok := s.Map().Owner(topic, 3)
	if !ok || !run.Open || run.Start != 0 || l.ID != run.Log {
		t.Fatalf("owner: %+v %v %v", run, l, ok)
	}
	g := run.Generation.Group
	to := a
	if run.Log == a.ID {
		to = b
	}
	p := ident.Partition{Topic: topic.ID, Index: 3}
	before := s.Map()
	mustPublish(t, s, next(s, g, to, map[ident.Partition]ident.Offset{p: 100}))
	select {
	case <-s.Watch(before): // a moment after the new one is there
	case <-time.After(patience):
		t.Error("watch of an old snapshot is not closed")
	}
	m := s.Map()
	runs := m.Runs(topic, 3)
	if len(runs) != 2 || runs[0].End != 100 || runs[0].Open || runs[1].Start != 100 || !runs[1].Open || runs[1].Log != to.ID {
		t.Errorf("runs: %+v", runs)
	}
	if r, ok := m.Locate(topic, 3, 99); !ok || r != runs[0] {
		t.Errorf("locate 99: %+v %v", r, ok)
	}
	if r, ok := m.Locate(topic, 3, 100); !ok || r != runs[1] {
		t.Errorf("locate 100: %+v %v", r, ok)
	}
	if e, end, open, ok := m.EpochEnd(topic, 3, 1); e != 1 || end != 100 || open || !ok {
		t.Errorf("epoch 1: %v %v %v %v", e, end, open, ok)
	}

	// A second store reads the same.
	other, err := Open(t.Context(), s.cfg, m.Cluster().ID)
	if err != nil {
		t.Fatal(err)
	}
	if got := other.Map().Runs(other.Map().Topic("orders"), 3); len(got) != 2 || got[0] != runs[0] || got[1] != runs[1] {
		t.Errorf("second store's runs: %+v", got)
	}
	if err := s.DeleteTopic(t.Context(), "orders", topic.ID); err != nil {
		t.Error(err)
	}
	if s.Map().Topic("orders") != nil || s.Map().TopicByID(topic.ID) != nil {
		t.Error("deleted topic is there")
	}
	if err := s.DeleteTopic(t.Context(), "orders", topic.ID); !errors.Is(err, ErrNotFound) {
		t.Errorf("second delete: %v", err)
	}
}

func TestOpenRefusesAnotherCluster(t *testing.T) {
	cfg := testConfig(t)
	if _, err := Open(t.Context(), cfg, "abcdefghijklmnopqrstuv"); !errors.Is(err, ErrCluster) {
		t.Errorf("empty store, disks of a cluster: %v", err)
	}
	s := openStore(t, cfg)
	if _, err := Open(t.Context(), cfg, "abcdefghijklmnopqrstuv"); !errors.Is(err, ErrCluster) {
		t.Errorf("another cluster's disks: %v", err)
	}
	if _, err := Open(t.Context(), cfg, s.Map().Cluster().ID); err != nil {
		t.Error(err)
	}
	if got := len(s.Map().Cluster().ID); got != 22 {
		t.Errorf("cluster id of %d characters", got)
	}
}

// TestWithoutRun: a one-shot caller's writes are in its snapshot as well.
func TestWithoutRun(t *testing.T) {
	s, err := Open(t.Context(), testConfig(t), "")
	if err != nil {
		t.Fatal(err)
	}
	mustCreate(t, s, "a", 1)
	if s.Map().Topic("a") == nil {
		t.Error("created topic is not in the snapshot")
	}
	if _, err := s.CreateTopic(t.Context(), NewTopic{Name: "a"}); !errors.Is(err, ErrExists) {
		t.Errorf("second create: %v", err)
	}
}

func TestReopenLog(t *testing.T) {
	s := openStore(t, testConfig(t))
	id := logID(1)
	if _, err := s.ReopenLog(t.Context(), id, 1, 1, 3, nil); !errors.Is(err, ErrInvalid) {
		t.Errorf("disk that the map does not know: %v", err)
	}
	l := mustReopen(t, s, id, 1, 0)
	if l.Epoch != 1 || l.State != LogOpen || s.Map().Log(id).Revision != l.Revision {
		t.Errorf("first: %+v", l)
	}
	l = mustReopen(t, s, id, 1, 0) // crashed before epoch 1 was begun on the disk
	if l.Epoch != 2 {
		t.Errorf("second: %+v", l)
	}
	for range 3 { // and again, and again: no disk is stranded by crashes at that point
		mustReopen(t, s, id, 1, 0)
	}
	l = mustReopen(t, s, id, 1, 1)
	began, err := s.BeganLog(t.Context(), l)
	if err != nil || began.Begun != 6 || began.Epoch != 6 {
		t.Fatalf("begin: %+v %v", began, err)
	}
	if again, err := s.BeganLog(t.Context(), l); err != nil || again.Revision != began.Revision {
		t.Errorf("begin once more: %+v, %v", again, err)
	}
	l = began
	var gap *LogEpochError
	for disk := range l.Epoch {
		if _, err := s.ReopenLog(t.Context(), id, 1, 1, disk, nil); !errors.As(err, &gap) || gap.Begun != 6 {
			t.Errorf("old copy of the disk, at %d: %v", disk, err)
		}
	}
	if _, err := s.ReopenLog(t.Context(), id, 1, 1, 7, nil); !errors.As(err, &gap) || gap.Disk != 7 {
		t.Errorf("disk ahead of the map: %v", err)
	}
	sealed, err := s.SealLog(t.Context(), l)
	if err != nil || sealed.State != LogSealed || sealed.Epoch != 6 {
		t.Fatalf("seal: %+v %v", sealed, err)
	}
	if _, err := s.SealLog(t.Context(), l); !errors.Is(err, ErrConflict) {
		t.Errorf("seal of an old record: %v", err)
	}
	if l := mustReopen(t, s, id, 7, 6); l.Epoch != 7 || l.State != LogOpen || l.Host != 7 {
		t.Errorf("reopen after seal: %+v", l)
	}
}

func TestTopicChanges(t *testing.T) {
	s := openStore(t, testConfig(t))
	topic := mustCreate(t, s, "a", 0, 1)
	grown, err := s.AddPartitions(t.Context(), topic, []ident.Group{2, 3})
	if err != nil || len(grown.Partitions) != 4 || grown.Partitions[3][0].Group != 3 {
		t.Fatalf("add: %+v %v", grown, err)
	}
	if _, err := s.AddPartitions(t.Context(), topic, []ident.Group{2}); !errors.Is(err, ErrConflict) {
		t.Errorf("add to an old revision: %v", err)
	}
	if _, err := s.AddPartitions(t.Context(), grown, []ident.Group{99}); !errors.Is(err, ErrInvalid) {
		t.Errorf("add to no group: %v", err)
	}
	set, err := s.SetTopicConfigs(t.Context(), grown, map[string]string{"retention.ms": "1"})
	if err != nil || set.Configs["retention.ms"] != "1" || len(set.Partitions) != 4 || set.ID != topic.ID {
		t.Fatalf("configs: %+v %v", set, err)
	}
	if got := s.Map().Topic("a"); got != set {
		t.Errorf("snapshot has %+v", got)
	}
	if topics, parts := s.Map().Len(); topics != 1 || parts != 4 {
		t.Errorf("len %d %d", topics, parts)
	}
}

func TestSetDynamic(t *testing.T) {
	s := openStore(t, testConfig(t))
	other := openStore(t, s.cfg)
	add := func(k, v string) func(map[string]string) (map[string]string, error) {
		return func(m map[string]string) (map[string]string, error) { m[k] = v; return m, nil }
	}
	for i := range 20 { // two stores take turns; neither has seen the other's last write for sure
		st := []*Store{s, other}[i%2]
		if err := st.SetDynamic(t.Context(), "broker", "", add(fmt.Sprint(i), "x")); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.SetDynamic(t.Context(), "group", "a/b", add("k", "v")); err != nil {
		t.Fatal(err)
	}
	if got := other.caughtUp(t.Context(), s.Map().Revision()); got != nil {
		t.Fatal(got)
	}
	if got := other.Map().Dynamic("broker", ""); len(got) != 20 {
		t.Errorf("%d configs, want 20", len(got))
	}
	if got := other.Map().Dynamic("group", "a/b"); got["k"] != "v" {
		t.Errorf("group configs %v", got)
	}
	empty := func(map[string]string) (map[string]string, error) { return nil, nil }
	if err := s.SetDynamic(t.Context(), "group", "a/b", empty); err != nil {
		t.Fatal(err)
	}
	if s.Map().Dynamic("group", "a/b") != nil {
		t.Error("removed configs are there")
	}
}

func TestRegisterBroker(t *testing.T) {
	cfg := testConfig(t)
	s := openStore(t, cfg)
	b := Broker{ID: 1, Incarnation: 10, Host: "h", Port: 9092, Rack: "r", Roles: []string{"broker"}}
	if err := s.RegisterBroker(t.Context(), b); err != nil {
		t.Fatal(err)
	}
	if got := s.Map().Broker(1); got == nil || got.Host != "h" || got.Incarnation != 10 {
		t.Fatalf("registered: %+v", got)
	}
	other := openStore(t, cfg)
	if err := other.RegisterBroker(t.Context(), Broker{ID: 1, Incarnation: 9}); !errors.Is(err, ErrExists) {
		t.Errorf("older incarnation: %v", err)
	}
	if err := other.RegisterBroker(t.Context(), Broker{ID: 1, Incarnation: 11, Host: "new"}); err != nil {
		t.Fatal(err)
	}
	if got := other.Map().Broker(1); got.Host != "new" {
		t.Errorf("newer incarnation: %+v", got)
	}
}

// TestLostLease: the registration goes with its lease, and comes back by itself.
func TestLostLease(t *testing.T) {
	cfg := testConfig(t)
	cfg.LeaseTTL = time.Second // a store asks for its lease three times in this time
	s := openStore(t, cfg)
	if err := s.RegisterBroker(t.Context(), Broker{ID: 1, Incarnation: 10}); err != nil {
		t.Fatal(err)
	}
	old := s.Map().Broker(1) // before the lease: on a machine that stands still it may be lost already
	_, lease := s.registration.get()
	if _, err := etcd.Client().Revoke(t.Context(), lease); err != nil && !errors.Is(err, rpctypes.ErrLeaseNotFound) {
		t.Fatal(err)
	}
	waitMap(t, s, func(m *Map) bool { b := m.Broker(1); return b != nil && b != old })
}

// waitMap waits for a snapshot that is as wanted.
func waitMap(t *testing.T, s *Store, want func(*Map) bool) {
	t.Helper()
	deadline := time.After(patience)
	for {
		m := s.Map()
		if want(m) {
			return
		}
		select {
		case <-s.Watch(m):
		case <-deadline:
			t.Fatal("the map did not become as wanted")
		}
	}
}

func TestDump(t *testing.T) {
	s := openStore(t, testConfig(t))
	firstGenerations(t, s, mustReopen(t, s, logID(1), 1, 0))
	mustCreate(t, s, "a", 0, 1)
	keys := 0
	names := regexp.MustCompile(`"([A-Z][A-Za-z]*)":|null`) // of Go; lists are [] when they are empty
	err := s.Dump(t.Context(), func(key string, json []byte) error {
		keys++
		t.Logf("%s %s", key, json)
		if bad := names.FindAll(json, -1); len(bad) > 0 {
			t.Errorf("%s: %q in %s", key, bad, json)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if keys != 1+8+1+1 {
		t.Errorf("%d keys", keys)
	}
}

var _ clientv3.KV // the fault tests replace it

// TestNextIncarnation: numbers only grow, whoever asks and however often, and need no clock.
func TestNextIncarnation(t *testing.T) {
	s := openStore(t, testConfig(t))
	last := int64(0)
	for i := range 10 {
		n, err := s.NextIncarnation(t.Context(), ident.Broker(i%2))
		if err != nil {
			t.Fatal(err)
		}
		if n <= last {
			t.Fatalf("incarnation %d after %d", n, last)
		}
		last = n
	}
}

// TestStillOpen asks by the store of a broker that hears nothing: its snapshot stays what it was.
func TestStillOpen(t *testing.T) {
	cfg := testConfig(t)
	s := openStore(t, cfg)
	a := mustReopen(t, s, logID(1), 1, 0)
	b := mustReopen(t, s, logID(2), 2, 0)
	firstGenerations(t, s, a, b)
	deaf, err := Open(t.Context(), cfg, "") // and not Run
	if err != nil {
		t.Fatal(err)
	}
	generation := func(g ident.Group) ident.Generation {
		cur := deaf.Map().Group(g).Current()
		return ident.Generation{Group: g, Epoch: cur.Epoch, Frame: cur.Frame}
	}
	want := func(what string, g ident.Group, l *Log, open bool) {
		t.Helper()
		if got, err := deaf.StillOpen(t.Context(), generation(g), l.ID, l.Epoch); got != open || err != nil {
			t.Errorf("%s: %v %v", what, got, err)
		}
	}
	want("untouched", 0, a, true)
	want("in another log", 1, a, false)
	mustPublish(t, s, next(s, 0, b, nil))
	want("moved away", 0, a, false)
	want("untouched beside it", 2, a, true)
	if _, err := s.SealLog(t.Context(), s.Map().Log(a.ID)); err != nil {
		t.Fatal(err)
	}
	want("its log is sealed", 2, a, false)
	mustReopen(t, s, a.ID, 1, 0)
	want("its log is open at a later epoch", 2, a, false)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if open, err := deaf.StillOpen(ctx, generation(1), b.ID, b.Epoch); open || !errors.Is(err, ErrUnavailable) {
		t.Errorf("not reached: %v %v", open, err)
	}
}
