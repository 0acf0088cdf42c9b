package queuemapper

import (
	"context"
	"fmt"
	"strconv"
	"strings"

	"github.com/skeinmq/skein/internal/ident"
)

// kindReplicas is the kind of the dynamic configs that hold the replica lists which somebody asked for, by partition; the
// name is the topic's id. They decide nothing but what tools are shown, and who is preferred: the first broker of a list.
const kindReplicas = "replicas"

// Assignments are the replica lists of a topic's partitions that somebody asked for. The zero value has none.
type Assignments struct{ lists map[string]string }

// Assignments returns the lists of a topic.
func (m *Map) Assignments(topic ident.Topic) Assignments {
	return Assignments{m.Dynamic(kindReplicas, topic.String())}
}

// Of is the list of a partition, nil if nobody asked for one.
func (a Assignments) Of(index int32) []ident.Broker {
	if a.lists == nil {
		return nil
	}
	text, ok := a.lists[strconv.Itoa(int(index))]
	if !ok {
		return nil
	}
	return parseReplicas(text)
}

// parseReplicas reads a list; nil: it is nothing of ours.
func parseReplicas(text string) []ident.Broker {
	out := make([]ident.Broker, 0, 1+strings.Count(text, ","))
	for id := range strings.SplitSeq(text, ",") {
		n, err := strconv.ParseInt(id, 10, 32)
		if err != nil {
			return nil
		}
		out = append(out, ident.Broker(n))
	}
	return out
}

func formatReplicas(list []ident.Broker) string {
	var b strings.Builder
	for i, id := range list {
		if i > 0 {
			b.WriteByte(',')
		}
		b.WriteString(strconv.Itoa(int(id)))
	}
	return b.String()
}

// Assign records replica lists of a topic's partitions; a nil list is forgotten, and those of other partitions stay.
func (s *Store) Assign(ctx context.Context, topic ident.Topic, lists map[int32][]ident.Broker) error {
	if s.Map().TopicByID(topic) == nil {
		return fmt.Errorf("assign replicas of topic %s: %w", topic, ErrNotFound)
	}
	return s.SetDynamic(ctx, kindReplicas, topic.String(), func(was map[string]string) (map[string]string, error) {
		for index, list := range lists {
			if list == nil {
				delete(was, strconv.Itoa(int(index)))
			} else {
				was[strconv.Itoa(int(index))] = formatReplicas(list)
			}
		}
		return was, nil
	})
}
