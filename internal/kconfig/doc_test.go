package kconfig

import (
	"bytes"
	"flag"
	"fmt"
	"os"
	"strings"
	"testing"
)

var rewrite = flag.Bool("rewrite", false, "write docs/configs.md anew")

const docFile = "../../docs/configs.md"

// TestDoc keeps docs/configs.md equal to the table: go test ./internal/kconfig -run Doc -rewrite
func TestDoc(t *testing.T) {
	want := document()
	if *rewrite {
		if err := os.MkdirAll("../../docs", 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(docFile, want, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	got, err := os.ReadFile(docFile)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		t.Errorf("%s is not what the table says: go test ./internal/kconfig -run Doc -rewrite", docFile)
	}
}

func document() []byte {
	var b bytes.Buffer
	b.WriteString(`# Configs

Generated from ` + "`internal/kconfig`" + `; do not edit.

Names, types, defaults, ranges and synonyms are those of Apache Kafka 4.3. *works*: it does what it does in Kafka. *partly*: see the
reason. *stored*: it is accepted, checked, kept and described, so that tools that set it go on, but changes nothing, for the reason given; where it says so, a value that asks for what is not here is refused instead. A name that is
not in these tables is refused with INVALID_CONFIG. Skein's own, which Kafka does not have, are ` + "`failover.read`" + ` and those that begin with ` + "`skein.`" + `.

A topic's value is the first of: set on the topic, dynamic on the broker, dynamic default of the cluster, the broker's own file, flags and
environment, built-in default. *Where*: "start" in the file, by flag or environment; "broker" also while it runs, for one broker; "cluster" also
while it runs, for all brokers at once.
`)
	section := func(title string, k Kind, intro string) {
		fmt.Fprintf(&b, "\n## %s\n\n%s\n\n", title, intro)
		if k == KindBroker {
			b.WriteString("| config | type | default | where | in Skein | what it says |\n|---|---|---|---|---|---|\n")
		} else {
			b.WriteString("| config | type | default | default from | in Skein | what it says |\n|---|---|---|---|---|---|\n")
		}
		for i := range Defs(k) {
			d := &Defs(k)[i]
			def := "`" + d.Default + "`"
			switch {
			case d.Null:
				def = "null"
			case d.Default == "":
				def = "empty"
			}
			where := map[Update]string{ReadOnly: "start", PerBroker: "broker", ClusterWide: "cluster"}[d.Update]
			if k != KindBroker {
				if where = "-"; d.Synonym != "" {
					where = "`" + d.Synonym + "`"
				}
			}
			effect := map[Effect]string{Works: "works", Partly: "partly: ", Stored: "stored: "}[d.Effect] + d.Note
			fmt.Fprintf(&b, "| `%s` | %s | %s | %s | %s | %s |\n", d.Name, strings.ToLower(d.Type.String()), def, where, effect, d.Doc)
		}
	}
	section("Topics", KindTopic, "Set with CreateTopics, AlterConfigs and IncrementalAlterConfigs.")
	section("Brokers", KindBroker, "Set in `skein serve --config`, which takes YAML or a Kafka broker's `server.properties` (listeners of controllers are left out; exactly one PLAINTEXT listener must remain), by flag or environment, and, where it says so, with IncrementalAlterConfigs.")
	section("Groups", KindGroup, "Set with IncrementalAlterConfigs on a group.")
	section("Client metrics", KindClientMetrics, "Set with IncrementalAlterConfigs on a subscription.")
	return b.Bytes()
}
