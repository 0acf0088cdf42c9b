package kconfig

import (
	"errors"
	"math"
	"slices"
	"strings"
	"testing"
	"time"
)

func TestTableIsWhole(t *testing.T) {
	for k := KindTopic; k <= KindClientMetrics; k++ {
		defs := Defs(k)
		for i := range defs {
			d := &defs[i]
			if i > 0 && defs[i-1].Name >= d.Name {
				t.Errorf("%s %s: twice, or out of order", k, d.Name)
			}
			if Find(k, d.Name) != d {
				t.Errorf("%s %s: not found", k, d.Name)
			}
			if !strings.HasSuffix(d.Doc, ".") || len(d.Doc) < 15 {
				t.Errorf("%s %s: documentation %q is no sentence", k, d.Name, d.Doc)
			}
			if (d.Effect == Works) != (d.Note == "") {
				t.Errorf("%s %s: effect %d with note %q", k, d.Name, d.Effect, d.Note)
			}
			if d.Null && d.Default != "" {
				t.Errorf("%s %s: null and a default", k, d.Name)
			}
			numeric := d.Type == Int || d.Type == Long || d.Type == Short || d.Type == Double
			if numeric && d.check == nil {
				t.Errorf("%s %s: a number without a check", k, d.Name)
			}
			if !d.Null {
				if _, err := d.Parse(d.Default); err != nil {
					t.Errorf("%s %s: default: %v", k, d.Name, err)
				}
				if got := d.Canonical(d.Default); got != d.Default {
					t.Errorf("%s %s: default %q is shown as %q", k, d.Name, d.Default, got)
				}
			}
			if d.Synonym != "" && Find(KindBroker, d.Synonym) == nil {
				t.Errorf("%s %s: no synonym %s", k, d.Name, d.Synonym)
			}
			if d.Chain != nil && !slices.Contains(d.Chain, d.Name) {
				t.Errorf("%s %s: not in its own chain", k, d.Name)
			}
		}
	}
	if n := len(Defs(KindTopic)); n != 33+1 {
		t.Errorf("%d topic configs, Apache Kafka 4.3 has 33, and failover.read is ours", n)
	}
}

func TestTopicDefaultsAreTheBrokers(t *testing.T) {
	for _, e := range (Layers{}).Describe(KindTopic) {
		if e.Value == nil || *e.Value != e.Def.Default {
			t.Errorf("%s: value in force %v, default %q", e.Def.Name, e.Value, e.Def.Default)
		}
		if e.Source != SourceDefault {
			t.Errorf("%s: source %d", e.Def.Name, e.Source)
		}
	}
}

func TestValidateJoinsAllProblems(t *testing.T) {
	err := Validate(map[string]string{
		"num.partitions": "zero", "message.max.bytes": "-1", "nope": "x", "retention.ms": "5", "log.segment.bytes": "2000000",
	})
	if err == nil {
		t.Fatal("accepted")
	}
	for _, want := range []string{"num.partitions", "message.max.bytes", "nope", "retention.ms"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("%q does not name %s", err, want)
		}
	}
	if strings.Contains(err.Error(), "log.segment.bytes") {
		t.Errorf("%q names a good key", err)
	}
	var unknown *UnknownError
	if !errors.As(err, &unknown) {
		t.Errorf("%v: no UnknownError", err)
	}
	if err := Validate(map[string]string{"num.partitions": "3", "log.retention.hours": "-1", "listeners": "PLAINTEXT://[::1]:9092"}); err != nil {
		t.Errorf("good configs: %v", err)
	}
}

func TestValidateConflicts(t *testing.T) {
	for _, tc := range []struct {
		configs map[string]string
		want    string
	}{
		{map[string]string{"log.retention.ms": "0"}, "log.retention.ms must be unlimited"},
		{map[string]string{"log.retention.minutes": "0"}, "log.retention.minutes"},
		{map[string]string{"broker.id": "1", "node.id": "2"}, "must agree"},
		{map[string]string{"group.min.session.timeout.ms": "9000", "group.max.session.timeout.ms": "8000"}, "group.min.session.timeout.ms"},
		{map[string]string{"default.replication.factor": "0"}, "default.replication.factor"},
		{map[string]string{"max.connections.per.ip": "0"}, "max.connections.per.ip.overrides"},
		{map[string]string{"listeners": "127.0.0.1:9092"}, "Unable to parse"},
	} {
		err := Validate(tc.configs)
		if err == nil || !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%v: got %v, want %q", tc.configs, err, tc.want)
		}
	}
}

