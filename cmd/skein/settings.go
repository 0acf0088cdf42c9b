package main

import (
	"errors"
	"fmt"
	"net"
	"net/url"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/spf13/pflag"

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

	wrong map[string]bool // options whose values could not be read; nil: none
}

// option is one of serve's own settings. Its name is the flag, the key in the file and,
// in upper case behind SKEIN_, the environment variable.
type option struct {
	name, value, usage string
	aliases            []string // the Kafka configs that mean the same
	set                func(*settings, string) error
}

var options = []option{
	{name: "data", value: "./skein-data", aliases: []string{"log.dirs", "log.dir"}, usage: "data directories, separated by commas; each holds one log",
		set: func(s *settings, v string) (err error) { s.data, err = splitList(v); return err }},
	{name: "listen", value: "127.0.0.1:9092", aliases: []string{"listeners"}, usage: "address for Kafka clients (there is no authentication yet: think before you leave loopback)",
		set: func(s *settings, v string) (err error) { s.listen, err = hostPort(v); return err }},
	{name: "advertise", aliases: []string{"advertised.listeners"}, usage: "address that clients are told; default: that of --listen",
		set: func(s *settings, v string) (err error) {
			if v != "" {
				s.advertise, err = hostPort(v)
			}
			return err
		}},
	{name: "http", value: "127.0.0.1:9644", usage: "address of /metrics, /livez, /readyz, /debug/pprof and the operators' API",
		set: func(s *settings, v string) (err error) { s.http, err = hostPort(v); return err }},
	{name: "node-id", value: "1", aliases: []string{"node.id", "broker.id"}, usage: "Kafka node id of this broker",
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
	{name: "failover-unwitnessed", aliases: []string{"failover.unwitnessed"}, usage: `what becomes of partitions whose newest log is in none of the data directories: "gap" lets writes go on in another log, ` +
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

// loadSettings lays flags over environment over file over defaults. The error joins every problem, and the settings
// are then what could be read of them.
func loadSettings(flags *pflag.FlagSet, environ []string, file string, sets []string, validate validator) (settings, error) {
	var s settings
	raw, problems := layers(flags, environ, file, sets)
	for _, o := range options {
		v, set := raw[o.name]
		delete(raw, o.name)
		if !set {
			v = given{value: o.value, name: o.name}
		}
		if err := o.set(&s, v.value); err != nil {
			problems = append(problems, fmt.Errorf("%s: %w", v.name, err))
			if s.wrong == nil {
				s.wrong = make(map[string]bool)
			}
			s.wrong[o.name] = true
		}
	}
	s.kafka = make(map[string]string, len(raw))
	for k, v := range raw {
		s.kafka[k] = v.value
	}
	if len(s.kafka) > 0 {
		problems = append(problems, nameVariables(validate(s.kafka), raw))
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
	return errors.Join(append(problems, s.checkCluster(), s.checkQuorum())...)
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
