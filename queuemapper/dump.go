package queuemapper

import (
	"context"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"strconv"
	"strings"

	"go.etcd.io/etcd/api/v3/mvccpb"

	"github.com/skeinmq/skein/internal/ident"
)

// Dump iterates every key and its decoded value as JSON, for `skein meta dump`, in key order
// and as of one revision. A value that cannot be decoded is shown as {"error", "bytes"}. It
// stops at fn's first error.
func (s *Store) Dump(ctx context.Context, fn func(key string, json []byte) error) error {
	kvs, _, err := s.readAll(ctx)
	if err != nil {
		return fmt.Errorf("dump map: %w", err)
	}
	for _, kv := range kvs {
		v, err := describe(strings.TrimPrefix(string(kv.Key), s.cfg.Prefix), kv)
		if err != nil {
			v = map[string]any{"error": err.Error(), "bytes": hex.EncodeToString(kv.Value)}
		}
		out, err := json.Marshal(shownNext(v, kv.Value))
		if err != nil {
			return fmt.Errorf("dump map key %s: %w", kv.Key, err)
		}
		if err := fn(string(kv.Key), out); err != nil {
			return err
		}
	}
	return nil
}

// dumped is a value with the revision that etcd gave it.
type dumped[V any] struct {
	Revision int64 `json:"revision"`
	Value    V     `json:"value"`
}

func describe(key string, kv *mvccpb.KeyValue) (any, error) {
	switch dir, name := cutKey(key); dir {
	case keyCluster:
		c, err := decodeCluster(kv.Value)
		return dumped[Cluster]{kv.ModRevision, c}, err
	case keyLevel:
		l, err := decodeLevel(kv.Value)
		return dumped[Level]{kv.ModRevision, l}, err
	case keyController:
		c, err := decodeController(kv.Value)
		return dumped[Controller]{kv.ModRevision, c}, err
	case keyTopics:
		t, err := decodeTopic(name, kv.Value, kv.ModRevision)
		if err != nil {
			return nil, err
		}
		return dumped[topicJSON]{kv.ModRevision, topicJSON{t.ID.String(), t.ReplicationFactor, t.Configs, listed(t.Partitions)}}, nil
	case keyGroups:
		n, err := strconv.Atoi(name)
		if err != nil {
			return nil, err
		}
		g, err := decodeGroup(ident.Group(n), kv.Value, kv.ModRevision, nil)
		if err != nil {
			return nil, err
		}
		return dumped[groupJSON]{kv.ModRevision, describeGroup(g)}, nil
	case keyLogs:
		id, err := ident.ParseLog(name)
		if err != nil {
			return nil, err
		}
		l, err := decodeLog(id, kv.Value, kv.ModRevision)
		if err != nil {
			return nil, err
		}
		return dumped[logJSON]{kv.ModRevision, logJSON{l.Host, l.Epoch, l.Begun, l.State.String(), listed(l.Witnesses)}}, nil
	case keyBrokers:
		id, err := parseBroker(name)
		if err != nil {
			return nil, err
		}
		b, err := decodeBroker(id, kv.Value)
		if err != nil {
			return nil, err
		}
		shown := *b
		shown.Roles = listed(b.Roles)
		return dumped[Broker]{kv.ModRevision, shown}, nil
	case keyIncarnations:
		r := open(kindIncarnation, kv.Value)
		return dumped[struct{}]{kv.ModRevision, struct{}{}}, r.done()
	case keyConfigs:
		c, err := decodeConfigs(kv.Value)
		return dumped[map[string]string]{kv.ModRevision, c}, err
	}
	return nil, fmt.Errorf("unknown key")
}

// String is the state's name in the rules: OPEN or SEALED.
func (s LogState) String() string {
	if s == LogSealed {
		return "SEALED"
	}
	return "OPEN"
}

type topicJSON struct {
	ID                string            `json:"id"`
	ReplicationFactor int16             `json:"replicationFactor"`
	Configs           map[string]string `json:"configs,omitempty"`
	Partitions        []Placement       `json:"partitions"`
}

type logJSON struct {
	Host      ident.Broker   `json:"host"`
	Epoch     ident.LogEpoch `json:"epoch"`
	Begun     ident.LogEpoch `json:"begun"`
	State     string         `json:"state"`
	Witnesses []Witness      `json:"witnesses"`
}

type groupJSON struct {
	Starts      map[string]ident.Offset `json:"starts,omitempty"`
	Generations []generationJSON        `json:"generations"`
}

type generationJSON struct {
	Epoch   ident.Epoch             `json:"epoch"`
	Log     string                  `json:"log"`
	Frame   string                  `json:"frame"`
	Ceiling ident.Offset            `json:"ceiling,omitempty"`
	Sealed  bool                    `json:"sealed"`
	Gap     bool                    `json:"gap,omitempty"`
	Ends    map[string]ident.Offset `json:"ends,omitempty"`
	Lost    map[string][]Range      `json:"lost,omitempty"`
}

func describeGroup(g *Group) groupJSON {
	out := groupJSON{Starts: named(g.Starts), Generations: []generationJSON{}}
	for _, gen := range g.Generations {
		out.Generations = append(out.Generations, generationJSON{
			gen.Epoch, gen.Log.String(), gen.Frame.String(), gen.Ceiling, gen.Sealed, gen.Gap, named(gen.Ends), named(gen.Lost),
		})
	}
	return out
}

// listed is a list that JSON shows as one also when it is empty.
func listed[V any](list []V) []V { return append([]V{}, list...) }

func named[V any](m map[ident.Partition]V) map[string]V {
	out := make(map[string]V, len(m))
	for p, v := range m {
		out[p.String()] = v
	}
	return out
}
