package main

import (
	"errors"
	"fmt"
	"os"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
)

// toolCase is one line of the second table.
type toolCase struct {
	name    string
	brokers int // that it needs; 0: one will do
	run     func(*toolRun) error
}

var toolCases = []toolCase{
	{name: "kafka-topics", run: toolTopics},
	{name: "kafka-configs", run: toolConfigs},
	{name: "kafka-consumer-groups", run: toolConsumerGroups},
	{name: "kafka-get-offsets", run: toolGetOffsets},
	{name: "kafka-delete-records", run: toolDeleteRecords},
	{name: "kafka-log-dirs", run: toolLogDirs},
	{name: "kafka-console-producer", run: toolConsoleProducer},
	{name: "kafka-console-consumer", run: toolConsoleConsumer},
	{name: "kafka-producer-perf-test", run: toolProducerPerf},
	{name: "kafka-consumer-perf-test", run: toolConsumerPerf},
	{name: "kafka-e2e-latency", run: toolLatency},
	{name: "kafka-broker-api-versions", run: toolAPIVersions},
	{name: "kafka-cluster", run: toolCluster},
}

// twenty makes the run's topic with one partition and twenty reference records.
func (t *toolRun) twenty() error {
	if err := t.stage.createTopic(t.ctx, t.topic, 1); err != nil {
		return err
	}
	return t.stage.produceBatch(t.ctx, t.topic, "none", 0, seedBatch)
}

func (t *toolRun) endOffset() (int64, error) {
	ends, err := t.stage.adm.ListEndOffsets(t.ctx, t.topic)
	if err != nil {
		return 0, err
	}
	o, _ := ends.Lookup(t.topic, 0)
	return o.Offset, o.Err
}

func (t *toolRun) wantEnd(want int64) error {
	if got, err := t.endOffset(); err != nil || got != want {
		return fmt.Errorf("log ends at %d, want %d, error %v", got, want, err)
	}
	return nil
}

func toolTopics(t *toolRun) error {
	const tool = "TopicCommand"
	line := "^" + regexp.QuoteMeta(t.topic) + "$"
	leaders := func(n int) error {
		if got := len(regexp.MustCompile(`Leader: \d+\s+Replicas: \d+\s+Isr: \d+`).FindAllString(t.seen, -1)); got != n {
			return fmt.Errorf("output names %d leaders, want %d: %s", got, n, t.seen)
		}
		return nil
	}
	// A broker may show a change shortly after it has been answered.
	describe := func(n int) error {
		var err error
		for range 20 {
			err = steps(
				func() error { return t.call(tool, "--describe", "--topic", t.topic) },
				func() error {
					return t.want(fmt.Sprintf(`PartitionCount: %d\s+ReplicationFactor: 1\s+Configs:.*retention\.ms=12345678`, n))
				},
				func() error { return leaders(n) },
			)
			if err == nil || t.ctx.Err() != nil {
				break
			}
			time.Sleep(50 * time.Millisecond)
		}
		return err
	}
	return steps(
		func() error {
			return t.call(tool, "--create", "--topic", t.topic, "--partitions", "3", "--replication-factor", "1", "--config", "retention.ms=12345678")
		},
		func() error { return t.want("Created topic " + regexp.QuoteMeta(t.topic)) },
		func() error { return describe(3) },
		func() error { return t.want(`TopicId: \S{22}`) },
		func() error {
			return t.callWith(tool, "", 1, "--bootstrap-server", t.addr, "--create", "--topic", t.topic, "--partitions", "3")
		},
		func() error { return t.want("already exists") },
		func() error { return t.call(tool, "--create", "--if-not-exists", "--topic", t.topic) },
		func() error { return t.call(tool, "--list") },
		func() error { return t.want(line) },
		func() error { return t.call(tool, "--alter", "--topic", t.topic, "--partitions", "5") },
		func() error { return describe(5) },
		func() error {
			return t.call(tool, "--describe", "--under-replicated-partitions", "--topic", t.topic+".*")
		},
		func() error { return t.wantNot(`Topic: `) },
		func() error { return t.call(tool, "--delete", "--topic", t.topic) },
		func() error { return t.call(tool, "--list") },
		func() error { return t.wantNot(line) },
	)
}

