package main

import (
	"errors"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"github.com/spf13/pflag"
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
		"/x and /x are one directory", `"ftp://a"`, `"minus" is not a node id`, "--set novalue"} {
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
