package main

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/magiconair/properties"
)

// What is needed to take over the server.properties of an Apache Kafka broker.

// readProperties reads a file as Java's Properties does, by its own rules of escapes and continued lines, and in Latin-1.
func readProperties(path string, text []byte, into layer) error {
	loader := properties.Loader{Encoding: properties.ISO_8859_1, DisableExpansion: true}
	p, err := loader.LoadBytes(text)
	if err != nil {
		return fmt.Errorf("read config %s: %w", path, err)
	}
	for k, v := range p.Map() {
		into[k] = given{value: strings.TrimSpace(v), name: k}
	}
	return nil
}

// clientListeners leaves of Kafka's lists of listeners the one that clients use: those of controllers, and what is told
// of them, are not served here.
func (l layer) clientListeners() error {
	var problems []error
	for _, name := range []string{"listeners", "advertised.listeners"} {
		v, ok := l[name]
		if !ok || !strings.Contains(v.value, "://") {
			continue
		}
		one, err := l.clientListener(v.value)
		if err != nil {
			problems = append(problems, fmt.Errorf("%s: %w", v.name, err))
			delete(l, name)
			continue
		}
		v.value = one
		l[name] = v
	}
	return errors.Join(problems...)
}

// clientListener returns PLAINTEXT://HOST:PORT of the one listener in a list that is no controller's.
func (l layer) clientListener(list string) (string, error) {
	controllers := trimmed(l["controller.listener.names"].value)
	var left []string
	for _, e := range trimmed(list) {
		if name, _, _ := strings.Cut(e, "://"); !slices.Contains(controllers, name) {
			left = append(left, e)
		}
	}
	if len(left) != 1 {
		return "", fmt.Errorf("%q: one listener for clients is served, not %d", list, len(left))
	}
	name, addr, _ := strings.Cut(left[0], "://")
	protocol := name
	for _, e := range trimmed(l["listener.security.protocol.map"].value) {
		if n, p, ok := strings.Cut(e, ":"); ok && n == name {
			protocol = p
		}
	}
	if protocol != "PLAINTEXT" {
		return "", fmt.Errorf("%q is a listener of protocol %s: only PLAINTEXT is served, there is neither TLS nor authentication of clients yet", left[0], protocol)
	}
	return "PLAINTEXT://" + addr, nil
}

// trimmed splits a list at commas; an empty one has no elements.
func trimmed(list string) (out []string) {
	for e := range strings.SplitSeq(list, ",") {
		if e = strings.TrimSpace(e); e != "" {
			out = append(out, e)
		}
	}
	return out
}

// checkQuorum refuses what a broker of a Kafka cluster says of its controllers where nothing says which brokers of Skein
// form one: each of them would start a cluster of its own.
func (s settings) checkQuorum() error {
	if len(s.peers) > 0 || len(s.join) > 0 || len(s.etcd) > 0 {
		return nil
	}
	var problems []error
	for _, name := range []string{"controller.quorum.voters", "controller.quorum.bootstrap.servers"} {
		if n := len(trimmed(s.kafka[name])); n > 1 {
			problems = append(problems, fmt.Errorf("%s names %d controllers: give the brokers of the cluster with --peers, or one of them with --join", name, n))
		}
	}
	return errors.Join(problems...)
}