func toolConfigs(t *toolRun) error {
	const tool = "kafka.admin.ConfigCommand"
	topic := []string{"--entity-type", "topics", "--entity-name", t.topic}
	with := func(args ...string) func() error {
		return func() error { return t.call(tool, append(args, topic...)...) }
	}
	brokers, err := t.stage.adm.ListBrokers(t.ctx)
	if err != nil || len(brokers) == 0 {
		return fmt.Errorf("list brokers: %w", err)
	}
	id := strconv.Itoa(int(brokers[0].NodeID))
	return steps(
		t.twenty,
		with("--alter", "--add-config", "retention.ms=12345678,max.message.bytes=2000000"),
		func() error { return t.want("Completed updating config for topic") },
		with("--describe"),
		func() error {
			return t.want(`retention\.ms=12345678 sensitive=false synonyms=\{DYNAMIC_TOPIC_CONFIG:retention\.ms=12345678`, `max\.message\.bytes=2000000`)
		},
		with("--alter", "--delete-config", "retention.ms"),
		with("--describe"),
		func() error { return t.wantNot(`retention\.ms`) },
		func() error { return t.want(`max\.message\.bytes=2000000`) },
		with("--describe", "--all"),
		func() error {
			return t.want(`cleanup\.policy=delete .*DEFAULT_CONFIG`, `retention\.ms=604800000`, `compression\.type=producer`, `segment\.bytes=`, `min\.insync\.replicas=1`)
		},
		func() error {
			return t.callWith(tool, "", 1, append([]string{"--bootstrap-server", t.addr, "--alter", "--add-config", "no.such.config=1"}, topic...)...)
		},
		func() error {
			return t.call(tool, "--describe", "--all", "--entity-type", "brokers", "--entity-name", id)
		},
		func() error {
			return t.want(`num\.partitions=\d+`, `log\.retention\.hours=`, `message\.max\.bytes=\d+`, `auto\.create\.topics\.enable=`)
		},
	)
}

func toolConsumerGroups(t *toolRun) error {
	const tool = "consumer.group.ConsumerGroupCommand"
	group := t.topic + "-group"
	row := func(current, lag int) string {
		return fmt.Sprintf(`%s\s+%s\s+0\s+%d\s+20\s+%d\s`, regexp.QuoteMeta(group), regexp.QuoteMeta(t.topic), current, lag)
	}
	reset := func(how ...string) func() error {
		return func() error {
			return t.call(tool, append([]string{"--reset-offsets", "--group", group, "--topic", t.topic, "--execute"}, how...)...)
		}
	}
	call := func(args ...string) func() error { return func() error { return t.call(tool, args...) } }
	want := func(expressions ...string) func() error { return func() error { return t.want(expressions...) } }
	name := regexp.QuoteMeta(group)
	return steps(
		t.twenty,
		func() error {
			offsets := kadm.Offsets{}
			offsets.Add(kadm.Offset{Topic: t.topic, At: 3, LeaderEpoch: -1})
			resp, err := t.stage.adm.CommitOffsets(t.ctx, group, offsets)
			return errors.Join(err, resp.Error())
		},
		call("--list"), want("^"+name+"$"),
		call("--list", "--state", "Empty"), want(name+`\s+Empty`),
		call("--describe", "--group", group), want(row(3, 17)),
		call("--describe", "--group", group, "--state"), want(name+`.*Empty\s+0`),
		reset("--shift-by", "4"), want(name+`\s+`+regexp.QuoteMeta(t.topic)+`\s+0\s+7\s`),
		reset("--to-latest"), call("--describe", "--group", group), want(row(20, 0)),
		reset("--to-datetime", time.UnixMilli(t.stage.base+11_500).UTC().Format("2006-01-02T15:04:05.000")),
		call("--describe", "--group", group), want(row(12, 8)),
		reset("--to-earliest"), call("--describe", "--group", group), want(row(0, 20)),
		func() error { return t.activeGroup(tool, group) },
		call("--delete-offsets", "--group", group, "--topic", t.topic), want("Successful"),
		func() error {
			return t.callWith(tool, "", 0, "--bootstrap-server", t.addr, "--describe", "--group", group)
		},
		func() error { return t.wantNot(row(20, 0)) },
		reset("--to-earliest"),
		call("--delete", "--group", group), want("was successful"),
		call("--list"), func() error { return t.wantNot("^" + name + "$") },
	)
}

