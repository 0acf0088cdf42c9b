package main

import (
	"errors"
	"fmt"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
)

// Tools whose work needs several brokers.
var clusterToolCases = []toolCase{
	{name: "kafka-topics-cluster", brokers: 3, run: toolClusterTopics},
	{name: "kafka-reassign-partitions", brokers: 3, run: toolReassign},
	{name: "kafka-leader-election", brokers: 3, run: toolElection},
	{name: "kafka-configs-brokers", brokers: 3, run: toolBrokerConfigs},
	{name: "kafka-consumer-groups-all", brokers: 3, run: toolManyGroups},
	{name: "kafka-cluster-brokers", brokers: 3, run: toolBrokers},
}

// brokerIDs lists the brokers, ordered.
func (t *toolRun) brokerIDs() ([]int, error) {
	list, err := t.stage.adm.ListBrokers(t.ctx)
	if err != nil {
		return nil, fmt.Errorf("list brokers: %w", err)
	}
	var out []int
	for _, b := range list {
		out = append(out, int(b.NodeID))
	}
	slices.Sort(out)
	return out, nil
}

// until repeats steps until they succeed, for a while: what has been answered may show, or end, a little later.
func (t *toolRun) until(fs ...func() error) error {
	var err error
	for range 60 {
		if err = steps(fs...); err == nil || t.ctx.Err() != nil {
			return err
		}
		time.Sleep(200 * time.Millisecond)
	}
	return err
}

// file writes a file for a tool, and returns its name.
func (t *toolRun) file(text string) (string, error) {
	f, err := os.CreateTemp("", "skein-conformance-*.json")
	if err != nil {
		return "", err
	}
	_, err = f.WriteString(text)
	return f.Name(), errors.Join(err, f.Close())
}

func ints(list []int, sep string) string {
	var out []string
	for _, n := range list {
		out = append(out, strconv.Itoa(n))
	}
	return strings.Join(out, sep)
}

// rotated is the list with the n-th element first.
func rotated(list []int, n int) []int {
	n %= len(list)
	return slices.Concat(list[n:], list[:n])
}

func toolClusterTopics(t *toolRun) error {
	const tool = "TopicCommand"
	ids, err := t.brokerIDs()
	if err != nil {
		return err
	}
	own := func(args ...string) func() error {
		return func() error { return t.call(tool, append([]string{"--describe"}, args...)...) }
	}
	absent := func() error { return t.wantNot(`Topic: ` + regexp.QuoteMeta(t.topic) + `\s`) }
	partition := func(topic string, p, n int) func() error {
		return func() error {
			list := regexp.QuoteMeta(ints(rotated(ids, n), ","))
			return t.want(fmt.Sprintf(`Topic: %s\s+Partition: %d\s+Leader: %d\s+Replicas: %s\s`, regexp.QuoteMeta(topic), p, rotated(ids, n)[0], list))
		}
	}
	assigned := t.topic + "-assigned"
	all := t.topic + ".*" // of all topics, the tool fails when another client deletes one between its two requests
	lists := ints(rotated(ids, 2), ":") + "," + ints(rotated(ids, 1), ":") + "," + ints(rotated(ids, 0), ":")
	return steps(
		func() error {
			return t.call(tool, "--create", "--topic", t.topic, "--partitions", "6", "--replication-factor", "3", "--config", "min.insync.replicas=2")
		},
		func() error {
			return t.until(own("--topic", t.topic), func() error {
				return t.want(`PartitionCount: 6\s+ReplicationFactor: 3\s+Configs:.*min\.insync\.replicas=2`, `Replicas: \d+,\d+,\d+\s+Isr: \d+,\d+,\d+\s`)
			})
		},
		func() error {
			for _, id := range ids {
				if got := strings.Count(t.seen, fmt.Sprintf("Leader: %d\t", id)); got != 2 {
					return fmt.Errorf("broker %d leads %d of 6 partitions: %s", id, got, t.seen)
				}
			}
			return nil
		},
		own("--under-replicated-partitions", "--topic", all), absent,
		own("--unavailable-partitions", "--topic", all), absent,
		own("--under-min-isr-partitions", "--topic", all), absent,
		own("--at-min-isr-partitions", "--topic", all), absent,
		func() error { return t.call(tool, "--create", "--topic", assigned, "--replica-assignment", lists) },
		func() error {
			return t.until(own("--topic", assigned), partition(assigned, 0, 2), partition(assigned, 1, 1), partition(assigned, 2, 0))
		},
		func() error {
			return t.call(tool, "--alter", "--topic", assigned, "--partitions", "4", "--replica-assignment", lists+","+ints(rotated(ids, 1), ":"))
		},
		func() error { return t.until(own("--topic", assigned), partition(assigned, 3, 1)) },
	)
}

