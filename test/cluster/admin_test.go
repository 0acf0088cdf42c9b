package cluster

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
)

// view is what GET /v1/cluster of a broker answers, as far as the tests look at it.
type view struct {
	Cluster    string       `json:"cluster"`
	Waiting    string       `json:"waiting"`
	Controller *int         `json:"controller"`
	Brokers    []brokerView `json:"brokers"`
	Logs       []struct {
		Broker    int    `json:"broker"`
		State     string `json:"state"`
		Groups    int    `json:"groups"`
		Witnesses []int  `json:"witnesses"`
	} `json:"logs"`
	Etcd []struct {
		Name    string `json:"name"`
		URL     string `json:"url"`
		Learner bool   `json:"learner"`
		Leader  bool   `json:"leader"`
	} `json:"etcd"`
}

type brokerView struct {
	Broker     int  `json:"broker"`
	Registered bool `json:"registered"`
	Silent     bool `json:"silent"`
	Member     bool `json:"member"`
	Voter      bool `json:"voter"`
	Groups     int  `json:"groups"`
}

// broker is what it tells of one broker.
func (v view) broker(id int) brokerView {
	for _, b := range v.Brokers {
		if b.Broker == id {
			return b
		}
	}
	return brokerView{}
}

// witnesses are those of a broker's log.
func (v view) witnesses(id int) []int {
	for _, l := range v.Logs {
		if l.Broker == id {
			return slices.Sorted(slices.Values(l.Witnesses))
		}
	}
	return nil
}

// votes are the brokers that vote, as text.
func (v view) votes() string {
	var ids []string
	for _, b := range v.Brokers {
		if b.Voter {
			ids = append(ids, fmt.Sprint(b.Broker))
		}
	}
	return strings.Join(ids, " ")
}

// members are the names of etcd's members that vote.
func (v view) members() string {
	var names []string
	for _, m := range v.Etcd {
		if !m.Learner {
			names = append(names, m.Name)
		}
	}
	return strings.Join(names, " ")
}

// etcdLeader is the broker whose member leads etcd, 0 if none is known to.
func (v view) etcdLeader() (id int) {
	for _, m := range v.Etcd {
		if m.Leader {
			fmt.Sscanf(m.Name, "broker-%d", &id)
		}
	}
	return id
}

// view asks one broker.
func (c *Skein) view(id int) (v view, err error) {
	client := http.Client{Timeout: 5 * time.Second}
	resp, err := client.Get("http://" + c.HTTP(id) + "/v1/cluster")
	if err != nil {
		return v, err
	}
	defer resp.Body.Close()
	return v, json.NewDecoder(resp.Body).Decode(&v)
}

// awaitView waits until what a broker tells is as wanted.
func (c *Skein) awaitView(t *testing.T, id int, what string, ok func(view) bool) view {
	t.Helper()
	var v view
	var err error
	for end := time.Now().Add(settlePatience); time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
		if v, err = c.view(id); err == nil && ok(v) {
			return v
		}
	}
	t.Fatalf("broker %d does not say that %s: %+v, %v\n%s", id, what, v, err, c.Logs())
	return v
}

// ops runs an operator's command against one broker.
func (c *Skein) ops(t *testing.T, by int, args ...string) (string, error) {
	t.Helper()
	begun := time.Now()
	out, err := exec.Command(c.Bin, append(args, "--http", c.HTTP(by), "--timeout", settlePatience.String())...).CombinedOutput()
	t.Logf("%v skein %s: %v\n%s", time.Since(begun).Round(time.Millisecond), strings.Join(args, " "), err, out)
	return string(out), err
}

// quietly is ops for what is asked again and again.
func (c *Skein) quietly(by int, args ...string) (string, error) {
	out, err := exec.Command(c.Bin, append(args, "--http", c.HTTP(by), "--timeout", settlePatience.String())...).CombinedOutput()
	return string(out), err
}

// awaitSaid runs an operator's command until it works and what it prints is as wanted.
func (c *Skein) awaitSaid(t *testing.T, by int, what string, ok func(out string) bool, args ...string) string {
	t.Helper()
	var out string
	var err error
	for end := time.Now().Add(settlePatience); time.Now().Before(end); time.Sleep(50 * time.Millisecond) {
		if out, err = c.quietly(by, args...); err == nil && ok(out) {
			return out
		}
	}
	t.Fatalf("skein %s at broker %d never says that %s: %v\n%s\n%s", strings.Join(args, " "), by, what, err, out, c.Logs())
	return ""
}

// has is for awaitSaid: some text is, or is not, in what is said.
func has(text string, want bool) func(string) bool {
	return func(out string) bool { return strings.Contains(out, text) == want }
}

// awaitRegistered waits until some brokers know that another one is registered, or is not.
func (c *Skein) awaitRegistered(t *testing.T, id int, want bool, by ...int) {
	t.Helper()
	for _, at := range by {
		c.awaitView(t, at, fmt.Sprintf("broker %d is registered: %v", id, want), func(v view) bool { return v.broker(id).Registered == want })
	}
}

