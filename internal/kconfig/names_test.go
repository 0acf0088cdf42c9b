package kconfig

import (
	"bufio"
	"os"
	"strings"
	"testing"
)

// otherDefaults are the defaults that are not Kafka's, on purpose.
var otherDefaults = map[string]string{
	"node.id":                               "a single broker needs no file",
	"log.dir":                               "relative to where it is started",
	"group.coordinator.rebalance.protocols": "only the classic protocol is served",
	"process.roles":                         "every broker is both",
	"listeners":                             "loopback, as there is no authentication yet",
	"listener.security.protocol.map":        "there is one protocol",
}

// TestEveryKafkaName: each of the broker configs that Kafka 4.3 defines is known, with its type and its default, and may
// change while the broker runs only where Kafka's may. testdata/BrokerConfigs.java wrote them down.
func TestEveryKafkaName(t *testing.T) {
	f, err := os.Open("testdata/kafka43-broker.tsv")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	n := 0
	for sc := bufio.NewScanner(f); sc.Scan(); n++ {
		col := strings.Split(sc.Text(), "\t")
		if len(col) != 6 {
			t.Fatalf("%d columns: %q", len(col), sc.Text())
		}
		d := Find(KindBroker, col[0])
		if d == nil {
			t.Errorf("%s: unknown", col[0])
			continue
		}
		if d.Type.String() != col[1] {
			t.Errorf("%s: type %s, Kafka's is %s", d.Name, d.Type, col[1])
		}
		def := d.Default
		if d.Null {
			def = "<null>"
		} else if col[2] == "<none>" {
			col[2] = ""
		}
		if def != col[2] && otherDefaults[d.Name] == "" {
			t.Errorf("%s: default %q, Kafka's is %q", d.Name, def, col[2])
		}
		if d.Dynamic() && d.Update.String() != col[3] {
			t.Errorf("%s: changes %s, Kafka's %s", d.Name, d.Update, col[3])
		}
		if d.Internal != (col[4] == "internal") {
			t.Errorf("%s: internal %t, Kafka's is %s", d.Name, d.Internal, col[4])
		}
	}
	if n != 360 {
		t.Errorf("%d names, want Kafka's 360", n)
	}
}

// TestRefused: what asks for protection, or for storage elsewhere, is refused by name, never with a secret in the text;
// the defaults, and nothing at all, are taken.
func TestRefused(t *testing.T) {
	for name, value := range map[string]string{
		"ssl.client.auth": "required", "ssl.keystore.location": "/k", "ssl.keystore.password": "hunter2", "sasl.enabled.mechanisms": "PLAIN",
		"sasl.jaas.config": "user=x password=hunter2", "sasl.server.max.receive.size": "7", "sasl.login.refresh.window.factor": "0.7", "ssl.allow.dn.changes": "true",
		"authorizer.class.name": "org.apache.kafka.metadata.authorizer.StandardAuthorizer", "security.inter.broker.protocol": "SSL",
		"remote.log.storage.system.enable": "true", "config.providers": "file", "cordoned.log.dirs": "/d", "client.quota.callback.class": "a.B",
	} {
		err := Validate(map[string]string{name: value})
		if err == nil || !strings.Contains(err.Error(), name) || strings.Contains(err.Error(), "hunter2") {
			t.Errorf("%s=%s: %v", name, value, err)
		}
		d := Find(KindBroker, name)
		if err := Validate(map[string]string{name: d.Default}); err != nil {
			t.Errorf("%s at its default: %v", name, err)
		}
	}
}

// TestInternal: an internal config is described only where it is set.
func TestInternal(t *testing.T) {
	described := func(l Layers) bool {
		for _, e := range l.Describe(KindBroker) {
			if e.Def.Name == "log.initial.task.delay.ms" {
				return true
			}
		}
		return false
	}
	if described(Layers{}) || !described(Layers{Static: map[string]string{"log.initial.task.delay.ms": "5"}}) {
		t.Error("an internal config is described by default, or not when it is set")
	}
}
