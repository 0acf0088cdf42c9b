package main

import (
	"errors"
	"fmt"
	"maps"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/pflag"
	"go.yaml.in/yaml/v3"

	"github.com/skeinmq/skein/broker"
	"github.com/skeinmq/skein/internal/ident"
	"github.com/skeinmq/skein/internal/peer"
	"github.com/skeinmq/skein/queuemapper/embedded"
)

// settings is what `skein serve` runs with, after flags, environment, file and defaults
// have been laid over each other in that order.
type settings struct {
	data      []string // data directories, each one log; the first also holds etcd and raft
	listen    string
	advertise string
	http      string
	nodeID    ident.Broker
	etcd      []string // endpoints; empty: embedded
	failover  broker.Unwitnessed
	etcdTLS   peer.TLSFiles // of an external etcd
	etcdQuota int64         // bytes, of the embedded one

	internal    string     // address of the internal listener; "": see listenInternal
	advertiseIn string     // address that other brokers are told; "": that of the listener
	peers       []peerAddr // of a cluster that forms with a list; the first 1, 3 or 5 are voters
	join        []string   // internal addresses of a cluster's brokers
	internalTLS peer.TLSFiles
	kafka       map[string]string // broker configs by Kafka name
}

// option is one of serve's own settings. Its name is the flag, the key in the file and,
// in upper case behind SKEIN_, the environment variable.
type option struct {
	name, value, usage string
	alias              string // the Kafka config that means the same
	set                func(*settings, string) error
}

var options = []option{
	{name: "data", value: "./skein-data", alias: "log.dirs", usage: "data directories, separated by commas; each holds one log",
		set: func(s *settings, v string) (err error) { s.data, err = splitList(v); return err }},
	{name: "listen", value: "127.0.0.1:9092", alias: "listeners", usage: "address for Kafka clients (there is no authentication yet: think before you leave loopback)",
		set: func(s *settings, v string) (err error) { s.listen, err = hostPort(v); return err }},
	{name: "advertise", alias: "advertised.listeners", usage: "address that clients are told; default: that of --listen",
		set: func(s *settings, v string) (err error) {
			if v != "" {
				s.advertise, err = hostPort(v)
			}
			return err
		}},
	{name: "http", value: "127.0.0.1:9644", usage: "address of /metrics, /livez, /readyz, /debug/pprof and the operators' API",
		set: func(s *settings, v string) (err error) { s.http, err = hostPort(v); return err }},
	{name: "node-id", value: "1", alias: "node.id", usage: "Kafka node id of this broker",
		set: func(s *settings, v string) error {
			n, err := strconv.ParseInt(v, 10, 32)
			if err != nil || n < 0 {
				return fmt.Errorf("%q is not a node id (0 or more)", v)
			}
			s.nodeID = ident.Broker(n)
			return nil
		}},
	{name: "etcd", value: "embedded", usage: `where the map lives: "embedded", or the URLs of an etcd, separated by commas`,
		set: func(s *settings, v string) (err error) { s.etcd, err = etcdEndpoints(v); return err }},
	{name: "etcd-ca", usage: "CA file of an external etcd (PEM)", set: func(s *settings, v string) error { s.etcdTLS.CA = v; return nil }},
	{name: "etcd-cert", usage: "client certificate for an external etcd (PEM)", set: func(s *settings, v string) error { s.etcdTLS.Cert = v; return nil }},
	{name: "etcd-key", usage: "its key", set: func(s *settings, v string) error { s.etcdTLS.Key = v; return nil }},
	{name: "etcd-quota-bytes", value: strconv.Itoa(embedded.QuotaDefault), usage: "size in bytes of the embedded etcd's database at which the map takes no more changes; the same at each voter",
		set: func(s *settings, v string) (err error) {
			if s.etcdQuota, err = strconv.ParseInt(v, 10, 64); err != nil || s.etcdQuota < embedded.QuotaLeast {
				return fmt.Errorf("%q is not a number of bytes from %d", v, embedded.QuotaLeast)
			}
			return nil
		}},
	{name: "peers", usage: "brokers that form a cluster: ID@HOST:PORT,… with their internal addresses, this one included, the same list at each; the first 1, 3 or 5 vote",
		set: func(s *settings, v string) (err error) { s.peers, err = parsePeers(v); return err }},
	{name: "join", usage: "internal addresses of brokers of a cluster to join, separated by commas; looked at by a fresh directory only",
		set: func(s *settings, v string) (err error) { s.join, err = addresses(v); return err }},
	{name: "internal", usage: "address for other brokers; default: this broker's in --peers; with --join " + internalDefault + "; else none",
		set: func(s *settings, v string) (err error) { s.internal, err = optionalAddress(v); return err }},
	{name: "internal-advertise", usage: "address that other brokers are told; default: that of --peers or --internal",
		set: func(s *settings, v string) (err error) { s.advertiseIn, err = optionalAddress(v); return err }},
	{name: "internal-tls-cert", usage: "certificate of this broker between brokers (PEM), for both directions; with key and CA: mutual TLS",
		set: func(s *settings, v string) error { s.internalTLS.Cert = v; return nil }},
	{name: "internal-tls-key", usage: "its key", set: func(s *settings, v string) error { s.internalTLS.Key = v; return nil }},
	{name: "internal-tls-ca", usage: "CA file that brokers' certificates are checked with", set: func(s *settings, v string) error { s.internalTLS.CA = v; return nil }},
	{name: "failover-unwitnessed", alias: "failover.unwitnessed", usage: `what becomes of partitions whose newest log is in none of the data directories: "gap" lets writes go on in another log, ` +
		`leaving a hole in the offsets and forgetting idempotent producers once; "wait" refuses them until it is back; default: gap for a broker alone with its embedded etcd, else wait`,
		set: func(s *settings, v string) error {
			switch s.failover = broker.Unwitnessed(v); s.failover {
			case "", broker.UnwitnessedGap, broker.UnwitnessedWait:
				return nil
			}
			return fmt.Errorf("%q is neither \"gap\" nor \"wait\"", v)
		}},
}