// must runs an operator's command that has to work.
func (c *Skein) must(t *testing.T, by int, args ...string) string {
	t.Helper()
	out, err := c.ops(t, by, args...)
	if err != nil {
		t.Fatalf("skein %s: %v\n%s", strings.Join(args, " "), err, c.Logs())
	}
	return out
}

// skein lays out a cluster of the project's own binary, whatever the environment says.
func skein(t *testing.T, n int, args ...string) *Skein {
	t.Helper()
	return skeinAt(t, n, nil, args...)
}

// skeinAt is skein at places of the caller's.
func skeinAt(t *testing.T, n int, place func(id int) *Place, args ...string) *Skein {
	t.Helper()
	c, err := NewSkein(clusterBinary(t), workDir(t), n, place, append([]string{"--set", "group.initial.rebalance.delay.ms=0"}, args...)...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c
}

// thorough says that a test is of the long form.
func thorough(t *testing.T) {
	t.Helper()
	if !long() {
		t.Skipf("in the long form: %s=1", envLong)
	}
}

// started fails the test if brokers do not come.
func (c *Skein) started(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatalf("%v\n%s", err, c.Logs())
	}
}

// ledger writes to every partition of one topic and remembers what was acknowledged. It is what a test of operations
// needs of a load: nothing lost, nothing doubled, nothing out of order.
type ledger struct {
	t          *testing.T
	c          *Skein
	client     *kgo.Client
	partitions int32
	acked      map[int32][]string
	doubtful   map[string]bool // records without an answer: they may be there
	n          int
}

const ledgerTopic = "ledger"

func newLedger(t *testing.T, c *Skein) *ledger {
	t.Helper()
	l := &ledger{t: t, c: c, partitions: 40, acked: make(map[int32][]string), doubtful: make(map[string]bool)}
	var err error
	l.client, err = kgo.NewClient(kgo.SeedBrokers(c.Seeds()...), kgo.DefaultProduceTopic(ledgerTopic), kgo.RecordPartitioner(kgo.ManualPartitioner()),
		kgo.RecordDeliveryTimeout(settlePatience), kgo.RetryBackoffFn(func(int) time.Duration { return 30 * time.Millisecond }),
		kgo.MetadataMinAge(50*time.Millisecond), kgo.UnknownTopicRetries(-1), kgo.AlwaysRetryEOF())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(l.client.Close)
	ctx, cancel := context.WithTimeout(t.Context(), settlePatience)
	defer cancel()
	if err := createTopic(ctx, l.client, l.partitions, 3, ledgerTopic); err != nil {
		t.Fatalf("create topic: %v\n%s", err, c.Logs())
	}
	return l
}

// createTopic tries until it is known how it ended: the cluster may be slow, or have no controller for a moment.
func createTopic(ctx context.Context, cl *kgo.Client, partitions int32, replicas int16, name string) error {
	_, err := kadm.NewClient(cl).CreateTopic(ctx, partitions, replicas, nil, name)
	for kerr.IsRetriable(err) && ctx.Err() == nil {
		pauseFor(ctx, 50*time.Millisecond)
		_, err = kadm.NewClient(cl).CreateTopic(ctx, partitions, replicas, nil, name)
		if errors.Is(err, kerr.TopicAlreadyExists) { // by a try before
			return nil
		}
	}
	return err
}

// write writes one record to every partition and waits until all are acknowledged.
func (l *ledger) write() time.Duration {
	l.t.Helper()
	ctx, cancel := context.WithTimeout(l.t.Context(), settlePatience)
	defer cancel()
	begun := time.Now()
	for _, r := range l.client.ProduceSync(ctx, l.records()...) {
		if r.Err != nil {
			l.fatalf("write to partition %d after %v: %v", r.Record.Partition, time.Since(begun), r.Err)
		}
		l.acked[r.Record.Partition] = append(l.acked[r.Record.Partition], string(r.Record.Value))
	}
	took := time.Since(begun)
	l.t.Logf("%d partitions written in %v", l.partitions, took.Round(time.Millisecond))
	return took
}

// fatalf ends the test, and says how things stand.
func (l *ledger) fatalf(format string, args ...any) {
	l.t.Helper()
	l.t.Errorf(format, args...)
	for _, m := range l.c.members {
		if m.proc != nil {
			for _, what := range [][]string{{"cluster", "status"}, {"balance", "--dry-run"}, {"map", "show", ledgerTopic}} {
				_, _ = l.c.ops(l.t, m.id, what...)
			}
		}
	}
	l.t.Fatal(l.c.Logs())
}

// rest is longer than a group is on its way, on a machine that is slow at times.
const rest = 3 * time.Second

// still has the balancer off, and waits until no group is on its way any more: one that is waits for the map (O18).
func (l *ledger) still() {
	l.t.Helper()
	l.c.must(l.t, 1, "balance", "off")
	was, since := l.leaders(), time.Now()
	for end := time.Now().Add(settlePatience); time.Since(since) < rest; time.Sleep(100 * time.Millisecond) {
		if now := l.leaders(); !maps.Equal(was, now) {
			was, since = now, time.Now()
		}
		if time.Now().After(end) {
			l.fatalf("groups do not come to rest")
		}
	}
}

