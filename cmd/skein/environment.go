package main

import (
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/skeinmq/skein/internal/kconfig"
)

// variable is what the names of our environment variables begin with.
const variable = "SKEIN_"

// harness are the variables that this project's own tests and benchmarks read. Whoever has one set does not mean
// the broker.
var harness = []string{
	"SKEIN_ABUSE_LONG", "SKEIN_BENCH_DIR", "SKEIN_BENCH_GB", "SKEIN_BIN", "SKEIN_CLUSTER_CLIENTS", "SKEIN_CLUSTER_DIAL", "SKEIN_CLUSTER_KAFKA",
	"SKEIN_CLUSTER_KEEP", "SKEIN_CLUSTER_LISTEN", "SKEIN_CLUSTER_LONG", "SKEIN_CLUSTER_PORT", "SKEIN_CLUSTER_SEED", "SKEIN_CLUSTER_SET",
	"SKEIN_CLUSTER_TRACE", "SKEIN_CONTROLLER_KILL_DIR", "SKEIN_CRASH_KEEP", "SKEIN_CRASH_KILLS", "SKEIN_CRASH_LOGS", "SKEIN_CRASH_SEED",
	"SKEIN_DEV_DIR", "SKEIN_DEV_FAKE", "SKEIN_ETCD_BIN", "SKEIN_PEER", "SKEIN_REWRITE_METRICS", "SKEIN_SEED", "SKEIN_SWEEP", "SKEIN_TEST_PORTS",
}

// readEnvironment takes SKEIN_NAME: SKEIN_NODE_ID is node-id, SKEIN_NUM_PARTITIONS is num.partitions. Unknown
// names are caught where all Kafka names are checked.
func readEnvironment(environ []string) layer {
	l := layer{}
	for _, kv := range environ {
		k, v, _ := strings.Cut(kv, "=")
		name, ok := strings.CutPrefix(k, variable)
		if !ok || name == "CONFIG" || slices.Contains(harness, k) {
			continue
		}
		name = strings.ToLower(name)
		key := strings.ReplaceAll(name, "_", ".")
		if i := slices.IndexFunc(options, func(o option) bool { return o.name == strings.ReplaceAll(name, "_", "-") }); i >= 0 {
			key = options[i].name
		} else if kconfig.Find(kconfig.KindBroker, key) == nil && serviceLink(k, v) {
			continue
		}
		l[key] = given{value: v, name: k}
	}
	return l
}

// serviceLinks are the variables that Kubernetes gives each pod for each Service of its namespace, here of those
// whose names begin with "skein"; see "Accessing the Service" in its documentation.
var serviceLinks = []struct {
	name *regexp.Regexp
	is   func(string) bool
}{
	{regexp.MustCompile(`_SERVICE_HOST$`), isAddress},
	{regexp.MustCompile(`_SERVICE_PORT(_[A-Z0-9_]+)?$`), isPort},
	{regexp.MustCompile(`_PORT(_\d+_(TCP|UDP|SCTP))?$`), isPortURL},
	{regexp.MustCompile(`_PORT_\d+_(TCP|UDP|SCTP)_PROTO$`), isProtocol},
	{regexp.MustCompile(`_PORT_\d+_(TCP|UDP|SCTP)_PORT$`), isPort},
	{regexp.MustCompile(`_PORT_\d+_(TCP|UDP|SCTP)_ADDR$`), isAddress},
}

// serviceLink reports whether a variable is one that Kubernetes gave, by its name and the form of its value: a
// setting misspelled is still told.
func serviceLink(name, value string) bool {
	for _, l := range serviceLinks {
		if l.name.MatchString(name) && l.is(value) {
			return true
		}
	}
	return false
}

func isAddress(v string) bool { _, err := netip.ParseAddr(v); return err == nil }

func isPort(v string) bool { n, err := strconv.ParseUint(v, 10, 16); return err == nil && n > 0 }

func isProtocol(v string) bool { return v == "tcp" || v == "udp" || v == "sctp" }

func isPortURL(v string) bool {
	protocol, addr, ok := strings.Cut(v, "://")
	_, err := netip.ParseAddrPort(addr)
	return ok && isProtocol(protocol) && err == nil
}

// nameVariables puts the name of the environment variable before each problem of a config that came from one:
// nobody who reads "unknown config peer" thinks of SKEIN_PEER.
func nameVariables(err error, from layer) error {
	list := []error{err}
	if joined, ok := err.(interface{ Unwrap() []error }); ok {
		list = slices.Clone(joined.Unwrap())
	}
	for i, e := range list {
		about := func(k string) bool { return false }
		switch e := e.(type) {
		case *kconfig.UnknownError:
			about = func(k string) bool { return k == e.Name }
		case *kconfig.ValueError:
			about = func(k string) bool { return k == e.Name }
		case *kconfig.ConflictError: // of several, which it names
			words := strings.FieldsFunc(e.Error(), func(r rune) bool { return strings.ContainsRune(" ():,", r) })
			about = func(k string) bool { return slices.Contains(words, k) }
		}
		for _, k := range slices.Sorted(maps.Keys(from)) {
			if v := from[k].name; strings.HasPrefix(v, variable) && about(k) {
				list[i] = fmt.Errorf("%s: %w", v, list[i])
			}
		}
	}
	return errors.Join(list...)
}
