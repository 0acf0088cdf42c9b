package main

import (
	"context"
	"fmt"
	"slices"
	"strings"
)

// client is one line of the table.
type client struct {
	name    string
	loose   bool                                                                // see record.Set
	lacks   map[string]string                                                   // parts of the admin case this client has no call for, with the reason
	na      map[string]string                                                   // cases this client cannot do, with the reason
	install func(ctx context.Context, in *installer) (argv []string, err error) // fetches what is missing; the command that serves cases
	tool    *toolCase                                                           // set for a line of Apache Kafka's tools
}

var clientCases = []string{"admin", "none", "gzip", "snappy", "lz4", "zstd", "start", "timestamp", "midbatch", "group", "commit", "idempotent"}

func (c client) cases() []string {
	if c.tool != nil {
		return []string{"tool"}
	}
	return clientCases
}

func clients() []client {
	var out []client
	for _, v := range []string{"2.4.1", "3.9.2", "4.3.0", "4.4.0"} {
		out = append(out, client{name: "java-" + v, install: func(ctx context.Context, in *installer) ([]string, error) { return in.java(ctx, v) }})
	}
	out = append(out, client{
		name: "kcat", loose: true,
		na:      map[string]string{"admin": "kcat has no admin calls"},
		install: func(ctx context.Context, in *installer) ([]string, error) { return in.kcat(ctx) },
	})
	for _, name := range []string{"confluent", "kafka-python", "aiokafka"} {
		c := client{name: name, install: func(ctx context.Context, in *installer) ([]string, error) { return in.python(ctx, name) }}
		if name == "aiokafka" {
			c.lacks = map[string]string{"delete-group": "aiokafka has no call to delete a group"}
		}
		out = append(out, c)
	}
	out = append(out, client{name: "kafkajs", install: func(ctx context.Context, in *installer) ([]string, error) { return in.node(ctx) }})
	for _, name := range []string{"franz-go", "sarama", "sarama-max", "kafka-go"} {
		c := client{name: name, install: func(_ context.Context, in *installer) ([]string, error) {
			return []string{in.self, "client", name}, nil
		}}
		if name == "kafka-go" {
			c.na = map[string]string{"idempotent": "kafka-go has no idempotent producer"}
			c.lacks = map[string]string{"delete-records": "kafka-go has no call to delete records"}
		}
		out = append(out, c)
	}
	for _, t := range slices.Concat(toolCases, clusterToolCases) {
		out = append(out, client{name: t.name, tool: &t})
	}
	return out
}

// selection is what --only and --cases leave.
type selection struct {
	clients []client
	cases   map[string]bool
}

func choose(o options) (selection, error) {
	s := selection{cases: map[string]bool{}}
	for _, name := range append([]string{"tool"}, clientCases...) {
		s.cases[name] = len(o.cases) == 0 || slices.Contains(o.cases, name)
	}
	for _, name := range o.cases {
		if _, ok := s.cases[name]; !ok {
			return s, fmt.Errorf("choose cases: unknown case %q; cases are %s and tool", name, strings.Join(clientCases, ", "))
		}
	}
	matched := map[string]bool{}
	for _, c := range clients() {
		picked := len(o.only) == 0
		for _, name := range o.only {
			if c.name == name || strings.HasPrefix(c.name, name) || (name == "tools" && c.tool != nil) || (name == "cluster" && c.tool != nil && c.tool.brokers > 1) {
				picked, matched[name] = true, true
			}
		}
		if picked {
			s.clients = append(s.clients, c)
		}
	}
	for _, name := range o.only {
		if !matched[name] {
			return s, fmt.Errorf("choose clients: unknown client %q; --list shows all", name)
		}
	}
	return s, nil
}