// validator checks broker configs by Kafka name; it joins all problems and names each key.
type validator func(map[string]string) error

// loadSettings lays flags over environment over file over defaults. The error joins every problem.
func loadSettings(flags *pflag.FlagSet, environ []string, file string, sets []string, validate validator) (settings, error) {
	s := settings{kafka: map[string]string{}}
	raw := map[string]string{} // by option name or Kafka name
	var problems []error

	if file != "" {
		problems = append(problems, readConfigFile(file, raw))
	}
	problems = append(problems, readEnvironment(environ, raw))
	for _, kv := range sets {
		k, v, ok := strings.Cut(kv, "=")
		if !ok {
			problems = append(problems, fmt.Errorf("--set %s: want NAME=VALUE", kv))
			continue
		}
		raw[k] = v
	}
	for _, o := range options {
		if f := flags.Lookup(o.name); f != nil && f.Changed {
			raw[o.name] = f.Value.String()
			delete(raw, o.alias)
		}
	}
	for _, o := range options {
		v, set := raw[o.name]
		if a, ok := raw[o.alias]; !set && ok {
			v, set = a, true
		}
		delete(raw, o.name)
		delete(raw, o.alias)
		if !set {
			v = o.value
		}
		if err := o.set(&s, v); err != nil {
			problems = append(problems, fmt.Errorf("%s: %w", o.name, err))
		}
	}
	s.kafka = raw
	if len(s.kafka) > 0 {
		problems = append(problems, validate(s.kafka))
	}
	problems = append(problems, s.check())
	return s, errors.Join(problems...)
}

// check looks at settings together.
func (s settings) check() error {
	var problems []error
	seen := map[string]string{}
	for _, d := range s.data {
		abs, err := filepath.Abs(d)
		if err != nil {
			problems = append(problems, fmt.Errorf("data: %w", err))
			continue
		}
		if real, err := filepath.EvalSymlinks(abs); err == nil {
			abs = real
		}
		if first, ok := seen[abs]; ok {
			problems = append(problems, fmt.Errorf("data: %s and %s are one directory", first, d))
		}
		seen[abs] = d
	}
	if host, _, err := net.SplitHostPort(s.listen); err == nil && s.advertise == "" {
		if ip := net.ParseIP(host); host == "" || ip != nil && ip.IsUnspecified() {
			problems = append(problems, fmt.Errorf("listen %s: clients cannot be told an unspecified address: give --advertise", s.listen))
		}
	}
	if s.listen != "" && s.listen == s.http && !strings.HasSuffix(s.listen, ":0") {
		problems = append(problems, fmt.Errorf("listen and http are both %s", s.listen))
	}
	return errors.Join(append(problems, s.checkCluster())...)
}