// activeGroup looks at the group while it has a member.
func (t *toolRun) activeGroup(tool, group string) error {
	cl, err := kgo.NewClient(kgo.SeedBrokers(t.stage.addr), kgo.ConsumerGroup(group), kgo.ConsumeTopics(t.topic), kgo.ClientID("member-of-test"),
		kgo.Balancers(kgo.RangeBalancer()))
	if err != nil {
		return err
	}
	defer cl.Close()
	got := 0
	for got < seedBatch {
		f := cl.PollFetches(t.ctx)
		if err := f.Err(); err != nil {
			return err
		}
		got += f.NumRecords()
	}
	if err := cl.CommitUncommittedOffsets(t.ctx); err != nil {
		return err
	}
	return steps(
		func() error { return t.call(tool, "--describe", "--group", group, "--members", "--verbose") },
		func() error {
			return t.want(`member-of-test-?\S*\s+/127\.0\.0\.1\s+member-of-test\s+1\s.*` + regexp.QuoteMeta(t.topic) + `[:(]0`)
		},
		func() error { return t.call(tool, "--describe", "--group", group) },
		func() error { return t.want(`\s20\s+20\s+0\s+member-of-test-?\S*\s+/127\.0\.0\.1`) },
		func() error { return t.call(tool, "--describe", "--group", group, "--state") },
		func() error { return t.want(`range\s+Stable\s+1`) },
	)
}

func toolGetOffsets(t *toolRun) error {
	ask := func(time string, want int) func() error {
		return func() error {
			if err := t.call("GetOffsetShell", "--topic", t.topic, "--time", time); err != nil {
				return err
			}
			return t.want(fmt.Sprintf("^%s:0:%d$", regexp.QuoteMeta(t.topic), want))
		}
	}
	return steps(t.twenty, ask("latest", 20), ask("earliest", 0), ask("max-timestamp", 19), ask(strconv.FormatInt(t.stage.base+6500, 10), 7))
}

func toolDeleteRecords(t *toolRun) error {
	file, err := os.CreateTemp("", "skein-conformance-*.json")
	if err != nil {
		return err
	}
	defer os.Remove(file.Name())
	_, err = fmt.Fprintf(file, `{"version":1,"partitions":[{"topic":%q,"partition":0,"offset":7}]}`, t.topic)
	if err := errors.Join(err, file.Close()); err != nil {
		return err
	}
	return steps(
		t.twenty,
		func() error { return t.call("DeleteRecordsCommand", "--offset-json-file", file.Name()) },
		func() error { return t.want(`partition: ` + regexp.QuoteMeta(t.topic) + `-0\s+low_watermark: 7`) },
		func() error { return t.call("GetOffsetShell", "--topic", t.topic, "--time", "earliest") },
		func() error { return t.want(`:0:7$`) },
	)
}

func toolLogDirs(t *toolRun) error {
	return steps(
		t.twenty,
		func() error { return t.call("LogDirsCommand", "--describe", "--topic-list", t.topic) },
		func() error {
			return t.want(`"partition":"`+regexp.QuoteMeta(t.topic)+`-0"`, `"size":[1-9]\d*`, `"error":null`, `"isFuture":false`)
		},
	)
}

func toolConsoleProducer(t *toolRun) error {
	return steps(
		func() error { return t.stage.createTopic(t.ctx, t.topic, 1) },
		func() error {
			return t.callWith("ConsoleProducer", "a:1\tk1\tv1\na:2\tk2\tv2\na:3\tk3\tnothing\n", 0, "--bootstrap-server", t.addr, "--topic", t.topic,
				"--compression-codec", "zstd", "--reader-property", "parse.key=true", "--reader-property", "parse.headers=true",
				"--reader-property", "null.marker=nothing")
		},
		func() error {
			got, err := t.stage.read(t.ctx, t.topic, 3)
			if err != nil {
				return err
			}
			for i, r := range got {
				n := strconv.Itoa(i + 1)
				value := "v" + n
				if i == 2 {
					value = ""
				}
				if string(r.Key) != "k"+n || string(r.Value) != value || (r.Value == nil) != (i == 2) || len(r.Headers) != 1 || string(r.Headers[0].Value) != n {
					return fmt.Errorf("record %d is %+v", i, r)
				}
			}
			return t.wantEnd(3)
		},
	)
}

