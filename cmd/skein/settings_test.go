package main

import (
	"errors"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"github.com/spf13/pflag"

	"github.com/skeinmq/skein/internal/ident"
	"github.com/skeinmq/skein/internal/kconfig"
)

// knownConfigs stands in for the real table: it knows two configs.
func knownConfigs(m map[string]string) error {
	var problems []error
	for k, v := range m {
		switch {
		case k != "num.partitions" && k != "message.max.bytes":
			problems = append(problems, errors.New("unknown config "+k))
		case strings.Trim(v, "0123456789") != "":
			problems = append(problems, errors.New(k+": not a number: "+v))
		}
	}
	return errors.Join(problems...)
}

func flagsOf(t *testing.T, args ...string) *pflag.FlagSet {
	t.Helper()
	fl := pflag.NewFlagSet("serve", pflag.ContinueOnError)
	for _, o := range options {
		fl.String(o.name, o.value, o.usage)
	}
	if err := fl.Parse(args); err != nil {
		t.Fatal(err)
	}
	return fl
}

func TestSettingsLayers(t *testing.T) {
	file := filepath.Join(t.TempDir(), "skein.yaml")
	text := "data: [/a, /b]\nnode.id: 4\nnum.partitions: 3\nmessage.max.bytes: 5000\n"
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	got, err := loadSettings(flagsOf(t, "--node-id", "9"), []string{"SKEIN_NUM_PARTITIONS=6", "SKEIN_HTTP=127.0.0.1:1", "PATH=/bin"}, file,
		[]string{"message.max.bytes=7000"}, knownConfigs)
	if err != nil {
		t.Fatal(err)
	}
	want := settings{
		data: []string{"/a", "/b"}, listen: "127.0.0.1:9092", http: "127.0.0.1:1", nodeID: 9, etcdQuota: 2 << 30,
		kafka: map[string]string{"num.partitions": "6", "message.max.bytes": "7000"},
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got  %+v\nwant %+v", got, want)
	}
}

