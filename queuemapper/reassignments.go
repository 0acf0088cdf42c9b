package queuemapper

import (
	"cmp"
	"context"
	"fmt"
	"iter"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/skeinmq/skein/internal/ident"
)

// kindReassign is the kind of the dynamic configs that hold the reassignments which take longer than whoever asked for them
// waits, by partition; the name is the topic's id.
const kindReassign = "reassign"

// Reassignment is a partition on its way to the first broker of a list of replicas.
type Reassignment struct {
	Replicas []ident.Broker // never empty
	From     ident.Broker   // who owned it when it was asked for
	// Worker takes it there, in this incarnation. When it is gone another broker puts itself in its place.
	Worker      ident.Broker
	Incarnation int64
}

// format is the text of a reassignment: the list, where it was, and who works on it, as 2,1,3 from 1 by 3@17.
func (r *Reassignment) format() string {
	return fmt.Sprintf("%s from %d by %d@%d", formatReplicas(r.Replicas), r.From, r.Worker, r.Incarnation)
}

func parseReassignment(text string) (r Reassignment, ok bool) {
	list, rest, _ := strings.Cut(text, " ")
	if r.Replicas = parseReplicas(list); len(r.Replicas) == 0 {
		return r, false
	}
	_, err := fmt.Sscanf(rest, "from %d by %d@%d", &r.From, &r.Worker, &r.Incarnation)
	return r, err == nil
}

// Reassignment returns the one of a partition that goes on.
func (m *Map) Reassignment(p ident.Partition) (Reassignment, bool) {
	text, ok := m.Dynamic(kindReassign, p.Topic.String())[strconv.Itoa(int(p.Index))]
	if !ok {
		return Reassignment{}, false
	}
	return parseReassignment(text)
}

// Reassignments iterates all that go on, by topic id and partition.
func (m *Map) Reassignments() iter.Seq2[ident.Partition, Reassignment] {
	return func(yield func(ident.Partition, Reassignment) bool) {
		for name := range m.DynamicNames(kindReassign) {
			topic, err := ident.ParseTopic(name)
			if err != nil {
				continue
			}
			of := readReassignments(m.Dynamic(kindReassign, name))
			for _, index := range slices.SortedFunc(maps.Keys(of), cmp.Compare[int32]) {
				if !yield(ident.Partition{Topic: topic, Index: index}, of[index]) {
					return
				}
			}
		}
	}
}

func readReassignments(configs map[string]string) map[int32]Reassignment {
	out := make(map[int32]Reassignment, len(configs))
	for name, text := range configs {
		index, err := strconv.ParseInt(name, 10, 32)
		if r, ok := parseReassignment(text); ok && err == nil {
			out[int32(index)] = r
		}
	}
	return out
}

// Reassign changes what goes on for partitions of a topic: fn gets it by partition and changes it. It may be called again after
// a conflict. ErrNotFound: the topic is gone.
func (s *Store) Reassign(ctx context.Context, topic ident.Topic, fn func(of map[int32]Reassignment)) error {
	if s.Map().TopicByID(topic) == nil {
		return fmt.Errorf("reassign partitions of topic %s: %w", topic, ErrNotFound)
	}
	return s.SetDynamic(ctx, kindReassign, topic.String(), func(was map[string]string) (map[string]string, error) {
		of := readReassignments(was)
		fn(of)
		is := make(map[string]string, len(of))
		for index, r := range of {
			is[strconv.Itoa(int(index))] = r.format()
		}
		return is, nil
	})
}
