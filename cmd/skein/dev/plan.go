package dev

import (
	"fmt"
	"net"
	"path/filepath"
	"strconv"
	"strings"
)

// Spec is where one broker of the cluster lives.
type Spec struct {
	ID       int
	Dir      string // its data
	Listen   string // Kafka clients
	Internal string // the other brokers
	HTTP     string
}

// portStep is between two brokers: each has ten ports of its own.
const portStep = 10

// SpecOf is the place of broker id, from 1: its data in DIR/ID, its Kafka port BASE + 10 (ID-1), the internal port one
// above and the HTTP port two above that.
func SpecOf(dir string, base, id int) (Spec, error) {
	port := base + portStep*(id-1)
	if id < 1 || port < 1 || port+2 > 65535 {
		return Spec{}, fmt.Errorf("broker %d: port %d is not between 1 and 65533", id, port)
	}
	addr := func(p int) string { return net.JoinHostPort("127.0.0.1", strconv.Itoa(p)) }
	return Spec{ID: id, Dir: filepath.Join(dir, strconv.Itoa(id)), Listen: addr(port), Internal: addr(port + 1), HTTP: addr(port + 2)}, nil
}

// Voters is how many of n brokers vote: the greatest of 1, 3 and 5 that n allows.
func Voters(n int) int {
	switch {
	case n >= 5:
		return 5
	case n >= 3:
		return 3
	default:
		return 1
	}
}

// ServeArgs are the arguments of `skein serve` for a broker. The voters form the cluster with each other; every other
// broker joins through any of them. A cluster of one that nobody joins needs no internal listener.
func ServeArgs(s Spec, voters []Spec, alone bool) []string {
	args := []string{"serve", "--data", s.Dir, "--node-id", strconv.Itoa(s.ID), "--listen", s.Listen, "--http", s.HTTP}
	if alone {
		return args
	}
	args = append(args, "--internal", s.Internal)
	var peers, join []string
	member := false
	for _, v := range voters {
		peers = append(peers, fmt.Sprintf("%d@%s", v.ID, v.Internal))
		join = append(join, v.Internal)
		member = member || v.ID == s.ID
	}
	if member {
		return append(args, "--peers", strings.Join(peers, ","))
	}
	return append(args, "--join", strings.Join(join, ","))
}
