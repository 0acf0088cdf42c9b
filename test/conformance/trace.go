package main

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"

	"github.com/twmb/franz-go/pkg/kmsg"
)

// trace is the set of requests that one client was seen to send.
type trace struct {
	mu   sync.Mutex
	seen map[apiKey]int // guarded by mu
}

func (t *trace) add(api apiKey) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.seen[api]++
}

// String lists names and versions in the order of the keys: Produce 9,13; Fetch 17.
func (t *trace) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	versions := map[int16][]string{}
	var keys []int16
	for api := range t.seen {
		if versions[api.key] == nil {
			keys = append(keys, api.key)
		}
		versions[api.key] = append(versions[api.key], fmt.Sprint(api.version))
	}
	slices.Sort(keys)
	var out []string
	for _, k := range keys {
		slices.Sort(versions[k])
		out = append(out, kmsg.NameForKey(k)+" "+strings.Join(versions[k], ","))
	}
	return strings.Join(out, "; ")
}

// runTraced runs the matrix with a proxy before each client and prints which
// requests, in which versions, each client sent.
func (m *matrix) runTraced(ctx context.Context) error {
	brokers, err := m.stage.adm.ListBrokers(ctx)
	if err != nil || len(brokers) != 1 {
		return fmt.Errorf("trace: it needs a cluster of one broker, got %d, error %v", len(brokers), err)
	}
	m.stage.proxies = map[string]*proxy{}
	for _, c := range m.chosen.clients {
		p, err := startProxy(m.stage.addr)
		if err != nil {
			return err
		}
		defer p.close()
		p.trace = &trace{seen: map[apiKey]int{}}
		m.stage.proxies[c.name] = p
	}
	m.run(ctx)
	for _, c := range m.chosen.clients {
		fmt.Printf("%s: %s\n", c.name, m.stage.proxies[c.name].trace)
	}
	fmt.Println()
	return nil
}