// TestSettingsLayersByAnyName: an upper layer wins by whichever of its names it calls a setting.
func TestSettingsLayersByAnyName(t *testing.T) {
	file := filepath.Join(t.TempDir(), "skein.yaml")
	if err := os.WriteFile(file, []byte("listen: 127.0.0.1:1\ndata: /file\nnode-id: 1\nadvertise: a:1\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	env := []string{"SKEIN_LISTENERS=PLAINTEXT://127.0.0.1:2", "SKEIN_LOG_DIRS=/env", "SKEIN_BROKER_ID=2", "SKEIN_ADVERTISED_LISTENERS=PLAINTEXT://a:2"}
	sets := []string{"listeners=PLAINTEXT://127.0.0.1:3", "log.dir=/set", "node.id=3", "advertised.listeners=PLAINTEXT://a:3"}
	type result struct {
		listen, data, advertise string
		node                    ident.Broker
	}
	for _, c := range []struct {
		name      string
		env, sets []string
		flags     []string
		want      result
	}{
		{"environment over file", env, nil, nil, result{"127.0.0.1:2", "/env", "a:2", 2}},
		{"--set over environment", env, sets, nil, result{"127.0.0.1:3", "/set", "a:3", 3}},
		{"flags over --set", env, sets, []string{"--listen=127.0.0.1:4", "--data=/flag", "--node-id=4", "--advertise=a:4"}, result{"127.0.0.1:4", "/flag", "a:4", 4}},
	} {
		s, err := loadSettings(flagsOf(t, c.flags...), c.env, file, c.sets, kconfig.Validate)
		if err != nil {
			t.Errorf("%s: %v", c.name, err)
			continue
		}
		if got := (result{s.listen, s.data[0], s.advertise, s.nodeID}); got != c.want {
			t.Errorf("%s: got %+v, want %+v", c.name, got, c.want)
		}
	}
}

// TestAliases: within a layer all names of one setting agree, as docs/configs.md says.
func TestAliases(t *testing.T) {
	for _, c := range []struct {
		sets []string
		data string
		node ident.Broker
		err  string
	}{
		{sets: []string{"log.dir=/one", "broker.id=5"}, data: "/one", node: 5},
		{sets: []string{"log.dir=/one", "log.dirs=/two"}, data: "/two", node: 1},
		{sets: []string{"log.dir=/one", "log.dirs="}, data: "/one", node: 1},
		{sets: []string{"broker.id=-1", "node.id=7", "log.dir=/one"}, data: "/one", node: 7},
		{sets: []string{"broker.id=7", "node-id=07", "log.dir=/one"}, data: "/one", node: 7},
		{sets: []string{"listen=127.0.0.1:9092", "listeners=PLAINTEXT://127.0.0.1:9092", "log.dir=/one"}, data: "/one", node: 1},
		{sets: []string{"broker.id=5", "node.id=6"}, err: "node.id (6) and broker.id (5) must agree"},
		{sets: []string{"data=/a", "log.dirs=/b"}, err: "data (/a) and log.dirs (/b) must agree"},
		{sets: []string{"node.id=x"}, err: `node.id: "x" is not a node id`},
	} {
		s, err := loadSettings(flagsOf(t), nil, "", c.sets, kconfig.Validate)
		if c.err != "" {
			if err == nil || !strings.Contains(err.Error(), c.err) {
				t.Errorf("%q: %v, want %q", c.sets, err, c.err)
			}
			continue
		}
		if err != nil || s.data[0] != c.data || s.nodeID != c.node || len(s.kafka) > 0 {
			t.Errorf("%q: data %q, node %d, kafka %v, %v; want %q, %d", c.sets, s.data, s.nodeID, s.kafka, err, c.data, c.node)
		}
	}
}

// TestWorkingConfigsChangeSomething: a broker config that the table says works changes what the broker computes
// from its configs or, if it is none of those, a setting of serve.
func TestWorkingConfigsChangeSomething(t *testing.T) {
	defaults, err := loadSettings(flagsOf(t), nil, "", nil, kconfig.Validate)
	if err != nil {
		t.Fatal(err)
	}
	own := func(static map[string]string) (kconfig.BrokerConfig, kconfig.TopicConfig) {
		l := kconfig.Layers{Static: static}
		b := l.BrokerConfig()
		b.NodeID = 0 // that is serve's to say
		return b, l.Topic()
	}
	broker, topic := own(nil)
	for _, d := range kconfig.Defs(kconfig.KindBroker) {
		if d.Effect != kconfig.Works || d.Dynamic() {
			continue
		}
		v := map[kconfig.Type]string{kconfig.Boolean: "true", kconfig.Int: "7777", kconfig.Short: "2", kconfig.Long: "7777777", kconfig.List: "PLAINTEXT://h:77"}[d.Type]
		if v == "" {
			v = "gzip"
		}
		if d.Type == kconfig.Boolean && d.Default == "true" {
			v = "false"
		}
		if b, tc := own(map[string]string{d.Name: v}); !reflect.DeepEqual(b, broker) || !reflect.DeepEqual(tc, topic) {
			continue
		}
		s, err := loadSettings(flagsOf(t), nil, "", []string{d.Name + "=" + v}, kconfig.Validate)
		s.kafka = defaults.kafka
		if err != nil || reflect.DeepEqual(s, defaults) {
			t.Errorf("%s=%s changes nothing (%v), but the table says that it does", d.Name, v, err)
		}
	}
	for _, o := range options {
		for _, a := range o.aliases {
			if d := kconfig.Find(kconfig.KindBroker, a); d != nil && d.Effect == kconfig.Stored {
				t.Errorf("%s means --%s, but the table says that it is only stored", a, o.name)
			}
		}
	}
}

func TestSettingsNameEveryProblem(t *testing.T) {
	file := filepath.Join(t.TempDir(), "skein.yaml")
	if err := os.WriteFile(file, []byte("nonsense: 1\nnum.partitions: {a: b}\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	_, err := loadSettings(flagsOf(t, "--listen", "nowhere", "--data", "/x,/x", "--etcd", "ftp://a"),
		[]string{"SKEIN_NODE_ID=minus"}, file, []string{"novalue"}, knownConfigs)
	if err == nil {
		t.Fatal("no error")
	}
	for _, want := range []string{"unknown config nonsense", "num.partitions: want a value", `"nowhere" is not HOST:PORT`,
		"/x and /x are one directory", `"ftp://a"`, `SKEIN_NODE_ID: "minus" is not a node id`, "--set novalue"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("the error does not say %q:\n%v", want, err)
		}
	}
}

func TestHostPort(t *testing.T) {
	for in, want := range map[string]string{
		"127.0.0.1:9092": "127.0.0.1:9092", "PLAINTEXT://h:1": "h:1", ":9092": ":9092", "[::1]:9": "[::1]:9",
		"SSL://h:1": "", "h": "", "h:99999": "", "h:x": "",
	} {
		got, err := hostPort(in)
		if got != want || (err != nil) != (want == "") {
			t.Errorf("hostPort(%q) = %q, %v; want %q", in, got, err, want)
		}
	}
}

func TestHumanBytes(t *testing.T) {
	for in, want := range map[int64]string{0: "0 B", 1023: "1023 B", 1536: "1.5 KiB", 512 << 20: "512.0 MiB"} {
		if got := humanBytes(in); got != want {
			t.Errorf("humanBytes(%d) = %q, want %q", in, got, want)
		}
	}
}