// try writes one record to every partition, and gives each some seconds. It returns the partitions that acknowledged.
func (l *ledger) try(patience time.Duration) map[int32]bool {
	l.t.Helper()
	client, err := kgo.NewClient(kgo.SeedBrokers(l.c.Seeds()...), kgo.DefaultProduceTopic(ledgerTopic), kgo.RecordPartitioner(kgo.ManualPartitioner()),
		kgo.DisableIdempotentWrite(), kgo.RecordDeliveryTimeout(patience), kgo.ProduceRequestTimeout(patience/2), kgo.MetadataMinAge(50*time.Millisecond),
		kgo.UnknownTopicRetries(-1), kgo.AlwaysRetryEOF())
	if err != nil {
		l.t.Fatal(err)
	}
	defer client.Close()
	ctx, cancel := context.WithTimeout(l.t.Context(), settlePatience)
	defer cancel()
	ok, why := make(map[int32]bool), make(map[string]int)
	for _, r := range client.ProduceSync(ctx, l.records()...) {
		if v := string(r.Record.Value); r.Err != nil {
			l.doubtful[v] = true
			why[r.Err.Error()]++
		} else {
			ok[r.Record.Partition] = true
			l.acked[r.Record.Partition] = append(l.acked[r.Record.Partition], v)
		}
	}
	l.t.Logf("%d of %d partitions acknowledged; else %v", len(ok), l.partitions, why)
	return ok
}

// leaders tells who leads each partition, as the map has it of the broker that is asked, once it knows the topic.
func (l *ledger) leaders() map[int32]int {
	l.t.Helper()
	ctx, cancel := context.WithTimeout(l.t.Context(), settlePatience)
	defer cancel()
	for {
		m, err := kadm.NewClient(l.client).Metadata(ctx, ledgerTopic)
		if err != nil {
			l.t.Fatal(err)
		}
		out := make(map[int32]int)
		for _, p := range m.Topics[ledgerTopic].Partitions {
			out[p.Partition] = int(p.Leader)
		}
		if len(out) == int(l.partitions) {
			return out
		}
		pauseFor(ctx, 20*time.Millisecond)
	}
}

func (l *ledger) records() []*kgo.Record {
	l.n++
	out := make([]*kgo.Record, l.partitions)
	for p := range out {
		out[p] = &kgo.Record{Partition: int32(p), Value: fmt.Appendf(nil, "%d/%d", p, l.n)}
	}
	return out
}

// readAll reads every partition from its beginning to its end: what is doubled there comes after all that is wanted. unread are the
// partitions whose end did not come.
func (l *ledger) readAll() (read map[int32][]placed, unread []int32) {
	l.t.Helper()
	ctx, cancel := context.WithTimeout(l.t.Context(), settlePatience)
	defer cancel()
	offsets, err := kadm.NewClient(l.client).ListEndOffsets(ctx, ledgerTopic)
	for errors.Join(err, offsets.Error()) != nil && ctx.Err() == nil { // a partition changes hands, or a connection is from before a kill
		pauseFor(ctx, 20*time.Millisecond)
		offsets, err = kadm.NewClient(l.client).ListEndOffsets(ctx, ledgerTopic)
	}
	if err := errors.Join(err, offsets.Error()); err != nil {
		l.t.Fatalf("ends of the partitions: %v\n%s", err, l.c.Logs())
	}
	from, end := make(map[int32]kgo.Offset), make(map[int32]int64)
	offsets.Each(func(o kadm.ListedOffset) {
		if o.Offset > 0 {
			from[o.Partition], end[o.Partition] = kgo.NewOffset().AtStart(), o.Offset
		}
	})
	client, err := kgo.NewClient(kgo.SeedBrokers(l.c.Seeds()...), kgo.AlwaysRetryEOF(), kgo.ConsumePartitions(map[string]map[int32]kgo.Offset{ledgerTopic: from}))
	if err != nil {
		l.t.Fatal(err)
	}
	defer client.Close()
	read = make(map[int32][]placed)
	for len(end) > 0 && ctx.Err() == nil {
		client.PollFetches(ctx).EachRecord(func(r *kgo.Record) {
			read[r.Partition] = append(read[r.Partition], placed{r.Offset, string(r.Value)})
			if r.Offset+1 >= end[r.Partition] {
				delete(end, r.Partition)
			}
		})
	}
	return read, slices.Sorted(maps.Keys(end))
}

// check reads everything and compares.
func (l *ledger) check() {
	l.t.Helper()
	want := 0
	for p := range l.partitions {
		want += len(l.acked[p])
	}
	read, unread := l.readAll()
	if len(unread) > 0 {
		l.t.Fatalf("%d records acknowledged, partitions %v not read to their ends\n%s", want, unread, l.c.Logs())
	}
	for p := range l.partitions {
		for _, wrong := range judge(l.acked[p], l.doubtful, read[p]) {
			l.t.Errorf("partition %d: %s", p, wrong)
		}
	}
	l.t.Logf("%d records acknowledged, all of them read, in order", want)
}