func toolConsoleConsumer(t *toolRun) error {
	const tool = "consumer.ConsoleConsumer"
	properties := []string{"--formatter-property", "print.key=true", "--formatter-property", "print.offset=true", "--formatter-property", "print.partition=true",
		"--formatter-property", "print.timestamp=true", "--formatter-property", "print.headers=true"}
	line := func(i int64) string {
		r := t.stage.set(t.topic, false).At(0, i)
		value := string(r.Value)
		if r.Value == nil {
			value = "null"
		}
		return fmt.Sprintf(`^CreateTime:%d\tPartition:0\tOffset:%d\tidx:%d,bin:[^\t]*,empty:\tkey-%d\t%s$`, r.Timestamp, i, i, i, regexp.QuoteMeta(value))
	}
	check := func(from, to int64) error {
		if got := len(strings.Split(strings.TrimSpace(t.seen), "\n")); got != int(to-from) {
			return fmt.Errorf("%d lines, want %d: %s", got, to-from, t.seen)
		}
		for i := from; i < to; i++ {
			if err := t.want(line(i)); err != nil {
				return err
			}
		}
		return nil
	}
	call := func(args ...string) func() error {
		return func() error {
			return t.call(tool, append(append([]string{"--topic", t.topic, "--timeout-ms", "20000"}, args...), properties...)...)
		}
	}
	return steps(
		t.twenty,
		call("--from-beginning", "--max-messages", "20"),
		func() error { return check(0, 20) },
		call("--partition", "0", "--offset", "5", "--max-messages", "3"),
		func() error { return check(5, 8) },
		call("--group", t.topic, "--from-beginning", "--max-messages", "12"),
		func() error { return check(0, 12) },
		call("--group", t.topic, "--max-messages", "8"),
		func() error { return check(12, 20) },
		func() error { return t.stage.verifyGroup(t.ctx, t.topic, t.topic, 1, 20) },
	)
}

func toolProducerPerf(t *toolRun) error {
	return steps(
		func() error { return t.stage.createTopic(t.ctx, t.topic, 1) },
		func() error {
			return t.callWith("ProducerPerformance", "", 0, "--topic", t.topic, "--num-records", "5000", "--record-size", "200", "--throughput", "-1",
				"--producer-props", "bootstrap.servers="+t.addr, "acks=all", "compression.type=lz4")
		},
		func() error { return t.want(`^5000 records sent, [\d.]+ records/sec .*99\.9th`) },
		func() error { return t.wantEnd(5000) },
	)
}

func toolConsumerPerf(t *toolRun) error {
	return steps(
		func() error { return t.stage.createTopic(t.ctx, t.topic, 1) },
		func() error { return t.stage.produceBatch(t.ctx, t.topic, "none", 0, 500) },
		func() error {
			return t.call("ConsumerPerformance", "--topic", t.topic, "--num-records", "500", "--timeout", "20000")
		},
		func() error { return t.want(`^\d{4}-.*, 500, [\d.]+, \d+, \d+, [\d.]+, [\d.]+`) },
	)
}

func toolLatency(t *toolRun) error {
	return steps(
		func() error { return t.stage.createTopic(t.ctx, t.topic, 1) },
		func() error {
			return t.call("EndToEndLatency", "--topic", t.topic, "--num-records", "200", "--producer-acks", "all", "--record-size", "100")
		},
		func() error {
			return t.want(`^Avg latency: [\d.]+ ms`, `^Percentiles: 50th = \d+, 99th = \d+, 99\.9th = \d+`)
		},
		func() error { return t.wantEnd(200) },
	)
}

func toolAPIVersions(t *toolRun) error {
	return steps(
		func() error { return t.call("BrokerApiVersionsCommand") },
		func() error {
			return t.want(`Produce\(0\): \d+ to 1[3-9] `, `Fetch\(1\): \d+ to 1[89] `, `Metadata\(3\): \d+ to 1[3-9] `, `JoinGroup\(11\): \d+ to 9 `, `InitProducerId\(22\): \d+ to [5-9] `)
		},
	)
}

func toolCluster(t *toolRun) error {
	return steps(
		func() error {
			return t.callWith("ClusterTool", "", 0, "cluster-id", "--bootstrap-server", t.addr)
		},
		func() error { return t.want(`^Cluster ID: \S+$`) },
	)
}
