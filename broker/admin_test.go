package broker

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/skeinmq/skein/internal/kconfig"
)

func (c *cluster) admin() *kadm.Client { return kadm.NewClient(c.client()) }

func adminContext(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), 2*enough)
	t.Cleanup(cancel)
	return ctx
}

// TestAdminClient goes the way of a real admin client and looks again after a restart.
func TestAdminClient(t *testing.T) {
	c := startCluster(t, 2, Config{Static: map[string]string{"num.partitions": "3", "log.retention.hours": "1"}})
	ctx, adm := adminContext(t), c.admin()
	made, err := adm.CreateTopics(ctx, -1, -1, map[string]*string{"max.message.bytes": kadm.StringPtr("5000")}, "a", "b", "c")
	if err = errors.Join(err, made.Error()); err != nil {
		t.Fatal(err)
	}
	if n := made["a"].NumPartitions; n != 3 {
		t.Errorf("a has %d partitions, want num.partitions", n)
	}
	if _, err := adm.CreateTopic(ctx, 1, 1, nil, "a"); !errors.Is(err, kerr.TopicAlreadyExists) {
		t.Errorf("create a again: %v", err)
	}
	if r, err := adm.UpdatePartitions(ctx, 5, "a"); errors.Join(err, r.Error()) != nil {
		t.Errorf("extend a: %v", errors.Join(err, r.Error()))
	}
	p := c.client(kgo.RecordPartitioner(kgo.ManualPartitioner()), kgo.ProducerBatchCompression(kgo.NoCompression()))
	for i := range 20 {
		if err := p.ProduceSync(ctx, &kgo.Record{Topic: "a", Partition: int32(i % 5), Value: []byte("v")}).FirstErr(); err != nil {
			t.Fatal(err)
		}
	}
	if err := p.ProduceSync(ctx, &kgo.Record{Topic: "a", Value: make([]byte, 6000)}).FirstErr(); !errors.Is(err, kerr.MessageTooLarge) {
		t.Errorf("a record above max.message.bytes: %v", err)
	}
	changes := []kadm.AlterConfig{{Op: kadm.SetConfig, Name: "max.message.bytes", Value: kadm.StringPtr("9000")}}
	if r, err := adm.AlterTopicConfigs(ctx, changes, "a"); err != nil || r[0].Err != nil {
		t.Fatalf("alter a: %v %v", err, r)
	}
	if err := p.ProduceSync(ctx, &kgo.Record{Topic: "a", Value: make([]byte, 6000)}).FirstErr(); err != nil {
		t.Errorf("after the change: %v", err)
	}
	offsets := kadm.Offsets{}
	offsets.Add(kadm.Offset{Topic: "a", Partition: 1, At: 2})
	offsets.Add(kadm.Offset{Topic: "a", Partition: 2, At: -1})
	if r, err := adm.DeleteRecords(ctx, offsets); err != nil || r.Error() != nil {
		t.Fatalf("delete records: %v %v", err, r.Error())
	}
	if r, err := adm.DeleteTopics(ctx, "b", "nope"); err != nil || r["b"].Err != nil || !errors.Is(r["nope"].Err, kerr.UnknownTopicOrPartition) {
		t.Errorf("delete b and nope: %v %v", err, r)
	}
	dirs, err := adm.DescribeAllLogDirs(ctx, nil)
	if err != nil || len(dirs[1]) != 2 {
		t.Errorf("log dirs: %v %v", err, dirs)
	}
	if n := dirs[1].Size(); n <= 0 {
		t.Errorf("log dirs hold %d bytes", n)
	}

	if err := c.stop(); err != nil {
		t.Fatal(err)
	}
	c.start()
	adm = c.admin()
	start, err := adm.ListStartOffsets(ctx, "a")
	if err = errors.Join(err, start.Error()); err != nil {
		t.Fatal(err)
	}
	for i, want := range []int64{0, 2, 4, 0, 0} {
		if o, _ := start.Lookup("a", int32(i)); o.Offset != want {
			t.Errorf("a-%d starts at %d after a restart, want %d", i, o.Offset, want)
		}
	}
	cfgs, err := adm.DescribeTopicConfigs(ctx, "a")
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]string{}
	for _, e := range cfgs[0].Configs {
		got[e.Key] = e.MaybeValue()
	}
	if got["max.message.bytes"] != "9000" || got["retention.ms"] != "3600000" || len(got) != len(kconfig.Defs(kconfig.KindTopic)) {
		t.Errorf("configs of a after a restart: %v", got)
	}
	names, _ := adm.ListTopics(ctx)
	if got := strings.Join(names.Names(), " "); got != "a c" {
		t.Errorf("topics after a restart: %s", got)
	}
}