// toolReassign sends a topic's partitions to other brokers and rolls that back, with records in them.
func toolReassign(t *toolRun) error {
	const tool = "reassign.ReassignPartitionsCommand"
	ids, err := t.brokerIDs()
	if err != nil {
		return err
	}
	topics, err := t.file(fmt.Sprintf(`{"version":1,"topics":[{"topic":%q}]}`, t.topic))
	if err != nil {
		return err
	}
	defer os.Remove(topics)
	plan := func(n int) string {
		var ps []string
		for p := range 3 {
			ps = append(ps, fmt.Sprintf(`{"topic":%q,"partition":%d,"replicas":[%s]}`, t.topic, p, ints(rotated(ids, p+n), ",")))
		}
		return `{"version":1,"partitions":[` + strings.Join(ps, ",") + `]}`
	}
	there, err := t.file(plan(1))
	if err != nil {
		return err
	}
	defer os.Remove(there)
	var back string
	done := func(file *string) func() error {
		return func() error {
			return t.until(
				func() error { return t.call(tool, "--verify", "--reassignment-json-file", *file) },
				func() error {
					for p := range 3 {
						if err := t.want(fmt.Sprintf(`^Reassignment of partition %s-%d is completed\.$`, regexp.QuoteMeta(t.topic), p)); err != nil {
							return err
						}
					}
					return nil
				})
		}
	}
	// Where Kafka leaves the leader until the next election, Skein has moved it.
	led := func(n int) func() error {
		return func() error {
			return t.until(
				func() error {
					if err := t.call("LeaderElectionCommand", "--election-type", "preferred", "--topic", t.topic, "--partition", "0"); err != nil {
						return err
					}
					return t.call("LeaderElectionCommand", "--election-type", "preferred", "--all-topic-partitions")
				},
				func() error { return t.call("TopicCommand", "--describe", "--topic", t.topic) },
				func() error {
					for p := range 3 {
						list := rotated(ids, p+n)
						if err := t.want(fmt.Sprintf(`Partition: %d\s+Leader: %d\s+Replicas: %s\s`, p, list[0], ints(list, ","))); err != nil {
							return err
						}
					}
					return nil
				})
		}
	}
	lists := ints(rotated(ids, 0), ":") + "," + ints(rotated(ids, 1), ":") + "," + ints(rotated(ids, 2), ":")
	return steps(
		func() error {
			return t.call("TopicCommand", "--create", "--topic", t.topic, "--replica-assignment", lists)
		},
		func() error { return t.stage.produceBatch(t.ctx, t.topic, "none", 0, seedBatch) },
		func() error {
			return t.call(tool, "--generate", "--topics-to-move-json-file", topics, "--broker-list", ints(ids, ","))
		},
		func() error {
			return t.want(`^Current partition replica assignment$`, `^Proposed partition reassignment configuration$`, `"replicas":\[\d+,\d+,\d+\]`)
		},
		func() error {
			return t.call(tool, "--execute", "--throttle", "10000000", "--reassignment-json-file", there)
		},
		func() error { return t.want(`^Successfully started partition reassignments for `) },
		func() error {
			current := regexp.MustCompile(`(?m)^\{"version":1,.*\}$`).FindString(t.seen)
			back, err = t.file(current)
			return err
		},
		done(&there),
		led(1),
		func() error { return t.call(tool, "--list") },
		func() error { return t.wantNot(regexp.QuoteMeta(t.topic)) },
		func() error { return t.call(tool, "--cancel", "--reassignment-json-file", there) },
		func() error { return t.want(`^None of the specified partition reassignments are active`) },
		func() error { return t.call(tool, "--execute", "--reassignment-json-file", back) },
		func() error { return done(&back)() },
		led(0),
		func() error { return os.Remove(back) },
		func() error { return t.wantEnd(seedBatch) },
		func() error {
			got, err := t.stage.read(t.ctx, t.topic, seedBatch)
			if err != nil {
				return err
			}
			return t.stage.set(t.topic, false).CheckRun(got, 0, 0, seedBatch)
		},
		func() error {
			return t.callWith(tool, "", 1, "--bootstrap-server", t.addr, "--execute", "--reassignment-json-file", topics)
		},
	)
}