func TestCheckDynamic(t *testing.T) {
	for _, tc := range []struct {
		cluster bool
		set     map[string]string
		want    string
	}{
		{true, map[string]string{"num.partitions": "5"}, "Cannot update these configs dynamically: [num.partitions]"},
		{true, map[string]string{"no.such": "5"}, "Unknown broker config name: no.such"},
		{true, map[string]string{"message.max.bytes": "5"}, ""},
		{false, map[string]string{"message.max.bytes": "x"}, "Invalid value x for configuration message.max.bytes: Not a number of type INT"},
		{false, map[string]string{"log.retention.ms": "0"}, "requirement failed: log.retention.ms must be unlimited (-1) or, greater than or equal to 1"},
	} {
		var names []string
		for n := range tc.set {
			names = append(names, n)
		}
		l := Layers{Broker: tc.set}
		if tc.cluster {
			l = Layers{Default: tc.set}
		}
		got := errors.Join(CheckDynamic(tc.cluster, names, l)...)
		if (got == nil) != (tc.want == "") || (got != nil && got.Error() != tc.want) {
			t.Errorf("%v: got %v, want %q", tc.set, got, tc.want)
		}
	}
}

// The layers and synonyms are those that Apache Kafka 4.3 answers for the same settings.
func TestSynonyms(t *testing.T) {
	l := Layers{
		Entity:  map[string]string{"max.message.bytes": "5", "cleanup.policy": "delete,compact,delete"},
		Broker:  map[string]string{"message.max.bytes": "4000000", "log.roll.ms": "500000", "log.cleanup.policy": " delete , compact"},
		Default: map[string]string{"log.retention.ms": "100000", "message.max.bytes": "3000000"},
		Static:  map[string]string{"log.retention.minutes": "600", "log.roll.hours": "24", "message.max.bytes": "2000000", "log.cleanup.policy": "compact", "log.roll.jitter.ms": "5"},
	}
	for _, tc := range []struct {
		kind              Kind
		name, value, syns string
		source            Source
	}{
		{KindTopic, "max.message.bytes", "5", "max.message.bytes=5@1 message.max.bytes=4000000@2 message.max.bytes=3000000@3 message.max.bytes=2000000@4 message.max.bytes=1048588@5", SourceTopic},
		{KindTopic, "cleanup.policy", "delete,compact", "cleanup.policy=delete,compact@1 log.cleanup.policy= delete , compact@2 log.cleanup.policy=compact@4 log.cleanup.policy=delete@5", SourceTopic},
		{KindTopic, "retention.ms", "100000", "log.retention.ms=100000@3 log.retention.minutes=600@4 log.retention.hours=168@5", SourceDefaultBroker},
		{KindTopic, "segment.ms", "500000", "log.roll.ms=500000@2 log.roll.hours=24@4 log.roll.hours=168@5", SourceBroker},
		{KindTopic, "segment.jitter.ms", "5", "log.roll.jitter.ms=5@4 log.roll.jitter.hours=0@5", SourceStatic},
		{KindTopic, "flush.ms", "9223372036854775807", "", SourceDefault},
		{KindTopic, "preallocate", "false", "log.preallocate=false@5", SourceDefault},
		{KindBroker, "log.retention.minutes", "600", "log.retention.minutes=600@4 log.retention.hours=168@5", SourceStatic},
		{KindBroker, "log.retention.hours", "168", "log.retention.hours=168@5", SourceDefault},
		{KindBroker, "message.max.bytes", "4000000", "message.max.bytes=4000000@2 message.max.bytes=3000000@3 message.max.bytes=2000000@4 message.max.bytes=1048588@5", SourceBroker},
	} {
		e := l.Entry(Find(tc.kind, tc.name))
		var syns []string
		for _, s := range e.Synonyms {
			syns = append(syns, s.Name+"="+s.Value+"@"+string(rune('0'+s.Source)))
		}
		if got := strings.Join(syns, " "); got != tc.syns {
			t.Errorf("%s: synonyms\n got %s\nwant %s", tc.name, got, tc.syns)
		}
		if e.Value == nil || *e.Value != tc.value {
			t.Errorf("%s: value %v, want %s", tc.name, e.Value, tc.value)
		}
		if e.Source != tc.source {
			t.Errorf("%s: source %d, want %d", tc.name, e.Source, tc.source)
		}
	}
}

