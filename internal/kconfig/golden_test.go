package kconfig

import (
	"bufio"
	"context"
	"flag"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// The answers of a real Apache Kafka 4.3 stand in testdata; with a broker at hand they are
// asked for again: go test ./internal/kconfig -run Golden -record 127.0.0.1:19092
// (the broker needs a topic named golden).
var record = flag.String("record", "", "bootstrap server of an Apache Kafka to record answers of")

const goldenFile = "testdata/kafka43.txt"

// differs says where Skein's answer is not Kafka's on purpose.
var differs = map[string]string{
	"broker log.local.retention.ms=-1":         "stored only: there is no tiered storage",
	"broker log.local.retention.ms=2147483648": "stored only: there is no tiered storage",
	"broker max.connection.creation.rate=0":    "refused, without the name of a Java class in the text",
	"broker max.connections=0":                 "refused, without the name of a Java class in the text",
}

type goldenCase struct {
	kind        Kind
	name, value string
}

func (c goldenCase) String() string { return fmt.Sprintf("%s %s=%s", c.kind, c.name, c.value) }

func goldenCases() (out []goldenCase) {
	for _, k := range []Kind{KindTopic, KindBroker, KindGroup} {
		for i := range Defs(k) {
			d := &Defs(k)[i]
			if k == KindBroker && (d.Update != ClusterWide || strings.HasPrefix(d.Name, "skein.") || strings.HasSuffix(d.Name, "threads") || strings.HasSuffix(d.Name, "fetchers") ||
				strings.HasPrefix(d.Name, "num.recovery") || strings.HasSuffix(d.Name, "throttled.rate") || d.Name == "min.insync.replicas" || strings.HasPrefix(d.Name, "log.cleaner.io") || strings.HasPrefix(d.Name, "log.cleaner.dedupe") || d.Name == "max.connections.per.ip.overrides") {
				continue
			}
			if slices.ContainsFunc(brokerElsewhereDefs, func(e Def) bool { return e.Name == d.Name }) {
				continue // TestEveryKafkaName is about those
			}
			if d.Name == "failover.read" {
				continue // Kafka has none
			}
			values := []string{"", "word", "-3", "-2", "-1", "0", "1", "2", "10", "18", "1.5", " 7 ", "2147483648", "9223372036854775808", "TRUE", "a,b"}
			switch d.Name {
			case "cleanup.policy", "log.cleanup.policy":
				values = append(values, "compact", "compact,delete", "delete, delete", "delete,,compact", "Compact", "compact,bogus")
			case "compression.type":
				values = append(values, "gzip", "uncompressed", "none", "ZSTD")
			case "message.timestamp.type", "log.message.timestamp.type":
				values = append(values, "CreateTime", "LogAppendTime", "createtime")
			case "share.auto.offset.reset":
				values = append(values, "latest", "by_duration:PT1H", "by_duration:P1D", "by_duration:x", "by_duration:P", "by_duration:PT")
			}
			if strings.HasSuffix(d.Name, "throttled.replicas") {
				values = append(values, "*", "0:1,1:1", "*,0:1", "0:1:2", "0:")
			}
			for _, v := range values {
				out = append(out, goldenCase{k, d.Name, v})
			}
		}
		if k != KindBroker {
			out = append(out, goldenCase{k, "no.such.config", "1"}, goldenCase{k, "", "1"})
		}
	}
	return out
}

func TestGolden(t *testing.T) {
	if *record != "" {
		recordGolden(t)
	}
	f, err := os.Open(goldenFile)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	want := map[string]string{}
	for sc := bufio.NewScanner(f); sc.Scan(); {
		k, v, ok := strings.Cut(sc.Text(), "\t")
		if !ok {
			t.Fatalf("%s: line without a tab: %q", goldenFile, sc.Text())
		}
		want[k] = v
	}
	cases := goldenCases()
	if len(want) != len(cases) {
		t.Errorf("%s has %d answers for %d cases: record again", goldenFile, len(want), len(cases))
	}
	for _, c := range cases {
		key := fmt.Sprintf("%q", c.String())
		w, ok := want[key]
		if !ok {
			t.Errorf("%s: no recorded answer", key)
			continue
		}
		if _, ok := differs[c.String()]; ok {
			continue
		}
		if got := ours(c); got != w {
			t.Errorf("%s:\n got %s\nwant %s", key, got, w)
		}
	}
}

func ours(c goldenCase) string {
	set := map[string]string{c.name: c.value}
	var errs []error
	if c.kind == KindBroker {
		errs = CheckDynamic(true, []string{c.name}, Layers{Default: set})
	} else {
		errs = Check(c.kind, set, Layers{})
	}
	if len(errs) == 0 {
		return "ok"
	}
	return errs[0].Error()
}

func recordGolden(t *testing.T) {
	cl, err := kgo.NewClient(kgo.SeedBrokers(*record))
	if err != nil {
		t.Fatal(err)
	}
	defer cl.Close()
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	var b strings.Builder
	for _, c := range goldenCases() {
		rs := kmsg.NewIncrementalAlterConfigsRequestResource()
		switch c.kind {
		case KindTopic:
			rs.ResourceType, rs.ResourceName = kmsg.ConfigResourceTypeTopic, "golden"
		case KindBroker:
			rs.ResourceType = kmsg.ConfigResourceTypeBroker
		case KindGroup:
			rs.ResourceType, rs.ResourceName = kmsg.ConfigResourceTypeGroupConfig, "golden"
		}
		cfg := kmsg.NewIncrementalAlterConfigsRequestResourceConfig()
		cfg.Name, cfg.Value = c.name, &c.value
		rs.Configs = append(rs.Configs, cfg)
		rq := kmsg.NewPtrIncrementalAlterConfigsRequest()
		rq.ValidateOnly = true
		rq.Resources = append(rq.Resources, rs)
		resp, err := rq.RequestWith(ctx, cl)
		if err != nil {
			t.Fatalf("%s: %v", c, err)
		}
		answer := "ok"
		if r := resp.Resources[0]; r.ErrorCode != 0 {
			answer = *r.ErrorMessage
		}
		fmt.Fprintf(&b, "%q\t%s\n", c.String(), strings.ReplaceAll(answer, "\n", " "))
	}
	if err := os.MkdirAll("testdata", 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(goldenFile, []byte(b.String()), 0o644); err != nil {
		t.Fatal(err)
	}
}