func readConfigFile(path string, into map[string]string) error {
	text, err := os.ReadFile(path)
	if err != nil {
		return fmt.Errorf("read config: %w", err)
	}
	var doc map[string]any
	if err := yaml.Unmarshal(text, &doc); err != nil {
		return fmt.Errorf("read config %s: %w", path, err)
	}
	var problems []error
	for _, k := range slices.Sorted(maps.Keys(doc)) {
		v, err := scalar(doc[k])
		if err != nil {
			problems = append(problems, fmt.Errorf("%s: %s: %w", path, k, err))
			continue
		}
		into[k] = v
	}
	return errors.Join(problems...)
}

// scalar renders a YAML value as Kafka's text form: lists are joined by commas.
func scalar(v any) (string, error) {
	switch v := v.(type) {
	case nil:
		return "", nil
	case string:
		return v, nil
	case bool, int, int64, uint64:
		return fmt.Sprint(v), nil
	case float64:
		return strconv.FormatFloat(v, 'f', -1, 64), nil
	case []any:
		parts := make([]string, len(v))
		for i, e := range v {
			p, err := scalar(e)
			if err != nil {
				return "", err
			}
			parts[i] = p
		}
		return strings.Join(parts, ","), nil
	}
	return "", fmt.Errorf("want a value or a list of values, not %T (write Kafka names flat: num.partitions: 3)", v)
}

// readEnvironment takes SKEIN_NAME: SKEIN_NODE_ID is node-id, SKEIN_NUM_PARTITIONS is
// num.partitions. Unknown names are caught where all Kafka names are checked.
func readEnvironment(environ []string, into map[string]string) error {
	for _, kv := range environ {
		k, v, _ := strings.Cut(kv, "=")
		name, ok := strings.CutPrefix(k, "SKEIN_")
		if !ok || name == "CONFIG" {
			continue
		}
		name = strings.ToLower(name)
		if i := slices.IndexFunc(options, func(o option) bool { return o.name == strings.ReplaceAll(name, "_", "-") }); i >= 0 {
			into[options[i].name] = v
			continue
		}
		into[strings.ReplaceAll(name, "_", ".")] = v
	}
	return nil
}

func splitList(v string) ([]string, error) {
	var out []string
	for part := range strings.SplitSeq(v, ",") {
		part = strings.TrimSpace(part)
		if part == "" {
			return nil, fmt.Errorf("%q has an empty entry", v)
		}
		out = append(out, part)
	}
	return out, nil
}

// hostPort accepts HOST:PORT and Kafka's PLAINTEXT://HOST:PORT.
func hostPort(v string) (string, error) {
	addr, scheme := v, ""
	if s, rest, ok := strings.Cut(v, "://"); ok {
		scheme, addr = s, rest
	}
	if scheme != "" && scheme != "PLAINTEXT" {
		return "", fmt.Errorf("%q: only PLAINTEXT listeners are served", v)
	}
	host, port, err := net.SplitHostPort(addr)
	if err != nil {
		return "", fmt.Errorf("%q is not HOST:PORT", v)
	}
	if n, err := strconv.ParseUint(port, 10, 16); err != nil {
		return "", fmt.Errorf("%q: port %q is not between 0 and 65535", v, port)
	} else {
		port = strconv.FormatUint(n, 10)
	}
	return net.JoinHostPort(host, port), nil
}

func etcdEndpoints(v string) ([]string, error) {
	if v == "embedded" {
		return nil, nil
	}
	list, err := splitList(v)
	if err != nil {
		return nil, err
	}
	for _, e := range list {
		u, err := url.Parse(e)
		if err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" {
			return nil, fmt.Errorf(`%q is neither "embedded" nor an http(s) URL`, e)
		}
	}
	return list, nil
}