// TestAdminRaces has many clients change the same things at once: each change is made once, none is lost.
func TestAdminRaces(t *testing.T) {
	c := startCluster(t, 1, Config{})
	ctx, adm := adminContext(t), c.admin()
	const clients = 8
	var created atomic.Int32
	var wg sync.WaitGroup
	for range clients {
		wg.Go(func() {
			switch _, err := adm.CreateTopic(ctx, 1, 1, nil, "one"); {
			case err == nil:
				created.Add(1)
			case !errors.Is(err, kerr.TopicAlreadyExists):
				t.Errorf("create: %v", err)
			}
		})
	}
	wg.Wait()
	if n := created.Load(); n != 1 {
		t.Fatalf("%d clients created the topic", n)
	}
	want := map[string]string{
		"retention.ms": "1001", "retention.bytes": "1002", "max.message.bytes": "1003", "segment.ms": "1004",
		"flush.ms": "1005", "delete.retention.ms": "1006", "file.delete.delay.ms": "1007", "min.compaction.lag.ms": "1008",
	}
	for name, value := range want {
		wg.Go(func() {
			r, err := adm.AlterTopicConfigs(ctx, []kadm.AlterConfig{{Op: kadm.SetConfig, Name: name, Value: &value}}, "one")
			if err != nil || r[0].Err != nil {
				t.Errorf("set %s: %v %v", name, err, r)
			}
		})
		wg.Go(func() {
			b := kconfig.Find(kconfig.KindTopic, name).Synonym
			r, err := adm.AlterBrokerConfigs(ctx, []kadm.AlterConfig{{Op: kadm.SetConfig, Name: b, Value: &value}})
			if err != nil || r[0].Err != nil {
				t.Errorf("set %s: %v %v", b, err, r)
			}
		})
	}
	wg.Wait()
	m := c.b.store.Map()
	for name, value := range want {
		if got := m.Topic("one").Configs[name]; got != value {
			t.Errorf("%s is %q, want %s", name, got, value)
		}
		b := kconfig.Find(kconfig.KindTopic, name).Synonym
		if got := m.Dynamic("broker", "")[b]; got != value {
			t.Errorf("%s is %q, want %s", b, got, value)
		}
	}
}

// TestCreateManyPartitions: clients write to any partition the moment the answer is there.
func TestCreateManyPartitions(t *testing.T) {
	c := startCluster(t, 1, Config{})
	ctx, adm := adminContext(t), c.admin()
	var names []string
	for i := range 20 {
		names = append(names, fmt.Sprintf("many%d", i))
	}
	made, err := adm.CreateTopics(ctx, 1000, 3, nil, names...)
	if err = errors.Join(err, made.Error()); err != nil {
		t.Fatal(err)
	}
	for _, name := range names {
		for _, p := range c.b.topic(name).partitions() {
			if p.open.Load() == nil {
				t.Fatalf("%s-%d takes no writes", name, p.index)
			}
		}
	}
	if r := c.b.store.Map().Topic("many3").ReplicationFactor; r != 3 {
		t.Errorf("stored replication factor %d, want the requested 3", r)
	}
}

func TestTopicDeletionDisabled(t *testing.T) {
	c := startCluster(t, 1, Config{Static: map[string]string{"delete.topic.enable": "false"}})
	ctx, adm := adminContext(t), c.admin()
	if _, err := adm.CreateTopic(ctx, 1, 1, nil, "kept"); err != nil {
		t.Fatal(err)
	}
	r, err := adm.DeleteTopics(ctx, "kept", "nope")
	if err != nil || !errors.Is(r["kept"].Err, kerr.TopicDeletionDisabled) || !errors.Is(r["nope"].Err, kerr.TopicDeletionDisabled) {
		t.Errorf("got %v %v", err, r)
	}
}

func TestInternalTopicIsFixed(t *testing.T) {
	c := startCluster(t, 1, Config{})
	ctx, adm := adminContext(t), c.admin()
	if _, err := adm.CreateTopic(ctx, 1, 1, nil, offsetsTopic); !errors.Is(err, kerr.TopicAlreadyExists) {
		t.Errorf("create: %v", err)
	}
	if r, _ := adm.DeleteTopics(ctx, offsetsTopic); !errors.Is(r[offsetsTopic].Err, kerr.PolicyViolation) {
		t.Errorf("delete: %v", r[offsetsTopic].Err)
	}
	if r, _ := adm.UpdatePartitions(ctx, 60, offsetsTopic); !errors.Is(r[offsetsTopic].Err, kerr.PolicyViolation) {
		t.Errorf("extend: %v", r[offsetsTopic].Err)
	}
	cfgs, err := adm.DescribeTopicConfigs(ctx, offsetsTopic)
	if err != nil || !slices.ContainsFunc(cfgs[0].Configs, func(e kadm.Config) bool { return e.Key == "cleanup.policy" && e.MaybeValue() == "compact" }) {
		t.Errorf("describe: %v %v", err, cfgs)
	}
}