func toolElection(t *toolRun) error {
	const tool = "LeaderElectionCommand"
	elections := func(args ...string) func() error {
		return func() error { return t.call(tool, append([]string{"--election-type", "preferred"}, args...)...) }
	}
	return steps(
		func() error {
			return t.call("TopicCommand", "--create", "--topic", t.topic, "--partitions", "3", "--replication-factor", "3")
		},
		elections("--topic", t.topic, "--partition", "1"),
		func() error {
			return t.want(`Valid replica already elected for partitions ` + regexp.QuoteMeta(t.topic) + `-1`)
		},
		elections("--all-topic-partitions"),
		func() error {
			return t.callWith(tool, "", 1, "--bootstrap-server", t.addr, "--election-type", "preferred", "--topic", t.topic+"-not", "--partition", "0")
		},
		func() error {
			return t.call(tool, "--election-type", "unclean", "--topic", t.topic, "--partition", "0")
		},
	)
}

func toolBrokerConfigs(t *toolRun) error {
	const tool = "kafka.admin.ConfigCommand"
	ids, err := t.brokerIDs()
	if err != nil {
		return err
	}
	one, other := strconv.Itoa(ids[1]), strconv.Itoa(ids[2])
	of := func(id string, args ...string) func() error {
		return func() error {
			if id == "" {
				return t.call(tool, append([]string{"--entity-type", "brokers", "--entity-default"}, args...)...)
			}
			return t.call(tool, append([]string{"--entity-type", "brokers", "--entity-name", id}, args...)...)
		}
	}
	shows := func(id, expression string) func() error {
		return func() error {
			return t.until(of(id, "--describe"), func() error { return t.want(expression) })
		}
	}
	hides := func(id, expression string) func() error {
		return func() error {
			return t.until(of(id, "--describe"), func() error { return t.wantNot(expression) })
		}
	}
	return steps(
		of(one, "--alter", "--add-config", "log.cleaner.io.buffer.size=600000"),
		shows(one, `log\.cleaner\.io\.buffer\.size=600000 sensitive=false synonyms=\{DYNAMIC_BROKER_CONFIG:log\.cleaner\.io\.buffer\.size=600000`),
		hides(other, `log\.cleaner\.io\.buffer\.size`),
		of("", "--alter", "--add-config", "log.cleaner.io.buffer.size=700000"),
		shows("", `log\.cleaner\.io\.buffer\.size=700000`),
		shows(one, `DYNAMIC_BROKER_CONFIG:log\.cleaner\.io\.buffer\.size=600000, DYNAMIC_DEFAULT_BROKER_CONFIG:log\.cleaner\.io\.buffer\.size=700000`),
		of(one, "--alter", "--delete-config", "log.cleaner.io.buffer.size"),
		of("", "--alter", "--delete-config", "log.cleaner.io.buffer.size"),
		hides("", `log\.cleaner\.io\.buffer\.size`),
		func() error { return t.call(tool, "--entity-type", "brokers", "--describe") },
		func() error {
			return t.want(`configs for broker `+one+` are`, `configs for broker `+other+` are`, `Default configs for brokers`)
		},
	)
}

