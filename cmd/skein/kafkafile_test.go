package main

import (
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"github.com/skeinmq/skein/internal/kconfig"
)

// stockProperties are the settings of config/server.properties as Apache Kafka 4.3 comes with it.
const stockProperties = `# comments are left out but for this one
process.roles=broker,controller
node.id=1
controller.quorum.bootstrap.servers=localhost:9093
listeners=PLAINTEXT://:9092,CONTROLLER://:9093
inter.broker.listener.name=PLAINTEXT
advertised.listeners=PLAINTEXT://localhost:9092,CONTROLLER://localhost:9093
controller.listener.names=CONTROLLER
listener.security.protocol.map=CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT,SSL:SSL,SASL_PLAINTEXT:SASL_PLAINTEXT,SASL_SSL:SASL_SSL
num.network.threads=3
num.io.threads=8
socket.send.buffer.bytes=102400
socket.receive.buffer.bytes=102400
socket.request.max.bytes=104857600
log.dirs=/tmp/kraft-combined-logs
num.partitions=1
num.recovery.threads.per.data.dir=2
offsets.topic.replication.factor=1
share.coordinator.state.topic.replication.factor=1
share.coordinator.state.topic.min.isr=1
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
log.retention.hours=168
log.segment.bytes=1073741824
log.retention.check.interval.ms=300000
`

// loadProperties loads settings from a properties file of that text.
func loadProperties(t *testing.T, text string, args ...string) (settings, error) {
	t.Helper()
	file := filepath.Join(t.TempDir(), "server.properties")
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return loadSettings(flagsOf(t, args...), nil, file, nil, kconfig.Validate)
}

func TestStockServerProperties(t *testing.T) {
	s, err := loadProperties(t, stockProperties)
	if err != nil {
		t.Fatal(err)
	}
	if s.listen != ":9092" || s.advertise != "localhost:9092" || s.nodeID != 1 || !reflect.DeepEqual(s.data, []string{"/tmp/kraft-combined-logs"}) {
		t.Errorf("got %+v", s)
	}
	if s.kafka["log.retention.hours"] != "168" || s.kafka["controller.quorum.bootstrap.servers"] != "localhost:9093" {
		t.Errorf("configs %v", s.kafka)
	}
}

// TestPropertiesForm: the file is read as Java reads it.
func TestPropertiesForm(t *testing.T) {
	s, err := loadProperties(t, "! a comment\n num.partitions : 3 \nlog.dirs = /a, \\\n   /b\nbroker.rack=\\u0061${x}\nconnections.max.idle.ms 7\n")
	if err != nil {
		t.Fatal(err)
	}
	want := map[string]string{"num.partitions": "3", "broker.rack": "a${x}", "connections.max.idle.ms": "7"}
	if !reflect.DeepEqual(s.kafka, want) || !reflect.DeepEqual(s.data, []string{"/a", "/b"}) {
		t.Errorf("got %q, data %q", s.kafka, s.data)
	}
}

// TestKafkaFileRefused: what would start without the protection, or the cluster, that the file asks for.
func TestKafkaFileRefused(t *testing.T) {
	for text, want := range map[string]string{
		"listeners=SSL://:9092": "protocol SSL",
		"listeners=OUT://:9092\nlistener.security.protocol.map=OUT:SASL_SSL": "protocol SASL_SSL",
		"listeners=OUT://:9092": "protocol OUT",
		"listeners=PLAINTEXT://:9092,IN://:9094\nlistener.security.protocol.map=IN:PLAINTEXT": "one listener",
		"listeners=CONTROLLER://:9093\ncontroller.listener.names=CONTROLLER":                  "one listener",
		"controller.quorum.voters=1@a:1,2@b:1,3@c:1":                                          "--peers",
		"ssl.keystore.location=/k":                                                            "ssl.keystore.location",
		"zookeeper.connect=a:2181":                                                            "zookeeper.connect",
	} {
		if _, err := loadProperties(t, text+"\n", "--advertise", "a:1"); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, want %q", text, err, want)
		}
	}
	if s, err := loadProperties(t, "listeners=OUT://h:1\nlistener.security.protocol.map=OUT:PLAINTEXT\n"); err != nil || s.listen != "h:1" {
		t.Errorf("a listener of another name: %q, %v", s.listen, err)
	}
	if _, err := loadProperties(t, "controller.quorum.voters=1@a:1,2@b:1,3@c:1\n", "--etcd", "http://127.0.0.1:1"); err != nil {
		t.Errorf("voters with a cluster's etcd: %v", err)
	}
}
