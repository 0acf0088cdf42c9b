package cluster

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/skeinmq/skein/test/process"
)

var builtEtcd struct {
	once sync.Once
	path string
	err  error
}

// etcdOf starts n members of the real etcd, which demand a client's certificate. SKEIN_ETCD_BIN names a binary; otherwise
// the one of tools/go.mod is built.
func etcdOf(t *testing.T, n int, args ...string) *Etcd {
	t.Helper()
	binary(t) // whose directory is cleared away in the end
	builtEtcd.once.Do(func() {
		if builtEtcd.path = os.Getenv("SKEIN_ETCD_BIN"); builtEtcd.path == "" {
			builtEtcd.path, builtEtcd.err = BuildEtcd(built.dir)
		}
	})
	if builtEtcd.err != nil {
		t.Fatal(builtEtcd.err)
	}
	a, err := NewAuthority(filepath.Join(t.TempDir(), "tls"))
	if err == nil {
		err = errors.Join(a.Issue("server", 24*time.Hour), a.Issue("client", 24*time.Hour))
	}
	if err != nil {
		t.Fatal(err)
	}
	e, err := NewEtcd(builtEtcd.path, filepath.Join(workDir(t), "etcd"), n, a, args...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(e.Close)
	if err := e.StartAll(); err != nil {
		t.Fatal(err)
	}
	return e
}

// skeinOn is a cluster of three whose map is in an etcd of its own; one broker is told so by flags, one by the environment, one by a file.
func skeinOn(t *testing.T, e *Etcd) *Skein {
	t.Helper()
	c := skein(t, 3)
	file := filepath.Join(t.TempDir(), "skein.yaml")
	text := fmt.Sprintf("etcd: [%s]\netcd-ca: %s\netcd-cert: %s\netcd-key: %s\n", strings.ReplaceAll(e.URLs(), ",", ", "), e.TLS.File("ca.pem"), e.TLS.File("client.pem"), e.TLS.File("client-key.pem"))
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	c.More = func(id int) More {
		switch id {
		case 1:
			return More{Env: []string{"SKEIN_ETCD=" + e.URLs(), "SKEIN_ETCD_CA=" + e.TLS.File("ca.pem"), "SKEIN_ETCD_CERT=" + e.TLS.File("client.pem"), "SKEIN_ETCD_KEY=" + e.TLS.File("client-key.pem")}}
		case 2:
			return More{Args: []string{"--config", file}}
		}
		return More{Args: []string{"--etcd", e.URLs(), "--etcd-ca", e.TLS.File("ca.pem"), "--etcd-cert", e.TLS.File("client.pem"), "--etcd-key", e.TLS.File("client-key.pem")}}
	}
	c.started(t, c.StartAll())
	return c
}

// rounds is how often something is repeated.
func rounds(quick, thorough int) int {
	if long() {
		return thorough
	}
	return quick
}

// admin is a client for what is asked once.
func (l *ledger) admin() *kadm.Client { return kadm.NewClient(l.client) }

// create makes a topic, and tells how long that took.
func (l *ledger) create(name string, patience time.Duration) (time.Duration, error) {
	ctx, cancel := context.WithTimeout(l.t.Context(), patience)
	defer cancel()
	begun := time.Now()
	r, err := l.admin().CreateTopic(ctx, 4, 3, nil, name)
	if err == nil {
		err = r.Err
	}
	l.t.Logf("create topic %s: %v after %v", name, err, time.Since(begun).Round(time.Millisecond))
	return time.Since(begun), err
}

// commit commits an offset for a group.
func (l *ledger) commit(group string, at int64) error {
	l.t.Helper()
	return l.commitWithin(settlePatience, group, at)
}

// commitWithin is commit that may fail, and is not waited for any longer.
func (l *ledger) commitWithin(patience time.Duration, group string, at int64) error {
	l.t.Helper()
	ctx, cancel := context.WithTimeout(l.t.Context(), patience)
	defer cancel()
	var offsets kadm.Offsets
	offsets.AddOffset(ledgerTopic, 0, at, -1)
	begun := time.Now()
	err := l.admin().CommitAllOffsets(ctx, group, offsets)
	l.t.Logf("group %s commits %d: %v after %v", group, at, err, time.Since(begun).Round(time.Millisecond))
	return err
}

func (l *ledger) committed(group string) int64 {
	l.t.Helper()
	ctx, cancel := context.WithTimeout(l.t.Context(), settlePatience)
	defer cancel()
	got, err := l.admin().FetchOffsets(ctx, group)
	for errors.Is(err, io.EOF) && ctx.Err() == nil { // a connection from before the brokers were killed
		got, err = l.admin().FetchOffsets(ctx, group)
	}
	if err != nil {
		l.t.Fatalf("offsets of %s: %v\n%s", group, err, l.c.Logs())
	}
	o, _ := got.Lookup(ledgerTopic, 0)
	return o.At
}

// withoutMap is what holds while the map cannot be changed: the data path and commits of offsets go on; what needs the map
// is answered with an error that clients retry.
func (l *ledger) withoutMap(group string) {
	l.t.Helper()
	l.write()
	if err := l.commit(group, int64(l.n)); err != nil {
		l.t.Errorf("commit without the map: %v", err)
	}
	if got := l.committed(group); got != int64(l.n) {
		l.t.Errorf("committed %d, want %d", got, l.n)
	}
	l.refused(fmt.Sprintf("no%d", l.n))
	l.write()
}

// refused is what a topic's creation is while the map cannot be changed.
func (l *ledger) refused(name string) {
	l.t.Helper()
	took, err := l.create(name, settlePatience)
	switch {
	case err == nil:
		l.t.Error("a topic was created without the map")
	case !errors.Is(err, kerr.RequestTimedOut), took > 40*time.Second: // the request says 15 s, and clients wait for 25
		l.t.Errorf("refused after %v with %v, want REQUEST_TIMED_OUT", took, err)
	}
}

// recovers waits until the map can be changed again.
func (l *ledger) recovers(name string) {
	l.t.Helper()
	for begun := time.Now(); ; {
		_, err := l.create(name, settlePatience)
		if err == nil || errors.Is(err, kerr.TopicAlreadyExists) {
			return
		}
		if time.Since(begun) > settlePatience {
			l.t.Fatalf("the map cannot be changed: %v\n%s", err, l.c.Logs())
		}
	}
}

// TestEtcdRestart kills the only member of an external etcd and starts it again: meanwhile the data path goes on, afterwards everything.
func TestEtcdRestart(t *testing.T) {
	e := etcdOf(t, 1)
	c := skeinOn(t, e)
	l := newLedger(t, c)
	l.write()
	l.still()
	e.Kill(1)
	l.write()
	if err := l.commit("g", 1); err != nil {
		t.Errorf("commit without the map: %v", err)
	}
	if err := e.StartAll(); err != nil {
		t.Fatal(err)
	}
	l.recovers("recovered")
	l.write()
	l.check()
}

// TestExternalEtcd runs three brokers on the real etcd, with client certificates: its members restart one by one, its history
// is compacted while a broker sleeps, it loses its quorum for longer than a lease, and a broker dies meanwhile.
func TestExternalEtcd(t *testing.T) {
	thorough(t)
	e := etcdOf(t, 3)
	c := skeinOn(t, e)
	l := newLedger(t, c)
	l.write()
	for i := 1; i <= 3; i++ {
		e.Kill(i)
		l.write()
		l.recovers(fmt.Sprintf("restart%d", i))
		if err := e.StartAll(); err != nil {
			t.Fatal(err)
		}
	}
	l.write()
	l.still()

	t.Log("a broker sleeps through a compaction")
	op, err := e.Client()
	if err != nil {
		t.Fatal(err)
	}
	defer op.Close()
	c.started(t, c.Pause(3))
	l.recovers("compacted")
	resp, err := op.Get(t.Context(), "x")
	if err == nil {
		_, err = op.Compact(t.Context(), resp.Header.Revision, clientv3.WithCompactPhysical())
	}
	if err != nil {
		t.Fatal(err)
	}
	c.started(t, c.Continue(3))
	l.write()
	c.knows(t, 3, "compacted")

	l.still()
	t.Log("etcd has no quorum")
	incarnations := c.must(t, 1, "broker", "list")
	e.Kill(2)
	e.Kill(3)
	for range 2 { // longer than the lease of a registration
		l.withoutMap("g")
		time.Sleep(2 * time.Second)
	}
	if err := e.StartAll(); err != nil {
		t.Fatal(err)
	}
	begun := time.Now()
	l.recovers("recovered")
	t.Logf("recovered %v after etcd", time.Since(begun).Round(time.Millisecond))
	l.write()
	t.Logf("before\n%s", incarnations)
	c.must(t, 1, "broker", "list")

	t.Log("a broker dies while etcd has no quorum, and comes back")
	e.Kill(1)
	e.Kill(3)
	c.started(t, c.Kill(3))
	c.started(t, c.spawn(c.member(3)))
	c.awaitView(t, 3, "it waits for the map", func(v view) bool { return strings.Contains(v.Waiting, "waiting for the map") })
	if err := e.StartAll(); err != nil {
		t.Fatal(err)
	}
	c.started(t, c.member(3).proc.Await(startPatience))
	l.write()
	t.Log("everything dies at once")
	e.Close()
	c.started(t, forEach(c, c.Kill))
	if err := e.StartAll(); err != nil {
		t.Fatal(err)
	}
	c.started(t, c.StartAll())
	l.write()
	if got := l.committed("g"); got == 0 {
		t.Error("the group's offsets are gone")
	}
	l.check()
}

// knows waits until a broker's own map has a topic.
func (c *Skein) knows(t *testing.T, id int, topic string) {
	t.Helper()
	for end := time.Now().Add(settlePatience); time.Now().Before(end); time.Sleep(50 * time.Millisecond) {
		if out, err := c.quietly(id, "map", "show", topic); err == nil && strings.Contains(out, topic) {
			return
		}
	}
	t.Fatalf("broker %d does not know topic %s\n%s", id, topic, c.Logs())
}

// TestEtcdNoSpace fills etcd to its quota: it raises an alarm and takes no writes until it is disarmed. A broker that starts meanwhile waits.
func TestEtcdNoSpace(t *testing.T) {
	e := etcdOf(t, 1, "--quota-backend-bytes", "16777216")
	c := skeinOn(t, e)
	l := newLedger(t, c)
	l.write()
	l.still()
	op, err := e.Client()
	if err != nil {
		t.Fatal(err)
	}
	defer op.Close()
	big := strings.Repeat("x", 1<<20)
	for i := 0; ; i++ {
		_, err := op.Put(t.Context(), fmt.Sprintf("fill%d", i), big)
		if errors.Is(err, rpctypes.ErrNoSpace) { // and not because it is slow
			t.Logf("after %d MiB: %v", i, err)
			break
		}
		if i > 100 {
			t.Fatal("etcd has no quota")
		}
	}
	for range rounds(1, 4) {
		l.withoutMap("g")
		time.Sleep(2 * time.Second)
	}
	resp, err := op.Delete(t.Context(), "fill", clientv3.WithPrefix())
	if err == nil {
		_, err = op.Compact(t.Context(), resp.Header.Revision, clientv3.WithCompactPhysical())
	}
	if err == nil {
		_, err = op.Defragment(t.Context(), op.Endpoints()[0])
	}
	if err == nil {
		_, err = op.AlarmDisarm(t.Context(), &clientv3.AlarmMember{})
	}
	if err != nil {
		t.Fatal(err)
	}
	l.recovers("disarmed")
	l.write()
	l.check()
}

// TestEtcdWithoutCertificate: a broker without etcd's client certificate says what is wrong.
func TestEtcdWithoutCertificate(t *testing.T) {
	thorough(t)
	e := etcdOf(t, 1)
	addrs, err := process.Ports(3)
	if err != nil {
		t.Fatal(err)
	}
	for _, args := range [][]string{{}, {"--etcd-ca", e.TLS.File("ca.pem")}} {
		b := process.Broker{Bin: clusterBinary(t), Data: []string{t.TempDir()}, Listen: addrs[0], HTTP: addrs[1], Args: append([]string{"--etcd", e.URLs(), "--internal", addrs[2]}, args...)}
		p, err := b.Spawn()
		if err != nil {
			t.Fatal(err)
		}
		for end := time.Now().Add(settlePatience); !strings.Contains(p.Log(), "certificate") && time.Now().Before(end); {
			select {
			case <-p.Served():
				t.Fatal("it serves")
			case <-time.After(100 * time.Millisecond):
			}
		}
		_ = p.Kill()
		t.Logf("%q: %v\n%s", args, p.Err(), p.Log())
		if !strings.Contains(p.Log(), "certificate") {
			t.Errorf("%q: nothing is said of certificates:\n%s", args, p.Log())
		}
	}
}

// TestNoSpace writes five times the quota of the embedded etcd, over the same configs: its members make room by themselves.
// Then configs that stay fill it: data and commits go on, what needs the map is refused with a retriable error, the brokers say
// what can be done, and everything goes on when topics are deleted.
func TestNoSpace(t *testing.T) {
	thorough(t)
	const quota, size = 16 << 20, 250 << 10
	c := skein(t, 3, "--etcd-quota-bytes", fmt.Sprint(quota))
	c.started(t, c.StartAll())
	l := newLedger(t, c)
	l.write()
	topics := make([]string, 2*quota/size)
	for i := range topics {
		topics[i] = fmt.Sprintf("fill%d", i)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 2*settlePatience)
	defer cancel()
	rs, err := l.admin().CreateTopics(ctx, 1, 1, nil, topics...)
	if err == nil {
		err = rs.Error()
	}
	c.started(t, err)
	for i := range 5 * quota / size {
		for err := l.configure(topics[i%4], size); err != nil; err = l.configure(topics[i%4], size) {
			if retriable(t, "alter configs", err); ctx.Err() != nil || t.Failed() {
				t.Fatalf("write %d: %v\n%s", i, err, c.Logs())
			}
		}
	}
	l.write()
	if log := c.Logs(); strings.Contains(log, "etcd is full") {
		t.Errorf("etcd was full of old values:\n%s", log)
	}

	l.still()
	for i := 0; !strings.Contains(c.Logs(), "etcd is full and takes no changes of the map"); i++ {
		if err := l.configure(topics[i%len(topics)], size); err != nil {
			retriable(t, "alter configs", err)
		}
		if ctx.Err() != nil {
			t.Fatalf("it is never full\n%s", c.Logs())
		}
	}
	l.withoutMap("g")
	ds, err := l.admin().DeleteTopics(ctx, topics...)
	if err == nil {
		err = ds.Error()
	}
	if err != nil {
		t.Errorf("delete topics while etcd is full: %v", err)
	}
	begun := time.Now()
	l.recovers("again")
	t.Logf("the map takes changes %v after topics were deleted", time.Since(begun).Round(time.Millisecond))
	l.write()
	l.check()
}

// configure gives a topic a config of so many bytes.
func (l *ledger) configure(topic string, size int) error {
	ctx, cancel := context.WithTimeout(l.t.Context(), 20*time.Second)
	defer cancel()
	value := strings.Repeat("0:1,", size/4-1) + fmt.Sprintf("1:%d", l.n)
	return setConfig(ctx, l.admin(), topic, "leader.replication.throttled.replicas", value)
}

// setConfig gives a topic a config.
func setConfig(ctx context.Context, adm *kadm.Client, topic, name, value string) error {
	rs, err := adm.AlterTopicConfigs(ctx, []kadm.AlterConfig{{Op: kadm.SetConfig, Name: name, Value: &value}}, topic)
	for _, r := range rs {
		err = errors.Join(err, r.Err)
	}
	return err
}
