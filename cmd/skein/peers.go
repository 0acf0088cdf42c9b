package main

import (
	"errors"
	"fmt"
	"net"
	"strconv"
	"strings"

	"github.com/skeinmq/skein/internal/ident"
)

// internalDefault is where a broker that joins a cluster listens for others.
const internalDefault = "127.0.0.1:9192"

// maxVoters is how many brokers of a list vote at most.
const maxVoters = 5

// peerAddr is one entry of --peers.
type peerAddr struct {
	id   ident.Broker
	addr string
}

func parsePeers(v string) ([]peerAddr, error) {
	if v == "" {
		return nil, nil
	}
	list, err := splitList(v)
	if err != nil {
		return nil, err
	}
	var out []peerAddr
	ids, addrs := map[ident.Broker]bool{}, map[string]bool{}
	for _, e := range list {
		num, addr, ok := strings.Cut(e, "@")
		id, err := strconv.ParseInt(num, 10, 32)
		if !ok || err != nil || id < 0 {
			return nil, fmt.Errorf("%q is not ID@HOST:PORT", e)
		}
		if addr, err = hostPort(addr); err != nil {
			return nil, err
		}
		b := ident.Broker(id)
		if ids[b] || addrs[addr] {
			return nil, fmt.Errorf("%q names a broker or an address for the second time", e)
		}
		ids[b], addrs[addr] = true, true
		out = append(out, peerAddr{b, addr})
	}
	return out, nil
}

// voters are the first brokers of a list, as many as the largest odd number of at most five.
func voters(list []peerAddr) []peerAddr {
	n := min(len(list), maxVoters)
	if n%2 == 0 && n > 0 {
		n--
	}
	return list[:n]
}

func addresses(v string) ([]string, error) {
	if v == "" {
		return nil, nil
	}
	list, err := splitList(v)
	if err != nil {
		return nil, err
	}
	for i, a := range list {
		if list[i], err = hostPort(a); err != nil {
			return nil, err
		}
	}
	return list, nil
}

func optionalAddress(v string) (string, error) {
	if v == "" {
		return "", nil
	}
	return hostPort(v)
}

// own is this broker's entry of --peers.
func (s settings) own() (peerAddr, bool) {
	for _, p := range s.peers {
		if p.id == s.nodeID {
			return p, true
		}
	}
	return peerAddr{}, false
}

// listenInternal is the address of the internal listener, "" for none. known is what a former start used.
func (s settings) listenInternal(known string) string {
	own, listed := s.own()
	switch {
	case s.internal != "":
		return s.internal
	case listed:
		return own.addr
	case known != "":
		return known
	case len(s.join) > 0:
		return internalDefault
	}
	return ""
}

// checkCluster looks at what a cluster needs.
func (s settings) checkCluster() error {
	var problems []error
	own, listed := s.own()
	if len(s.peers) > 0 && !listed {
		problems = append(problems, fmt.Errorf("peers: broker %d (node-id) is not in the list", s.nodeID))
	}
	if len(s.peers) > 0 && len(s.join) > 0 {
		problems = append(problems, errors.New("peers and join: a cluster forms by a list, or is joined"))
	}
	if listed && strings.HasSuffix(own.addr, ":0") && len(s.peers) > 1 {
		problems = append(problems, fmt.Errorf("peers: %s: others cannot know a port that is chosen at the start", own.addr))
	}
	if host, _, err := net.SplitHostPort(s.internal); err == nil && !listed && s.advertiseIn == "" {
		if ip := net.ParseIP(host); host == "" || ip != nil && ip.IsUnspecified() {
			problems = append(problems, fmt.Errorf("internal %s: other brokers cannot be told an unspecified address: give --internal-advertise", s.internal))
		}
	}
	if f := s.internalTLS; !f.Empty() && (f.Cert == "" || f.Key == "" || f.CA == "") {
		problems = append(problems, errors.New("internal-tls-cert, internal-tls-key and internal-tls-ca go together"))
	}
	if f := s.etcdTLS; (f.Cert == "") != (f.Key == "") {
		problems = append(problems, errors.New("etcd-cert and etcd-key go together"))
	}
	if !s.etcdTLS.Empty() && len(s.etcd) == 0 && len(s.join) == 0 {
		problems = append(problems, errors.New("etcd-ca, etcd-cert and etcd-key are for an external etcd: give its URLs in --etcd"))
	}
	return errors.Join(problems...)
}