// toolManyGroups works on groups that have different coordinators in one call.
func toolManyGroups(t *toolRun) error {
	const tool = "consumer.group.ConsumerGroupCommand"
	const groups = 12
	var names []string
	if err := t.twenty(); err != nil {
		return err
	}
	for i := range groups {
		name := fmt.Sprintf("%s-group-%d", t.topic, i)
		offsets := kadm.Offsets{}
		offsets.Add(kadm.Offset{Topic: t.topic, At: int64(i), LeaderEpoch: -1})
		resp, err := t.stage.adm.CommitOffsets(t.ctx, name, offsets)
		if err := errors.Join(err, resp.Error()); err != nil {
			return err
		}
		names = append(names, "--group", name)
	}
	rows := func(at func(i int) int) func() error {
		return func() error {
			for i := range groups {
				row := fmt.Sprintf(`%s\s+%s\s+0\s+%d\s+20\s+%d\s`, regexp.QuoteMeta(names[2*i+1]), regexp.QuoteMeta(t.topic), at(i), 20-at(i))
				if err := t.want(row); err != nil {
					return err
				}
			}
			return nil
		}
	}
	all := func(args ...string) func() error {
		return func() error { return t.call(tool, append(args, names...)...) }
	}
	return steps(
		func() error { return t.call(tool, "--list") },
		func() error {
			for i := range groups {
				if err := t.want("^" + regexp.QuoteMeta(names[2*i+1]) + "$"); err != nil {
					return err
				}
			}
			return nil
		},
		all("--describe"), rows(func(i int) int { return i }),
		all("--describe", "--state"),
		func() error {
			seen := map[string]bool{}
			for _, m := range regexp.MustCompile(`\s127\.0\.0\.1:\d+\s+\((\d+)\)`).FindAllStringSubmatch(t.seen, -1) {
				seen[m[1]] = true
			}
			if len(seen) < 2 {
				return fmt.Errorf("%d groups have %d different coordinators: %s", groups, len(seen), t.seen)
			}
			return nil
		},
		all("--reset-offsets", "--topic", t.topic, "--shift-by", "5", "--execute"),
		all("--describe"), rows(func(i int) int { return i + 5 }),
		all("--delete-offsets", "--topic", t.topic),
		all("--reset-offsets", "--topic", t.topic, "--to-latest", "--execute"),
		all("--describe"), rows(func(int) int { return 20 }),
		all("--delete"), func() error { return t.want("was successful") },
		func() error { return t.call(tool, "--list") },
		func() error { return t.wantNot("^" + regexp.QuoteMeta(t.topic) + "-group") },
	)
}

// toolBrokers asks the tools that talk to every broker.
func toolBrokers(t *toolRun) error {
	ids, err := t.brokerIDs()
	if err != nil {
		return err
	}
	each := func(expression string) func() error {
		return func() error {
			for _, id := range ids {
				if err := t.want(fmt.Sprintf(expression, id)); err != nil {
					return err
				}
			}
			return nil
		}
	}
	return steps(
		func() error {
			return t.call("TopicCommand", "--create", "--topic", t.topic, "--partitions", "6", "--replication-factor", "3")
		},
		func() error {
			return t.callWith("ClusterTool", "", 0, "list-endpoints", "--bootstrap-server", t.addr)
		},
		each(`^%d\s+127\.0\.0\.1\s+\d+\s`),
		func() error { return t.call("BrokerApiVersionsCommand") },
		each(`^127\.0\.0\.1:\d+ \(id: %d rack: `),
		func() error { return t.call("LogDirsCommand", "--describe", "--topic-list", t.topic) },
		each(`"broker":%d,"logDirs":\[\{"partitions":\[\{"partition"`),
		func() error { return t.call("GetOffsetShell", "--topic", t.topic, "--time", "latest") },
		func() error {
			return t.want("^"+regexp.QuoteMeta(t.topic)+":0:0$", "^"+regexp.QuoteMeta(t.topic)+":5:0$")
		},
		func() error {
			return t.callWith("ProducerPerformance", "", 0, "--topic", t.topic, "--num-records", "6000", "--record-size", "200", "--throughput", "-1",
				"--producer-props", "bootstrap.servers="+t.addr, "acks=all")
		},
		func() error { return t.want(`^6000 records sent, [\d.]+ records/sec .*99\.9th`) },
		func() error {
			return t.call("ConsumerPerformance", "--topic", t.topic, "--num-records", "6000", "--timeout", "20000")
		},
		func() error { return t.want(`^\d{4}-.*, 6000, [\d.]+, \d+, \d+, [\d.]+, [\d.]+`) },
	)
}
