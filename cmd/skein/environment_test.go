package main

import (
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/skeinmq/skein/internal/kconfig"
)

// serviceEnvironment is what a pod beside a Service named skein, with one named port, is given.
var serviceEnvironment = []string{
	"SKEIN_SERVICE_HOST=10.0.0.11", "SKEIN_SERVICE_PORT=9092", "SKEIN_SERVICE_PORT_KAFKA=9092", "SKEIN_PORT=tcp://10.0.0.11:9092",
	"SKEIN_PORT_9092_TCP=tcp://10.0.0.11:9092", "SKEIN_PORT_9092_TCP_PROTO=tcp", "SKEIN_PORT_9092_TCP_PORT=9092", "SKEIN_PORT_9092_TCP_ADDR=10.0.0.11",
	"SKEIN_HTTP_SERVICE_HOST=fd00::11", "SKEIN_HTTP_PORT=tcp://[fd00::11]:9644", // of another one, named skein-http
}

func TestEnvironmentOfOthersIsNoSetting(t *testing.T) {
	environ := slices.Concat(serviceEnvironment, []string{"SKEIN_CONFIG=x", "SKEIN_PEER=/x", "SKEIN_CLUSTER_LONG=1", "SKEIN_NODE_ID=4"})
	s, err := loadSettings(flagsOf(t), environ, "", nil, kconfig.Validate)
	if err != nil || len(s.kafka) > 0 || s.nodeID != 4 {
		t.Errorf("broker %d, configs %v, error %v", s.nodeID, s.kafka, err)
	}
}

// TestEnvironmentErrorsNameTheVariable: also where the name has the form of a service link and the value has not.
func TestEnvironmentErrorsNameTheVariable(t *testing.T) {
	_, err := loadSettings(flagsOf(t), []string{
		"SKEIN_NUM_PARTITION=3", "SKEIN_SERVICE_PORT=kafka", "SKEIN_SERVICE_HOST=myhost", "SKEIN_PORT=9092", "SKEIN_NUM_PARTITIONS=many", "SKEIN_HTTP=nowhere",
		"SKEIN_LOG_DIR=a", "SKEIN_DATA=b",
	}, "", []string{"other.key=1"}, kconfig.Validate)
	if err == nil {
		t.Fatal("no error")
	}
	for _, want := range []string{"SKEIN_NUM_PARTITION: ", "SKEIN_SERVICE_PORT: ", "SKEIN_SERVICE_HOST: ", "SKEIN_PORT: ", "SKEIN_NUM_PARTITIONS: ", "SKEIN_HTTP: ",
		"SKEIN_DATA (b) and SKEIN_LOG_DIR (a) must agree", "\nUnknown broker config name: other.key"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("the error does not say %q:\n%v", want, err)
		}
	}
	_, err = loadSettings(flagsOf(t), []string{"SKEIN_GROUP_MIN_SESSION_TIMEOUT_MS=2000000"}, "", nil, kconfig.Validate)
	if err == nil || !strings.HasPrefix(err.Error(), "SKEIN_GROUP_MIN_SESSION_TIMEOUT_MS: group.min") {
		t.Errorf("a conflict: %v", err)
	}
}

// TestHarnessVariables: a variable that something in this repository reads is a setting or in the list of those
// that are none, and nothing in that list could be a setting.
func TestHarnessVariables(t *testing.T) {
	known := map[string]bool{"SKEIN_CONFIG": true}
	setting := func(v string) bool {
		l := readEnvironment([]string{v + "=x"})
		for k := range l {
			return slices.ContainsFunc(options, func(o option) bool { return o.name == k }) || kconfig.Find(kconfig.KindBroker, k) != nil
		}
		return false
	}
	for _, v := range harness {
		known[v] = true
		key := strings.ToLower(strings.TrimPrefix(v, variable))
		if kconfig.Find(kconfig.KindBroker, strings.ReplaceAll(key, "_", ".")) != nil ||
			slices.ContainsFunc(options, func(o option) bool { return o.name == strings.ReplaceAll(key, "_", "-") }) {
			t.Errorf("%s is a setting", v)
		}
	}
	reads := regexp.MustCompile(`"(SKEIN_[A-Z0-9_]+)`)
	err := filepath.WalkDir("../..", func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || filepath.Ext(path) != ".go" || strings.HasPrefix(filepath.Base(path), "environment") {
			return err
		}
		text, err := os.ReadFile(path)
		for _, m := range reads.FindAllStringSubmatch(string(text), -1) {
			if v := m[1]; !known[v] && !setting(v) {
				t.Errorf("%s reads %s, which skein serve would take for a setting", path, v)
			}
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}

func TestChildrenHaveNoneOfOurVariables(t *testing.T) {
	t.Setenv("SKEIN_NODE_ID", "7")
	env := devChild("skein", nil).Environ()
	if len(env) == 0 || slices.ContainsFunc(env, func(kv string) bool { return strings.HasPrefix(kv, variable) }) {
		t.Error("each broker of skein dev would be told SKEIN_NODE_ID")
	}
}