func TestTopicConfig(t *testing.T) {
	want := TopicConfig{
		MaxMessageBytes: 1048588, Compression: CodecProducer, TimestampBeforeMaxMs: math.MaxInt64, TimestampAfterMaxMs: 3600000,
		Delete: true, RetentionMs: 604800000, RetentionBytes: -1, MinInsyncReplicas: 1, SegmentBytes: 1 << 30, SegmentMs: 604800000,
		DeleteRetentionMs: 86400000, MaxCompactionLagMs: math.MaxInt64, MinCleanableRatio: 0.5,
	}
	if got := (Layers{}).Topic(); got != want {
		t.Errorf("defaults:\n got %+v\nwant %+v", got, want)
	}
	got := Layers{
		Entity:  map[string]string{"compression.type": "zstd", "cleanup.policy": "compact", "message.timestamp.type": "LogAppendTime", "retention.bytes": "-7"},
		Default: map[string]string{"compression.zstd.level": "7"},
		Static:  map[string]string{"log.retention.minutes": "2", "message.max.bytes": "99"},
	}.Topic()
	want.Compression, want.CompressionLevel, want.Compact, want.Delete, want.LogAppendTime = CodecZstd, 7, true, false, true
	want.RetentionMs, want.MaxMessageBytes = 120000, 99
	if got != want {
		t.Errorf("set:\n got %+v\nwant %+v", got, want)
	}
	for set, ms := range map[string]int64{"log.retention.ms=-5": -1, "log.retention.minutes=-1": -1, "log.retention.hours=1": 3600000, "log.retention.ms=7": 7} {
		n, v, _ := strings.Cut(set, "=")
		if got := (Layers{Static: map[string]string{n: v}}).Topic().RetentionMs; got != ms {
			t.Errorf("%s: retention %d, want %d", set, got, ms)
		}
	}
}

func TestBrokerConfig(t *testing.T) {
	c := Layers{
		Static:  map[string]string{"broker.id": "7", "num.partitions": "4", "connections.max.idle.ms": "-1", "group.initial.rebalance.delay.ms": "0"},
		Default: map[string]string{"max.connections": "10"},
		Broker:  map[string]string{"max.connections": "11"},
	}.BrokerConfig()
	if c.NodeID != 7 || c.NumPartitions != 4 || c.ConnectionsMaxIdle != 0 || c.GroupInitialRebalanceDelay != 0 || c.MaxConnections != 11 {
		t.Errorf("got %+v", c)
	}
	c = Layers{}.BrokerConfig()
	if c.NodeID != 1 || !c.AutoCreateTopics || !c.DeleteTopics || c.OffsetsRetention != 7*24*time.Hour || c.ConnectionsMaxIdle != 10*time.Minute ||
		c.SocketRequestMaxBytes != 100<<20 || c.FetchMaxBytes != 55<<20 || c.FetchSessionSlots != 1000 || c.GroupMinSessionTimeout != 6*time.Second {
		t.Errorf("defaults: %+v", c)
	}
}

func TestJavaDouble(t *testing.T) {
	for f, want := range map[float64]string{0: "0.0", 1: "1.0", 0.5: "0.5", 2.25: "2.25", 1e7: "1.0E7", 1e-4: "1.0E-4", math.MaxFloat64: "1.7976931348623157E308", 123456.75: "123456.75"} {
		if got := javaDouble(f); got != want {
			t.Errorf("%g: got %s, want %s", f, got, want)
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add("1")
	f.Add("delete, compact,")
	f.Add("by_duration:PT1H")
	f.Fuzz(func(t *testing.T, s string) {
		for k := KindTopic; k <= KindClientMetrics; k++ {
			for i := range Defs(k) {
				d := &Defs(k)[i]
				if _, err := d.Parse(s); err != nil {
					continue
				}
				c := d.Canonical(s)
				if _, err := d.Parse(c); err != nil {
					t.Fatalf("%s: %q is good, its canonical form %q is not: %v", d.Name, s, c, err)
				}
			}
		}
	})
}

func BenchmarkTopic(b *testing.B) {
	l := Layers{Entity: map[string]string{"retention.ms": "1000"}, Static: map[string]string{"log.retention.hours": "5"}}
	for b.Loop() {
		_ = l.Topic()
	}
}