func TestEditList(t *testing.T) {
	for _, tc := range []struct {
		list, elements string
		kind           opKind
		want           string
	}{
		{"", "a", opKindAppend, "a"},
		{"a", "a,b", opKindAppend, "a,b"},
		{"a, b ,c", "b", opKindSubtract, "a,c"},
		{"a", "a,z", opKindSubtract, ""},
		{"", "z", opKindSubtract, ""},
	} {
		if got := editList(tc.list, tc.elements, tc.kind); got != tc.want {
			t.Errorf("%s %q to %q: got %q, want %q", tc.kind, tc.elements, tc.list, got, tc.want)
		}
	}
}

// TestAdminEveryVersion puts one request of each admin API in each of its versions.
func TestAdminEveryVersion(t *testing.T) {
	c := startCluster(t, 1, Config{})
	s := newAdminScript(t, c.addr)
	done := map[int16]bool{}
	for _, ac := range adminCases {
		if ac.name == "records written" {
			continue
		}
		key := ac.req(s).Key()
		if done[key] {
			continue
		}
		done[key] = true
		row := lookup(key)
		if row == nil {
			t.Fatalf("%s: key %d is not served", ac.name, key)
		}
		for v := row.min; v <= row.max; v++ {
			ac.ver = v
			if got := s.ask(adminContext(t), ac); strings.HasPrefix(got, "error:") {
				t.Errorf("%s v%d: %s", row.name, v, got)
			}
		}
	}
	if len(done) != 14 {
		t.Errorf("%d APIs asked, want 14", len(done))
	}
}

// TestAdminLimits: what a request may make the broker hold is bounded.
func TestAdminLimits(t *testing.T) {
	c := startCluster(t, 1, Config{})
	ctx, adm := adminContext(t), c.admin()
	if _, err := adm.CreateTopic(ctx, 1, 1, map[string]*string{"leader.replication.throttled.replicas": kadm.StringPtr(strings.Repeat("1:1,", 70_000) + "1:1")}, "x"); !errors.Is(err, kerr.InvalidConfig) {
		t.Errorf("configs of 280 kB: %v", err)
	}
	names := make([]string, maxNewTopicsRequest+1)
	for i := range names {
		names[i] = fmt.Sprintf("t%d", i)
	}
	made, err := adm.CreateTopics(ctx, 1, 1, nil, names...)
	if err != nil || !errors.Is(made["t0"].Err, kerr.PolicyViolation) {
		t.Errorf("%d topics at once: %v %v", len(names), err, made["t0"].Err)
	}
	if c.b.maxDescribed != maxDescribed {
		t.Errorf("%d configs in an answer, want %d", c.b.maxDescribed, maxDescribed)
	}
	const whole = 10
	c.b.maxDescribed = whole * len(kconfig.Defs(kconfig.KindGroup)) // half a million take seconds of the race detector's
	req := kmsg.NewPtrDescribeConfigsRequest()
	ask := kmsg.NewDescribeConfigsRequestResource()
	ask.ResourceType, ask.ResourceName = kmsg.ConfigResourceTypeGroupConfig, "g"
	for range whole + 10 {
		req.Resources = append(req.Resources, ask)
	}
	resp, err := req.RequestWith(ctx, c.client())
	if err != nil {
		t.Fatal(err)
	}
	if len(resp.Resources) != whole+10 {
		t.Errorf("%d resources in the answer, want %d", len(resp.Resources), whole+10)
	}
	for i, r := range resp.Resources {
		if refused := r.ErrorCode == kerr.PolicyViolation.Code; refused != (i >= whole) || refused != (len(r.Configs) == 0) {
			t.Errorf("resource %d of %d: code %d, %d configs", i, len(resp.Resources), r.ErrorCode, len(r.Configs))
		}
	}
	ask.ConfigNames = []string{"no.such.config"}
	req.Resources = slices.Repeat([]kmsg.DescribeConfigsRequestResource{ask}, c.b.maxDescribed+1)
	if resp, err = req.RequestWith(ctx, c.client()); err != nil {
		t.Fatal(err)
	}
	for i, r := range resp.Resources {
		if (r.ErrorCode == kerr.PolicyViolation.Code) != (i == c.b.maxDescribed) || len(r.Configs) != 0 {
			t.Errorf("resource %d of %d, of which nothing is wanted: code %d, %d configs", i, len(resp.Resources), r.ErrorCode, len(r.Configs))
		}
	}
	dirs := kmsg.NewPtrDescribeLogDirsRequest()
	if _, err := adm.CreateTopic(ctx, 2, 1, nil, "y"); err != nil {
		t.Fatal(err)
	}
	for range 3 {
		tp := kmsg.NewDescribeLogDirsRequestTopic()
		tp.Topic, tp.Partitions = "y", []int32{0, 0, 1, 1, 7}
		dirs.Topics = append(dirs.Topics, tp)
	}
	raw, err := c.client().Broker(1).Request(ctx, dirs)
	if err != nil {
		t.Fatal(err)
	}
	if d := raw.(*kmsg.DescribeLogDirsResponse).Dirs[0]; len(d.Topics) != 1 || len(d.Topics[0].Partitions) != 2 {
		t.Errorf("log dirs of one partition many times: %+v", d)
	}
}
